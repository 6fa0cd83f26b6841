//! Descriptors that cannot be confused with standard input, output or error.

use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};

/// The first descriptor that is not a standard one.
pub(crate) const FIRST: i32 = 3;

/// A descriptor of the same file with a number of at least [`FIRST`]. If the program has closed a standard descriptor, a new
/// descriptor gets its number, and the program's output would go to this file.
pub(crate) fn above_standard(fd: OwnedFd) -> io::Result<OwnedFd> {
    match fd.as_raw_fd() {
        FIRST.. => Ok(fd),
        _ => Ok(rustix::io::fcntl_dupfd_cloexec(&fd, FIRST)?),
    }
}

/// Opens `/dev/null` for reading and writing.
pub(crate) fn null() -> io::Result<OwnedFd> {
    above_standard(open_null(OFlags::CLOEXEC)?)
}

fn open_null(flags: OFlags) -> io::Result<OwnedFd> {
    Ok(open("/dev/null", OFlags::RDWR | flags, Mode::empty())?)
}

/// Opens `/dev/null` for each standard descriptor that is closed, as std does at the start of a program.
pub(crate) fn fill_standard() -> io::Result<()> {
    for fd in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        if rustix::io::fcntl_getfd(fd).is_err() {
            // The lowest free number is this one. It stays open until the process ends.
            let _ = open_null(OFlags::empty())?.into_raw_fd();
        }
    }
    Ok(())
}
