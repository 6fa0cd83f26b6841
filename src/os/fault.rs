//! Crash notes: what a process that dies of a signal leaves behind for the process that started it.
//!
//! A [`Note`] is in memory that both share. A signal handler fills it in and then lets the signal take its default action, so
//! the exit status is unchanged. std has a handler for stack overflows, but installs it on the way to `main`, which a worker
//! process does not reach.
//!
//! What the unsafe code relies on:
//! - The handler calls nothing but system calls and atomics, reads thread-locals that need no initialisation, and does
//!   not allocate, lock or panic: it may have interrupted anything, the allocator included.
//! - `NOTE` is null or points to a note that is never freed; it is set before the handler is installed.
//! - An [`AltStack`] stays on the thread that installed it, and its memory is unmapped after the kernel has forgotten
//!   it.
//! - `NAME` is empty, or points to the name of the thread that an [`AltStack`] of this thread keeps.
//! - A note consists of atomics, for which all bit patterns are valid. The other process can corrupt only the text.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering::*};
use std::thread::{self, Thread};

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};

use super::{clock, image};
use crate::fork;
use crate::stack;

/// The description of a process that died, by the signal handler and by the panic hook. All zeros is an empty note.
#[repr(C)]
pub(crate) struct Note {
    crash: Text<512>,
    panic: Text<1024>,
    /// The time of the panic, in nanoseconds of the monotonic clock.
    panicked: AtomicU64,
    /// The time of the latest panic that is known to have been caught.
    survived: AtomicU64,
}

thread_local! {
    /// The time of the latest panic that this thread has noted; 0 if there is none.
    static PANICKED: Cell<u64> = const { Cell::new(0) };
}

impl Note {
    /// What the signal handler wrote, without control characters.
    pub(crate) fn read(&self) -> Option<String> {
        self.crash.read()
    }

    /// What [`set_panic`](Note::set_panic) wrote last, and when (in nanoseconds of the monotonic clock).
    pub(crate) fn read_panic(&self) -> Option<(String, u64)> {
        let text = self.panic.read()?;
        let panicked = self.panicked.load(Relaxed);
        (panicked != self.survived.load(Relaxed)).then_some((text, panicked))
    }

    /// Stores the description of a panic, in case the process dies of it; it replaces the previous one. A forked child shares
    /// this memory, but its panics are not those of the process.
    pub(crate) fn set_panic(&self, text: &str) {
        if fork::is_child() {
            return;
        }
        // Acquire, so that this text is written after the previous one. If another thread is writing now, its text is as
        // recent.
        if self.panic.state.swap(BUSY, Acquire) != BUSY {
            let mut end = text.len().min(self.panic.bytes.len());
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            let mut writer = Writer::new(&self.panic.bytes);
            writer.add(&text.as_bytes()[..end]);
            let now = clock::now();
            self.panicked.store(now, Relaxed);
            self.panic.finish(writer.length);
            PANICKED.set(now);
        }
    }

    /// Notes that the calling thread has caught its last panic. The panic of another thread, which may end the process, is
    /// kept.
    #[cold]
    fn forget_panic(&self) {
        let own = PANICKED.replace(0);
        if own != 0 && self.panicked.load(Relaxed) == own && !fork::is_child() {
            // Keeps the greatest: another thread may have noted and caught a later panic.
            self.survived.fetch_max(own, Relaxed);
        }
    }
}

/// Records that this thread has caught its last panic, so that it is not reported as the reason if the process dies.
#[cold]
pub(crate) fn forget_panic() {
    // SAFETY: the note is never freed. Acquire: see `install`.
    if let Some(note) = unsafe { NOTE.load(Acquire).as_ref() } {
        note.forget_panic();
    }
}

/// The state of a [`Text`] that is being written.
const BUSY: u32 = u32::MAX;

#[repr(C)]
struct Text<const N: usize> {
    /// Zero, [`BUSY`], or the length of the text.
    state: AtomicU32,
    bytes: [AtomicU8; N],
}

impl<const N: usize> Text<N> {
    fn finish(&self, length: usize) {
        // Release: a reader that sees the length sees the bytes.
        self.state.store(length as u32, Release);
    }

