//! Panics of user code: they are caught, described, and kept from ending a worker.
//!
//! std passes the location of a panic only to the panic hook, so [`install_hook`] wraps the current hook. The new hook calls
//! the old one, so that what is printed does not change, and then stores location and backtrace in a thread-local, from which
//! [`catch`] reads them.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::lock::Mutex;

use crate::current;
use crate::error::{PanicLocation, TaskPanic};
use crate::fork::PerProcess;

thread_local! {
    static LAST: RefCell<Option<Note>> = const { RefCell::new(None) };
    /// Whether there is a note. Cheaper to read than `LAST`, which has a destructor.
    static NOTED: Cell<bool> = const { Cell::new(false) };
}

/// What the hook recorded about the latest panic of this thread.
struct Note {
    location: Option<PanicLocation>,
    backtrace: Option<Backtrace>,
    /// The task that the thread was inside. When the panic is caught, it has already left it.
    task: Option<Arc<str>>,
}

/// Wraps the current hook by one that takes notes, once per process. Pools call it when they are built. A thread that is
/// panicking cannot change the hook; then the next pool does it.
pub(crate) fn install_hook() {
    // A forked child inherits the hook, but perhaps also a lock that will never be released.
    static INSTALLED: AtomicBool = AtomicBool::new(false);
    static INSTALLING: PerProcess<Mutex<()>> = PerProcess::new();
    if std::thread::panicking() {
        return;
    }
    let _installing = INSTALLING.get().lock();
    // Relaxed: under the lock.
    if !INSTALLED.swap(true, Relaxed) {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            previous(info);
            // Taken afterwards: the hook may wait for a task that is run in place, which clears the note.
            take_note(info);
        }));
    }
}

fn take_note(info: &PanicHookInfo<'_>) {
    let location = info.location().map(PanicLocation::from_std);
    let backtrace = Some(Backtrace::capture()).filter(|b| b.status() == BacktraceStatus::Captured);
    // `try_*`: a panic while the thread-local is being destroyed or borrowed must not panic again.
    let _ = LAST.try_with(|last| {
        if let Ok(mut last) = last.try_borrow_mut() {
            *last = Some(Note { location, backtrace, task: current::task_name() });
            NOTED.set(true);
        }
    });
}

/// Runs user code; a panic is returned as the error that describes it.
pub(crate) fn catch<T>(f: impl FnOnce() -> T) -> Result<T, TaskPanic> {
    // A note of a panic that was caught elsewhere must not be taken for one of `f`, which may raise a payload without the hook
    // (`resume_unwind`).
    forget_note();
    // What `f` captured is consumed by it, so no inconsistent state is visible through it afterwards; its author is responsible
    // for shared state, as with `std::thread::spawn`.
    panic::catch_unwind(AssertUnwindSafe(f)).map_err(describe)
}

#[inline]
fn forget_note() {
    if NOTED.replace(false) {
        drop(last_note());
    }
}

fn last_note() -> Option<Note> {
    LAST.try_with(|last| last.try_borrow_mut().ok().and_then(|mut note| note.take())).ok().flatten()
}

fn describe(payload: Box<dyn Any + Send>) -> TaskPanic {
    match last_note() {
        Some(note) => TaskPanic::new(payload, note.location, note.backtrace, note.task),
        None => TaskPanic::new(payload, None, None, None),
    }
}

/// Aborts the process if it is dropped by unwinding: for sections in which the state of the scheduler is inconsistent, so that
/// unwinding must abort.
#[derive(Debug)]
pub(crate) struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}
