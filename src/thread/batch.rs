//! The batch of a worker: which one it is, how often others have looked at it, and whether it is counted.
//!
//! `queues` counts the workers that have a batch. The worker counts itself before it takes one, and discounts itself when it takes no
//! other. If the rest of a batch is put back, whoever does that discounts the worker, which may be at something long; unless
//! it has begun another batch meanwhile: so each batch has a number.
//!
//! The tasks of a batch come into the worker's own queue one by one. Until all are there, nobody looks at the batch: what came after
//! a look that puts it back would be in the queue of a worker that is not counted.

use crate::sync::atomic::{AtomicUsize, Ordering::*};

/// A batch that other workers have found unfinished this many times goes back to the queue. (Fewer under loom, to keep the models
/// small.)
pub(super) const LOOKS: usize = if cfg!(loom) { 1 } else { 2 };

/// The bits in which looks are counted.
const LOOK_BITS: u32 = 3;
const _: () = assert!(LOOKS < 1 << LOOK_BITS);

const COUNTED: usize = 1;
const FILLING: usize = 2;
const NUMBER: usize = 4;

#[derive(Debug)]
pub(super) struct Batch {
    /// How many batches the worker has taken, times `NUMBER`; and two flags: it is counted, and has not got all of the newest batch.
    /// While the latter is set nobody else changes the word.
    word: AtomicUsize,
    /// How often the newest of them has been looked at: its number, and in the lowest bits how often.
    looks: AtomicUsize,
}

/// A batch that a worker has not finished for long.
pub(super) struct Overdue(usize);

impl Batch {
    pub(super) fn new() -> Self {
        Self { word: AtomicUsize::new(0), looks: AtomicUsize::new(0) }
    }

    /// The worker, whose own queue is empty, is about to take another batch. True if it is to be counted: it was not yet.
    pub(super) fn begin(&self) -> bool {
        // Others only take COUNTED away.
        let next = (self.word.load(Relaxed) | COUNTED | FILLING).wrapping_add(NUMBER);
        self.word.swap(next, SeqCst) & COUNTED == 0
    }

    /// The worker has all of the batch in its own queue. Release: whoever looks from now on sees it there.
    pub(super) fn filled(&self) {
        self.word.store(self.word.load(Relaxed) & !FILLING, Release);
    }

    /// The worker has nothing left, and takes no other. True if it is to be discounted.
    pub(super) fn end(&self) -> bool {
        self.word.load(Relaxed) & COUNTED != 0 && self.word.fetch_and(!COUNTED, SeqCst) & COUNTED != 0
    }

    /// Another worker looks at the batch, which is not empty: gives it, if it has been looked at so often that it is to go back.
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

    /// What was left of that batch has gone back. True if the worker is to be discounted: it has not begun another.
    pub(super) fn gone_back(&self, Overdue(word): Overdue) -> bool {
        word & COUNTED != 0 && self.word.compare_exchange(word, word - COUNTED, SeqCst, Relaxed).is_ok()
    }
}
