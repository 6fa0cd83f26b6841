//! Who waits for a spawned future and would poll it in place: a worker that blocks on a future of its own pool.
//!
//! All other workers may be busy or blocked as well, so a wake-up that only queues the future could come to nobody. Hence
//! the waiting worker *attends* it: it enters itself here, then sets ATTENDED in the future's word (`schedule`), then
//! looks whether the future may be polled, and only then sleeps. Whoever wakes the future finds ATTENDED in the same step
//! in which it becomes pollable, and tells those who are entered here. So either the worker sees a pollable future, or the
//! waker sees a worker.

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

/// Somebody who waits, and is to be woken when one of the futures that it attends may be polled. Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Attendance {
    /// Made when it is first needed.
    key: OnceLock<(u64, Waker)>,
}

impl Attendance {
    /// One by which the calling thread is unparked.
    pub(crate) fn of_this_thread() -> Self {
        Self { key: OnceLock::new() }
    }

    pub(super) fn enter(&self, awaited: usize) {
        static KEYS: AtomicU64 = AtomicU64::new(0);
        // Relaxed: the key only has to be different from all others.
        let (key, waker) =
            self.key.get_or_init(|| (KEYS.fetch_add(1, Relaxed), Waker::from(Arc::new(Unpark(thread::current())))));
        ENTRIES.lock().push(Entry { awaited, attendance: *key, waker: waker.clone() });
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        if let Some((key, _)) = self.key.get() {
            ENTRIES.lock().retain(|entry| entry.attendance != *key);
        }
    }
}

/// The future with that address may be polled: tells those who attend it.
pub(super) fn tell(awaited: usize) {
    let told: Vec<Waker> = {
        let entries = ENTRIES.lock();
        entries.iter().filter(|entry| entry.awaited == awaited).map(|entry| entry.waker.clone()).collect()
    };
    told.into_iter().for_each(Waker::wake);
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
