//! Where tasks wait: one shared queue per priority, and the batch that each worker has taken from one of them.
//!
//! # First in, first out, up to a bound
//!
//! Every task is pushed to the back of the lane of its priority. Workers take from the front: one task, or, if many wait, a
//! *batch* of at most [`LONGEST_BATCH`] tasks, which the worker runs one after the other. So a task can be overtaken only while
//! it is in the batch of a worker that runs a long task. Such a batch is put back in front of the lane, as follows.
//!
//! A lane has two parts, `front` and `back`; everything in `front` is older than everything in `back`. No worker takes from
//! `back` while `front` is not empty, and tasks are taken from `front` one by one. While any worker has a batch, every worker,
//! each time before it takes from the lane, *looks* at one other worker, in turn. A batch that was not empty at [`LOOKS`] looks
//! in a row is moved to `front`.
//!
//! So a task T is overtaken at most [`OVERTAKES_PER_WORKER`] times per worker:
//! - Tasks submitted after T are behind T in the lane. To start before T, a task must be taken after T was taken, and before T is
//!   put back or starts. So it suffices to bound how often workers take from the lane in that time: each time at most
//!   `LONGEST_BATCH` tasks.
//! - The worker that took T had counted its batch before, so from then on all other workers look at batches before they take,
//!   except once each if they had checked just before. With W workers these exceptions occur at most W times.
//! - Each look is followed by at most one take from the lane. After W looks the worker that has T has been looked at once, and
//!   after `LOOKS` x W looks its batch is moved to `front`. Tasks placed before T there had been taken before T was put back.
//! - A worker that puts a batch back may find the owner's next batch, only part of which is in the owner's queue yet. The rest
//!   may have been submitted after T, and may start before it. A task is in a batch once, so this is less than one batch.
//! - In total: (`LOOKS` + 2) x `LONGEST_BATCH` tasks per worker.
//!
//! A sweep ([`Shared::sweep`]) moves live tasks from `back` to `front`, and a worker that ends puts its batch there. Neither
//! changes the order.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::*};

use crate::lock::{Mutex, MutexGuard};
use crossbeam::deque::{Steal, Stealer, Worker as Deque};
use crossbeam::utils::CachePadded;

use super::batch::LOOKS;
use super::injector::Injector;
use crate::executor::Priority;
use crate::future::Task;

/// The maximum number of times a task is overtaken, per worker.
pub(super) const OVERTAKES_PER_WORKER: usize = 64;

/// The most tasks that a worker takes from the shared queue at once.
const LONGEST_BATCH: usize = 16;

const _: () = assert!((LOOKS + 2) * LONGEST_BATCH <= OVERTAKES_PER_WORKER);

/// The queues that all workers take from.
#[derive(Debug)]
pub(super) struct Shared {
    high: Lane,
    normal: Lane,
    low: Lane,
    /// How many workers have a batch.
    batches: CachePadded<AtomicUsize>,
    /// The number of looks so far.
    looks: CachePadded<AtomicUsize>,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            high: Lane::new(),
            normal: Lane::new(),
            low: Lane::new(),
            batches: CachePadded::new(AtomicUsize::new(0)),
            looks: CachePadded::new(AtomicUsize::new(0)),
        }
    }

    pub(super) fn push(&self, task: Task, priority: Priority) {
        self.of(priority).back.push(task);
    }

    pub(super) fn pop(&self, priority: Priority) -> Option<Task> {
        self.of(priority).pop()
    }

    /// How many tasks a worker should take at once, in proportion to the queued tasks per worker. If few are queued it is 1, so
    /// that these start in order, whichever workers take them.
    pub(super) fn share(&self, workers: usize) -> usize {
        (self.normal.back.len_up_to(2 * workers * LONGEST_BATCH) / (2 * workers)).clamp(1, LONGEST_BATCH)
    }

    /// Takes one task, and moves up to `share - 1` more to the worker's own queue, which is empty. The worker must have counted
    /// itself by [`begin_batch`](Self::begin_batch).
    pub(super) fn pop_batch(&self, own: &Deque<Task>, share: usize) -> Option<Task> {
        if self.normal.is_returned() {
            return self.normal.pop();
        }
        self.normal.back.pop_batch(own, share)
    }

    /// Puts the rest of a batch back in front, calling `take` until it returns `None`. `take` is first called after workers have
    /// been directed from `back` to `front`.
    pub(super) fn put_back(&self, take: impl FnMut() -> Option<Task>) {
        self.normal.put_back(take);
    }

    /// Whether any worker has a batch. Acquire pairs with `begin_batch`: a thread that has taken from the lane after a worker
    /// with a batch sees that worker counted.
    #[inline]
    pub(super) fn has_batches(&self) -> bool {
        self.batches.load(Acquire) > 0
    }

    /// A worker is about to take a batch. SeqCst, like everything that is checked before a worker sleeps.
    pub(super) fn begin_batch(&self) {
        self.batches.fetch_add(1, SeqCst);
    }

    pub(super) fn end_batch(&self) {
        self.batches.fetch_sub(1, Release);
    }

    /// The number of the worker to look at next, out of `workers`.
    pub(super) fn next_look(&self, workers: usize) -> usize {
        // Relaxed: each number is given to one worker.
        self.looks.fetch_add(1, Relaxed) % workers.max(1)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.high.is_empty() && self.normal.is_empty() && self.low.is_empty()
    }

    pub(super) fn is_empty_of(&self, priority: Priority) -> bool {
        self.of(priority).is_empty()
    }

    /// The number of entries, empty shells included.
    pub(super) fn len(&self) -> usize {
        self.high.len() + self.normal.len() + self.low.len()
    }

    /// Removes the empty shells of tasks that were claimed or cancelled.
    pub(super) fn sweep(&self) {
        for lane in [&self.high, &self.normal, &self.low] {
            // Dropped after the lane is unlocked.
            lane.sweep().into_iter().for_each(Task::discard);
        }
    }

    fn of(&self, priority: Priority) -> &Lane {
        match priority {
            Priority::High => &self.high,
            Priority::Normal => &self.normal,
            Priority::Low => &self.low,
        }
    }
}