    fn read(&self) -> Option<String> {
        // Acquire: see `finish`. The other process wrote the number, so it may have any value.
        let length = match self.state.load(Acquire) {
            0 | BUSY => return None,
            length => N.min(length as usize),
        };
        let bytes: Vec<u8> = self.bytes[..length].iter().map(|byte| byte.load(Relaxed)).collect();
        let text = String::from_utf8_lossy(&bytes);
        // Control characters from a crashed process must not reach a terminal.
        let is_text = |c: &char| !c.is_control() || matches!(c, '\n' | '\t');
        Some(text.chars().filter(is_text).collect())
    }
}

/// Writes text and numbers as far as there is room.
struct Writer<'a> {
    bytes: &'a [AtomicU8],
    length: usize,
}

impl<'a> Writer<'a> {
    fn new(bytes: &'a [AtomicU8]) -> Writer<'a> {
        Writer { bytes, length: 0 }
    }

    fn add(&mut self, text: &[u8]) {
        for (to, &byte) in self.bytes.iter().skip(self.length).zip(text) {
            to.store(byte, Relaxed);
            self.length += 1;
        }
    }

    fn hex(&mut self, number: usize) {
        self.add(b"0x");
        self.digits(number, 16);
    }

    fn digits(&mut self, mut number: usize, base: usize) {
        let mut digits = [b'0'; 20];
        let mut first = digits.len();
        while first == digits.len() || number > 0 {
            first -= 1;
            digits[first] = b"0123456789abcdef"[number % base];
            number /= base;
        }
        self.add(&digits[first..]);
    }
}

/// The note that the handler writes to.
static NOTE: AtomicPtr<Note> = AtomicPtr::new(ptr::null_mut());
/// The process that the note describes. A forked child inherits handler and note.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// The signals of faults, with their names. Most of them end the process.
const SIGNALS: [(c_int, &[u8]); 7] = [
    (libc::SIGSEGV, b"SIGSEGV"),
    (libc::SIGBUS, b"SIGBUS"),
    (libc::SIGILL, b"SIGILL"),
    (libc::SIGFPE, b"SIGFPE"),
    (libc::SIGABRT, b"SIGABRT"),
    (libc::SIGTRAP, b"SIGTRAP"),
    (libc::SIGSYS, b"SIGSYS"),
];

/// From now on a fatal signal is described in `note`. A signal that already has a handler, such as a sanitizer's, keeps it.
///
/// # Safety
///
/// This process must be a worker of this crate: otherwise signal handlers are up to the program.
pub(crate) unsafe fn install(note: &'static Note) {
    // Initialized here, because the handler uses it and must not initialize it.
    image::executable();
    OWNER.store(std::process::id(), Relaxed);
    // Release: a handler that sees the note sees the owner.
    NOTE.store(ptr::from_ref(note).cast_mut(), Release);
    for (signal, _) in SIGNALS {
        // SAFETY: `action` is a valid action; `handler` takes what `SA_SIGINFO` gives, and does only what a handler
        // may.
        unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            if libc::sigaction(signal, ptr::null(), &mut action) == 0 && action.sa_sigaction == libc::SIG_DFL {
                let handler: unsafe extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = handler;
                action.sa_sigaction = handler as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
                libc::sigemptyset(&mut action.sa_mask);
                libc::sigaction(signal, &action, ptr::null_mut());
            }
        }
    }
}

