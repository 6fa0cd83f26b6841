//! Futures as they complete, as a stream.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use concurrent_futures::{AsCompletedStream, Completable, TaskFuture, as_completed, block_on, promise};
use futures_core::stream::{FusedStream, Stream};

use crate::support::*;

fn poll_next<F: Completable>(stream: &mut AsCompletedStream<F>, waker: &Waker) -> Poll<Option<F>> {
    Pin::new(stream).poll_next(&mut Context::from_waker(waker))
}

async fn next<F: Completable>(stream: &mut AsCompletedStream<F>) -> Option<F> {
    poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await
}

#[test]
fn in_the_order_of_completion_with_keys_and_an_exact_size() {
    let (one, first) = promise();
    let (two, second) = promise();
    let (three, third) = promise();
    three.set_result(3).unwrap();
    let mut stream = as_completed([("a", first), ("b", second), ("c", third)]).into_stream();
    assert_eq!(stream.size_hint(), (3, Some(3)));
    let (count, waker) = counting();
    assert!(matches!(poll_next(&mut stream, &waker), Poll::Ready(Some(("c", _)))));
    assert!(poll_next(&mut stream, &waker).is_pending());
    two.set_result(2).unwrap();
    one.set_result(1).unwrap();
    assert_eq!(count.wakes(), 1, "it is not polled in between");
    assert!(matches!(poll_next(&mut stream, &waker), Poll::Ready(Some(("b", _)))));
    assert_eq!(stream.size_hint(), (1, Some(1)));
    assert!(!stream.is_terminated());
    assert!(matches!(poll_next(&mut stream, &waker), Poll::Ready(Some(("a", _)))));
    assert!(stream.is_terminated());
    for _ in 0..2 {
        assert!(matches!(poll_next(&mut stream, &waker), Poll::Ready(None)));
    }
    assert_eq!((count.wakes(), Arc::strong_count(&count)), (1, 2));
}

#[test]
fn begun_as_an_iterator_and_gone_on_with_as_a_stream() {
    guarded(|| {
        let pool = pool(2);
        let mut completed = as_completed((0..10).map(|n| pool.submit(move || n)));
        let mut sum = completed.by_ref().take(4).map(|future| future.result().unwrap()).sum::<i32>();
        block_on(async {
            let mut stream = completed.into_stream();
            while let Some(future) = next(&mut stream).await {
                sum += future.await.unwrap();
            }
        });
        assert_eq!(sum, 45);
    });
}

#[test]
fn the_last_waker_counts() {
    let (promise, future) = promise();
    let mut stream = as_completed([future]).into_stream();
    let ((first, one), (second, two)) = (counting(), counting());
    for _ in 0..3 {
        assert!(poll_next(&mut stream, &one).is_pending());
        assert!(poll_next(&mut stream, &two).is_pending());
    }
    assert_eq!(Arc::strong_count(&first), 2, "the first waker is let go");
    promise.set_result(1).unwrap();
    assert_eq!((first.wakes(), second.wakes()), (0, 1));
    assert!(poll_next(&mut stream, &one).is_ready());
}

#[test]
fn dropped_after_a_poll_it_leaves_nothing_behind() {
    let (promise, future) = promise();
    let shared = future.shared();
    let mut stream = as_completed([shared.clone(), shared.clone()]).into_stream();
    let (count, waker) = counting();
    assert!(poll_next(&mut stream, &waker).is_pending());
    drop(stream);
    assert_eq!(Arc::strong_count(&count), 2);
    promise.set_result(1).unwrap();
    assert_eq!((count.wakes(), shared.result().unwrap()), (0, 1));
}

#[test]
fn what_is_left_comes_back() {
    let (promise, future) = promise();
    let (_never, other) = concurrent_futures::promise::<u32>();
    promise.set_result(1).unwrap();
    let mut stream = as_completed([(1, future), (2, other)]).into_stream();
    assert_eq!(block_on(next(&mut stream)).unwrap().0, 1);
    let left = stream.into_unfinished();
    assert_eq!(left.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [2]);
}

// A poll meets the completion: ready now, or woken later, and never neither.
#[test]
fn completions_race_the_polls() {
    guarded(|| {
        let pool = Arc::new(pool(2));
        for round in rounds(1000) {
            let futures: Vec<TaskFuture<usize>> = (0..round % 9)
                .map(|n| match n % 2 {
                    0 => pool.submit(move || n),
                    _ => pool.spawn(async move { n }),
                })
                .collect();
            let collect = async move {
                let (mut stream, mut found) = (as_completed(futures).into_stream(), Vec::new());
                while let Some(future) = next(&mut stream).await {
                    found.push(future.await.unwrap());
                }
                found.sort_unstable();
                found
            };
            let found = match round % 2 {
                0 => block_on(collect),
                _ => pool.spawn(collect).result().unwrap(),
            };
            assert_eq!(found, (0..round % 9).collect::<Vec<_>>());
        }
    });
}
