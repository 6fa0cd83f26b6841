//! What a worker writes to its standard output and error: whose that is, and the end of it where it is captured.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

/// Where standard output and error of the workers go. Standard input is always empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Stdio {
    /// Where those of this program go.
    #[default]
    Inherit,
    /// Nowhere.
    Null,
    /// Into the executor, which keeps the last 8 KiB of each worker for the error of a task during which that worker dies
    /// ([`WorkerExit::stderr`](crate::WorkerExit::stderr)).
    Capture,
}

/// How much is kept, in bytes.
const KEPT: usize = 8 * 1024;

/// The end of what has come through a pipe.
#[derive(Debug)]
pub(super) struct Captured {
    pipe: OwnedFd,
    tail: VecDeque<u8>,
}

impl Captured {
    /// A pipe: the reading end in here, and the writing end.
    pub(super) fn new() -> io::Result<(Self, OwnedFd)> {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&reader, true)?;
        Ok((Self { pipe: reader, tail: VecDeque::new() }, writer))
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    /// Takes in what there is.
    pub(super) fn read(&mut self) {
        let mut buffer = [0; 4096];
        loop {
            match rustix::io::read(&self.pipe, &mut buffer) {
                Ok(0) => return,
                Ok(length) => {
                    self.tail.extend(&buffer[..length]);
                    let surplus = self.tail.len().saturating_sub(KEPT);
                    self.tail.drain(..surplus);
                }
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    pub(super) fn text(&mut self) -> String {
        self.read();
        String::from_utf8_lossy(self.tail.make_contiguous()).into_owned()
    }
}
