//! Who waits for a queued task that it must not run itself, relies on a worker that is free, and wants to be told when there
//! is none any more (see `future::offload`).
//!
//! 1. Whoever watches puts its waker on the list first, then sets WATCHED in the word of `sleep`, and sees in the same step
//!    whether anybody is free. If not, it takes its waker back, and does something else about its task.
//! 2. Whoever stops being free changes the word, and sees in the same step whether anybody else is free, and WATCHED. If
//!    nobody is, it takes the whole list and wakes it.
//! 3. WATCHED is cleared under the lock of the list, when the list is empty.
//!
//! No wake-up is lost: all these are changes of one word, so they have an order. Say that somebody has watched, saw a free
//! worker, and is still on the list. The change by which the last free worker stops being free comes after the change that
//! has set WATCHED. So it sees WATCHED, unless it was cleared in between; but then the list was empty, after the waker was put
//! there. A worker that sleeps with a task in the queue is woken by the rules of `sleep`, so it is right to count it as free.

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

    /// Takes the waker and keeps it, if somebody is free; says whether somebody is. (A waker that is there already is left to
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

    /// The word of `sleep` is like this after a thread has stopped being free.
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
        // Wakers are the user's code.
        woken.into_values().flatten().for_each(|waker| quiet::call(|| waker.wake()));
    }

    /// Gives back what is kept for a wait.
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
