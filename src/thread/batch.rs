//! The batch of a worker: its number, how often other workers have looked at it, and whether it is counted.
//!
//! `queues` counts the workers that have a batch. A worker counts itself before it takes a batch, and discounts itself when it
//! takes no other. Another worker that puts back the rest of the batch discounts the owner, which may be running a long task,
//! unless the owner has begun another batch in the meantime; so each batch has a number.
//!
//! The tasks of a batch are moved to the worker's own queue one by one. Until all are there, looks have no effect: tasks that
//! arrived after the batch was put back would be in the queue of a worker that is not counted.

use crate::sync::atomic::{AtomicUsize, Ordering::*};

/// A batch that other workers have found unfinished this many times is put back into the queue. (Fewer under loom, to keep the
/// models small.)
pub(super) const LOOKS: usize = if cfg!(loom) { 1 } else { 2 };

/// The bits in which looks are counted.
const LOOK_BITS: u32 = 3;
const _: () = assert!(LOOKS < 1 << LOOK_BITS);

const COUNTED: usize = 1;
const FILLING: usize = 2;
const NUMBER: usize = 4;

#[derive(Debug)]
pub(super) struct Batch {
    /// The number of batches that the worker has taken, times `NUMBER`, and two flags: COUNTED, and FILLING while the newest
    /// batch is incomplete. Once FILLING is set, no other thread changes the word until it is cleared.
    word: AtomicUsize,
    /// How often the newest batch has been looked at: its number, and the count in the lowest bits.
    looks: AtomicUsize,
}

/// A batch that was not empty at `LOOKS` looks.
pub(super) struct Overdue(usize);

impl Batch {
    pub(super) fn new() -> Self {
        Self { word: AtomicUsize::new(0), looks: AtomicUsize::new(0) }
    }

    /// The worker, whose own queue is empty, is about to take another batch. True if the caller must count it, since it was not
    /// counted.
    pub(super) fn begin(&self) -> bool {
        // Other threads only clear COUNTED.
        let next = (self.word.load(Relaxed) | COUNTED | FILLING).wrapping_add(NUMBER);
        self.word.swap(next, SeqCst) & COUNTED == 0
    }

    /// The worker has all of the batch in its own queue. Release: a thread that looks from now on sees it there.
    pub(super) fn filled(&self) {
        self.word.store(self.word.load(Relaxed) & !FILLING, Release);
    }

    /// The worker has nothing left, and takes no other. True if it is to be discounted.
    pub(super) fn end(&self) -> bool {
        self.word.load(Relaxed) & COUNTED != 0 && self.word.fetch_and(!COUNTED, SeqCst) & COUNTED != 0
    }

    /// Another worker looks at the batch, which is not empty. Returns the batch if it is overdue, and is to be put back.
    pub(super) fn look(&self) -> Option<Overdue> {
        let word = self.word.load(Acquire);
        if word & FILLING != 0 {
            return None;
        }
        let zero = (word / NUMBER) << LOOK_BITS;
        let times = |seen: usize| if (seen >> LOOK_BITS) << LOOK_BITS == zero { seen - zero + 1 } else { 1 };
        // Relaxed: a count.
        let look = |seen| (times(seen) < LOOKS).then(|| zero + times(seen));
        self.looks.fetch_update(Relaxed, Relaxed, look).is_err().then_some(Overdue(word))
    }

    /// The rest of that batch has been put back. True if its worker is to be discounted, since it has not begun another.
    pub(super) fn gone_back(&self, Overdue(word): Overdue) -> bool {
        word & COUNTED != 0 && self.word.compare_exchange(word, word - COUNTED, SeqCst, Relaxed).is_ok()
    }
}
