//! The words that both sides change concurrently, and the order of these changes: the part of the rings without memory mappings
//! and system calls, so that the models can run it.
//!
//! Sleeping: a side that is about to sleep sets a word ([`announce`]) and then checks once more; a side that publishes reads
//! the word afterwards ([`take`], [`take_bits`]). On both sides a SeqCst fence separates the two steps, so at least one of them
//! sees the other's.

use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering::*, fence};

/// The state of a call that has been sent and not begun.
pub(in crate::process) const QUEUED: u32 = 1;
/// The worker has begun it.
pub(in crate::process) const BEGUN: u32 = 2;
/// The parent has taken it back.
pub(super) const TAKEN: u32 = 3;

/// Moves this side's position. Release: all bytes before it are fully written.
pub(super) fn publish(position: &AtomicU64, to: u64) {
    position.store(to, Release);
}

/// The other side's position. Acquire pairs with the Release of [`publish`].
pub(super) fn position(position: &AtomicU64) -> u64 {
    position.load(Acquire)
}

/// The worker begins a call, unless it has been taken back. A call that was sent as begun is begun too.
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

/// Announces that the caller is about to sleep; it must check once more before it does.
pub(super) fn announce(word: &AtomicU32) {
    word.store(1, SeqCst);
    fence(SeqCst);
}

/// Called after publishing: does the other side sleep, or is it about to? If so, the caller must wake it.
pub(super) fn take(word: &AtomicU32) -> bool {
    fence(SeqCst);
    let sleeps = word.load(Relaxed) != 0;
    if sleeps {
        word.store(0, Relaxed);
    }
    sleeps
}

/// Like [`announce`], for a word with one bit per kind of waiter; returns the new value of the word.
pub(super) fn announce_bit(word: &AtomicU32, bit: u32) -> u32 {
    let now = match word.load(Relaxed) {
        set if set & bit != 0 => set,
        _ => word.fetch_or(bit, SeqCst) | bit,
    };
    fence(SeqCst);
    now
}

/// Like [`take`], for a word with several bits; returns those that were set.
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
