//! How calls and replies are transferred: through shared memory if the system supports it, otherwise through the socket alone.
//! No other module depends on which of the two it is.

mod ring;
mod socket;
mod wait_flags;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::lock::Mutex;

use super::body::Body;
use super::shared_bytes::{self, SharedBytes};
use super::wire::{Call, ProtocolError, Reply, message};
use crate::os;
use crate::os::socket::Received;

pub(super) use ring::{INLINE, Shared};
#[cfg(fuzzing)]
pub(super) use ring::{ParentEnd, scribble};
pub(super) use wait_flags::{BEGUN, QUEUED};

/// How arguments and results are transferred to and from the workers of a pool
/// ([`transport`](crate::ProcessPoolBuilder::transport)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Transport {
    /// Shared memory if the system supports it, otherwise the socket. The environment variable `CONCURRENT_FUTURES_TRANSPORT`
    /// (`shared-memory` or `socket`) overrides this choice.
    #[default]
    Auto,
    /// Rings in shared memory, 512 KiB per worker, with futexes for sleeping.
    SharedMemory,
    /// One socket per worker, and no `pidfd` for the worker in this process. Slower, and workers get no tasks in advance.
    Socket,
}

impl Transport {
    /// Replaces [`Auto`](Self::Auto) by a concrete transport.
    pub(super) fn resolve(self) -> Self {
        if self != Self::Auto {
            return self;
        }
        match std::env::var("CONCURRENT_FUTURES_TRANSPORT").as_deref() {
            Ok("socket") => Self::Socket,
            Ok("shared-memory") => Self::SharedMemory,
            _ if os::futex::is_available() && os::shm::is_available(Shared::file_size(ring::RING, 1)) => {
                Self::SharedMemory
            }
            _ => Self::Socket,
        }
    }
}

/// The parent's end of a link.
pub(super) struct ParentLink {
    socket: Arc<OwnedFd>,
    backend: ParentBackend,
}

enum ParentBackend {
    Ring(ring::ParentEnd),
    Socket(socket::ParentEnd),
}

impl ParentLink {
    /// A new link of the given kind; the shared memory, if any, has to be passed to the worker.
    pub(super) fn new(socket: OwnedFd, transport: Transport, threads: usize) -> io::Result<(Self, Option<OwnedFd>)> {
        let socket = Arc::new(socket);
        if transport == Transport::Socket {
            let backend = ParentBackend::Socket(socket::ParentEnd::new(Arc::clone(&socket)));
            return Ok((Self { socket, backend }, None));
        }
        let memory = os::shm::create(Shared::file_size(ring::RING, threads))?;
        let backend = ParentBackend::Ring(ring::ParentEnd::new(&Shared::map(&memory, ring::RING, threads)?));
        Ok((Self { socket, backend }, Some(memory)))
    }

    /// Is there room for a call with a body of that length now, as far as is known?
    pub(super) fn has_room(&mut self, len: usize) -> Result<bool, ProtocolError> {
        match &mut self.backend {
            ParentBackend::Ring(ring) => ring.has_room_for(len),
            ParentBackend::Socket(_) => Ok(true),
        }
    }

    /// Sends the descriptors for the call with that id, which is sent next; returns `false` if there is no room for them. In
    /// that case, or if there is no room for the call, either all of them have to be sent again or none.
    pub(super) fn send_attachments(&self, id: u64, attachments: &[SharedBytes]) -> bool {
        attachment_messages(id, attachments)
            .all(|(head, fds)| matches!(os::socket::send(&*self.socket, &[&head], &fds), Ok(true)))
    }

