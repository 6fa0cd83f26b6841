//! Idle workers take what busy ones have in hand: tasks that wait for each other (through channels or barriers of their
//! own, of which the pool knows nothing) get a thread each, as long as there are enough.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Barrier};

use concurrent_futures::{ReturnWhen, TaskFuture, ThreadPoolExecutor, block_on, wait, wait_async};

use crate::support::*;

#[test]
fn tasks_submitted_by_a_task_that_blocks_run_at_the_same_time() {
    guarded(|| {
        const INNER: usize = 4;
        let pool = Arc::new(pool(INNER + 1));
        for _ in 0..200 {
            let (inner, all) = (Arc::clone(&pool), Arc::new(Barrier::new(INNER + 1)));
            let outer = pool.submit(move || {
                let futures: Vec<_> = (0..INNER)
                    .map(|_| {
                        let all = Arc::clone(&all);
                        inner.submit(move || all.wait())
                    })
                    .collect();
                all.wait();
                futures
            });
            for future in outer.result().unwrap() {
                future.result().unwrap();
            }
        }
    });
}

#[test]
fn tasks_in_the_batch_of_a_worker_that_blocks_run_at_the_same_time() {
    guarded(|| {
        const TASKS: usize = 64;
        for _ in 0..10 {
            let (pool, all) = (pool(TASKS), Arc::new(Barrier::new(TASKS)));
            let futures: Vec<_> = (0..TASKS)
                .map(|_| {
                    let all = Arc::clone(&all);
                    pool.submit(move || all.wait())
                })
                .collect();
            for future in futures {
                future.result().unwrap();
            }
        }
    });
}

/// A flag, and a future that yields until it is set.
fn yields_until_set(pool: &ThreadPoolExecutor) -> (Arc<AtomicBool>, TaskFuture<()>) {
    let flag = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&flag);
    let future = pool.spawn(async move {
        while !seen.load(SeqCst) {
            yield_now().await;
        }
    });
    (flag, future)
}

// Whoever polls a future that wakes itself polls what stands beside it as well.
#[test]
fn a_future_that_yields_for_another_one_of_the_same_wait() {
    guarded(|| {
        for when in [ReturnWhen::AllCompleted, ReturnWhen::FirstCompleted, ReturnWhen::FirstException] {
            let pool = Arc::new(pool(1));
            let inner = Arc::clone(&pool);
            let waits = move || {
                let (flag, yields) = yields_until_set(&inner);
                let sets = inner.spawn(async move { flag.store(true, SeqCst) });
                let waited = wait([yields, sets], None, when);
                assert!(!waited.done.is_empty());
                waited.not_done.into_iter().for_each(|future| future.result().unwrap());
            };
            // For any of several, a spare thread would go on with the first one.
            if when == ReturnWhen::AllCompleted {
                pool.submit(waits.clone()).result().unwrap();
            }
            // Where there is no spare thread to be had, because this one is it.
            let inner = Arc::clone(&pool);
            pool.submit(move || inner.submit(waits).result_timeout(LIMIT).unwrap().unwrap()).result().unwrap();
        }
    });
}

#[test]
fn a_future_that_yields_for_another_branch_of_its_future() {
    guarded(|| {
        let pool = Arc::new(pool(1));
        let beside = |pool: &ThreadPoolExecutor, times: usize| {
            let (flags, futures): (Vec<_>, Vec<_>) = (0..times).map(|_| yields_until_set(pool)).unzip();
            async move {
                let sets = async move { flags.iter().for_each(|flag| flag.store(true, SeqCst)) };
                let all = wait_async(futures, ReturnWhen::AllCompleted);
                futures::future::join(all, sets).await.0.done.len()
            }
        };
        for times in [1, 3] {
            let inner = Arc::clone(&pool);
            let task = pool.submit(move || {
                assert_eq!(block_on(beside(&inner, times)), times);
                assert_eq!(inner.spawn(beside(&inner, times)).result().unwrap(), times);
                // A spare thread polls this one, and what it awaits.
                let future = inner.spawn(beside(&inner, times));
                assert_eq!(future.result_timeout(LIMIT).unwrap().unwrap(), times);
                // There, no other can be had.
                let deeper = Arc::clone(&inner);
                let task = inner.submit(move || block_on(beside(&deeper, times)));
                assert_eq!(task.result_timeout(LIMIT).unwrap().unwrap(), times);
            });
            task.result().unwrap();
        }
    });
}
