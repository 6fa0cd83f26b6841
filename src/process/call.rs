//! How a function is identified in another process, and how values are encoded and decoded.
//!
//! A function `F` of size zero is described by its type alone. What is sent is the offset, within the executable, of a *shim*: a
//! function generated for this one `F` that decodes the argument, calls `F` and encodes the result. The worker is the same
//! executable (the handshake compares build ids), so it has the same shim at the same offset.
//!
//! This module is an unsafe island. Its rules:
//! 1. [`Function`]s are made only from shims, and called only in a process of the same build.
//! 2. A value of a `Copy` type of size zero may be read from a dangling pointer if the process that sent the call had one: the
//!    type is then inhabited, and being `Copy`, the value has no destructor and owns nothing.

#![allow(unsafe_code)]

use std::any::{Any, TypeId, type_name};
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::body::{Body, Element};
use super::codec::{self, NotEncoded};
use super::shared_bytes::{self, SharedBytes};
use super::wire::{LONGEST_REPORT, ReplyKind, Report};
use crate::error::{CodecError, TaskError, TaskPanic};
use crate::fork;
use crate::os::{fault, image};
use crate::quiet;
use crate::unwind;

/// A function, identified in a way that is valid in every process of the same build: by the offset of its shim in the executable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Function(pub(super) u64);

/// A call that is being served: the worker's side of a task.
pub(super) trait Invocation {
    /// The length of the argument in bytes.
    fn len(&self) -> usize;

    /// Passes the argument to `to` and consumes it, if it is short. Returns `false` if it is long or has been consumed.
    fn show(&mut self, to: &mut dyn FnMut(&[u8])) -> bool;

    /// The descriptors received with the argument.
    fn attachments(&mut self) -> Vec<OwnedFd>;

    /// Reads the argument into a body that has room for it, and consumes it.
    fn read(&mut self, to: &mut Body);

    /// How many levels deep values may be nested.
    fn nesting(&self) -> u32;

    /// Where the index of the item that has begun last is stored, if the parent can read it from there.
    fn progress(&self) -> Option<&AtomicU64>;

    /// Sends the reply. A forked copy of the process that took the call ends here instead.
    fn reply(&mut self, kind: ReplyKind, body: &[u8], attachments: &[SharedBytes]);
}

type Shim = fn(&mut dyn Invocation);

impl Function {
    /// For one call with one argument.
    pub(super) fn of_task<F, A, R>(f: F) -> Result<Self, TaskError>
    where
        F: Fn(A) -> R + Copy + Send + Sync + 'static,
        A: DeserializeOwned + 'static,
        R: Serialize + 'static,
    {
        Self::new(f, task_shim::<F, A, R>)
    }

    /// For a call with a list of arguments.
    pub(super) fn of_chunk<F, A, R>(f: F) -> Result<Self, TaskError>
    where
        F: Fn(A) -> R + Copy + Send + Sync + 'static,
        A: DeserializeOwned + 'static,
        R: Serialize + 'static,
    {
        Self::new(f, chunk_shim::<F, A, R>)
    }

    fn new<F: Copy + Send + Sync + 'static>(_: F, shim: Shim) -> Result<Self, TaskError> {
        const {
            assert!(
                size_of::<F>() == 0,
                "only a function or a closure that captures nothing can be sent to another process: \
                 pass what it needs as (part of) its argument"
            );
        }
        image::executable().offset_of(shim as usize).map(Self).ok_or(TaskError::NoSuchFunction)
    }

    /// Calls the function. Returns `false` if there is no code at its address.
    ///
    /// # Safety
    /// It was made by a process of the same build (rule 1).
    pub(super) unsafe fn call(self, invocation: &mut dyn Invocation) -> bool {
        let Some(address) = image::executable().address_of(self.0) else { return false };
        // SAFETY: the caller's contract: this is where the shim is in this process.
        let shim = unsafe { std::mem::transmute::<*const (), Shim>(std::ptr::with_exposed_provenance(address)) };
        shim(invocation);
        true
    }
}

