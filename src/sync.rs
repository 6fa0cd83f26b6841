//! The synchronisation primitives of the lock-free parts, in one place: those of `std`, and the lock of `lock`, in every
//! normal build; loom's when the models run (`--cfg loom`), so that the model checker sees each access that is made by way of
//! this module.

#[cfg(not(loom))]
mod imp {
    pub(crate) use crate::lock::Mutex;
    pub(crate) use std::sync::atomic;

    /// `std`'s cell behind the closure interface of loom's, which is what lets loom track every access.
    #[derive(Debug)]
    #[repr(transparent)]
    pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        #[inline(always)]
        pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        #[inline(always)]
        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}

#[cfg(loom)]
mod imp {
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::atomic;
    pub(crate) use loom::thread;

    /// loom's lock behind the interface of `lock`'s.
    #[derive(Debug)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
        }
    }
}

#[cfg(loom)]
pub(crate) use imp::thread;
pub(crate) use imp::{Mutex, UnsafeCell, atomic};
