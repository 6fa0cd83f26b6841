//! Worker processes that cannot be started.

use std::fmt;

use super::WorkerExit;

/// A process whose effective user or group is not the real one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DifferentIds {
    pub(crate) user: (u32, u32),
    pub(crate) group: (u32, u32),
}

impl DifferentIds {
    /// The real and the effective user.
    pub fn user(&self) -> (u32, u32) {
        self.user
    }

    /// The real and the effective group.
    pub fn group(&self) -> (u32, u32) {
        self.group
    }
}

impl fmt::Display for DifferentIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((user, as_user), (group, as_group)) = (self.user, self.group);
        write!(f, "the effective user and group of this process ({as_user}:{as_group}) are not the real ones ")?;
        write!(f, "({user}:{group}), so the system would distrust its worker processes")
    }
}

/// Why worker processes cannot be started: the cause of a [`TaskError::Broken`](crate::TaskError::Broken), and, where it may be
/// possible later, of a [`TaskError::Spawn`](crate::TaskError::Spawn).
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The worker is another build of the program. Calls are never run by another build, where a function's address may be
    /// different.
    #[error("the worker is build {found}, not {expected}")]
    WrongBuild {
        /// The build id of this program.
        expected: String,
        /// The build id of the worker.
        found: String,
    },
    /// The process that was started did not answer as a worker does, or refused to become one. See [`worker`](crate::worker).
    #[error("what was started does not behave like a worker: {0}")]
    NotAWorker(String),
    /// The process that was started did not answer in time ([`start_timeout`](crate::ProcessPoolBuilder::start_timeout)). See
    /// [`worker`](crate::worker).
    #[error("what was started did not answer within {0:?}")]
    NoAnswer(std::time::Duration),
    /// [`restart_limit`](crate::ProcessPoolBuilder::restart_limit) workers in a row have ended before they were ready, or before
    /// their initializer had returned.
    #[error("workers ended before they were ready; the last: {0}")]
    Died(WorkerExit),
    /// The effective user or group of this process is not the real one at the moment, so no worker was started. A
    /// [`TaskError::Spawn`](crate::TaskError::Spawn) with this cause is not final: the next task leads to another attempt.
    #[error("{0}")]
    DifferentIds(DifferentIds),
}
