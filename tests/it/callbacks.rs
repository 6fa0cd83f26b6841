//! Done-callbacks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc;

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
        for round in 0..5_000usize {
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
