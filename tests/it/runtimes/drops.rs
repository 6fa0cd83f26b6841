//! Handles that are dropped while a task waits for them: that blocks nobody, wakes nobody, and detaches or cancels.

use std::sync::mpsc;

use futures::FutureExt;

use super::support::*;
use crate::support::guarded;

#[test]
fn dropped_after_a_poll() {
    guarded(|| {
        for pool in Pool::both(1) {
            for runtime in RUNTIMES {
                for kind in KINDS {
                    let (gate, running) = Gate::guards(&pool, 1);
                    let (ended, end) = mpsc::channel();
                    running.add_done_callback(move |outcome| ended.send(*outcome.unwrap()).unwrap());
                    let queued = pool.submit(|number: u64| number, 2);
                    let mut handles = [kind.of(running), kind.of(queued)];
                    runtime.run(|spawner| {
                        spawner.spawn(async move {
                            for handle in &mut handles {
                                assert!(poll_once(handle).await.is_pending());
                            }
                            // The door is shut: if this waited for the tasks, it would wait for ever.
                            drop(handles);
                        })
                    });
                    let last = pool.submit(|number: u64| number, 3);
                    gate.open();
                    assert_eq!(runtime.run(|spawner| spawner.spawn(last)).unwrap(), 3, "{runtime:?}, {kind:?}");
                    assert_eq!(end.recv().unwrap(), 1, "dropping detaches");
                }
            }
        }
    });
}

#[test]
fn dropped_with_a_guard_it_cancels() {
    guarded(|| {
        for pool in Pool::both(1) {
            for runtime in RUNTIMES {
                let (gate, running) = Gate::guards(&pool, 1);
                let queued = pool.submit(|number: u64| number, 2);
                let (ended, end) = mpsc::channel();
                queued.add_done_callback(move |outcome| ended.send(outcome.copied().map_err(Clone::clone)).unwrap());
                runtime.run(|spawner| {
                    spawner.spawn(async move {
                        let mut awaited = Box::pin(async move { queued.cancel_on_drop().await });
                        assert!(poll_once(&mut awaited).await.is_pending());
                        drop(awaited);
                    })
                });
                // It never began.
                assert!(end.recv().unwrap().unwrap_err().is_cancelled(), "{runtime:?}");
                gate.open();
                assert_eq!(runtime.run(|_| running).unwrap(), 1);
            }
        }
    });
}

// Some have been polled and some not when their runtime goes, with all of its tasks.
#[test]
fn the_runtime_ends_first() {
    guarded(|| {
        for pool in Pool::both(1) {
            for runtime in RUNTIMES {
                let (gate, running) = Gate::guards(&pool, 1);
                let queued: Vec<_> =
                    (0..60).map(|n| KINDS[n % KINDS.len()].of(pool.submit(|number: usize| number, n))).collect();
                runtime.run(|spawner| async move {
                    let mut tasks: Vec<_> = queued.into_iter().map(|handle| spawner.spawn(handle)).collect();
                    for task in &mut tasks {
                        assert!(task.now_or_never().is_none());
                    }
                });
                gate.open();
                assert_eq!(running.result().unwrap(), 1, "{runtime:?}");
                // All are dropped before the pool ends.
                assert_eq!(pool.submit(|number: u64| number, 4).result().unwrap(), 4);
            }
        }
    });
}
