//! [`as_completed`](crate::as_completed) for asynchronous code.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::stream::{FusedStream, Stream};

use super::as_completed::AsCompleted;
use super::set::Completable;

impl<F: Completable> AsCompleted<F> {
    /// Turns the iterator into a [`Stream`], for asynchronous code. It yields the futures that have not been yielded yet, as they
    /// complete.
    ///
    /// It is a type of its own because `Iterator::next` and `StreamExt::next` would be hard to tell apart. It can be dropped at
    /// any time, also between a poll and the wake-up, without blocking, and polled with another waker each time.
    ///
    /// ```
    /// use std::future::poll_fn;
    /// use std::pin::Pin;
    /// use concurrent_futures::{as_completed, block_on, ThreadPoolExecutor};
    /// use futures_core::Stream;
    ///
    /// let pool = ThreadPoolExecutor::new(2)?;
    /// let futures = ["ox", "lark"].map(|word| (word, pool.submit(move || word.len())));
    /// let letters = block_on(async {
    ///     let mut completed = as_completed(futures).into_stream();
    ///     let mut letters = 0;
    ///     // `while let Some(..) = completed.next().await`, with the `StreamExt` of your choice.
    ///     while let Some((_word, future)) = poll_fn(|context| Pin::new(&mut completed).poll_next(context)).await {
    ///         letters += future.await.unwrap(); // done already
    ///     }
    ///     letters
    /// });
    /// assert_eq!(letters, 6);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn into_stream(self) -> AsCompletedStream<F> {
        AsCompletedStream { inner: self }
    }
}

/// The stream of [`AsCompleted::into_stream`].
#[must_use = "streams are lazy: nothing is waited for until they are polled"]
pub struct AsCompletedStream<F: Completable> {
    inner: AsCompleted<F>,
}

// The items are on the heap, and are never pinned.
impl<F: Completable> Unpin for AsCompletedStream<F> {}

impl<F: Completable> AsCompletedStream<F> {
    /// The futures that have not been yielded, in the order in which they were given.
    pub fn into_unfinished(mut self) -> Vec<F> {
        self.inner.set.dissolve().collect()
    }
}

impl<F: Completable> Stream for AsCompletedStream<F> {
    type Item = F;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<F>> {
        let inner = &mut self.get_mut().inner;
        if inner.left() == 0 {
            return Poll::Ready(None);
        }
        if inner.ready.is_empty() {
            ready!(inner.set.poll_for(inner.yielded + 1, context));
            inner.set.drain(&mut inner.ready);
        }
        Poll::Ready(Some(inner.take_ready()))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.inner.left(), Some(self.inner.left()))
    }
}

impl<F: Completable> FusedStream for AsCompletedStream<F> {
    fn is_terminated(&self) -> bool {
        self.inner.left() == 0
    }
}

impl<F: Completable> fmt::Debug for AsCompletedStream<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsCompletedStream").field("left", &self.inner.left()).finish_non_exhaustive()
    }
}
