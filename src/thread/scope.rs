//! Tasks that borrow from the caller's stack.
//!
//! This module is an unsafe island: it gives an executor closures that are not `'static`. This is sound because:
//! 1. Every task of a scope is counted before it is queued, and discounted (`Owner::released`) when its closure has been dropped
//!    and the executor will not access its result again.
//! 2. [`scope`] does not return, nor unwind, before the count is 0.
//! 3. A result that is left in a task is dropped by its handle, at the latest (`cell::release_handle`); a handle whose result
//!    borrows cannot outlive what it borrows, by its type.

#![allow(unsafe_code)]

use std::cmp;
use std::collections::BinaryHeap;
use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::*};
use std::time::Duration;

use crate::lock::Mutex;

use super::ThreadPoolExecutor;
use super::core::PoolId;
use crate::combine::AsSource;
use crate::error::{TaskError, TaskPanic};
use crate::executor::Priority;
use crate::future::{LARGE, Owner, Source, SpareHost, TaskFuture, Unparker, borrowing_task, park};
use crate::unwind::{self, AbortOnUnwind};

/// Submits tasks that borrow; created by [`ThreadPoolExecutor::scope`].
pub struct Scope<'scope, 'env: 'scope> {
    pool: &'env ThreadPoolExecutor,
    data: Arc<Data>,
    // Invariance, as for `std::thread::Scope`: neither lifetime may be shortened or lengthened by the user.
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

struct Data {
    pool: PoolId,
    /// Tasks that are not released yet.
    tasks: AtomicUsize,
    /// The thread that waits at the end of the scope.
    thread: Unparker,
    /// How many tasks have been submitted.
    submitted: AtomicUsize,
    /// The handles that were dropped before their task was done: the end of the scope waits for these tasks, and may claim them.
    /// Their lifetime, `'scope`, is erased; the scope does not end before the list is empty for the last time.
    detached: Mutex<BinaryHeap<Entry<'static>>>,
    /// The first panic of a task whose result was not taken.
    panic: Mutex<Option<TaskPanic>>,
}

/// A task's pointer to its scope. It stands for a strong reference until the task is released.
#[derive(Clone, Copy)]
struct ScopeOwner {
    pool: PoolId,
    data: *const Data,
}

// SAFETY: `Data` is `Send` and `Sync`, and the pointer stands for an `Arc` of it.
unsafe impl Send for ScopeOwner {}
// SAFETY: as above.
unsafe impl Sync for ScopeOwner {}

impl Owner for ScopeOwner {
    fn may_claim(self) -> bool {
        self.pool.may_claim()
    }

    fn claimed(self) {
        self.pool.claimed();
    }

    fn shell_left(self) {
        self.pool.shell_left();
    }

    fn shell_gone(self) {
        self.pool.shell_gone();
    }

    fn is_foreign(self) -> bool {
        self.pool.is_foreign()
    }

    fn spare_host(self) -> Option<Arc<dyn SpareHost>> {
        self.pool.spare_host()
    }

    fn released(self) {
        // SAFETY: `submit` leaked this reference for this call, which happens once (rule 1).
        let data = unsafe { Arc::from_raw(self.data) };
        // Release pairs with the Acquire in `wait`: a thread that sees the count sees everything that the task did.
        if data.tasks.fetch_sub(1, Release) == 1 {
            data.thread.unpark();
        }
    }
}

/// The result of a task of a scope. Like a [`TaskFuture`], but bound to the scope: dropping it leaves the task to the end
/// of the scope, which waits for it.
///
/// Do not leak it (`mem::forget`) on a worker of the same pool: the end of the scope cannot run a queued task whose handle was
/// leaked, and waits for another worker to do so.
///
/// It dereferences to `TaskFuture` for all methods that do not consume the handle (`cancel`, `is_done`, ...).
#[must_use = "dropping it leaves the task to the end of the scope; a panic of the task then becomes the scope's"]
pub struct ScopedFuture<'scope, T: Send + 'scope> {
    future: Option<TaskFuture<T>>,
    /// How many tasks were submitted to the scope before.
    number: usize,
    data: Arc<Data>,
    scope: PhantomData<&'scope mut &'scope ()>,
}

/// An entry in the list of dropped handles. The greatest is the one that was submitted first: the end of the scope takes them in
/// the order of submission, not of dropping.
struct Entry<'scope> {
    number: usize,
    handle: Box<dyn Detached + 'scope>,
}

impl Ord for Entry<'_> {
    fn cmp(&self, other: &Self) -> cmp::Ordering {
        other.number.cmp(&self.number)
    }
}

impl PartialOrd for Entry<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Entry<'_> {}