/// The value of a function type of size zero.
fn conjure<F: Copy>() -> F {
    const { assert!(size_of::<F>() == 0) };
    // SAFETY: rule 2: the process that sent the call had one.
    unsafe { NonNull::<F>::dangling().read() }
}

fn task_shim<F, A, R>(invocation: &mut dyn Invocation)
where
    F: Fn(A) -> R + Copy + 'static,
    A: DeserializeOwned + 'static,
    R: Serialize + 'static,
{
    let nesting = invocation.nesting();
    let Some(argument) = argument::<A>(invocation, nesting) else { return };
    match unwind::catch(|| conjure::<F>()(argument)) {
        Ok(result) => reply(invocation, ReplyKind::Value, result, nesting),
        Err(panic) => reply(invocation, ReplyKind::Panicked, report(&panic), codec::NESTING),
    }
}

fn chunk_shim<F, A, R>(invocation: &mut dyn Invocation)
where
    F: Fn(A) -> R + Copy + 'static,
    A: DeserializeOwned + 'static,
    R: Serialize + 'static,
{
    let nesting = in_chunk(invocation.nesting());
    let Some(arguments) = argument::<Vec<A>>(invocation, nesting) else { return };
    let mut results = Vec::with_capacity(arguments.len());
    let mut arguments = arguments.into_iter();
    let note = invocation.progress();
    // One `catch` covers all items up to the first that panics.
    let ended = unwind::catch(|| {
        for argument in arguments.by_ref() {
            begin(note, results.len());
            results.push(conjure::<F>()(argument));
            // Only the process that took the call runs the rest.
            fork::end_if_child(false);
        }
    });
    match ended {
        Ok(()) => reply(invocation, ReplyKind::Value, results, nesting),
        Err(panic) => mixed::<F, A, R>(invocation, results, &panic, arguments),
    }
}

/// Stores that item `n` begins. Relaxed: the value matters after this process has died.
fn begin(note: Option<&AtomicU64>, n: usize) {
    if let Some(note) = note {
        note.store(n as u64, Relaxed);
    }
}

/// Runs the rest of a chunk after an item has panicked.
#[cold]
fn mixed<F, A, R>(invocation: &mut dyn Invocation, results: Vec<R>, first: &TaskPanic, rest: impl Iterator<Item = A>)
where
    F: Fn(A) -> R + Copy + 'static,
    R: Serialize + 'static,
{
    fork::end_if_child(true);
    let mut mixed: Vec<Result<R, Report>> = results.into_iter().map(Ok).collect();
    mixed.push(Err(report(first)));
    let note = invocation.progress();
    for argument in rest {
        begin(note, mixed.len());
        // If the next item ends the process, the panic of the previous one must not be reported as the reason.
        fault::forget_panic();
        let result = unwind::catch(|| conjure::<F>()(argument));
        fork::end_if_child(result.is_err());
        mixed.push(result.map_err(|panic| report(&panic)));
    }
    let nesting = in_chunk(invocation.nesting());
    reply(invocation, ReplyKind::Mixed, mixed, nesting);
}

fn argument<A: DeserializeOwned + 'static>(invocation: &mut dyn Invocation, nesting: u32) -> Option<A> {
    let mut decoded = None;
    let element = element::<A>();
    let attachments = invocation.attachments();
    let shown = element.is_none()
        && attachments.is_empty()
        && invocation.show(&mut |bytes| decoded = Some(decode_slice::<A>(bytes, nesting)));
    if !shown {
        decoded = Some(match Body::with_capacity(element.unwrap_or(Element::BYTE), invocation.len()) {
            Some(mut body) => {
                body.attachments = attachments;
                invocation.read(&mut body);
                decode(body, nesting)
            }
            None => Err("there is not enough memory".to_owned()),
        });
    }
    match decoded? {
        Ok(argument) => Some(argument),
        Err(reason) => {
            invocation.reply(ReplyKind::NotDecoded, type_and(type_name::<A>(), &reason).as_bytes(), &[]);
            None
        }
    }
}

