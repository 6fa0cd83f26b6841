//! A child process, known by a descriptor where the system has them: through that a signal never hits another process.
//!
//! Where there is no descriptor, a signal goes to the number of the process. That is right as long as nobody but this value
//! reaps it. A program that ignores SIGCHLD, or waits for any child, frees the number earlier.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, waitpid};

use super::fd::above_standard;

/// Readable when the process of that number has ended. `None`: the system has nothing like it, or there is no such process.
pub(crate) fn open(pid: Pid) -> Option<OwnedFd> {
    rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok().and_then(|fd| above_standard(fd).ok())
}

#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pidfd: Option<OwnedFd>,
    /// How it has ended, if it has.
    ended: Option<Ended>,
    is_traced_and_stopped: bool,
}

/// How a process has ended; `None` if somebody else has reaped it, and nobody here can know.
pub(crate) type Ended = Option<ExitStatus>;

impl Process {
    /// With `by_fd`, known by a descriptor if there can be one.
    pub(crate) fn new(child: Child, by_fd: bool) -> Self {
        let pid = pid(&child).filter(|_| by_fd);
        let pidfd = pid.and_then(open);
        Self { child, pidfd, ended: None, is_traced_and_stopped: false }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Readable when the process has ended.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }

    /// How the process has ended, if it has; then it is reaped.
    pub(crate) fn try_reap(&mut self) -> Option<Ended> {
        if self.ended.is_none() {
            self.ended = match waitpid(pid(&self.child), WaitOptions::NOHANG) {
                Ok(Some((_, status))) if status.stopped() => {
                    self.is_traced_and_stopped = true;
                    None
                }
                Ok(status) => status.map(|(_, status)| Some(ExitStatus::from_raw(status.as_raw()))),
                // Somebody else has reaped it: `waitpid(-1)`, or SIGCHLD is ignored. All that is known is that it is gone.
                Err(Errno::CHILD) => Some(None),
                Err(_) => None,
            };
        }
        self.ended
    }

    /// Has the process made this one its tracer (`PTRACE_TRACEME`), and is stopped? Nobody here will let it go on. Looks at its
    /// threads, and collects those of a traced process that have ended: the process does not end before they are.
    pub(crate) fn is_traced_and_stopped(&mut self) -> bool {
        let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", self.id())) else { return false };
        let ids = threads.flatten().filter_map(|thread| thread.file_name().to_str()?.parse().ok());
        for thread in ids.filter_map(Pid::from_raw).filter(|thread| Some(*thread) != pid(&self.child)) {
            // Of threads that are not traced by this process, the system says that they are no children of it.
            if matches!(waitpid(Some(thread), WaitOptions::NOHANG), Ok(Some((_, status))) if status.stopped()) {
                self.is_traced_and_stopped = true;
            }
        }
        self.is_traced_and_stopped
    }

    /// Has it begun to end? Then it closes its descriptors some time before it can be reaped. False if that cannot be seen.
    pub(crate) fn is_ending(&self) -> bool {
        /// See `include/linux/sched.h` in the kernel.
        const PF_EXITING: u32 = 4;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap_or_default();
        // The name may contain anything. Behind it come the state and five numbers, and then the flags.
        let flags = stat.rsplit_once(") ").and_then(|(_, fields)| fields.split(' ').nth(6)?.parse::<u32>().ok());
        flags.is_some_and(|flags| flags & PF_EXITING != 0)
    }

    /// Sends a signal, unless the process has been reaped.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        if self.ended.is_some() {
            return Ok(());
        }
        if let Some(pidfd) = &self.pidfd {
            match rustix::process::pidfd_send_signal(pidfd, signal) {
                // Some sandboxes know one of the two calls only; and the program may have closed the descriptor.
                Err(Errno::NOSYS | Errno::PERM | Errno::BADF) => {}
                sent => return Ok(sent?),
            }
        }
        match pid(&self.child) {
            Some(pid) => Ok(rustix::process::kill_process(pid, signal)?),
            None => Ok(()),
        }
    }
}

fn pid(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()).ok()?)
}
