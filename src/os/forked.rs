//! Whether this process is a forked copy of the one that called [`mark`].
//!
//! What tells is a page that the kernel gives to forked copies empty (`MADV_WIPEONFORK`): one look at memory, where `getpid` is
//! a system call. A kernel without it (before Linux 4.14) is asked for the number of the process.
//!
//! This module is an unsafe island. Its rule: `PAGE` points to an atomic number that lives as long as the process.

#![allow(unsafe_code)]

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering::*};

use rustix::mm::{self, Advice, MapFlags, ProtFlags};

/// In the page: this is the original.
const ORIGINAL: u32 = 1;
/// In the page: only the number of the process can tell.
const ASK: u32 = 2;

/// How a copy ends whose task has panicked: as a Rust program does.
pub(crate) const PANICKED: i32 = 101;

static UNMARKED: AtomicU32 = AtomicU32::new(ORIGINAL);
static WITHOUT_PAGE: AtomicU32 = AtomicU32::new(ASK);

/// The number that says what this process is: one of the two above, or 0 in a copy.
static PAGE: AtomicPtr<AtomicU32> = AtomicPtr::new(ptr::from_ref(&UNMARKED).cast_mut());
/// The process that is marked.
static MARKED: AtomicU32 = AtomicU32::new(0);

/// From now on this process is the original.
pub(crate) fn mark() {
    MARKED.store(std::process::id(), Relaxed);
    let page = page().unwrap_or(&WITHOUT_PAGE);
    // Release: who sees the page sees what is in it.
    PAGE.store(ptr::from_ref(page).cast_mut(), Release);
}

/// A page that says `ORIGINAL` here, and 0 in forked copies.
fn page() -> Option<&'static AtomicU32> {
    let size = rustix::param::page_size();
    // SAFETY: a new mapping, which stays; page-aligned, and zeros are a number.
    unsafe {
        let page =
            mm::mmap_anonymous(ptr::null_mut(), size, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE).ok()?;
        if mm::madvise(page, size, Advice::LinuxWipeOnFork).is_err() {
            let _ = mm::munmap(page, size);
            return None;
        }
        let page = &*page.cast::<AtomicU32>();
        page.store(ORIGINAL, Relaxed);
        Some(page)
    }
}

/// Is this process a copy of the one that was marked?
#[inline]
pub(crate) fn is_copy() -> bool {
    // SAFETY: the module's rule. Acquire: see `mark`.
    let says = unsafe { &*PAGE.load(Acquire) }.load(Relaxed);
    says != ORIGINAL && is_copy_if_asked(says)
}

#[cold]
fn is_copy_if_asked(says: u32) -> bool {
    says != ASK || MARKED.load(Relaxed) != std::process::id()
}

/// Ends this process, if it is a copy, with the given exit code. Nothing that was prepared for the end of the original is
/// done: no destructor, no `atexit` handler, no flush.
#[inline]
pub(crate) fn end_copy(code: i32) {
    if is_copy() {
        // SAFETY: ends the process, and does nothing before.
        unsafe { libc::_exit(code) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How a forked child sees it, with and without the page.
    #[test]
    fn a_forked_child_is_a_copy() {
        assert!(!is_copy(), "nobody is, unless a process is marked");
        mark();
        let page = PAGE.load(Relaxed);
        for says in [page, ptr::from_ref(&WITHOUT_PAGE).cast_mut()] {
            PAGE.store(says, Relaxed);
            assert!(!is_copy());
            // SAFETY: the child makes system calls only.
            let status = unsafe {
                let child = libc::fork();
                if child == 0 {
                    end_copy(7);
                    libc::_exit(1);
                }
                let mut status = 0;
                assert_eq!(libc::waitpid(child, &mut status, 0), child);
                status
            };
            assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7, "{status:x}");
        }
        PAGE.store(ptr::from_ref(&UNMARKED).cast_mut(), Relaxed);
    }
}
