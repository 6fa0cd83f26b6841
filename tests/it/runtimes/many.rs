//! Thousands of tasks that wait at the same time.

use std::sync::Arc;

use futures::future;
use futures::stream::{FuturesUnordered, StreamExt};

use super::support::*;
use crate::support::guarded;

const MANY: usize = 4000;

fn double(number: usize) -> usize {
    2 * number
}

#[test]
fn a_task_each() {
    guarded(|| {
        for pool in Pool::both(2) {
            for runtime in RUNTIMES {
                let pool = &pool;
                let sum: usize = runtime.run(|spawner| async move {
                    let tasks: Vec<_> =
                        (0..MANY).map(|n| spawner.spawn(KINDS[n % KINDS.len()].of(pool.submit(double, n)))).collect();
                    future::join_all(tasks).await.into_iter().map(Result::unwrap).sum()
                });
                assert_eq!(sum, MANY * (MANY - 1), "{runtime:?}");
            }
        }
    });
}

// Each wakes the same task, which asks only those that have woken it.
#[test]
fn one_task_for_all() {
    guarded(|| {
        for pool in Pool::both(2) {
            for runtime in RUNTIMES {
                let futures: FuturesUnordered<_> =
                    (0..MANY).map(|n| KINDS[n % KINDS.len()].of(pool.submit(double, n))).collect();
                let sum = futures.fold(0, async |sum, value| sum + value.unwrap());
                assert_eq!(runtime.run(|_| sum), MANY * (MANY - 1), "{runtime:?}");
            }
        }
    });
}

#[test]
fn one_after_the_other_in_many_tasks() {
    const FEWER: usize = MANY / 4;
    guarded(|| {
        for pool in Pool::both(2) {
            let pool = Arc::new(pool);
            for runtime in RUNTIMES {
                let pool = &pool;
                let sum: usize = runtime.run(|spawner| async move {
                    let tasks: Vec<_> = (0..FEWER / 100)
                        .map(|task| {
                            let pool = Arc::clone(pool);
                            spawner.spawn(async move {
                                let mut sum = 0;
                                for n in task * 100..(task + 1) * 100 {
                                    sum += KINDS[n % KINDS.len()].of(pool.submit(double, n)).await.unwrap();
                                }
                                sum
                            })
                        })
                        .collect();
                    future::join_all(tasks).await.into_iter().sum()
                });
                assert_eq!(sum, FEWER * (FEWER - 1), "{runtime:?}");
            }
        }
    });
}

#[test]
fn many_readers_of_one_result() {
    guarded(|| {
        for pool in Pool::both(1) {
            for runtime in RUNTIMES {
                let (gate, future) = Gate::guards(&pool, 9);
                let future = future.shared();
                let values = runtime.run(|spawner| async move {
                    let mut readers: Vec<_> = (0..MANY).map(|_| future.clone()).collect();
                    for reader in &mut readers {
                        assert!(poll_once(reader).await.is_pending());
                    }
                    let tasks: Vec<_> = readers.into_iter().map(|reader| spawner.spawn(reader)).collect();
                    gate.open();
                    future::join_all(tasks).await
                });
                assert!(values.into_iter().all(|value| value.unwrap() == 9), "{runtime:?}");
            }
        }
    });
}
