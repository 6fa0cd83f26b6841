//! Who drops closures and results, when, and how often: exactly once, on every path.

use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Poll, Waker};

use concurrent_futures::{ReturnWhen, ThreadPoolExecutor, as_completed, promise, wait};

use crate::support::*;

/// Its destructor blocks.
struct BlocksInDrop {
    begun: Gate,
    go_on: Gate,
}

impl Drop for BlocksInDrop {
    fn drop(&mut self) {
        self.begun.open();
        self.go_on.pass();
    }
}

#[test]
fn a_result_whose_destructor_blocks_does_not_hold_up_other_tasks() {
    guarded(|| {
        let pool = pool(2);
        let (handle_dropped, begun, go_on) = (Gate::new(), Gate::new(), Gate::new());
        let result = BlocksInDrop { begun: begun.clone(), go_on: go_on.clone() };
        let go = handle_dropped.clone();
        drop(pool.submit(move || {
            go.pass();
            result
        }));
        handle_dropped.open();
        begun.pass();
        pool.submit(move || go_on.open()).result().unwrap();
    });
}

/// What can become of a handle and its task.
#[derive(Debug, Clone, Copy)]
enum Fate {
    DroppedBeforeTheStart,
    DroppedWhileRunning,
    DroppedAfterTheEnd,
    Taken,
    TakenWithTimeout,
    Cancelled,
    CancelledAndTaken,
    CancelledOnDrop,
    Shared,
    SharedAndDroppedBeforeTheStart,
    Waited,
    Completed,
    Polled,
}

const FATES: [Fate; 13] = [
    Fate::DroppedBeforeTheStart,
    Fate::DroppedWhileRunning,
    Fate::DroppedAfterTheEnd,
    Fate::Taken,
    Fate::TakenWithTimeout,
    Fate::Cancelled,
    Fate::CancelledAndTaken,
    Fate::CancelledOnDrop,
    Fate::Shared,
    Fate::SharedAndDroppedBeforeTheStart,
    Fate::Waited,
    Fate::Completed,
    Fate::Polled,
];

#[test]
fn exactly_once_on_every_path() {
    guarded(|| {
        for fate in FATES {
            for panics in [false, true] {
                let (pool, captured, results) = (pool(1), Drops::new(), Drops::new());
                let plug = Plug::new(&pool, 1);
                let (started, gate) = (Gate::new(), Gate::new());
                let future = {
                    let (token, result) = (captured.token(), results.token());
                    let (started, gate) = (started.clone(), gate.clone());
                    pool.submit(move || {
                        let _token = token;
                        started.open();
                        gate.pass();
                        if panics {
                            std::panic::resume_unwind(Box::new(result));
                        }
                        result
                    })
                };
                // Called when it is to run, and when it is to end.
                let mut plug = Some(plug);
                let mut begin = || {
                    plug.take().unwrap().release();
                    started.pass();
                };
                let is_resolved = match fate {
                    Fate::DroppedBeforeTheStart => {
                        drop(future);
                        assert_eq!((captured.count(), results.count()), (0, 0), "{fate:?}: it was only detached");
                        begin();
                        gate.open();
                        false
                    }
                    Fate::DroppedWhileRunning => {
                        begin();
                        drop(future);
                        assert_eq!((captured.count(), results.count()), (0, 0));
                        gate.open();
                        false
                    }
                    Fate::DroppedAfterTheEnd => {
                        begin();
                        gate.open();
                        until(|| future.is_done());
                        assert_eq!((captured.count(), results.count()), (1, 0));
                        drop(future);
                        true
                    }
                    Fate::Taken => {
                        begin();
                        gate.open();
                        drop(future.result());
                        true
                    }
                    Fate::TakenWithTimeout => {
                        begin();
                        let future = future.result_timeout(std::time::Duration::ZERO).unwrap_err();
                        gate.open();
                        drop(future.result_timeout(LIMIT).unwrap());
                        true
                    }
                    Fate::Cancelled => {
                        assert!(future.cancel());
                        assert_eq!((captured.count(), results.count()), (1, 1), "{fate:?}");
                        drop(future);
                        true
                    }
                    Fate::CancelledAndTaken => {
                        assert!(future.cancel());
                        assert!(future.result().unwrap_err().is_cancelled());
                        true
                    }
                    Fate::CancelledOnDrop => {
                        drop(future.cancel_on_drop());
                        true
                    }
                    Fate::Shared => {
                        let one = future.shared();
                        let two = one.clone();
                        begin();
                        gate.open();
                        assert_eq!(one.get().is_err(), panics);
                        drop(one);
                        // The clones share one panic, and its payload.
                        assert_eq!(two.get().is_err(), panics);
                        assert_eq!(results.count(), 0);
                        drop(two);
                        // The worker may be about to let go of it still, after it has woken this thread.
                        false
                    }
                    Fate::SharedAndDroppedBeforeTheStart => {
                        drop(future.shared());
                        begin();
                        gate.open();
                        false
                    }
                    Fate::Waited => {
                        begin();
                        gate.open();
                        let waited = wait([future], None, ReturnWhen::AllCompleted);
                        assert_eq!((waited.done.len(), results.count()), (1, 0));
                        drop(waited);
                        true
                    }
                    Fate::Completed => {
                        begin();
                        let mut completed = as_completed([future]);
                        gate.open();
                        drop(completed.next().unwrap());
                        true
                    }
                    Fate::Polled => {
                        let mut future = future;
                        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
                        assert!(std::pin::Pin::new(&mut future).poll(&mut context).is_pending());
                        begin();
                        gate.open();
                        until(|| future.is_done());
                        assert!(std::pin::Pin::new(&mut future).poll(&mut context).is_ready());
                        true
                    }
                };
                if is_resolved {
                    assert_eq!((captured.count(), results.count()), (1, 1), "{fate:?}, panics: {panics}");
                }
                gate.open();
                drop(plug);
                drop(pool);
                assert_eq!((captured.count(), results.count()), (1, 1), "{fate:?}, panics: {panics}, at the end");
            }
        }
    });
}

