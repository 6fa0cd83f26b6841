//! A child process, known by a descriptor where the system has them. It is reaped by this value and nobody else, so
//! until then its number cannot be another process's, and a signal never hits the wrong one.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};

#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pidfd: Option<OwnedFd>,
    status: Option<ExitStatus>,
}

impl Process {
    /// With `by_fd`, known by a descriptor if there can be one.
    pub(crate) fn new(child: Child, by_fd: bool) -> Self {
        let pid = pid(&child).filter(|_| by_fd);
        let pidfd = pid.and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok());
        Self { child, pidfd, status: None }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Readable when the process has ended.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(AsFd::as_fd)
    }

    /// How the process has ended, if it has; then it is reaped.
    pub(crate) fn try_reap(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = match self.child.try_wait() {
                Ok(status) => status,
                // Somebody else has reaped it: `waitpid(-1)`, or SIGCHLD is ignored. All that is known is that it is gone.
                Err(error) if error.raw_os_error() == Some(Errno::CHILD.raw_os_error()) => {
                    Some(ExitStatus::from_raw(0))
                }
                Err(_) => None,
            };
        }
        self.status
    }

    /// Sends a signal, unless the process has been reaped.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        if self.status.is_some() {
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
