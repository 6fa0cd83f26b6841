//! Handles as `std::future::Future`s, polled by hand.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use concurrent_futures::{ReturnWhen, TaskError, as_completed, promise, wait};

use crate::support::*;

/// Blocks on a future by its waker alone.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let (_, waker) = counting();
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn await_tasks_of_pools() {
    guarded(|| {
        let pool = pool(2);
        let sum = block_on(async {
            let (a, b) = (pool.submit(|| 1), pool.submit(|| 2).shared());
            let c = pool.submit(|| 3).cancel_on_drop();
            Ok::<_, TaskError>(a.await? + b.clone().await? + b.await? + c.await?)
        });
        assert_eq!(sum.unwrap(), 8);
        for n in 0..2000 {
            assert_eq!(block_on(pool.submit(move || n)).unwrap(), n);
        }
        assert!(block_on(pool.submit(|| -> () { panic!("as this test wants it") })).unwrap_err().is_panicked());
    });
}

#[test]
fn one_wake_per_completion() {
    let (promise, mut future) = promise();
    let (count, waker) = counting();
    for _ in 0..5 {
        assert!(poll(&mut future, &waker).is_pending());
    }
    assert_eq!(count.wakes(), 0);
    promise.set_result(1).unwrap();
    assert_eq!(count.wakes(), 1);
    assert!(matches!(poll(&mut future, &waker), Poll::Ready(Ok(1))));
    drop(future);
    assert_eq!(count.wakes(), 1);
}

#[test]
fn the_last_waker_counts() {
    let (promise, mut future) = promise();
    let ((first, one), (second, two)) = (counting(), counting());
    assert!(poll(&mut future, &one).is_pending());
    assert!(poll(&mut future, &two).is_pending());
    assert_eq!(Arc::strong_count(&first), 2, "the first waker is let go");
    promise.set_result(1).unwrap();
    assert_eq!((first.wakes(), second.wakes()), (0, 1));
    assert!(poll(&mut future, &one).is_ready());
}

#[test]
fn dropped_after_a_poll() {
    let (promise, mut future) = promise();
    let (count, waker) = counting();
    assert!(poll(&mut future, &waker).is_pending());
    assert_eq!(Arc::strong_count(&count), 3);
    drop(future);
    assert_eq!(Arc::strong_count(&count), 2, "the waker went with the handle");
    let _ = promise.set_result(1);
    assert_eq!(count.wakes(), 0);
}

#[test]
fn cancelled_and_abandoned_futures_wake() {
    for cancelled in [true, false] {
        let (promise, mut future) = promise::<u32>();
        let (count, waker) = counting();
        assert!(poll(&mut future, &waker).is_pending());
        match cancelled {
            true => assert!(future.cancel()),
            false => drop(promise),
        }
        assert_eq!(count.wakes(), 1);
        let Poll::Ready(Err(error)) = poll(&mut future, &waker) else { panic!("it is done") };
        assert_eq!((error.is_cancelled(), error.is_abandoned()), (cancelled, !cancelled));
    }
}

#[test]
fn polled_and_then_blocked_on() {
    guarded(|| {
        let pool = pool(1);
        for _ in 0..200 {
            let plug = Plug::new(&pool, 1);
            let (mut one, mut two, mut three) = (pool.submit(|| 1), pool.submit(|| 2), pool.submit(|| 3));
            let (count, waker) = counting();
            assert!(poll(&mut one, &waker).is_pending());
            assert!(poll(&mut two, &waker).is_pending());
            assert!(poll(&mut three, &waker).is_pending());
            let gate = plug.gate();
            let opener = thread::spawn(move || gate.open());
            assert_eq!(one.result().unwrap(), 1);
            assert_eq!(wait([two], None, ReturnWhen::AllCompleted).done.len(), 1);
            assert_eq!(as_completed([three]).map(|future| future.result().unwrap()).sum::<i32>(), 3);
            opener.join().unwrap();
            plug.release();
            // The worker may still be at it: it has published, and wakes now.
            until(|| Arc::strong_count(&count) == 2);
            assert!(count.wakes() <= 3);
        }
    });
}

