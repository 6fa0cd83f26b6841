//! How a thread sleeps until another one wakes it.
//!
//! Every blocking wait of this crate goes through here. A thread sleeps on a parker that is the crate's own, not on the one of
//! [`std::thread::park`], whose token is the user's: a wait that slept there would take a token that was meant for the user's own
//! `park`, and leave one behind when it sees the end before the waker has unparked it.
//!
//! As with `std`, `park` may return for no reason; the waits of one thread, which may be nested, share its parker. So a wait
//! looks at what it waits for in a loop, and again after it has run anything else. [`block_on`](crate::block_on), which has
//! nothing to look at, has a parker for each call.
//!
//! This module is an unsafe island, for the sake of a waker that is known to be this crate's: whoever wakes it runs no code of
//! the user's. Its rule: the data of a waker with [`VTABLE`] is what `Unparker::into_raw` gave, and owns one reference.

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
        /// A thread whose thread-locals are gone: it is about to end, so its std park token can be used.
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

        /// A waker that unparks it.
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

    /// Parks until an unpark or the deadline, or for no reason; false if the deadline has passed before.
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

/// The models have loom's threads, whose tokens nobody else uses.
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

    /// The models know no time: a wait with a deadline has either not begun or ends when it is notified.
    pub(crate) fn park(deadline: Option<Instant>) -> bool {
        if deadline.is_none() {
            thread::park();
        }
        deadline.is_none()
    }
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop_waker);

/// A waker that unparks the thread of that parker, and is known by [`only_unparks`].
pub(super) fn waker(unparker: Handle) -> Waker {
    // SAFETY: the functions of the vtable keep the contract of `RawWaker`; the reference goes into the waker.
    unsafe { Waker::from_raw(RawWaker::new(Handle::into_raw(unparker), &VTABLE)) }
}

/// Whether this waker is one of [`waker`]: to wake it, or to drop it, runs none of the user's code.
pub(crate) fn only_unparks(waker: &Waker) -> bool {
    ptr::eq(waker.vtable(), &VTABLE)
}

unsafe fn borrowed(data: *const ()) -> ManuallyDrop<Handle> {
    // SAFETY: the rule of this module. The reference stays the waker's.
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
