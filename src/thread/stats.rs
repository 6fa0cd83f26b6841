//! Statistics of a thread pool.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The counters of one worker. Only that worker writes them, so plain loads and stores suffice (Relaxed: statistics).
#[derive(Debug, Default)]
pub(super) struct Counters {
    completed: AtomicU64,
    busy: AtomicU64,
}

impl Counters {
    pub(super) fn busy(&self) {
        self.busy.store(1, Relaxed);
    }

    pub(super) fn idle(&self) {
        self.busy.store(0, Relaxed);
    }

    pub(super) fn done(&self) {
        self.completed.store(self.completed.load(Relaxed) + 1, Relaxed);
    }

    /// Adds `other` to `self`, which only the caller may use.
    pub(super) fn add(&self, other: &Self) {
        self.completed.store(self.completed.load(Relaxed) + other.completed.load(Relaxed), Relaxed);
        self.busy.store(self.busy.load(Relaxed) + other.busy.load(Relaxed), Relaxed);
    }

    /// The number of completed tasks, and of running tasks.
    pub(super) fn read(&self) -> (u64, u64) {
        (self.completed.load(Relaxed), self.busy.load(Relaxed))
    }
}

impl ThreadPoolStats {
    /// The statistics of a parent's pool in a forked child.
    pub(super) const NOTHING: Self =
        Self { max_workers: 0, workers: 0, busy: 0, queued: 0, completed: 0, spare_threads: 0, spawned: 0 };
}

/// A snapshot of a [`ThreadPoolExecutor`](crate::ThreadPoolExecutor). The numbers are read one after the other while the pool
/// runs, so they may be inconsistent; they are exact while nothing changes.
///
/// ```
/// use concurrent_futures::ThreadPoolExecutor;
///
/// let pool = ThreadPoolExecutor::new(4)?;
/// pool.submit(|| ()).result()?;
/// let stats = pool.stats();
/// assert_eq!((stats.max_workers, stats.workers, stats.queued), (4, 1, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ThreadPoolStats {
    /// How many workers the pool may have.
    pub max_workers: usize,
    /// How many it has: threads start on demand.
    pub workers: usize,
    /// How many of them are running a task.
    pub busy: usize,
    /// How many tasks are queued. Tasks that were cancelled, or run by a waiter, do not count.
    pub queued: usize,
    /// How many tasks have finished, successfully or not. A [`map`](crate::ThreadPoolExecutor::map) counts as a few tasks,
    /// however many items it has.
    pub completed: u64,
    /// How many [spare threads](crate::ThreadPoolExecutor#spare-threads) there are, at most `max_workers`. Each was started for a
    /// wait, and may outlast it.
    pub spare_threads: usize,
    /// How many [spawned](crate::ThreadPoolExecutor::spawn) futures have not ended: queued, polled or waiting.
    pub spawned: usize,
}