    /// The length of the rings; 0 if there are none.
    pub(super) fn ring(&self) -> usize {
        match self.backend {
            ParentBackend::Ring(_) => ring::RING,
            ParentBackend::Socket(_) => 0,
        }
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(super) fn shared(&self) -> Option<&Arc<Shared>> {
        match &self.backend {
            ParentBackend::Ring(ring) => Some(ring.shared()),
            ParentBackend::Socket(_) => None,
        }
    }

    /// Can calls that have been sent be taken back?
    pub(super) fn can_take_back(&self) -> bool {
        matches!(self.backend, ParentBackend::Ring(_))
    }

    /// Sends a call with as much of its body as fits; returns its position and how much of the body was sent. `None`: no room
    /// for it now.
    pub(super) fn send(&mut self, call: Call, claim: u32, body: &[u8]) -> Result<Option<(u64, usize)>, ProtocolError> {
        match &mut self.backend {
            ParentBackend::Ring(ring) => ring.send(call, claim, body),
            ParentBackend::Socket(socket) => Ok(socket.send(call, body)?.map(|sent| (0, sent))),
        }
    }

    /// Sends more of a body, of which `sent` bytes have been sent; returns the new total.
    pub(super) fn send_more(&mut self, body: &[u8], sent: usize) -> Result<usize, ProtocolError> {
        match &mut self.backend {
            ParentBackend::Ring(ring) => ring.send_more(body, sent),
            ParentBackend::Socket(socket) => socket.send_more(body, sent),
        }
    }

    /// Asks to be notified of room.
    pub(super) fn want_room(&mut self) {
        match &mut self.backend {
            ParentBackend::Ring(ring) => ring.want_room(),
            // The socket is watched for room anyway.
            ParentBackend::Socket(_) => {}
        }
    }

    pub(super) fn wake_worker(&self) {
        match &self.backend {
            ParentBackend::Ring(ring) => ring.wake_worker(),
            ParentBackend::Socket(_) => {}
        }
    }

    pub(super) fn take_back(&self, position: u64) -> bool {
        match &self.backend {
            ParentBackend::Ring(ring) => ring.take_back(position),
            ParentBackend::Socket(_) => false,
        }
    }

    /// Has the worker begun that call? `served`: whether it has begun to serve calls at all.
    pub(super) fn has_begun(&self, position: u64, served: bool) -> bool {
        match &self.backend {
            ParentBackend::Ring(ring) => ring.has_begun(position),
            ParentBackend::Socket(_) => served,
        }
    }

    /// When the worker began that call, in nanoseconds of the monotonic clock; 0 if it has not. `None`: unknown.
    pub(super) fn begun_at(&self, position: u64) -> Option<u64> {
        match &self.backend {
            ParentBackend::Ring(ring) => Some(ring.begun_at(position)),
            ParentBackend::Socket(_) => None,
        }
    }

    /// The item of that call that the worker has begun last.
    pub(super) fn progress(&self, position: u64) -> u64 {
        match &self.backend {
            ParentBackend::Ring(ring) => ring.progress(position),
            ParentBackend::Socket(_) => u64::MAX,
        }
    }

    pub(super) fn has_replies(&self) -> bool {
        match &self.backend {
            ParentBackend::Ring(ring) => ring.has_replies(),
            ParentBackend::Socket(socket) => socket.has_replies(),
        }
    }

    /// Asks for a message at the next reply; returns `false` if there is a reply already.
    pub(super) fn arm_bell(&self) -> bool {
        match &self.backend {
            ParentBackend::Ring(ring) => ring.arm_bell(),
            ParentBackend::Socket(socket) => !socket.has_replies(),
        }
    }

    pub(super) fn receive(&mut self) -> Result<Option<Reply>, ProtocolError> {
        match &mut self.backend {
            ParentBackend::Ring(ring) => ring.receive(),
            ParentBackend::Socket(socket) => socket.receive(),
        }
    }

    /// Receives what is available of a body of that length; returns `true` when it is complete.
    pub(super) fn receive_body(&mut self, body: &mut Body, length: usize) -> Result<bool, ProtocolError> {
        match &mut self.backend {
            ParentBackend::Ring(ring) => ring.receive_body(body, length),
            ParentBackend::Socket(socket) => Ok(socket.receive_body(body, length)),
        }
    }

    /// Takes in a piece that was received on the socket; returns `false` if this transport uses none.
    pub(super) fn take_in(&mut self, piece: &[u8]) -> bool {
        match &mut self.backend {
            ParentBackend::Ring(_) => false,
            ParentBackend::Socket(socket) => {
                socket.take_in(piece);
                true
            }
        }
    }
}

/// The messages with the descriptors of the call or reply with that id. Each contains the index of its first descriptor.
fn attachment_messages(
    id: u64,
    attachments: &[SharedBytes],
) -> impl Iterator<Item = ([u8; ATTACHMENTS_HEAD], Vec<BorrowedFd<'_>>)> {
    attachments.chunks(os::socket::MOST_FDS).enumerate().map(move |(n, some)| {
        let mut head = [message::ATTACHMENTS; ATTACHMENTS_HEAD];
        head[1..9].copy_from_slice(&id.to_ne_bytes());
        head[9..].copy_from_slice(&((n * os::socket::MOST_FDS) as u16).to_ne_bytes());
        (head, some.iter().map(SharedBytes::fd).collect())
    })
}

const ATTACHMENTS_HEAD: usize = 11;

/// The descriptors received for calls, or for replies, by id.
#[derive(Debug, Default)]
pub(super) struct Stash(HashMap<u64, Vec<OwnedFd>>);

impl Stash {
    /// The number of calls or replies that have descriptors here.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Stores the descriptors of a message; `head` is the message without its first byte.
    pub(super) fn keep(&mut self, head: &[u8], fds: Vec<OwnedFd>) {
        let Ok(head) = <&[u8; ATTACHMENTS_HEAD - 1]>::try_from(head) else { return };
        let (id, first) = head.split_at(8);
        let id = id.try_into().map_or(u64::MAX, u64::from_ne_bytes);
        let first = first.try_into().map_or(usize::MAX, |first| usize::from(u16::from_ne_bytes(first)));
        let list = self.0.entry(id).or_default();
        // Descriptors may be sent again from the first one on; then they replace those received before.
        list.truncate(first);
        list.extend(fds);
        list.truncate(shared_bytes::MOST);
    }

