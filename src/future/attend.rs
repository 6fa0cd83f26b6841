//! Who waits for a spawned future and would poll it in place: a worker that blocks on a future of its own pool.
//!
//! All other workers may be busy or blocked as well, so a wake-up that only queues the future could come to nobody. Hence
//! the waiting worker *attends* it: it enters itself here, then sets ATTENDED in the future's word (`schedule`), then
//! looks whether the future may be polled, and only then sleeps. Whoever wakes the future finds ATTENDED in the same step
//! in which it becomes pollable, and tells those who are entered here. So either the worker sees a pollable future, or the
//! waker sees a worker.
//!
//! What such a future awaits, the thread waits for as well. So a handle that is polled in place, that is, by a thread that
//! blocks until the polled future is done, does what blocking on it would do: it runs its task if that is still queued,
//! polls its future, and attends it with the waker of its poll. A future that was polled by others before, and waits, is
//! polled once more for that reason (AWAY). That is why waiting for a future cannot exhaust the pool either; and why
//! [`block_on`](crate::block_on) inside a worker cannot.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Wake, Waker};

use parking_lot::Mutex;

use crate::sync::thread::{self, Thread};

struct Entry {
    /// The address of the future's cell. One that is no longer alive costs a vain wake-up at worst.
    awaited: usize,
    attendance: u64,
    waker: Waker,
}

static ENTRIES: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

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
    pub(super) fn in_place() -> Option<Self> {
        let key = IN_PLACE.get();
        (key != NONE).then(|| Self { key: AtomicU64::new(key) })
    }

    // Relaxed throughout: the key belongs to one thread at a time, and has only to be different from all others.
    fn key(&self) -> u64 {
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

    /// Enters whom to wake when that future may be polled.
    pub(super) fn enter(&self, awaited: usize, waker: &Waker) {
        let attendance = self.key();
        let new = Entry { awaited, attendance, waker: waker.clone() };
        let mut entries = ENTRIES.lock();
        let same = |entry: &&mut Entry| entry.attendance == attendance && entry.awaited == awaited;
        let old = match entries.iter_mut().find(same) {
            Some(entry) => Some(std::mem::replace(entry, new)),
            None => {
                entries.push(new);
                None
            }
        };
        // The old waker goes outside the lock: it is the user's code.
        drop(entries);
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
    let told: Vec<Waker> = {
        let entries = ENTRIES.lock();
        entries.iter().filter(|entry| entry.awaited == awaited).map(|entry| entry.waker.clone()).collect()
    };
    told.into_iter().for_each(Waker::wake);
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
        let mut entries = ENTRIES.lock();
        let mut gone = Vec::new();
        while let Some(at) = entries.iter().position(|entry| entry.attendance == key) {
            gone.push(entries.swap_remove(at));
        }
        // The wakers go outside the lock: dropping one is the user's code.
        drop(entries);
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
