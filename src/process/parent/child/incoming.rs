//! What a worker has written and the parent has not processed.

use std::io;
use std::os::fd::OwnedFd;

use super::inflight::{Inflight, Work};
use crate::os::socket::{self, Received};
use crate::process::body::{Body, Element};
use crate::process::link::{ParentLink, Stash};
use crate::process::parent::job::JobBox;
use crate::process::wire::{LONGEST_REPORT, ProtocolError, Reply, ReplyKind, message};

/// How many messages, and how many bytes of them, are read at a time: more than a socket holds. This is limited because the
/// reading thread holds the pool's lock.
const MAX_MESSAGES: usize = 1024;
const MAX_BYTES: usize = 4 << 20;

/// The most messages for the supervisor, and the most messages with descriptors of replies, that are kept until they are handled.
/// A worker of this crate stays far below this limit; anything beyond it is dropped.
const MAX_UNHANDLED: usize = 256;

#[derive(Default)]
pub(super) struct Incoming {
    trust: Trust,
    /// The reply that is being read.
    reading: Option<Reading>,
    /// Descriptors that have arrived for replies.
    attachments: Stash,
    /// Messages for the supervisor.
    messages: Vec<Vec<u8>>,
    /// There may be messages or output left to read that `epoll` will not report again.
    has_more: bool,
}

/// Whether what the worker writes can be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Trust {
    #[default]
    Full,
    /// Its end of the control socket is closed. It may still reply, but cannot announce its replies.
    SocketClosed,
    /// It has broken the protocol: nothing is read any more.
    Violated,
}

struct Reading {
    reply: Reply,
    body: Body,
    work: Work,
}

/// A complete reply.
pub(super) struct Whole {
    pub(super) reply: Reply,
    pub(super) body: Body,
    pub(super) work: Work,
}

impl Incoming {
    pub(super) fn trust(&self) -> Trust {
        self.trust
    }

    pub(super) fn socket_closed(&mut self) {
        if self.trust == Trust::Full {
            self.trust = Trust::SocketClosed;
        }
    }

    pub(super) fn violated(&mut self) {
        self.trust = Trust::Violated;
    }

    /// Returns `true` if a reply has arrived only in part.
    pub(super) fn is_reading(&self) -> bool {
        self.reading.is_some()
    }

    /// Returns `true` if that is the reply to this task.
    pub(super) fn is_reading_task(&self, id: u64) -> bool {
        self.reading.as_ref().is_some_and(|reading| matches!(&reading.work, Work::Task(job) if job.id == id))
    }

    /// Removes the task whose reply will never be complete.
    pub(super) fn drain_task(&mut self) -> Option<JobBox> {
        match self.reading.take()?.work {
            Work::Task(job) => Some(job),
            Work::Initializer | Work::Forgotten(_) => None,
        }
    }

    /// Reads the next reply, as far as it has arrived; returns `None` if it is not complete. `awaits_argument`: the argument of
    /// the last call has not been written completely.
    pub(super) fn receive(
        &mut self,
        link: &mut ParentLink,
        inflight: &mut Inflight,
        limit: u64,
        awaits_argument: bool,
    ) -> Result<Option<Whole>, ProtocolError> {
        if self.trust == Trust::Violated {
            return Ok(None);
        }
        if self.reading.is_none() {
            let Some(reply) = link.receive()? else { return Ok(None) };
            self.reading = Some(self.begin(link, inflight, reply, limit, awaits_argument)?);
        }
        let Some(reading) = &mut self.reading else { return Ok(None) };
        if !link.receive_body(&mut reading.body, reading.reply.len)? {
            return Ok(None);
        }
        Ok(self.reading.take().map(|Reading { reply, body, work }| Whole { reply, body, work }))
    }

    /// The head of a reply has arrived: checks it, and allocates the body.
    fn begin(
        &mut self,
        link: &mut ParentLink,
        inflight: &mut Inflight,
        reply: Reply,
        limit: u64,
        awaits_argument: bool,
    ) -> Result<Reading, ProtocolError> {
        let place = inflight.find_call(reply.id).ok_or(ProtocolError("a reply to a call that it does not have"))?;
        let limit = if reply.kind.is_good() { limit } else { LONGEST_REPORT };
        if reply.len as u64 > limit {
            return Err(ProtocolError("a reply that is longer than allowed"));
        }
        if awaits_argument && inflight.is_last(place) {
            return Err(ProtocolError("a reply to a call that it has not got yet"));
        }
        let element = match (inflight.work(place), reply.kind) {
            (Work::Task(job), ReplyKind::Value) => job.element,
            _ => Element::BYTE,
        };
        let mut body =
            Body::with_capacity(element, reply.len).ok_or(ProtocolError("a reply for which there is no memory"))?;
        if reply.attachments > 0 {
            // They were sent before the reply was published, so they are there.
            let _ = self.read_messages(link);
            // This has consumed the socket's event. If there were messages for the supervisor among them, it has to be told. If
            // there was a wake-up message, the bell is armed again; replies that have arrived meanwhile are looked for
            // afterwards.
            self.has_more |= !self.messages.is_empty();
            link.arm_bell();
            // If there are too few, decoding fails.
            body.attachments = self.attachments.take(reply.id, reply.attachments.into()).unwrap_or_default();
        }
        let work = inflight.answered(place, reply.took);
        Ok(Reading { reply, body, work })
    }

    /// Reads the messages on the control socket. Reads all that had arrived before, but not all that arrives meanwhile. Returns
    /// `false` if the worker's end is closed.
    pub(super) fn read_messages(&mut self, link: &mut ParentLink) -> io::Result<bool> {
        let (mut short, mut long) = ([0; 1024], Vec::new());
        let buffer = if link.can_take_back() {
            &mut short[..]
        } else {
            // Without shared memory, replies arrive in long messages through the socket.
            long.resize(socket::LONGEST, 0);
            &mut long[..]
        };
        let (mut messages, mut bytes) = (0, 0);
        while messages < MAX_MESSAGES && bytes < MAX_BYTES {
            match socket::receive(link.socket(), buffer, false)? {
                Received::Message(length, fds) => {
                    messages += 1;
                    bytes += length;
                    self.sort(link, &buffer[..length], fds);
                }
                Received::Nothing => return Ok(true),
                Received::End => return Ok(false),
            }
        }
        self.has_more = true;
        Ok(true)
    }

    fn sort(&mut self, link: &mut ParentLink, bytes: &[u8], fds: Vec<OwnedFd>) {
        match bytes.split_first() {
            Some((&message::ATTACHMENTS, head)) if self.attachments.len() < MAX_UNHANDLED => {
                self.attachments.keep(head, fds);
            }
            Some((&message::PIECE, piece)) if link.take_in(piece) => {}
            // Its purpose was to wake the reader.
            Some((&message::BELL, [])) => {}
            _ if self.messages.len() < MAX_UNHANDLED => self.messages.push(bytes.to_vec()),
            _ => {}
        }
    }

    pub(super) fn take_messages(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.messages)
    }

    pub(super) fn note_more(&mut self, has_more: bool) {
        self.has_more |= has_more;
    }

    pub(super) fn has_more(&self) -> bool {
        self.has_more
    }

    pub(super) fn take_has_more(&mut self) -> bool {
        std::mem::take(&mut self.has_more)
    }
}
