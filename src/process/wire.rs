//! The format of the messages between the two sides. There is no input or output here.
//!
//! A *call* is a head of [`CALL_HEAD`] bytes and the bytes of the argument; a *reply* a head of [`REPLY_HEAD`] bytes and the
//! bytes of the result. Bodies are padded to a multiple of [`ALIGN`]. Numbers are in the byte order of the machine: both sides
//! are the same program on the same machine, which the handshake checks.
//!
//! A faulty process may have written what is read here, so every value is checked.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// To be changed whenever anything here changes.
pub(super) const PROTOCOL: u32 = 4;

/// Bodies start and end at multiples of this.
pub(super) const ALIGN: usize = 16;

pub(super) const CALL_HEAD: usize = 32;
pub(super) const REPLY_HEAD: usize = 32;

/// The exit codes of a worker that does not end normally.
pub(super) mod exit_code {
    /// The parent has broken the protocol.
    pub(in crate::process) const VIOLATION: i32 = 70;
    /// The worker could not be set up, or the parent has ended.
    pub(in crate::process) const FAILED: i32 = 71;
    /// It could not start its threads, which may succeed later.
    pub(in crate::process) const NO_THREADS: i32 = 72;
    /// It was started as a worker, and its standard input is not the control socket.
    pub(in crate::process) const NO_SOCKET: i32 = 73;
    /// The system runs it in secure mode, because it has more rights than its parent.
    pub(in crate::process) const DISTRUSTED: i32 = 74;
    /// One of its own threads has panicked.
    pub(in crate::process) const PANICKED: i32 = 101;
}

/// The length of a body with its padding.
pub(super) fn padded(len: usize) -> usize {
    len.next_multiple_of(ALIGN)
}

/// What a worker is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallKind {
    /// Run a task.
    Task,
    /// Run the initializer; if that fails, nothing else may run.
    Initializer,
    /// End.
    Exit,
}

/// The head of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) kind: CallKind,
    pub(super) id: u64,
    /// The function, as an offset from the address at which the executable is loaded.
    pub(super) function: u64,
    /// The length of the argument in bytes.
    pub(super) len: usize,
    /// The number of descriptors sent for it.
    pub(super) attachments: u16,
}

impl Call {
    /// The head as bytes; the first word is the call's state (see `link::wait_flags`).
    pub(super) fn to_bytes(self, claim: u32) -> [u8; CALL_HEAD] {
        let mut bytes = [0; CALL_HEAD];
        bytes[0..4].copy_from_slice(&claim.to_ne_bytes());
        bytes[4] = match self.kind {
            CallKind::Task => 0,
            CallKind::Initializer => 1,
            CallKind::Exit => 2,
        };
        bytes[6..8].copy_from_slice(&self.attachments.to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.id.to_ne_bytes());
        bytes[16..24].copy_from_slice(&self.function.to_ne_bytes());
        bytes[24..32].copy_from_slice(&(self.len as u64).to_ne_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8; CALL_HEAD]) -> Result<Self, ProtocolError> {
        Ok(Self {
            kind: match bytes[4] {
                0 => CallKind::Task,
                1 => CallKind::Initializer,
                2 => CallKind::Exit,
                _ => return Err(ProtocolError("a call of an unknown kind")),
            },
            id: u64_at(bytes, 8),
            function: u64_at(bytes, 16),
            len: usize::try_from(u64_at(bytes, 24)).map_err(|_| ProtocolError("a call that is too long"))?,
            attachments: u16::from_ne_bytes([bytes[6], bytes[7]]),
        })
    }
}

/// The outcome of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplyKind {
    /// The body is the result.
    Value,
    /// The body is a [`Report`] of the panic.
    Panicked,
    /// The argument could not be decoded; the body is the reason, a text.
    NotDecoded,
    /// The result could not be encoded; the body is the reason, a text.
    NotEncoded,
    /// The result is longer than allowed; the body is its length, 8 bytes.
    TooLarge,
    /// The body is a list of results, of which some are reports of panics.
    Mixed,
}

/// The longest body of a reply that is not a result, in bytes.
pub(super) const LONGEST_REPORT: u64 = 1 << 20;

impl ReplyKind {
    /// Is the body a result?
    pub(super) fn is_good(self) -> bool {
        matches!(self, Self::Value | Self::Mixed)
    }
}

/// The head of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) kind: ReplyKind,
    /// The worker wants to be replaced.
    pub(super) retire: bool,
    pub(super) id: u64,
    /// The length of the body in bytes.
    pub(super) len: usize,
    /// How long the call took.
    pub(super) took: Duration,
    /// The number of descriptors sent with it.
    pub(super) attachments: u16,
}

