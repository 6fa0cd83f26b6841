//! The runner's half of a task that runs in another process, which returns an encoded outcome of some type `C` that has to be
//! decoded into the task's value. The half is two words, whatever the type of the value.
//!
//! Decoding may run user code, which may block, or wait for a lock whose holder waits for another task. Therefore the value is
//! decoded by the thread that asks for it (takes it, reads it, or runs a callback with it), and never by the thread that
//! delivers the outcome. If no thread asks, it is never decoded. Values that can be decoded without user code are decoded at
//! once.

#![allow(unsafe_code)]

use std::fmt;
use std::mem;
use std::ptr::NonNull;
use std::sync::OnceLock;

use super::cell::{self, Header, Now, Owner, Stored};
use super::handle::TaskFuture;
use super::state::{Phase, Start};
use crate::error::TaskError;
use crate::fork::{self, Witness};
use crate::lock::Mutex;
use crate::quiet;
use crate::unwind;

/// A task whose outcome is decoded from a `C`. Dropping it resolves its future to [`TaskError::Abandoned`].
pub(crate) struct RemoteTask<C: 'static> {
    cell: NonNull<Header>,
    calls: &'static Calls<C>,
}

struct Calls<C> {
    /// `None` instead of a `C`: the task is abandoned.
    settle: unsafe fn(NonNull<Header>, bool, Option<C>) -> Option<Phase>,
    publish: unsafe fn(NonNull<Header>, Phase),
}

// SAFETY: the half owns only the right to write the task's outcome, whose type is `Send` (bound of `new`); the state is an
// atomic word.
unsafe impl<C> Send for RemoteTask<C> {}

/// How a value is decoded from a `C`.
pub(crate) trait Decode<C>: 'static {
    type Value: Send + 'static;

    /// Does [`decode`](Self::decode) run no user code?
    fn is_plain() -> bool;

    /// Returns the error if the task has failed, otherwise `raw` unchanged. Runs no user code.
    fn check(raw: C) -> Result<C, TaskError>;

    fn decode(raw: C) -> Result<Self::Value, TaskError>;
}

impl<C: Send + 'static> RemoteTask<C> {
    /// Makes the two halves, in one allocation. `D` decodes the value.
    pub(crate) fn new<D: Decode<C>, O: Owner>(owner: O) -> (Self, TaskFuture<D::Value>) {
        let (cell, calls) = if D::is_plain() {
            let calls =
                &const { Calls { settle: settle_now::<D, O, C>, publish: cell::publish_later::<Now<D::Value>, O> } };
            (cell::promised::<Now<D::Value>, O>(owner), calls)
        } else {
            let calls =
                &const { Calls { settle: settle_lazily::<D, O, C>, publish: cell::publish_later::<Lazy<D, C>, O> } };
            (cell::promised::<Lazy<D, C>, O>(owner), calls)
        };
        // SAFETY: `promised` counts two references; these are they.
        (Self { cell, calls }, unsafe { TaskFuture::from_cell(cell) })
    }

    /// True if the future has been cancelled, so that the outcome will not be used.
    #[cfg_attr(loom, allow(dead_code))]
    pub(crate) fn is_cancelled(&self) -> bool {
        // SAFETY: this half's reference keeps the cell alive.
        matches!(unsafe { self.cell.as_ref() }.state.phase(), Phase::Cancelled | Phase::Cancelling)
    }

    /// Cancels the task; its callbacks run here.
    #[cfg_attr(loom, allow(dead_code))]
    pub(crate) fn cancel(self) {
        let cell = self.cell;
        mem::forget(self);
        // Only the destructor of an outcome whose handle was already dropped can panic here.
        quiet::call(|| {
            // SAFETY: this half's reference, which is given up afterwards, once.
            unsafe {
                cell::cancel(cell);
                cell::release(cell);
            }
        });
    }

    /// Makes the outcome, unless the future was cancelled, and resolves the future. If it has callbacks,
    /// [`Unpublished::publish`] runs them and then resolves it.
    #[must_use = "a future with callbacks is not resolved yet"]
    pub(crate) fn settle(self, raw: C) -> Option<Unpublished> {
        let (cell, calls) = (self.cell, self.calls);
        mem::forget(self);
        let mut left = None;
        // Only the destructor of an outcome whose handle was already dropped can panic here.
        // SAFETY: this half's reference goes into the call; `calls` is of this cell.
        quiet::call(|| left = unsafe { (calls.settle)(cell, false, Some(raw)) });
        left.map(|phase| Unpublished { cell, phase, publish: calls.publish })
    }
}

fn decode<D: Decode<C>, C>(raw: C) -> Result<D::Value, TaskError> {
    unwind::catch(|| D::decode(raw)).unwrap_or_else(|panic| Err(TaskError::Panicked(panic)))
}

