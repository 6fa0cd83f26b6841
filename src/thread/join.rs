//! `join`: runs two closures, in parallel if a worker is free, else one after the other.
//!
//! The second closure is offered as a job on the caller's stack: no allocation is needed. The caller runs the first closure, then
//! takes the second back if no worker has taken it. If a worker (the *thief*) has, the caller helps that worker, and only that
//! one, by taking jobs from its queue. Those are parts of the very job that the caller waits for, because a worker steals only
//! when its own queue of jobs is empty; so, whatever locks the caller holds, it runs only what it waits for anyway.
//! (Leapfrogging: Wagner and Calder, 1993.)
//!
//! This module is an unsafe island. Its rules:
//! 1. A [`JobRef`] points to a [`StackJob`] that is not moved or dropped before it is taken back or its latch says that it has
//!    ended.
//! 2. A `JobRef` is executed or given back at most once: the deque gives each entry to one taker.
//! 3. The thread that does so does not access the job after setting its latch.

#![allow(unsafe_code)]

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering::*};
use std::thread;

use super::worker::Worker;
use crate::current;
use crate::error::TaskError;
use crate::future::park;
use crate::quiet;
use crate::spin;
use crate::unwind::AbortOnUnwind;

/// A type-erased pointer to a job on the stack of a thread.
pub(super) struct JobRef {
    job: *const (),
    execute: unsafe fn(*const (), &Worker),
    give_back: unsafe fn(*const ()),
}

// SAFETY: a `StackJob` may be executed by another thread: its closure and result are `Send` (bounds of `join`).
unsafe impl Send for JobRef {}

impl JobRef {
    pub(super) fn execute(self, worker: &Worker) {
        // SAFETY: rules 1 and 2: the job is alive, and this is its one execution.
        unsafe { (self.execute)(self.job, worker) }
    }

    /// Returns the job to its owner, unexecuted.
    fn give_back(self) {
        // SAFETY: as above; this is instead of its execution.
        unsafe { (self.give_back)(self.job) }
    }
}

const OPEN: u8 = 0;
const SLEEPING: u8 = 1;
const SET: u8 = 2;
/// A worker took the job and gave it back: the owner runs it.
const RETURNED: u8 = 3;

const NOBODY: usize = usize::MAX;

struct StackJob<F, R> {
    f: UnsafeCell<Option<F>>,
    result: UnsafeCell<Option<thread::Result<R>>>,
    latch: AtomicU8,
    /// The number of the worker that took the job.
    thief: AtomicUsize,
    /// The worker on whose stack this job is; it cannot end before the latch is set.
    owner: *const Worker,
}

impl<F, R> StackJob<F, R>
where
    F: FnOnce() -> R + Send,
    R: Send,
{
    fn new(f: F, owner: &Worker) -> Self {
        Self {
            f: UnsafeCell::new(Some(f)),
            result: UnsafeCell::new(None),
            latch: AtomicU8::new(OPEN),
            thief: AtomicUsize::new(NOBODY),
            owner,
        }
    }

    /// # Safety
    /// The caller must uphold rules 1 and 2.
    unsafe fn as_job_ref(&self) -> JobRef {
        JobRef { job: (&raw const *self).cast(), execute: Self::execute, give_back: Self::give_back }
    }

    unsafe fn execute(this: *const (), worker: &Worker) {
        // If a panic escaped from this function, the owner would wait forever.
        let abort = AbortOnUnwind;
        // SAFETY: rule 1.
        let this = unsafe { &*this.cast::<Self>() };
        // Release: the owner may take from the worker's queue of jobs from now on.
        this.thief.store(worker.number, Release);
        // SAFETY: rule 2: no other thread takes the closure.
        let f = unsafe { (*this.f.get()).take() }.expect("a job is executed once");
        let running = current::Running::enter(ptr::from_ref(this).addr());
        let result = catch_unwind(AssertUnwindSafe(f));
        drop(running);
        worker.end_forked_child(result.is_err());
        // SAFETY: the owner reads the result only after the latch is set.
        unsafe { *this.result.get() = Some(result) };
        this.end(SET);
        std::mem::forget(abort);
    }

    unsafe fn give_back(this: *const ()) {
        // SAFETY: rule 1.
        unsafe { &*this.cast::<Self>() }.end(RETURNED);
    }

    /// Tells the owner how the job ended; rule 3 applies from here on.
    fn end(&self, how: u8) {
        // SAFETY: the owner is in `join` as long as the latch is open. After that it may have ended, so the handle that wakes it
        // is cloned before.
        let owner = unsafe { (*self.owner).thread.clone() };
        // AcqRel: publishes the result, and sees whether the owner sleeps.
        if self.latch.swap(how, AcqRel) == SLEEPING {
            owner.unpark();
        }
    }

    /// Whether the job has been executed or given back.
    fn has_ended(&self) -> bool {
        matches!(self.latch.load(Acquire), SET | RETURNED)
    }

    /// Helps the thief, then spins, then sleeps, until the job has ended.
    fn wait(&self, worker: &Worker) {
        while !self.has_ended() {
            // In a forked child there is no thief: it runs the parent's copy of this job.
            assert!(worker.core.is_here(), "nothing can be joined: {}", TaskError::WrongProcess);
            if self.help(worker) || spin::until(|| self.has_ended()) || self.help(worker) {
                continue;
            }
            // AcqRel: as in `end`.
            if self.latch.compare_exchange(OPEN, SLEEPING, AcqRel, Acquire).is_ok() {
                while !self.has_ended() {
                    park(None);
                }
            }
        }
    }

    /// Runs one job from the thief's queue, if there is one.
    fn help(&self, worker: &Worker) -> bool {
        let Some(job) = worker.steal_job_from(self.thief.load(Acquire)) else { return false };
        // As long as this job has not ended, the thief's queue holds only parts of it. If it has ended, the taken job may be part
        // of other work, and is given back.
        if self.has_ended() {
            job.give_back()
        } else {
            job.execute(worker)
        }
        true
    }
}

/// Runs both closures, on this worker or one of them on another, and returns when both have ended.
pub(super) fn join<A, B, RA, RB>(worker: &Worker, a: A, b: B) -> (RA, RB)
where
    A: FnOnce() -> RA,
    B: FnOnce() -> RB + Send,
    RB: Send,
{
    let job = StackJob::new(b, worker);
    worker.join_begins();
    // SAFETY: this function does not return or unwind before it has taken the job back or seen that it has ended.
    worker.own.jobs.push(unsafe { job.as_job_ref() });
    worker.core.notify();
    let first = catch_unwind(AssertUnwindSafe(a));
    // The newest job in the queue, if any, is this one: all jobs that `a` offered have been taken back or stolen, and thieves
    // take the oldest first.
    let taken_back = worker.own.jobs.pop();
    if taken_back.is_none() {
        job.wait(worker);
    }
    worker.join_ends();
    // Both closures run, even if the first panics: the caller may rely on the second as much as on the first.
    let second = match job.result.into_inner() {
        Some(second) => second,
        None => {
            let b = job.f.into_inner().expect("it was taken back, or given back");
            catch_unwind(AssertUnwindSafe(b))
        }
    };
    match (first, second) {
        (Ok(first), Ok(second)) => (first, second),
        (Err(panic), second) => go_on(panic, second),
        (Ok(first), Err(panic)) => go_on(panic, first),
    }
}

/// Resumes a panic. The other closure's result is dropped before: a destructor that panicked during the unwinding would abort the
/// process.
fn go_on(panic: Box<dyn Any + Send>, other: impl Sized) -> ! {
    quiet::drop(other);
    resume_unwind(panic)
}
