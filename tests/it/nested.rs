//! Waiting inside tasks.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use concurrent_futures::{ReturnWhen, SharedFuture, ThreadPoolExecutor, as_completed, as_completed_timeout, wait};
use parking_lot::Mutex;

use crate::support::*;

/// Runs `f` on the one worker of a pool, with the pool.
fn on_the_only_worker<R: Send + 'static>(
    f: impl FnOnce(&concurrent_futures::ThreadPoolExecutor) -> R + Send + 'static,
) -> R {
    guarded(|| {
        let pool = Arc::new(pool(1));
        let inner = Arc::clone(&pool);
        pool.submit(move || f(&inner)).result().unwrap()
    })
}

#[test]
fn a_zero_timeout_inside_a_worker_runs_nothing() {
    on_the_only_worker(|pool| {
        let future = pool.submit(|| 1);
        let future = future.result_timeout(Duration::ZERO).expect_err("nothing has run it");
        let shared = future.shared();
        assert!(shared.get_timeout(Duration::ZERO).is_none());
    });
}

#[test]
fn wait_and_as_completed_inside_a_worker_keep_to_their_deadline() {
    on_the_only_worker(|pool| {
        let futures = [pool.submit(|| 1), pool.submit(|| 2)];
        let waited = wait(futures, Some(Duration::ZERO), ReturnWhen::AllCompleted);
        assert_eq!((waited.done.len(), waited.not_done.len()), (0, 2));
        let mut completed = as_completed_timeout(waited.not_done, Duration::ZERO);
        assert_eq!(completed.next().unwrap().unwrap_err().unfinished(), 2);
        assert!(completed.next().is_none());
    });
}

fn depth_of(pool: &Arc<ThreadPoolExecutor>, depth: usize) -> usize {
    if depth == 0 {
        return 0;
    }
    let inner = Arc::clone(pool);
    pool.submit(move || depth_of(&inner, depth - 1) + 1).result().unwrap()
}

#[test]
fn a_thousand_deep_on_one_thread() {
    guarded(|| {
        let pool = ThreadPoolExecutor::builder().max_workers(1).stack_size(64 << 20).build().unwrap();
        let pool = Arc::new(pool);
        let inner = Arc::clone(&pool);
        assert_eq!(pool.submit(move || depth_of(&inner, 1000)).result().unwrap(), 1000);
        assert_eq!((pool.stats().workers, pool.stats().completed), (1, 1001));
    });
}

#[test]
fn children_of_children_by_wait_and_as_completed() {
    fn tree(pool: &Arc<ThreadPoolExecutor>, depth: usize) -> usize {
        if depth == 0 {
            return 1;
        }
        let child = |_| {
            let inner = Arc::clone(pool);
            pool.submit(move || tree(&inner, depth - 1))
        };
        let futures: Vec<_> = (0..3).map(child).collect();
        match depth % 2 {
            0 => as_completed(futures).map(|future| future.result().unwrap()).sum(),
            _ => {
                let waited = wait(futures, None, ReturnWhen::AllCompleted);
                waited.done.into_iter().map(|future| future.result().unwrap()).sum()
            }
        }
    }
    guarded(|| {
        for workers in 1..4 {
            let pool = Arc::new(pool(workers));
            let inner = Arc::clone(&pool);
            assert_eq!(pool.submit(move || tree(&inner, 5)).result().unwrap(), 243);
        }
    });
}

