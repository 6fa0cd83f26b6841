//! What Python tests of every executor, on the thread pool.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::Duration;

use concurrent_futures::{BuildError, MAX_WORKERS, MapError, MapOptions, Shutdown, TaskError, ThreadPoolExecutor};

use crate::support::*;

/// The values of a map that must not fail.
fn values<R>(results: impl Iterator<Item = Result<R, TaskError>>) -> Vec<R> {
    results.map(Result::unwrap).collect()
}

#[test]
fn submit() {
    guarded(|| {
        let pool = pool(2);
        assert_eq!(pool.submit(|| 2u32.pow(8)).result().unwrap(), 256);
        let (base, exponent) = (String::from("3"), 4);
        assert_eq!(pool.submit(move || base.parse::<u32>().unwrap().pow(exponent)).result().unwrap(), 81);
    });
}

#[test]
fn map() {
    guarded(|| {
        let pool = pool(2);
        let expected: Vec<u64> = (0..10).map(|n: u64| n.pow(n as u32)).collect();
        let inputs = || (0..10u64).zip(0..10u32);
        let power = |(base, exponent): (u64, u32)| base.pow(exponent);
        assert_eq!(values(pool.map(power, inputs())), expected);
        let chunked = pool.map_with(MapOptions::new().chunk_size(3), power, inputs());
        assert_eq!(values(chunked.unwrap()), expected);
        // Two inputs of different lengths: the shorter one decides.
        assert_eq!(values(pool.map(|(a, b)| a + b, (0..3).zip(10..))), [10, 12, 14]);
    });
}

#[test]
fn map_exception() {
    guarded(|| {
        let pool = pool(2);
        for options in [MapOptions::new(), MapOptions::new().chunk_size(1), MapOptions::new().chunk_size(3)] {
            let divide = |divisor: i32| 6 / divisor;
            let mut results = pool.map_with(options, divide, [1, 2, 0, 3, 0, 6]).unwrap();
            assert_eq!(results.next().unwrap().unwrap(), 6);
            assert_eq!(results.next().unwrap().unwrap(), 3);
            let error = results.next().unwrap().unwrap_err();
            assert!(error.is_panicked() && error.to_string().contains("divide by zero"), "{error}");
            assert_eq!(results.next().unwrap().unwrap(), 2);
            assert!(results.next().unwrap().unwrap_err().is_panicked());
            assert_eq!(results.next().unwrap().unwrap(), 1);
            assert!(results.next().is_none());
            assert!(results.next().is_none());
        }
    });
}

#[test]
fn map_timeout() {
    guarded(|| {
        let pool = pool(1);
        let (reached, go_on) = (Gate::new(), Gate::new());
        let f = {
            let (reached, go_on) = (reached.clone(), go_on.clone());
            move |n: u8| {
                if n == 2 {
                    reached.open();
                    go_on.pass();
                }
                n
            }
        };
        let options = MapOptions::new().chunk_size(1).timeout(Duration::ZERO);
        let mut results = pool.map_with(options, f, 0..5).unwrap();
        reached.pass();
        // One worker: what comes before the item that it is at is done, and handed out although the time is up.
        assert_eq!(results.next().unwrap().unwrap(), 0);
        assert_eq!(results.next().unwrap().unwrap(), 1);
        assert!(results.next().unwrap().unwrap_err().is_timed_out());
        assert!(results.next().is_none());
        assert!(results.next().is_none());
        go_on.open();
    });
}

#[test]
fn map_timeout_from_callable() {
    guarded(|| {
        let pool = pool(1);
        let own = |n: u8| if n == 1 { std::panic::panic_any(TaskError::TimedOut) } else { n };
        let options = MapOptions::new().timeout(LIMIT);
        let results: Vec<_> = pool.map_with(options, own, 0..3).unwrap().collect();
        assert_eq!(results.len(), 3);
        assert!(results[1].as_ref().unwrap_err().is_panicked());
        assert_eq!(*results[2].as_ref().unwrap(), 2);
    });
}

#[test]
fn map_buffersize_value_validation() {
    let pool = pool(1);
    let zero = pool.map_with(MapOptions::new().buffer(0), |n: u8| n, 0..4);
    assert_eq!(zero.unwrap_err(), MapError::ZeroBuffer);
    let zero = pool.map_with(MapOptions::new().chunk_size(0), |n: u8| n, 0..4);
    assert_eq!(zero.unwrap_err(), MapError::ZeroChunk);
}

#[test]
fn map_buffersize() {
    guarded(|| {
        let pool = pool(2);
        const N: usize = 40;
        for buffer in [1, 2, N, 2 * N] {
            for chunk in [1, 3, N] {
                let options = MapOptions::new().buffer(buffer).chunk_size(chunk);
                let doubled = pool.map_with(options, |n| 2 * n, 0..N).unwrap();
                assert_eq!(values(doubled), (0..N).map(|n| 2 * n).collect::<Vec<_>>(), "{options:?}");
            }
        }
    });
}