/// # Safety
///
/// For the kernel, as the handler of a signal with `SA_SIGINFO`.
unsafe extern "C" fn handler(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel's arguments; `errno` is the thread's own; and only calls that a handler may make.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        // Acquire: see `install`.
        let note = NOTE.load(Acquire).as_ref();
        if let Some(note) = note.filter(|_| libc::getpid() as u32 == OWNER.load(Relaxed)) {
            // The first fault is what ends the process, so only that one is written. Acquire: nothing was written before.
            if note.crash.state.compare_exchange(0, BUSY, Acquire, Relaxed).is_ok() {
                let mut writer = Writer::new(&note.crash.bytes);
                describe(&mut writer, signal, &*info, context);
                note.crash.finish(writer.length);
            } else {
                // Another thread is writing the note and will end this process, which must not end before the note is complete.
                libc::nanosleep(&libc::timespec { tv_sec: 1, tv_nsec: 0 }, ptr::null_mut());
            }
        }
        // Raises the signal again with the same information, this time with the default action. It is blocked until the handler
        // returns, and is then delivered before any further instruction.
        let mut default: libc::sigaction = mem::zeroed();
        default.sa_sigaction = libc::SIG_DFL;
        libc::sigaction(signal, &default, ptr::null_mut());
        let thread = libc::syscall(libc::SYS_gettid);
        if libc::syscall(libc::SYS_rt_tgsigqueueinfo, libc::getpid(), thread, signal, info) != 0 {
            libc::raise(signal);
        }
        *errno = before;
    }
}

/// What happened, in one line.
///
/// # Safety
///
/// For the handler, with the kernel's arguments.
unsafe fn describe(to: &mut Writer<'_>, signal: c_int, info: &libc::siginfo_t, context: *mut c_void) {
    let name = SIGNALS.iter().find(|(number, _)| *number == signal).map_or(&b"a signal"[..], |(_, name)| name);
    if info.si_code <= 0 {
        // SAFETY: a signal that was sent by a process contains its id.
        let sender = unsafe { info.si_pid() };
        to.add(name);
        if sender as u32 == OWNER.load(Relaxed) {
            to.add(b" raised by the process itself");
            add_thread(to);
        } else {
            to.add(b" sent by process ");
            to.digits(sender.max(0) as usize, 10);
        }
        return;
    }

    let has_address = matches!(signal, libc::SIGSEGV | libc::SIGBUS) && info.si_code != libc::SI_KERNEL;
    // SAFETY: these two signals contain the faulting address, unless the processor did not report it.
    let address = has_address.then(|| unsafe { info.si_addr() }.addr());
    match address {
        Some(address) if STACK.get().overflowed_at(address) || Stack::grown().overflowed_at(address) => {
            to.add(b"stack overflow");
            add_thread(to);
            to.add(b" (fault address ");
            to.hex(address);
            to.add(b")");
        }
        _ => {
            to.add(name);
            if let Some(address) = address {
                to.add(b" at address ");
                to.hex(address);
            }
            add_thread(to);
        }
    }
    // SAFETY: the context is the kernel's.
    if let Some(code) = unsafe { interrupted_code(context) } {
        to.add(b", executing ");
        match image::executable().offset_of(code) {
            Some(offset) => {
                to.add(b"the program's code at offset ");
                to.hex(offset as usize);
            }
            None => to.hex(code),
        }
    }
}

/// Adds the name of this thread, if it is known in full: the kernel keeps 15 bytes.
fn add_thread(to: &mut Writer<'_>) {
    const KEPT: usize = 15;
    let mut kept = [0u8; KEPT + 1];
    let (name, length) = NAME.get();
    let name = match length {
        0 => {
            // SAFETY: the kernel writes at most 16 bytes.
            unsafe { libc::prctl(libc::PR_GET_NAME, kept.as_mut_ptr()) };
            kept.split(|&byte| byte == 0).next().unwrap_or_default()
        }
        // SAFETY: the name belongs to the `AltStack` of this thread, which resets `NAME` before it is dropped.
        _ => unsafe { std::slice::from_raw_parts(name, length) },
    };
    if !name.is_empty() && (length > 0 || name.len() < KEPT) {
        to.add(b" in thread '");
        to.add(name);
        to.add(b"'");
    }
}

/// The address of the instruction that the signal interrupted.
///
/// # Safety
///
/// For the handler, with the kernel's argument.
unsafe fn interrupted_code(context: *mut c_void) -> Option<usize> {
    let context = context.cast::<libc::ucontext_t>();
    #[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
    // SAFETY: it is a valid context.
    let code = Some(unsafe { (*context).uc_mcontext.gregs[libc::REG_RIP as usize] as usize });
    #[cfg(target_arch = "aarch64")]
    // SAFETY: it is a valid context.
    let code = Some(unsafe { (*context).uc_mcontext.pc as usize });
    #[cfg(not(any(all(target_arch = "x86_64", target_env = "gnu"), target_arch = "aarch64")))]
    let code = {
        let _ = context;
        None
    };
    code
}