    /// Removes and returns the descriptors of that call or reply, if at least `wanted` have been received.
    pub(super) fn take(&mut self, id: u64, wanted: usize) -> Option<Vec<OwnedFd>> {
        self.0.get(&id).filter(|fds| fds.len() >= wanted)?;
        let mut fds = self.0.remove(&id)?;
        fds.truncate(wanted);
        Some(fds)
    }

    /// Closes all that are left.
    fn clear(&mut self) {
        self.0.clear();
    }
}

/// The worker's end of a link.
pub(super) struct WorkerLink {
    socket: Arc<OwnedFd>,
    shared: Option<Arc<Shared>>,
    stash: Arc<Mutex<Stash>>,
}

impl WorkerLink {
    pub(super) fn new(socket: OwnedFd, memory: Option<OwnedFd>, ring: u64, threads: u32) -> io::Result<Self> {
        let capacity = usize::try_from(ring).map_err(|_| io::ErrorKind::InvalidInput)?;
        let shared = match (capacity, memory) {
            (0, _) => None,
            (_, Some(memory)) => Some(Shared::map(memory, capacity, threads.max(1) as usize)?),
            (_, None) => return Err(io::ErrorKind::InvalidInput.into()),
        };
        Ok(Self { socket: Arc::new(socket), shared, stash: Arc::default() })
    }

    pub(super) fn shared(&self) -> Option<&Arc<Shared>> {
        self.shared.as_ref()
    }

    pub(super) fn ends(&self) -> (Calls, Replies) {
        match &self.shared {
            Some(shared) => {
                let (calls, replies) = ring::worker_ends(shared);
                (Calls::Ring(calls), Replies::Ring(replies))
            }
            None => (
                Calls::Socket(socket::Calls::new(Arc::clone(&self.socket), Arc::clone(&self.stash))),
                Replies::Socket(socket::Replies::new(Arc::clone(&self.socket))),
            ),
        }
    }

    /// Sends a message that the parent waits for.
    pub(super) fn send_message(&self, bytes: &[u8]) -> io::Result<()> {
        os::socket::send(&*self.socket, &[bytes], &[]).map(drop)
    }

