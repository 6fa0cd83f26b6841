//! What a pool takes and does from its first task to its end.

use crate::error::{Cause, TaskError};

/// What a pool takes, and what it does with what it has. It only ever becomes stricter.
#[derive(Debug, Clone)]
pub(crate) enum Phase {
    Open,
    /// Nothing new is taken; what there is is done.
    Draining,
    /// Nothing new is taken; what has not begun is cancelled.
    Cancelled,
    /// Nothing works any more: everything fails with this.
    Broken(Cause),
}

/// What the supervisor is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Supervision {
    /// There has been no task.
    NotStarted,
    Awake,
    /// It sleeps, or is about to: the bells of workers are to be armed, and it has to be woken if it should do something.
    Asleep,
    /// It handles no more tasks, not even the remaining chunks of maps that were submitted before.
    Ended,
    /// It is gone, and all workers with it.
    Gone,
}

pub(crate) struct Lifecycle {
    phase: Phase,
    supervision: Supervision,
    /// The program has closed the descriptors of the pool.
    descriptors_lost: bool,
    /// How many maps have parts that they have not submitted.
    holds: usize,
    /// How many threads are doing what has to be done outside the lock ([`Deferred`](super::deferred::Deferred)).
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

    /// Why nothing new is taken, if so.
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

    /// Will nothing be handed out any more, once the queue is empty?
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

    /// Nothing new is taken.
    pub(super) fn drain(&mut self) {
        if self.is_open() {
            self.phase = Phase::Draining;
        }
    }

    /// Nothing new is taken, and what has not begun has to be cancelled: false if that has been done.
    #[must_use]
    pub(super) fn cancel(&mut self) -> bool {
        let is_first = self.allows_retries();
        if is_first {
            self.phase = Phase::Cancelled;
        }
        is_first
    }

    /// Nothing works any more: false if that is known.
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

    /// Somebody has found that the descriptors of the pool are closed. True for the first one, who has to end the pool.
    #[must_use]
    pub(super) fn lose_descriptors(&mut self) -> bool {
        !std::mem::replace(&mut self.descriptors_lost, true)
    }

    /// From here on nothing is taken.
    pub(super) fn end(&mut self) {
        if !self.is_gone() {
            self.supervision = Supervision::Ended;
        }
    }

    /// There is no supervisor any more.
    pub(super) fn gone(&mut self) {
        self.supervision = Supervision::Gone;
    }

    /// A pool that is closed and has never had a supervisor has come to its end.
    pub(super) fn end_if_never_started(&mut self) {
        if self.supervision == Supervision::NotStarted {
            self.gone();
        }
    }

    /// A map has parts that it will submit: the pool does not end before.
    pub(super) fn hold(&mut self) {
        self.holds += 1;
    }

    /// Undoes one [`hold`](Self::hold). Returns `true` if the supervisor has to be woken, because it may be waiting for this.
    #[must_use]
    pub(super) fn let_go(&mut self) -> bool {
        self.holds -= 1;
        self.holds == 0 && !self.is_open()
    }

    /// A thread begins to do what has to be done outside the lock.
    pub(super) fn begin_settling(&mut self) {
        self.settling += 1;
    }

    /// It has done it. True: the supervisor may have waited for that.
    #[must_use]
    pub(super) fn end_settling(&mut self) -> bool {
        self.settling -= 1;
        self.settling == 0 && !self.is_open()
    }
}