fn reply<T: Serialize + 'static>(invocation: &mut dyn Invocation, kind: ReplyKind, value: T, nesting: u32) {
    match encode(value, nesting) {
        Ok(payload) => {
            invocation.reply(kind, payload.as_slice(), payload.attachments());
            // The payload may own the value itself, which is dropped here.
            quiet::drop(payload);
        }
        Err((reason, _)) => {
            invocation.reply(ReplyKind::NotEncoded, type_and(type_name::<T>(), &reason).as_bytes(), &[]);
        }
    }
}

/// How deep a list of items, or of their results, may be nested if each of them may be nested `nesting` levels deep. A result
/// may be replaced by a [`Report`].
pub(super) fn in_chunk(nesting: u32) -> u32 {
    /// The struct, an option, and the tuple in it.
    const REPORT: u32 = 3;
    nesting.max(REPORT).saturating_add(2)
}

/// One text for both parts of a [`CodecError`].
fn type_and(type_name: &str, reason: &str) -> String {
    format!("{type_name}\n{reason}")
}

/// The inverse of [`type_and`].
pub(super) fn codec_error(text: &[u8]) -> CodecError {
    let text = String::from_utf8_lossy(text);
    let (type_name, reason) = text.split_once('\n').unwrap_or(("", &text));
    CodecError::new(type_name, reason)
}

pub(super) fn report(panic: &TaskPanic) -> Report {
    /// Truncates `text` so that the whole report fits into a reply of this kind.
    fn cut(text: &str) -> String {
        const LONGEST: usize = LONGEST_REPORT as usize / 4;
        text.chars().take(LONGEST / 4).collect()
    }
    Report {
        message: cut(panic.message()),
        location: panic.location().map(|at| (at.file().to_owned(), at.line(), at.column())),
        thread: panic.thread_name().map(str::to_owned),
        backtrace: panic.backtrace().map(cut),
    }
}

/// The bytes of a value.
pub(super) enum Payload {
    /// Bytes that fit in here, and their number.
    Short([u8; Self::SHORT], u8),
    Bytes(Vec<u8>),
    /// Bytes with descriptors that are sent alongside.
    Attached(Vec<u8>, Vec<SharedBytes>),
    /// The value itself: its bytes are what is sent.
    Plain(Box<dyn Plain>),
}

impl Payload {
    const SHORT: usize = 38;

    /// No bytes.
    pub(super) const EMPTY: Self = Self::Short([0; Self::SHORT], 0);

    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Short(bytes, length) => &bytes[..usize::from(*length)],
            Self::Bytes(bytes) | Self::Attached(bytes, _) => bytes,
            Self::Plain(plain) => plain.bytes(),
        }
    }

    pub(super) fn attachments(&self) -> &[SharedBytes] {
        match self {
            Self::Attached(_, attachments) => attachments,
            _ => &[],
        }
    }

    pub(super) fn of(bytes: Vec<u8>) -> Self {
        Self::short(&bytes).unwrap_or(Self::Bytes(bytes))
    }

    fn short(bytes: &[u8]) -> Option<Self> {
        let mut short = [0; Self::SHORT];
        short.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Self::Short(short, bytes.len() as u8))
    }
}

/// A value whose bytes can be sent as they are.
pub(super) trait Plain: Send + Sync {
    fn bytes(&self) -> &[u8];
}

