//! The runner's half of a task that is done elsewhere: what comes back is raw material of some type `C`, which is turned
//! into the task's value when it arrives. The half itself is two words, whatever the type of the value.

#![allow(unsafe_code)]

use std::fmt;
use std::mem;
use std::ptr::NonNull;

use super::cell::{self, Header, Owner};
use super::handle::TaskFuture;
use super::state::{Phase, Start};
use crate::error::TaskError;
use crate::unwind;

/// A task whose outcome is made of a `C`. Dropping it resolves its future to [`TaskError::Abandoned`].
pub(crate) struct RemoteTask<C: 'static> {
    cell: NonNull<Header>,
    calls: &'static Calls<C>,
}

struct Calls<C> {
    /// `None` for the raw material: the task is abandoned.
    settle: unsafe fn(NonNull<Header>, bool, Option<C>) -> Option<Phase>,
    publish: unsafe fn(NonNull<Header>, Phase),
}

// SAFETY: the half owns nothing of the task's but the right to write its outcome, whose type is `Send` (bound of `new`);
// its state is an atomic word.
unsafe impl<C> Send for RemoteTask<C> {}

/// How a value is made of raw material.
pub(crate) trait Decode<C>: 'static {
    type Value: Send + 'static;

    fn decode(raw: C) -> Result<Self::Value, TaskError>;
}

impl<C: 'static> RemoteTask<C> {
    /// Makes the two halves, in one allocation. `D` says how the value is made.
    pub(crate) fn new<D: Decode<C>, O: Owner>(owner: O) -> (Self, TaskFuture<D::Value>) {
        const fn calls<D: Decode<C>, O: Owner, C: 'static>() -> &'static Calls<C> {
            &const { Calls { settle: settle::<D, O, C>, publish: cell::publish_later::<D::Value, O> } }
        }
        let cell = cell::promised::<D::Value, O>(owner);
        // SAFETY: `promised` counts two references; these are they.
        (Self { cell, calls: calls::<D, O, C>() }, unsafe { TaskFuture::from_cell(cell) })
    }

    /// True if the future has been cancelled: nothing that comes will be wanted.
    pub(crate) fn is_cancelled(&self) -> bool {
        // SAFETY: this half's reference keeps the cell alive.
        matches!(unsafe { self.cell.as_ref() }.state.phase(), Phase::Cancelled | Phase::Cancelling)
    }

    /// Cancels the task; its callbacks run here.
    pub(crate) fn cancel(self) {
        let cell = self.cell;
        mem::forget(self);
        // A panic can come only from the destructor of what an already dropped handle left behind.
        unwind::call_quietly(|| {
            // SAFETY: this half's reference, which is given up afterwards, once.
            unsafe {
                cell::cancel(cell);
                cell::release(cell);
            }
        });
    }

    /// Makes the outcome, unless the future was cancelled, and resolves the future. If it has callbacks, they are left to
    /// whoever calls [`Unpublished::publish`].
    #[must_use = "a future with callbacks is not resolved yet"]
    pub(crate) fn settle(self, raw: C) -> Option<Unpublished> {
        let (cell, calls) = (self.cell, self.calls);
        mem::forget(self);
        let mut left = None;
        // A panic can come only from the destructor of what an already dropped handle left behind.
        // SAFETY: this half's reference goes into the call; `calls` is of this cell.
        unwind::call_quietly(|| left = unsafe { (calls.settle)(cell, false, Some(raw)) });
        left.map(|phase| Unpublished { cell, phase, publish: calls.publish })
    }
}

unsafe fn settle<D: Decode<C>, O: Owner, C: 'static>(
    cell: NonNull<Header>,
    may_call_back: bool,
    raw: Option<C>,
) -> Option<Phase> {
    // SAFETY: `RemoteTask::new` made the cell with these types; the caller gives the reference.
    unsafe {
        cell::settle_with::<D::Value, O>(cell, may_call_back, |start| match (start, raw) {
            (Start::Lost, raw) => {
                unwind::drop_quietly(raw);
                None
            }
            (Start::Won, None) => Some(Err(TaskError::Abandoned)),
            // Decoding is the user's code.
            (Start::Won, Some(raw)) => {
                Some(unwind::catch(|| D::decode(raw)).unwrap_or_else(|panic| Err(TaskError::Panicked(panic))))
            }
        })
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

/// A future that has its outcome, and callbacks that have to run before anybody may see it.
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
    pub(crate) fn publish(self) {
        drop(self);
    }
}

impl Drop for Unpublished {
    fn drop(&mut self) {
        // SAFETY: the reference and the phase are those that `settle` left.
        unwind::call_quietly(|| unsafe { (self.publish)(self.cell, self.phase) });
    }
}

impl fmt::Debug for Unpublished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Unpublished").field(&self.cell).finish()
    }
}
