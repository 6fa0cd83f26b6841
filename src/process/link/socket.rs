//! Calls and replies through the control socket alone, for systems without shared memory or futexes: the same stream of heads
//! and bodies, cut into messages. A call cannot be taken back once it is sent, so a worker gets none in advance.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::lock::Mutex;
use rustix::event::{PollFd, PollFlags, poll};

use super::super::body::Body;
use super::super::wire::{CALL_HEAD, Call, ProtocolError, REPLY_HEAD, Reply, message, padded};
use super::Stash;
use super::wait_flags::BEGUN;
use crate::os::socket::{self, Received};

/// The longest part of a body in one message.
const PIECE: usize = 32 * 1024;

const PADDING: [u8; 16] = [0; 16];

const BROKEN: ProtocolError = ProtocolError("nothing more: the socket is closed");

/// Sends one piece; returns `false` if there is no room for it.
fn send_piece(socket: &OwnedFd, head: &[u8], body: &[u8]) -> io::Result<bool> {
    let mut first = Vec::with_capacity(1 + head.len());
    first.push(message::PIECE);
    first.extend_from_slice(head);
    socket::send(socket, &[&first, body], &[])
}

/// [`send_piece`] for the parent: if the worker has ended, there will never be room, which the supervisor detects.
fn send_piece_to_worker(socket: &OwnedFd, head: &[u8], body: &[u8]) -> Result<bool, ProtocolError> {
    match send_piece(socket, head, body) {
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => Ok(false),
        sent => sent.map_err(|_| BROKEN),
    }
}

/// At most one piece of the padded body, from offset `at` on.
fn piece(body: &[u8], at: usize) -> &[u8] {
    match body.get(at..) {
        Some(rest) if !rest.is_empty() => &rest[..rest.len().min(PIECE)],
        _ => &PADDING[..padded(body.len()) - at],
    }
}

/// The parent's end.
pub(in crate::process) struct ParentEnd {
    socket: Arc<OwnedFd>,
    inbox: VecDeque<u8>,
}

impl ParentEnd {
    pub(in crate::process) fn new(socket: Arc<OwnedFd>) -> Self {
        Self { socket, inbox: VecDeque::new() }
    }

    /// Sends the head and as much of the body (padding included) as fits; `None` if not even the head does.
    pub(in crate::process) fn send(&mut self, call: Call, body: &[u8]) -> Result<Option<usize>, ProtocolError> {
        let first = piece(body, 0);
        if send_piece_to_worker(&self.socket, &call.to_bytes(BEGUN), first)? {
            self.send_more(body, first.len()).map(Some)
        } else {
            Ok(None)
        }
    }

    pub(in crate::process) fn send_more(&mut self, body: &[u8], mut sent: usize) -> Result<usize, ProtocolError> {
        while sent < padded(body.len()) {
            let next = piece(body, sent);
            if !send_piece_to_worker(&self.socket, &[], next)? {
                break;
            }
            sent += next.len();
        }
        Ok(sent)
    }

    /// Takes a message in.
    pub(in crate::process) fn take_in(&mut self, piece: &[u8]) {
        self.inbox.extend(piece);
    }

    pub(in crate::process) fn has_replies(&self) -> bool {
        !self.inbox.is_empty()
    }

    pub(in crate::process) fn receive(&mut self) -> Result<Option<Reply>, ProtocolError> {
        let Some(head) = take_head::<REPLY_HEAD>(&mut self.inbox) else { return Ok(None) };
        Reply::from_bytes(&head).map(Some)
    }

    pub(in crate::process) fn receive_body(&mut self, body: &mut Body, length: usize) -> bool {
        let now = (length - body.len()).min(self.inbox.len());
        let (front, back) = self.inbox.as_slices();
        let cut = now.min(front.len());
        body.extend(&front[..cut]);
        body.extend(&back[..now - cut]);
        self.inbox.drain(..now);
        let padding = padded(length) - length;
        let whole = body.len() == length && self.inbox.len() >= padding;
        if whole {
            self.inbox.drain(..padding);
        }
        whole
    }
}

fn take_head<const N: usize>(inbox: &mut VecDeque<u8>) -> Option<[u8; N]> {
    if inbox.len() < N {
        return None;
    }
    let mut head = [0; N];
    for (to, from) in head.iter_mut().zip(inbox.drain(..N)) {
        *to = from;
    }
    Some(head)
}

/// The worker's end of the calls.
pub(in crate::process) struct Calls {
    socket: Arc<OwnedFd>,
    inbox: VecDeque<u8>,
    buffer: Vec<u8>,
    stash: Arc<Mutex<Stash>>,
}

impl Calls {
    pub(in crate::process) fn new(socket: Arc<OwnedFd>, stash: Arc<Mutex<Stash>>) -> Self {
        Self { socket, inbox: VecDeque::new(), buffer: vec![0; socket::LONGEST], stash }
    }

