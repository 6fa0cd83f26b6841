//! Connected sockets that carry messages (whole or not at all), and descriptors with them.
//!
//! This module is an unsafe island for one call, `getsockopt` with `SO_PEERCRED`: the kernel returns 0 for a process that is
//! not visible from here, which rustix's type for the result cannot represent.

#![allow(unsafe_code)]

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use super::fd::above_standard;

/// The maximum length of a message, in bytes.
pub(crate) const LONGEST: usize = 64 * 1024;

/// The maximum number of descriptors in one message.
pub(crate) const MOST_FDS: usize = 16;

/// Creates two connected sockets. Both are close-on-exec.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (one, other) = net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok((above_standard(one)?, above_standard(other)?))
}

/// Sends a message without blocking. `Ok(false)`: there is no room at the moment.
pub(crate) fn send(socket: impl AsFd, parts: &[&[u8]], fds: &[BorrowedFd<'_>]) -> io::Result<bool> {
    let slices: [IoSlice<'_>; 2] = match parts {
        [one] => [IoSlice::new(one), IoSlice::new(&[])],
        [one, two] => [IoSlice::new(one), IoSlice::new(two)],
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    loop {
        match net::sendmsg(&socket, &slices, &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(true),
            Err(Errno::AGAIN) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// What [`receive`] found.
#[derive(Debug)]
pub(crate) enum Received {
    /// A message: its length in bytes and its descriptors.
    Message(usize, Vec<OwnedFd>),
    /// No message at the moment.
    Nothing,
    /// The other end is closed.
    End,
}

/// Waits for a message and returns its length without receiving it; 0 at the end.
pub(crate) fn next_length(socket: impl AsFd) -> io::Result<usize> {
    loop {
        match net::recv(&socket, &mut [0; 1], RecvFlags::PEEK | RecvFlags::TRUNC) {
            Ok((_, length)) => return Ok(length),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Does the next message begin with these bytes? It is not received.
pub(crate) fn next_begins_with(socket: impl AsFd, beginning: &[u8]) -> bool {
    let mut buffer = [0; 64];
    let buffer = &mut buffer[..beginning.len()];
    loop {
        match net::recv(&socket, &mut *buffer, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((length, _)) => return buffer[..length] == *beginning,
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// Receives one message into `buffer`, which has to be long enough for it.
pub(crate) fn receive(socket: impl AsFd, buffer: &mut [u8], wait: bool) -> io::Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | if wait { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
    let mut resets = 0;
    let received = loop {
        match net::recvmsg(&socket, &mut [IoSliceMut::new(buffer)], &mut control, flags) {
            Ok(received) => break received,
            Err(Errno::AGAIN) => return Ok(Received::Nothing),
            Err(Errno::INTR) => {}
            // The other end was closed before it had received everything. The kernel reports this once, before the messages
            // that it had sent.
            Err(Errno::CONNRESET) if resets == 0 => resets += 1,
            Err(Errno::CONNRESET) => return Ok(Received::End),
            Err(error) => return Err(error.into()),
        }
    };
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message was too long"));
    }
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            for fd in rights {
                fds.push(above_standard(fd)?);
            }
        }
    }
    match received.bytes {
        0 if fds.is_empty() => Ok(Received::End),
        bytes => Ok(Received::Message(bytes, fds)),
    }
}

/// The process that made a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Maker {
    /// Its process id; 0 if it is in another process namespace, where it is not visible from here.
    pub(crate) process: libc::pid_t,
    pub(crate) user: u32,
}

/// Whether `fd` is a socket of the kind that [`pair`] makes, and if so, who made it.
pub(crate) fn made_by(fd: impl AsFd) -> Option<Maker> {
    let is_ours = net::sockopt::socket_type(&fd) == Ok(SocketType::SEQPACKET)
        && net::sockopt::socket_domain(&fd) == Ok(AddressFamily::UNIX);
    if !is_ours {
        return None;
    }
    let mut maker = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = size_of_val(&maker) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, all values of which are valid.
    let result = unsafe {
        let (fd, option) = (fd.as_fd().as_raw_fd(), libc::SO_PEERCRED);
        libc::getsockopt(fd, libc::SOL_SOCKET, option, (&raw mut maker).cast(), &mut length)
    };
    (result == 0).then_some(Maker { process: maker.pid, user: maker.uid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_before_the_end_arrives() {
        for unread in [0, 1, 3] {
            let (ours, theirs) = pair().unwrap();
            (0..unread).for_each(|_| assert!(send(&ours, &[b"call"], &[]).unwrap()));
            for n in 0..3 {
                assert!(send(&theirs, &[&[n]], &[]).unwrap());
            }
            drop(theirs);
            let mut buffer = [0; 16];
            for n in 0..3 {
                let received = receive(&ours, &mut buffer, false).unwrap();
                assert!(matches!(received, Received::Message(1, _)) && buffer[0] == n, "{received:?}");
            }
            assert!(matches!(receive(&ours, &mut buffer, false), Ok(Received::End)));
        }
    }
    #[test]
    fn a_message_is_looked_at_and_stays() {
        let (ours, theirs) = pair().unwrap();
        assert!(!next_begins_with(&ours, b"hello"), "there is none");
        assert!(send(&theirs, &[b"hello there"], &[]).unwrap());
        assert!(next_begins_with(&ours, b"hello") && !next_begins_with(&ours, b"help"));
        assert!(!next_begins_with(&ours, b"hello there, and more"));
        assert_eq!(next_length(&ours).unwrap(), 11);
        let maker =
            Maker { process: rustix::process::getpid().as_raw_pid(), user: rustix::process::geteuid().as_raw() };
        assert_eq!(made_by(&ours), Some(maker));
        assert_eq!(made_by(rustix::pipe::pipe().unwrap().0), None);
    }
}
