//! Who waits for a spawned future and would poll it in place: a worker that blocks on a future of its own pool.
//!
//! All other workers may be busy or blocked as well, so a wake-up that only queues the future could come to nobody. Hence
//! the waiting worker *attends* it: it enters itself here, then sets ATTENDED in the future's word (`schedule`), then
//! looks whether the future may be polled, and only then sleeps. Whoever wakes the future finds ATTENDED in the same step
//! in which it becomes pollable, and tells those who are entered here. So either the worker sees a pollable future, or the
//! waker sees a worker.
//!
//! An entry stays until the wait ends or the future does. The future's owner sees ATTENDED when it has closed the word, and
//! takes the entries out; who enters itself later sees that the word is closed, and takes its own entry out. So a wait that
//! awaits one future after the other keeps nothing of those that have ended, and the address of a cell that was freed
//! names no entry.
//!
//! What such a future awaits, the thread waits for as well. So a handle that is polled in place, that is, by a thread that
//! blocks until the polled future is done, does what blocking on it would do: it runs its task if that is still queued,
//! polls its future, and attends it with the waker of its poll. A future that was polled by others before, and waits, is
//! polled once more for that reason (AWAY). That is why waiting for a future cannot exhaust the pool either; and why
//! [`block_on`](crate::block_on) inside a worker cannot.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Wake, Waker};

use parking_lot::Mutex;

use crate::fork::PerProcess;
use crate::sync::thread::{self, Thread};
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

/// The address of a future's cell, and the attendance.
type Place = (usize, u64);

/// Who is entered, in the order of the futures, and the same in the order of the attendances. Both are ordered, so that
/// entering, telling and leaving cost the same (but for a logarithm) however many futures are attended.
static BY_FUTURE: PerProcess<[Mutex<BTreeMap<Place, Entered>>; SHARDS]> = PerProcess::new();
static BY_ATTENDANCE: PerProcess<[Mutex<BTreeSet<(u64, usize)>>; SHARDS]> = PerProcess::new();

/// Locks that unrelated threads mostly do not share.
const SHARDS: usize = 16;

fn of_future(awaited: usize) -> &'static Mutex<BTreeMap<Place, Entered>> {
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
}

/// A blocking wait, by which the entries of all that it attends are found again.
#[derive(Debug)]
pub(crate) struct Attendance {
    /// NONE before it is first needed.
    key: AtomicU64,
}

impl Attendance {
    /// The one on whose behalf the calling thread is polling, if so.
    pub(crate) fn in_place() -> Option<Self> {
        let key = IN_PLACE.get();
        (key != NONE).then(|| Self { key: AtomicU64::new(key) })
    }

    /// The same wait once more.
    pub(crate) fn same(&self) -> Self {
        Self { key: AtomicU64::new(self.key()) }
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
        if cfg!(loom) { poll() } else { with_key(self.key(), poll) }
    }

    /// Enters whom to tell when that future may be polled. It stays entered until the future ends or the wait does.
    pub(super) fn enter(&self, awaited: usize, listener: Listener<'_>) {
        let attendance = self.key();
        let place = (awaited, attendance);
        if of_future(awaited).lock().get(&place).is_some_and(|entered| listener.is(entered)) {
            return;
        }
        let new = listener.to_entered();
        of_attendance(attendance).lock().insert((attendance, awaited));
        let old = of_future(awaited).lock().insert(place, new);
        // The old waker goes outside the lock: it is the user's code.
        drop(old);
    }

    /// Undoes `enter`.
    pub(super) fn leave(&self, awaited: usize) {
        let attendance = self.key();
        of_attendance(attendance).lock().remove(&(attendance, awaited));
        let old = of_future(awaited).lock().remove(&(awaited, attendance));
        drop(old);
    }
}

/// Runs what is not polled on behalf of anybody.
pub(super) fn elsewhere<R>(f: impl FnOnce() -> R) -> R {
    if cfg!(loom) { f() } else { with_key(NONE, f) }
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
        entries.range((awaited, 0)..=(awaited, u64::MAX)).map(|(_, entered)| entered.clone()).collect()
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
        let Some(((_, attendance), entered)) = gone else { return };
        of_attendance(attendance).lock().remove(&(attendance, awaited));
        // A waker may go here, outside the locks, and its destructor is the user's code.
        unwind::drop_quietly(entered);
    }
}

/// An [`Attendance`] from its beginning to its end, when it is dropped.
#[derive(Debug)]
pub(crate) struct Attending {
    attendance: Attendance,
    /// What unparks the thread.
    unpark: OnceLock<Waker>,
}

impl Attending {
    pub(crate) fn new() -> Self {
        Self { attendance: Attendance { key: AtomicU64::new(NONE) }, unpark: OnceLock::new() }
    }

    /// The waker by which the calling thread, whose wait this is, is unparked.
    pub(crate) fn unpark(&self) -> &Waker {
        self.unpark.get_or_init(|| Waker::from(Arc::new(Unpark(thread::current()))))
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
        loop {
            // One lock at a time, as everywhere here; and the wakers go outside of it, for dropping one is the user's code.
            let first = of_attendance(key).lock().range((key, 0)..=(key, usize::MAX)).next().copied();
            let Some((_, awaited)) = first else { return };
            self.attendance.leave(awaited);
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