    fn receive(&mut self, wait: bool) -> Result<(), ProtocolError> {
        match socket::receive(&*self.socket, &mut self.buffer, wait) {
            Ok(Received::Message(length, _)) if self.buffer[0] == message::PIECE => {
                self.inbox.extend(&self.buffer[1..length]);
                Ok(())
            }
            Ok(Received::Message(length, fds)) if self.buffer[0] == message::ATTACHMENTS => {
                self.stash.lock().keep(&self.buffer[1..length], fds);
                Ok(())
            }
            Ok(Received::Message(..)) => Err(ProtocolError("a message of an unknown kind")),
            Ok(Received::Nothing) => Ok(()),
            Ok(Received::End) | Err(_) => Err(BROKEN),
        }
    }

    pub(in crate::process) fn is_ready(&mut self) -> Result<bool, ProtocolError> {
        if self.inbox.len() < CALL_HEAD {
            self.receive(false)?;
        }
        Ok(self.inbox.len() >= CALL_HEAD)
    }

    pub(in crate::process) fn sleep(&mut self) -> Result<(), ProtocolError> {
        self.receive(true)
    }

    pub(in crate::process) fn begin(&mut self) -> Result<Call, ProtocolError> {
        let head = take_head(&mut self.inbox).ok_or(ProtocolError("half a call"))?;
        Call::from_bytes(&head)
    }

    /// Passes a body to `f` when it is complete.
    pub(in crate::process) fn with_body<R>(
        &mut self,
        length: usize,
        f: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, ProtocolError> {
        while self.inbox.len() < padded(length) {
            self.receive(true)?;
        }
        let result = f(&self.inbox.make_contiguous()[..length]);
        self.inbox.drain(..padded(length));
        Ok(result)
    }

    /// Copies a body to `to`, as it arrives.
    pub(in crate::process) fn read_body(&mut self, to: &mut Body, length: usize) -> Result<(), ProtocolError> {
        while to.len() < length {
            if self.inbox.is_empty() {
                self.receive(true)?;
            }
            let now = (length - to.len()).min(self.inbox.len());
            to.extend(&self.inbox.make_contiguous()[..now]);
            self.inbox.drain(..now);
        }
        let padding = padded(length) - length;
        while self.inbox.len() < padding {
            self.receive(true)?;
        }
        self.inbox.drain(..padding);
        Ok(())
    }
}

/// The worker's end of the replies.
pub(in crate::process) struct Replies(Arc<OwnedFd>);

impl Replies {
    pub(in crate::process) fn new(socket: Arc<OwnedFd>) -> Self {
        Self(socket)
    }

    pub(in crate::process) fn send(&mut self, reply: Reply, body: &[u8]) -> Result<(), ProtocolError> {
        let first = piece(body, 0);
        self.send_whole(&reply.to_bytes(), first)?;
        let mut sent = first.len();
        while sent < padded(body.len()) {
            let next = piece(body, sent);
            self.send_whole(&[], next)?;
            sent += next.len();
        }
        Ok(())
    }

    fn send_whole(&self, head: &[u8], body: &[u8]) -> Result<(), ProtocolError> {
        while !send_piece(&self.0, head, body).map_err(|_| BROKEN)? {
            wait_for_room(&self.0).map_err(|_| BROKEN)?;
        }
        Ok(())
    }
}

pub(super) fn wait_for_room(socket: impl AsFd) -> io::Result<()> {
    match poll(&mut [PollFd::new(&socket, PollFlags::OUT)], None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::wire::{CallKind, ReplyKind};
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn ends() -> (ParentEnd, Calls, Replies) {
        let (ours, theirs) = socket::pair().unwrap();
        let theirs = Arc::new(theirs);
        (ParentEnd::new(Arc::new(ours)), Calls::new(Arc::clone(&theirs), Arc::default()), Replies::new(theirs))
    }

    proptest! {
        #[test]
        fn bodies_of_any_length_arrive(length in 0usize..100_000) {
            let (mut parent, mut calls, mut replies) = ends();
            let body: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let call = Call { kind: CallKind::Task, id: 7, function: 1, len: length, attachments: 0 };
            let sent = parent.send(call, &body).unwrap().unwrap();
            prop_assert_eq!(sent, padded(length));
            prop_assert!(calls.is_ready().unwrap());
            prop_assert_eq!(calls.begin().unwrap(), call);
            prop_assert!(calls.with_body(length, |bytes| bytes == &body[..]).unwrap());

            let took = Duration::ZERO;
            let reply = Reply { kind: ReplyKind::Value, retire: false, id: 7, len: length, took, attachments: 0 };
            replies.send(reply, &body).unwrap();
            let mut buffer = vec![0; socket::LONGEST];
            while let Received::Message(got, _) = socket::receive(&*parent.socket, &mut buffer, false).unwrap() {
                parent.take_in(&buffer[1..got]);
            }
            prop_assert_eq!(parent.receive().unwrap(), Some(reply));
            let mut arrived = Body::of::<Vec<u8>>(&[]);
            if length > 0 {
                arrived = Body::with_capacity(super::super::super::body::Element::BYTE, length).unwrap();
            }
            prop_assert!(parent.receive_body(&mut arrived, length));
            prop_assert_eq!(arrived.as_slice(), &body[..]);
            prop_assert!(!parent.has_replies());
        }
    }
}
