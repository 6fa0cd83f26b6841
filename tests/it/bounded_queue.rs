//! Pools whose queue has a bound.

use std::sync::Arc;
use std::thread;

use concurrent_futures::{BuildError, QueuePolicy, Shutdown, ThreadPoolExecutor};

use crate::support::*;

fn bounded(tasks: usize, policy: QueuePolicy) -> ThreadPoolExecutor {
    ThreadPoolExecutor::builder().max_workers(1).queue_capacity(tasks, policy).build().unwrap()
}

const ALL: [QueuePolicy; 3] = [QueuePolicy::Block, QueuePolicy::Fail, QueuePolicy::CallerRuns];

#[test]
fn room_for_nothing_is_refused() {
    for policy in ALL {
        let built = ThreadPoolExecutor::builder().queue_capacity(0, policy).build();
        assert_eq!(built.unwrap_err(), BuildError::NoQueueCapacity);
    }
}

#[test]
fn try_submit_gives_the_closure_back() {
    guarded(|| {
        for policy in ALL {
            let pool = bounded(2, policy);
            // What runs is not queued.
            let plug = Plug::new(&pool, 1);
            let futures = [pool.try_submit(|| 1).unwrap(), pool.try_submit(|| 2).unwrap()];
            let refused = pool.try_submit(|| 3).unwrap_err();
            assert!(refused.is_queue_full() && refused.reason().is_queue_full());
            assert_eq!(refused.into_inner()(), 3);
            let refused = pool.task(|| 4).name("named").try_submit().unwrap_err();
            assert_eq!(refused.into_inner()(), 4);
            // A cancelled task makes room at once.
            assert!(futures[0].cancel());
            let third = pool.try_submit(|| 5).unwrap();
            assert!(pool.try_submit(|| 6).unwrap_err().is_queue_full());
            plug.release();
            assert_eq!(third.result().unwrap(), 5);
            let [_, second] = futures;
            assert_eq!(second.result().unwrap(), 2);
            assert_eq!(pool.try_submit(|| 7).unwrap().result().unwrap(), 7);
        }
    });
}

#[test]
fn fail() {
    guarded(|| {
        let pool = bounded(1, QueuePolicy::Fail);
        let plug = Plug::new(&pool, 1);
        let (queued, drops) = (pool.submit(|| 1), Drops::new());
        let token = drops.token();
        let refused = pool.submit(move || drop(token));
        assert_eq!(drops.count(), 1);
        assert!(refused.is_done());
        assert!(refused.result().unwrap_err().is_queue_full());
        plug.release();
        assert_eq!(queued.result().unwrap(), 1);
        pool.shutdown(Shutdown::Wait).unwrap();
        assert!(pool.submit(|| 1).result().unwrap_err().is_shut_down(), "the reason is the shutdown, not the bound");
    });
}

#[test]
fn caller_runs() {
    guarded(|| {
        let pool = bounded(1, QueuePolicy::CallerRuns);
        let plug = Plug::new(&pool, 1);
        let queued = pool.submit(|| thread::current().id());
        let own = pool.submit(|| thread::current().id());
        assert!(own.is_done() && !queued.is_done());
        assert_eq!(own.result().unwrap(), thread::current().id());
        // Panics of the task are the task's.
        assert!(pool.submit(|| -> () { panic!("as this test wants it") }).result().unwrap_err().is_panicked());
        plug.release();
        assert_ne!(queued.result().unwrap(), thread::current().id());
    });
}

#[test]
fn block() {
    guarded(|| {
        let pool = Arc::new(bounded(3, QueuePolicy::Block));
        let plug = Plug::new(&pool, 1);
        let most = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let submitter = {
            let (pool, most) = (Arc::clone(&pool), Arc::clone(&most));
            thread::spawn(move || {
                let submit = |n: usize| {
                    let future = pool.submit(move || n);
                    most.store(n + 1, std::sync::atomic::Ordering::SeqCst);
                    future
                };
                (0..100).map(submit).collect::<Vec<_>>()
            })
        };
        until(|| most.load(std::sync::atomic::Ordering::SeqCst) == 3);
        assert!(pool.try_submit(|| ()).unwrap_err().is_queue_full());
        assert_eq!(most.load(std::sync::atomic::Ordering::SeqCst), 3);
        plug.release();
        for (n, future) in submitter.join().unwrap().into_iter().enumerate() {
            assert_eq!(future.result().unwrap(), n);
        }
    });
}

#[test]
fn a_shutdown_wakes_who_blocks() {
    guarded(|| {
        let pool = Arc::new(bounded(1, QueuePolicy::Block));
        let plug = Plug::new(&pool, 1);
        let queued = pool.submit(|| 1);
        let submitters: Vec<_> = (0..4)
            .map(|_| {
                let pool = Arc::clone(&pool);
                thread::spawn(move || pool.submit(|| 2).result())
            })
            .collect();
        pool.shutdown(Shutdown::NoWait).unwrap();
        for submitter in submitters {
            assert!(submitter.join().unwrap().unwrap_err().is_shut_down());
        }
        plug.release();
        assert_eq!(queued.result().unwrap(), 1);
    });
}

#[test]
fn a_worker_does_not_block() {
    guarded(|| {
        let pool = Arc::new(bounded(1, QueuePolicy::Block));
        let inner = Arc::clone(&pool);
        let outer = pool.submit(move || {
            let first = inner.submit(|| thread::current().id());
            // The queue is full, and who could make room is this thread.
            let second = inner.submit(|| thread::current().id());
            assert!(second.is_done());
            (second.result().unwrap(), first.result().unwrap())
        });
        let (second, first) = outer.result().unwrap();
        assert_eq!(second, first);
        assert_ne!(first, thread::current().id());
    });
}

#[test]
fn many_submitters_keep_to_the_bound() {
    guarded(|| {
        const BOUND: usize = 4;
        let pool = Arc::new(bounded(BOUND, QueuePolicy::Block));
        let submitters: Vec<_> = (0..4)
            .map(|_| {
                let pool = Arc::clone(&pool);
                thread::spawn(move || {
                    (0..500u64)
                        .map(|n| {
                            let future = pool.submit(move || n);
                            if n % 3 == 0 {
                                future.cancel();
                            }
                            future.result().unwrap_or(0)
                        })
                        .sum::<u64>()
                })
            })
            .collect();
        for submitter in submitters {
            assert!(submitter.join().unwrap() >= (0..500).filter(|n| n % 3 != 0).sum::<u64>());
        }
        // Every permit came back.
        let plug = Plug::new(&pool, 1);
        let futures: Vec<_> = (0..BOUND).map(|n| pool.try_submit(move || n).unwrap()).collect();
        assert!(pool.try_submit(|| 0).is_err());
        plug.release();
        assert_eq!(futures.into_iter().map(|future| future.result().unwrap()).sum::<usize>(), 6);
    });
}

#[test]
fn the_bound_is_for_each_task_of_a_batch() {
    guarded(|| {
        let pool = bounded(2, QueuePolicy::Fail);
        let plug = Plug::new(&pool, 1);
        let futures = pool.submit_all((0..5).map(|n| move || n));
        let refused: Vec<_> = futures.iter().map(|future| future.is_done()).collect();
        assert_eq!(refused, [false, false, true, true, true]);
        plug.release();
    });
}
