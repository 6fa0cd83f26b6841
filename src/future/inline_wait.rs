//! Workers that block on a spawned future of their own pool, and poll that future in place.
//!
//! All other workers may be busy or blocked as well, so a wake-up that only queues the future might reach no thread. Therefore
//! the waiting worker registers a *listener* here, then sets LISTENED in the future's word (`poll_state`), then checks whether
//! the future may be polled, and only then sleeps. A thread that wakes the future finds LISTENED in the same step in which the
//! future becomes pollable, and wakes the listeners that are registered here. So either the worker sees a pollable future, or
//! the waking thread sees the listener.
//!
//! A listener stays registered until the wait ends or the future does. The thread that ends the future sees LISTENED when it
//! has closed the word, and removes the listeners; a thread that registers one later sees that the word is closed, and removes
//! its own. So a long wait keeps no listeners for futures that have ended, and none refers to the address of a freed cell.
//!
//! The waiting thread also waits for whatever the future awaits. So a handle that is polled in place, by a thread that blocks
//! until the polled future is done or by the spare thread of such a wait, makes sure that its own task runs if that is still
//! queued, or that its own future is polled (`offload`), and registers the waker of the poll as a listener. For that reason a
//! suspended future that was last polled by another thread is polled once more (AWAY). Therefore waiting for a future cannot
//! exhaust the pool, and neither can [`block_on`](crate::block_on) inside a worker. When the wait ends, those wakers are woken:
//! the future is polled again, and registers with the next wait.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::task::Waker;

use crate::lock::Mutex;

use super::Source;
use super::offload::{Offload, Offloaded, wake_all};
use super::park::Unparker;
use crate::current;
use crate::fork::PerProcess;
use crate::quiet;

/// A wait for several futures at once, which is notified of those that may be polled.
pub(crate) trait ItemListener: Send + Sync {
    /// The item with this index may be polled. Called on any thread, with no lock held.
    fn may_be_polled(&self, index: usize);
}

/// What is woken when a future may be polled.
#[derive(Clone, Copy)]
pub(crate) enum Listener<'a> {
    Waker(&'a Waker),
    /// Not kept alive, because a wait for many futures may end long before they do.
    Item(&'a Weak<dyn ItemListener>, usize),
}

/// A registered [`Listener`]. Cloning it runs no user code, so it may be cloned under a lock.
#[derive(Clone)]
enum Registered {
    Waker(Arc<Waker>),
    Item(Weak<dyn ItemListener>, usize),
}

impl Listener<'_> {
    fn is(self, registered: &Registered) -> bool {
        match (self, registered) {
            (Self::Waker(new), Registered::Waker(old)) => old.will_wake(new),
            (Self::Item(new, at), Registered::Item(old, index)) => at == *index && Weak::ptr_eq(new, old),
            _ => false,
        }
    }

    fn to_registered(self) -> Registered {
        match self {
            Self::Waker(waker) => Registered::Waker(Arc::new(waker.clone())),
            Self::Item(listener, index) => Registered::Item(Weak::clone(listener), index),
        }
    }
}

impl Registered {
    fn wake(self) {
        match self {
            Self::Waker(waker) => waker.wake_by_ref(),
            Self::Item(listener, index) => {
                if let Some(listener) = listener.upgrade() {
                    listener.may_be_polled(index);
                }
            }
        }
    }
}

struct Entry {
    listener: Registered,
    /// See `InlineWait`.
    is_nested: bool,
}

/// The address of a future's cell, and the wait.
type Place = (usize, u64);

/// The listeners, ordered by future, and their places, ordered by wait. Both are ordered, so that registering, waking and
/// removing take logarithmic time in the number of listeners.
static BY_FUTURE: PerProcess<Shards<BTreeMap<Place, Entry>>> = PerProcess::new();
static BY_WAIT: PerProcess<Shards<BTreeSet<(u64, usize)>>> = PerProcess::new();

type Shards<T> = [Mutex<T>; SHARDS];

/// Locks that unrelated threads mostly do not share.
const SHARDS: usize = 16;

fn of_future(awaited: usize) -> &'static Mutex<BTreeMap<Place, Entry>> {
    // The low bits are the same for cells of one size.
    &BY_FUTURE.get()[(awaited >> 7) % SHARDS]
}

fn of_wait(wait: u64) -> &'static Mutex<BTreeSet<(u64, usize)>> {
    &BY_WAIT.get()[wait as usize % SHARDS]
}

const NONE: u64 = 0;

thread_local! {
    /// The key of the blocking wait on whose behalf this thread is polling.
    static IN_PLACE: Cell<u64> = const { Cell::new(NONE) };
    /// The rest of that wait, if `IN_PLACE` is not NONE.
    static WAIT: RefCell<Option<(Arc<Offload>, Role)>> = const { RefCell::new(None) };
}