// Waiting runs nothing but what is waited for. Ran it any task, it could be one that wants the lock that this very
// thread holds.
#[test]
fn a_task_that_holds_a_lock_may_wait_for_its_child() {
    guarded(|| {
        for workers in 1..3 {
            let (pool, lock) = (Arc::new(pool(workers)), Arc::new(Mutex::new(0)));
            let (locked, queued) = (Gate::new(), Gate::new());
            let holder = {
                let (inner, lock) = (Arc::clone(&pool), Arc::clone(&lock));
                let (locked, queued) = (locked.clone(), queued.clone());
                pool.submit(move || {
                    let mut value = lock.lock();
                    locked.open();
                    queued.pass();
                    *value += inner.submit(|| 100).result().unwrap();
                })
            };
            locked.pass();
            let others: Vec<_> = (0..50)
                .map(|_| {
                    let lock = Arc::clone(&lock);
                    pool.submit(move || *lock.lock() += 1)
                })
                .collect();
            queued.open();
            holder.result().unwrap();
            others.into_iter().for_each(|other| other.result().unwrap());
            assert_eq!(*lock.lock(), 150);
        }
    });
}

#[test]
fn joins_under_a_lock() {
    guarded(|| {
        let (pool, lock) = (Arc::new(pool(2)), Arc::new(Mutex::new(0)));
        let futures: Vec<_> = (0..200)
            .map(|_| {
                let (inner, lock) = (Arc::clone(&pool), Arc::clone(&lock));
                pool.submit(move || {
                    let mut value = lock.lock();
                    let (a, b) = inner.join(|| inner.join(|| 1, || 2), || inner.join(|| 3, || 4));
                    *value += a.0 + a.1 + b.0 + b.1;
                })
            })
            .collect();
        futures.into_iter().for_each(|future| future.result().unwrap());
        assert_eq!(*lock.lock(), 2000);
    });
}

#[test]
fn waiting_for_oneself_would_deadlock() {
    guarded(|| {
        let pool = pool(1);
        let (tx, rx) = mpsc::channel::<SharedFuture<bool>>();
        let own = pool.submit(move || rx.recv().unwrap().result().unwrap_err().is_would_deadlock()).shared();
        tx.send(own.clone()).unwrap();
        assert!(own.result().unwrap());
    });
}

#[test]
fn waiting_for_the_task_below_would_deadlock() {
    guarded(|| {
        let pool = Arc::new(pool(1));
        let (tx, rx) = mpsc::channel::<SharedFuture<bool>>();
        let inner = Arc::clone(&pool);
        let outer = pool.submit(move || {
            let outer = rx.recv().unwrap();
            inner.submit(move || outer.result().unwrap_err().is_would_deadlock()).result().unwrap()
        });
        let outer = outer.shared();
        tx.send(outer.clone()).unwrap();
        assert!(outer.result().unwrap());
    });
}

#[test]
fn a_circle_of_two_tasks_would_deadlock() {
    guarded(|| {
        let pool = pool(2);
        for _ in 0..100 {
            let (to_first, of_first) = mpsc::channel::<SharedFuture<u32>>();
            let (to_second, of_second) = mpsc::channel::<SharedFuture<u32>>();
            // Whoever closes the circle is told, and its value is what the other one waits for.
            let wait_for = |other: mpsc::Receiver<SharedFuture<u32>>| {
                move || match other.recv().unwrap().result() {
                    Ok(value) => value + 1,
                    Err(error) => {
                        assert!(error.is_would_deadlock());
                        0
                    }
                }
            };
            let (first, second) = (pool.submit(wait_for(of_first)).shared(), pool.submit(wait_for(of_second)).shared());
            to_first.send(second.clone()).unwrap();
            to_second.send(first.clone()).unwrap();
            let mut values = [first.result().unwrap(), second.result().unwrap()];
            values.sort_unstable();
            assert_eq!(values, [0, 1]);
        }
    });
}

#[test]
fn across_two_pools() {
    guarded(|| {
        let (one, two) = (Arc::new(pool(1)), Arc::new(pool(1)));
        let (first, second) = (Arc::clone(&one), Arc::clone(&two));
        // Each pool's only worker waits for a task of the other pool; the innermost one is claimed.
        let outer = one.submit(move || {
            let middle = second.submit(move || first.submit(|| 1));
            middle.result().unwrap().result().unwrap() + 1
        });
        assert_eq!(outer.result().unwrap(), 2);
    });
}
