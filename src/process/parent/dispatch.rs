//! Which worker gets which task.
//!
//! # Rules
//!
//! 1. A task is handed to a worker that can begin it now, if there is one. Otherwise a new worker is started, if the limits allow
//!    one. Otherwise the task is put in store with the worker that has the fewest tasks. A task with a long argument, or with
//!    descriptors, is never put in store, because it cannot be taken back.
//! 2. A task in store is taken back when another worker could begin it, when a more urgent one needs its place, when it is
//!    cancelled, and when its worker is ended. Code that takes one back calls `Deferred::wake_waiters`, to wake the threads that
//!    wait for that worker (except `State::withdraw`: see rule 5 of `parent`).
//! 3. Tasks that are taken back are put at the front of the queue, in their original order.
//! 4. Everything here runs under the lock. Tasks are resolved only through [`Deferred`]: those that were cancelled, and those
//!    begun by a worker that has broken the protocol.

use std::time::Duration;

use super::child::{Child, Life, Refused};
use super::deferred::Deferred;
use super::job::{Job, JobBox};
use super::state::State;
use crate::executor::Priority;
use crate::process::later;
use crate::process::link::INLINE;

/// Tasks are moved from a worker to an idle one if its backlog is expected to take longer than this, or if it has had its oldest
/// call for longer than this.
const REBALANCE: Duration = Duration::from_micros(200);

/// How long an idle worker that is asked to end may take to do so.
const ENDING: Duration = Duration::from_secs(5);

impl State {
    /// The number of workers, including those that are being started and those that are about to end. No worker is started while
    /// this has reached `max_workers`.
    fn living(&self) -> usize {
        self.children.len() + self.restarts.in_progress()
    }

    /// Returns `true` if a worker should be started.
    pub(super) fn wants_worker(&self, deferred: &Deferred) -> bool {
        let starting = self.restarts.in_progress();
        let wanted = self.queue.len().div_ceil(self.config.threads).saturating_sub(starting);
        if wanted == 0 || self.living() >= self.max_workers || self.lifecycle.is_broken() {
            return false;
        }
        let not_ready = self.children.iter().filter(|child| child.life().is_starting()).count();
        self.restarts.room(not_ready, deferred.now) > 0
    }

    /// Puts tasks back to the front of the queue, in their order.
    pub(super) fn requeue(&mut self, jobs: Vec<JobBox>) {
        self.queue.requeue(jobs);
        self.is_full = false;
    }

    /// Hands queued tasks to workers, as long as there are tasks and workers with room.
    pub(super) fn dispatch(&mut self, deferred: &mut Deferred) {
        if self.is_full {
            deferred.wake_supervisor |= self.lifecycle.is_asleep() && self.wants_worker(deferred);
            return;
        }
        // Workers are woken at the end, each once.
        let mut to_wake = [false; 64];
        while let Some(first) = self.queue.first() {
            if first.sink.is_cancelled() {
                self.queue.drop_first(deferred);
                continue;
            }
            let long = first.argument.as_slice().len() > INLINE || !first.argument.attachments().is_empty();
            let Some(at) = self.find_worker(long, first.priority, deferred) else {
                self.is_full = !long;
                break;
            };
            let Some(job) = self.queue.pop_first() else { break };
            let limit = job.timeout();
            let child = &mut self.children[at];
            // The bell is armed before the call is sent, so that the supervisor learns of its reply.
            deferred.wake_supervisor |= self.lifecycle.is_asleep() && !child.link.arm_bell();
            match child.hand_over(job, deferred.now) {
                Ok(()) => {
                    match to_wake.get_mut(at) {
                        Some(wake) => *wake = true,
                        None => child.link.wake_worker(),
                    }
                    if let Some(limit) = limit {
                        self.wake_by(deferred.now.checked_add(limit), deferred);
                    }
                }
                Err(Refused { job, violation: None }) => {
                    self.queue.requeue(vec![job]);
                    self.is_full = true;
                    break;
                }
                Err(Refused { job, violation: Some(violation) }) => {
                    self.queue.requeue(vec![job]);
                    self.kill_for_violation(at, violation, deferred);
                }
            }
        }
        for (child, _) in self.children.iter().zip(to_wake).filter(|(_, wake)| *wake) {
            child.link.wake_worker();
        }
        deferred.wake_supervisor |= self.wants_worker(deferred);
    }

