//! A child process, known by a descriptor where the system has them: through that a signal never hits another process.
//!
//! Where there is no descriptor, a signal goes to the number of the process. That is right as long as nobody but this value
//! reaps it. A program that ignores SIGCHLD, or waits for any child, frees the number earlier.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, ExitStatus};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};

#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pidfd: Option<OwnedFd>,
    /// How it has ended, if it has.
    ended: Option<Ended>,
}

/// How a process has ended; `None` if somebody else has reaped it, and nobody here can know.
pub(crate) type Ended = Option<ExitStatus>;

impl Process {
    /// With `by_fd`, known by a descriptor if there can be one.
    pub(crate) fn new(child: Child, by_fd: bool) -> Self {
        let pid = pid(&child).filter(|_| by_fd);
        let pidfd = pid.and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok());
        Self { child, pidfd, ended: None }
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
            self.ended = match self.child.try_wait() {
                Ok(status) => status.map(Some),
                // Somebody else has reaped it: `waitpid(-1)`, or SIGCHLD is ignored. All that is known is that it is gone.
                Err(error) if error.raw_os_error() == Some(Errno::CHILD.raw_os_error()) => Some(None),
                Err(_) => None,
            };
        }
        self.ended
    }

    /// Sends a signal, unless the process has been reaped.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        if self.ended.is_some() {
            return Ok(());
        }
        if let Some(pidfd) = &self.pidfd {
            match rustix::process::pidfd_send_signal(pidfd, signal) {
                // Some sandboxes know one of the two calls only.
                Err(Errno::NOSYS | Errno::PERM) => {}
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
