//! Panics: caught where user code runs, described well, and never allowed to take a worker down.
//!
//! std gives the place of a panic only to the panic hook, so [`install_hook`] puts one in front of the hook
//! that is there. It calls the old hook, so that what is printed does not change, and then notes place and backtrace in a
//! thread-local. [`catch`] picks the note up.

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
    /// There is a note. Cheaper to ask than `LAST`, which has a destructor.
    static NOTED: Cell<bool> = const { Cell::new(false) };
}

/// What the hook saw of the newest panic on this thread.
struct Note {
    location: Option<PanicLocation>,
    backtrace: Option<Backtrace>,
    /// The task that the thread was inside of; when the panic is caught it no longer is.
    task: Option<Arc<str>>,
}

/// Puts the note-taking hook in front of the current one, once a process. Pools call it when they are built. On a thread
/// that is panicking the hook cannot be changed: then the next pool does it.
pub(crate) fn install_hook() {
    // A forked child inherits the hook, but perhaps a lock that nobody will ever release.
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
            // Afterwards: the hook may wait for a task, which is run in place, and that leaves no note behind.
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

/// Runs user code; a panic comes back as the error that describes it.
pub(crate) fn catch<T>(f: impl FnOnce() -> T) -> Result<T, TaskPanic> {
    // A note of a panic that was caught elsewhere must not pass for one of `f`, which may raise a payload without the hook.
    forget_note();
    // What `f` captured is consumed by it, so nothing half-changed can be seen through it afterwards; state
    // that it shares with others is its author's, exactly as with `std::thread::spawn`.
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