unsafe fn settle_now<D: Decode<C>, O: Owner, C: Send + 'static>(
    cell: NonNull<Header>,
    may_call_back: bool,
    raw: Option<C>,
) -> Option<Phase> {
    // SAFETY: passed on; `RemoteTask::new` made the cell with these types.
    unsafe { settle_as::<Now<D::Value>, O, C>(cell, may_call_back, raw, |raw| decode::<D, C>(raw).map(Now)) }
}

unsafe fn settle_lazily<D: Decode<C>, O: Owner, C: Send + 'static>(
    cell: NonNull<Header>,
    may_call_back: bool,
    raw: Option<C>,
) -> Option<Phase> {
    // SAFETY: passed on; `RemoteTask::new` made the cell with these types.
    unsafe { settle_as::<Lazy<D, C>, O, C>(cell, may_call_back, raw, |raw| D::check(raw).map(Lazy::new)) }
}

/// # Safety
/// The cell was made for a `V` and an `O`; the caller gives the producer's reference.
unsafe fn settle_as<V: Stored, O: Owner, C>(
    cell: NonNull<Header>,
    may_call_back: bool,
    raw: Option<C>,
    make: impl FnOnce(C) -> Result<V, TaskError>,
) -> Option<Phase> {
    // SAFETY: the caller's contract.
    unsafe {
        cell::settle_with::<V, O>(cell, may_call_back, |start| match (start, raw) {
            (Start::Lost, raw) => {
                quiet::drop(raw);
                None
            }
            (Start::Won, None) => Some(Err(TaskError::Abandoned)),
            (Start::Won, Some(raw)) => Some(make(raw)),
        })
    }
}

/// A value that is decoded by the first thread that asks for it.
struct Lazy<D: Decode<C>, C> {
    raw: Mutex<Raw<C>>,
    outcome: OnceLock<Result<D::Value, TaskError>>,
}

enum Raw<C> {
    There(C),
    /// A thread of that process is decoding the value, or has decoded it.
    Taken(Witness),
}

impl<D: Decode<C>, C> Lazy<D, C> {
    fn new(raw: C) -> Self {
        Self { raw: Mutex::new(Raw::There(raw)), outcome: OnceLock::new() }
    }

    /// In a forked child: returns `true` if the value was being decoded when the process forked, so that it will never be
    /// available.
    #[cold]
    fn is_lost(&self) -> bool {
        /// The lock is held only briefly.
        const ATTEMPTS: usize = 1000;
        for _ in 0..ATTEMPTS {
            if let Some(raw) = self.raw.try_lock() {
                return matches!(&*raw, Raw::Taken(by) if !by.is_here()) && self.outcome.get().is_none();
            }
            std::thread::yield_now();
        }
        true
    }
}

impl<D: Decode<C>, C: Send> Stored for Lazy<D, C> {
    type Value = D::Value;

    const IS_LAZY: bool = true;

    fn take(mut self) -> Result<D::Value, TaskError> {
        if let Some(outcome) = self.outcome.take() {
            return outcome;
        }
        match self.raw.into_inner() {
            Raw::There(raw) => decode::<D, C>(raw),
            // Only possible in a forked child, if the value was being decoded when the process forked.
            Raw::Taken(_) => Err(TaskError::WrongProcess),
        }
    }

    fn get(&self) -> Result<&D::Value, &TaskError> {
        if fork::is_child() && self.is_lost() {
            return Err(&TaskError::WrongProcess);
        }
        let outcome = self.outcome.get_or_init(|| {
            let raw = std::mem::replace(&mut *self.raw.lock(), Raw::Taken(Witness::new()));
            match raw {
                Raw::There(raw) => decode::<D, C>(raw),
                Raw::Taken(_) => Err(TaskError::WrongProcess),
            }
        });
        outcome.as_ref()
    }
}

impl<C> Drop for RemoteTask<C> {
    fn drop(&mut self) {
        // SAFETY: this half's reference goes into the call; `calls` is of this cell.
        let _ = unsafe { (self.calls.settle)(self.cell, true, None) };
    }
}

impl<C> fmt::Debug for RemoteTask<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RemoteTask").field(&self.cell).finish()
    }
}

/// A future that has its outcome, and callbacks that must run before the outcome is published.
#[must_use = "the future is not resolved before `publish`"]
pub(crate) struct Unpublished {
    cell: NonNull<Header>,
    phase: Phase,
    publish: unsafe fn(NonNull<Header>, Phase),
}

// SAFETY: as `RemoteTask`.
unsafe impl Send for Unpublished {}

impl Unpublished {
    /// Runs the callbacks and resolves the future.
    #[cfg_attr(loom, allow(dead_code))]
    pub(crate) fn publish(self) {
        drop(self);
    }
}

impl Drop for Unpublished {
    fn drop(&mut self) {
        // SAFETY: the reference and the phase are those that `settle` left.
        quiet::call(|| unsafe { (self.publish)(self.cell, self.phase) });
    }
}

impl fmt::Debug for Unpublished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Unpublished").field(&self.cell).finish()
    }
}
