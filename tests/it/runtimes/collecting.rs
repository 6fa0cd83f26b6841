//! Many futures collected in a runtime: `wait_async`, and `as_completed` as a stream.

use concurrent_futures::{ReturnWhen, TaskFuture, promise, wait_async};
use futures::channel::oneshot;

use super::support::*;
use crate::support::{guarded, rounds};

/// Three tasks that end when their door is opened, on one pool.
fn three(pool: &Pool) -> (Vec<Gate>, Vec<TaskFuture<u64>>) {
    (0..3).map(|n| Gate::guards(pool, n)).unzip()
}

// The tasks are of both pools, and the waiting wanders from one runtime to another.
#[test]
fn waited_for_in_one_runtime_and_then_in_another() {
    guarded(|| {
        for pool in Pool::both(3) {
            for (first, second) in RUNTIMES.into_iter().flat_map(|one| RUNTIMES.map(|two| (one, two))) {
                let (mut gates, tasks) = three(&pool);
                let mut waiting = wait_async(tasks, ReturnWhen::AllCompleted);
                let waiting = first.run(|spawner| {
                    spawner.spawn(async move {
                        assert!(poll_once(&mut waiting).await.is_pending());
                        Some(waiting)
                    })
                });
                let waited = second.run(|spawner| async move {
                    let (polled, was_polled) = oneshot::channel();
                    let task = spawner.spawn(async move {
                        let mut waiting = waiting.unwrap();
                        assert!(poll_once(&mut waiting).await.is_pending());
                        polled.send(()).unwrap();
                        waiting.await
                    });
                    was_polled.await.unwrap();
                    gates.drain(..).rev().for_each(Gate::open);
                    task.await
                });
                let values: Vec<u64> = waited.done.into_iter().map(|future| future.result().unwrap()).collect();
                assert_eq!((values, waited.not_done.len()), (vec![0, 1, 2], 0), "{first:?}, {second:?}");
            }
        }
    });
}

#[test]
fn the_first_of_many_and_then_the_rest() {
    guarded(|| {
        let pools = Pool::both(3);
        for runtime in RUNTIMES {
            let ((mut gates, tasks), (more_gates, more_tasks)) = (three(&pools[0]), three(&pools[1]));
            let one = gates.remove(1);
            let values = runtime.run(|spawner| {
                spawner.spawn(async move {
                    let futures = tasks.into_iter().chain(more_tasks);
                    let mut waiting = wait_async(futures, ReturnWhen::FirstCompleted);
                    assert!(poll_once(&mut waiting).await.is_pending());
                    one.open();
                    let waited = waiting.await;
                    assert_eq!((waited.done.len(), waited.not_done.len()), (1, 5));
                    drop((gates, more_gates));
                    let all = waited.done.into_iter().chain(waited.not_done);
                    let waited = wait_async(all, ReturnWhen::AllCompleted).await;
                    futures::future::try_join_all(waited.done).await.unwrap()
                })
            });
            assert_eq!(values, [1, 0, 2, 0, 1, 2], "{runtime:?}");
        }
    });
}

#[test]
fn given_up_and_collected_again() {
    guarded(|| {
        for pool in Pool::both(3) {
            for runtime in RUNTIMES {
                let (gates, tasks) = three(&pool);
                let sum = runtime.run(|spawner| {
                    spawner.spawn(async move {
                        let mut waiting = wait_async(tasks, ReturnWhen::AllCompleted);
                        for _ in 0..2 {
                            assert!(poll_once(&mut waiting).await.is_pending());
                            let tasks = waiting.into_waited().not_done;
                            assert_eq!(tasks.len(), 3);
                            waiting = wait_async(tasks, ReturnWhen::AllCompleted);
                        }
                        drop(gates);
                        futures::future::try_join_all(waiting.await.done).await.unwrap().into_iter().sum::<u64>()
                    })
                });
                assert_eq!(sum, 3, "{runtime:?}");
            }
        }
    });
}

#[test]
fn the_first_failure_ends_the_waiting() {
    guarded(|| {
        for pool in Pool::both(2) {
            for runtime in RUNTIMES {
                let (gate, running) = Gate::guards(&pool, 1);
                let (promise, broken) = promise();
                let waited = runtime.run(|spawner| async move {
                    let (polled, was_polled) = oneshot::channel();
                    let task = spawner.spawn(async move {
                        let mut waiting = wait_async([running, broken], ReturnWhen::FirstException);
                        assert!(poll_once(&mut waiting).await.is_pending());
                        polled.send(()).unwrap();
                        waiting.await
                    });
                    was_polled.await.unwrap();
                    drop(promise);
                    task.await
                });
                assert_eq!((waited.done.len(), waited.not_done.len()), (1, 1), "{runtime:?}");
                gate.open();
                assert_eq!(waited.not_done.into_iter().map(|future| future.result().unwrap()).sum::<u64>(), 1);
            }
        }
    });
}

#[test]
fn while_they_complete() {
    guarded(|| {
        for pool in Pool::both(2) {
            for runtime in RUNTIMES {
                runtime.run(|spawner| async {
                    let spawner = spawner;
                    for round in rounds(40) {
                        let tasks: Vec<_> = (0..round % 20).map(|n| pool.submit(|n: usize| n, n)).collect();
                        let waited = spawner.spawn(wait_async(tasks, ReturnWhen::AllCompleted)).await;
                        assert_eq!((waited.done.len(), waited.not_done.len()), (round % 20, 0), "{runtime:?}");
                    }
                });
            }
        }
    });
}

#[cfg(feature = "stream")]
mod streams {
    use concurrent_futures::as_completed;
    use futures::StreamExt;

    use super::*;

    #[test]
    fn one_after_the_other_in_the_order_of_their_ends() {
        guarded(|| {
            let pools = Pool::both(3);
            for runtime in RUNTIMES {
                let ((gates, tasks), (more_gates, more_tasks)) = (three(&pools[0]), three(&pools[1]));
                let names = ["a", "b", "c", "d", "e", "f"].into_iter();
                let mut completed = as_completed(names.zip(tasks.into_iter().chain(more_tasks))).into_stream();
                let order = runtime.run(|spawner| {
                    spawner.spawn(async move {
                        let mut order = String::new();
                        for gate in gates.into_iter().zip(more_gates).flat_map(|(one, two)| [two, one]) {
                            assert!(poll_once(&mut completed.next()).await.is_pending());
                            gate.open();
                            let (name, future) = completed.next().await.unwrap();
                            order += name;
                            future.await.unwrap();
                        }
                        assert!(completed.next().await.is_none());
                        order
                    })
                });
                assert_eq!(order, "daebfc", "{runtime:?}");
            }
        });
    }

    #[test]
    fn thousands() {
        guarded(|| {
            const MANY: usize = 4000;
            for pool in Pool::both(2) {
                for runtime in RUNTIMES {
                    let futures: Vec<_> = (0..MANY).map(|n| pool.submit(|n: usize| 2 * n, n)).collect();
                    let sum = runtime.run(|spawner| {
                        let completed = as_completed(futures).into_stream();
                        spawner.spawn(completed.fold(0, async |sum, future| sum + future.await.unwrap()))
                    });
                    assert_eq!(sum, MANY * (MANY - 1), "{runtime:?}");
                }
            }
        });
    }
}
