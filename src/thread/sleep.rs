//! When a worker sleeps, and what wakes it.
//!
//! # States
//!
//! A worker is *busy* (it runs a task), *searching* (it looks for one, or has just been started or woken to do so), or *asleep*.
//! [`Sleep`] counts searching and sleeping workers, and all threads, in one atomic word.
//!
//! # Rules
//!
//! 1. A thread that makes work available publishes it first, then reads the word (SeqCst fence between). It wakes a sleeper only
//!    if no worker is searching: a burst of ten thousand submits wakes one worker, once.
//! 2. A worker that stops searching because it found work, and sees more work, wakes another one (SeqCst fence between). So the
//!    number of busy workers grows while there is work.
//! 3. A worker that is about to sleep first counts itself as asleep, then looks for work once more (SeqCst between).
//! 4. The most recent sleeper is woken first: its cache is the warmest, and surplus workers sleep until their idle timeout.
//!
//! # No wake-up is lost
//!
//! Suppose that work W is published while a worker sleeps, and that no worker ever takes W. The publisher read the word after
//! publishing W. If it saw no searcher and a sleeper, it woke that sleeper, which then searches and finds W, or finds other work
//! and looks for more by rule 2. If it saw a searcher S, the next change of the word by S follows the publisher's read in the
//! order of SeqCst operations, and S looks for work after that change: if S falls asleep, rule 3 makes it find W; if S finds
//! other work, rule 2 makes it look for more, and W is there. If it saw neither a searcher nor a sleeper, every worker was busy,
//! and each searches before it sleeps.

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering::*, fence};
use std::sync::Arc;
use std::time::Instant;

use crate::future::{Unparker, park};

const ASLEEP: u64 = 1;
const SEARCHING: u64 = 1 << 16;
const THREADS: u64 = 1 << 32;
const CLOSED: u64 = 1 << 48;
const CANCELLING: u64 = 1 << 49;
const BROKEN: u64 = 1 << 50;
const WATCHED: u64 = 1 << 51;
const FIELD: u64 = 0xffff;

/// A snapshot of the word.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts(u64);

impl Counts {
    pub(super) fn asleep(self) -> usize {
        (self.0 & FIELD) as usize
    }

    pub(super) fn searching(self) -> usize {
        ((self.0 / SEARCHING) & FIELD) as usize
    }

    /// All workers are busy: none is searching or asleep.
    pub(super) fn is_nobody_free(self) -> bool {
        self.asleep() == 0 && self.searching() == 0
    }

    /// A waiting thread is to be woken when no worker is free (see `watch`).
    pub(super) fn is_watched(self) -> bool {
        self.0 & WATCHED != 0
    }

    pub(super) fn threads(self) -> usize {
        ((self.0 / THREADS) & FIELD) as usize
    }

    /// The pool accepts no new tasks.
    pub(super) fn is_closed(self) -> bool {
        self.0 & CLOSED != 0
    }

    /// Queued tasks must not run: they are cancelled, or fail if the pool is broken.
    pub(super) fn is_refusing(self) -> bool {
        self.0 & (CANCELLING | BROKEN) != 0
    }

    pub(super) fn is_broken(self) -> bool {
        self.0 & BROKEN != 0
    }
}

/// The wake-up flag and the unparker of one worker.
#[derive(Debug)]
pub(super) struct Sleeper {
    thread: Unparker,
    woken: AtomicBool,
}

impl Sleeper {
    /// Called on the worker's own thread.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { thread: Unparker::current(), woken: AtomicBool::new(false) })
    }

    fn wake(&self) {
        // Release pairs with the Acquire in `sleep`: the woken worker sees what the waking thread did.
        self.woken.store(true, Release);
        self.thread.unpark();
    }
}

#[derive(Debug)]
pub(super) struct Sleep {
    word: AtomicU64,
    /// The sleeping workers, most recent last. The count of sleepers changes only under this lock.
    asleep: Mutex<Vec<Arc<Sleeper>>>,
}

impl Sleep {
    pub(super) fn new() -> Self {
        Self { word: AtomicU64::new(0), asleep: Mutex::new(Vec::new()) }
    }

    /// SeqCst: the rules of this module assume a single order of all accesses to the word.
    pub(super) fn counts(&self) -> Counts {
        Counts(self.word.load(SeqCst))
    }

    /// Counts a new, searching thread if there are fewer than `max` threads; returns whether it did. A refusing pool, and a
    /// closed pool without threads, get none; a closed pool with threads may start more for its queued tasks.
    pub(super) fn add_thread_below(&self, max: usize) -> bool {
        let wanted = |counts: Counts| !counts.is_refusing() && (!counts.is_closed() || counts.threads() > 0);
        self.add_thread_if(|counts| wanted(counts) && counts.threads() < max)
    }

