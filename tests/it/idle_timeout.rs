//! Threads that end when they have had nothing to do for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use concurrent_futures::ThreadPoolExecutor;

use crate::support::*;

#[test]
fn idle_threads_end_and_come_back() {
    guarded(|| {
        let ended = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&ended);
        let pool = ThreadPoolExecutor::builder()
            .max_workers(3)
            .idle_timeout(Duration::from_millis(1))
            .finalizer(move || {
                count.fetch_add(1, SeqCst);
            })
            .build()
            .unwrap();
        for round in 1..=5 {
            Plug::new(&pool, 3).release();
            until(|| pool.stats().workers == 0);
            until(|| ended.load(SeqCst) >= 3 * round);
        }
        assert_eq!(pool.stats().completed, 15);
    });
}

#[test]
fn a_busy_thread_stays() {
    guarded(|| {
        let pool = ThreadPoolExecutor::builder().max_workers(2).idle_timeout(Duration::ZERO).build().unwrap();
        let plug = Plug::new(&pool, 1);
        pool.submit(|| ()).result().unwrap();
        until(|| pool.stats().workers == 1);
        assert_eq!(pool.stats().busy, 1);
        plug.release();
        until(|| pool.stats().workers == 0);
    });
}

#[test]
fn without_it_threads_stay() {
    guarded(|| {
        let pool = pool(2);
        Plug::new(&pool, 2).release();
        // A second pool's whole life later they are still there.
        let other =
            ThreadPoolExecutor::builder().max_workers(2).idle_timeout(Duration::from_millis(5)).build().unwrap();
        Plug::new(&other, 2).release();
        until(|| other.stats().workers == 0);
        assert_eq!(pool.stats().workers, 2);
    });
}

// A submit meets the moment at which the last thread gives up.
#[test]
fn no_task_is_lost_to_a_thread_that_ends() {
    guarded(|| {
        let pool =
            ThreadPoolExecutor::builder().max_workers(2).idle_timeout(Duration::from_micros(20)).build().unwrap();
        for round in rounds(3000) {
            let future = pool.submit(move || round);
            assert_eq!(future.result().unwrap(), round);
            for _ in 0..round {
                std::hint::spin_loop();
            }
        }
    });
}

#[test]
fn for_ever_is_a_time_too() {
    guarded(|| {
        let pool = ThreadPoolExecutor::builder().max_workers(1).idle_timeout(Duration::MAX).build().unwrap();
        assert_eq!(pool.submit(|| 1).result().unwrap(), 1);
        assert_eq!(pool.stats().workers, 1);
    });
}
