//! Cancelling: certain before the start, impossible after it, and told to everybody at once.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::thread;

use concurrent_futures::{ReturnWhen, Shutdown, as_completed, promise, wait};

use crate::support::*;

#[test]
fn a_queued_task_never_runs() {
    guarded(|| {
        let pool = pool(1);
        let plug = Plug::new(&pool, 1);
        let (ran, drops) = (Arc::new(AtomicBool::new(false)), Drops::new());
        let (flag, token) = (Arc::clone(&ran), drops.token());
        let future = pool.submit(move || {
            flag.store(true, SeqCst);
            drop(token);
        });
        assert!(future.cancel());
        assert_eq!(drops.count(), 1, "the closure is dropped before `cancel` returns");
        assert!(future.is_cancelled() && future.is_done() && !future.is_running());
        plug.release();
        pool.shutdown(Shutdown::Wait).unwrap();
        assert!(!ran.load(SeqCst));
        assert!(future.result().unwrap_err().is_cancelled());
        assert_eq!(pool.stats().completed, 1, "only the plug");
    });
}

#[test]
fn a_running_task_goes_on() {
    guarded(|| {
        let pool = pool(1);
        let (started, gate) = (Gate::new(), Gate::new());
        let (begun, behind) = (started.clone(), gate.clone());
        let future = pool.submit(move || {
            begun.open();
            behind.pass();
            5
        });
        started.pass();
        assert!(!future.cancel());
        assert!(!future.is_cancelled());
        gate.open();
        assert_eq!(future.result().unwrap(), 5);
    });
}

#[test]
fn who_waits_wakes_at_once() {
    guarded(|| {
        let pool = pool(1);
        // The only worker is busy to the end: nobody but `cancel` can wake anybody.
        let _plug = Plug::new(&pool, 1);
        for _ in 0..50 {
            let future = pool.submit(|| 1).shared();
            let start = Arc::new(Barrier::new(4));
            let begin = || (future.clone(), Arc::clone(&start));
            let ((a, at), (b, bt), (c, ct)) = (begin(), begin(), begin());
            let waiters = [
                thread::spawn(move || {
                    at.wait();
                    a.result().unwrap_err().is_cancelled()
                }),
                thread::spawn(move || {
                    bt.wait();
                    wait([b], None, ReturnWhen::AllCompleted).done[0].is_cancelled()
                }),
                thread::spawn(move || {
                    ct.wait();
                    as_completed([c]).all(|future| future.is_cancelled())
                }),
            ];
            start.wait();
            assert!(future.cancel());
            waiters.into_iter().for_each(|waiter| assert!(waiter.join().unwrap()));
        }
    });
}

// Exactly one of the two: cancelled and never run, or run and not cancelled.
#[test]
fn cancel_races_the_start() {
    guarded(|| {
        let pool = pool(2);
        for round in rounds(20_000) {
            let ran = Arc::new(AtomicBool::new(false));
            let flag = Arc::clone(&ran);
            let future = pool.submit(move || flag.store(true, SeqCst));
            for _ in 0..round % 200 {
                std::hint::spin_loop();
            }
            let won = future.cancel();
            let result = future.result();
            assert_eq!(result.is_err(), won);
            assert_eq!(ran.load(SeqCst), !won);
        }
    });
}

#[test]
fn many_threads_cancel_one_task() {
    guarded(|| {
        let pool = pool(1);
        let _plug = Plug::new(&pool, 1);
        for _ in 0..100 {
            let drops = Drops::new();
            let token = drops.token();
            let future = pool.submit(move || drop(token)).shared();
            let calls = Counter::new();
            let counted = Arc::clone(&calls);
            future.add_done_callback(move |_| counted.add());
            let start = Arc::new(Barrier::new(4));
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    let (future, start) = (future.clone(), Arc::clone(&start));
                    thread::spawn(move || {
                        start.wait();
                        future.cancel()
                    })
                })
                .collect();
            assert!(threads.into_iter().all(|thread| thread.join().unwrap()), "all of them are told yes");
            assert_eq!((calls.get(), drops.count()), (1, 1));
        }
    });
}

#[test]
fn cancel_on_drop() {
    guarded(|| {
        let pool = pool(1);
        let plug = Plug::new(&pool, 1);
        let drops = Drops::new();
        let submit = || {
            let token = drops.token();
            pool.submit(move || drop(token))
        };
        drop(submit().cancel_on_drop());
        assert_eq!(drops.count(), 1);
        // Taken back, the handle detaches again.
        drop(submit().cancel_on_drop().into_inner());
        assert_eq!(drops.count(), 1);
        let guarded = submit().cancel_on_drop();
        assert!(!guarded.is_done());
        plug.release();
        guarded.into_inner().result().unwrap();
        assert_eq!(drops.count(), 3);
    });
}

#[test]
fn a_promise_sees_that_its_future_is_cancelled() {
    let (promise, future) = promise::<u32>();
    assert!(!promise.is_cancelled());
    drop(future.cancel_on_drop());
    assert!(promise.is_cancelled());
    assert_eq!(promise.set_result(3), Err(3));
}

#[test]
fn a_task_that_waits_for_a_cancelled_one() {
    guarded(|| {
        let pool = Arc::new(pool(2));
        let _plug = Plug::new(&pool, 1);
        let (inner, waiting) = (Arc::clone(&pool), Gate::new());
        let (promise, never) = promise::<u32>();
        let never = never.shared();
        let (other, begun) = (never.clone(), waiting.clone());
        let outer = inner.submit(move || {
            begun.open();
            other.result().unwrap_err().is_cancelled()
        });
        waiting.pass();
        assert!(never.cancel());
        assert!(outer.result().unwrap());
        drop(promise);
    });
}
