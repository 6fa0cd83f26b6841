//! The system's allocator, with counting that can be switched on.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering::Relaxed};

pub(crate) struct Counting;

// Statistics, read by the thread that switches counting on and off: hence Relaxed.
static ON: AtomicBool = AtomicBool::new(false);
static ASKED: AtomicIsize = AtomicIsize::new(0);
static GIVEN: AtomicIsize = AtomicIsize::new(0);

// SAFETY: all calls are passed to `System` unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is that of `System`.
        let block = unsafe { System.alloc(layout) };
        count(block, layout, 1);
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is that of `System`.
        let block = unsafe { System.alloc_zeroed(layout) };
        count(block, layout, 1);
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(block, layout, -1);
        // SAFETY: the caller's contract is that of `System`.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(block, layout, -1);
        // SAFETY: the caller's contract is that of `System`.
        let new = unsafe { System.realloc(block, layout, size) };
        match Layout::from_size_align(size, layout.align()) {
            Ok(layout) if !new.is_null() => count(new, layout, 1),
            _ => count(block, layout, 1),
        }
        new
    }
}

/// While counting is off, this is one load: the same for all contenders.
#[inline]
fn count(block: *mut u8, layout: Layout, sign: isize) {
    if ON.load(Relaxed) && !block.is_null() {
        ASKED.fetch_add(sign * layout.size() as isize, Relaxed);
        GIVEN.fetch_add(sign * chunk(block, layout) as isize, Relaxed);
    }
}

/// The actual size of a block, including the allocator's header.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn chunk(block: *mut u8, _: Layout) -> usize {
    // SAFETY: the block was allocated by malloc, which `System` uses here, and is not freed yet.
    unsafe { libc::malloc_usable_size(block.cast()) + size_of::<usize>() }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn chunk(_: *mut u8, layout: Layout) -> usize {
    layout.size()
}

/// The bytes that `f` allocates and does not free: as requested, and including the allocator's overhead (if known).
pub(crate) fn kept_by<T>(f: impl FnOnce() -> T) -> (T, [f64; 2]) {
    let before = [&ASKED, &GIVEN].map(|sum| sum.load(Relaxed));
    ON.store(true, Relaxed);
    let result = f();
    ON.store(false, Relaxed);
    let after = [&ASKED, &GIVEN].map(|sum| sum.load(Relaxed));
    (result, [after[0] - before[0], after[1] - before[1]].map(|bytes| bytes as f64))
}
