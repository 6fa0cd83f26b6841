//! Which tasks a pool accepts, and what its supervisor does, from the first task to the end.

use crate::error::{Cause, TaskError};

/// Which tasks a pool accepts, and what becomes of those that it has. It only moves down this list.
#[derive(Debug, Clone)]
pub(crate) enum Phase {
    Open,
    /// No new task is accepted; those submitted before are done.
    Draining,
    /// No new task is accepted; those that have not begun are cancelled.
    Cancelled,
    /// All tasks fail with this cause.
    Broken(Cause),
}

/// What the supervisor is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Supervision {
    /// It has not been started, because there has been no task.
    NotStarted,
    Awake,
    /// It sleeps, or is about to: a thread that hands over a call has to arm the worker's bell, and has to wake the supervisor if
    /// there is something for it to do.
    Asleep,
    /// It handles no more tasks, not even the remaining chunks of maps that were submitted before.
    Ended,
    /// The pool has ended: there is no supervisor and no worker.
    Gone,
}

pub(crate) struct Lifecycle {
    phase: Phase,
    supervision: Supervision,
    /// The program has closed the descriptors of the pool.
    descriptors_lost: bool,
    /// How many times the pool is held by maps that have not submitted all their parts ([`hold`](Lifecycle::hold)).
    holds: usize,
    /// How many threads are resolving tasks outside the lock ([`Deferred::settle`](super::deferred::Deferred)).
    settling: usize,
}

impl Lifecycle {
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Open,
            supervision: Supervision::NotStarted,
            descriptors_lost: false,
            holds: 0,
            settling: 0,
        }
    }

    pub(super) fn supervision(&self) -> Supervision {
        self.supervision
    }

    pub(super) fn is_asleep(&self) -> bool {
        self.supervision == Supervision::Asleep
    }

    pub(super) fn is_gone(&self) -> bool {
        self.supervision == Supervision::Gone
    }

    pub(super) fn has_lost_descriptors(&self) -> bool {
        self.descriptors_lost
    }

    pub(super) fn is_broken(&self) -> bool {
        matches!(self.phase, Phase::Broken(_))
    }

    /// Returns `true` if a task whose worker has died may be begun again.
    pub(super) fn allows_retries(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Draining)
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// Why no new task is accepted; `None` if the pool is open.
    pub(crate) fn closed_because(&self) -> Option<TaskError> {
        match &self.phase {
            Phase::Open => None,
            Phase::Draining | Phase::Cancelled => Some(TaskError::ShutDown),
            Phase::Broken(cause) => Some(TaskError::Broken(cause.clone())),
        }
    }

    /// Returns why tasks that were submitted before are not begun any more; `None` if they still are.
    pub(super) fn refusal(&self) -> Option<TaskError> {
        if matches!(self.supervision, Supervision::Ended | Supervision::Gone) {
            return Some(TaskError::ShutDown);
        }
        match &self.phase {
            Phase::Open | Phase::Draining => None,
            Phase::Cancelled => Some(TaskError::Cancelled),
            Phase::Broken(cause) => Some(TaskError::Broken(cause.clone())),
        }
    }

    /// Returns `true` if no more tasks will be submitted, so that the pool ends when those that it has are done.
    pub(super) fn is_finishing(&self) -> bool {
        match self.phase {
            Phase::Open => false,
            Phase::Draining => self.holds == 0,
            Phase::Cancelled | Phase::Broken(_) => true,
        }
    }

    pub(super) fn is_settling(&self) -> bool {
        self.settling > 0
    }

    // Transitions.

    /// No new task is accepted from now on.
    pub(super) fn drain(&mut self) {
        if self.is_open() {
            self.phase = Phase::Draining;
        }
    }

    /// No new task is accepted from now on, and those that have not begun have to be cancelled. Returns `false` if the pool is
    /// already cancelled or broken.
    #[must_use]
    pub(super) fn cancel(&mut self) -> bool {
        let is_first = self.allows_retries();
        if is_first {
            self.phase = Phase::Cancelled;
        }
        is_first
    }

    /// The pool is broken. Returns `false` if it already was.
    #[must_use]
    pub(super) fn break_down(&mut self, cause: Cause) -> bool {
        let is_first = !self.is_broken();
        if is_first {
            self.phase = Phase::Broken(cause);
        }
        is_first
    }

    /// The supervisor has been started.
    pub(super) fn supervised(&mut self) {
        self.supervision = Supervision::Awake;
    }

    /// The supervisor has woken up.
    pub(super) fn awake(&mut self) {
        if self.is_asleep() {
            self.supervision = Supervision::Awake;
        }
    }

    /// The supervisor is about to sleep.
    pub(super) fn asleep(&mut self) {
        if self.supervision == Supervision::Awake {
            self.supervision = Supervision::Asleep;
        }
    }

    /// A thread has found that the descriptors of the pool are closed. Returns `true` to the first one, which has to end the
    /// pool.
    #[must_use]
    pub(super) fn lose_descriptors(&mut self) -> bool {
        !std::mem::replace(&mut self.descriptors_lost, true)
    }

    /// From now on no task is accepted, not even a chunk of a map.
    pub(super) fn end(&mut self) {
        if !self.is_gone() {
            self.supervision = Supervision::Ended;
        }
    }

    /// The pool has ended.
    pub(super) fn gone(&mut self) {
        self.supervision = Supervision::Gone;
    }

    /// The pool is closed: if it has never had a supervisor, it has ended.
    pub(super) fn end_if_never_started(&mut self) {
        if self.supervision == Supervision::NotStarted {
            self.gone();
        }
    }

    /// A map has parts that it will still submit: the pool does not end before [`let_go`](Self::let_go).
    pub(super) fn hold(&mut self) {
        self.holds += 1;
    }

    /// Undoes one [`hold`](Self::hold). Returns `true` if the supervisor has to be woken, because it may be waiting for this.
    #[must_use]
    pub(super) fn let_go(&mut self) -> bool {
        self.holds -= 1;
        self.holds == 0 && !self.is_open()
    }

    /// A thread begins to resolve tasks outside the lock.
    pub(super) fn begin_settling(&mut self) {
        self.settling += 1;
    }

    /// The thread has resolved them. Returns `true` if the supervisor has to be woken, because it may be waiting for this.
    #[must_use]
    pub(super) fn end_settling(&mut self) -> bool {
        self.settling -= 1;
        self.settling == 0 && !self.is_open()
    }
}