thread_local! {
    /// The stack of this thread, if it has an [`AltStack`]. It has no destructor and no lazy initialization.
    static STACK: Cell<Stack> = const { Cell::new(Stack { low: 0, guard: 0 }) };
    /// The address and length of the name of this thread, if it has an [`AltStack`].
    static NAME: Cell<(*const u8, usize)> = const { Cell::new((ptr::null(), 0)) };
}

#[derive(Clone, Copy)]
struct Stack {
    /// Its lowest address.
    low: usize,
    /// The size of the guard area at that address. Some C libraries count it as part of the stack.
    guard: usize,
}

impl Stack {
    /// How far below its stack a fault still counts as a stack overflow: Rust code touches every page on its way down, other
    /// code may not.
    const MARGIN: usize = 64 << 10;

    fn of_this_thread() -> Option<Stack> {
        // SAFETY: the attributes are read only if they were written, and are destroyed.
        unsafe {
            let mut attributes = mem::zeroed();
            if libc::pthread_getattr_np(libc::pthread_self(), &mut attributes) != 0 {
                return None;
            }
            let (mut low, mut size, mut guard) = (ptr::null_mut(), 0, 0);
            let is_known = libc::pthread_attr_getstack(&attributes, &mut low, &mut size) == 0
                && libc::pthread_attr_getguardsize(&attributes, &mut guard) == 0;
            libc::pthread_attr_destroy(&mut attributes);
            is_known.then_some(Stack { low: low.addr(), guard })
        }
    }

    /// The segment that the thread runs on after its own stack was used up. Its guard is below it.
    fn grown() -> Stack {
        Stack { low: stack::segment().unwrap_or(0), guard: 0 }
    }

    fn overflowed_at(self, address: usize) -> bool {
        let below = self.guard.max(Stack::MARGIN);
        self.low != 0 && (self.low.saturating_sub(below)..self.low + self.guard).contains(&address)
    }
}

/// A separate stack for the signal handler of one thread: after an overflow there is no room on the thread's stack.
pub(crate) struct AltStack {
    /// The mapping and its length; null if there was no memory for one.
    memory: *mut c_void,
    length: usize,
    previous: libc::stack_t,
    /// Keeps the name alive.
    _thread: Thread,
    previous_name: (*const u8, usize),
    /// The value belongs to its thread.
    _not_send: PhantomData<*mut ()>,
}

impl AltStack {
    /// Installs one for the calling thread until the value is dropped. If there is no memory for it, the thread has none.
    pub(crate) fn install() -> AltStack {
        if let Some(stack) = Stack::of_this_thread() {
            STACK.set(stack);
        }
        let thread = thread::current();
        let name = thread.name().map_or((ptr::null(), 0), |name| (name.as_ptr(), name.len()));
        let mut new = AltStack {
            memory: ptr::null_mut(),
            length: 0,
            previous_name: NAME.replace(name),
            _thread: thread,
            // SAFETY: zeros are a valid value.
            previous: unsafe { mem::zeroed() },
            _not_send: PhantomData,
        };
        let page = rustix::param::page_size();
        // SAFETY: reads a word that the kernel gave the process. On some processors a signal frame alone needs more than the
        // constant.
        let least = libc::SIGSTKSZ.max(unsafe { libc::getauxval(libc::AT_MINSIGSTKSZ) } as usize);
        let usable = (least + (32 << 10)).next_multiple_of(page);
        let length = page + usable;
        // SAFETY: a new mapping, whose lowest page stays inaccessible; the kernel gets the rest.
        unsafe {
            let Ok(memory) = rustix::mm::mmap_anonymous(
                ptr::null_mut(),
                length,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            ) else {
                return new;
            };
            let bottom = memory.byte_add(page);
            let stack = libc::stack_t { ss_sp: bottom, ss_flags: 0, ss_size: usable };
            if rustix::mm::mprotect(bottom, usable, MprotectFlags::READ | MprotectFlags::WRITE).is_ok()
                && libc::sigaltstack(&stack, &mut new.previous) == 0
            {
                (new.memory, new.length) = (memory, length);
            } else {
                let _ = rustix::mm::munmap(memory, length);
            }
        }
        new
    }
}

