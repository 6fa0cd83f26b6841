//! The process of a worker, as far as the parent deals with it.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::process::Signal;

use crate::os::pidfd::{Ended, Process};

/// What the parent does with a process. The tests of the parent's state have one that is no process.
pub(crate) trait WorkerProcess: Send {
    fn id(&self) -> u32;

    /// Readable when the process has ended; `None` if the system has no such descriptors.
    fn fd(&self) -> Option<BorrowedFd<'_>>;

    /// How the process has ended, if it has; then it is reaped.
    fn try_reap(&mut self) -> Option<Ended>;

    /// Has the process made this one its tracer, and is stopped?
    fn is_traced_and_stopped(&mut self) -> bool;

    /// Has it begun to end? It closes its descriptors some time before it can be reaped.
    fn is_ending(&self) -> bool;

    /// Sends a signal, unless the process has been reaped.
    fn signal(&self, signal: Signal) -> io::Result<()>;
}

impl WorkerProcess for Process {
    fn id(&self) -> u32 {
        self.id()
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd()
    }

    fn try_reap(&mut self) -> Option<Ended> {
        self.try_reap()
    }

    fn is_traced_and_stopped(&mut self) -> bool {
        self.is_traced_and_stopped()
    }

    fn is_ending(&self) -> bool {
        self.is_ending()
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        self.signal(signal)
    }
}
