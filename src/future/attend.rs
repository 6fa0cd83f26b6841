//! Who waits for a spawned future and would poll it in place: a worker that blocks on a future of its own pool.
//!
//! All other workers may be busy or blocked as well, so a wake-up that only queues the future could come to nobody. Hence
//! the waiting worker *attends* it: it enters itself here, then sets ATTENDED in the future's word (`schedule`), then
//! looks whether the future may be polled, and only then sleeps. Whoever wakes the future finds ATTENDED in the same step
//! in which it becomes pollable, and tells those who are entered here. So either the worker sees a pollable future, or the
//! waker sees a worker.
//!
//! An entry stays until the wait ends or the future does. The future's owner sees ATTENDED when it has closed the word, and takes
//! the entries out; who enters itself later sees that the word is closed, and takes its own entry out. So a long wait keeps no
//! entries for futures that have ended, and no entry refers to the address of a freed cell.
//!
//! What such a future awaits, the thread waits for as well. So a handle that is polled in place, that is, by a thread that
//! blocks until the polled future is done, or by the spare thread of such a wait, sees to it that somebody runs its task if
//! that is still queued, or polls its future (`offload`), and attends it with the waker of its poll. A future that was polled
//! by others before, and waits, is polled once more for that reason (AWAY). That is why waiting for a future cannot exhaust
//! the pool either; and why [`block_on`](crate::block_on) inside a worker cannot. When the wait ends, those wakers are
//! woken: the future is polled again, and what it awaits becomes known to whoever waits for it then.

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
use crate::unwind;

/// What waits for several futures at once, and is told which of them may be polled.
pub(crate) trait Attendant: Send + Sync {
    /// The item with this index may be polled. Called in any thread, with no lock held.
    fn may_be_polled(&self, index: usize);
}

/// Whom to tell that a future may be polled.
#[derive(Clone, Copy)]
pub(crate) enum Listener<'a> {
    Waker(&'a Waker),
    /// Not kept alive: what waits for many futures may end long before they do.
    Item(&'a Weak<dyn Attendant>, usize),
}

/// A [`Listener`] that is entered. Clones of it run none of the user's code, so they may be made under a lock.
#[derive(Clone)]
enum Entered {
    Waker(Arc<Waker>),
    Item(Weak<dyn Attendant>, usize),
}

impl Listener<'_> {
    fn is(self, entered: &Entered) -> bool {
        match (self, entered) {
            (Self::Waker(new), Entered::Waker(old)) => old.will_wake(new),
            (Self::Item(new, at), Entered::Item(old, index)) => at == *index && Weak::ptr_eq(new, old),
            _ => false,
        }
    }

    fn to_entered(self) -> Entered {
        match self {
            Self::Waker(waker) => Entered::Waker(Arc::new(waker.clone())),
            Self::Item(attendant, index) => Entered::Item(Weak::clone(attendant), index),
        }
    }
}

impl Entered {
    fn tell(self) {
        match self {
            Self::Waker(waker) => waker.wake_by_ref(),
            Self::Item(attendant, index) => {
                if let Some(attendant) = attendant.upgrade() {
                    attendant.may_be_polled(index);
                }
            }
        }
    }
}

struct Entry {
    listener: Entered,
    /// See `Attendance`.
    is_nested: bool,
}

/// The address of a future's cell, and the attendance.
type Place = (usize, u64);

/// Who is entered, in the order of the futures, and the same in the order of the attendances. Both are ordered, so that
/// entering, telling and leaving cost the same (but for a logarithm) however many futures are attended.
static BY_FUTURE: PerProcess<Shards<BTreeMap<Place, Entry>>> = PerProcess::new();
static BY_ATTENDANCE: PerProcess<Shards<BTreeSet<(u64, usize)>>> = PerProcess::new();

type Shards<T> = [Mutex<T>; SHARDS];

/// Locks that unrelated threads mostly do not share.
const SHARDS: usize = 16;

fn of_future(awaited: usize) -> &'static Mutex<BTreeMap<Place, Entry>> {
    // The low bits are the same for cells of one size.
    &BY_FUTURE.get()[(awaited >> 7) % SHARDS]
}

fn of_attendance(attendance: u64) -> &'static Mutex<BTreeSet<(u64, usize)>> {
    &BY_ATTENDANCE.get()[attendance as usize % SHARDS]
}

const NONE: u64 = 0;

