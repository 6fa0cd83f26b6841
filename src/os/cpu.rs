//! Which processor the calling thread is on.

#![allow(unsafe_code)]

/// The number of the current processor, which may change at any time. With glibc it is read from memory.
pub(crate) fn current() -> Option<u32> {
    // SAFETY: it has no preconditions.
    u32::try_from(unsafe { libc::sched_getcpu() }).ok()
}