    /// Counts a thread that was about to end again, as searching, if no other is left; returns whether it did. Applies to closed
    /// pools too.
    pub(super) fn keep_last_thread(&self) -> bool {
        self.add_thread_if(|counts| counts.threads() == 0)
    }

    fn add_thread_if(&self, condition: impl Fn(Counts) -> bool) -> bool {
        let add = |word| condition(Counts(word)).then(|| word + THREADS + SEARCHING);
        self.word.fetch_update(SeqCst, SeqCst, add).is_ok()
    }

    /// Discounts a searching thread that is about to end or could not be started. Returns the new word.
    pub(super) fn remove_thread(&self) -> Counts {
        let gone = THREADS + SEARCHING;
        Counts(self.word.fetch_sub(gone, SeqCst) - gone)
    }

    /// [`remove_thread`](Self::remove_thread), but only if there are more than `max` threads. If there is one surplus thread and
    /// several threads call this, one call succeeds.
    pub(super) fn remove_thread_above(&self, max: usize) -> Option<Counts> {
        let gone = THREADS + SEARCHING;
        let above = |word| (Counts(word).threads() > max).then(|| word - gone);
        self.word.fetch_update(SeqCst, SeqCst, above).ok().map(|before| Counts(before - gone))
    }

    pub(super) fn start_searching(&self) {
        self.word.fetch_add(SEARCHING, SeqCst);
    }

    /// The caller looks for more work next (rule 2); the fence orders that after the change of the word. Returns the new word.
    pub(super) fn stop_searching(&self) -> Counts {
        let before = self.word.fetch_sub(SEARCHING, SeqCst);
        fence(SeqCst);
        Counts(before - SEARCHING)
    }

    /// Sets WATCHED: the last worker that stops being free then wakes the watchers. Returns the new word.
    pub(super) fn watch(&self) -> Counts {
        Counts(self.word.fetch_or(WATCHED, SeqCst) | WATCHED)
    }

    pub(super) fn unwatch(&self) {
        self.word.fetch_and(!WATCHED, SeqCst);
    }

    pub(super) fn close(&self) {
        self.word.fetch_or(CLOSED, SeqCst);
    }

    pub(super) fn cancel(&self) {
        self.word.fetch_or(CLOSED | CANCELLING, SeqCst);
    }

    /// Returns whether this call was the first to break the pool.
    pub(super) fn break_down(&self) -> bool {
        !Counts(self.word.fetch_or(CLOSED | BROKEN, SeqCst)).is_broken()
    }

    /// Wakes a sleeper, unless a worker is searching (rule 1). `counts` must have been read after the work was published.
    pub(super) fn wake_one_if_wanted(&self, counts: Counts) {
        if counts.asleep() > 0 && counts.searching() == 0 {
            self.wake_one();
        }
    }

    /// Wakes the most recent sleeper, if there is one; it is counted as searching from now on.
    fn wake_one(&self) {
        let woken = {
            let mut asleep = self.asleep.lock();
            let Some(sleeper) = asleep.pop() else { return };
            self.word.fetch_add(SEARCHING - ASLEEP, SeqCst);
            sleeper
        };
        woken.wake();
    }

    pub(super) fn wake_all(&self) {
        let woken = {
            let mut asleep = self.asleep.lock();
            let woken = std::mem::take(&mut *asleep);
            self.word.fetch_add((SEARCHING - ASLEEP) * woken.len() as u64, SeqCst);
            woken
        };
        woken.iter().for_each(|sleeper| sleeper.wake());
    }

    /// Puts a searching worker to sleep, unless `found` returns true. Returns why the worker woke up: it was called, `found`
    /// returned true, or the deadline passed. The worker is counted as searching again in all cases.
    pub(super) fn sleep(
        &self,
        sleeper: &Arc<Sleeper>,
        deadline: Option<Instant>,
        found: impl FnOnce() -> bool,
    ) -> Woken {
        sleeper.woken.store(false, Relaxed);
        {
            let mut asleep = self.asleep.lock();
            asleep.push(Arc::clone(sleeper));
            self.word.fetch_add(ASLEEP.wrapping_sub(SEARCHING), SeqCst);
        }
        if found() && self.get_up(sleeper) {
            return Woken::Found;
        }
        loop {
            if sleeper.woken.load(Acquire) {
                return Woken::Called;
            }
            if !park(deadline) && self.get_up(sleeper) {
                return Woken::TimedOut;
            }
        }
    }

    /// Removes a worker from the list of sleepers; false if a waking thread has already done so, and will wake it.
    fn get_up(&self, sleeper: &Arc<Sleeper>) -> bool {
        let mut asleep = self.asleep.lock();
        let Some(at) = asleep.iter().rposition(|other| Arc::ptr_eq(other, sleeper)) else { return false };
        asleep.remove(at);
        self.word.fetch_add(SEARCHING - ASLEEP, SeqCst);
        true
    }
}

/// Why [`Sleep::sleep`] returned.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Woken {
    Called,
    Found,
    TimedOut,
}
