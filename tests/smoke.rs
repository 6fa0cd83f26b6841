//! smoke
use concurrent_futures::*;
use std::sync::*;
use std::time::Duration;

#[test]
fn basics() {
    let pool = ThreadPoolExecutor::new(2).unwrap();
    assert_eq!(pool.submit(|| 1 + 1).result().unwrap(), 2);
    let fs: Vec<_> = (0..1000u64).map(|i| pool.submit(move || i)).collect();
    let mut sum = 0;
    for f in as_completed(fs) {
        sum += f.result().unwrap();
    }
    assert_eq!(sum, 499500);
    let v: Vec<u64> = pool.map(|x| x * 2, 0..100_000u64).map(|r| r.unwrap()).collect();
    assert!(v.iter().enumerate().all(|(i, x)| *x == 2 * i as u64));
    let v: Vec<u64> = pool
        .map_with(MapOptions::new().buffer(7).chunk_size(3), |x| x * 2, 0..10_000u64)
        .unwrap()
        .map(|r| r.unwrap())
        .collect();
    assert!(v.iter().enumerate().all(|(i, x)| *x == 2 * i as u64));
    assert_eq!(v.len(), 10_000);
}

fn nested(pool: &Arc<ThreadPoolExecutor>, depth: usize) -> usize {
    if depth == 0 {
        return 0;
    }
    let p = pool.clone();
    pool.submit(move || nested(&p, depth - 1) + 1).result().unwrap()
}

#[test]
fn nest() {
    let pool = Arc::new(ThreadPoolExecutor::new(1).unwrap());
    let p = pool.clone();
    assert_eq!(pool.submit(move || nested(&p, 1000)).result().unwrap(), 1000);
}

#[test]
fn selfwait() {
    let pool = ThreadPoolExecutor::new(1).unwrap();
    let (tx, rx) = mpsc::channel::<SharedFuture<bool>>();
    let f = pool.submit(move || rx.recv().unwrap().result().unwrap_err().is_would_deadlock()).shared();
    tx.send(f.clone()).unwrap();
    assert!(f.result().unwrap());
}

fn fib(pool: &ThreadPoolExecutor, n: u64) -> u64 {
    if n < 12 {
        return seq(n);
    }
    let (a, b) = pool.join(|| fib(pool, n - 1), || fib(pool, n - 2));
    a + b
}
fn seq(n: u64) -> u64 {
    if n < 2 { n } else { seq(n - 1) + seq(n - 2) }
}

#[test]
fn joins() {
    let pool = ThreadPoolExecutor::new(2).unwrap();
    for _ in 0..20 {
        assert_eq!(fib(&pool, 25), 75025);
    }
}

#[test]
fn scopes() {
    let pool = ThreadPoolExecutor::new(3).unwrap();
    let data = vec![1u64; 1000];
    let n = atomic::AtomicU64::new(0);
    for _ in 0..100 {
        pool.scope(|s| {
            for c in data.chunks(10) {
                let n = &n;
                let _ = s.submit(move || n.fetch_add(c.iter().sum::<u64>(), atomic::Ordering::Relaxed));
            }
        });
    }
    assert_eq!(n.into_inner(), 100_000);
}

#[test]
fn cancel_and_timeouts() {
    let pool = ThreadPoolExecutor::new(1).unwrap();
    let (tx, rx) = mpsc::channel::<()>();
    let a = pool.submit(move || rx.recv().unwrap());
    let b = pool.submit(|| 1);
    let b = b.result_timeout(Duration::from_millis(10)).unwrap_err();
    assert!(b.cancel());
    let w = wait([b], None, ReturnWhen::AllCompleted);
    assert!(w.done[0].is_cancelled());
    tx.send(()).unwrap();
    a.result().unwrap();
    assert_eq!(pool.stats().workers, 1);
}
