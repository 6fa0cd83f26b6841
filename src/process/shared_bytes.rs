//! Bytes that go to another process without being copied.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use serde::de::{self, SeqAccess, Visitor};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::os::shm::Frozen;

/// The most values of this type in one argument or result.
pub(super) const MOST: usize = 64;

thread_local! {
    /// While a value is being encoded: what has to travel beside its bytes.
    static OUTGOING: RefCell<Option<Vec<SharedBytes>>> = const { RefCell::new(None) };
    /// While a value is being decoded: what has travelled beside its bytes, last first.
    static INCOMING: RefCell<Vec<OwnedFd>> = const { RefCell::new(Vec::new()) };
}

/// Bytes in shared memory that never change. As (part of) an argument or a result of a [`ProcessPoolExecutor`], they are
/// not copied: the other process maps the same memory. The same bytes can be sent any number of times.
///
/// Making one copies the bytes once, or [fills them in place](Self::with). Each value holds a file descriptor, which its
/// clones share. One argument or result can have at most 64 of them. Serialised by anything else than an executor of this
/// crate, they are plain bytes.
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
    /// A copy of `bytes` in shared memory.
    ///
    /// # Errors
    ///
    /// The system's, if there is no memory, or no file descriptor left.
    pub fn copy_from(bytes: &[u8]) -> io::Result<Self> {
        Self::with(bytes.len(), |to| to.copy_from_slice(bytes))
    }

    /// So many bytes, which `fill` is given once to write to. They are 0 before.
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

/// Runs `f`, which encodes a value, and says what has to travel beside the bytes.
pub(super) fn collecting<T>(f: impl FnOnce() -> T) -> (T, Vec<SharedBytes>) {
    /// Takes the list away again, even if `f` panics.
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            OUTGOING.take();
        }
    }
    OUTGOING.set(Some(Vec::new()));
    let _reset = Reset;
    let result = f();
    (result, OUTGOING.take().unwrap_or_default())
}

/// Runs `f`, which decodes a value, with what has travelled beside the bytes.
pub(super) fn supplying<T>(mut attachments: Vec<OwnedFd>, f: impl FnOnce() -> T) -> T {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            INCOMING.take();
        }
    }
    attachments.reverse();
    INCOMING.set(attachments);
    let _reset = Reset;
    f()
}

impl Serialize for SharedBytes {
    /// A pair: whether the bytes travel beside this, and else the bytes.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let beside = OUTGOING.with_borrow_mut(|outgoing| match outgoing {
            Some(list) => {
                list.push(self.clone());
                true
            }
            None => false,
        });
        let mut pair = serializer.serialize_tuple(2)?;
        pair.serialize_element(&beside)?;
        pair.serialize_element(if beside { &[][..] } else { &**self })?;
        pair.end()
    }
}

impl<'de> Deserialize<'de> for SharedBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pair;
        impl<'de> Visitor<'de> for Pair {
            type Value = SharedBytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("shared bytes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<SharedBytes, A::Error> {
                let beside: bool = pair.next_element()?.ok_or_else(|| de::Error::invalid_length(0, &self))?;
                let bytes: Vec<u8> = pair.next_element()?.ok_or_else(|| de::Error::invalid_length(1, &self))?;
                let frozen = match beside {
                    true => INCOMING
                        .with_borrow_mut(Vec::pop)
                        .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
                        .and_then(Frozen::from_fd),
                    false => Frozen::new(bytes.len(), |to| to.copy_from_slice(&bytes)),
                };
                frozen.map(|frozen| SharedBytes(Arc::new(frozen))).map_err(de::Error::custom)
            }
        }
        deserializer.deserialize_tuple(2, Pair)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elsewhere_they_are_plain_bytes() {
        let bytes = SharedBytes::copy_from(b"hello").unwrap();
        let encoded = postcard::to_stdvec(&bytes).unwrap();
        assert_eq!(postcard::from_bytes::<SharedBytes>(&encoded).unwrap(), bytes);
    }

    #[test]
    fn with_an_executor_they_travel_beside() {
        let bytes = SharedBytes::copy_from(&[5; 10_000]).unwrap();
        let (encoded, beside) = collecting(|| postcard::to_stdvec(&(1u8, bytes.clone(), bytes.clone())).unwrap());
        assert!(encoded.len() < 10);
        let fds = beside.iter().map(|bytes| bytes.fd().try_clone_to_owned().unwrap()).collect();
        let decoded = supplying(fds, || postcard::from_bytes::<(u8, SharedBytes, SharedBytes)>(&encoded).unwrap());
        assert_eq!(decoded, (1, bytes.clone(), bytes));
        assert!(postcard::from_bytes::<(u8, SharedBytes, SharedBytes)>(&encoded).is_err());
    }

    #[test]
    fn nothing_is_something_too() {
        assert!(SharedBytes::copy_from(&[]).unwrap().is_empty());
    }
}
