//! Which processor the calling thread is on.

#![allow(unsafe_code)]

/// The number of the processor, as of now: the next moment it may be another one. With glibc it is read from memory.
pub(crate) fn current() -> Option<u32> {
    // SAFETY: it has no conditions.
    u32::try_from(unsafe { libc::sched_getcpu() }).ok()
}
