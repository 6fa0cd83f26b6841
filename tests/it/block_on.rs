//! Futures on the calling thread.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::{Poll, Waker};
use std::thread;

use concurrent_futures::{block_on, promise};

use crate::support::*;

/// Pending until the flag is up, and counts its polls.
fn until_raised(flag: Arc<AtomicBool>, woken: impl Fn(Waker)) -> impl Future<Output = usize> {
    let mut polls = 0;
    poll_fn(move |context| {
        polls += 1;
        if flag.load(SeqCst) {
            return Poll::Ready(polls);
        }
        woken(context.waker().clone());
        Poll::Pending
    })
}

#[test]
fn ready_and_pending_futures_of_any_kind() {
    guarded(|| {
        let pool = pool(2);
        assert_eq!(block_on(async { 1 }), 1);
        assert_eq!(block_on(pool.submit(|| 2)).unwrap(), 2);
        assert_eq!(block_on(pool.submit(|| 3).shared()).unwrap(), 3);
        assert_eq!(block_on(pool.spawn(async { 4 })).unwrap(), 4);
        // What borrows, and is not `Send`.
        let text = std::rc::Rc::new(String::from("borrowed"));
        assert_eq!(block_on(async { text.len() }), 8);
    });
}

#[test]
fn nested() {
    guarded(|| {
        let pool = pool(1);
        let sum = block_on(async {
            let outer = pool.submit(|| 1);
            let inner = block_on(async { pool.submit(|| 2).await.unwrap() + block_on(pool.submit(|| 3)).unwrap() });
            outer.await.unwrap() + inner
        });
        assert_eq!(sum, 6);
    });
}

#[test]
fn woken_before_it_sleeps_and_more_than_once() {
    guarded(|| {
        let flag = Arc::new(AtomicBool::new(false));
        let raise = Arc::clone(&flag);
        let polls = block_on(until_raised(flag, move |waker| {
            raise.store(true, SeqCst);
            waker.wake_by_ref();
            waker.wake();
        }));
        assert_eq!(polls, 2);
    });
}

// Whoever unparks the thread does not mean the future; and the future's waker does not use up what he meant.
#[test]
fn a_foreign_unpark_is_not_a_wake() {
    guarded(|| {
        let flag = Arc::new(AtomicBool::new(false));
        let (raise, sleeper) = (Arc::clone(&flag), thread::current());
        sleeper.unpark();
        let polls = block_on(until_raised(flag, move |waker| {
            let (raise, sleeper) = (Arc::clone(&raise), sleeper.clone());
            thread::spawn(move || {
                sleeper.unpark();
                raise.store(true, SeqCst);
                waker.wake();
            });
        }));
        assert_eq!(polls, 2, "the first one, and the one after the wake");
        // The token of the unparks is still there: this returns at once.
        thread::park();
    });
}

#[test]
fn a_waker_from_before_is_harmless() {
    guarded(|| {
        let old = block_on(poll_fn(|context| Poll::Ready(context.waker().clone())));
        let (promise, future) = promise();
        let waker = old.clone();
        let busy = thread::spawn(move || (0..1000).for_each(|_| old.wake_by_ref()));
        let setter = thread::spawn(move || {
            waker.wake();
            promise.set_result(7).unwrap();
        });
        assert_eq!(block_on(future).unwrap(), 7);
        busy.join().unwrap();
        setter.join().unwrap();
        assert_eq!(block_on(async { 1 }), 1);
    });
}

#[test]
fn a_panic_goes_on() {
    guarded(|| {
        let panicked = std::panic::catch_unwind(|| block_on(async { panic!("as this test wants it") }));
        assert_eq!(message(&*panicked.unwrap_err()), "as this test wants it");
        assert_eq!(block_on(async { 1 }), 1);
    });
}

#[test]
fn inside_a_worker_it_is_one_more_blocking_call() {
    guarded(|| {
        let pool = pool(1);
        let (promise, future) = promise();
        let blocked = pool.submit(move || block_on(future));
        promise.set_result(5).unwrap();
        assert_eq!(blocked.result().unwrap().unwrap(), 5);
    });
}