/// The thread that polls on behalf of a blocking wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The thread that waits.
    Waiter,
    /// Its spare thread.
    Spare,
}

/// A blocking wait. Its listeners are found by its key.
#[derive(Debug)]
pub(crate) struct InlineWait {
    /// NONE before it is first needed.
    key: AtomicU64,
    /// What other threads run for this wait; made when it is first needed.
    offload: OnceLock<Arc<Offload>>,
    role: Role,
    /// Its listeners are for what a polled future awaits, not for what the thread itself waits for.
    is_nested: bool,
}

impl InlineWait {
    /// The wait on whose behalf the calling thread is polling, if any.
    pub(crate) fn in_place() -> Option<Self> {
        if IN_PLACE.get() == NONE {
            return None;
        }
        let (offload, role) = WAIT.try_with(|wait| wait.borrow().clone()).ok().flatten()?;
        Some(Self::of(offload, role, true))
    }

    /// Another value for the same wait.
    pub(crate) fn same(&self) -> Self {
        Self::of(Arc::clone(self.offload_of()), self.role, self.is_nested)
    }

    fn of(offload: Arc<Offload>, role: Role, is_nested: bool) -> Self {
        Self { key: AtomicU64::new(offload.key()), offload: OnceLock::from(offload), role, is_nested }
    }

    /// For the spare thread of a wait.
    pub(super) fn of_spare(offload: &Arc<Offload>) -> Self {
        Self::of(Arc::clone(offload), Role::Spare, false)
    }

    fn offload_of(&self) -> &Arc<Offload> {
        self.offload.get_or_init(|| Arc::new(Offload::new(self.key())))
    }

    /// Has another thread run a task that the calling thread waits for and must not run itself: see `offload`. Does nothing on
    /// a thread that is neither inside a task nor a pool's.
    pub(crate) fn offload<S: Source + ?Sized>(&self, source: &S, waker: &Waker, or_here: bool) -> Offloaded {
        if !current::may_be_needed() {
            return Offloaded::Nothing;
        }
        let Some(host) = source.claimable() else { return Offloaded::Nothing };
        self.offload_of().decide(host, waker, self.is_by_spare(), or_here, || source.claim_for_spare())
    }

    /// Is the calling thread the spare thread of the wait? Then it may also poll what is awaited.
    pub(crate) fn is_by_spare(&self) -> bool {
        self.role == Role::Spare
    }

    /// Should the thread that polls on behalf of this wait poll a future again that was woken meanwhile?
    pub(super) fn polls_on(&self) -> bool {
        self.is_by_spare() && self.offload_of().polls_on()
    }

    /// The number that identifies the wait.
    // Relaxed throughout: the key belongs to one thread at a time, and only has to be unique.
    pub(crate) fn key(&self) -> u64 {
        static LAST: AtomicU64 = AtomicU64::new(NONE);
        if self.key.load(Relaxed) == NONE {
            self.key.store(LAST.fetch_add(1, Relaxed) + 1, Relaxed);
        }
        self.key.load(Relaxed)
    }

    /// Runs `poll` on behalf of this wait.
    pub(super) fn polling<R>(&self, poll: impl FnOnce() -> R) -> R {
        // The threads of a loom model share one system thread.
        if cfg!(loom) {
            return poll();
        }
        let wait = Some((Arc::clone(self.offload_of()), self.role));
        let before = WAIT.try_with(|cell| cell.replace(wait));
        let Ok(before) = before else { return poll() };
        let _restore = RestoreWait(before);
        with_key(self.key(), poll)
    }

    /// Registers a listener that is woken when that future may be polled. It stays registered until the future ends or the wait
    /// does.
    pub(super) fn enter(&self, awaited: usize, listener: Listener<'_>) {
        let wait = self.key();
        let place = (awaited, wait);
        if of_future(awaited).lock().get(&place).is_some_and(|entry| listener.is(&entry.listener)) {
            return;
        }
        let mut new = Some(listener.to_registered());
        let mut old = None;
        let mut enter = || {
            of_wait(wait).lock().insert((wait, awaited));
            let entry = new.take().map(|listener| Entry { listener, is_nested: self.is_nested });
            old = entry.and_then(|entry| of_future(awaited).lock().insert(place, entry));
        };
        match self.offload.get() {
            // The spare thread may still poll after the wait has ended and its entries have been removed.
            Some(offload) if offload.unless_ended(&mut enter) => {
                new.into_iter().for_each(|registered| quiet::call(|| registered.wake()));
            }
            Some(_) => {}
            None => enter(),
        }
        // The old waker is dropped outside the lock: it is user code.
        drop(old);
    }

