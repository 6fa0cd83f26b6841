//! What has to be done after a change of the pool's state, when the lock has been released.

use std::sync::Arc;
use std::time::Instant;

use super::child::Child;
use super::job::{JobBox, Raw};
use crate::error::TaskError;
use crate::process::call::Payload;
use crate::process::link::Shared;

/// Collected while the lock is held, and done by [`Inner::release`](super::inner::Inner::release): resolving tasks and dropping
/// values may run user code, and waking threads makes system calls.
#[must_use]
pub(crate) struct Deferred {
    /// When the change began. The whole change uses this as the current time.
    pub(crate) now: Instant,
    /// Tasks and their outcomes.
    pub(crate) settle: Vec<(JobBox, Raw)>,
    /// The arguments of cancelled tasks, whose destructors are user code.
    pub(crate) arguments: Vec<Payload>,
    /// The workers whose waiting threads have to check their tasks again, which may have been moved or resolved.
    pub(crate) wake_waiters_of: Vec<Arc<Shared>>,
    /// The supervisor has to be woken.
    pub(crate) wake_supervisor: bool,
}

/// The emptied lists of an earlier change: without them, a pool whose tasks are answered one by one would allocate two lists per
/// task.
#[derive(Default)]
pub(crate) struct Spare {
    settle: Vec<(JobBox, Raw)>,
    wake_waiters_of: Vec<Arc<Shared>>,
}

impl Spare {
    /// Longer lists are not kept.
    const LONGEST: usize = 256;

    pub(crate) fn keep(&mut self, deferred: Deferred) {
        if deferred.settle.is_empty() && deferred.settle.capacity() <= Self::LONGEST {
            self.settle = deferred.settle;
        }
        if deferred.wake_waiters_of.is_empty() && deferred.wake_waiters_of.capacity() <= Self::LONGEST {
            self.wake_waiters_of = deferred.wake_waiters_of;
        }
    }
}

impl Deferred {
    pub(crate) fn new() -> Self {
        Self::at(Instant::now())
    }

    /// For a change that happens at `now`.
    pub(crate) fn at(now: Instant) -> Self {
        Self { now, settle: Vec::new(), arguments: Vec::new(), wake_waiters_of: Vec::new(), wake_supervisor: false }
    }

    pub(crate) fn is_nothing(&self) -> bool {
        self.settle.is_empty() && self.arguments.is_empty() && self.wake_waiters_of.is_empty() && !self.wake_supervisor
    }

    /// Uses the lists of an earlier change, unless this one has begun to use its own.
    pub(crate) fn reuse(&mut self, spare: &mut Spare) {
        if self.settle.capacity() == 0 {
            self.settle = std::mem::take(&mut spare.settle);
        }
        if self.wake_waiters_of.capacity() == 0 {
            self.wake_waiters_of = std::mem::take(&mut spare.wake_waiters_of);
        }
    }

    pub(crate) fn fail(&mut self, job: JobBox, error: TaskError) {
        self.settle.push((job, Raw::Failed(error)));
    }

    /// Tasks have left this worker: threads that sleep for its replies have to check their tasks again.
    pub(crate) fn wake_waiters(&mut self, child: &Child) {
        let Some(shared) = child.shared() else { return };
        if !self.wake_waiters_of.iter().any(|other| Arc::ptr_eq(other, shared)) {
            self.wake_waiters_of.push(Arc::clone(shared));
        }
    }
}
