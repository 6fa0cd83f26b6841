//! The list of an executor's spawned futures that have not ended: how many there are, and how to end them all.
//!
//! It holds no references: a future that has no wakers must be detected (`poll_state`), so the list must not keep it alive. The
//! owner removes it from the list, under the lock, before it gives up its share (`spawned`, rule 5).

#![allow(unsafe_code)]

use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize as Key, Ordering::Relaxed};

use super::cell::Header;
use super::spawned::{ListEntry, Pinned};
use crate::error::TaskError;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// The number of locks, so that threads that spawn at the same time rarely share one. One is enough for the models.
const SHARDS: usize = if cfg!(loom) { 1 } else { 8 };

pub(crate) struct LiveFutures {
    shards: [Mutex<Shard>; SHARDS],
    /// SeqCst: a worker that is about to end for good and the last future that ends each write one variable and then read the
    /// other's.
    count: AtomicUsize,
}

#[derive(Default)]
struct Shard {
    places: Vec<Option<ListEntry>>,
    free: Vec<usize>,
}

impl LiveFutures {
    pub(crate) fn new() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::new(Shard::default())), count: AtomicUsize::new(0) }
    }

    pub(crate) fn count(&self) -> usize {
        self.count.load(SeqCst)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// Cancels every future that is on the list now: at once, on this thread, if it is not being polled.
    pub(crate) fn cancel_all(&self) {
        self.for_each(Pinned::cancel);
    }

    /// Like [`cancel_all`](Self::cancel_all), but fails them with an error.
    pub(crate) fn fail_all(&self, error: &TaskError) {
        self.for_each(|held| held.fail(error.clone()));
    }

    /// If a callback of a future forks, the child skips the rest.
    fn for_each(&self, each: impl Fn(&Pinned)) {
        for shard in &self.shards {
            let held: Vec<Pinned> = {
                let shard = shard.lock();
                // SAFETY: this is the lock of the list.
                shard.places.iter().flatten().map(|listed| unsafe { listed.hold() }).collect()
            };
            // Outside the lock: futures are dropped here.
            let mut left = held.iter().map(|held| {
                each(held);
                held.is_left()
            });
            if left.any(|is_left| is_left) {
                return;
            }
        }
    }

    /// Puts a future on the list and stores its key in `key`.
    pub(super) fn insert(&self, listed: ListEntry, key: &Key) {
        self.count.fetch_add(1, SeqCst);
        let mut shard = self.shard_of(listed.address()).lock();
        match shard.free.pop() {
            Some(place) => {
                // Relaxed: under the lock, and before the future is queued.
                key.store(place, Relaxed);
                shard.places[place] = Some(listed);
            }
            None => {
                key.store(shard.places.len(), Relaxed);
                shard.places.push(Some(listed));
            }
        }
    }

    /// Takes a future off the list; returns whether it was the last one.
    pub(super) fn remove(&self, cell: NonNull<Header>, key: usize) -> bool {
        {
            let mut shard = self.shard_of(cell.addr().get()).lock();
            let gone = shard.places[key].take();
            debug_assert!(gone.is_some_and(|listed| listed.address() == cell.addr().get()));
            shard.free.push(key);
        }
        self.count.fetch_sub(1, SeqCst) == 1
    }

    fn shard_of(&self, address: usize) -> &Mutex<Shard> {
        // The low bits are the same for cells of one size.
        &self.shards[(address >> 7) % SHARDS]
    }
}

impl fmt::Debug for LiveFutures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveFutures").field("count", &self.count()).finish_non_exhaustive()
    }
}
