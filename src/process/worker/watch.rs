//! The thread of a worker that ends the process when its host has ended.
//!
//! It has its own table of descriptors if the system supports that, so that it is not affected by what a task closes, or opens
//! under a number that it has closed. If it shares the table with the tasks, it checks that a descriptor still refers to the
//! same file.
//!
//! What the unsafe code relies on: the thread is created by the C library, not by std. It never allocates, because its first
//! allocation would reserve an arena of 64 MiB, which counts towards a memory limit; and it never panics.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Stat, fstat};
use rustix::io::Errno;

use super::host::parent;

/// How often the parent is checked if there is nothing left to wait for.
const LOOK: Duration = Duration::from_millis(100);

/// The stack sizes to try for that thread: the second one if the thread-locals of the program do not fit into the first.
const STACKS: [usize; 2] = [256 << 10, 2 << 20];

/// A descriptor whose end of file, or end of process, ends this process.
pub(super) struct Watched {
    fd: OwnedFd,
    flags: PollFlags,
    /// The file that the descriptor referred to at first.
    file: Option<Stat>,
}

impl Watched {
    /// A `pidfd`.
    pub(super) fn process(fd: OwnedFd) -> Self {
        Self::new(fd, PollFlags::IN)
    }

    /// A connected socket.
    pub(super) fn socket(fd: OwnedFd) -> Self {
        Self::new(fd, PollFlags::empty())
    }

    fn new(fd: OwnedFd, flags: PollFlags) -> Self {
        let file = fstat(&fd).ok();
        Self { fd, flags, file }
    }

    /// Does the descriptor still refer to the same file?
    fn is_here(&self) -> bool {
        let same =
            |file: &Stat| fstat(&self.fd).is_ok_and(|now| (now.st_dev, now.st_ino) == (file.st_dev, file.st_ino));
        self.file.as_ref().is_some_and(same)
    }
}

/// The argument of the thread.
struct Watch {
    watched: Vec<Watched>,
    parent: i32,
}

/// Starts the thread. `parent` is the process id of this process's parent.
pub(super) fn start(watched: Vec<Watched>, parent: i32) -> io::Result<()> {
    let watch: &'static Watch = Box::leak(Box::new(Watch { watched, parent }));
    // SAFETY: sets and attributes are initialized before they are used; the argument is leaked. No signal handler of the user
    // must run on that thread, so it starts with all signals blocked.
    unsafe {
        let (mut all, mut before, mut attributes) = (mem::zeroed(), mem::zeroed(), mem::zeroed());
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        libc::pthread_attr_init(&mut attributes);
        let mut result = 0;
        for stack in STACKS {
            libc::pthread_attr_setstacksize(&mut attributes, stack);
            let mut thread = mem::zeroed();
            result = libc::pthread_create(&mut thread, &attributes, run, ptr::from_ref(watch).cast_mut().cast());
            if result != libc::EINVAL {
                break;
            }
        }
        libc::pthread_attr_destroy(&mut attributes);
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, ptr::null_mut());
        match result {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

extern "C" fn run(watch: *mut c_void) -> *mut c_void {
    // SAFETY: the argument that `start` passed; it is never written to.
    let watch = unsafe { &*watch.cast::<Watch>() };
    // SAFETY: the name ends with a zero.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"host-watch".as_ptr()) };
    // A socket that stays open here would look open to the host even after the tasks have closed it.
    if watch.watched.iter().all(|watched| watched.flags == PollFlags::IN) {
        leave_table(&watch.watched);
    }
    loop {
        if wait(&watch.watched) || parent() != watch.parent {
            // SAFETY: ends the process at once, as intended.
            unsafe { libc::_exit(1) };
        }
    }
}

/// Gives this thread a table of descriptors of its own, with only the descriptors that it watches.
fn leave_table(watched: &[Watched]) {
    let mut from = 0;
    let mut how = libc::CLOSE_RANGE_UNSHARE;
    loop {
        let next = watched.iter().map(|watched| watched.fd.as_raw_fd()).filter(|fd| *fd >= from).min();
        let to = next.map_or(i32::MAX, |fd| fd - 1);
        // SAFETY: only copies are closed. If the table cannot be copied, the first call closes nothing and this returns.
        if from <= to && unsafe { libc::syscall(libc::SYS_close_range, from, to, how) } != 0 {
            return;
        }
        how = 0;
        match next {
            Some(fd) => from = fd + 1,
            None => return,
        }
    }
}

/// The maximum number of watched descriptors.
const MOST: usize = 3;

/// Waits for an event; returns `true` if one of them has ended.
fn wait(watched: &[Watched]) -> bool {
    let mut here = watched.iter().filter(|watched| watched.is_here());
    let Some(first) = here.next() else {
        std::thread::sleep(LOOK);
        return false;
    };
    let (mut watched, mut count) = ([first; MOST], 1);
    for (place, other) in watched[1..].iter_mut().zip(here) {
        *place = other;
        count += 1;
    }
    let mut polled = watched.map(|watched| PollFd::new(&watched.fd, watched.flags));
    let polled = &mut polled[..count];
    match poll(polled, None) {
        Ok(_) => {}
        Err(Errno::INTR) => return false,
        Err(_) => {
            std::thread::sleep(LOOK);
            return false;
        }
    }
    let has_ended = |fd: &PollFd<'_>| fd.revents().intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR);
    polled.iter().zip(watched).any(|(fd, watched)| has_ended(fd) && watched.is_here())
}
