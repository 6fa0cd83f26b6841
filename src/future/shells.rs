//! Empty shells: entries in an executor's queue whose task was claimed or cancelled, and how they are swept out.
//!
//! Such a task ends on the thread that claimed or cancelled it; its entry, and with it the memory of its cell, stays in the
//! queue until a worker takes it out. While no worker is free this may never happen, so the thread that leaves a shell counts
//! it, and sweeps the queues when the shells outnumber the other entries.
//!
//! A thread that cancels a task has only the cell to reach the pool by, and the pool may end meanwhile. So the count of a pool
//! is never freed: it is leased, and reused by later pools. Incrementing the count of a pool that has ended has no effect.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Weak;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering::Relaxed};

use crate::lock::Mutex;

use crate::fork::PerProcess;

/// The queues of an executor.
pub(crate) trait Sweep: Send + Sync {
    /// Removes the shells, if they outnumber the other entries.
    fn sweep_if_due(&self);
}

/// The number of shells in the queues of one pool.
pub(crate) struct Shells {
    /// Shells left minus shells taken out. Negative while a shell was taken out before it was counted.
    count: AtomicIsize,
    queues: Mutex<Option<Weak<dyn Sweep>>>,
    /// The number of the pool (see `fork`).
    origin: AtomicUsize,
}

/// No sweep happens below this number of shells.
const FEW: isize = 64;

/// How many shells are added between two checks whether to sweep.
const STEP: isize = 32;

/// The counts of pools that have ended, oldest first. The oldest is reused first, because late increments may still arrive at
/// recent ones.
static ENDED: PerProcess<Mutex<VecDeque<&'static Shells>>> = PerProcess::new();

/// The number of counts that are kept unused.
const KEPT: usize = 64;

impl Shells {
    /// The count of a new pool.
    pub(crate) fn lease(queues: Weak<dyn Sweep>, origin: usize) -> &'static Self {
        let mut ended = ENDED.get().lock();
        let ended = if ended.len() > KEPT { ended.pop_front() } else { None };
        let shells = ended.unwrap_or_else(|| {
            Box::leak(Box::new(Self {
                count: AtomicIsize::new(0),
                queues: Mutex::new(None),
                origin: AtomicUsize::new(0),
            }))
        });
        // Relaxed: before any task of the pool has the address.
        shells.origin.store(origin, Relaxed);
        shells.count.store(0, Relaxed);
        *shells.queues.lock() = Some(queues);
        shells
    }

    /// The number of the pool that leases it. A task that is not done keeps its pool from ending, so for such a task it is the
    /// number of its own pool.
    pub(crate) fn origin(&self) -> usize {
        self.origin.load(Relaxed)
    }

    /// Called when the pool has ended.
    pub(crate) fn give_back(&'static self) {
        let queues = self.queues.lock().take();
        ENDED.get().lock().push_back(self);
        drop(queues);
    }

    /// Called when a task has been claimed, cancelled or failed while its entry was in a queue.
    pub(crate) fn left(&self) {
        // Relaxed: only a count. The queues order the entries that the sweep sees, and a shell that it misses is found by the
        // next sweep.
        let count = self.count.fetch_add(1, Relaxed) + 1;
        if count >= FEW && count % STEP == 0 {
            self.sweep();
        }
    }

    /// Called when a shell has been taken out of a queue.
    pub(crate) fn gone(&self) {
        self.count.fetch_sub(1, Relaxed);
    }

    pub(crate) fn count(&self) -> usize {
        usize::try_from(self.count.load(Relaxed)).unwrap_or(0)
    }

    #[cfg(all(test, loom))]
    pub(crate) fn exactly(&self) -> isize {
        self.count.load(Relaxed)
    }

    #[cold]
    fn sweep(&self) {
        let queues = self.queues.lock().clone();
        if let Some(queues) = queues.and_then(|queues| queues.upgrade()) {
            queues.sweep_if_due();
        }
    }
}

impl PartialEq for Shells {
    /// Each pool has its own.
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl fmt::Debug for Shells {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shells").field("count", &self.count()).finish_non_exhaustive()
    }
}
