//! Whether this process is still the one in which something was made, or one that was forked from it.
//!
//! A forked child has a copy of all memory, but only the thread that called `fork`. A pool of the parent has no workers there,
//! and any lock may be held by a thread that does not exist. So a pool has to detect this before it takes a lock, and cheaply:
//! with one load, since `getpid` is a system call.
//!
//! # Rules
//!
//! 1. Each process that makes a pool, blocks on a future, or is a worker process, has a *mark*: [`Mark::valid`] is true, and is
//!    false in every child that is forked later.
//! 2. On Linux the mark has a page of its own, which the kernel fills with zeros in a child (`MADV_WIPEONFORK`, Linux 4.14).
//!    That holds for every kind of fork, the bare system call included, and before the first instruction of the child.
//!    Everywhere on Unix a `pthread_atfork` handler also clears the marks; it is the only mechanism if the kernel does not
//!    support wiping, and it misses forks that bypass the C library. A child that shares the memory of its parent (`vfork`,
//!    `posix_spawn`) is not distinguished, because its writes go to the parent's memory.
//! 3. A child makes a mark of its own when it first needs one. Marks are never freed.
//! 4. Numbers ([`Origin::number`]) are never given out twice by a process and its ancestors: a mark stores the lowest number
//!    that its process will give out. So a lower number belongs to an ancestor.
//! 5. Nothing here takes a lock.
//!
//! This module is an unsafe island: it calls the C library, and dereferences pointers to marks and to values of [`PerProcess`],
//! all of which were leaked.

#![allow(unsafe_code)]

use std::fmt;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering::*};

use crate::spin;

/// Distinguishes a process from its children. All zero in processes other than the one that made it.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Mark {
    valid: AtomicBool,
    /// Lower numbers were given out by ancestors of this process.
    lowest: AtomicUsize,
}

/// Used as the mark of a process that has made none. It is never cleared: there is nothing yet that a child could inherit.
static NONE: Mark = Mark { valid: AtomicBool::new(true), lowest: AtomicUsize::new(0) };

/// The first mark that this process, or an ancestor, has made.
static FIRST: AtomicPtr<Mark> = AtomicPtr::new((&raw const NONE).cast_mut());

/// The newest one.
static NEWEST: AtomicPtr<Mark> = AtomicPtr::new((&raw const NONE).cast_mut());

/// The next number. In ordinary memory, so a child continues where its parent was.
static NUMBERS: AtomicUsize = AtomicUsize::new(1);

fn follow(mark: &AtomicPtr<Mark>) -> &'static Mark {
    // SAFETY: `NONE`, or a mark that was leaked. Acquire pairs with the Release with which it was stored.
    unsafe { &*mark.load(Acquire) }
}

/// True in a child that was forked from a process that had a mark (rule 1), and in the children of such a child. Three
/// instructions; a signal handler may call it.
#[inline(always)]
pub(crate) fn is_child() -> bool {
    // Relaxed: a fork orders everything, and marks are cleared only by forks.
    cfg!(all(unix, not(loom))) && !follow(&FIRST).valid.load(Relaxed)
}

/// Was this number given out by an ancestor of this process?
#[cold]
pub(crate) fn is_foreign(number: usize) -> bool {
    let mark = follow(&NEWEST);
    is_child() && (!mark.valid.load(Relaxed) || number < mark.lowest.load(Relaxed))
}

/// The process in which something was made, and a unique number.
#[derive(Clone, Copy)]
pub(crate) struct Origin {
    mark: &'static Mark,
    number: usize,
}

impl Origin {
    /// This process.
    pub(crate) fn new() -> Self {
        // The first call of `num_cpus` takes a lock. It is made here, before there is a child that could inherit the lock.
        spin::cpus();
        let mark = mark();
        // Relaxed: it only has to be unique. It is taken after the mark has been made (rule 4).
        Self { mark, number: NUMBERS.fetch_add(1, Relaxed) }
    }

    #[inline(always)]
    pub(crate) fn is_here(&self) -> bool {
        !cfg!(all(unix, not(loom))) || self.mark.valid.load(Relaxed)
    }

    pub(crate) fn number(&self) -> usize {
        self.number
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Origin").field("number", &self.number).field("is_here", &self.is_here()).finish()
    }
}

/// Detects that the current process was forked from the one in which this was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Witness(&'static Mark);

impl Witness {
    pub(crate) fn new() -> Self {
        Self(mark())
    }

    /// Is this still the process that the witness was made in?
    #[inline]
    pub(crate) fn is_here(self) -> bool {
        !cfg!(all(unix, not(loom))) || self.0.valid.load(Relaxed)
    }