/// The types that are sent as they are: text, and vectors of numbers. One list, from which all functions that have to agree are
/// generated.
macro_rules! plain {
    ($($number:ty)*) => {
        /// The element of a type that is sent as it is.
        pub(super) fn element<T: 'static>() -> Option<Element> {
            let asked = TypeId::of::<T>();
            if asked == TypeId::of::<String>() {
                return Some(Element::BYTE);
            }
            $(if asked == TypeId::of::<Vec<$number>>() {
                return Some(Element::of::<$number>());
            })*
            None
        }

        /// Returns `true` if values of the type are decoded without user code and with little work: those that are sent as they
        /// are, single numbers, `bool`, `char` and `()`.
        pub(super) fn is_plain<T: 'static>() -> bool {
            let asked = TypeId::of::<T>();
            let single = [TypeId::of::<()>(), TypeId::of::<bool>(), TypeId::of::<char>(), $(TypeId::of::<$number>()),*];
            single.contains(&asked) || element::<T>().is_some()
        }

        /// The value, if it is of a type that is sent as it is.
        pub(super) fn to_plain<T: 'static>(value: T) -> Result<Box<dyn Plain>, T> {
            let mut value = Some(value);
            let any: &mut dyn Any = &mut value;
            if let Some(text) = any.downcast_mut::<Option<String>>() {
                return Ok(Box::new(text.take().expect("it is there")));
            }
            $(if let Some(numbers) = any.downcast_mut::<Option<Vec<$number>>>() {
                return Ok(Box::new(numbers.take().expect("it is there")));
            })*
            Err(value.expect("it was not taken"))
        }

        /// The value, if it is of a type that is sent as it is.
        fn from_plain<T: 'static>(body: Body) -> Result<Option<T>, String> {
            let asked = TypeId::of::<T>();
            let broken = "the length is not a whole number of items";
            let mut boxed: Option<Box<dyn Any>> = None;
            if asked == TypeId::of::<String>() {
                // SAFETY: every bit pattern is a valid `u8`.
                let bytes = unsafe { body.into_vec::<u8>() }.ok_or(broken)?;
                boxed = Some(Box::new(String::from_utf8(bytes).map_err(|error| error.to_string())?));
            }
            $(else if asked == TypeId::of::<Vec<$number>>() {
                // SAFETY: every bit pattern is a valid number.
                boxed = Some(Box::new(unsafe { body.into_vec::<$number>() }.ok_or(broken)?));
            })*
            Ok(boxed.and_then(|boxed| boxed.downcast::<T>().ok()).map(|value| *value))
        }

        $(impl Plain for Vec<$number> {
            fn bytes(&self) -> &[u8] {
                // SAFETY: numbers have no padding, and every bit pattern is a valid byte.
                unsafe { std::slice::from_raw_parts(self.as_ptr().cast(), size_of_val(self.as_slice())) }
            }
        })*
    };
}

plain!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize f32 f64);

#[cfg(any(test, fuzzing))]
impl Body {
    /// A copy of the bytes of a `T`.
    pub(super) fn of<T: 'static>(bytes: &[u8]) -> Self {
        let element = element::<T>().unwrap_or(Element::BYTE);
        let mut body = Self::with_capacity(element, bytes.len()).expect("there is memory for it");
        body.extend(bytes);
        body
    }
}

impl Plain for String {
    fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// Encodes a value; a panic in its `Serialize` is an error too. Returns the value if it cannot be encoded. It may be nested
/// `nesting` levels deep.
pub(super) fn encode<T: Serialize + 'static>(value: T, nesting: u32) -> Result<Payload, (String, T)> {
    let value = match to_plain(value) {
        Ok(plain) => return Ok(Payload::short(plain.bytes()).unwrap_or(Payload::Plain(plain))),
        Err(value) => value,
    };
    let mut short = [0; Payload::SHORT];
    let encoded = unwind::catch(|| {
        let (encoded, attachments) = shared_bytes::collecting(|| codec::to_slice(&value, &mut short, nesting));
        match encoded {
            Ok(used) if attachments.is_empty() => Ok(Payload::Short([0; Payload::SHORT], used as u8)),
            Ok(_) | Err(NotEncoded::NoRoom) => {
                let (encoded, attachments) = shared_bytes::collecting(|| codec::to_vec(&value, nesting));
                encoded.map(|bytes| {
                    if attachments.is_empty() { Payload::Bytes(bytes) } else { Payload::Attached(bytes, attachments) }
                })
            }
            Err(error) => Err(error),
        }
    });
    let payload = match encoded {
        Ok(Ok(Payload::Short(_, used))) => Ok(Payload::Short(short, used)),
        Ok(Ok(Payload::Attached(bytes, attachments))) => attached(bytes, attachments),
        Ok(Ok(payload)) => Ok(payload),
        Ok(Err(error)) => Err(error.into_reason()),
        Err(panic) => Err(serialize_panicked(&panic)),
    };
    let payload = match payload {
        Ok(payload) => payload,
        Err(reason) => return Err((reason, value)),
    };
    quiet::drop(value);
    Ok(payload)
}

