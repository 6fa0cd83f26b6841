//! Where tasks wait: shared queues by priority, and the batch that each worker has taken from one of them.
//!
//! # First in, first out, up to a bound
//!
//! Every task goes to the back of the lane of its priority. Workers take from the front of it: one task, or, where many wait,
//! a *batch* of at most [`LONGEST_BATCH`], of which the worker starts one task after the other. So a task can be overtaken
//! only while it lies in the batch of a worker that is at something long. Such a batch is put back in front of the lane, as follows.
//!
//! A lane has two parts, `front` and `back`, and all that is in `front` is older than what is in `back`. Nobody takes from
//! `back` while there is anything in `front`, and from `front` tasks are taken one by one. While any worker has a batch, every
//! worker, each time before it takes from the lane, *looks* at one other worker, in turn. A batch that was not empty at
//! [`LOOKS`] looks in a row goes to `front`.
//!
//! So a task T is overtaken at most [`OVERTAKES_PER_WORKER`] times for each worker:
//! - What was submitted after T lies behind T in the lane. To start before T, it has to be taken after T was, and before T is back
//!   or starts. So it is enough to bound how often workers take from the lane meanwhile: each time at most `LONGEST_BATCH`
//!   tasks.
//! - The worker that took T had counted its batch before, so from then on all other workers look for batches, except once each if
//!   they had checked just before. With W workers that is at most W times.
//! - With each look somebody takes from the lane at most once. After W looks the worker that has T has been looked at, after
//!   `LOOKS` x W looks so often that its batch goes to `front`. What comes to lie before T there was taken before T was back.
//! - Whoever puts a batch back may meet the next one, of which the worker has only a part in its queue as yet. What comes there later
//!   was not submitted before T, perhaps, and may start before it. A task is in a batch once, so that is less than one batch.
//! - Together: (`LOOKS` + 2) x `LONGEST_BATCH` tasks for each worker.
//!
//! A sweep ([`Shared::sweep`]) moves what is alive from `back` to `front`, and a worker that ends puts its batch there. Neither
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

/// How often a task is overtaken at most, for each worker.
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
    /// How many looks there have been.
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

    /// How many tasks a worker should take at once: more, the more there are for each worker. Of a few tasks none is taken
    /// in advance, so that these start in their order whoever takes them.
    pub(super) fn share(&self, workers: usize) -> usize {
        (self.normal.back.len_up_to(2 * workers * LONGEST_BATCH) / (2 * workers)).clamp(1, LONGEST_BATCH)
    }

    /// Takes one task, and moves some more to the worker's own queue, which is empty; `share` is how many in all. The worker
    /// has counted itself by [`begin_batch`](Self::begin_batch).
    pub(super) fn pop_batch(&self, own: &Deque<Task>, share: usize) -> Option<Task> {
        if self.normal.is_returned() {
            return self.normal.pop();
        }
        self.normal.back.pop_batch(own, share)
    }

    /// Puts what is left of a batch back in front, as long as `take` gives something. It is told when nobody takes from `back`
    /// any more.
    pub(super) fn put_back(&self, take: impl FnMut() -> Option<Task>) {
        self.normal.put_back(take);
    }

    /// Does any worker have a batch? Acquire pairs with the Release of `begin_batch`: whoever has taken from the lane after
    /// a worker that has one sees it.
    #[inline]
    pub(super) fn has_batches(&self) -> bool {
        self.batches.load(Acquire) > 0
    }

    /// A worker is about to take a batch. SeqCst, as for everything that is looked at before a worker sleeps.
    pub(super) fn begin_batch(&self) {
        self.batches.fetch_add(1, SeqCst);
    }

    pub(super) fn end_batch(&self) {
        self.batches.fetch_sub(1, Release);
    }

    /// At which worker to look next, of so many.
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

    /// How many entries there are, empty shells included.
    pub(super) fn len(&self) -> usize {
        self.high.len() + self.normal.len() + self.low.len()
    }

    /// Takes out the empty shells of tasks that were claimed or cancelled.
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
    /// What was put back, or has survived a sweep.
    front: Mutex<VecDeque<Task>>,
    /// How much there is in front, or more: never 0 while anything is there or on its way from elsewhere. It changes
    /// under the lock.
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
            // What is not at the back any more may be on its way to the front.
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
            // It may have been long.
            *front = VecDeque::new();
        }
        self.returned.store(front.len(), Release);
    }

    #[cold]
    fn put_back(&self, take: impl FnMut() -> Option<Task>) {
        let mut front = self.front.lock();
        // SeqCst: before anything is taken from where it is now, see `is_empty`.
        self.returned.store(front.len() + 1, SeqCst);
        let leftover: Vec<Task> = std::iter::from_fn(take).collect();
        leftover.into_iter().rev().for_each(|task| front.push_front(task));
        self.settle(front);
    }

    /// Moves everything to the front, and gives the shells.
    fn sweep(&self) -> Vec<Task> {
        if self.is_empty() {
            return Vec::new();
        }
        let mut front = self.front.lock();
        // SeqCst: as above.
        self.returned.store(front.len() + 1, SeqCst);
        let mut shells = Vec::new();
        let mut alive = VecDeque::new();
        // What is pushed meanwhile is not waited for.
        let behind = self.back.len();
        let back = std::iter::from_fn(|| self.back.pop()).take(behind);
        for task in front.drain(..).chain(back) {
            if task.is_shell() { shells.push(task) } else { alive.push_back(task) }
        }
        *front = alive;
        self.settle(front);
        shells
    }

    /// The back first: what has gone from there to the front is seen there then.
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
