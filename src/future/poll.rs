//! The caller's half as a `std::future::Future`: awaitable in any runtime, because all it needs is a waker.
//!
//! The first poll that finds the task unfinished leaves a boxed waker in the state word; the resolver takes it out
//! and wakes it. A later poll with another waker takes the box back first, so no waker is ever changed while
//! somebody may be using it, and none is lost: where the box is gone, the outcome is there.

#![allow(unsafe_code)]

use std::future::Future;
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll, Waker};

use super::Source;
use super::handle::{CancelOnDrop, TaskFuture};
use super::waiter::Waiter;
use crate::error::TaskError;
use crate::unwind;

/// A waker that waits for one task.
#[repr(C)]
pub(super) struct WakerWaiter {
    waiter: Waiter,
    waker: Waker,
}

impl WakerWaiter {
    fn new(waker: Waker) -> Box<Self> {
        Box::new(Self { waiter: Waiter::new(Self::notify), waker })
    }

    pub(super) fn into_waiter(self: Box<Self>) -> NonNull<Waiter> {
        NonNull::from(Box::leak(self)).cast()
    }

    /// # Safety
    /// `waiter` came from [`into_waiter`](Self::into_waiter), and nobody else will use it.
    pub(super) unsafe fn from_waiter(waiter: NonNull<Waiter>) -> Box<Self> {
        // SAFETY: the caller's contract; `Waiter` is the first field (repr(C)).
        unsafe { Box::from_raw(waiter.cast::<Self>().as_ptr()) }
    }

    unsafe fn notify(waiter: NonNull<Waiter>, _failed: bool, about_to_call: &dyn Fn()) {
        // SAFETY: the resolver took it out of the state word, so it is the resolver's.
        let this = unsafe { Self::from_waiter(waiter) };
        // A waker is the runtime's code; if it panics, the worker that resolves the task must not suffer.
        about_to_call();
        unwind::call_quietly(|| this.waker.wake());
    }
}

impl<T> Future for TaskFuture<T> {
    type Output = Result<T, TaskError>;

    /// # Panics
    ///
    /// If it is polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.is_done() {
            self.poll_in_place(context.waker());
        }
        if self.is_done() {
            return Poll::Ready(self.take_mut());
        }
        let waker = match self.take_waker() {
            Some(old) if old.waker.will_wake(context.waker()) => old,
            Some(mut old) => {
                old.waker.clone_from(context.waker());
                old
            }
            None => WakerWaiter::new(context.waker().clone()),
        };
        match self.set_waker(waker) {
            Ok(()) => Poll::Pending,
            Err(_already_final) => Poll::Ready(self.take_mut()),
        }
    }
}

impl<T> Future for CancelOnDrop<T> {
    type Output = Result<T, TaskError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(self.inner_mut()).poll(context)
    }
}
