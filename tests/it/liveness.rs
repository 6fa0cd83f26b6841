//! Idle workers take what busy ones have in hand: tasks that wait for each other (through channels or barriers of their
//! own, of which the pool knows nothing) get a thread each, as long as there are enough.

use std::sync::{Arc, Barrier};

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
