//! A child process, identified by a descriptor if the system supports that: a signal sent through it never reaches another
//! process.
//!
//! Without a descriptor, a signal is sent to the process id, which is correct as long as only this value reaps the process. A
//! program that ignores SIGCHLD, or waits for any child, frees the id earlier.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, waitpid};

use super::fd::above_standard;

/// Opens a `pidfd`, which is readable when the process has ended. `None`: the system does not support it, or there is no such
/// process.
pub(crate) fn open(pid: Pid) -> Option<OwnedFd> {
    rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok().and_then(|fd| above_standard(fd).ok())
}

#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pidfd: Option<OwnedFd>,
    /// How it has ended, if it has been reaped.
    ended: Option<Ended>,
    is_traced_and_stopped: bool,
}

/// How a process has ended; `None` if it was reaped elsewhere, so that its status is unknown.
pub(crate) type Ended = Option<ExitStatus>;

impl Process {
    /// With `by_fd`, uses a `pidfd` if possible.
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

    /// Reaps the process if it has ended, and returns how.
    pub(crate) fn try_reap(&mut self) -> Option<Ended> {
        if self.ended.is_none() {
            self.ended = match waitpid(pid(&self.child), WaitOptions::NOHANG) {
                Ok(Some((_, status))) if status.stopped() => {
                    self.is_traced_and_stopped = true;
                    None
                }
                Ok(status) => status.map(|(_, status)| Some(ExitStatus::from_raw(status.as_raw()))),
                // It was reaped elsewhere: by `waitpid(-1)`, or because SIGCHLD is ignored. Only its end is known.
                Err(Errno::CHILD) => Some(None),
                Err(_) => None,
            };
        }
        self.ended
    }

    /// Has the process made this one its tracer (`PTRACE_TRACEME`), and is it stopped? This process will never resume it. Also
    /// reaps ended threads of a traced process, which cannot end before they are reaped.
    pub(crate) fn is_traced_and_stopped(&mut self) -> bool {
        let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", self.id())) else { return false };
        let ids = threads.flatten().filter_map(|thread| thread.file_name().to_str()?.parse().ok());
        for thread in ids.filter_map(Pid::from_raw).filter(|thread| Some(*thread) != pid(&self.child)) {
            // For threads that this process does not trace, the system reports that they are not its children.
            if matches!(waitpid(Some(thread), WaitOptions::NOHANG), Ok(Some((_, status))) if status.stopped()) {
                self.is_traced_and_stopped = true;
            }
        }
        self.is_traced_and_stopped
    }

    /// Has the process begun to end? It closes its descriptors some time before it can be reaped. Returns `false` if this is
    /// unknown.
    pub(crate) fn is_ending(&self) -> bool {
        /// See `include/linux/sched.h` in the kernel.
        const PF_EXITING: u32 = 4;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap_or_default();
        // The name may contain any characters. It is followed by the state, five numbers, and the flags.
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
                // Some sandboxes allow only one of the two calls, and the program may have closed the descriptor.
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