// State behind shared references changes atomically, or under a lock that is not held while user code runs, so a panic cannot
// leave it inconsistent. Only the lifetimes are behind `&mut`, for invariance.
impl UnwindSafe for Scope<'_, '_> {}
impl RefUnwindSafe for Scope<'_, '_> {}
// As above; for the result the same holds as in a `TaskFuture`.
impl<T: Send + UnwindSafe> UnwindSafe for ScopedFuture<'_, T> {}
impl<T: Send + RefUnwindSafe> RefUnwindSafe for ScopedFuture<'_, T> {}

/// A handle that the user has dropped.
trait Detached: Send {
    fn is_done(&self) -> bool;

    /// Claims the task or waits for it; returns its panic, if it panicked.
    fn finish(self: Box<Self>) -> Option<TaskPanic>;
}

impl<T: Send> Detached for TaskFuture<T> {
    fn is_done(&self) -> bool {
        self.is_done()
    }

    fn finish(self: Box<Self>) -> Option<TaskPanic> {
        match (*self).result() {
            Err(TaskError::Panicked(panic)) => Some(panic),
            _ => None,
        }
    }
}

/// Runs `f` with a scope on the pool, and returns when all tasks of the scope have ended.
pub(super) fn scope<'env, F, T>(pool: &'env ThreadPoolExecutor, f: F) -> T
where
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T,
{
    let data = Data {
        pool: pool.core.id(),
        tasks: AtomicUsize::new(0),
        thread: Unparker::current(),
        submitted: AtomicUsize::new(0),
        detached: Mutex::new(BinaryHeap::new()),
        panic: Mutex::new(None),
    };
    let scope = Scope { pool, data: Arc::new(data), scope: PhantomData, env: PhantomData };
    let outcome = catch_unwind(AssertUnwindSafe(|| f(&scope)));
    scope.wait();
    match outcome {
        Err(panic) => resume_unwind(panic),
        Ok(value) => {
            if let Some(panic) = scope.data.panic.lock().take() {
                panic.resume();
            }
            value
        }
    }
}

impl<'scope> Scope<'scope, '_> {
    /// Submits a closure that may borrow what outlives the scope. Like [`ThreadPoolExecutor::submit`], except that a bound on the
    /// queue does not apply. A scope that ends on a worker of the pool runs its queued tasks there, in the order of submission.
    ///
    /// A value declared inside the scope may be dropped before the scope ends, so it can be moved but not borrowed:
    ///
    /// ```compile_fail,E0373
    /// let pool = concurrent_futures::ThreadPoolExecutor::new(1).unwrap();
    /// pool.scope(|scope| {
    ///     let inside = 1;
    ///     scope.submit(|| inside + 1).result()
    /// });
    /// ```
    ///
    /// Nor can a handle leave the scope:
    ///
    /// ```compile_fail
    /// let pool = concurrent_futures::ThreadPoolExecutor::new(1).unwrap();
    /// let escaped = pool.scope(|scope| scope.submit(|| 1));
    /// ```
    pub fn submit<F, T>(&'scope self, f: F) -> ScopedFuture<'scope, T>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        if const { size_of::<F>() > LARGE } {
            return self.submit(Box::new(f) as Box<dyn FnOnce() -> T + Send + 'scope>);
        }
        let core = &self.pool.core;
        // Relaxed: the numbers only have to be in the order in which each thread submits.
        let number = self.data.submitted.fetch_add(1, Relaxed);
        let future = match core.closed_because() {
            Some(reason) => TaskFuture::ready(Err(reason)),
            None => {
                // Relaxed: the count is read by this scope's own thread, or after the Release in `released`.
                self.data.tasks.fetch_add(1, Relaxed);
                let owner = ScopeOwner { pool: self.data.pool, data: Arc::into_raw(Arc::clone(&self.data)) };
                // SAFETY: rules 1 and 2 of this module.
                let (task, future) = unsafe { borrowing_task(f, owner) };
                core.push(task, Priority::Normal);
                future
            }
        };
        ScopedFuture { future: Some(future), number, data: Arc::clone(&self.data), scope: PhantomData }
    }

    /// Blocks until every task has been released. On a worker of the pool, tasks that are still queued are run here.
    fn wait(&self) {
        // Unwinding out of here would let the tasks outlive what they borrow.
        let abort = AbortOnUnwind;
        loop {
            // Acquire pairs with the Release of `released`. Read before the list is: a task that is discounted has dropped the
            // handles that it held, and finishing a handle may submit.
            let tasks = self.data.tasks.load(Acquire);
            if tasks > 0 && self.data.pool.is_elsewhere() {
                // The tasks run in the parent, on the parent's memory. No thread here accesses what they borrow, but their work
                // is not done here.
                mem::forget(abort);
                panic!("the tasks of this scope are not done: {}", TaskError::WrongProcess);
            }
            if self.data.finish_one_detached() {
                continue;
            }
            if tasks == 0 {
                break;
            }
            park(None);
        }
        mem::forget(abort);
    }
}

