//! Pools that grow and shrink.

use std::sync::Arc;
use std::thread;

use concurrent_futures::{BuildError, MAX_WORKERS, Shutdown};

use crate::support::*;

#[test]
fn sizes_that_make_no_sense() {
    let pool = pool(2);
    assert_eq!(pool.resize(0), Err(BuildError::NoWorkers));
    assert_eq!(
        pool.resize(MAX_WORKERS + 1),
        Err(BuildError::TooManyWorkers { asked: MAX_WORKERS + 1, limit: MAX_WORKERS })
    );
    assert_eq!(pool.stats().max_workers, 2);
}

#[test]
fn growing_starts_threads_for_what_is_queued() {
    guarded(|| {
        let pool = pool(1);
        let plug = Plug::new(&pool, 1);
        let futures: Vec<_> = (0..10).map(|n| pool.submit(move || n)).collect();
        pool.resize(2).unwrap();
        // The first worker is still busy: it is the second one that runs these.
        assert_eq!(futures.into_iter().map(|future| future.result().unwrap()).sum::<i32>(), 45);
        assert_eq!(pool.stats().workers, 2);
        plug.release();
    });
}

#[test]
fn shrinking_ends_idle_threads() {
    guarded(|| {
        let pool = pool(6);
        Plug::new(&pool, 6).release();
        pool.resize(2).unwrap();
        until(|| pool.stats().workers == 2);
        Plug::new(&pool, 2).release();
        assert_eq!(pool.submit(|| 1).result().unwrap(), 1);
        assert_eq!(pool.stats().workers, 2);
        pool.resize(6).unwrap();
        Plug::new(&pool, 6).release();
        assert_eq!(pool.stats().workers, 6);
    });
}

#[test]
fn shrinking_ends_busy_threads_after_their_task() {
    guarded(|| {
        let pool = pool(4);
        let plug = Plug::new(&pool, 4);
        let futures: Vec<_> = (0..100).map(|n| pool.submit(move || n)).collect();
        pool.resize(1).unwrap();
        assert_eq!(pool.stats().workers, 4, "no running task is interrupted");
        plug.release();
        assert_eq!(futures.into_iter().map(|future| future.result().unwrap()).sum::<i32>(), 4950);
        until(|| pool.stats().workers == 1);
    });
}

// What a surplus worker had in its own queue is not lost with it.
#[test]
fn tasks_submitted_inside_survive_the_end_of_their_worker() {
    guarded(|| {
        for _ in 0..100 {
            let pool = Arc::new(pool(3));
            let plug = Plug::new(&pool, 2);
            let inner = Arc::clone(&pool);
            let outer = pool.submit(move || {
                let futures: Vec<_> = (0..20).map(|n| inner.submit(move || n)).collect();
                inner.resize(1).unwrap();
                futures
            });
            let futures = outer.result().unwrap();
            plug.release();
            assert_eq!(futures.into_iter().map(|future| future.result().unwrap()).sum::<i32>(), 190);
        }
    });
}

#[test]
fn while_everything_goes_on() {
    guarded(|| {
        let pool = Arc::new(pool(4));
        let stop = Gate::new();
        let submitters: Vec<_> = (0..2)
            .map(|_| {
                let pool = Arc::clone(&pool);
                thread::spawn(move || {
                    for round in 0..200u64 {
                        let futures: Vec<_> = (0..20).map(|n| pool.submit(move || n + round)).collect();
                        let sum: u64 = futures.into_iter().map(|future| future.result().unwrap()).sum();
                        assert_eq!(sum, 190 + 20 * round);
                    }
                })
            })
            .collect();
        let resizer = {
            let (pool, stop) = (Arc::clone(&pool), stop.clone());
            thread::spawn(move || {
                for size in (1..=6).cycle() {
                    pool.resize(size).unwrap();
                    thread::yield_now();
                    if stop.is_open() {
                        return;
                    }
                }
            })
        };
        submitters.into_iter().for_each(|submitter| submitter.join().unwrap());
        stop.open();
        resizer.join().unwrap();
        pool.resize(1).unwrap();
        until(|| pool.stats().workers <= 1);
        assert_eq!(pool.stats().completed, 2 * 200 * 20);
    });
}

#[test]
fn after_the_end() {
    guarded(|| {
        let pool = pool(2);
        pool.submit(|| ()).result().unwrap();
        pool.shutdown(Shutdown::Wait).unwrap();
        pool.resize(5).unwrap();
        assert_eq!(pool.stats().workers, 0);
        assert!(pool.submit(|| ()).result().unwrap_err().is_shut_down());
    });
}
