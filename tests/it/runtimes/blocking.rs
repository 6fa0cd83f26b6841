//! Polled in a runtime, and then blocked on.

use std::thread;

use concurrent_futures::{ReturnWhen, as_completed, wait};

use super::support::*;
use crate::support::{guarded, rounds};

/// Where a thread blocks on what was polled.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// In the task that has polled it.
    Same,
    /// In a thread that has nothing to do with the runtime, which goes on.
    Thread,
    /// Where the runtime is no more.
    Afterwards,
}

#[test]
fn polled_and_then_blocked_on() {
    guarded(|| {
        for pool in Pool::both(1) {
            for runtime in RUNTIMES {
                for place in [Place::Same, Place::Thread, Place::Afterwards] {
                    for kind in KINDS {
                        let (gate, future) = Gate::guards(&pool, 5);
                        let mut handle = kind.of(future);
                        let value = runtime.run(|spawner| {
                            spawner.spawn(async move {
                                assert!(poll_once(&mut handle).await.is_pending());
                                match place {
                                    Place::Same => {
                                        thread::spawn(|| gate.open());
                                        Ok(handle.result())
                                    }
                                    Place::Thread => {
                                        thread::spawn(|| gate.open());
                                        Ok(thread::spawn(|| handle.result()).join().unwrap())
                                    }
                                    Place::Afterwards => Err((handle, gate)),
                                }
                            })
                        });
                        let value = value.unwrap_or_else(|(handle, gate)| {
                            thread::spawn(|| gate.open());
                            handle.result()
                        });
                        assert_eq!(value.unwrap(), 5, "{pool:?}, {runtime:?}, {place:?}, {kind:?}");
                    }
                }
            }
        }
    });
}

// The waker is taken back while the completion would use it.
#[test]
fn blocked_on_while_it_completes() {
    guarded(|| {
        for runtime in RUNTIMES {
            for pool in Pool::both(1) {
                runtime.run(|spawner| async move {
                    for round in rounds(100) {
                        let kind = KINDS[round % KINDS.len()];
                        let mut handle = kind.of(pool.submit(|number: usize| number, round));
                        let task = async move {
                            match poll_once(&mut handle).await {
                                std::task::Poll::Ready(value) => value,
                                std::task::Poll::Pending => handle.result(),
                            }
                        };
                        assert_eq!(spawner.spawn(task).await.unwrap(), round, "{runtime:?}, {kind:?}");
                    }
                });
            }
        }
    });
}

#[test]
fn polled_and_then_collected() {
    guarded(|| {
        for runtime in RUNTIMES {
            for pool in Pool::both(2) {
                let (first, mut one) = Gate::guards(&pool, 1);
                let (second, mut two) = Gate::guards(&pool, 2);
                let (one, two) = runtime.run(|spawner| {
                    spawner.spawn(async move {
                        assert!(poll_once(&mut one).await.is_pending() && poll_once(&mut two).await.is_pending());
                        (one, two)
                    })
                });
                first.open();
                let waited = wait([one, two], None, ReturnWhen::FirstCompleted);
                assert_eq!((waited.done.len(), waited.not_done.len()), (1, 1));
                second.open();
                let all = waited.done.into_iter().chain(waited.not_done);
                let values: Vec<u64> = as_completed(all).map(|future| future.result().unwrap()).collect();
                assert_eq!(values, [1, 2], "{runtime:?}");
            }
        }
    });
}