impl Drop for AltStack {
    fn drop(&mut self) {
        NAME.set(self.previous_name);
        if !self.memory.is_null() {
            // SAFETY: the thread is not on this stack: the handler never returns to code that would drop this value. The kernel
            // forgets the stack before it is unmapped.
            unsafe {
                if libc::sigaltstack(&self.previous, ptr::null_mut()) == 0 {
                    let _ = rustix::mm::munmap(self.memory, self.length);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs::{self, File};
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, ExitStatus};
    use std::thread;

    use rustix::process::{Resource, Rlimit, setrlimit};

    use super::*;

    /// The variable with the file of the note, for a process that is to crash.
    const FILE: &str = "FAULT_TEST_FILE";
    const WAY: &str = "FAULT_TEST_WAY";

    fn map(file: &File) -> &'static Note {
        file.set_len(size_of::<Note>() as u64).expect("the file grows");
        // SAFETY: a new mapping of the whole file, which is never unmapped.
        unsafe {
            let protection = ProtFlags::READ | ProtFlags::WRITE;
            let memory = rustix::mm::mmap(ptr::null_mut(), size_of::<Note>(), protection, MapFlags::SHARED, file, 0);
            &*memory.expect("the file can be mapped").cast::<Note>()
        }
    }

    /// Runs [`child`] in a process of its own.
    fn dies(way: &str) -> (ExitStatus, &'static Note) {
        let path = env::temp_dir().join(format!("fault-{}-{way}", std::process::id()));
        let file = File::options().read(true).write(true).create_new(true).open(&path).expect("a new file");
        let output = Command::new(env::current_exe().expect("this program"))
            .args(["--exact", "os::fault::tests::child", "--nocapture"])
            .env(FILE, &path)
            .env(WAY, way)
            .output()
            .expect("the child starts");
        fs::remove_file(&path).expect("the file is there");
        (output.status, map(&file))
    }

    /// Not a test itself: the code of the processes that the tests start.
    #[test]
    fn child() {
        let (Some(file), Ok(way)) = (env::var_os(FILE), env::var(WAY)) else { return };
        let note = map(&File::options().read(true).write(true).open(file).expect("made by the parent"));
        setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).expect("no core dumps");
        // SAFETY: this process does nothing else. std's handlers, which a worker does not have, are removed first.
        unsafe {
            libc::signal(libc::SIGSEGV, libc::SIG_DFL);
            libc::signal(libc::SIGBUS, libc::SIG_DFL);
            if way == "ignored" {
                libc::signal(libc::SIGFPE, libc::SIG_IGN);
            }
            install(note);
        }
        let (name, has_stack) = match way.as_str() {
            "long name" => (LONG, true),
            "cut name" => (LONG, false),
            "kernel's name" => ("some_thread", false),
            _ => ("worker_0", true),
        };
        let thread = thread::Builder::new().name(name.to_owned()).stack_size(256 << 10);
        let thread = thread.spawn(move || {
            let _stack = has_stack.then(AltStack::install);
            die(&way, note);
        });
        thread.expect("a thread").join().expect("no panic");
    }

    /// Longer than what the kernel keeps.
    const LONG: &str = "ProcessPoolExecutor-17_3";

    fn die(way: &str, note: &Note) {
        match way {
            // SAFETY: raising a signal is sound.
            "long name" | "cut name" | "kernel's name" => assert_eq!(unsafe { libc::raise(libc::SIGABRT) }, 0),
            "overflow" => drop(overflow(1)),
            "overflow of a segment" => overflow_of_a_segment(),
            // SAFETY: it is not sound: the process is to crash.
            "write" => unsafe { std::hint::black_box(16 as *mut u8).write_volatile(1) },
            // SAFETY: it is not sound: the process is to crash.
            #[cfg(target_arch = "x86_64")]
            "illegal" => unsafe { std::arch::asm!("ud2") },
            // SAFETY: the instruction does nothing but trap.
            #[cfg(target_arch = "x86_64")]
            "breakpoint" => unsafe { std::arch::asm!("int3") },
            "abort" => {
                note.set_panic("first");
                note.set_panic("last words");
                std::process::abort()
            }
            "both" => {
                let barrier = std::sync::Barrier::new(8);
                thread::scope(|scope| {
                    for _ in 0..8 {
                        scope.spawn(|| {
                            let _stack = AltStack::install();
                            barrier.wait();
                            die("write", note);
                        });
                    }
                });
            }
            // SAFETY: the child does nothing but crash.
            "forked" => unsafe {
                let child = libc::fork();
                if child == 0 {
                    die("write", note);
                }
                let mut status = 0;
                assert_eq!(libc::waitpid(child, &mut status, 0), child);
                assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSEGV);
            },
            // SAFETY: raising a signal is sound.
            "ignored" => assert_eq!(unsafe { libc::raise(libc::SIGFPE) }, 0),
            // SAFETY: the same.
            "raised" => assert_eq!(unsafe { libc::raise(libc::SIGSEGV) }, 0),
            // SAFETY: the same.
            "terminated" => assert_eq!(unsafe { libc::raise(libc::SIGTERM) }, 0),
            _ => unreachable!(),
        }
    }

