//! What the parent needs from the process of a worker.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::process::Signal;

use crate::os::pidfd::{Ended, Process};

/// What the parent does with a process. The tests of the parent's state have an implementation without a process.
pub(crate) trait WorkerProcess: Send {
    fn id(&self) -> u32;

    /// Readable when the process has ended; `None` if the system has no such descriptors.
    fn fd(&self) -> Option<BorrowedFd<'_>>;

    /// Reaps the process if it has ended, and returns how it ended.
    fn try_reap(&mut self) -> Option<Ended>;

    /// Returns `true` if the process has made this one its tracer and is stopped.
    fn is_traced_and_stopped(&mut self) -> bool;

    /// Returns `true` if it has begun to end. A process closes its descriptors some time before it can be reaped.
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
