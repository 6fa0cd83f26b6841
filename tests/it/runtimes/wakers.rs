//! The waker changes: a handle wanders from task to task, and from runtime to runtime, and whoever has it last is woken.

use std::task::Poll;

use futures::channel::oneshot;

use super::support::*;
use crate::support::{guarded, rounds};

#[test]
fn from_one_runtime_to_another() {
    guarded(|| {
        for pool in Pool::both(1) {
            for (first, second) in RUNTIMES.into_iter().flat_map(|one| RUNTIMES.map(|two| (one, two))) {
                for kind in KINDS {
                    let (gate, future) = Gate::guards(&pool, 7);
                    let mut handle = kind.of(future);
                    // Its task ends, and its runtime with it; the waker is of no use any more.
                    let handle = first.run(|spawner| {
                        spawner.spawn(async move {
                            assert!(poll_once(&mut handle).await.is_pending());
                            Some(handle)
                        })
                    });
                    let value = second.run(|spawner| async move {
                        let (polled, was_polled) = oneshot::channel();
                        let task = spawner.spawn(async move {
                            let mut handle = handle.unwrap();
                            assert!(poll_once(&mut handle).await.is_pending());
                            polled.send(()).unwrap();
                            handle.await
                        });
                        was_polled.await.unwrap();
                        gate.open();
                        task.await
                    });
                    assert_eq!(value.unwrap(), 7, "{first:?}, {second:?}, {pool:?}, {kind:?}");
                }
            }
        }
    });
}

// The completion comes at any time: while it is polled, while it is on its way, when it has arrived.
#[test]
fn from_task_to_task_while_it_completes() {
    guarded(|| {
        for runtime in RUNTIMES {
            for pool in Pool::both(1) {
                runtime.run(|spawner| async move {
                    for round in rounds(100) {
                        let kind = KINDS[round % KINDS.len()];
                        let mut handle = kind.of(pool.submit(|number: usize| number, round));
                        let mut early = None;
                        for _ in 0..round % 7 {
                            let (polled, handle_back) = spawner
                                .spawn(async move {
                                    let polled = poll_once(&mut handle).await;
                                    (polled, handle)
                                })
                                .await;
                            handle = handle_back;
                            if let Poll::Ready(value) = polled {
                                early = Some(value);
                                break;
                            }
                        }
                        let value = match early {
                            Some(value) => value,
                            None => spawner.spawn(handle).await,
                        };
                        assert_eq!(value.unwrap(), round, "{runtime:?}, {kind:?}");
                    }
                });
            }
        }
    });
}

// A task that is woken for something else polls with the same waker again.
#[test]
fn polled_again_and_again() {
    guarded(|| {
        for runtime in RUNTIMES {
            for pool in Pool::both(1) {
                for kind in KINDS {
                    let (gate, future) = Gate::guards(&pool, 3);
                    let mut handle = kind.of(future);
                    let value = runtime.run(|spawner| async move {
                        let (polled, was_polled) = oneshot::channel();
                        let task = spawner.spawn(async move {
                            for _ in 0..10 {
                                assert!(poll_once(&mut handle).await.is_pending());
                                smol::future::yield_now().await;
                            }
                            polled.send(()).unwrap();
                            handle.await
                        });
                        was_polled.await.unwrap();
                        gate.open();
                        task.await
                    });
                    assert_eq!(value.unwrap(), 3, "{runtime:?}, {kind:?}");
                }
            }
        }
    });
}
