//! Statistics of a thread pool.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts of one worker. Only that worker writes them, so they are plain loads and stores (Relaxed: a statistic).
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

    /// For sums: `self` is nobody's but the caller's.
    pub(super) fn add(&self, other: &Self) {
        self.completed.store(self.completed.load(Relaxed) + other.completed.load(Relaxed), Relaxed);
        self.busy.store(self.busy.load(Relaxed) + other.busy.load(Relaxed), Relaxed);
    }

    /// How many tasks were done, and how many are at the moment being run.
    pub(super) fn read(&self) -> (u64, u64) {
        (self.completed.load(Relaxed), self.busy.load(Relaxed))
    }
}

impl ThreadPoolStats {
    /// What a forked child has of its parent's pool.
    pub(super) const NOTHING: Self =
        Self { max_workers: 0, workers: 0, busy: 0, queued: 0, completed: 0, spare_threads: 0, spawned: 0 };
}

/// A snapshot of a [`ThreadPoolExecutor`](crate::ThreadPoolExecutor). The numbers are read one after the other while the
/// pool goes on, so they need not add up; when nothing happens they are exact.
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
    /// How many tasks are queued. Tasks that were cancelled, or run by a waiter, are not.
    pub queued: usize,
    /// How many tasks have finished, successfully or not. A [`map`](crate::ThreadPoolExecutor::map) counts as a few tasks, however
    /// many items it has.
    pub completed: u64,
    /// How many [spare threads](crate::ThreadPoolExecutor#spare-threads) there are: at most as many as there may be workers. Each was
    /// started for a wait, and may outlast it.
    pub spare_threads: usize,
    /// How many [spawned](crate::ThreadPoolExecutor::spawn) futures have not ended: queued, polled or waiting.
    pub spawned: usize,
}