    /// The worker that should get the next task.
    fn find_worker(&mut self, long: bool, priority: Priority, deferred: &mut Deferred) -> Option<usize> {
        let threads = self.config.threads;
        // Of the workers that could begin it now, the ready one that has been idle for the shortest time: it is the most likely
        // to be awake.
        let free = self.children.iter().enumerate().filter(|(_, child)| child.has_free_thread(threads));
        let free = free.max_by_key(|(_, child)| (child.life() == Life::Ready, child.idle_since)).map(|(at, _)| at);
        if free.is_some() || long {
            return free;
        }
        let may_start = self.living() < self.max_workers && !self.restarts.is_waiting(deferred.now);
        if may_start || self.restarts.in_progress() > 0 {
            return None;
        }
        if self.queue.is_urgent(priority) {
            self.recall(|job| job.priority < priority, deferred);
        }
        let open = self.children.iter().enumerate();
        let open = open.filter(|(_, child)| child.takes_calls() && child.inflight.load() < child.window(threads));
        open.min_by_key(|(_, child)| child.inflight.load()).map(|(at, _)| at)
    }

    /// Called when more workers may be started than before: takes back the tasks in store with busy workers, so that others can
    /// run them.
    pub(super) fn make_use_of_room(&mut self, deferred: &mut Deferred) {
        self.recall(|_| true, deferred);
        self.settle_down(deferred);
    }

    /// Takes back tasks that have not begun.
    fn recall(&mut self, which: impl Fn(&Job) -> bool, deferred: &mut Deferred) {
        let mut back: Vec<JobBox> = Vec::new();
        for child in &mut self.children {
            if child.inflight.load() <= self.config.threads {
                continue;
            }
            let jobs = child.take_back(usize::MAX, &which);
            if !jobs.is_empty() {
                deferred.wake_waiters(child);
                back.extend(jobs);
            }
        }
        if !back.is_empty() {
            back.sort_by_key(|job| job.id);
            self.requeue(back);
        }
    }

    /// Called after replies have arrived, or workers have been started or have ended: hands out queued tasks, moves tasks in
    /// store to idle workers, and asks workers to end that are not needed.
    pub(super) fn settle_down(&mut self, deferred: &mut Deferred) {
        self.is_full = false;
        self.dispatch(deferred);
        self.rebalance(deferred);
        self.dismiss(deferred);
        self.count_idle_time(deferred);
    }

    /// Moves tasks from a worker that has too many to one that has none.
    fn rebalance(&mut self, deferred: &mut Deferred) {
        let has_nothing = |child: &Child| child.takes_calls() && child.is_idle();
        if !self.queue.is_empty() || !self.children.iter().any(has_nothing) {
            return;
        }
        let now = deferred.now;
        let mut look_again = false;
        let mut best: Option<(usize, usize)> = None;
        for (at, child) in self.children.iter().enumerate() {
            let (waiting, takes) = child.inflight.backlog(self.config.threads);
            if waiting == 0 || child.is_sending() {
                continue;
            }
            // Moving a task costs microseconds, so a short backlog is left to its worker, unless its oldest call has been there
            // for long.
            if takes < REBALANCE && child.inflight.oldest(now) < REBALANCE {
                look_again = true;
            } else if best.is_none_or(|(_, most)| waiting > most) {
                best = Some((at, waiting));
            }
        }
        if let Some((at, waiting)) = best {
            let child = &mut self.children[at];
            let back = child.take_back(waiting.div_ceil(2), |_| true);
            if !back.is_empty() {
                deferred.wake_waiters(child);
                self.requeue(back);
                self.dispatch(deferred);
            }
        }
        if look_again {
            self.wake_by(Some(now + REBALANCE), deferred);
        }
    }

    /// Asks workers to end that are not needed any more.
    fn dismiss(&mut self, deferred: &mut Deferred) {
        // While a worker has more tasks than threads, another worker may have to take some of them.
        let threads = self.config.threads;
        let over = self.is_over() && self.children.iter().all(|child| child.inflight.load() <= threads);
        let stays = |child: &&Child| child.life().is_serving() && !child.is_spent();
        let mut surplus = self.children.iter().filter(stays).count().saturating_sub(self.max_workers);
        for at in 0..self.children.len() {
            let child = &mut self.children[at];
            if !child.is_idle() || !child.life().is_serving() {
                continue;
            }
            let is_surplus = surplus > 0 && !child.is_spent();
            surplus -= usize::from(is_surplus);
            if over || is_surplus || child.is_spent() {
                let deadline = deferred.now + ENDING;
                if let Err(violation) = child.ask_to_end(deadline) {
                    self.kill_for_violation(at, violation, deferred);
                }
                self.wake_by(Some(deadline), deferred);
            }
        }
    }

    /// Sets the alarm for the time when the first idle worker reaches `idle_timeout`.
    fn count_idle_time(&mut self, deferred: &mut Deferred) {
        let Some(timeout) = self.config.idle_timeout else { return };
        let is_idle = |child: &&Child| child.life() == Life::Ready && child.is_idle() && !child.is_spent();
        let first = self.children.iter().filter(is_idle).map(|child| later(child.idle_since, timeout)).min();
        self.wake_by(first, deferred);
    }
}
