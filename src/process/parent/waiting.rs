//! How a thread waits for a task: it collects replies itself, its own and those of others, so that a round trip costs only two
//! wake-ups: of the worker and of the waiting thread.

use std::sync::Arc;
use std::time::Instant;

use super::child::Child;
use super::inner::Inner;
use crate::fork;
use crate::future::{Owner, WaitMode};
use crate::process::link::Shared;
use crate::spin;

/// What a task stores about its pool.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TaskOwner {
    pub(crate) pool: usize,
    pub(crate) task: u64,
}

impl TaskOwner {
    fn inner(self) -> Option<Arc<Inner>> {
        // In a forked child the list has none of the parent's pools.
        Inner::of(self.pool)
    }
}

impl Owner for TaskOwner {
    fn may_claim(self) -> bool {
        false
    }

    fn is_foreign(self) -> bool {
        fork::is_child() && fork::is_foreign(self.pool)
    }

    fn released(self) {
        // The task was cancelled: a thread that sleeps on a worker's ring for it has to check it again.
        if let Some(inner) = self.inner() {
            inner.wake_all_sleepers();
        }
    }

    fn revoke(self) {
        if let Some(inner) = self.inner() {
            inner.cancel(self.task);
        }
    }

    fn has_begun(self) -> bool {
        self.inner().is_some_and(|inner| inner.has_begun(self.task))
    }

    fn drive_while_waiting(self, done: &dyn Fn() -> bool, deadline: Option<Instant>, mode: WaitMode) -> bool {
        let Some(inner) = self.inner() else { return false };
        match mode {
            WaitMode::Poll => inner.spin_for_poll(self.task, done),
            WaitMode::Spin | WaitMode::Sleep => inner.drive_while_waiting(self.task, done, deadline, mode),
        }
        true
    }
}

impl Inner {
    /// For a poll: watches the replies of the worker that has the task for a moment, and collects what has arrived. Replies that
    /// arrive before the bell is armed again are collected, too. Does nothing while a long value is being transferred, which
    /// would take longer, or if no worker has the task.
    fn spin_for_poll(&self, id: u64, done: &dyn Fn() -> bool) {
        let ring = {
            let state = self.state.lock();
            if state.children.iter().any(Child::is_streaming) {
                return;
            }
            state.children.iter().find(|child| child.has(id)).and_then(Child::shared).cloned()
        };
        let Some(ring) = ring else { return };
        let mut watched = Watched { inner: self, ring: None };
        watched.set(Some(Arc::clone(&ring)));
        if spin::spin_for(|| done() || ring.has_replies()) && !done() {
            self.collect();
        }
    }

    /// Collects replies until `done` returns `true` or the deadline passes. With [`WaitMode::Spin`] it returns earlier if
    /// spinning does not succeed; so it does in any mode if no ring has the task.
    pub(crate) fn drive_while_waiting(
        &self,
        id: u64,
        done: &dyn Fn() -> bool,
        deadline: Option<Instant>,
        mode: WaitMode,
    ) {
        let late = || deadline.is_some_and(|deadline| deadline <= Instant::now());
        let mut watched = Watched { inner: self, ring: None };
        while !done() && !late() {
            let rings = Arc::clone(&self.rings.read());
            let replies_are_there = || rings.iter().any(|shared| shared.has_replies());
            if replies_are_there() {
                self.collect_all();
                continue;
            }
            let (ring, is_streaming) = self.place_of(id);
            watched.set(ring);
            // Yields to a worker on the same CPU, except while a long value is transferred: both sides copy parts of it, which is
            // faster on two CPUs, and the scheduler separates them only if this thread does not yield.
            let shares_cpu =
                || watched.ring.as_ref().is_some_and(|shared| shared.shares_cpu_with_worker()) && !is_streaming;
            if spin::until_or(|| done() || replies_are_there(), shares_cpu) {
                if !done() {
                    self.collect_all();
                }
                continue;
            }
            let Some(shared) = watched.ring.as_ref().filter(|_| mode == WaitMode::Sleep) else { return };
            let start = Instant::now();
            // A thread that takes the task from that worker wakes the threads that sleep on its ring, after it has released the
            // lock.
            let moved = || !self.place_of(id).0.is_some_and(|now| Arc::ptr_eq(&now, shared));
            shared.sleep(|| done() || moved(), deadline);
            spin::slept(start.elapsed());
        }
    }

    /// The worker that has the task, and whether a long value is on its way there or back.
    fn place_of(&self, id: u64) -> (Option<Arc<Shared>>, bool) {
        let state = self.state.lock();
        let child = state.children.iter().find(|child| child.has(id));
        (child.and_then(Child::shared).cloned(), child.is_some_and(Child::is_streaming))
    }
}

/// Keeps the bell of a worker disarmed while a thread watches its replies, and arms it again afterwards, so that the supervisor
/// is told of later replies.
struct Watched<'a> {
    inner: &'a Inner,
    ring: Option<Arc<Shared>>,
}

impl Watched<'_> {
    fn set(&mut self, ring: Option<Arc<Shared>>) {
        let same = match (&self.ring, &ring) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            (None, None) => true,
            _ => false,
        };
        if !same {
            self.rearm();
            self.ring = ring;
        }
        if let Some(shared) = &self.ring {
            shared.disarm_bell();
        }
    }

    fn rearm(&mut self) {
        if let Some(shared) = self.ring.take() {
            shared.leave_cpu_of_parent();
            if !shared.arm_bell() {
                self.inner.collect();
            }
        }
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.rearm();
    }
}