    /// Is this a child that was forked since the witness was made, or since this last returned `true`?
    #[inline]
    pub(crate) fn has_forked(&mut self) -> bool {
        let has = !self.is_here();
        if has {
            *self = Self::new();
        }
        has
    }
}

/// Returns the mark of this process, and makes it if there is none.
fn mark() -> &'static Mark {
    if cfg!(any(not(unix), loom)) {
        return &NONE;
    }
    loop {
        let newest = follow(&NEWEST);
        if !ptr::eq(newest, &NONE) && newest.valid.load(Relaxed) {
            return newest;
        }
        let made = ptr::from_ref(system::new_mark(NUMBERS.load(Relaxed))).cast_mut();
        let newest = ptr::from_ref(newest).cast_mut();
        // Stored before `NEWEST`: while `FIRST` is still `NONE`, no pool has a mark.
        let _ = FIRST.compare_exchange((&raw const NONE).cast_mut(), made, AcqRel, Acquire);
        if NEWEST.compare_exchange(newest, made, AcqRel, Acquire).is_ok() {
            return follow(&NEWEST);
        }
    }
}

/// A value that every process has for itself: a forked child makes a new one and does not use the inherited one, whose locks
/// may be held by threads that do not exist.
pub(crate) struct PerProcess<T: 'static>(AtomicPtr<Made<T>>);

struct Made<T> {
    mark: &'static Mark,
    value: T,
}

impl<T: Send + Sync> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// The value of this process. If several threads find none, all of them call `make`, and one value is kept.
    #[inline]
    pub(crate) fn get_or_make(&self, make: impl Fn() -> T) -> &'static T {
        match Self::of_this_process(self.0.load(Acquire)) {
            Some(value) => value,
            None => self.make(make),
        }
    }

    #[inline]
    fn of_this_process(made: *mut Made<T>) -> Option<&'static T> {
        // SAFETY: null, or a box that was leaked in `make`.
        let made = unsafe { made.as_ref() }?;
        (!cfg!(all(unix, not(loom))) || made.mark.valid.load(Relaxed)).then_some(&made.value)
    }

    #[cold]
    fn make(&self, make: impl Fn() -> T) -> &'static T {
        loop {
            let now = self.0.load(Acquire);
            if let Some(value) = Self::of_this_process(now) {
                return value;
            }
            let new = Box::into_raw(Box::new(Made { mark: mark(), value: make() }));
            if self.0.compare_exchange(now, new, AcqRel, Acquire).is_err() {
                // SAFETY: leaked above, and no other thread has seen it.
                drop(unsafe { Box::from_raw(new) });
            }
        }
    }

    pub(crate) fn get(&self) -> &'static T
    where
        T: Default,
    {
        self.get_or_make(T::default)
    }
}

/// Makes [`is_child`] true in every process that is forked from this one from now on, as making a pool does. A worker process
/// calls it before it takes calls.
#[cfg(all(feature = "process", target_os = "linux", not(loom)))]
pub(crate) fn mark_process() {
    mark();
}

/// Ends a forked child in which a closure of its parent's pool has returned: the thread that it has returned to is a copy of a
/// worker of the parent, and would continue with the parent's tasks. No destructor and no exit handler runs. The exit code is
/// 0, or that of a program that has panicked.
#[cold]
pub(crate) fn end_child(panicked: bool) -> ! {
    exit_at_once(if panicked { 101 } else { 0 })
}

/// Ends this process. No destructor and no exit handler runs.
pub(crate) fn exit_at_once(code: std::ffi::c_int) -> ! {
    system::exit(code)
}

/// [`end_child`] if this process is a forked child; nothing otherwise.
#[cfg(all(feature = "process", target_os = "linux", not(loom)))]
#[inline]
pub(crate) fn end_if_child(panicked: bool) {
    if is_child() {
        end_child(panicked);
    }
}

