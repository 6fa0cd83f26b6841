//! Collecting the replies of workers.

use super::child::Returned;
use super::deferred::Deferred;
use super::state::State;
use crate::error::{Cause, TaskError};
use crate::process::wire::ProtocolError;

impl State {
    /// Collects all replies, and continues to write calls for which there was no room before.
    pub(super) fn collect(&mut self, deferred: &mut Deferred) {
        for at in 0..self.children.len() {
            let child = &mut self.children[at];
            if child.has_violated() {
                continue;
            }
            let was_sending = child.is_sending();
            if let Err(violation) = child.send_more() {
                self.kill_for_violation(at, violation, deferred);
                continue;
            }
            self.is_full &= !was_sending;
            if self.children[at].link.has_replies() {
                deferred.reuse(&mut self.spare);
                deferred.wake_waiters(&self.children[at]);
                self.is_full = false;
                self.collect_from(at, deferred);
            }
        }
    }

    /// Collects the replies of the worker at index `at`.
    pub(super) fn collect_from(&mut self, at: usize, deferred: &mut Deferred) {
        let collected = loop {
            match self.children[at].receive(&self.config, deferred.now) {
                Ok(Some(Returned::Task(job, raw))) => {
                    self.completed += 1;
                    deferred.settle.push((job, raw));
                }
                Ok(Some(Returned::Initializer(raw))) => match raw.into_body() {
                    Ok(_) => self.restarts.prepared(),
                    Err(error) => self.break_down(Cause::new(error), deferred),
                },
                Ok(None) => break Ok(()),
                Err(violation) => break Err(violation),
            }
        };
        deferred.wake_supervisor |= self.children[at].has_more();
        if let Err(violation) = collected {
            self.kill_for_violation(at, violation, deferred);
        }
    }

    /// The worker has broken the protocol: kills it, and fails the tasks that it had begun. Those that it had not begun are
    /// requeued when its process has ended.
    pub(super) fn kill_for_violation(&mut self, at: usize, violation: ProtocolError, deferred: &mut Deferred) {
        let child = &mut self.children[at];
        child.kill_for_violation(deferred.now);
        for place in child.inflight.places() {
            if child.has_begun(place) {
                if let Some(job) = child.inflight.forget(place) {
                    deferred.fail(job, TaskError::Protocol(Cause::new(violation)));
                }
            }
        }
        deferred.wake_waiters(child);
        deferred.wake_supervisor = true;
        self.is_full = false;
    }
}
