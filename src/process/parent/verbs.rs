//! The operations of a pool: submit, cancel, resize, shut down, and queries.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::callbacks;
use super::child::EndReason;
use super::inner::Inner;
use super::job::JobBox;
use super::lifecycle::Supervision;
use super::supervisor;
use crate::error::{Cause, ShutdownError, TaskError};
use crate::executor::Shutdown;

impl Inner {
    pub(crate) fn closed_because(&self) -> Option<TaskError> {
        if !self.is_here() {
            return Some(TaskError::WrongProcess);
        }
        self.state.lock().lifecycle.closed_because()
    }

    /// Submits a task. It fails if the pool is closed.
    pub(crate) fn submit(self: &Arc<Self>, job: JobBox) {
        self.take(job, false);
    }

    /// Submits a chunk of a map. It is accepted even after a shutdown, because the map was submitted before.
    pub(crate) fn submit_part(self: &Arc<Self>, job: JobBox) {
        self.take(job, true);
    }

    fn take(self: &Arc<Self>, job: JobBox, part: bool) {
        self.change(|state, deferred| {
            let refusal = if part { state.lifecycle.refusal() } else { state.lifecycle.closed_because() };
            if let Some(reason) = refusal {
                return deferred.fail(job, reason);
            }
            if state.lifecycle.supervision() == Supervision::NotStarted {
                // This holds the lock, so that no task is queued in a pool whose supervisor could not be started.
                if let Err(error) = self.start_supervisor() {
                    return deferred.fail(job, TaskError::Spawn(Cause::new(error)));
                }
                state.lifecycle.supervised();
            }
            state.submit(job, deferred);
            // All workers are full, so the submitting thread helps by collecting replies.
            if !part && state.is_full && state.children.iter().any(|child| child.link.has_replies()) {
                state.collect(deferred);
                state.settle_down(deferred);
            }
        });
    }

    fn start_supervisor(self: &Arc<Self>) -> std::io::Result<()> {
        let inner = Arc::clone(self);
        let name = format!("{}-mgr", self.config.name);
        let thread = std::thread::Builder::new().name(name).spawn(move || supervisor::run(&inner))?;
        *self.supervisor.lock() = Some(thread);
        Ok(())
    }

    /// The future of this task has been cancelled.
    pub(super) fn cancel(&self, id: u64) {
        self.change(|state, deferred| state.cancel(id, deferred));
    }

    /// Keeps the pool from ending, because a map has parts that it has not submitted. Each call is paired with one of
    /// [`let_go`](Self::let_go).
    pub(crate) fn hold(&self) {
        self.state.lock().lifecycle.hold();
    }

    pub(crate) fn let_go(&self) {
        if self.state.lock().lifecycle.let_go() {
            self.wake_supervisor();
        }
    }

    /// Cancels these tasks: those that have not begun never will, and the workers that run the others are ended.
    pub(crate) fn withdraw(&self, ids: &HashSet<u64>) {
        self.change(|state, deferred| state.withdraw(ids, deferred));
    }

    /// Has a worker begun this task?
    pub(super) fn has_begun(&self, id: u64) -> bool {
        let state = self.state.lock();
        state.children.iter().any(|child| child.inflight.find(id).is_some_and(|place| child.has_begun(place)))
    }

    /// The maximum number of workers.
    pub(crate) fn max_workers(&self) -> usize {
        self.state.lock().max_workers
    }

    pub(crate) fn resize(&self, max_workers: usize) {
        self.change(|state, deferred| state.resize(max_workers, deferred));
    }

    /// The process ids of all workers.
    pub(crate) fn pids(&self) -> Vec<u32> {
        if !self.is_here() {
            return Vec::new();
        }
        self.state.lock().children.iter().map(|child| child.process.id()).collect()
    }

    /// Returns the numbers of workers, of busy workers, of queued tasks (including those handed over but not begun) and of
    /// completed tasks.
    pub(crate) fn tally(&self) -> (usize, usize, usize, u64) {
        let state = self.state.lock();
        let threads = self.config.threads;
        let busy = state.children.iter().filter(|child| !child.is_idle()).count();
        let in_store: usize = state.children.iter().map(|child| child.inflight.load().saturating_sub(threads)).sum();
        (state.children.len(), busy, state.queue.len() + in_store, state.completed)
    }

    /// Ends all workers and the pool: sends SIGTERM and, `grace` later, SIGKILL; with a `grace` of zero, SIGKILL at once.
    pub(crate) fn end_workers(&self, grace: Duration, reason: EndReason) {
        if !self.is_here() {
            return;
        }
        self.change(|state, deferred| state.end_workers(grace, reason, deferred));
        if let Some(capacity) = &self.capacity {
            capacity.close();
        }
    }

    pub(crate) fn shut_down(&self, how: Shutdown) -> Result<(), ShutdownError> {
        if !self.is_here() {
            return Err(ShutdownError::WrongProcess);
        }
        let start = Instant::now();
        self.change(|state, deferred| state.close(how.cancels(), deferred));
        if let Some(capacity) = &self.capacity {
            capacity.close();
        }
        if !how.waits() {
            self.is_left_alone.store(true, Relaxed);
            return Ok(());
        }
        if callbacks::is_inside(self.id()) {
            return Err(ShutdownError::WouldDeadlock);
        }
        let deadline = match how {
            Shutdown::Within(time) => start.checked_add(time),
            _ => None,
        };
        if self.wait_for_end(deadline) {
            return Ok(());
        }
        let (_, running, _, _) = self.tally();
        self.end_workers(Duration::from_millis(50), EndReason::ShutdownTimedOut);
        self.wait_for_end(None);
        Err(ShutdownError::TimedOut { running: running.max(1), waited: start.elapsed() })
    }

    /// Waits until the pool has ended; returns `false` if the deadline passes first.
    fn wait_for_end(&self, deadline: Option<Instant>) -> bool {
        let mut state = self.state.lock();
        if !self.ended.wait_while(&mut state, deadline, |state| !state.lifecycle.is_gone()) {
            return false;
        }
        let lost = state.lifecycle.has_lost_descriptors();
        drop(state);
        // The supervisor is about to return. If the descriptors were closed, it may sleep until its timeout, so it is not joined.
        let supervisor = self.supervisor.lock().take();
        if let Some(thread) = supervisor.filter(|_| !lost) {
            let _ = thread.join();
        }
        true
    }
}
