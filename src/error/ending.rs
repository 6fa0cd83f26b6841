//! Waits that ended too early: for the end of an executor, and for several futures.

use std::time::Duration;

/// Why a [`shutdown`](crate::ThreadPoolExecutor::shutdown) failed. The executor is closed nevertheless, except with
/// [`WrongProcess`](Self::WrongProcess).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShutdownError {
    /// The caller runs on a worker of this executor or, in a process pool, in a callback or waker of one of its futures. It would
    /// have to wait for itself.
    #[error("a worker cannot wait for the end of its own executor")]
    WouldDeadlock,
    /// The executor belongs to another process, from which this one was forked: see
    /// [`TaskError::WrongProcess`](crate::TaskError::WrongProcess). The executor is not changed.
    #[error("the executor was built in another process, from which this one was forked")]
    WrongProcess,
    /// The time given to [`Shutdown::Within`](crate::Shutdown::Within) passed. Tasks that had not started are cancelled. On a
    /// thread pool those that are running continue, as no thread can be stopped from outside; a process pool ends its workers.
    #[error("{running} workers were still busy after {waited:?}")]
    TimedOut {
        /// How many workers were still busy.
        running: usize,
        /// How long the call waited.
        waited: Duration,
    },
}

/// The deadline of [`as_completed_timeout`](crate::as_completed_timeout) passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{unfinished} (of {total}) futures unfinished")]
pub struct CompletionTimeout {
    pub(crate) unfinished: usize,
    pub(crate) total: usize,
}

impl CompletionTimeout {
    /// How many futures were not done at the deadline.
    pub fn unfinished(&self) -> usize {
        self.unfinished
    }

    /// How many futures there were.
    pub fn total(&self) -> usize {
        self.total
    }
}
