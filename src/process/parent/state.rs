//! What the lock of a pool guards, and the events that change it.
//!
//! Each event in the life of a pool is a method of [`State`], here or in the files below. The method changes the state, and
//! records in a [`Deferred`] what must not be done under the lock. So a test can run all of it without any process
//! (`parent::model`).
//!
//! | event | file |
//! |---|---|
//! | a task is submitted, cancelled, withdrawn; the pool is resized, closed, broken | `state` |
//! | a worker has room: which task it gets | `dispatch` |
//! | replies have arrived | `replies` |
//! | a worker was started, is ready, has closed its socket, has died; a start was refused | `workers` |
//! | time has passed | `timers` |

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::alarm::Alarm;
use super::child::{Child, EndReason};
use super::config::Config;
use super::deferred::{Deferred, Spare};
use super::job::JobBox;
use super::lifecycle::Lifecycle;
use super::queue::TaskQueue;
use super::restarts::Restarts;
use crate::error::{Cause, TaskError};

pub(crate) struct State {
    pub(super) config: Arc<Config>,
    pub(super) lifecycle: Lifecycle,
    pub(super) queue: TaskQueue,
    pub(super) children: Vec<Child>,
    /// The maximum number of workers.
    pub(super) max_workers: usize,
    pub(super) restarts: Restarts,
    pub(super) alarm: Alarm,
    /// No worker had room when tasks were last handed out, and no worker is known to have got room since.
    pub(super) is_full: bool,
    /// How many tasks workers have answered.
    pub(super) completed: u64,
    pub(super) spare: Spare,
}

impl State {
    pub(super) fn new(max_workers: usize, config: &Arc<Config>) -> Self {
        Self {
            config: Arc::clone(config),
            lifecycle: Lifecycle::new(),
            queue: TaskQueue::new(),
            children: Vec::new(),
            max_workers,
            restarts: Restarts::new(config.restart_limit),
            alarm: Alarm::default(),
            is_full: false,
            completed: 0,
            spare: Spare::default(),
        }
    }

    /// Returns `true` if the queue is empty and no more tasks will be submitted.
    pub(super) fn is_over(&self) -> bool {
        self.lifecycle.is_finishing() && self.queue.is_empty()
    }

    // Tasks.

    pub(super) fn submit(&mut self, job: JobBox, deferred: &mut Deferred) {
        // An urgent task may displace tasks that a worker has been handed but has not begun.
        self.is_full &= !self.queue.is_urgent(job.priority);
        self.queue.push(job);
        self.dispatch(deferred);
    }

    /// The future of this task has been cancelled: it never begins, or its worker is ended.
    pub(super) fn cancel(&mut self, id: u64, deferred: &mut Deferred) {
        let found = self.children.iter().enumerate().find_map(|(at, child)| Some((at, child.inflight.find(id)?)));
        let Some((at, place)) = found else { return self.queue.strip(id, deferred) };
        let child = &mut self.children[at];
        let not_begun = if child.has_begun(place) { None } else { child.take_back(1, |job| job.id == id).pop() };
        deferred.wake_waiters(child);
        let job = not_begun.or_else(|| self.stop_task(at, id, EndReason::TaskCancelled, deferred));
        if let Some(job) = job {
            deferred.fail(job, TaskError::Cancelled);
        }
        self.settle_down(deferred);
    }

    /// Cancels these tasks: those that have not begun never will, and the workers that run the others are ended.
    pub(super) fn withdraw(&mut self, ids: &HashSet<u64>, deferred: &mut Deferred) {
        self.queue.cancel(|job| ids.contains(&job.id), deferred);
        for at in 0..self.children.len() {
            let child = &mut self.children[at];
            let back = child.take_back(usize::MAX, |job| ids.contains(&job.id));
            back.into_iter().for_each(|job| deferred.fail(job, TaskError::Cancelled));
            let places = child.inflight.places();
            let begun = places.filter_map(|place| child.inflight.task(place)).map(|job| job.id);
            let begun: Vec<_> = begun.filter(|id| ids.contains(id)).collect();
            for id in begun {
                if let Some(job) = self.stop_task(at, id, EndReason::TaskCancelled, deferred) {
                    deferred.fail(job, TaskError::Cancelled);
                }
            }
        }
        self.settle_down(deferred);
    }

