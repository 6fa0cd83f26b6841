//! Done-callbacks.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use concurrent_futures::{Shutdown, TaskError, TaskFuture, ThreadPoolExecutor, promise};

use crate::support::*;

#[test]
fn waiting_for_the_own_future_in_the_callback_of_cancel_would_deadlock() {
    guarded(|| {
        let pool = pool(1);
        let _plug = Plug::new(&pool, 1);
        let future = pool.submit(|| 1).shared();
        let clone = future.clone();
        let (tx, rx) = mpsc::channel();
        future.add_done_callback(move |_| tx.send(clone.result().unwrap_err()).unwrap());
        assert!(future.cancel());
        assert!(rx.recv().unwrap().is_would_deadlock());
    });
}

// A worker announces that it is free right before it publishes, finds callbacks, and takes the announcement back. A
// task that was submitted in between relied on it.
#[test]
fn a_blocking_callback_does_not_hold_up_other_tasks() {
    guarded(|| {
        let pool = pool(2);
        let go = Arc::new(AtomicBool::new(false));
        for round in rounds(5_000) {
            go.store(false, SeqCst);
            let (started, other_ran) = (Gate::new(), Gate::new());
            let task = {
                let (go, started) = (Arc::clone(&go), started.clone());
                move || {
                    started.open();
                    while !go.load(SeqCst) {
                        std::hint::spin_loop();
                    }
                }
            };
            let first = pool.submit(task);
            let waited_for = other_ran.clone();
            first.add_done_callback(move |_| waited_for.pass());
            started.pass();
            go.store(true, SeqCst);
            // The window is short: sweep over it.
            for _ in 0..round % 100 {
                std::hint::spin_loop();
            }
            pool.submit(move || other_ran.open()).result().unwrap();
            first.result().unwrap();
            if round % 5 == 0 {
                // The pool can grow again, which is when workers announce themselves early.
                pool.resize(1).unwrap();
                until(|| pool.stats().workers <= 1);
                pool.resize(2).unwrap();
            }
        }
    });
}

/// What a callback was given.
fn told(outcome: Result<&u32, &TaskError>) -> Result<u32, String> {
    outcome.copied().map_err(|error| error.to_string())
}

/// A future of each outcome, and what it settles to, before (`settle` not called) or after (called) it is settled.
type Case = (TaskFuture<u32>, Box<dyn FnOnce(&TaskFuture<u32>)>, Result<u32, String>);

fn cases() -> Vec<Case> {
    let ((a, value), (b, error), (c, cancelled)) = (promise(), promise(), promise());
    vec![
        (value, Box::new(move |_| a.set_result(5).unwrap()), Ok(5)),
        (error, Box::new(move |_| b.set_error("failed").unwrap()), Err("the task failed: failed".to_owned())),
        (
            cancelled,
            Box::new(move |future| {
                assert!(future.cancel());
                drop(c);
            }),
            Err("the task was cancelled".to_owned()),
        ),
    ]
}

#[test]
fn done_callback_with_every_outcome() {
    for (future, settle, expected) in cases() {
        let (tx, rx) = mpsc::channel();
        let own = thread::current().id();
        future.add_done_callback(move |outcome| tx.send((told(outcome), thread::current().id())).unwrap());
        assert!(rx.try_recv().is_err(), "it is not done yet");
        settle(&future);
        assert_eq!(rx.try_recv().unwrap(), (expected, own));
        assert!(rx.recv().is_err(), "called once, and dropped");
    }
}

#[test]
fn done_callback_already_done() {
    for (future, settle, expected) in cases() {
        settle(&future);
        let (tx, rx) = mpsc::channel();
        let own = thread::current().id();
        future.add_done_callback(move |outcome| tx.send((told(outcome), thread::current().id())).unwrap());
        assert_eq!(rx.try_recv().unwrap(), (expected, own));
        assert!(rx.recv().is_err());
    }
}