    /// The descriptors that belong to a call.
    pub(super) fn attachments(&self, call: &Call) -> Result<Vec<OwnedFd>, ProtocolError> {
        let wanted = usize::from(call.attachments);
        if wanted == 0 {
            return Ok(Vec::new());
        }
        let mut buffer = vec![0; os::socket::LONGEST];
        loop {
            let mut stash = self.stash.lock();
            if let Some(fds) = stash.take(call.id, wanted) {
                // Earlier calls have theirs, and those of later calls have not been read: the thread that begins a call holds
                // the lock of the calls until here. The rest belongs to a call that was not sent to this worker after all.
                stash.clear();
                return Ok(fds);
            }
            drop(stash);
            // They were sent before the call was published.
            match os::socket::receive(&*self.socket, &mut buffer, true) {
                Ok(Received::Message(length, fds)) if buffer[0] == message::ATTACHMENTS => {
                    self.stash.lock().keep(&buffer[1..length], fds);
                }
                _ => return Err(ProtocolError("too few descriptors")),
            }
        }
    }

    /// Sends the descriptors for the reply with that id, which is sent next.
    pub(super) fn send_attachments(&self, id: u64, attachments: &[SharedBytes]) -> Result<(), ProtocolError> {
        for (head, fds) in attachment_messages(id, attachments) {
            loop {
                match os::socket::send(&*self.socket, &[&head], &fds) {
                    Ok(true) => break,
                    Ok(false) => socket::wait_for_room(&*self.socket).map_err(|_| ProtocolError("nothing more"))?,
                    Err(_) => return Err(ProtocolError("nothing more: descriptors cannot be sent")),
                }
            }
        }
        Ok(())
    }

    /// Notifies the parent. If the socket is full, enough notifications are pending.
    pub(super) fn bell(&self) {
        let _ = os::socket::send(&*self.socket, &[&[message::BELL]], &[]);
    }

    /// Where serving thread `thread` stores the index of the current item of its call.
    pub(super) fn progress(&self, thread: usize) -> Option<&AtomicU64> {
        self.shared.as_ref().map(|shared| shared.progress(thread))
    }
}

/// The worker's end of the calls.
pub(super) enum Calls {
    Ring(ring::Calls),
    Socket(socket::Calls),
}

impl Calls {
    /// Is there a call?
    pub(super) fn is_ready(&mut self) -> Result<bool, ProtocolError> {
        match self {
            Self::Ring(ring) => ring.is_ready(),
            Self::Socket(socket) => socket.is_ready(),
        }
    }

    /// Is [`is_ready`](Self::is_ready) cheap enough to spin on?
    pub(super) fn can_spin(&self) -> bool {
        matches!(self, Self::Ring(_))
    }

    /// Sleeps until there may be something to read.
    pub(super) fn sleep(&mut self) -> Result<(), ProtocolError> {
        match self {
            Self::Ring(ring) => ring.sleep(),
            Self::Socket(socket) => socket.sleep(),
        }
    }

    /// Serving thread `thread` begins the next call, which [`is_ready`](Self::is_ready) has announced. `None`: the parent has
    /// taken it back, and it has been skipped.
    pub(super) fn begin(&mut self, now: u64, thread: usize) -> Result<Option<Call>, ProtocolError> {
        match self {
            Self::Ring(ring) => ring.begin(now, thread),
            Self::Socket(socket) => socket.begin().map(Some),
        }
    }

    /// Must the parent be notified of the room that has been made?
    pub(super) fn must_announce_room(&self) -> bool {
        match self {
            Self::Ring(ring) => ring.must_announce_room(),
            Self::Socket(_) => false,
        }
    }

    /// Passes the body of the call that has just begun to `f`. The body must be short.
    pub(super) fn with_body<R>(&mut self, length: usize, f: impl FnOnce(&[u8]) -> R) -> Result<R, ProtocolError> {
        match self {
            Self::Ring(ring) => Ok(ring.with_body(length, f)),
            Self::Socket(socket) => socket.with_body(length, f),
        }
    }

