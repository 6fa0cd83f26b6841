//! Waiting for some or all of a set of futures.

use std::time::{Duration, Instant};

use super::set::{Completable, CompletionSet};

/// When [`wait`] returns, and [`wait_async`](crate::wait_async) is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReturnWhen {
    /// As soon as any future is done, cancelled ones included.
    FirstCompleted,
    /// As soon as any future has failed, or when all are done. A cancelled future has not failed, as in Python.
    FirstException,
    /// When all futures are done.
    #[default]
    AllCompleted,
}

impl ReturnWhen {
    /// How many of `futures` futures have to be done.
    pub(super) fn count(self, futures: usize) -> usize {
        match self {
            Self::FirstCompleted => futures.min(1),
            Self::FirstException | Self::AllCompleted => futures,
        }
    }
}

/// What [`wait`] found. Both lists keep the order in which the futures were given.
#[derive(Debug)]
#[must_use = "the futures are in here"]
pub struct Waited<F> {
    /// The futures that are done, and those for which waiting would deadlock (see [`wait`]).
    pub done: Vec<F>,
    /// The others. Their tasks go on.
    pub not_done: Vec<F>,
}

impl<F: Completable> Waited<F> {
    pub(super) fn of(set: &mut CompletionSet<F>) -> Self {
        let (done, not_done) = set.partition();
        Self { done, not_done }
    }
}

/// Blocks until `return_when` is satisfied, or `timeout` has passed since this call (`None`: no limit), and sorts them into those
/// that are done and those that are not. A time-out is not an error. With no futures it returns at once.
///
/// Takes [`TaskFuture`](crate::TaskFuture)s or [`SharedFuture`](crate::SharedFuture)s of any executors, or pairs `(key, future)`.
/// Called on a worker, it runs tasks of the same pool that are still queued instead of waiting for them (those of `futures`, no
/// others), if it waits for all of them without a time-out. Otherwise it runs no task itself, so that it can return in time: if
/// no worker is free, a [spare thread](crate::ThreadPoolExecutor#spare-threads) runs the queued tasks, one after the other.
///
/// Called in a task, without a time-out, a future counts as done if waiting for it would deadlock: it belongs to the calling
/// task, or to a cycle of tasks that wait for each other. (With `FirstCompleted`, it counts only if none of the others can
/// complete.) It is in `done`, and its `result` returns [`WouldDeadlock`](crate::TaskError::WouldDeadlock) at once; the task
/// itself is not changed. [`TaskError::WouldDeadlock`](crate::TaskError::WouldDeadlock) says which cycles are not detected.
///
/// [`wait_async`](crate::wait_async) is the same for asynchronous code.
///
/// Modeled on Python's [`wait`](https://docs.python.org/3/library/concurrent.futures.html#concurrent.futures.wait).
///
/// ```
/// use concurrent_futures::{promise, wait, ReturnWhen};
///
/// let (promise, first) = promise();
/// let (_never, second) = concurrent_futures::promise::<u32>();
/// promise.set_result(1).unwrap();
/// let waited = wait([first, second], None, ReturnWhen::FirstCompleted);
/// assert_eq!((waited.done.len(), waited.not_done.len()), (1, 1));
/// ```
pub fn wait<F: Completable>(
    futures: impl IntoIterator<Item = F>,
    timeout: Option<Duration>,
    return_when: ReturnWhen,
) -> Waited<F> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut set = CompletionSet::new(futures, return_when == ReturnWhen::FirstException);
    set.wait_for(return_when.count(set.len()), deadline);
    Waited::of(&mut set)
}
