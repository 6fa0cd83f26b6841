//! Bytes that are sent to another process without being copied.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use serde::de::{self, SeqAccess, Visitor};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::os::shm::Frozen;

/// The maximum number of values of this type in one argument or result.
pub(super) const MOST: usize = 64;

/// The struct name by which the format of this crate recognizes a value of this type; for other formats it is a struct with one
/// field.
pub(super) const NAME: &str = "concurrent_futures::SharedBytes";

thread_local! {
    /// While a value is being encoded: what has to be sent alongside its bytes.
    static OUTGOING: RefCell<Vec<SharedBytes>> = const { RefCell::new(Vec::new()) };
    /// Whether `OUTGOING` is not empty. Cheaper to read than `OUTGOING`, which has a destructor.
    static HAS_OUTGOING: Cell<bool> = const { Cell::new(false) };
    /// While a value is being decoded: what was sent alongside its bytes and has not been used.
    static INCOMING: RefCell<Vec<Option<OwnedFd>>> = const { RefCell::new(Vec::new()) };
    /// The format of this crate is about to write, or to read, a value of this type. Any other format, which a serde
    /// implementation may use in between, writes and reads plain bytes.
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
}

/// Makes the next value of this type be sent alongside the bytes.
pub(super) fn expect() {
    EXPECTED.set(true);
}

/// Bytes in shared memory that never change. As (part of) an argument or a result of a [`ProcessPoolExecutor`], they are
/// not copied: the other process maps the same memory. The same bytes can be sent any number of times.
///
/// Making one copies the bytes once, or [fills them in place](Self::with). Each value holds a file descriptor, which its clones
/// share. One argument or result can have at most 64 of them. Serialized by anything other than an executor of this crate, they
/// are plain bytes.
///
/// [`ProcessPoolExecutor`]: crate::ProcessPoolExecutor
///
/// ```
/// use concurrent_futures::{ProcessPoolExecutor, SharedBytes};
///
/// fn count(bytes: SharedBytes, wanted: u8) -> usize {
///     bytes.iter().filter(|byte| **byte == wanted).count()
/// }
///
/// let pool = ProcessPoolExecutor::new(2)?;
/// let image = SharedBytes::with(1_000_000, |bytes| bytes[..10].fill(7))?;
/// let futures = [0, 7].map(|wanted| pool.submit(|(bytes, wanted)| count(bytes, wanted), (image.clone(), wanted)));
/// assert_eq!(futures.map(|future| future.result().unwrap()), [999_990, 10]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct SharedBytes(Arc<Frozen>);

impl SharedBytes {
    /// Copies `bytes` to shared memory.
    ///
    /// # Errors
    ///
    /// The error of the system, if there is no memory or no file descriptor left.
    pub fn copy_from(bytes: &[u8]) -> io::Result<Self> {
        Self::with(bytes.len(), |to| to.copy_from_slice(bytes))
    }

    /// Creates a value of `length` bytes. They are initially 0; `fill` is called once to write them.
    ///
    /// # Errors
    ///
    /// As [`copy_from`](Self::copy_from).
    pub fn with(length: usize, fill: impl FnOnce(&mut [u8])) -> io::Result<Self> {
        Ok(Self(Arc::new(Frozen::new(length, fill)?)))
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Deref for SharedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl AsRef<[u8]> for SharedBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl PartialEq for SharedBytes {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for SharedBytes {}

impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedBytes").field("length", &self.len()).finish()
    }
}

/// Runs `f`, which encodes a value, and returns what has to be sent alongside the bytes. Calls may be nested, because a serde
/// implementation may submit to a pool.
pub(super) fn collecting<T>(f: impl FnOnce() -> T) -> (T, Vec<SharedBytes>) {
    /// Puts the outer list back, even if `f` panics.
    struct Outer(Vec<SharedBytes>);
    impl Drop for Outer {
        fn drop(&mut self) {
            // Drops what `f` has left.
            drop(take_outgoing());
            if !self.0.is_empty() {
                HAS_OUTGOING.set(true);
                OUTGOING.set(std::mem::take(&mut self.0));
            }
        }
    }
    let _outer = Outer(take_outgoing());
    let result = f();
    (result, take_outgoing())
}

fn take_outgoing() -> Vec<SharedBytes> {
    if HAS_OUTGOING.replace(false) { OUTGOING.take() } else { Vec::new() }
}

/// Runs `f`, which decodes a value, with what was sent alongside the bytes. Like those of [`collecting`], calls may be nested.
pub(super) fn supplying<T>(attachments: Vec<OwnedFd>, f: impl FnOnce() -> T) -> T {
    struct Outer(Vec<Option<OwnedFd>>);
    impl Drop for Outer {
        fn drop(&mut self) {
            INCOMING.set(std::mem::take(&mut self.0));
        }
    }
    let _outer = Outer(INCOMING.replace(attachments.into_iter().map(Some).collect()));
    f()
}

impl Serialize for SharedBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(NAME, &Pair(self))
    }
}

/// A flag, followed by the index of the attachment if the bytes are sent as one, or by the bytes themselves.
struct Pair<'a>(&'a SharedBytes);