    /// Copies a long body to `to`, as it arrives.
    pub(super) fn read_body(&mut self, to: &mut Body, length: usize, bell: impl FnMut()) -> Result<(), ProtocolError> {
        match self {
            Self::Ring(ring) => ring.read_body(to, length, bell),
            Self::Socket(socket) => socket.read_body(to, length),
        }
    }
}

/// The worker's end of the replies.
pub(super) enum Replies {
    Ring(ring::Replies),
    Socket(socket::Replies),
}

impl Replies {
    /// Sends a reply; sleeps when there is no room. `bell` sends a message on the socket.
    pub(super) fn send(&mut self, reply: Reply, body: &[u8], bell: impl FnMut()) -> Result<(), ProtocolError> {
        match self {
            Self::Ring(ring) => ring.send(reply, body, bell),
            Self::Socket(socket) => socket.send(reply, body),
        }
    }

    /// Notifies the parent that there are replies, if it has asked for it.
    pub(super) fn ring(&self, bell: &mut impl FnMut()) {
        match self {
            Self::Ring(ring) => ring.ring(bell),
            // The reply itself is the notification.
            Self::Socket(_) => {}
        }
    }

    /// Wakes only the threads that sleep for a reply.
    pub(super) fn wake_sleepers(&self) {
        match self {
            Self::Ring(ring) => ring.wake_sleepers(),
            Self::Socket(_) => {}
        }
    }

    /// Has the parent consumed everything?
    pub(super) fn are_consumed(&self) -> bool {
        match self {
            Self::Ring(ring) => ring.are_consumed(),
            Self::Socket(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::CallKind;
    use super::*;

    fn link() -> (ParentLink, WorkerLink) {
        let (ours, theirs) = os::socket::pair().unwrap();
        let (parent, memory) = ParentLink::new(ours, Transport::SharedMemory, 1).unwrap();
        let worker = WorkerLink::new(theirs, memory, parent.ring() as u64, 1).unwrap();
        (parent, worker)
    }

    fn call(id: u64, attachments: usize) -> Call {
        Call { kind: CallKind::Task, id, function: 0, len: 0, attachments: attachments as u16 }
    }

    /// Values that differ in length.
    fn values(lengths: std::ops::Range<usize>) -> Vec<SharedBytes> {
        lengths.map(|length| SharedBytes::with(length, |_| ()).unwrap()).collect()
    }

    #[track_caller]
    fn are(fds: &[OwnedFd], lengths: std::ops::Range<usize>) {
        let found: Vec<_> = fds.iter().map(|fd| rustix::fs::fstat(fd).unwrap().st_size as usize).collect();
        assert_eq!(found, lengths.collect::<Vec<_>>());
    }

    #[test]
    fn nothing_is_left_of_a_call_whose_descriptors_were_taken() {
        let (parent, worker) = link();
        for id in 1..100 {
            assert!(parent.send_attachments(id, &values(0..2)));
            are(&worker.attachments(&call(id, 2)).unwrap(), 0..2);
            assert_eq!(worker.stash.lock().len(), 0, "after call {id}");
        }
    }

    // The parent sends all of them again if there was no room for all.
    #[test]
    fn descriptors_that_are_sent_again_are_there_once() {
        let (parent, worker) = link();
        let all = values(0..40);
        for some in [0, 10, 16, 40] {
            assert!(parent.send_attachments(7, &all[..some]));
        }
        assert!(parent.send_attachments(7, &all));
        // When the worker looks for more than was sent, it has read everything.
        drop(parent);
        assert!(worker.attachments(&call(8, 1)).is_err());
        are(&worker.attachments(&call(7, 40)).unwrap(), 0..40);
        assert_eq!(worker.stash.lock().len(), 0);
    }

    #[test]
    fn descriptors_of_a_call_that_went_elsewhere_are_closed() {
        let (parent, worker) = link();
        assert!(parent.send_attachments(1, &values(0..3)));
        assert!(parent.send_attachments(2, &values(3..4)));
        are(&worker.attachments(&call(2, 1)).unwrap(), 3..4);
        assert_eq!(worker.stash.lock().len(), 0);
    }
}
