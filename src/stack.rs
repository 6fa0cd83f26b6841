//! Stack space for nested calls: a task that is run inside a wait, a callback that resolves another future, a destructor that
//! drops the next handle.
//!
//! [`deepen`] runs a closure where there is room for it: on the stack that the thread is on, unless less than the red zone is
//! left of it; then on a new segment, which is mapped for the call and unmapped after it. So nesting is bounded by memory. The
//! check reads only one thread-local and the stack pointer. Segments come from the `stacker` crate (feature `deep-stacks`);
//! without it, and on targets that it does not support, there is only the thread's own stack.
//!
//! What the unsafe code relies on: the attributes of a thread are read only if they were written, and are destroyed.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::mem::MaybeUninit;
#[cfg(feature = "deep-stacks")]
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// If less than this is left of a stack, the next level runs on a new segment; so one level of user code has at least this
/// much. At most an eighth of a thread's own stack, so that small stacks can be used too.
const RED_ZONE: usize = 256 << 10;
const LEAST_RED_ZONE: usize = 16 << 10;

/// The default stack size of a thread. Untouched pages cost nothing.
#[cfg(feature = "deep-stacks")]
const SEGMENT: usize = 2 << 20;

/// The assumed size of a stack below the first address seen of it, if its bounds are unknown.
const UNKNOWN: usize = 512 << 10;

/// A limit that no stack pointer exceeds: the limit of the thread has not been determined yet.
const UNSEEN: usize = usize::MAX;

thread_local! {
    /// Below this address there is no room for another level. Neither this nor the next has a destructor or lazy
    /// initialization.
    static LIMIT: Cell<usize> = const { Cell::new(UNSEEN) };
    /// The lowest address of the segment that the thread is on, or 0. A signal handler reads it.
    #[cfg(feature = "deep-stacks")]
    static SEGMENT_LOW: Cell<usize> = const { Cell::new(0) };
}

/// There is no room for another level, and no segment can be mapped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoRoom;

/// Runs `f` on a stack with room for it. If there is none, `f` is not run.
#[inline]
pub(crate) fn deepen<R>(f: impl FnOnce() -> R) -> Result<R, NoRoom> {
    if has_room() {
        return Ok(f());
    }
    let (mut f, mut result) = (Some(f), None);
    deepen_cold(&mut || result = f.take().map(|f| f()))?;
    Ok(result.expect("it was run"))
}

/// [`deepen`] for code that has to run in any case: without room it still runs, and may overflow the stack.
#[inline]
pub(crate) fn deepen_if_possible<R>(f: impl FnOnce() -> R) -> R {
    if has_room() {
        return f();
    }
    let (mut f, mut result) = (Some(f), None);
    let mut once = || result = f.take().map(|f| f());
    if deepen_cold(&mut once) == Err(NoRoom) {
        once();
    }
    result.expect("it was run")
}

/// The lowest address of the segment that this thread is on, if it is on one. May be called by a signal handler.
#[cfg(all(feature = "process", target_os = "linux", not(loom)))]
pub(crate) fn segment() -> Option<usize> {
    #[cfg(feature = "deep-stacks")]
    return Some(SEGMENT_LOW.get()).filter(|low| *low != 0);
    #[cfg(not(feature = "deep-stacks"))]
    None
}

#[inline(always)]
fn has_room() -> bool {
    // The threads of a loom model have stacks of loom's own and no deep nesting. Miri's stack is unbounded.
    cfg!(any(loom, miri)) || here() > LIMIT.get()
}

/// Approximately the stack pointer.
#[inline(always)]
fn here() -> usize {
    let marker = MaybeUninit::<u8>::uninit();
    marker.as_ptr().addr()
}

#[cold]
#[inline(never)]
fn deepen_cold(f: &mut dyn FnMut()) -> Result<(), NoRoom> {
    if LIMIT.get() == UNSEEN {
        LIMIT.set(limit());
        if has_room() {
            f();
            return Ok(());
        }
    }
    grow(f)
}

/// The limit of the calling thread's own stack.
fn limit() -> usize {
    let here = here();
    match lowest() {
        Some(low) => low + (here.saturating_sub(low) / 8).clamp(LEAST_RED_ZONE, RED_ZONE),
        None => here.saturating_sub(UNKNOWN),
    }
}

#[cfg(feature = "deep-stacks")]
fn lowest() -> Option<usize> {
    stacker::remaining_stack().map(|left| here() - left)
}

#[cfg(all(not(feature = "deep-stacks"), target_os = "linux"))]
fn lowest() -> Option<usize> {
    // SAFETY: the attributes are read only if they were written, and are destroyed.
    unsafe {
        let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
        if libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) != 0 {
            return None;
        }
        let (mut low, mut size) = (std::ptr::null_mut(), 0);
        let is_known = libc::pthread_attr_getstack(attributes.as_ptr(), &mut low, &mut size) == 0;
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        // A coroutine has a stack that the system does not know about.
        (is_known && (low.addr()..low.addr() + size).contains(&here())).then_some(low.addr())
    }
}

#[cfg(all(not(feature = "deep-stacks"), not(target_os = "linux")))]
fn lowest() -> Option<usize> {
    None
}

/// Runs `f` on a new segment.
#[cfg(feature = "deep-stacks")]
fn grow(f: &mut dyn FnMut()) -> Result<(), NoRoom> {
    let mut started = false;
    // Without memory for a segment `stacker` panics, before it calls the closure.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        stacker::grow(SEGMENT, || {
            // If stacks cannot be switched, this is still the old one.
            let Some(left) = stacker::remaining_stack().filter(|left| *left > SEGMENT / 2) else { return };
            started = true;
            let low = here() - left;
            let _back = Back { limit: LIMIT.replace(low + RED_ZONE), segment: SEGMENT_LOW.replace(low) };
            f();
        });
    }));
    match outcome {
        Ok(()) if started => Ok(()),
        Err(panic) if started => resume_unwind(panic),
        Ok(()) | Err(_) => Err(NoRoom),
    }
}

#[cfg(not(feature = "deep-stacks"))]
fn grow(_: &mut dyn FnMut()) -> Result<(), NoRoom> {
    Err(NoRoom)
}

/// Restores the values for the stack that the thread was on before.
#[cfg(feature = "deep-stacks")]
struct Back {
    limit: usize,
    segment: usize,
}

#[cfg(feature = "deep-stacks")]
impl Drop for Back {
    fn drop(&mut self) {
        LIMIT.set(self.limit);
        SEGMENT_LOW.set(self.segment);
    }
}
