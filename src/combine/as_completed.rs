//! Futures in the order in which they complete.

use std::collections::VecDeque;
use std::fmt;
use std::iter::FusedIterator;
use std::time::{Duration, Instant};

use super::set::{Completable, CompletionSet};
use crate::error::CompletionTimeout;

/// Returns an iterator that yields each future once it has completed, failed or been cancelled. `next` blocks until there is one.
///
/// Takes [`TaskFuture`](crate::TaskFuture)s or [`SharedFuture`](crate::SharedFuture)s of any executors, or pairs `(key, future)`,
/// and yields what it was given. The futures that are done already come first. The iterator knows its exact length, and a
/// completion costs the same however many futures there are. Called on a worker, it runs the last future's task in place if it
/// belongs to the same pool and is still queued. While more than one future is left it runs no task itself, so that it can yield
/// completed futures as soon as possible: if no worker is free, a [spare thread](crate::ThreadPoolExecutor#spare-threads) runs
/// what is queued (of `futures`, nothing else), one task after the other.
///
/// Inside a task, if none of the remaining futures can complete because of a deadlock, they are yielded although they are not
/// done: the calling task's own future, and those of tasks that wait for each other in a cycle. Their `result` returns
/// [`WouldDeadlock`](crate::TaskError::WouldDeadlock) at once.
///
/// If it is dropped half-way, it drops the rest of the futures; their tasks go on. For asynchronous code, `into_stream` turns it
/// into a `Stream` (feature `stream`).
///
/// Modeled on Python's
/// [`as_completed`](https://docs.python.org/3/library/concurrent.futures.html#concurrent.futures.as_completed), except that
/// waiting starts at the call, and that a clone of a shared future counts as a separate future.
///
/// ```
/// use concurrent_futures::{as_completed, ThreadPoolExecutor};
///
/// let pool = ThreadPoolExecutor::new(2)?;
/// let futures = ["ox", "lark"].map(|word| (word, pool.submit(move || word.len())));
/// let mut lengths: Vec<(&str, usize)> =
///     as_completed(futures).map(|(word, future)| (word, future.result().unwrap())).collect();
/// lengths.sort();
/// assert_eq!(lengths, [("lark", 4), ("ox", 2)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn as_completed<F: Completable>(futures: impl IntoIterator<Item = F>) -> AsCompleted<F> {
    AsCompleted { set: CompletionSet::new(futures, false), ready: VecDeque::new(), yielded: 0 }
}

/// Like [`as_completed`], but when `timeout` has passed since this call, it yields one [`CompletionTimeout`], and ends.
/// [`into_unfinished`](AsCompletedTimeout::into_unfinished) returns the unfinished futures.
///
/// Futures that are done are yielded even when the time is up. The calling thread runs no tasks, the last one included.
///
/// ```
/// use std::time::Duration;
/// use concurrent_futures::{as_completed_timeout, promise};
///
/// let (_promise, never) = promise::<u32>();
/// let mut completed = as_completed_timeout([never], Duration::ZERO);
/// let error = completed.next().unwrap().unwrap_err();
/// assert_eq!(error.to_string(), "1 (of 1) futures unfinished");
/// assert_eq!(completed.into_unfinished().len(), 1);
/// ```
pub fn as_completed_timeout<F: Completable>(
    futures: impl IntoIterator<Item = F>,
    timeout: Duration,
) -> AsCompletedTimeout<F> {
    let deadline = Instant::now().checked_add(timeout);
    AsCompletedTimeout { inner: as_completed(futures), deadline, timed_out: false }
}

/// The iterator of [`as_completed`].
#[must_use = "iterators are lazy: nothing is waited for until `next` is called"]
pub struct AsCompleted<F: Completable> {
    pub(super) set: CompletionSet<F>,
    /// Done, but not yielded yet.
    pub(super) ready: VecDeque<usize>,
    pub(super) yielded: usize,
}

impl<F: Completable> AsCompleted<F> {
    /// The next future to complete, or `None` at the deadline.
    fn next_until(&mut self, deadline: Option<Instant>) -> Option<F> {
        if self.ready.is_empty() {
            if !self.set.wait_for(self.yielded + 1, deadline) {
                return None;
            }
            self.set.drain(&mut self.ready);
        }
        Some(self.take_ready())
    }

    pub(super) fn take_ready(&mut self) -> F {
        let index = self.ready.pop_front().expect("what is counted is on the stack");
        self.yielded += 1;
        self.set.take_done(index)
    }

    pub(super) fn left(&self) -> usize {
        self.set.len() - self.yielded
    }
}

impl<F: Completable> Iterator for AsCompleted<F> {
    type Item = F;

    fn next(&mut self) -> Option<F> {
        if self.left() == 0 { None } else { self.next_until(None) }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left(), Some(self.left()))
    }
}

impl<F: Completable> ExactSizeIterator for AsCompleted<F> {}
impl<F: Completable> FusedIterator for AsCompleted<F> {}

impl<F: Completable> fmt::Debug for AsCompleted<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsCompleted").field("left", &self.left()).finish_non_exhaustive()
    }
}

/// The iterator of [`as_completed_timeout`].
#[must_use = "iterators are lazy: nothing is waited for until `next` is called"]
pub struct AsCompletedTimeout<F: Completable> {
    inner: AsCompleted<F>,
    /// `None` if the deadline is too far away for an `Instant`.
    deadline: Option<Instant>,
    timed_out: bool,
}

impl<F: Completable> AsCompletedTimeout<F> {
    /// The futures that have not been yielded, in the order in which they were given.
    pub fn into_unfinished(mut self) -> Vec<F> {
        self.inner.set.dissolve().collect()
    }
}

impl<F: Completable> Iterator for AsCompletedTimeout<F> {
    type Item = Result<F, CompletionTimeout>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.timed_out || self.inner.left() == 0 {
            return None;
        }
        Some(self.inner.next_until(self.deadline).ok_or_else(|| {
            self.timed_out = true;
            CompletionTimeout { unfinished: self.inner.left(), total: self.inner.set.len() }
        }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match (self.timed_out, self.inner.left()) {
            (true, _) | (_, 0) => (0, Some(0)),
            (false, left) => (1, Some(left)),
        }
    }
}

impl<F: Completable> FusedIterator for AsCompletedTimeout<F> {}

impl<F: Completable> fmt::Debug for AsCompletedTimeout<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsCompletedTimeout")
            .field("left", &self.inner.left())
            .field("timed_out", &self.timed_out)
            .finish_non_exhaustive()
    }
}
