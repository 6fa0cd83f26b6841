//! The wakers of threads that wait for a queued task, must not run it themselves, and rely on a free worker. They are woken when
//! no worker is free any more (see `future::offload`).
//!
//! 1. A thread that watches puts its waker on the list first, then sets WATCHED in the word of `sleep`, and sees in the same step
//!    whether any worker is free. If not, it removes its waker, and handles its task in another way.
//! 2. A worker that stops being free changes the word, and sees in the same step whether any other worker is free, and whether
//!    WATCHED is set. If none is free and it is set, the worker takes the whole list and wakes it.
//! 3. WATCHED is cleared under the lock of the list, when the list is empty or is taken.
//!
//! No wake-up is lost: all these are changes of one word, so they are totally ordered. Suppose that a thread watches, saw a free
//! worker, and is still on the list. The change by which the last free worker stops being free follows the change that set
//! WATCHED. So that worker sees WATCHED, unless it was cleared in between; but then the list was emptied after the waker was
//! added, a contradiction. A worker that sleeps while a task is queued is woken by the rules of `sleep`, so counting it as free
//! is correct.

use std::collections::BTreeMap;
use std::task::Waker;

use super::sleep::{Counts, Sleep};
use crate::future::Wakers;
use crate::quiet;
use crate::sync::Mutex;

#[derive(Debug)]
pub(super) struct Watch {
    /// By the key of the wait.
    list: Mutex<BTreeMap<u64, Wakers>>,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self { list: Mutex::new(BTreeMap::new()) }
    }

    /// Takes the waker and keeps it, if a worker is free; returns whether one is. (A waker that is on the list already is left to
    /// the caller.)
    pub(super) fn watch(&self, sleep: &Sleep, key: u64, waker: &mut Option<Waker>) -> bool {
        let mut list = self.list.lock();
        let wakers = list.entry(key).or_default();
        if waker.as_ref().is_some_and(|waker| wakers.contains(waker)) {
            // The list is not empty, so WATCHED is set.
            return !sleep.counts().is_nobody_free();
        }
        wakers.add(waker);
        if !sleep.watch().is_nobody_free() {
            return true;
        }
        *waker = wakers.pop();
        if wakers.is_empty() {
            list.remove(&key);
        }
        self.unwatch_if_empty(sleep, &list);
        false
    }

    /// A thread has stopped being free; `counts` is the word of `sleep` after that change.
    pub(super) fn stopped_being_free(&self, sleep: &Sleep, counts: Counts) {
        if counts.is_watched() && counts.is_nobody_free() {
            self.wake_all(sleep);
        }
    }

    #[cold]
    fn wake_all(&self, sleep: &Sleep) {
        let woken = {
            let mut list = self.list.lock();
            sleep.unwatch();
            std::mem::take(&mut *list)
        };
        // Wakers are user code.
        woken.into_values().flatten().for_each(|waker| quiet::call(|| waker.wake()));
    }

    /// Removes and returns the wakers of a wait.
    pub(super) fn forget(&self, sleep: &Sleep, key: u64) -> Wakers {
        let mut list = self.list.lock();
        let gone = list.remove(&key).unwrap_or_default();
        self.unwatch_if_empty(sleep, &list);
        gone
    }

    fn unwatch_if_empty(&self, sleep: &Sleep, list: &BTreeMap<u64, Wakers>) {
        if list.is_empty() && sleep.counts().is_watched() {
            sleep.unwatch();
        }
    }
}