#[test]
fn handles_of_spawned_futures_are_polled_blocked_on_and_dropped_alike() {
    guarded(|| {
        let pool = pool(1);
        for round in rounds(300) {
            let puppets = [Puppet::new(), Puppet::new(), Puppet::new()];
            let [mut one, mut two, mut three] =
                puppets.clone().map(|puppet| pool.spawn(puppet.future(Drops::new().token())));
            let ((first, a), (second, b)) = (counting(), counting());
            for future in [&mut one, &mut two, &mut three] {
                assert!(poll(future, &a).is_pending());
                assert!(poll(future, &b).is_pending());
            }
            // Before or while it completes.
            drop(three);
            let finisher = thread::spawn(move || puppets.iter().for_each(Puppet::finish));
            (0..round % 100).for_each(|_| std::hint::spin_loop());
            assert_eq!(one.result().unwrap(), 2);
            assert_eq!(block_on(two).unwrap(), 2);
            finisher.join().unwrap();
            // A resolver may still be at it: it has published, and wakes now.
            until(|| (Arc::strong_count(&first), Arc::strong_count(&second)) == (2, 2));
            assert!(first.wakes() == 0 && second.wakes() <= 2);
        }
    });
}

#[test]
fn polled_shared_futures() {
    let (promise, future) = promise();
    let mut one = future.shared();
    let mut two = one.clone();
    let ((first, a), (second, b)) = (counting(), counting());
    for _ in 0..3 {
        assert!(poll(&mut one, &a).is_pending());
        assert!(poll(&mut two, &b).is_pending());
    }
    let three = two.clone();
    promise.set_result(4).unwrap();
    assert_eq!((first.wakes(), second.wakes()), (1, 1));
    for mut future in [one, two, three] {
        // It can be polled again: the result is cloned out.
        for _ in 0..2 {
            assert!(matches!(poll(&mut future, &a), Poll::Ready(Ok(4))));
        }
    }
    assert_eq!((Arc::strong_count(&first), Arc::strong_count(&second)), (2, 2));
}

#[test]
fn a_polled_shared_future_that_is_dropped_is_not_woken() {
    let (promise, future) = promise();
    let mut one = future.shared();
    let two = one.clone();
    let (count, waker) = counting();
    assert!(poll(&mut one, &waker).is_pending());
    drop(one);
    assert_eq!(Arc::strong_count(&count), 2);
    promise.set_result(4).unwrap();
    assert_eq!((count.wakes(), two.result().unwrap()), (0, 4));
}

// A poll meets the completion: ready now, or woken later, and never neither.
#[test]
fn polling_races_the_completion() {
    guarded(|| {
        let pool = pool(1);
        for round in rounds(5000) {
            let mut future = pool.submit(move || round);
            let (count, waker) = counting();
            for _ in 0..round % 100 {
                std::hint::spin_loop();
            }
            let mut polls = 0;
            let value = loop {
                polls += 1;
                // Another waker each time, so that the old one has to be taken back.
                let (_, other) = counting();
                if let Poll::Ready(value) = poll(&mut future, if polls % 2 == 0 { &waker } else { &other }) {
                    break value;
                }
                if polls > 2 {
                    thread::park();
                }
            };
            assert_eq!(value.unwrap(), round);
            assert!(count.wakes() <= 1);
        }
    });
}

#[test]
fn a_waker_that_panics() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("a waker panics, as this test wants it");
        }
    }
    guarded(|| {
        let pool = pool(1);
        let plug = Plug::new(&pool, 1);
        let (mut future, shared) = (pool.submit(|| 1), pool.submit(|| 2).shared());
        let (mut one, two) = (shared.clone(), shared);
        let waker = Waker::from(Arc::new(Panics));
        assert!(poll(&mut future, &waker).is_pending());
        assert!(poll(&mut one, &waker).is_pending());
        plug.release();
        assert_eq!(two.result().unwrap(), 2);
        assert_eq!(future.result().unwrap(), 1);
        assert_eq!(pool.stats().workers, 1);
    });
}

#[test]
fn polled_after_it_was_ready_it_panics() {
    let (promise, mut future) = promise();
    promise.set_result(1).unwrap();
    let (_, waker) = counting();
    assert!(poll(&mut future, &waker).is_ready());
    let again = std::panic::AssertUnwindSafe(|| poll(&mut future, &waker).is_ready());
    assert!(std::panic::catch_unwind(again).is_err());
}
