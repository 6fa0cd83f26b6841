//! A task that was not accepted.

use std::fmt;

use super::TaskError;

/// Why [`try_submit`](crate::ThreadPoolExecutor::try_submit) did not accept a task. It contains the closure, or the argument of a
/// task for a worker process.
#[derive(Clone, thiserror::Error)]
#[error("the task was not taken: {reason}")]
pub struct SubmitError<F> {
    inner: F,
    reason: TaskError,
}

impl<F> SubmitError<F> {
    pub(crate) fn new(inner: F, reason: TaskError) -> Self {
        Self { inner, reason }
    }

    /// The reason: for example, the queue is full, or the executor is shut down or broken.
    pub fn reason(&self) -> &TaskError {
        &self.reason
    }

    /// Returns the closure or the argument, unchanged.
    pub fn into_inner(self) -> F {
        self.inner
    }

    /// True if the queue was full: the same call may succeed later.
    pub fn is_queue_full(&self) -> bool {
        self.reason.is_queue_full()
    }

    /// True if the executor has been shut down.
    pub fn is_shut_down(&self) -> bool {
        self.reason.is_shut_down()
    }
}

impl<F> SubmitError<Box<F>> {
    pub(crate) fn unboxed(self) -> SubmitError<F> {
        SubmitError { inner: *self.inner, reason: self.reason }
    }
}

impl<F> fmt::Debug for SubmitError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubmitError").field("reason", &self.reason).finish_non_exhaustive()
    }
}
