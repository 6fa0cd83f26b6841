//! The captured standard output and error of a worker, of which only the end is kept.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use crate::os::fd::above_standard;

/// How much is kept, in bytes.
const KEPT: usize = 8 * 1024;

/// How many bytes are read at a time: what a pipe usually holds. This is limited because the reading thread holds the pool's
/// lock.
const AT_A_TIME: usize = 64 * 1024;

/// The most that a pipe holds unless the user is privileged.
const LARGEST_PIPE: usize = 1 << 20;

/// The reading end of a pipe, and the end of what has been read from it.
#[derive(Debug)]
pub(crate) struct Captured {
    pipe: OwnedFd,
    tail: VecDeque<u8>,
}

impl Captured {
    /// Makes a pipe. Returns its reading end, in a `Captured`, and its writing end.
    pub(crate) fn new() -> io::Result<(Self, OwnedFd)> {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let (reader, writer) = (above_standard(reader)?, above_standard(writer)?);
        rustix::io::ioctl_fionbio(&reader, true)?;
        Ok((Self { pipe: reader, tail: VecDeque::new() }, writer))
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    /// Reads what the pipe holds, or about [`AT_A_TIME`] bytes of it. Returns `true` if there may be more.
    pub(crate) fn read(&mut self) -> bool {
        let mut buffer = [0; 4096];
        let mut all = 0;
        while all < AT_A_TIME {
            match rustix::io::read(&self.pipe, &mut buffer) {
                Ok(0) => return false,
                Ok(length) => {
                    all += length;
                    self.tail.extend(&buffer[..length]);
                    let surplus = self.tail.len().saturating_sub(KEPT);
                    self.tail.drain(..surplus);
                }
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// Discards what has been written until now.
    pub(crate) fn forget(&mut self) {
        self.drain();
        self.tail.clear();
    }

    fn drain(&mut self) {
        let _ = (0..LARGEST_PIPE / AT_A_TIME).all(|_| self.read());
    }

    /// Reads what is left in the pipe, and returns the end of it. Reads at most [`LARGEST_PIPE`] bytes, because a child of the
    /// worker may go on writing for ever.
    pub(crate) fn text(&mut self) -> String {
        self.drain();
        String::from_utf8_lossy(self.tail.make_contiguous()).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_pipe_is_read_in_turns() {
        let (mut captured, writer) = Captured::new().unwrap();
        let size = rustix::pipe::fcntl_setpipe_size(&writer, 4 * AT_A_TIME).unwrap();
        let text: Vec<u8> = (0..size).map(|n| b'a' + (n * 26 / size) as u8).collect();
        rustix::io::write(&writer, &text).unwrap();
        let turns = std::iter::repeat_with(|| captured.read()).take_while(|more| *more).count();
        assert_eq!(turns, 4);
        assert_eq!(captured.text(), "z".repeat(KEPT));
    }
}