    #[allow(unconditional_recursion, reason = "the point")]
    fn overflow(n: u64) -> u64 {
        let frame = std::hint::black_box([n; 100]);
        overflow(n + 1) + std::hint::black_box(frame)[0]
    }

    /// Overflows the segment that the stack was grown by or, if there is none, the stack itself.
    fn overflow_of_a_segment() {
        match stack::segment() {
            Some(_) => drop(overflow(1)),
            None => stack::deepen_if_possible(|| {
                std::hint::black_box([1u8; 1000]);
                overflow_of_a_segment();
            }),
        }
    }

    #[test]
    fn a_stack_overflow_is_named() {
        for way in ["overflow", "overflow of a segment"] {
            let (status, note) = dies(way);
            assert_eq!(status.signal(), Some(libc::SIGSEGV));
            let note = note.read().expect("a note");
            assert!(note.starts_with("stack overflow in thread 'worker_0' (fault address 0x"), "{note}");
        }
    }

    #[test]
    fn a_thread_is_named_in_full_or_not_at_all() {
        let note = |way| dies(way).1.read().expect("a note");
        assert_eq!(note("long name"), format!("SIGABRT raised by the process itself in thread '{LONG}'"));
        assert_eq!(note("cut name"), "SIGABRT raised by the process itself");
        assert_eq!(note("kernel's name"), "SIGABRT raised by the process itself in thread 'some_thread'");
    }