    /// Ends the worker that runs this task, and returns the task for the caller to resolve. Tasks that the worker has not begun
    /// are requeued. If the reply has arrived meanwhile, it counts: the worker is not ended, and `None` is returned.
    pub(super) fn stop_task(
        &mut self,
        at: usize,
        id: u64,
        reason: EndReason,
        deferred: &mut Deferred,
    ) -> Option<JobBox> {
        let back = self.children[at].take_back(usize::MAX, |_| true);
        self.requeue(back);
        self.collect_from(at, deferred);
        let child = &mut self.children[at];
        deferred.wake_waiters(child);
        deferred.wake_supervisor = true;
        let job = child.inflight.find(id).and_then(|place| child.inflight.forget(place));
        if job.is_some() {
            let grace = self.config.kill_grace;
            child.terminate(grace, reason, deferred.now);
            let deadline = child.life().deadline();
            self.wake_by(deadline, deferred);
        }
        job
    }

    // The pool.

    pub(super) fn resize(&mut self, max_workers: usize, deferred: &mut Deferred) {
        self.max_workers = max_workers;
        self.make_use_of_room(deferred);
    }

    /// Closes the pool: it accepts no new tasks; with `cancel`, tasks that have not begun are cancelled.
    pub(super) fn close(&mut self, cancel: bool, deferred: &mut Deferred) {
        if !cancel {
            self.lifecycle.drain();
        } else if self.lifecycle.cancel() {
            self.cancel_pending(deferred);
        }
        self.settle_down(deferred);
        self.lifecycle.end_if_never_started();
        deferred.wake_supervisor = true;
    }

    /// Ends all workers and the pool: sends SIGTERM and, `grace` later, SIGKILL; with a `grace` of zero, SIGKILL at once.
    pub(super) fn end_workers(&mut self, grace: Duration, reason: EndReason, deferred: &mut Deferred) {
        let _ = self.lifecycle.cancel();
        self.cancel_pending(deferred);
        for child in &mut self.children {
            if grace.is_zero() {
                child.kill(reason, deferred.now);
            } else {
                child.terminate(grace, reason, deferred.now);
            }
        }
        self.wake_by(deferred.now.checked_add(grace), deferred);
        self.lifecycle.end_if_never_started();
        deferred.wake_supervisor = true;
    }

    /// Cancels the queued tasks, and those that can be taken back from workers.
    fn cancel_pending(&mut self, deferred: &mut Deferred) {
        self.queue.fail_all(&TaskError::Cancelled, deferred);
        for child in &mut self.children {
            let back = child.take_back(usize::MAX, |_| true);
            if !back.is_empty() {
                deferred.wake_waiters(child);
                back.into_iter().for_each(|job| deferred.fail(job, TaskError::Cancelled));
            }
        }
    }

    /// Breaks the pool: all tasks fail with `cause`, and all workers are killed.
    pub(super) fn break_down(&mut self, cause: Cause, deferred: &mut Deferred) {
        if !self.lifecycle.break_down(cause.clone()) {
            return;
        }
        let error = TaskError::Broken(cause);
        self.queue.fail_all(&error, deferred);
        for child in &mut self.children {
            // Those that can be taken back are taken back first, so that none of them begins after it has been resolved.
            let not_begun = child.take_back(usize::MAX, |_| true);
            not_begun.into_iter().for_each(|job| deferred.fail(job, error.clone()));
            for place in child.inflight.places() {
                if let Some(job) = child.inflight.forget(place) {
                    deferred.fail(job, error.clone());
                }
            }
            child.kill(EndReason::PoolBroken, deferred.now);
            deferred.wake_waiters(child);
        }
        deferred.wake_supervisor = true;
    }

    /// Makes sure that the supervisor runs its timers at `time` at the latest.
    pub(super) fn wake_by(&mut self, time: Option<Instant>, deferred: &mut Deferred) {
        if self.alarm.set(time) {
            deferred.wake_supervisor |= self.lifecycle.is_asleep();
        }
    }
}
