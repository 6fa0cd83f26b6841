//! The tasks that no worker has been handed.

use std::collections::VecDeque;

use super::deferred::Deferred;
use super::job::{Job, JobBox};
use crate::error::TaskError;
use crate::executor::Priority;
use crate::process::call::Payload;

/// This many cancelled tasks may stay in the queue, however short it is.
const CANCELLED: usize = 100;

pub(crate) struct TaskQueue {
    /// By priority, most urgent last.
    queues: [VecDeque<JobBox>; 3],
    /// The lowest priority that any task has had.
    lowest: Priority,
    /// About how many of the tasks are cancelled.
    cancelled: usize,
}

impl TaskQueue {
    pub(super) fn new() -> Self {
        Self { queues: Default::default(), lowest: Priority::High, cancelled: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.queues.iter().map(VecDeque::len).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queues.iter().all(VecDeque::is_empty)
    }

    /// Returns `true` if any task has had a lower priority than this.
    pub(super) fn is_urgent(&self, priority: Priority) -> bool {
        priority > self.lowest
    }

    pub(super) fn push(&mut self, job: JobBox) {
        self.lowest = self.lowest.min(job.priority);
        self.queues[job.priority as usize].push_back(job);
    }

    /// Puts tasks back at the front, in their order.
    pub(super) fn requeue(&mut self, jobs: Vec<JobBox>) {
        for job in jobs.into_iter().rev() {
            self.queues[job.priority as usize].push_front(job);
        }
    }

    /// The next task: the first of the highest priority.
    pub(super) fn first(&self) -> Option<&JobBox> {
        self.queues.iter().rev().find_map(VecDeque::front)
    }

    pub(super) fn pop_first(&mut self) -> Option<JobBox> {
        self.queues.iter_mut().rev().find_map(VecDeque::pop_front)
    }

    /// Removes the next task, which has been cancelled.
    pub(super) fn drop_first(&mut self, deferred: &mut Deferred) {
        let Some(job) = self.pop_first() else { return };
        // Its future is resolved already. The argument's destructor is user code, so it runs outside the lock.
        deferred.fail(job, TaskError::Cancelled);
        self.cancelled = self.cancelled.saturating_sub(1);
    }

    /// Releases what a cancelled task in this queue holds: its argument and its place in a bounded queue. The tasks in front of
    /// it may take any amount of time. The rest of the entry is removed when its turn comes, or once more than half of the queue
    /// is cancelled.
    pub(super) fn strip(&mut self, id: u64, deferred: &mut Deferred) {
        for queue in &mut self.queues {
            // Tasks are mostly in the order of their ids. One that is not found here is removed when its turn comes.
            let at = queue.partition_point(|job| job.id < id);
            let Some(job) = queue.get_mut(at).filter(|job| job.id == id) else { continue };
            deferred.arguments.push(std::mem::replace(&mut job.argument, Payload::EMPTY));
            if let Some(options) = &mut job.options {
                options.permit = None;
            }
        }
        self.cancelled += 1;
        if self.cancelled > CANCELLED && self.cancelled > self.len() / 2 {
            self.cancel(|job| job.sink.is_cancelled(), deferred);
            self.cancelled = 0;
        }
    }

    /// Removes the tasks for which `which` returns `true`, and cancels them.
    pub(super) fn cancel(&mut self, which: impl Fn(&Job) -> bool, deferred: &mut Deferred) {
        for queue in &mut self.queues {
            // `retain` would drop them here, under the lock.
            for job in std::mem::take(queue) {
                if which(&job) {
                    deferred.fail(job, TaskError::Cancelled);
                } else {
                    queue.push_back(job);
                }
            }
        }
    }

    /// Removes all tasks; they fail with `error`.
    pub(super) fn fail_all(&mut self, error: &TaskError, deferred: &mut Deferred) {
        for job in self.queues.iter_mut().flat_map(|queue| queue.drain(..)) {
            deferred.fail(job, error.clone());
        }
    }
}