impl Data {
    /// Keeps the first panic for the end of the scope.
    fn note(&self, panic: Option<TaskPanic>) {
        let Some(panic) = panic else { return };
        let mut first = self.panic.lock();
        if first.is_none() {
            *first = Some(panic);
            return;
        }
        drop(first);
        // Outside the lock: the destructor of a payload is user code.
        drop(panic);
    }

    /// Finishes the dropped handle that was submitted first; false if there is none.
    fn finish_one_detached(&self) -> bool {
        let Some(detached) = self.detached.lock().pop() else { return false };
        self.finish(detached.handle);
        true
    }

    /// Drops the task's result; if its destructor panics, that is noted as a panic too.
    fn finish(&self, detached: Box<dyn Detached + '_>) {
        self.note(unwind::catch(|| detached.finish()).unwrap_or_else(Some));
    }

    /// Takes over a handle that was dropped before its task was done.
    ///
    /// # Safety
    /// The handle must be of this scope, which must not have ended.
    unsafe fn detach(&self, entry: Entry<'_>) {
        // SAFETY: only the lifetime changes. The scope, which is what the handle may borrow from, ends after
        // `finish_one_detached` has found the list empty for the last time.
        let entry = unsafe { mem::transmute::<Entry<'_>, Entry<'static>>(entry) };
        let mut done = Vec::new();
        let mut detached = self.detached.lock();
        // Handles that are done are removed whenever the list is full: its length stays proportional to the unfinished tasks, at
        // an amortized constant cost per handle.
        if detached.len() == detached.capacity() {
            let (ended, running): (Vec<_>, Vec<_>) = detached.drain().partition(|other| other.handle.is_done());
            *detached = running.into();
            detached.reserve(ended.len() + 1);
            done = ended;
        }
        detached.push(entry);
        drop(detached);
        // The end of the scope may be waiting already, on a worker that can run the task.
        self.thread.unpark();
        done.into_iter().for_each(|done| self.finish(done.handle));
    }
}

impl<'scope, T: Send + 'scope> ScopedFuture<'scope, T> {
    /// Blocks until the task is done, and returns what it returned: see [`TaskFuture::result`].
    ///
    /// # Errors
    ///
    /// As for [`TaskFuture::result`].
    pub fn result(mut self) -> Result<T, TaskError> {
        self.take().result()
    }

    /// Like [`result`](Self::result), but waits for at most `timeout`: see [`TaskFuture::result_timeout`].
    ///
    /// # Errors
    ///
    /// The handle itself, if the task is not done in time.
    pub fn result_timeout(mut self, timeout: Duration) -> Result<Result<T, TaskError>, Self> {
        match self.take().result_timeout(timeout) {
            Ok(result) => Ok(result),
            Err(future) => {
                self.future = Some(future);
                Err(self)
            }
        }
    }

    fn take(&mut self) -> TaskFuture<T> {
        self.future.take().expect("the handle is there until it is consumed")
    }

    fn inner(&self) -> &TaskFuture<T> {
        self.future.as_ref().expect("the handle is there until it is consumed")
    }

    fn inner_mut(&mut self) -> &mut TaskFuture<T> {
        self.future.as_mut().expect("the handle is there until it is consumed")
    }
}

impl<'scope, T: Send + 'scope> Deref for ScopedFuture<'scope, T> {
    type Target = TaskFuture<T>;

    fn deref(&self) -> &TaskFuture<T> {
        self.inner()
    }
}

impl<'scope, T: Send + 'scope> AsSource for ScopedFuture<'scope, T> {
    fn source(&self) -> &dyn Source {
        self.inner()
    }

    fn source_mut(&mut self) -> &mut dyn Source {
        self.inner_mut()
    }
}

impl<'scope, T: Send + 'scope> Drop for ScopedFuture<'scope, T> {
    fn drop(&mut self) {
        let Some(future) = self.future.take() else { return };
        let entry = Entry { number: self.number, handle: Box::new(future) };
        if entry.handle.is_done() {
            self.data.finish(entry.handle);
        } else if self.data.pool.is_elsewhere() {
            // A forked child, which is inside that very task: see `wait`.
            drop(entry);
        } else {
            // SAFETY: a `ScopedFuture` cannot outlive its scope, and this one is alive.
            unsafe { self.data.detach(entry) };
        }
    }
}

impl<'scope, T: Send + 'scope> fmt::Debug for ScopedFuture<'scope, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ScopedFuture").field(&self.future).finish()
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("tasks", &self.data.tasks.load(Relaxed)).finish_non_exhaustive()
    }
}