thread_local! {
    /// The attendance of the blocking wait on whose behalf this thread is polling.
    static IN_PLACE: Cell<u64> = const { Cell::new(NONE) };
    /// The rest of it, where `IN_PLACE` is not NONE.
    static ATTENDANCE: RefCell<Option<(Arc<Offload>, Role)>> = const { RefCell::new(None) };
}

/// Who polls on behalf of a blocking wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The thread that waits.
    Waiter,
    /// Its spare thread.
    Spare,
}

/// A blocking wait, by which the entries of all that it attends are found again.
#[derive(Debug)]
pub(crate) struct Attendance {
    /// NONE before it is first needed.
    key: AtomicU64,
    /// What is run for this wait by others; made when it is first needed.
    offload: OnceLock<Arc<Offload>>,
    role: Role,
    /// What is entered is what a polled future awaits, not what the thread itself waits for.
    is_nested: bool,
}

impl Attendance {
    /// The one on whose behalf the calling thread is polling, if so.
    pub(crate) fn in_place() -> Option<Self> {
        if IN_PLACE.get() == NONE {
            return None;
        }
        let (offload, role) = ATTENDANCE.try_with(|attendance| attendance.borrow().clone()).ok().flatten()?;
        Some(Self::of(offload, role, true))
    }

    /// The same wait once more.
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

    /// Has a task run by somebody else than the calling thread, which waits for it and must not run it: see `offload`. In a
    /// thread that is none of the executor's this does nothing.
    pub(crate) fn offload<S: Source + ?Sized>(&self, source: &S, waker: &Waker, or_here: bool) -> Offloaded {
        if !current::may_be_needed() {
            return Offloaded::Nothing;
        }
        let Some(host) = source.claimable() else { return Offloaded::Nothing };
        self.offload_of().decide(host, waker, self.is_by_spare(), or_here, || source.claim_for_spare())
    }

    /// Does the calling thread poll in the place of the one that waits? Then it may poll what is awaited as well.
    pub(crate) fn is_by_spare(&self) -> bool {
        self.role == Role::Spare
    }

    /// Should the thread that polls on behalf of this wait poll a future again that was woken meanwhile?
    pub(super) fn polls_on(&self) -> bool {
        self.is_by_spare() && self.offload_of().polls_on()
    }

    /// What tells it apart from all others.
    // Relaxed throughout: the key belongs to one thread at a time, and has only to be different from all others.
    pub(crate) fn key(&self) -> u64 {
        static LAST: AtomicU64 = AtomicU64::new(NONE);
        if self.key.load(Relaxed) == NONE {
            self.key.store(LAST.fetch_add(1, Relaxed) + 1, Relaxed);
        }
        self.key.load(Relaxed)
    }

    /// Polls on behalf of this wait.
    pub(super) fn polling<R>(&self, poll: impl FnOnce() -> R) -> R {
        // The threads of a loom model share one thread of the system.
        if cfg!(loom) {
            return poll();
        }
        let attendance = Some((Arc::clone(self.offload_of()), self.role));
        let before = ATTENDANCE.try_with(|cell| cell.replace(attendance));
        let Ok(before) = before else { return poll() };
        let _restore = RestoreAttendance(before);
        with_key(self.key(), poll)
    }

    /// Enters whom to tell when that future may be polled. It stays entered until the future ends or the wait does.
    pub(super) fn enter(&self, awaited: usize, listener: Listener<'_>) {
        let attendance = self.key();
        let place = (awaited, attendance);
        if of_future(awaited).lock().get(&place).is_some_and(|entry| listener.is(&entry.listener)) {
            return;
        }
        let mut new = Some(listener.to_entered());
        let mut old = None;
        let mut enter = || {
            of_attendance(attendance).lock().insert((attendance, awaited));
            let entry = new.take().map(|listener| Entry { listener, is_nested: self.is_nested });
            old = entry.and_then(|entry| of_future(awaited).lock().insert(place, entry));
        };
        match self.offload.get() {
            // Its spare thread may poll on when the wait has ended and its entries are gone.
            Some(offload) if offload.unless_ended(&mut enter) => {
                new.into_iter().for_each(|entered| unwind::call_quietly(|| entered.tell()));
            }
            Some(_) => {}
            None => enter(),
        }
        // The old waker goes outside the lock: it is the user's code.
        drop(old);
    }

