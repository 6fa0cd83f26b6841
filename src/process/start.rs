//! How this same executable becomes a worker before its `main`: see `docs/design/start-hook.md`.
//!
//! What the unsafe code relies on: the signatures and call order of the start code of C libraries, which they cannot change
//! because every linked program depends on them.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int};

use super::{worker, worker_env};
use crate::os::image;

/// A function that the C library calls with the arguments and the environment of the program.
type Start<R> = unsafe extern "C" fn(c_int, *mut *mut c_char, *mut *mut c_char) -> R;

/// Becomes a worker, and does not return, if this process was started as one. Every start of a program that is linked with this
/// crate checks for the variable and for a control socket on standard input; if neither exists, nothing else happens.
fn enter_if_worker(prepare: impl FnOnce()) {
    // SAFETY: the name ends with a zero. Before `main` no thread changes the environment, unless a constructor started one that
    // does; such a program relies on its C library to lock it.
    let is_set = unsafe { !libc::getenv(worker_env::C_NAME.as_ptr()).is_null() };
    // In a shared library this does nothing: the executable, and thus the worker, would be a different program.
    let here: fn() = in_this_image;
    if (is_set || worker::may_be_one()) && image::executable().offset_of(here as usize).is_some() {
        worker::enter_if_worker(prepare);
    }
}

/// Its address shows into which image this file was linked.
fn in_this_image() {}

/// Programs that are dynamically linked. Their start code calls `__libc_start_main` with the address of `main`. The
/// definition here comes before the one in the C library, to which it passes a `main` of its own: when that is called,
/// all constructors have run, those of C++ objects in the executable included.
#[cfg(all(
    any(target_env = "gnu", target_env = "musl"),
    any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"),
    not(target_feature = "crt-static"),
    not(miri)
))]
mod hook {
    use std::ffi::{c_char, c_int, c_void};
    use std::mem;
    use std::process;
    use std::sync::OnceLock;

    use super::Start;

    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    macro_rules! jump(() => { "jmp {start_main}" });
    #[cfg(target_arch = "aarch64")]
    macro_rules! jump(() => { "b {start_main}" });
    #[cfg(target_arch = "riscv64")]
    macro_rules! jump(() => { "tail {start_main}" });

    // Weak, so that it gives way to any other definition: of another version of this crate (which fat LTO puts into the
    // same assembly, hence the condition), or of a C library that is linked statically after all. Hidden, so that a
    // shared library does not offer it to others.
    std::arch::global_asm!(
        ".ifndef __libc_start_main",
        ".pushsection .text.__libc_start_main, \"ax\", %progbits",
        ".p2align 4",
        ".weak __libc_start_main",
        ".hidden __libc_start_main",
        ".type __libc_start_main, %function",
        "__libc_start_main:",
        jump!(),
        ".size __libc_start_main, . - __libc_start_main",
        ".popsection",
        ".endif",
        start_main = sym start_main,
    );

    type Main = Start<c_int>;
    /// The same in glibc on all these architectures. musl ignores what comes after the third argument.
    type StartMain = unsafe extern "C" fn(
        Main,
        c_int,
        *mut *mut c_char,
        *mut c_void,
        *mut c_void,
        *mut c_void,
        *mut c_void,
    ) -> c_int;

    /// The program's own `main`.
    static MAIN: OnceLock<Main> = OnceLock::new();

    /// # Safety
    ///
    /// For the start code only, as `__libc_start_main`.
    unsafe extern "C" fn start_main(
        main: Main,
        argc: c_int,
        argv: *mut *mut c_char,
        init: *mut c_void,
        fini: *mut c_void,
        rtld_fini: *mut c_void,
        stack_end: *mut c_void,
    ) -> c_int {
        // SAFETY: looks up a name. The dynamic loader is ready before any code of the program runs.
        let next = unsafe { libc::dlsym(libc::RTLD_NEXT, c"__libc_start_main".as_ptr()) };
        if next.is_null() || MAIN.set(main).is_err() {
            // The program cannot be started, and there is no way yet to report it.
            process::abort();
        }
        // SAFETY: the next definition of the name is the C library's, or another wrapper that calls it as this one does.
        let next = unsafe { mem::transmute::<*mut c_void, StartMain>(next) };
        // SAFETY: these are the start code's own arguments, but for `main`, whose signature is the same.
        unsafe { next(before_main, argc, argv, init, fini, rtld_fini, stack_end) }
    }

    unsafe extern "C" fn before_main(argc: c_int, argv: *mut *mut c_char, environment: *mut *mut c_char) -> c_int {
        super::enter_if_worker(|| ());
        let main = MAIN.get().expect("set before the C library was asked to call this");
        // SAFETY: called instead of `main`, with the arguments for it.
        unsafe { main(argc, argv, environment) }
    }
}

/// Statically linked programs: there the C library's definition cannot be wrapped by another one, so this is a constructor. The
/// linker chooses its position among the constructors; a worker first runs those that come after it.
#[cfg(all(any(target_env = "gnu", target_env = "musl"), target_feature = "crt-static", not(miri)))]
mod constructor {
    use std::ffi::{c_char, c_int};
    use std::mem;
    use std::ptr;

    use super::Start;

    #[used]
    #[unsafe(link_section = ".init_array")]
    static CONSTRUCTOR: Start<()> = constructor;

    unsafe extern "C" {
        /// The beginning and the end of the table of constructors, defined by the linker.
        static __init_array_start: [usize; 0];
        static __init_array_end: [usize; 0];
    }

    unsafe extern "C" fn constructor(argc: c_int, argv: *mut *mut c_char, environment: *mut *mut c_char) {
        super::enter_if_worker(|| {
            // musl calls constructors without arguments, so there these must not be read.
            let (argc, argv, environment) = if cfg!(target_env = "gnu") {
                (argc, argv, environment)
            } else {
                (0, ptr::null_mut(), ptr::null_mut())
            };
            for later in later_constructors() {
                // SAFETY: the C library would call it next, in the same way. It is not called twice, because a worker does not
                // return.
                unsafe { later(argc, argv, environment) };
            }
        });
    }

    fn later_constructors() -> impl Iterator<Item = Start<()>> {
        let (start, end) = (&raw const __init_array_start, &raw const __init_array_end);
        let count = (end.addr() - start.addr()) / size_of::<usize>();
        // SAFETY: everything between the two is the table, which is not written to any more. The reads are volatile because the
        // compiler does not know how long it is.
        let table = (0..count).map(move |n| unsafe { start.cast::<usize>().add(n).read_volatile() });
        let own: Start<()> = constructor;
        table
            .skip_while(move |&address| address != own as usize)
            .skip(1)
            // Some linkers mark the ends of an old-style table like this.
            .filter(|&address| address != 0 && address != usize::MAX)
            // SAFETY: the other entries are functions of this type.
            .map(|address| unsafe { mem::transmute::<usize, Start<()>>(address) })
    }
}
