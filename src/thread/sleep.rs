//! When a worker sleeps, and who wakes it.
//!
//! # States
//!
//! A worker is *busy* (it runs a task), *searching* (it looks for one, or has just been started or woken to do so), or
//! *asleep*. [`Sleep`] counts the last two, and all the threads, in one word.
//!
//! # Rules
//!
//! 1. Whoever makes work available publishes it first, then reads the word (SeqCst fence between). It wakes a sleeper
//!    only if nobody is searching: a burst of ten thousand submits wakes one worker, not ten thousand times one.
//! 2. A worker that stops searching because it found something, and sees that there is more, wakes the next one (SeqCst
//!    fence between). So the woken ones multiply as long as there is work.
//! 3. A worker that falls asleep counts itself as asleep first, then looks for work once more (SeqCst between).
//! 4. The most recent sleeper is woken first: its cache is the warmest, and the surplus ones reach their idle timeout.
//!
//! # No wake-up is lost
//!
//! Say work W is published while some worker sleeps and nobody ever takes W. Its publisher read the word after
//! publishing. If it saw no searcher and a sleeper, it woke that sleeper, which then searches and finds W or something
//! else, in which case rule 2 passes the duty on. If it saw a searcher S: S's own next change of the word comes later in
//! the order of SeqCst operations than the publisher's read, so whatever S does next, it looks after it: if S falls
//! asleep, rule 3 makes it find W; if S finds other work, rule 2 makes it look for more, and W is there. If it saw
//! neither a searcher nor a sleeper, every worker was busy then, and each will search before it sleeps.

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

/// The word at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts(u64);

impl Counts {
    pub(super) fn asleep(self) -> usize {
        (self.0 & FIELD) as usize
    }

    pub(super) fn searching(self) -> usize {
        ((self.0 / SEARCHING) & FIELD) as usize
    }

    /// No thread of the pool will come across what is queued: all of them are busy.
    pub(super) fn is_nobody_free(self) -> bool {
        self.asleep() == 0 && self.searching() == 0
    }

    /// Somebody wants to be told when nobody is free (see `watch`).
    pub(super) fn is_watched(self) -> bool {
        self.0 & WATCHED != 0
    }

    pub(super) fn threads(self) -> usize {
        ((self.0 / THREADS) & FIELD) as usize
    }

    /// Nothing new is taken.
    pub(super) fn is_closed(self) -> bool {
        self.0 & CLOSED != 0
    }

    /// What is queued must not be run: it is to be cancelled, or failed where the pool is broken.
    pub(super) fn is_refusing(self) -> bool {
        self.0 & (CANCELLING | BROKEN) != 0
    }

    pub(super) fn is_broken(self) -> bool {
        self.0 & BROKEN != 0
    }
}

/// The place where one worker sleeps.
#[derive(Debug)]
pub(super) struct Sleeper {
    thread: Unparker,
    woken: AtomicBool,
}

impl Sleeper {
    /// Made by the worker itself.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { thread: Unparker::current(), woken: AtomicBool::new(false) })
    }

    fn wake(&self) {
        // Release pairs with the Acquire of `sleep`: what the waker did is visible to the woken.
        self.woken.store(true, Release);
        self.thread.unpark();
    }
}

#[derive(Debug)]
pub(super) struct Sleep {
    word: AtomicU64,
    /// Who sleeps, most recent last. The count of sleepers changes only under this lock.
    asleep: Mutex<Vec<Arc<Sleeper>>>,
}

impl Sleep {
    pub(super) fn new() -> Self {
        Self { word: AtomicU64::new(0), asleep: Mutex::new(Vec::new()) }
    }

    /// SeqCst: the rules of the module speak of one order of all accesses to this word.
    pub(super) fn counts(&self) -> Counts {
        Counts(self.word.load(SeqCst))
    }

    /// A thread is about to be started, to search, if there are fewer than `max`: says whether. A pool that is closed gets
    /// no first thread any more; while it works off what it has, it may still need more.
    pub(super) fn add_thread_below(&self, max: usize) -> bool {
        let wanted = |counts: Counts| !counts.is_refusing() && (!counts.is_closed() || counts.threads() > 0);
        self.add_thread_if(|counts| wanted(counts) && counts.threads() < max)
    }

    /// A thread that was about to end stays, if it was the last one: says whether. Also in a pool that is closed.
    pub(super) fn keep_last_thread(&self) -> bool {
        self.add_thread_if(|counts| counts.threads() == 0)
    }

    fn add_thread_if(&self, condition: impl Fn(Counts) -> bool) -> bool {
        let add = |word| condition(Counts(word)).then(|| word + THREADS + SEARCHING);
        self.word.fetch_update(SeqCst, SeqCst, add).is_ok()
    }

    /// A searching thread is about to end (or could not be started). Returns the word as it is then.
    pub(super) fn remove_thread(&self) -> Counts {
        let gone = THREADS + SEARCHING;
        Counts(self.word.fetch_sub(gone, SeqCst) - gone)
    }

    /// [`remove_thread`](Self::remove_thread), if there are more than `max`. Of several threads that are one too many
    /// together, one goes.
    pub(super) fn remove_thread_above(&self, max: usize) -> Option<Counts> {
        let gone = THREADS + SEARCHING;
        let above = |word| (Counts(word).threads() > max).then(|| word - gone);
        self.word.fetch_update(SeqCst, SeqCst, above).ok().map(|before| Counts(before - gone))
    }

    pub(super) fn start_searching(&self) {
        self.word.fetch_add(SEARCHING, SeqCst);
    }

    /// The caller looks for more work next (rule 2); the fence puts that look after the change of the word. Returns the word
    /// as it is then.
    pub(super) fn stop_searching(&self) -> Counts {
        let before = self.word.fetch_sub(SEARCHING, SeqCst);
        fence(SeqCst);
        Counts(before - SEARCHING)
    }

    /// From now on who stops being free tells those who watch, if it was the last one. Returns the word as it is then.
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

    /// Says whether this call broke the pool first.
    pub(super) fn break_down(&self) -> bool {
        !Counts(self.word.fetch_or(CLOSED | BROKEN, SeqCst)).is_broken()
    }

    /// Wakes a sleeper, unless somebody is searching and will see to it (rule 1). `counts` was read after the work was
    /// published.
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

    /// Puts a searching worker to sleep, unless `found` says that there is something to do after all. Returns when it
    /// has been woken, when `found`, or at the deadline, and says which; the worker is searching again in all cases.
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

    /// Takes a worker off the list of sleepers; false if a waker has done so already, and will call it.
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