    /// Undoes `enter`.
    pub(super) fn leave(&self, awaited: usize) {
        drop(self.take_out(awaited));
    }

    fn take_out(&self, awaited: usize) -> Option<Entry> {
        let attendance = self.key();
        of_attendance(attendance).lock().remove(&(attendance, awaited));
        of_future(awaited).lock().remove(&(awaited, attendance))
    }
}

/// Runs what is not polled on behalf of anybody.
pub(super) fn elsewhere<R>(f: impl FnOnce() -> R) -> R {
    if cfg!(loom) { f() } else { with_key(NONE, f) }
}

struct RestoreAttendance(Option<(Arc<Offload>, Role)>);

impl Drop for RestoreAttendance {
    fn drop(&mut self) {
        let _ = ATTENDANCE.try_with(|attendance| attendance.replace(self.0.take()));
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

/// The future with that address may be polled: tells those who attend it.
pub(super) fn tell(awaited: usize) {
    let told: Vec<Entered> = {
        let entries = of_future(awaited).lock();
        entries.range((awaited, 0)..=(awaited, u64::MAX)).map(|(_, entry)| entry.listener.clone()).collect()
    };
    told.into_iter().for_each(|entered| unwind::call_quietly(|| entered.tell()));
}

/// The future with that address has ended, and is not freed yet: those who attend it need not be told any more.
pub(super) fn ended(awaited: usize) {
    loop {
        let gone = {
            let mut entries = of_future(awaited).lock();
            let first = entries.range((awaited, 0)..=(awaited, u64::MAX)).next().map(|(place, _)| *place);
            first.and_then(|place| entries.remove_entry(&place))
        };
        let Some(((_, attendance), entry)) = gone else { return };
        of_attendance(attendance).lock().remove(&(attendance, awaited));
        // A waker may go here, outside the locks, and its destructor is the user's code.
        unwind::drop_quietly(entry.listener);
    }
}

/// An [`Attendance`] from its beginning to its end, when it is dropped.
#[derive(Debug)]
pub(crate) struct Attending {
    attendance: Attendance,
    /// What wakes the waiting thread.
    unpark: OnceLock<Waker>,
}

impl Attending {
    pub(crate) fn new() -> Self {
        let (key, offload) = (AtomicU64::new(NONE), OnceLock::new());
        let attendance = Attendance { key, offload, role: Role::Waiter, is_nested: false };
        Self { attendance, unpark: OnceLock::new() }
    }

    /// For a thread that is woken by a waker of its own.
    pub(crate) fn woken_by(waker: &Waker) -> Self {
        let new = Self::new();
        let _ = new.unpark.set(waker.clone());
        new
    }

    /// The calling thread, whose wait this is, does not block for the moment, and is not to be woken.
    pub(crate) fn pause(&self) {
        if let Some(offload) = self.attendance.offload.get() {
            offload.pause(self.unpark());
        }
    }

    /// The waker by which the calling thread, whose wait this is, is unparked.
    pub(crate) fn unpark(&self) -> &Waker {
        self.unpark.get_or_init(|| Unparker::current().into_waker())
    }
}

impl std::ops::Deref for Attending {
    type Target = Attendance;

    fn deref(&self) -> &Attendance {
        &self.attendance
    }
}

impl Drop for Attending {
    fn drop(&mut self) {
        let key = *self.attendance.key.get_mut();
        if key == NONE {
            return;
        }
        let is_own = |waker: &Waker| self.unpark.get().is_some_and(|own| waker.will_wake(own));
        let wakers = self.attendance.offload.get().map(|offload| offload.end()).unwrap_or_default();
        loop {
            // One lock at a time, as everywhere here; and the wakers go outside of it, for dropping one is the user's code.
            let first = of_attendance(key).lock().range((key, 0)..=(key, usize::MAX)).next().copied();
            let Some((_, awaited)) = first else { break };
            let entry = self.attendance.take_out(awaited);
            // Rule 3 of `offload`: futures polled for this wait await tasks that nobody would run now, so they are woken to be
            // polled again.
            match entry.filter(|entry| entry.is_nested).map(|entry| entry.listener) {
                Some(Entered::Waker(waker)) if is_own(&waker) => {}
                Some(listener) => unwind::call_quietly(|| listener.tell()),
                None => {}
            }
        }
        wake_all(wakers.into_iter().filter(|waker| !is_own(waker)));
    }
}