impl Reply {
    pub(super) fn to_bytes(self) -> [u8; REPLY_HEAD] {
        let mut bytes = [0; REPLY_HEAD];
        bytes[0..8].copy_from_slice(&self.id.to_ne_bytes());
        bytes[8..16].copy_from_slice(&(self.len as u64).to_ne_bytes());
        bytes[16..24].copy_from_slice(&u64::try_from(self.took.as_nanos()).unwrap_or(u64::MAX).to_ne_bytes());
        bytes[24] = self.kind as u8;
        bytes[25] = self.retire.into();
        bytes[26..28].copy_from_slice(&self.attachments.to_ne_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8; REPLY_HEAD]) -> Result<Self, ProtocolError> {
        use ReplyKind::*;
        let kinds = [Value, Panicked, NotDecoded, NotEncoded, TooLarge, Mixed];
        Ok(Self {
            kind: *kinds.get(usize::from(bytes[24])).ok_or(ProtocolError("a reply of an unknown kind"))?,
            retire: bytes[25] != 0,
            id: u64_at(bytes, 0),
            len: usize::try_from(u64_at(bytes, 8)).map_err(|_| ProtocolError("a reply that is too long"))?,
            took: Duration::from_nanos(u64_at(bytes, 16)),
            attachments: u16::from_ne_bytes([bytes[26], bytes[27]]),
        })
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes are eight bytes"))
}

/// The peer violated the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the worker process sent {0}")]
pub(super) struct ProtocolError(pub(super) &'static str);

/// The first byte of a message on the control socket.
pub(super) mod message {
    /// Parent to worker, the very first message: an encoded [`Hello`](super::Hello).
    pub(in crate::process) const HELLO: u8 = 1;
    /// Worker to parent, its answer: an encoded [`Ready`](super::Ready).
    pub(in crate::process) const READY: u8 = 2;
    /// Worker to parent: the shared memory has changed.
    pub(in crate::process) const BELL: u8 = 3;
    /// Either way, without shared memory: a piece of the stream of calls or replies.
    pub(in crate::process) const PIECE: u8 = 4;
    /// Either way: descriptors that belong to the call or reply whose id follows.
    pub(in crate::process) const ATTACHMENTS: u8 = 5;
}

/// The beginning of the first message to a worker: [`message::HELLO`] and [`Hello::magic`]. No other program sends it.
pub(super) const GREETING: [u8; 16] = {
    let mut greeting = [message::HELLO; 16];
    let mut at = 0;
    while at < MAGIC.len() {
        greeting[at + 1] = MAGIC[at];
        at += 1;
    }
    greeting
};

/// Random bytes.
const MAGIC: [u8; 15] = [0x9d, 0x3b, 0xe1, 0x52, 0x07, 0xc8, 0x66, 0xfa, 0x14, 0xb0, 0x8f, 0x2d, 0x71, 0xd5, 0x4e];

/// What the parent tells a worker at its start. The shared memory comes with it, if there is any, and then a `pidfd` of the
/// parent, if the system supports that.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) magic: [u8; 15],
    pub(super) protocol: u32,
    pub(super) build: [u8; 32],
    /// How many levels of worker processes this one is below the first parent.
    pub(super) depth: u32,
    pub(super) threads: u32,
    /// The stack size of each of them, in bytes; by default as for other threads.
    pub(super) stack_size: Option<u64>,
    pub(super) name: String,
    /// The length of each ring; 0 means that there is no shared memory.
    pub(super) ring: u64,
    pub(super) largest: u64,
    /// How many levels deep values may be nested.
    pub(super) nesting: u32,
    pub(super) max_rss: Option<u64>,
    pub(super) memory_limit: Option<u64>,
    pub(super) cpu_limit: Option<u64>,
}

impl Hello {
    pub(super) const MAGIC: [u8; 15] = MAGIC;
}

/// The answer of a worker. Its layout is the same in all versions of this crate, so that a parent can read the refusal of a worker of
/// another version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Ready {
    pub(super) protocol: u32,
    pub(super) build: [u8; 32],
    /// The reason if it refuses to serve.
    pub(super) refusal: Option<String>,
}

/// A panic, as it is sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) message: String,
    pub(super) location: Option<(String, u32, u32)>,
    pub(super) thread: Option<String>,
    pub(super) backtrace: Option<String>,
}

/// Encodes one of the types above as a message.
pub(super) fn encode<T: Serialize>(first: u8, value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![first]).expect("these types can be encoded")
}

/// The inverse of [`encode`], without the first byte.
pub(super) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ProtocolError> {
    postcard::from_bytes(bytes).map_err(|_| ProtocolError("a message that cannot be decoded"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_reply_or_an_error(bytes: [u8; REPLY_HEAD]) {
            if let Ok(reply) = Reply::from_bytes(&bytes) {
                prop_assert_eq!(Reply::from_bytes(&reply.to_bytes()), Ok(reply));
            }
        }

        #[test]
        fn any_bytes_are_a_call_or_an_error(bytes: [u8; CALL_HEAD]) {
            if let Ok(call) = Call::from_bytes(&bytes) {
                prop_assert_eq!(Call::from_bytes(&call.to_bytes(1)), Ok(call));
            }
        }

        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes: Vec<u8>) {
            let _ = decode::<Hello>(&bytes);
            let _ = decode::<Ready>(&bytes);
            let _ = decode::<Report>(&bytes);
        }
    }

    #[test]
    fn a_greeting_begins_with_the_magic_bytes() {
        let (name, build) = ("worker".to_owned(), [1; 32]);
        let hello = Hello {
            magic: Hello::MAGIC,
            protocol: PROTOCOL,
            build,
            depth: 1,
            threads: 1,
            stack_size: None,
            name,
            ring: 0,
            largest: 0,
            nesting: 0,
            max_rss: None,
            memory_limit: None,
            cpu_limit: None,
        };
        assert!(encode(message::HELLO, &hello).starts_with(&GREETING));
    }

    #[test]
    fn bodies_are_padded() {
        assert_eq!([0, 1, 16, 17].map(padded), [0, 16, 16, 32]);
    }
}
