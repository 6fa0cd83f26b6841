//! How a thread sleeps until another one wakes it.
//!
//! Every blocking wait of this crate goes through here. A thread sleeps on this crate's own parker, not in
//! [`std::thread::park`], whose token belongs to the user: a wait that slept there would consume a token meant for the user's
//! own `park`, and would leave one behind if it saw the end of the task before the unpark.
//!
//! As with `std`, `park` may return spuriously, and the waits of one thread, which may be nested, share its parker. So a wait
//! checks its condition in a loop, and again after it has run any other code. [`block_on`](crate::block_on), which has no
//! condition to check, has a parker for each call.
//!
//! This module is an unsafe island because it makes a waker that can be recognized as this crate's, so that waking it is known
//! to run no user code. Its rule: the data of a waker with [`VTABLE`] is what `Unparker::into_raw` gave, and owns one
//! reference.

#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::ptr;
use std::task::{RawWaker, RawWakerVTable, Waker};

use crossbeam::sync::Unparker as Handle;

pub(crate) use imp::{Unparker, park};

#[cfg(not(loom))]
mod imp {
    use std::sync::Arc;
    use std::task::{Wake, Waker};
    use std::thread::{self, Thread};
    use std::time::Instant;

    use crossbeam::sync::{Parker, Unparker as Handle};

    use super::super::waiter::is_past;

    thread_local! {
        static PARKER: Parker = Parker::new();
    }

    /// A thread that can be woken when it parks.
    #[derive(Debug, Clone)]
    pub(crate) enum Unparker {
        Parked(Handle),
        /// A thread whose thread-locals have been destroyed: it is about to end, so its std park token can be used.
        Ending(Thread),
    }

    impl Unparker {
        pub(crate) fn current() -> Self {
            let parked = PARKER.try_with(|parker| Self::Parked(parker.unparker().clone()));
            parked.unwrap_or_else(|_| Self::Ending(thread::current()))
        }

        pub(crate) fn unpark(&self) {
            match self {
                Self::Parked(unparker) => unparker.unpark(),
                Self::Ending(thread) => thread.unpark(),
            }
        }

        /// A waker that unparks this thread.
        pub(crate) fn into_waker(self) -> Waker {
            match self {
                Self::Parked(unparker) => super::waker(unparker),
                ending @ Self::Ending(_) => Waker::from(Arc::new(ending)),
            }
        }
    }

    impl Wake for Unparker {
        fn wake(self: Arc<Self>) {
            self.unpark();
        }
    }

    /// Parks until an unpark or the deadline; may return spuriously. Returns `false`, without parking, if the deadline has
    /// already passed.
    pub(crate) fn park(deadline: Option<Instant>) -> bool {
        if is_past(deadline) {
            return false;
        }
        let parked = PARKER.try_with(|parker| match deadline {
            None => parker.park(),
            Some(deadline) => parker.park_deadline(deadline),
        });
        if parked.is_err() {
            match deadline {
                None => thread::park(),
                Some(deadline) => thread::park_timeout(deadline.saturating_duration_since(Instant::now())),
            }
        }
        true
    }
}

/// The models use loom's threads, whose tokens no other code uses.
#[cfg(loom)]
mod imp {
    use std::sync::Arc;
    use std::task::{Wake, Waker};
    use std::time::Instant;

    use crate::sync::thread::{self, Thread};

    #[derive(Debug, Clone)]
    pub(crate) struct Unparker(Thread);

    impl Unparker {
        pub(crate) fn current() -> Self {
            Self(thread::current())
        }

        pub(crate) fn unpark(&self) {
            self.0.unpark();
        }

        pub(crate) fn into_waker(self) -> Waker {
            Waker::from(Arc::new(self))
        }
    }

    impl Wake for Unparker {
        fn wake(self: Arc<Self>) {
            self.unpark();
        }
    }

    /// The models have no clock: every deadline counts as passed.
    pub(crate) fn park(deadline: Option<Instant>) -> bool {
        if deadline.is_none() {
            thread::park();
        }
        deadline.is_none()
    }
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop_waker);

/// A waker that unparks the thread of that parker, and is recognized by [`only_unparks`].
pub(super) fn waker(unparker: Handle) -> Waker {
    // SAFETY: the functions of the vtable keep the contract of `RawWaker`; the reference goes into the waker.
    unsafe { Waker::from_raw(RawWaker::new(Handle::into_raw(unparker), &VTABLE)) }
}

/// Whether this waker is one of [`waker`]: waking or dropping it runs no user code.
pub(crate) fn only_unparks(waker: &Waker) -> bool {
    ptr::eq(waker.vtable(), &VTABLE)
}

unsafe fn borrowed(data: *const ()) -> ManuallyDrop<Handle> {
    // SAFETY: the rule of this module. The reference still belongs to the waker.
    ManuallyDrop::new(unsafe { Handle::from_raw(data) })
}

unsafe fn clone(data: *const ()) -> RawWaker {
    // SAFETY: the data of a waker that is alive.
    let unparker = unsafe { borrowed(data) };
    RawWaker::new(Handle::into_raw(Handle::clone(&unparker)), &VTABLE)
}

unsafe fn wake(data: *const ()) {
    // SAFETY: the waker is consumed, and its reference with it.
    unsafe { Handle::from_raw(data) }.unpark();
}

unsafe fn wake_by_ref(data: *const ()) {
    // SAFETY: the data of a waker that is alive.
    unsafe { borrowed(data) }.unpark();
}

unsafe fn drop_waker(data: *const ()) {
    // SAFETY: the waker is consumed, and its reference with it.
    drop(unsafe { Handle::from_raw(data) });
}
