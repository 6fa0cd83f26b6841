//! The words that two sides change at the same time, and in which order: what the rings are made of, apart from memory and
//! system calls, so that the models can run it.
//!
//! Sleeping: whoever is about to sleep sets a word ([`announce`]), then looks once more; whoever publishes looks at the word
//! afterwards ([`take`], [`take_bits`]). A SeqCst fence stands between the two steps on both sides, so one of the two sees the
//! other.

use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering::*, fence};

/// The state of a call that has been handed over: nobody has begun it.
pub(in crate::process) const QUEUED: u32 = 1;
/// The worker has begun it.
pub(in crate::process) const BEGUN: u32 = 2;
/// The parent has taken it back.
pub(super) const TAKEN: u32 = 3;

/// Moves the own position. Release: all that lies before it is whole.
pub(super) fn publish(position: &AtomicU64, to: u64) {
    position.store(to, Release);
}

/// The other side's position. Acquire pairs with the Release of [`publish`].
pub(super) fn position(position: &AtomicU64) -> u64 {
    position.load(Acquire)
}

/// The worker begins a call, unless it has been taken back. What was handed over as begun it begins too.
pub(super) fn begin(claim: &AtomicU32) -> bool {
    match claim.compare_exchange(QUEUED, BEGUN, AcqRel, Acquire) {
        Ok(_) => true,
        Err(state) => state != TAKEN,
    }
}

/// The parent takes a call back, unless it has been begun.
pub(super) fn take_back(claim: &AtomicU32) -> bool {
    claim.compare_exchange(QUEUED, TAKEN, AcqRel, Acquire).is_ok()
}

/// Says that the caller is about to sleep; it has to look once more before it does.
pub(super) fn announce(word: &AtomicU32) {
    word.store(1, SeqCst);
    fence(SeqCst);
}

/// After publishing: does the other side sleep, or is about to? It has to be woken then.
pub(super) fn take(word: &AtomicU32) -> bool {
    fence(SeqCst);
    let sleeps = word.load(Relaxed) != 0;
    if sleeps {
        word.store(0, Relaxed);
    }
    sleeps
}

/// Like [`announce`], for one of several who watch the same word, each with a bit of its own; the word as it is now.
pub(super) fn announce_bit(word: &AtomicU32, bit: u32) -> u32 {
    let now = match word.load(Relaxed) {
        set if set & bit != 0 => set,
        _ => word.fetch_or(bit, SeqCst) | bit,
    };
    fence(SeqCst);
    now
}

/// Like [`take`], for a word with several bits: those that were set.
pub(super) fn take_bits(word: &AtomicU32) -> u32 {
    fence(SeqCst);
    match word.load(Relaxed) {
        0 => 0,
        _ => word.swap(0, SeqCst),
    }
}

/// Like [`take_bits`], for some of the bits.
#[cfg_attr(loom, allow(dead_code))]
pub(super) fn take_bit(word: &AtomicU32, bit: u32) -> bool {
    fence(SeqCst);
    word.load(Relaxed) & bit != 0 && word.fetch_and(!bit, SeqCst) & bit != 0
}