    #[test]
    fn a_bad_address_is_named() {
        let (status, note) = dies("write");
        assert_eq!(status.signal(), Some(libc::SIGSEGV));
        let note = note.read().expect("a note");
        assert!(note.starts_with("SIGSEGV at address 0x10 in thread 'worker_0'"), "{note}");
        if cfg!(all(target_arch = "x86_64", target_env = "gnu")) {
            assert!(note.contains(", executing the program's code at offset 0x"), "{note}");
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn bad_instructions_are_named() {
        for (way, signal, name) in [("illegal", libc::SIGILL, "SIGILL"), ("breakpoint", libc::SIGTRAP, "SIGTRAP")] {
            let (status, note) = dies(way);
            assert_eq!(status.signal(), Some(signal));
            let note = note.read().expect("a note");
            assert!(note.starts_with(&format!("{name} in thread 'worker_0'")), "{note}");
        }
    }

    #[test]
    fn an_abort_says_who_and_the_last_panic() {
        let (status, note) = dies("abort");
        assert_eq!(status.signal(), Some(libc::SIGABRT));
        assert_eq!(note.read().as_deref(), Some("SIGABRT raised by the process itself in thread 'worker_0'"));
        assert_eq!(note.read_panic().map(|(panic, _)| panic).as_deref(), Some("last words"));
    }

    #[test]
    fn a_raised_signal_is_the_exit_status() {
        let (status, note) = dies("raised");
        assert_eq!(status.signal(), Some(libc::SIGSEGV));
        assert_eq!(note.read().as_deref(), Some("SIGSEGV raised by the process itself in thread 'worker_0'"));
    }

    #[test]
    fn threads_that_die_together_leave_one_whole_note() {
        let (status, note) = dies("both");
        assert_eq!(status.signal(), Some(libc::SIGSEGV));
        let note = note.read().expect("a note");
        assert!(note.starts_with("SIGSEGV at address 0x10 in thread '"), "{note}");
    }

    #[test]
    fn other_signals_and_other_handlers_are_left_alone() {
        let (status, note) = dies("terminated");
        assert_eq!((status.signal(), note.read()), (Some(libc::SIGTERM), None));
        let (status, note) = dies("ignored");
        assert_eq!((status.code(), note.read()), (Some(0), None));
    }

    #[test]
    fn a_forked_process_does_not_write_its_parents_note() {
        let (status, note) = dies("forked");
        assert_eq!((status.code(), note.read()), (Some(0), None));
    }

    #[test]
    fn what_the_other_side_wrote_is_not_trusted() {
        let note = Note::default();
        assert_eq!((note.read(), note.read_panic()), (None, None));
        note.crash.state.store(BUSY, Relaxed);
        assert_eq!(note.read(), None);
        let mut writer = Writer::new(&note.crash.bytes);
        writer.add(b"a\x1b[2J\xff\r\nb\0");
        note.crash.finish(12345);
        assert_eq!(note.read().as_deref(), Some("a[2J\u{fffd}\nb"));
    }

    #[test]
    fn long_texts_are_cut() {
        let note = Note::default();
        note.set_panic(&"ä".repeat(600));
        assert_eq!(note.read_panic().unwrap().0, "ä".repeat(512));
        note.set_panic(&format!("x{}", "ä".repeat(600)));
        assert_eq!(note.read_panic().unwrap().0, format!("x{}", "ä".repeat(511)));
    }

    #[test]
    fn a_thread_forgets_its_own_panic_only() {
        let note = Note::default();
        let read = || note.read_panic().map(|(text, _)| text);
        note.set_panic("of this thread");
        thread::scope(|threads| {
            let other = threads.spawn(|| {
                note.forget_panic();
                assert_eq!(read().as_deref(), Some("of this thread"));
                note.set_panic("of the other thread");
            });
            other.join().expect("no panic");
            note.forget_panic();
            assert_eq!(read().as_deref(), Some("of the other thread"));
        });
        note.set_panic("survived");
        note.forget_panic();
        assert_eq!(read(), None);
        note.set_panic("not survived");
        assert_eq!(read().as_deref(), Some("not survived"));
    }

    #[test]
    fn numbers_are_written_in_full() {
        let bytes = [const { AtomicU8::new(0) }; 64];
        let mut writer = Writer::new(&bytes);
        for number in [0, 7, usize::MAX] {
            writer.digits(number, 10);
            writer.hex(number);
        }
        let text: Vec<u8> = bytes[..writer.length].iter().map(|byte| byte.load(Relaxed)).collect();
        assert_eq!(String::from_utf8(text).unwrap(), format!("00x070x7{0}{0:#x}", usize::MAX));
    }

    #[test]
    fn alternate_stacks_nest() {
        fn current() -> *mut c_void {
            // SAFETY: only queries the stack.
            unsafe {
                let mut stack: libc::stack_t = mem::zeroed();
                assert_eq!(libc::sigaltstack(ptr::null(), &mut stack), 0);
                if stack.ss_flags & libc::SS_DISABLE == 0 { stack.ss_sp } else { ptr::null_mut() }
            }
        }
        thread::spawn(|| {
            let before = current();
            let outer = AltStack::install();
            let outers = current();
            assert_ne!(outers, before);
            drop(AltStack::install());
            assert_eq!(current(), outers);
            drop(outer);
            assert_eq!(current(), before);
        })
        .join()
        .expect("no panic");
    }

    impl Default for Note {
        fn default() -> Note {
            // SAFETY: atomics, for which zeros are valid.
            unsafe { mem::zeroed() }
        }
    }
}