#[test]
fn claimed_by_a_waiter() {
    guarded(|| {
        let (captured, results) = (Drops::new(), Drops::new());
        let pool = Arc::new(pool(1));
        let (inner, token, result) = (Arc::clone(&pool), captured.token(), results.token());
        let (seen_captured, seen_results) = (captured.clone(), results.clone());
        let outer = pool.submit(move || {
            let future = inner.submit(move || {
                let _token = token;
                result
            });
            let result = future.result().unwrap();
            assert_eq!((seen_captured.count(), seen_results.count()), (1, 0));
            drop(result);
            assert_eq!(seen_results.count(), 1);
        });
        outer.result().unwrap();
        drop(pool);
        assert_eq!((captured.count(), results.count()), (1, 1));
    });
}

#[test]
fn values_of_promises() {
    let drops = Drops::new();
    // Set and taken; set and dropped; cancelled before; set after the handle was dropped.
    let ((a, one), (b, two), (c, three), (d, four)) = (promise(), promise(), promise(), promise());
    a.set_result(drops.token()).unwrap();
    drop(one.result().unwrap());
    assert_eq!(drops.count(), 1);
    b.set_result(drops.token()).unwrap();
    assert_eq!(drops.count(), 1);
    drop(two);
    assert_eq!(drops.count(), 2);
    assert!(three.cancel());
    drop(c.set_result(drops.token()).unwrap_err());
    assert_eq!(drops.count(), 3);
    drop(four);
    d.set_result(drops.token()).unwrap();
    assert_eq!(drops.count(), 4);
}

#[test]
fn callbacks_are_dropped_once_whether_they_run_or_not() {
    guarded(|| {
        let drops = Drops::new();
        let (kept, future) = promise::<u32>();
        for _ in 0..3 {
            let token = drops.token();
            future.add_done_callback(move |_| drop(token));
        }
        assert_eq!(drops.count(), 0);
        drop(future);
        assert_eq!(drops.count(), 0, "they still run");
        drop(kept);
        assert_eq!(drops.count(), 3);
    });
}

#[test]
fn what_a_pool_was_built_with() {
    guarded(|| {
        let drops = Drops::new();
        let (one, two) = (drops.token(), drops.token());
        let pool = ThreadPoolExecutor::builder()
            .max_workers(2)
            .initializer(move || std::hint::black_box(&one).touch())
            .finalizer(move || std::hint::black_box(&two).touch())
            .build()
            .unwrap();
        Plug::new(&pool, 2).release();
        assert_eq!(drops.count(), 0);
        drop(pool);
        assert_eq!(drops.count(), 2);
    });
}

// The moment at which the handle goes meets the moment at which the task ends.
#[test]
fn a_handle_dropped_while_the_task_ends() {
    guarded(|| {
        const ROUNDS: usize = 20_000;
        let (pool, captured, results) = (pool(2), Drops::new(), Drops::new());
        for round in 0..ROUNDS {
            let (token, result) = (captured.token(), results.token());
            let future = pool.submit(move || {
                drop(token);
                result
            });
            for _ in 0..round % 100 {
                std::hint::spin_loop();
            }
            drop(future);
        }
        drop(pool);
        assert_eq!((captured.count(), results.count()), (ROUNDS, ROUNDS));
    });
}