/// Bytes with attachments; an error if there are too many.
pub(super) fn attached(bytes: Vec<u8>, attachments: Vec<SharedBytes>) -> Result<Payload, String> {
    if attachments.len() > shared_bytes::MOST {
        return Err(format!("it has more than {} SharedBytes", shared_bytes::MOST));
    }
    Ok(Payload::Attached(bytes, attachments))
}

fn serialize_panicked(panic: &TaskPanic) -> String {
    format!("its Serialize panicked: {}", panic.message())
}

/// The beginning of an encoded list of `count` items, which are then written one after the other ([`append`]).
pub(super) fn list_of(count: usize) -> Vec<u8> {
    postcard::to_stdvec(&(count as u64)).expect("a number can be encoded")
}

/// Appends the encoding of an item, of a type that is not sent as it is, and returns its attachments. If it cannot be encoded,
/// nothing is written.
pub(super) fn append<T: Serialize>(item: &T, to: &mut Vec<u8>, nesting: u32) -> Result<Vec<SharedBytes>, String> {
    let before = to.len();
    let encoded = unwind::catch(|| shared_bytes::collecting(|| codec::append(item, to, nesting)));
    let reason = match encoded {
        Ok((Ok(()), attachments)) => return Ok(attachments),
        Ok((Err(error), _)) => error.into_reason(),
        Err(panic) => serialize_panicked(&panic),
    };
    to.truncate(before);
    Err(reason)
}

/// The inverse of [`encode`].
pub(super) fn decode<T: DeserializeOwned + 'static>(mut body: Body, nesting: u32) -> Result<T, String> {
    if element::<T>().is_none() {
        let attachments = std::mem::take(&mut body.attachments);
        return if attachments.is_empty() {
            decode_slice(body.as_slice(), nesting)
        } else {
            shared_bytes::supplying(attachments, || decode_slice(body.as_slice(), nesting))
        };
    }
    from_plain(body).map(|value| value.expect("it is of a plain type"))
}

fn decode_slice<T: DeserializeOwned>(bytes: &[u8], nesting: u32) -> Result<T, String> {
    match unwind::catch(|| codec::from_slice(bytes, nesting)) {
        Ok(decoded) => decoded,
        Err(panic) => Err(format!("its Deserialize panicked: {}", panic.message())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::codec::NESTING;

    fn there_and_back<T: Serialize + DeserializeOwned + Clone + PartialEq + std::fmt::Debug + 'static>(value: T) {
        let Ok(payload) = encode(value.clone(), NESTING) else { panic!("{value:?} cannot be encoded") };
        let body = Body::of::<T>(payload.as_slice());
        assert_eq!(decode::<T>(body, NESTING).unwrap(), value);
    }

    #[test]
    fn values_come_back_as_they_were() {
        there_and_back(());
        there_and_back(5u8);
        there_and_back(u128::MAX);
        there_and_back(String::new());
        there_and_back("x".repeat(1000));
        there_and_back(vec![1u64, 2, 3]);
        there_and_back(vec![0.5f32; 1000]);
        there_and_back(Vec::<u128>::new());
        there_and_back((vec![1u8], Some("two".to_owned()), [3i32; 3]));
        there_and_back(vec!["a".to_owned(), "b".to_owned()]);
    }

    #[test]
    fn a_text_that_is_none_and_a_length_that_cannot_be_are_errors() {
        assert!(decode::<String>(Body::of::<String>(&[0xff, 0xff]), NESTING).is_err());
        assert!(decode::<u64>(Body::of::<u8>(&[]), NESTING).is_err());
        assert!(decode::<u8>(Body::of::<u8>(&[1, 2]), NESTING).unwrap_err().contains("left over"));
        assert!(decode::<Vec<String>>(Body::of::<u8>(&[255, 255, 255, 255, 15]), NESTING).is_err());
    }
}