impl Serialize for Pair<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let is_attached = EXPECTED.replace(false);
        let mut pair = serializer.serialize_tuple(2)?;
        pair.serialize_element(&is_attached)?;
        if is_attached {
            HAS_OUTGOING.set(true);
            let number = OUTGOING.with_borrow_mut(|list| {
                list.push(self.0.clone());
                list.len() - 1
            });
            pair.serialize_element(&(number as u32))?;
        } else {
            pair.serialize_element(&**self.0)?;
        }
        pair.end()
    }
}

/// What was received as the given descriptor.
fn received(number: u32) -> io::Result<Frozen> {
    let fd = INCOMING.with_borrow_mut(|list| list.get_mut(number as usize)?.take());
    Frozen::from_fd(fd.ok_or(io::ErrorKind::UnexpectedEof)?)
}

impl<'de> Deserialize<'de> for SharedBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader {
            /// The bytes may have been sent alongside.
            expected: bool,
        }
        impl<'de> Visitor<'de> for Reader {
            type Value = SharedBytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("shared bytes")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<SharedBytes, D::Error> {
                deserializer.deserialize_tuple(2, Self { expected: EXPECTED.replace(false) })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<SharedBytes, A::Error> {
                let is_attached: bool = pair.next_element()?.ok_or_else(|| de::Error::invalid_length(0, &self))?;
                let short = |reader: &Self| de::Error::invalid_length(1, reader);
                let frozen = if is_attached && self.expected {
                    received(pair.next_element()?.ok_or_else(|| short(&self))?)
                } else {
                    let bytes: Vec<u8> = pair.next_element()?.ok_or_else(|| short(&self))?;
                    Frozen::new(bytes.len(), |to| to.copy_from_slice(&bytes))
                };
                frozen.map(|frozen| SharedBytes(Arc::new(frozen))).map_err(de::Error::custom)
            }
        }
        deserializer.deserialize_newtype_struct(NAME, Reader { expected: false })
    }
}

#[cfg(test)]
mod tests {
    use super::super::codec;
    use super::*;

    #[test]
    fn elsewhere_they_are_plain_bytes() {
        let bytes = SharedBytes::copy_from(b"hello").unwrap();
        let encoded = postcard::to_stdvec(&bytes).unwrap();
        assert_eq!(postcard::from_bytes::<SharedBytes>(&encoded).unwrap(), bytes);
    }

    fn fds(attached: &[SharedBytes]) -> Vec<OwnedFd> {
        attached.iter().map(|bytes| bytes.fd().try_clone_to_owned().unwrap()).collect()
    }

    #[test]
    fn with_an_executor_they_travel_beside() {
        let bytes = SharedBytes::copy_from(&[5; 10_000]).unwrap();
        let (encoded, attached) = collecting(|| codec::to_vec(&(1u8, bytes.clone(), bytes.clone()), 8).unwrap());
        assert!(encoded.len() < 12);
        let decoded =
            supplying(fds(&attached), || codec::from_slice::<(u8, SharedBytes, SharedBytes)>(&encoded, 8).unwrap());
        assert_eq!(decoded, (1, bytes.clone(), bytes));
        assert!(codec::from_slice::<(u8, SharedBytes, SharedBytes)>(&encoded, 8).is_err());
    }

    /// Its serde implementation encodes other values in the format of this crate and in another one.
    #[derive(Debug, PartialEq)]
    struct Busy(SharedBytes);

    impl Serialize for Busy {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let other = SharedBytes::copy_from(b"other").unwrap();
            let (_, attached) = collecting(|| codec::to_vec(&(other.clone(), other.clone()), 8).unwrap());
            assert_eq!(attached.len(), 2);
            (postcard::to_stdvec(&other).unwrap(), &self.0).serialize(serializer)
        }
    }

    impl<'de> Deserialize<'de> for Busy {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let (plain, bytes) = <(Vec<u8>, SharedBytes)>::deserialize(deserializer)?;
            assert_eq!(&*postcard::from_bytes::<SharedBytes>(&plain).unwrap(), b"other");
            let (encoded, attached) = collecting(|| codec::to_vec(&bytes, 8).unwrap());
            assert_eq!(supplying(fds(&attached), || codec::from_slice::<SharedBytes>(&encoded, 8)).unwrap(), bytes);
            Ok(Self(bytes))
        }
    }

    #[test]
    fn values_inside_values_do_not_mix() {
        let [a, b, c] = [b"a", b"b", b"c"].map(|bytes| SharedBytes::copy_from(bytes).unwrap());
        let value = (a, Busy(b), c);
        let (encoded, attached) = collecting(|| codec::to_vec(&value, 8).unwrap());
        assert_eq!(attached.len(), 3);
        assert_eq!(supplying(fds(&attached), || codec::from_slice::<(_, Busy, _)>(&encoded, 8)).unwrap(), value);
    }

    #[test]
    fn nothing_is_something_too() {
        assert!(SharedBytes::copy_from(&[]).unwrap().is_empty());
    }
}
