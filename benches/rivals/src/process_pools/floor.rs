//! What two processes need at least for a round trip when both sleep in between: a word each in shared memory, and futexes.

#![allow(unsafe_code)]

use std::env;
use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap};
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::futex::{Flags, wait, wake};

const VARIABLE: &str = "RIVALS_FLOOR";
const SIZE: usize = 4096;

/// Request and reply, on cache lines of their own.
#[repr(C, align(64))]
struct Words([Line; 2]);

#[repr(C, align(64))]
struct Line(AtomicU32);

/// Another process that answers.
pub(crate) struct Floor {
    words: &'static Words,
    trips: u32,
    _answers: Child,
}

impl Floor {
    pub(crate) fn start() -> Self {
        let memory = memfd_create("rivals-floor", MemfdFlags::CLOEXEC).expect("there is shared memory");
        rustix::fs::ftruncate(&memory, SIZE as u64).expect("there is a page of it");
        let words = map(&memory);
        let mut command = Command::new("/proc/self/exe");
        let command = command.env(VARIABLE, "1").stdin(Stdio::from(File::from(memory)));
        Self { words, trips: 0, _answers: command.spawn().expect("processes can be started") }
    }

    pub(crate) fn round_trip(&mut self) {
        self.trips += 1;
        let [request, reply] = &self.words.0;
        tell(request, self.trips);
        await_change(reply, self.trips - 1);
    }
}

/// In the other process.
pub(super) fn serve_if_asked() {
    if env::var_os(VARIABLE).is_none() {
        return;
    }
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let [request, reply] = &map(rustix::stdio::stdin()).0;
    let mut trips = 0;
    loop {
        await_change(request, trips);
        trips += 1;
        tell(reply, trips);
    }
}

fn map(memory: impl AsFd) -> &'static Words {
    // SAFETY: a new mapping at an address of the kernel's choice, which is never unmapped. It is as long as the file, page
    // aligned, and atomics may have any value.
    unsafe {
        let base = mmap(ptr::null_mut(), SIZE, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, memory, 0);
        &*base.expect("it can be mapped").cast::<Words>()
    }
}

fn tell(line: &Line, value: u32) {
    line.0.store(value, SeqCst);
    let _ = wake(&line.0, Flags::empty(), 1);
}

fn await_change(line: &Line, before: u32) {
    while line.0.load(SeqCst) == before {
        let _ = wait(&line.0, Flags::empty(), before, None);
    }
}