/// The tasks of one priority, in their order.
#[derive(Debug)]
struct Lane {
    /// Tasks that were put back, or moved here by a sweep.
    front: Mutex<VecDeque<Task>>,
    /// At least the length of `front`; never 0 while tasks are in `front` or being moved there. Changes under the lock.
    returned: AtomicUsize,
    back: Injector<Task>,
}

impl Lane {
    fn new() -> Self {
        Self { front: Mutex::new(VecDeque::new()), returned: AtomicUsize::new(0), back: Injector::new() }
    }

    #[inline]
    fn is_returned(&self) -> bool {
        self.returned.load(Acquire) > 0
    }

    #[inline]
    fn pop(&self) -> Option<Task> {
        loop {
            if self.is_returned() {
                if let Some(task) = self.pop_front() {
                    return Some(task);
                }
            }
            let task = self.back.pop();
            // A task that is no longer in `back` may be on its way to `front`.
            if task.is_some() || !self.is_returned() {
                return task;
            }
        }
    }

    #[cold]
    fn pop_front(&self) -> Option<Task> {
        let mut front = self.front.lock();
        let task = front.pop_front();
        self.settle(front);
        task
    }

    fn settle(&self, mut front: MutexGuard<'_, VecDeque<Task>>) {
        if front.is_empty() {
            // Frees the buffer, which may be large.
            *front = VecDeque::new();
        }
        self.returned.store(front.len(), Release);
    }

    #[cold]
    fn put_back(&self, take: impl FnMut() -> Option<Task>) {
        let mut front = self.front.lock();
        // SeqCst: ordered before the tasks are taken from where they are now, see `is_empty`.
        self.returned.store(front.len() + 1, SeqCst);
        let leftover: Vec<Task> = std::iter::from_fn(take).collect();
        leftover.into_iter().rev().for_each(|task| front.push_front(task));
        self.settle(front);
    }

    /// Moves live tasks to the front, and returns the shells.
    fn sweep(&self) -> Vec<Task> {
        if self.is_empty() {
            return Vec::new();
        }
        let mut front = self.front.lock();
        // SeqCst: as in `put_back`.
        self.returned.store(front.len() + 1, SeqCst);
        let mut shells = Vec::new();
        let mut alive = VecDeque::new();
        // Stops at the current length, so that concurrent pushes cannot prolong the sweep.
        let behind = self.back.len();
        let back = std::iter::from_fn(|| self.back.pop()).take(behind);
        for task in front.drain(..).chain(back) {
            if task.is_shell() { shells.push(task) } else { alive.push_back(task) }
        }
        *front = alive;
        self.settle(front);
        shells
    }

    /// The back first: a task that has been moved from there to the front is then seen in the front.
    fn is_empty(&self) -> bool {
        self.back.is_empty() && !self.is_returned()
    }

    fn len(&self) -> usize {
        self.back.len() + self.returned.load(Acquire)
    }
}

/// Steals from the front of another worker's queue.
pub(super) fn steal<T>(from: &Stealer<T>) -> Option<T> {
    until_settled(|| from.steal())
}

/// `Retry` means that another thread made progress, so this ends.
fn until_settled<T>(mut attempt: impl FnMut() -> Steal<T>) -> Option<T> {
    loop {
        match attempt() {
            Steal::Success(taken) => return Some(taken),
            Steal::Empty => return None,
            Steal::Retry => std::hint::spin_loop(),
        }
    }
}
