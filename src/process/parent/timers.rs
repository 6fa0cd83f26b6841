//! Deadlines, and what is done when they have passed.

use std::time::{Duration, Instant};

use super::child::{EndReason, Life};
use super::deferred::Deferred;
use super::state::State;
use crate::error::{Cause, StartError, TaskError};
use crate::process::later;

/// The shortest interval at which a task with a time limit is checked for whether it has begun.
const SHORT: Duration = Duration::from_millis(1);

impl State {
    /// Acts on all deadlines that have passed. Does nothing if the alarm is set for a later time.
    pub(super) fn run_timers(&mut self, deferred: &mut Deferred) {
        let now = deferred.now;
        if !self.alarm.ring(now) {
            return;
        }
        if self.restarts.wait_is_over(now) {
            self.make_use_of_room(deferred);
        }
        self.wake_by(self.restarts.not_before(), deferred);
        for at in 0..self.children.len() {
            self.check_life(at, deferred);
            self.check_time_limits(at, deferred);
        }
    }

    /// Acts on the worker's own deadline (to start, to end, to be idle) if it has passed.
    fn check_life(&mut self, at: usize, deferred: &mut Deferred) {
        let now = deferred.now;
        let child = &mut self.children[at];
        match child.life() {
            Life::Starting { deadline } if deadline <= now => {
                child.kill(EndReason::NotReadyInTime, now);
                let error = StartError::NoAnswer(self.config.start_timeout);
                self.break_down(Cause::new(error), deferred);
            }
            Life::Ending { deadline } if deadline <= now => child.kill(EndReason::NotEndedInTime, now),
            Life::Terminating { deadline, reason } if deadline <= now => child.kill(reason, now),
            Life::Ready if child.is_idle() => {
                let Some(timeout) = self.config.idle_timeout else { return };
                let end = later(child.idle_since, timeout);
                if end <= now {
                    child.retire();
                } else {
                    self.wake_by(Some(end), deferred);
                }
            }
            life => self.wake_by(life.deadline(), deferred),
        }
    }

    /// Ends the worker if one of its tasks has exceeded its time limit.
    fn check_time_limits(&mut self, at: usize, deferred: &mut Deferred) {
        let now = deferred.now;
        let child = &mut self.children[at];
        let mut late = Vec::new();
        let mut next: Option<Instant> = None;
        for place in child.inflight.places() {
            let Some((id, limit)) = child.inflight.task(place).and_then(|job| Some((job.id, job.timeout()?))) else {
                continue;
            };
            let end = match child.begun_at(place, now) {
                Some(begun) => later(begun, limit),
                // It has not begun, so it cannot exceed its limit before `limit` has passed.
                None => later(now, limit.max(SHORT)),
            };
            if end <= now {
                late.push(id);
            } else {
                next = Some(next.map_or(end, |next| next.min(end)));
            }
        }
        self.wake_by(next, deferred);
        for id in late {
            if let Some(job) = self.stop_task(at, id, EndReason::TaskTimedOut, deferred) {
                deferred.fail(job, TaskError::TimedOut);
            }
        }
    }
}