#[test]
fn done_callback_raises() {
    for already in [false, true] {
        for (future, settle, expected) in cases() {
            let (tx, rx) = mpsc::channel();
            let mut settle = Some(settle);
            if already {
                settle.take().unwrap()(&future);
            }
            for n in 0..5 {
                let tx = tx.clone();
                future.add_done_callback(move |outcome| {
                    tx.send((n, told(outcome))).unwrap();
                    assert!(n % 2 == 0, "a callback panics, as this test wants it");
                });
            }
            if let Some(settle) = settle {
                settle(&future);
            }
            drop(tx);
            let calls: Vec<_> = rx.iter().collect();
            assert_eq!(calls, (0..5).map(|n| (n, expected.clone())).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_callback_runs_on_the_worker_and_before_the_result_is_seen() {
    guarded(|| {
        let pool = ThreadPoolExecutor::builder().max_workers(1).name("calls").build().unwrap();
        for _ in 0..500 {
            let plug = Plug::new(&pool, 1);
            let future = pool.submit(|| 1);
            let name = Arc::new(Mutex::new(None));
            let noted = Arc::clone(&name);
            future.add_done_callback(move |_| *noted.lock().unwrap() = thread::current().name().map(str::to_owned));
            drop(plug);
            future.result().unwrap();
            assert_eq!(name.lock().unwrap().as_deref(), Some("calls_0"));
        }
    });
}

#[test]
fn callbacks_of_a_cancelled_task_run_before_cancel_returns() {
    guarded(|| {
        let pool = pool(1);
        let _plug = Plug::new(&pool, 1);
        let future = pool.submit(|| 1);
        let (tx, rx) = mpsc::channel();
        let own = thread::current().id();
        future.add_done_callback(move |outcome| {
            assert_eq!(thread::current().id(), own);
            tx.send(outcome.unwrap_err().is_cancelled()).unwrap();
        });
        assert!(future.cancel());
        assert_eq!(rx.try_recv(), Ok(true));
        assert!(future.cancel());
        assert!(rx.try_recv().is_err(), "called once");
    });
}

// The moment of the call meets the moment of the completion.
#[test]
fn a_callback_added_while_the_task_ends_runs_once() {
    guarded(|| {
        let pool = pool(2);
        for round in rounds(2000) {
            let future = pool.submit(|| 1);
            for _ in 0..round % 50 {
                std::hint::spin_loop();
            }
            let calls = Counter::new();
            for _ in 0..3 {
                let calls = Arc::clone(&calls);
                future.add_done_callback(move |_| calls.add());
            }
            // Whoever has the result can rely on the callbacks having run.
            future.result().unwrap();
            assert_eq!(calls.get(), 3);
        }
    });
}

#[test]
fn callbacks_may_use_the_pool() {
    guarded(|| {
        let pool = Arc::new(pool(1));
        let (tx, rx) = mpsc::channel();
        let plug = Plug::new(&pool, 1);
        let future = pool.submit(|| 1);
        let inner = Arc::clone(&pool);
        future.add_done_callback(move |_| {
            // Submit, cancel, wait for a task of its own, shut the pool down.
            let (detached, cancelled) = (inner.submit(|| 2), inner.submit(|| 3));
            assert!(cancelled.cancel());
            let claimed = inner.submit(|| 4).result().unwrap();
            inner.shutdown(Shutdown::NoWait).unwrap();
            tx.send((detached, claimed)).unwrap();
        });
        plug.release();
        future.result().unwrap();
        let (detached, claimed) = rx.recv().unwrap();
        assert_eq!((detached.result().unwrap(), claimed), (2, 4));
        assert!(pool.submit(|| ()).result().unwrap_err().is_shut_down());
    });
}

#[test]
fn a_callback_may_drop_the_last_handle_of_the_pool() {
    guarded(|| {
        let ended = Drops::new();
        let token = ended.token();
        let pool = ThreadPoolExecutor::builder()
            .max_workers(1)
            .initializer(move || {
                let _ = &token;
            })
            .build()
            .unwrap();
        let pool = Arc::new(pool);
        let plug = Plug::new(&pool, 1);
        let future = pool.submit(|| 1);
        let (inner, alone) = (Arc::clone(&pool), Gate::new());
        let gate = alone.clone();
        future.add_done_callback(move |_| {
            gate.pass();
            drop(Arc::into_inner(inner).expect("it is the last one"));
        });
        drop(pool);
        alone.open();
        plug.release();
        assert_eq!(future.result().unwrap(), 1);
        // What the pool was built with goes with its last thread.
        until(|| ended.count() == 1);
    });
}

#[test]
fn a_callback_may_add_callbacks() {
    guarded(|| {
        let (promise, future) = promise();
        let future = Arc::new(future);
        let (tx, rx) = mpsc::channel();
        let (inner, sender) = (Arc::downgrade(&future), tx);
        future.add_done_callback(move |_| {
            sender.send("outer").unwrap();
            let again = sender.clone();
            inner.upgrade().unwrap().add_done_callback(move |outcome| {
                assert_eq!(*outcome.unwrap(), 9);
                again.send("inner").unwrap();
            });
        });
        promise.set_result(9).unwrap();
        assert_eq!(rx.iter().collect::<Vec<_>>(), ["outer", "inner"]);
    });
}

#[test]
fn callbacks_of_a_dropped_handle_still_run() {
    guarded(|| {
        let pool = pool(1);
        let plug = Plug::new(&pool, 1);
        let future = pool.submit(|| 1);
        let (tx, rx) = mpsc::channel();
        future.add_done_callback(move |outcome| tx.send(*outcome.unwrap()).unwrap());
        drop(future);
        plug.release();
        assert_eq!(rx.recv().unwrap(), 1);
    });
}

#[test]
fn callbacks_of_a_promise_that_is_dropped() {
    let (promise, future) = promise::<u32>();
    let (tx, rx) = mpsc::channel();
    future.add_done_callback(move |outcome| tx.send(outcome.unwrap_err().is_abandoned()).unwrap());
    drop(promise);
    assert_eq!(rx.try_recv(), Ok(true));
}