#[cfg(all(unix, not(loom)))]
mod system {
    use std::ffi::c_int;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};

    use super::{FIRST, Mark, NEWEST, NONE, follow};

    unsafe extern "C" {
        fn pthread_atfork(
            prepare: Option<unsafe extern "C" fn()>,
            parent: Option<unsafe extern "C" fn()>,
            child: Option<unsafe extern "C" fn()>,
        ) -> c_int;

        fn _exit(code: c_int) -> !;
    }

    pub(super) fn exit(code: c_int) -> ! {
        // SAFETY: it has no preconditions.
        unsafe { _exit(code) }
    }

    pub(super) fn new_mark(lowest: usize) -> &'static Mark {
        clear_in_children();
        let mark = Mark { valid: AtomicBool::new(true), lowest: AtomicUsize::new(lowest) };
        match wiped_page() {
            Some(page) => {
                // SAFETY: the page is aligned, larger than a mark, leaked, and not shared.
                unsafe {
                    page.write(mark);
                    &*page
                }
            }
            None => Box::leak(Box::new(mark)),
        }
    }

    /// Makes the C library clear the marks in every child.
    fn clear_in_children() {
        static DONE: AtomicBool = AtomicBool::new(false);
        unsafe extern "C" fn clear() {
            for mark in [follow(&FIRST), follow(&NEWEST)] {
                if !std::ptr::eq(mark, &NONE) {
                    mark.valid.store(false, Relaxed);
                }
            }
        }
        // Registering the handler twice is harmless, and each thread registers it before its mark is visible to others.
        if !DONE.load(Acquire) {
            // SAFETY: the handler only stores to leaked memory. Registration can fail only for lack of memory; then there is
            // still the page.
            unsafe { pthread_atfork(None, None, Some(clear)) };
            DONE.store(true, Release);
        }
    }

    /// A page that is all zero in every child, if the system supports such pages.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn wiped_page() -> Option<*mut Mark> {
        use std::alloc::{Layout, alloc, dealloc};
        use std::ffi::c_void;

        unsafe extern "C" {
            fn getpagesize() -> c_int;
            fn madvise(address: *mut c_void, length: usize, advice: c_int) -> c_int;
        }
        /// The same on all architectures that Rust supports.
        const MADV_WIPEONFORK: c_int = 18;

        // SAFETY: it has no preconditions.
        let page = usize::try_from(unsafe { getpagesize() }).ok()?;
        let layout = Layout::from_size_align(page, page).ok()?;
        // SAFETY: the layout is not of size zero. The advice concerns exactly the pages of this block, which is private and
        // anonymous unless the program has an allocator of another kind; then the call fails. If the advice was accepted, the
        // block is never freed, because the advice stays in effect; otherwise it is freed.
        unsafe {
            let block = alloc(layout);
            if block.is_null() {
                return None;
            }
            if madvise(block.cast(), page, MADV_WIPEONFORK) != 0 {
                dealloc(block, layout);
                return None;
            }
            Some(block.cast())
        }
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn wiped_page() -> Option<*mut Mark> {
        None
    }
}

#[cfg(any(not(unix), loom))]
mod system {
    use super::Mark;

    pub(super) fn exit(_code: std::ffi::c_int) -> ! {
        unreachable!("without fork there are no children")
    }

    pub(super) fn new_mark(_lowest: usize) -> &'static Mark {
        unreachable!("without fork one mark is enough")
    }
}

#[cfg(all(test, unix, not(loom)))]
mod tests {
    use super::*;

    unsafe extern "C" {
        fn fork() -> i32;
        fn waitpid(pid: i32, status: *mut i32, options: i32) -> i32;
        fn _exit(code: i32) -> !;
    }

    /// Returns what `f` returns in a forked child.
    fn in_child(f: impl FnOnce() -> bool) -> bool {
        // SAFETY: the child runs code of this module only, which takes no lock but the allocator's, and `_exit`s.
        unsafe {
            let pid = fork();
            assert!(pid >= 0);
            if pid == 0 {
                _exit(i32::from(!f()));
            }
            let mut status = -1;
            assert_eq!(waitpid(pid, &mut status, 0), pid);
            status == 0
        }
    }

    #[test]
    fn a_child_and_its_child_know_that_they_are_others() {
        static VALUE: PerProcess<AtomicUsize> = PerProcess::new();
        let ours = Origin::new();
        assert!(ours.is_here() && !is_child() && !is_foreign(ours.number()));
        VALUE.get().store(7, Relaxed);
        let further = in_child(|| {
            let before = !ours.is_here() && is_child() && is_foreign(ours.number());
            let own = Origin::new();
            let value = VALUE.get().swap(8, Relaxed) == 0;
            let after = own.is_here() && !is_foreign(own.number()) && !ours.is_here() && is_foreign(ours.number());
            let grandchild = in_child(|| {
                !own.is_here() && is_foreign(own.number()) && is_foreign(ours.number()) && Origin::new().is_here()
            });
            before && value && after && grandchild && own.is_here()
        });
        assert!(further);
        assert!(ours.is_here() && !is_child() && VALUE.get().load(Relaxed) == 7);
    }
}
