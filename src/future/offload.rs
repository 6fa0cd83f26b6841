//! Offloading: a spare thread of the executor runs what a waiting thread must not run itself.
//!
//! A wait with a deadline has to end at the deadline, a wait for any of several futures when one of them is done, and a future
//! that is polled by a blocked thread may give up what it awaits. If such a thread ran an awaited task in place, its wait could
//! not end before the task does, and the task may depend on the wait ending. So the thread *offloads* the task: if one of the
//! executor's threads is free, that one takes the task from the queue; if none is, the executor starts a spare thread that runs
//! this task and further tasks of the same wait (rule 4), and ends.
//!
//! Rules:
//! 1. The waiting thread or its spare thread decides, while it holds the task's handle. No other thread keeps a pointer to a
//!    task that has not been claimed.
//! 2. A decision that leaves a task in its queue also stores a waker, in the executor (a worker is free, or there are too many
//!    spare threads) or here (the spare thread of this wait runs another task). When the reason no longer holds, the waker is
//!    woken and the decision is made again.
//! 3. When the wait has ended its wakers are woken, except its own: a future that was polled for this wait is polled again, and
//!    registers what it awaits with the next wait.
//! 4. A wait has one spare thread at most, which runs one task at a time. When it has nothing to run it wakes the stored
//!    wakers, and ends unless it gets another task within [`LINGER`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::task::Claimed;
use crate::fork::Witness;
use crate::lock::{Condvar, Mutex};
use crate::quiet;

/// An executor, as seen by a wait on one of its threads.
pub(crate) trait SpareHost: Send + Sync {
    /// Starts an ordinary thread if the limit allows one and there is work for it.
    fn grow(&self);

    /// If a thread of the executor is free, it will run what is queued: then this takes the waker (unless it has it already),
    /// stores it under `key`, and wakes it when no thread is free any more. Returns whether one is free.
    fn leave_to_workers(&self, key: u64, waker: &mut Option<Waker>) -> bool;

    /// Is a thread of the executor free?
    fn is_anyone_free(&self) -> bool;

    /// Starts a thread that runs what is sent to it, if anything. If it cannot, it takes the waker (unless it has it already),
    /// stores it under the key of the wait, and wakes it when a spare thread has ended. With `or_here` it may instead block
    /// briefly until one has ended, and does not store the waker if none is about to end.
    fn start_spare(&self, offload: &Arc<Offload>, or_here: bool, waker: &mut Option<Waker>) -> StartSpare;

    /// Called when the wait has ended while its spare thread is still running a task.
    fn wait_ended(&self, key: u64);

    /// Removes and returns the wakers that are stored under `key`.
    fn forget(&self, key: u64) -> Vec<Waker>;
}

/// What [`SpareHost::start_spare`] did.
pub(crate) enum StartSpare {
    Started(SyncSender<Claimed>),
    /// The maximum number of spare threads is running, or no thread can be started; the waker is stored.
    Later,
    /// The same, and the waker is not stored.
    Impossible,
}

/// The result of offloading a task.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offloaded {
    /// The executor's threads cannot run it now: it is not queued, or is not one of its tasks.
    Nothing,
    /// Another thread runs it, or the wait is woken when this has to be decided again.
    ToOthers,
    /// No thread is free and none can be started.
    Impossible,
}

/// What a wait and its spare thread share.
pub(crate) struct Offload {
    key: u64,
    /// In a forked child the waiting thread may not exist, and threads that do not exist may hold this lock and those of the
    /// executor.
    process: Witness,
    state: Mutex<State>,
    /// Signalled when a spare thread that is idle gets something to run, or the wait ends.
    changed: Condvar,
}

/// How long a spare thread without a task waits for another one before it ends, while its wait lasts. Starting a thread for
/// each of many consecutive tasks or wake-ups would cost much more.
const LINGER: Duration = Duration::from_millis(1);

#[derive(Default)]
struct State {
    /// The wait has ended.
    has_ended: bool,
    /// There is a spare thread.
    is_running: bool,
    /// It has nothing to run, and waits for more.
    is_idle: bool,
    /// What the spare thread runs next.
    next: Option<Claimed>,
    /// Woken when the spare thread has nothing to run.
    wakers: Wakers,
    /// The executor, which may store wakers of this wait.
    host: Option<Arc<dyn SpareHost>>,
}

/// Wakers in insertion order, each once. Adding one takes logarithmic time.
#[derive(Debug, Default)]
pub(crate) struct Wakers {
    list: Vec<Waker>,
    /// The data and vtable pointers of all wakers in the list, which `Waker::will_wake` compares too.
    known: BTreeSet<(usize, usize)>,
}

impl Wakers {
    /// Takes a waker, unless it is already in the list.
    pub(crate) fn add(&mut self, waker: &mut Option<Waker>) {
        if let Some(new) = waker.take_if(|waker| self.known.insert(Self::name(waker))) {
            self.list.push(new);
        }
    }

    pub(crate) fn contains(&self, waker: &Waker) -> bool {
        self.known.contains(&Self::name(waker))
    }

    /// Removes and returns the newest one.
    pub(crate) fn pop(&mut self) -> Option<Waker> {
        let newest = self.list.pop()?;
        self.known.remove(&Self::name(&newest));
        Some(newest)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    fn name(waker: &Waker) -> (usize, usize) {
        (waker.data().addr(), std::ptr::from_ref(waker.vtable()).addr())
    }
}

impl IntoIterator for Wakers {
    type Item = Waker;
    type IntoIter = std::vec::IntoIter<Waker>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.into_iter()
    }
}