#[test]
fn map_buffersize_on_multiple_iterables() {
    guarded(|| {
        let pool = pool(2);
        for buffer in [1, 2, 4, 8] {
            let sums = pool.map_with(MapOptions::new().buffer(buffer), |(a, b)| a + b, (0..4).zip(10..14)).unwrap();
            assert_eq!(values(sums), [10, 12, 14, 16]);
        }
    });
}

#[test]
fn map_buffersize_on_infinite_iterable() {
    guarded(|| {
        let pool = pool(2);
        for buffer in [1, 2, 100] {
            let strings = pool.map_with(MapOptions::new().buffer(buffer), |n: u64| n.to_string(), 0..).unwrap();
            assert_eq!(values(strings.take(3)), ["0", "1", "2"]);
        }
    });
}

#[test]
fn map_buffersize_on_multiple_infinite_iterables() {
    guarded(|| {
        let pool = pool(2);
        let sums = pool.map_with(MapOptions::new().buffer(3), |(a, b)| a + b, (0u64..).zip(100u64..)).unwrap();
        assert_eq!(values(sums.take(4)), [100, 102, 104, 106]);
    });
}

#[test]
fn map_buffersize_on_empty_iterable() {
    guarded(|| {
        let pool = pool(2);
        let mut empty = pool.map_with(MapOptions::new().buffer(2), |n: u8| n, []).unwrap();
        assert_eq!(empty.size_hint(), (0, Some(0)));
        assert!(empty.next().is_none());
        assert!(pool.map(|n: u8| n, []).next().is_none());
        assert_eq!(pool.stats().workers, 0, "nothing to do, but a thread was started");
    });
}

#[test]
fn map_buffersize_when_buffer_is_full() {
    guarded(|| {
        let pool = pool(2);
        const BUFFER: usize = 8;
        let taken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&taken);
        let inputs = (0..).inspect(move |_| {
            count.fetch_add(1, SeqCst);
        });
        let done = Counter::new();
        let ran = Arc::clone(&done);
        let mut results = pool
            .map_with(
                MapOptions::new().buffer(BUFFER).chunk_size(1),
                move |n: u32| {
                    ran.add();
                    n
                },
                inputs,
            )
            .unwrap();
        assert_eq!(taken.load(SeqCst), BUFFER);
        done.wait_for(BUFFER);
        assert_eq!(taken.load(SeqCst), BUFFER, "inputs were taken although nothing was asked for");
        for n in 0..20 {
            assert_eq!(results.next().unwrap().unwrap(), n);
            assert!(taken.load(SeqCst) <= BUFFER + n as usize + 1);
        }
    });
}

#[test]
fn shutdown_race_issue12456() {
    guarded(|| {
        for workers in 1..4 {
            let pool = pool(workers);
            let futures: Vec<_> = (0..=workers).map(|n| pool.submit(move || n)).collect();
            pool.shutdown(Shutdown::Wait).unwrap();
            for (n, future) in futures.into_iter().enumerate() {
                assert_eq!(future.try_result().expect("everything was run").unwrap(), n);
            }
        }
    });
}

#[test]
fn no_stale_references() {
    guarded(|| {
        let pool = pool(1);
        // The channel says when its last sender is gone.
        let (captured, gone) = mpsc::channel::<()>();
        drop(pool.submit(move || drop(captured.clone())));
        assert!(gone.recv().is_err());
        assert_eq!(pool.stats().workers, 1, "the pool lives on");
    });
}

#[test]
fn max_workers_negative() {
    assert_eq!(ThreadPoolExecutor::new(0).unwrap_err(), BuildError::NoWorkers);
    for asked in [MAX_WORKERS + 1, usize::MAX] {
        let error = ThreadPoolExecutor::new(asked).unwrap_err();
        assert_eq!(error, BuildError::TooManyWorkers { asked, limit: MAX_WORKERS });
    }
    // The most there can be is promised, not started.
    assert_eq!(ThreadPoolExecutor::new(MAX_WORKERS).unwrap().stats().workers, 0);
}

#[test]
fn free_reference() {
    guarded(|| {
        let (pool, drops) = (pool(2), Drops::new());
        let source = drops.clone();
        let mut results = pool.map_with(MapOptions::new().chunk_size(4), move |_| source.token(), 0..4).unwrap();
        for yielded in 1..=4 {
            drop(results.next().unwrap().unwrap());
            assert_eq!(drops.count(), yielded);
        }
    });
}

#[test]
fn swallows_falsey_exceptions() {
    guarded(|| {
        let pool = pool(1);
        // A task that returns an error of its own has a value; one that panics with nothing at all has not.
        let own: Result<Result<(), ()>, TaskError> = pool.submit(|| Err(())).result();
        assert!(matches!(own, Ok(Err(()))));
        assert!(pool.submit(|| -> () { std::panic::panic_any(()) }).result().unwrap_err().is_panicked());
        assert!(pool.submit(|| -> () { panic!("") }).result().unwrap_err().is_panicked());
    });
}
