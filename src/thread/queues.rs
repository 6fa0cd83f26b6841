//! Where tasks wait: shared queues by priority, and each worker's own.

use crossbeam::deque::{Injector, Steal, Stealer, Worker as Deque};

use crate::executor::Priority;
use crate::future::Task;

/// The most tasks that a worker takes from the shared queue at once.
const LONGEST_BATCH: usize = 32;

/// The queues that all workers take from. Tasks of one priority start first in, first out.
#[derive(Debug)]
pub(super) struct Shared {
    high: Injector<Task>,
    normal: Injector<Task>,
    low: Injector<Task>,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self { high: Injector::new(), normal: Injector::new(), low: Injector::new() }
    }

    pub(super) fn push(&self, task: Task, priority: Priority) {
        self.of(priority).push(task);
    }

    pub(super) fn pop(&self, priority: Priority) -> Option<Task> {
        until_settled(|| self.of(priority).steal())
    }

    /// Takes one task, and moves some more to the worker's own queue: more, the more there are for each worker. Of a few
    /// tasks none is moved, so that these start in their order whoever takes them.
    pub(super) fn pop_batch(&self, own: &Deque<Task>, workers: usize) -> Option<Task> {
        let share = self.normal.len() / (2 * workers);
        until_settled(|| self.normal.steal_batch_with_limit_and_pop(own, share.clamp(1, LONGEST_BATCH)))
    }

    /// Moves some tasks behind those that the worker has.
    pub(super) fn move_batch(&self, own: &Deque<Task>) {
        until_settled(|| self.normal.steal_batch(own));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.high.is_empty() && self.normal.is_empty() && self.low.is_empty()
    }

    pub(super) fn is_empty_of(&self, priority: Priority) -> bool {
        self.of(priority).is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.high.len() + self.normal.len() + self.low.len()
    }

    fn of(&self, priority: Priority) -> &Injector<Task> {
        match priority {
            Priority::High => &self.high,
            Priority::Normal => &self.normal,
            Priority::Low => &self.low,
        }
    }
}

/// Steals from the front of another worker's queue.
pub(super) fn steal<T>(from: &Stealer<T>) -> Option<T> {
    until_settled(|| from.steal())
}

/// `Retry` means that somebody else made progress, so this ends.
fn until_settled<T>(mut attempt: impl FnMut() -> Steal<T>) -> Option<T> {
    loop {
        match attempt() {
            Steal::Success(taken) => return Some(taken),
            Steal::Empty => return None,
            Steal::Retry => std::hint::spin_loop(),
        }
    }
}
