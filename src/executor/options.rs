//! Option types that both executors share.

use std::time::Duration;

use crate::error::BuildError;

/// The most workers that one executor can have: 32,768, which is more threads than Linux allows a process by default.
pub const MAX_WORKERS: usize = 32_768;

/// Which of the queued tasks start first. Within one priority the order is first in, first out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// Starts when nothing else is queued.
    Low,
    /// What `submit` uses.
    #[default]
    Normal,
    /// Starts before all others.
    High,
}

/// What the `shutdown` of an executor does with what is queued, and what it waits for. In every mode the executor accepts no new
/// tasks from the call on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Shutdown {
    /// Runs everything that was submitted, including spawned futures to completion, then returns when the workers have ended.
    /// This corresponds to the end of Python's `with` block.
    #[default]
    Wait,
    /// Returns at once; everything that was submitted still runs, and the workers end by themselves. Dropping the executor then
    /// does not wait either.
    NoWait,
    /// Cancels what has not started, and spawned futures where they wait; lets the rest finish, and returns when the workers have
    /// ended. A future that is being polled ends with that poll.
    CancelPending,
    /// Cancels like [`CancelPending`](Self::CancelPending), but returns without waiting for the rest, like
    /// [`NoWait`](Self::NoWait).
    CancelPendingNoWait,
    /// Like [`Wait`](Self::Wait), but for at most the given time. After that it behaves like
    /// [`CancelPending`](Self::CancelPending), and the call returns an error that says how many workers were still busy. Threads
    /// go on until their tasks end, as no thread can be stopped from outside; worker processes are ended (SIGTERM, and SIGKILL 50
    /// ms later).
    Within(Duration),
}

impl Shutdown {
    /// Whether what has not started is cancelled at once.
    pub(crate) fn cancels(self) -> bool {
        matches!(self, Self::CancelPending | Self::CancelPendingNoWait)
    }

    /// Whether the call waits until the workers have ended.
    pub(crate) fn waits(self) -> bool {
        !matches!(self, Self::NoWait | Self::CancelPendingNoWait)
    }
}

pub(crate) fn check_workers(workers: usize) -> Result<(), BuildError> {
    match workers {
        0 => Err(BuildError::NoWorkers),
        1..=MAX_WORKERS => Ok(()),
        asked => Err(BuildError::TooManyWorkers { asked, limit: MAX_WORKERS }),
    }
}