/// Counts its drops, and owns a waker of the future that it is the output of.
struct OwnsItsWaker {
    _waker: Waker,
    _token: Token,
}

/// Ready at the first poll.
fn owns_its_waker(token: Token) -> impl Future<Output = OwnsItsWaker> + Send + 'static {
    let mut token = Some(token);
    poll_fn(move |context| {
        let _token = token.take().expect("polled once");
        Poll::Ready(OwnsItsWaker { _waker: context.waker().clone(), _token })
    })
}

#[test]
fn the_output_of_a_future_without_a_handle_that_owns_its_waker() {
    guarded(|| {
        let pool = pool(1);
        let drops = Drops::new();
        let plug = Plug::new(&pool, 1);
        pool.spawn(owns_its_waker(drops.token())).detach();
        drop(pool.spawn(owns_its_waker(drops.token())).cancel_on_drop().into_inner());
        drop(pool.spawn(owns_its_waker(drops.token())).shared());
        let called = Arc::new(Mutex::new(None));
        let seen = (Arc::clone(&called), drops.clone());
        pool.spawn(owns_its_waker(drops.token())).add_done_callback(move |outcome| {
            assert!(outcome.is_ok());
            *seen.0.lock().unwrap() = Some(seen.1.count());
        });
        plug.release();
        // Behind them in the queue.
        pool.submit(|| ()).result().unwrap();
        assert_eq!(drops.count(), 4);
        // A callback sees the output, which is dropped after it.
        assert_eq!(*called.lock().unwrap(), Some(3));
    });
}

/// Tells in which thread it is dropped.
struct TellsThread(mpsc::Sender<Option<String>>);

impl Drop for TellsThread {
    fn drop(&mut self) {
        let _ = self.0.send(std::thread::current().name().map(str::to_owned));
    }
}

#[test]
fn the_output_of_a_future_without_a_handle_while_others_hold_its_wakers() {
    guarded(|| {
        let pool = pool(1);
        let (wakers, waker) = mpsc::channel::<Waker>();
        let (dropped, dropped_in) = mpsc::channel();
        let plug = Plug::new(&pool, 1);
        pool.spawn(poll_fn(move |context| {
            wakers.send(context.waker().clone()).unwrap();
            Poll::Ready(TellsThread(dropped.clone()))
        }))
        .detach();
        plug.release();
        let waker = waker.recv().unwrap();
        let name = dropped_in.recv().unwrap();
        assert!(name.as_ref().is_some_and(|name| name.starts_with("ThreadPoolExecutor")), "{name:?}");
        waker.wake_by_ref();
        drop(waker);
        assert!(dropped_in.recv().is_err());
    });
}

#[test]
fn the_panic_of_a_future_without_a_handle() {
    guarded(|| {
        let pool = pool(1);
        let drops = Drops::new();
        let plug = Plug::new(&pool, 1);
        let (held, mut payload) = (drops.token(), Some(drops.token()));
        pool.spawn(poll_fn(move |context| -> Poll<()> {
            held.touch();
            std::panic::panic_any((context.waker().clone(), payload.take()));
        }))
        .detach();
        plug.release();
        pool.submit(|| ()).result().unwrap();
        // What the future owned, and the payload.
        assert_eq!(drops.count(), 2);
    });
}

// The handle goes while the future ends: whoever of the two comes second drops the output.
#[test]
fn the_output_when_the_handle_is_dropped_while_the_future_ends() {
    guarded(|| {
        let pool = pool(1);
        for _ in rounds(10_000) {
            let drops = Drops::new();
            drop(pool.spawn(owns_its_waker(drops.token())));
            until(|| drops.count() == 1);
        }
    });
}

#[cfg(all(feature = "process", target_os = "linux"))]
#[test]
fn what_a_select_leaves_behind_is_dropped_with_its_output() {
    guarded(|| {
        let pool = pool(1);
        let (go, gate) = mpsc::channel::<()>();
        pool.submit(move || gate.recv()).detach();
        let (tx, rx) = futures::channel::oneshot::channel::<()>();
        pool.spawn(futures::future::select(rx, futures::future::ready(()))).detach();
        go.send(()).unwrap();
        drop(pool);
        assert!(tx.is_canceled());
    });
}
