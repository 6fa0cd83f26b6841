//! The runner's half of a task: the entry in an executor's queue.

#![allow(unsafe_code)]

use std::fmt;
use std::mem;
use std::ptr::NonNull;
use std::sync::Arc;

use super::cell::{self, Header, Owner};
use super::handle::TaskFuture;
use super::inline_wait::InlineWait;
use super::offload::Offload;
use crate::error::TaskError;
use crate::quiet;
use crate::stack::{self, NoRoom};

/// Makes the two halves of a task, in one allocation.
pub(crate) fn task<F, T, O>(work: F, owner: O) -> (Task, TaskFuture<T>)
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
    O: Owner,
{
    // SAFETY: both types are `'static`.
    unsafe { borrowing_task(work, owner) }
}

/// [`task()`] for a closure that borrows.
///
/// # Safety
/// The task has been run, claimed, cancelled or failed, and `Owner::released` has been called, before anything that
/// the closure or its result borrows ends.
pub(crate) unsafe fn borrowing_task<F, T, O>(work: F, owner: O) -> (Task, TaskFuture<T>)
where
    F: FnOnce() -> T + Send,
    T: Send,
    O: Owner,
{
    let cell = cell::pending(work, owner);
    // SAFETY: `pending` counts two references; these are they.
    (Task(cell), unsafe { TaskFuture::from_cell(cell) })
}

/// A task that waits to be run. Dropping it resolves its future to [`TaskError::Abandoned`].
///
/// Cancelled tasks, and those that a waiter has claimed, stay in the queue as empty shells; running a shell does nothing.
pub(crate) struct Task(NonNull<Header>);

// SAFETY: a task owns its closure, which is `Send` (bound of `borrowing_task`), and its state is an atomic word.
unsafe impl Send for Task {}

impl Task {
    /// # Safety
    /// The caller gives a runner's reference to the new half.
    pub(super) unsafe fn from_cell(cell: NonNull<Header>) -> Self {
        Self(cell)
    }

    /// The task as an address, for [`from_raw`](Self::from_raw).
    #[inline]
    pub(crate) fn into_raw(self) -> NonNull<()> {
        self.into_cell().cast()
    }

    /// # Safety
    /// The address comes from [`into_raw`](Self::into_raw), and is converted back only once.
    #[inline]
    pub(crate) unsafe fn from_raw(raw: NonNull<()>) -> Self {
        Self(raw.cast())
    }

    /// Runs the task, unless it was cancelled or claimed, and resolves its future; returns whether it ran to its end. (A
    /// spawned future is polled once.)
    ///
    /// `about_to_publish(true)` is called when the closure has returned and no user code is left to run, immediately before the
    /// outcome is published; `about_to_publish(false)` if there is user code to run after all: a callback that was added
    /// meanwhile, a waker to wake, a result to drop.
    pub(crate) fn run(self, about_to_publish: &dyn Fn(bool)) -> bool {
        let cell = self.into_cell();
        let mut ran = false;
        // Only the destructor of an outcome whose handle was already dropped can panic here.
        quiet::call(|| {
            // SAFETY: this half's reference goes into the call.
            ran = unsafe { cell::run(cell, about_to_publish) };
        });
        ran
    }

    /// [`run`](Self::run) inside other code, such as another task, which may have little stack left: without enough stack the
    /// task fails.
    pub(crate) fn run_nested(self) {
        let mut task = Some(self);
        let run = || task.take().map(|task| task.run(&|_| ()));
        if stack::deepen(run) == Err(NoRoom) {
            if let Some(task) = task.take() {
                task.fail(TaskError::TooDeep);
            }
        }
    }

    /// Cancels the task if it has not started.
    pub(crate) fn cancel(self) {
        // SAFETY: this half's reference, which lasts until `self` is dropped.
        unsafe { cell::cancel(self.0) };
        self.discard();
    }

    /// Resolves the task with an error if it has not started.
    pub(crate) fn fail(self, error: TaskError) {
        // SAFETY: this half's reference, which lasts until `self` is dropped.
        unsafe { cell::fail(self.0, error) };
        self.discard();
    }

    /// True if the task has been claimed, cancelled or failed, so that there is nothing left to run.
    pub(crate) fn is_shell(&self) -> bool {
        // SAFETY: this half's reference.
        unsafe { cell::is_shell(self.0) }
    }

    /// Gives up a task that is an empty shell.
    pub(crate) fn discard(self) {
        let cell = self.into_cell();
        // SAFETY: this half's reference is given up, once.
        quiet::call(|| unsafe { cell::discard(cell) });
    }

    fn into_cell(self) -> NonNull<Header> {
        let cell = self.0;
        mem::forget(self);
        cell
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        Task(self.0).fail(TaskError::Abandoned);
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Task").field(&self.0).finish()
    }
}

/// A task that one thread has claimed for another thread to run: see `offload`. Dropping it resolves its future to
/// [`TaskError::Abandoned`].
pub(crate) struct Claimed(NonNull<Header>);

// SAFETY: as `Task`.
unsafe impl Send for Claimed {}

impl Claimed {
    /// # Safety
    /// The caller has claimed the task (`cell::claim_for_spare`), and gives the claim to the new value.
    pub(super) unsafe fn new(cell: NonNull<Header>) -> Self {
        Self(cell)
    }

    /// Runs the task for the wait that `offload` belongs to. The rest is as in [`Task::run`].
    pub(crate) fn run(self, offload: &Arc<Offload>, about_to_publish: &dyn Fn(bool)) -> bool {
        let cell = self.into_cell();
        let mut ran = false;
        let wait = InlineWait::of_spare(offload);
        // SAFETY: the claim goes into the call.
        quiet::call(|| ran = unsafe { cell::run_claimed(cell, &wait, about_to_publish) });
        ran
    }

    /// Resolves the task with an error without running it.
    pub(crate) fn fail(self, error: TaskError) {
        let cell = self.into_cell();
        // SAFETY: the claim goes into the call.
        quiet::call(|| unsafe { cell::fail_claimed(cell, error) });
    }

    fn into_cell(self) -> NonNull<Header> {
        let cell = self.0;
        mem::forget(self);
        cell
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        Claimed(self.0).fail(TaskError::Abandoned);
    }
}

impl fmt::Debug for Claimed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Claimed").field(&self.0).finish()
    }
}