    /// Undoes `enter`.
    pub(super) fn leave(&self, awaited: usize) {
        drop(self.take_out(awaited));
    }

    fn take_out(&self, awaited: usize) -> Option<Entry> {
        let wait = self.key();
        of_wait(wait).lock().remove(&(wait, awaited));
        of_future(awaited).lock().remove(&(awaited, wait))
    }
}

/// Runs `f` as code that is not polled on behalf of any wait.
pub(super) fn outside_inline_wait<R>(f: impl FnOnce() -> R) -> R {
    if cfg!(loom) { f() } else { with_key(NONE, f) }
}

struct RestoreWait(Option<(Arc<Offload>, Role)>);

impl Drop for RestoreWait {
    fn drop(&mut self) {
        let _ = WAIT.try_with(|wait| wait.replace(self.0.take()));
    }
}

fn with_key<R>(key: u64, f: impl FnOnce() -> R) -> R {
    struct Restore(u64);
    impl Drop for Restore {
        fn drop(&mut self) {
            IN_PLACE.set(self.0);
        }
    }
    let _restore = Restore(IN_PLACE.replace(key));
    f()
}

/// Wakes the listeners of the future with that address, which may be polled.
pub(super) fn wake_inline_waiters(awaited: usize) {
    let listeners: Vec<Registered> = {
        let entries = of_future(awaited).lock();
        entries.range((awaited, 0)..=(awaited, u64::MAX)).map(|(_, entry)| entry.listener.clone()).collect()
    };
    listeners.into_iter().for_each(|registered| quiet::call(|| registered.wake()));
}

/// Removes the listeners of the future with that address, which has ended and is not freed yet.
pub(super) fn ended(awaited: usize) {
    loop {
        let gone = {
            let mut entries = of_future(awaited).lock();
            let first = entries.range((awaited, 0)..=(awaited, u64::MAX)).next().map(|(place, _)| *place);
            first.and_then(|place| entries.remove_entry(&place))
        };
        let Some(((_, wait), entry)) = gone else { return };
        of_wait(wait).lock().remove(&(wait, awaited));
        // A waker may be dropped here, outside the locks: its destructor is user code.
        quiet::drop(entry.listener);
    }
}

/// An [`InlineWait`] that ends when this is dropped.
#[derive(Debug)]
pub(crate) struct InlineWaitGuard {
    wait: InlineWait,
    /// What wakes the waiting thread.
    unpark: OnceLock<Waker>,
}

impl InlineWaitGuard {
    pub(crate) fn new() -> Self {
        let (key, offload) = (AtomicU64::new(NONE), OnceLock::new());
        let wait = InlineWait { key, offload, role: Role::Waiter, is_nested: false };
        Self { wait, unpark: OnceLock::new() }
    }

    /// For a thread that is woken by a waker of its own.
    pub(crate) fn woken_by(waker: &Waker) -> Self {
        let new = Self::new();
        let _ = new.unpark.set(waker.clone());
        new
    }

    /// Called by the waiting thread while it does not block. Its wakers are removed, and all except its own are woken.
    pub(crate) fn pause(&self) {
        if let Some(offload) = self.wait.offload.get() {
            offload.pause(self.unpark());
        }
    }

    /// The waker that unparks the calling thread, whose wait this is.
    pub(crate) fn unpark(&self) -> &Waker {
        self.unpark.get_or_init(|| Unparker::current().into_waker())
    }
}

impl std::ops::Deref for InlineWaitGuard {
    type Target = InlineWait;

    fn deref(&self) -> &InlineWait {
        &self.wait
    }
}

impl Drop for InlineWaitGuard {
    fn drop(&mut self) {
        let key = *self.wait.key.get_mut();
        if key == NONE {
            return;
        }
        let is_own = |waker: &Waker| self.unpark.get().is_some_and(|own| waker.will_wake(own));
        let wakers = self.wait.offload.get().map(|offload| offload.end()).unwrap_or_default();
        loop {
            // One lock at a time, as everywhere here. Wakers are dropped outside the locks, because dropping one is user code.
            let first = of_wait(key).lock().range((key, 0)..=(key, usize::MAX)).next().copied();
            let Some((_, awaited)) = first else { break };
            let entry = self.wait.take_out(awaited);
            // Rule 3 of `offload`: futures polled for this wait may await tasks that no thread would run now, so they are woken
            // to be polled again.
            match entry.filter(|entry| entry.is_nested).map(|entry| entry.listener) {
                Some(Registered::Waker(waker)) if is_own(&waker) => {}
                Some(listener) => quiet::call(|| listener.wake()),
                None => {}
            }
        }
        wake_all(wakers.into_iter().filter(|waker| !is_own(waker)));
    }
}
