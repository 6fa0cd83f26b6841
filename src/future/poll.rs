//! The caller's half as a `std::future::Future`. It needs only a waker, so any runtime can await it.
//!
//! The first poll that finds the task unfinished stores a boxed waker in the state word; the resolver takes it out and wakes
//! it. A later poll with another waker first takes the box back, so a waker is never changed while another thread may use it,
//! and none is lost: if the box has been taken, the outcome has been published.

#![allow(unsafe_code)]

use std::alloc::{self, Layout};
use std::future::Future;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll, Waker};

use super::Source;
use super::deadlock::polls_itself;
use super::handle::{CancelOnDrop, TaskFuture};
use super::park::only_unparks;
use super::waiter::Waiter;
use crate::error::TaskError;
use crate::quiet;

/// A waker that waits for one task.
#[repr(C)]
struct WakerWaiter {
    waiter: Waiter,
    waker: Waker,
    /// The start of the block that contains this.
    block: NonNull<u8>,
}

/// A [`WakerWaiter`] in its own heap block.
///
/// Waiters need a larger alignment than allocators provide by default. For larger ones glibc takes a slow path with a lock that
/// all threads share, and a waker is usually freed by a different thread from the one that made it. So this allocates a
/// slightly longer block and aligns within it.
pub(super) struct WakerBox(NonNull<WakerWaiter>);

// SAFETY: it owns its `WakerWaiter`, of which only the `Waker` can be accessed from outside, and that is `Send`.
unsafe impl Send for WakerBox {}

impl WakerBox {
    /// The alignment that allocators provide by default.
    const FREE: usize = 2 * size_of::<usize>();

    const BLOCK: Layout = {
        let spare = Waiter::ALIGN - Self::FREE;
        match Layout::from_size_align(size_of::<WakerWaiter>() + spare, Self::FREE) {
            Ok(layout) => layout,
            Err(_) => panic!("a small number of bytes"),
        }
    };

    fn new(waker: Waker) -> Self {
        // SAFETY: the layout is not of size zero.
        let block = unsafe { alloc::alloc(Self::BLOCK) };
        let Some(block) = NonNull::new(block) else { alloc::handle_alloc_error(Self::BLOCK) };
        let before = block.addr().get().wrapping_neg() % Waiter::ALIGN;
        // SAFETY: the block is aligned to `FREE`, so at most `spare` bytes are skipped.
        let place = unsafe { block.add(before) }.cast::<WakerWaiter>();
        // SAFETY: aligned, within the block, and not shared.
        unsafe { place.write(WakerWaiter { waiter: Waiter::new(Self::notify), waker, block }) };
        Self(place)
    }

    fn waker(&self) -> &Waker {
        // SAFETY: owned, and alive until it is dropped or given away.
        unsafe { &self.0.as_ref().waker }
    }

    fn set_waker(&mut self, waker: &Waker) {
        // SAFETY: as above.
        unsafe { self.0.as_mut().waker.clone_from(waker) };
    }

    pub(super) fn into_waiter(self) -> NonNull<Waiter> {
        ManuallyDrop::new(self).0.cast()
    }

    /// # Safety
    /// `waiter` came from [`into_waiter`](Self::into_waiter), and is not used by any other code afterwards.
    pub(super) unsafe fn from_waiter(waiter: NonNull<Waiter>) -> Self {
        // `Waiter` is the first field (repr(C)).
        Self(waiter.cast())
    }

    /// Frees the memory and returns the waker.
    fn into_waker(self) -> Waker {
        let place = ManuallyDrop::new(self).0;
        // SAFETY: owned, and not used again; the block was allocated with that layout.
        unsafe {
            let WakerWaiter { waker, block, .. } = place.read();
            alloc::dealloc(block.as_ptr(), Self::BLOCK);
            waker
        }
    }

    unsafe fn notify(waiter: NonNull<Waiter>, _failed: bool, about_to_call: &dyn Fn()) {
        // SAFETY: the resolver took it out of the state word, so it belongs to the resolver.
        let this = unsafe { Self::from_waiter(waiter) };
        // A waker is the runtime's code; its panic must not affect the worker that resolves the task.
        if !only_unparks(this.waker()) {
            about_to_call();
        }
        quiet::call(|| this.into_waker().wake());
    }
}

impl Drop for WakerBox {
    fn drop(&mut self) {
        drop(Self(self.0).into_waker());
    }
}

impl<T> Future for TaskFuture<T> {
    type Output = Result<T, TaskError>;

    /// Polled by its own task (a spawned future, or a `block_on` inside the task), it is ready with
    /// [`TaskError::WouldDeadlock`]; the handle can still be used.
    ///
    /// The first poll may spin for up to 2 µs before it returns `Pending`, if a CPU is free and spinning has recently succeeded
    /// on this thread, because registering a waker and being woken costs more.
    ///
    /// # Panics
    ///
    /// If it is polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.is_done() {
            self.poll_in_place(context.waker());
        }
        if self.is_done() || !self.has_waker() && self.spin_before_pending() {
            return Poll::Ready(self.take_mut());
        }
        let waker = match self.take_waker() {
            Some(old) if old.waker().will_wake(context.waker()) => old,
            _ if polls_itself(self.address(), context.waker()) => {
                return Poll::Ready(Err(TaskError::WouldDeadlock));
            }
            Some(mut old) => {
                old.set_waker(context.waker());
                old
            }
            None => WakerBox::new(context.waker().clone()),
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
