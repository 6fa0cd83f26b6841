//! `wait` to be awaited.

use std::sync::Arc;
use std::thread;

use concurrent_futures::{Promise, ReturnWhen, TaskFuture, block_on, promise, wait_async};

use crate::support::*;

fn promises(count: usize) -> (Vec<Promise<usize>>, Vec<TaskFuture<usize>>) {
    (0..count).map(|_| promise()).unzip()
}

#[test]
fn none_is_ready_at_once() {
    let waited = block_on(wait_async(Vec::<TaskFuture<()>>::new(), ReturnWhen::FirstCompleted));
    assert!(waited.done.is_empty() && waited.not_done.is_empty());
}

#[test]
fn all_are_done_and_one_wake_says_so() {
    let (promises, futures) = promises(5);
    let mut waiting = wait_async(futures.into_iter().enumerate(), ReturnWhen::AllCompleted);
    let (count, waker) = counting();
    for (n, promise) in promises.into_iter().enumerate() {
        assert!(poll(&mut waiting, &waker).is_pending());
        assert_eq!(count.wakes(), 0, "nothing to do before all are done");
        promise.set_result(n).unwrap();
    }
    assert_eq!(count.wakes(), 1);
    let std::task::Poll::Ready(waited) = poll(&mut waiting, &waker) else { panic!("all are done") };
    assert!(waited.not_done.is_empty());
    for (n, future) in waited.done {
        assert_eq!(future.result().unwrap(), n);
    }
    assert_eq!(waiting.into_waited().done.len(), 0, "they were handed out");
    assert_eq!(Arc::strong_count(&count), 2, "no waker is left behind");
}

#[test]
fn the_first_one_or_the_first_failure() {
    for return_when in [ReturnWhen::FirstCompleted, ReturnWhen::FirstException] {
        let (mut promises, futures) = promises(3);
        let mut waiting = wait_async(futures, return_when);
        let (count, waker) = counting();
        assert!(poll(&mut waiting, &waker).is_pending());
        promises.pop().unwrap().set_result(1).unwrap();
        if return_when == ReturnWhen::FirstException {
            assert_eq!(count.wakes(), 0);
            assert!(poll(&mut waiting, &waker).is_pending());
            drop(promises.pop());
        }
        assert_eq!(count.wakes(), 1);
        let left = promises.len();
        let waited = block_on(waiting);
        assert_eq!((waited.done.len(), waited.not_done.len()), (3 - left, left));
    }
}

#[test]
fn the_last_waker_counts() {
    let (promises, futures) = promises(2);
    let mut waiting = wait_async(futures, ReturnWhen::AllCompleted);
    let ((first, one), (second, two)) = (counting(), counting());
    assert!(poll(&mut waiting, &one).is_pending());
    assert!(poll(&mut waiting, &two).is_pending());
    assert_eq!(Arc::strong_count(&first), 2, "the first waker is let go");
    promises.into_iter().for_each(|promise| promise.set_result(1).unwrap());
    assert_eq!((first.wakes(), second.wakes()), (0, 1));
    assert!(poll(&mut waiting, &one).is_ready());
}

#[test]
fn given_up_half_way_it_tells_what_it_has() {
    let (mut promises, futures) = promises(3);
    let mut waiting = wait_async(futures.into_iter().enumerate(), ReturnWhen::AllCompleted);
    let (count, waker) = counting();
    assert!(poll(&mut waiting, &waker).is_pending());
    promises.remove(1).set_result(7).unwrap();
    let waited = waiting.into_waited();
    assert_eq!(waited.done.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [1]);
    assert_eq!(waited.not_done.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [0, 2]);
    assert_eq!((count.wakes(), Arc::strong_count(&count)), (0, 2));
    // The handles are as good as new.
    let rest =
        thread::spawn(move || waited.not_done.into_iter().map(|(_, future)| future.result().unwrap()).sum::<usize>());
    promises.into_iter().for_each(|promise| promise.set_result(1).unwrap());
    assert_eq!(rest.join().unwrap(), 2);
}

#[test]
fn dropped_after_a_poll_it_leaves_nothing_behind() {
    let (promises, futures) = promises(3);
    let mut waiting = wait_async(futures, ReturnWhen::FirstCompleted);
    let (count, waker) = counting();
    assert!(poll(&mut waiting, &waker).is_pending());
    drop(waiting);
    assert_eq!(Arc::strong_count(&count), 2);
    promises.into_iter().for_each(|promise| promise.set_result(1).unwrap());
    assert_eq!(count.wakes(), 0);
}

#[test]
#[should_panic = "polled again"]
fn polled_after_it_was_ready_it_panics() {
    let mut waiting = wait_async(Vec::<TaskFuture<()>>::new(), ReturnWhen::AllCompleted);
    let (_, waker) = counting();
    assert!(poll(&mut waiting, &waker).is_ready());
    let _ = poll(&mut waiting, &waker);
}

#[test]
fn completions_race_the_polls() {
    guarded(|| {
        let pool = pool(2);
        for round in rounds(2000) {
            let futures: Vec<_> = (0..round % 7).map(|n| pool.submit(move || n)).collect();
            let waited = block_on(wait_async(futures, ReturnWhen::AllCompleted));
            assert_eq!(waited.done.len(), round % 7);
        }
    });
}
