//! Waiters for the end of a task: a blocked thread, a `Waker`, or a set that collects completions. The resolver treats all of
//! them alike, as a [`Waiter`] that is notified once.
//!
//! Contract (the rules that the unsafe code of this folder and of `combine` relies on):
//! 1. The address of a waiter is a multiple of [`Waiter::ALIGN`]. It is registered in at most one task, by the owner of that
//!    task's handle.
//! 2. From registration until it is notified or taken back ([`State::clear_waiter`](super::state::State)), it is neither moved
//!    nor freed.
//! 3. The resolver notifies it exactly once, after the outcome is published, and does not access it after `notify` returns;
//!    `notify` itself may free it.

use std::ptr::NonNull;
use std::time::Instant;

use super::park::{Unparker, park};
use crate::sync::atomic::{AtomicBool, Ordering::*};

/// Notifies a waiter: see [`Waiter::notify`].
pub(crate) type Notify = unsafe fn(NonNull<Waiter>, failed: bool, about_to_call: &dyn Fn());

/// The first field of every waiter.
#[repr(C)]
pub(crate) struct Waiter {
    notify: Notify,
}

impl Waiter {
    /// The alignment of waiters (rule 1), which leaves room for the tags of the state word.
    pub(crate) const ALIGN: usize = 64;

    pub(crate) const fn new(notify: Notify) -> Self {
        Self { notify }
    }

    /// `about_to_call` is called before any user code runs, such as a waker or a destructor.
    ///
    /// # Safety
    /// The caller is the resolver and has taken `waiter` out of the state word (rule 3).
    #[allow(unsafe_code)]
    pub(super) unsafe fn notify(waiter: NonNull<Waiter>, failed: bool, about_to_call: &dyn Fn()) {
        // SAFETY: by rule 2 the waiter is alive until it is notified, which happens here and once.
        unsafe { (waiter.as_ref().notify)(waiter, failed, about_to_call) }
    }
}

/// A thread that blocks on one task. The value is on that thread's stack.
#[repr(C, align(64))]
pub(super) struct ThreadWaiter {
    waiter: Waiter,
    thread: Unparker,
    notified: AtomicBool,
}

const _: () = assert!(align_of::<ThreadWaiter>() == Waiter::ALIGN);

impl ThreadWaiter {
    pub(super) fn new() -> Self {
        Self { waiter: Waiter::new(Self::notify), thread: Unparker::current(), notified: AtomicBool::new(false) }
    }

    pub(super) fn as_waiter(&self) -> *mut Waiter {
        (&raw const *self).cast::<Waiter>().cast_mut()
    }

    /// Blocks until the task has notified this waiter, or until the deadline; returns whether it was notified. Before each time
    /// it parks it calls `meanwhile`, which may advance the task, and returns whether it did.
    pub(super) fn wait(&self, deadline: Option<Instant>, meanwhile: &dyn Fn() -> bool) -> bool {
        loop {
            // Acquire pairs with the Release of `notify`: the notifier no longer uses this waiter.
            if self.notified.load(Acquire) {
                return true;
            }
            if !is_past(deadline) && meanwhile() {
                continue;
            }
            if !park(deadline) {
                return self.notified.load(Acquire);
            }
        }
    }

    #[allow(unsafe_code)]
    unsafe fn notify(waiter: NonNull<Waiter>, _failed: bool, _about_to_call: &dyn Fn()) {
        // SAFETY: `waiter` is the first field of a `ThreadWaiter` (repr(C)), alive by rule 2.
        let this = unsafe { waiter.cast::<Self>().as_ref() };
        // Once the flag is set the waiting thread may return and its stack frame be reused, so the unparker is cloned before.
        let thread = this.thread.clone();
        this.notified.store(true, Release);
        thread.unpark();
    }
}

/// Has the deadline passed?
pub(crate) fn is_past(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|deadline| deadline <= Instant::now())
}
