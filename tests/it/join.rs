//! `join` of two closures.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex};

use concurrent_futures::{Shutdown, ThreadPoolExecutor};

use crate::support::*;

fn fib(pool: &ThreadPoolExecutor, n: u64) -> u64 {
    if n < 2 {
        return n;
    }
    let (a, b) = pool.join(|| fib(pool, n - 1), || fib(pool, n - 2));
    a + b
}

#[test]
fn divide_and_conquer() {
    guarded(|| {
        for workers in 1..4 {
            let pool = pool(workers);
            for _ in 0..5 {
                assert_eq!(fib(&pool, 16), 987);
            }
        }
    });
}

#[test]
fn both_at_the_same_time() {
    guarded(|| {
        let (pool, both) = (pool(2), Barrier::new(2));
        for _ in 0..200 {
            let (a, b) = pool.join(|| both.wait().is_leader(), || both.wait().is_leader());
            assert_ne!(a, b);
        }
    });
}

#[test]
fn one_after_the_other_on_one_thread() {
    guarded(|| {
        let (pool, order) = (pool(1), Mutex::new(Vec::new()));
        pool.join(|| order.lock().unwrap().push('a'), || order.lock().unwrap().push('b'));
        assert_eq!(*order.lock().unwrap(), ['a', 'b']);
    });
}

#[test]
fn panics() {
    guarded(|| {
        for workers in 1..3 {
            let (pool, ran) = (pool(workers), AtomicUsize::new(0));
            let count = || ran.fetch_add(1, SeqCst);
            let fail = |text: &'static str| move || -> usize { panic!("{text}, as this test wants it") };
            let first = catch_unwind(AssertUnwindSafe(|| pool.join(fail("first"), count))).unwrap_err();
            assert!(message(&*first).starts_with("first"));
            let second = catch_unwind(AssertUnwindSafe(|| pool.join(count, fail("second")))).unwrap_err();
            assert!(message(&*second).starts_with("second"));
            let both = catch_unwind(AssertUnwindSafe(|| pool.join(fail("first"), fail("second")))).unwrap_err();
            assert!(message(&*both).starts_with("first"));
            assert!(ran.load(SeqCst) >= 1);
            assert_eq!(pool.join(|| 1, || 2), (1, 2));
        }
    });
}

#[test]
fn borrowed_data_outlives_both() {
    guarded(|| {
        let pool = pool(2);
        for _ in 0..500 {
            let mut halves = ([0u32; 8], [0u32; 8]);
            let (left, right) = (&mut halves.0, &mut halves.1);
            let failing = AssertUnwindSafe(|| {
                pool.join(
                    || {
                        left.fill(1);
                        std::panic::resume_unwind(Box::new(()));
                    },
                    || right.fill(2),
                )
            });
            assert!(catch_unwind(failing).is_err());
            // Both have ended: nothing writes here any more. (The second one may not have begun.)
            assert_eq!(halves.0, [1; 8]);
            assert!(halves.1 == [0; 8] || halves.1 == [2; 8]);
        }
    });
}

#[test]
fn of_a_closed_pool() {
    guarded(|| {
        let pool = pool(1);
        pool.shutdown(Shutdown::Wait).unwrap();
        let ran = AtomicUsize::new(0);
        let count = || ran.fetch_add(1, SeqCst);
        let panic = catch_unwind(AssertUnwindSafe(|| pool.join(count, count))).unwrap_err();
        assert!(message(&*panic).contains("shut down"), "{}", message(&*panic));
        assert_eq!(ran.load(SeqCst), 0);
    });
}

#[test]
fn beside_ordinary_tasks() {
    guarded(|| {
        let pool = Arc::new(pool(2));
        let futures: Vec<_> = (0..20)
            .map(|n| {
                let inner = Arc::clone(&pool);
                pool.submit(move || {
                    let future = inner.submit(move || n);
                    let (a, b) = inner.join(|| fib(&inner, 8), || fib(&inner, 7));
                    a + b + future.result().unwrap()
                })
            })
            .collect();
        let sum: u64 = futures.into_iter().map(|future| future.result().unwrap()).sum();
        assert_eq!(sum, 20 * 34 + 190);
    });
}

#[test]
fn across_two_pools() {
    guarded(|| {
        let (one, two) = (pool(1), pool(1));
        let (a, (b, c)) = one.join(|| 1, || two.join(|| 2, || one.submit(|| 3)));
        assert_eq!((a, b, c.result().unwrap()), (1, 2, 3));
    });
}