impl Offload {
    pub(crate) fn new(key: u64) -> Self {
        Self { key, process: Witness::new(), state: Mutex::default(), changed: Condvar::new() }
    }

    pub(crate) fn key(&self) -> u64 {
        self.key
    }

    /// Decides who runs a task that could be claimed. `claim` claims it. `is_spare`: the caller is the spare thread of the
    /// wait, which polls a future that awaits the task. `or_here`: if offloading is impossible, the caller runs the task
    /// itself.
    pub(super) fn decide(
        self: &Arc<Self>,
        host: Arc<dyn SpareHost>,
        waker: &Waker,
        is_spare: bool,
        or_here: bool,
        claim: impl FnOnce() -> Option<Claimed>,
    ) -> Offloaded {
        // Cloned before the lock is taken, and dropped, if still here, after it is released: wakers are user code.
        let mut waker = Some(waker.clone());
        host.grow();
        let mut state = self.state.lock();
        if state.has_ended {
            drop(state);
            wake_all(waker);
            return Offloaded::ToOthers;
        }
        let host = Arc::clone(state.host.get_or_insert(host));
        if host.leave_to_workers(self.key, &mut waker) {
            return Offloaded::ToOthers;
        }
        if state.is_running {
            if (is_spare || state.is_idle) && state.next.is_none() {
                state.next = claim();
                self.changed.notify_one();
            }
            // When the spare thread has nothing to run, there may be more.
            state.wakers.add(&mut waker);
            return Offloaded::ToOthers;
        }
        match host.start_spare(self, or_here, &mut waker) {
            StartSpare::Started(give) => {
                state.is_running = true;
                state.wakers.add(&mut waker);
                // If another thread has claimed the task first, the spare thread gets nothing to run and ends.
                if let Some(claimed) = claim() {
                    let _ = give.send(claimed);
                }
            }
            StartSpare::Later => {}
            StartSpare::Impossible => return Offloaded::Impossible,
        }
        Offloaded::ToOthers
    }

    /// Runs `f` unless the wait has ended; the wait cannot end while `f` runs. Returns whether it has ended.
    pub(super) fn unless_ended(&self, f: impl FnOnce()) -> bool {
        let state = self.state.lock();
        if !state.has_ended {
            f();
        }
        state.has_ended
    }

    /// Should the spare thread poll again a future that was woken during its poll?
    pub(super) fn polls_on(&self) -> bool {
        let state = self.state.lock();
        let is_alone = || state.host.as_ref().is_some_and(|host| !host.is_anyone_free());
        !state.has_ended && state.next.is_none() && is_alone()
    }

    /// Will the spare thread run something after what it is running?
    pub(crate) fn has_next(&self) -> bool {
        self.state.lock().next.is_some()
    }

    /// What the spare thread runs next; waits up to [`LINGER`] for it. The thread ends if there is nothing.
    pub(crate) fn take_next(&self) -> Option<Claimed> {
        let wakers = {
            let mut state = self.state.lock();
            if state.next.is_some() {
                return state.next.take();
            }
            state.is_idle = !state.has_ended;
            std::mem::take(&mut state.wakers)
        };
        wake_all(wakers);
        let deadline = Instant::now() + LINGER;
        let mut state = self.state.lock();
        self.changed.wait_while(&mut state, Some(deadline), |state| state.next.is_none() && !state.has_ended);
        state.is_idle = false;
        state.next.take()
    }

    /// Called when the spare thread ends.
    pub(crate) fn spare_ends(&self) {
        let wakers = {
            let mut state = self.state.lock();
            state.is_running = false;
            std::mem::take(&mut state.wakers)
        };
        wake_all(wakers);
    }

    /// Called while the waiting thread does not block: removes all wakers, and wakes those that are not its own. Does nothing
    /// in a forked child.
    pub(super) fn pause(&self, own: &Waker) {
        if !self.process.is_here() {
            return;
        }
        let (host, mut wakers) = {
            let mut state = self.state.lock();
            (state.host.clone(), std::mem::take(&mut state.wakers).list)
        };
        if let Some(host) = host {
            wakers.extend(host.forget(self.key));
        }
        wake_all(wakers.into_iter().filter(|waker| !waker.will_wake(own)));
    }

    /// Ends the wait and returns the wakers to wake. Does nothing in a forked child.
    pub(super) fn end(&self) -> Vec<Waker> {
        if !self.process.is_here() {
            return Vec::new();
        }
        let (host, is_running, mut wakers) = {
            let mut state = self.state.lock();
            state.has_ended = true;
            self.changed.notify_one();
            (state.host.take(), state.is_running, std::mem::take(&mut state.wakers).list)
        };
        if let Some(host) = host {
            if is_running {
                host.wait_ended(self.key);
            }
            wakers.extend(host.forget(self.key));
        }
        wakers
    }
}

/// Wakes all of them. Wakers are user code, so their panics are caught.
pub(super) fn wake_all(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        quiet::call(|| waker.wake());
    }
}

impl std::fmt::Debug for Offload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Offload").field("key", &self.key).finish_non_exhaustive()
    }
}
