//! The inputs of a map, encoded.
//!
//! The thread that puts them in encodes them one by one, so that no other thread has to run user code for them: neither to send
//! the next chunk when one has been answered, nor to send a part of a chunk again. A list is encoded as its length and its items,
//! or, if the items are sent as they are, as its items alone.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{CodecError, SizeLimit, TaskError};
use crate::process::call::{self, Payload};
use crate::quiet;

/// Consecutive inputs.
pub(super) struct Inputs {
    payload: Payload,
    /// How many bytes there are before the first item.
    header: usize,
    items: Items,
    /// The index of the first input that has not been taken.
    next: usize,
}

/// Where the items are in the payload.
enum Items {
    /// `count` items of `size` bytes each, which are sent as they are.
    Plain { size: usize, count: usize },
    /// Where each of them ends, counted from the end of the header.
    Encoded(Vec<usize>),
}

/// The inputs that are sent in one call.
pub(super) struct Chunk {
    pub(super) argument: Payload,
    pub(super) layout: Layout,
}

/// What is needed to divide a chunk into its items.
pub(super) struct Layout {
    header: usize,
    items: Items,
}

impl Items {
    fn count(&self) -> usize {
        match self {
            Self::Plain { count, .. } => *count,
            Self::Encoded(ends) => ends.len(),
        }
    }

    /// Where the first `n` items end.
    fn end_of(&self, n: usize) -> usize {
        match self {
            Self::Plain { size, .. } => size * n,
            Self::Encoded(ends) => n.checked_sub(1).map_or(0, |last| ends[last]),
        }
    }

    fn part(&self, from: usize, to: usize) -> Self {
        match self {
            Self::Plain { size, .. } => Self::Plain { size: *size, count: to - from },
            Self::Encoded(ends) => {
                let start = self.end_of(from);
                Self::Encoded(ends[from..to].iter().map(|end| end - start).collect())
            }
        }
    }

    /// The bytes before the items, in a list of all of them.
    fn header(&self) -> Vec<u8> {
        match self {
            Self::Plain { .. } => Vec::new(),
            Self::Encoded(ends) => call::list_of(ends.len()),
        }
    }
}

impl Layout {
    pub(super) fn count(&self) -> usize {
        self.items.count()
    }
}

impl Inputs {
    /// The inputs of a chunk that has been returned.
    pub(super) fn of(chunk: Chunk) -> Self {
        let Chunk { argument, layout: Layout { header, items } } = chunk;
        Self { payload: argument, header, items, next: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.items.count() - self.next
    }

    /// Skips the next `n` inputs.
    pub(super) fn skip(mut self, n: usize) -> Self {
        self.next += n;
        self
    }

    /// Takes at most `most` of the next inputs, with at most `limit` bytes, but at least one input.
    pub(super) fn take(&mut self, most: usize, limit: u64) -> Chunk {
        /// The longest header.
        const HEADER: usize = 10;
        let (from, count) = (self.next, self.items.count());
        let start = self.items.end_of(from);
        let mut to = count.min(from + most);
        while to > from + 1 && (HEADER + self.items.end_of(to) - start) as u64 > limit {
            to = from + (to - from) / 2;
        }
        self.next = to;
        let is_whole = from == 0 && to == count;
        let header = self.items.header();
        if is_whole && header.len() == self.header {
            let items = std::mem::replace(&mut self.items, Items::Plain { size: 0, count: 0 });
            self.next = 0;
            let argument = std::mem::replace(&mut self.payload, Payload::EMPTY);
            return Chunk { argument, layout: Layout { header: self.header, items } };
        }
        let items = self.items.part(from, to);
        let mut bytes = items.header();
        let header = bytes.len();
        let (start, end) = (self.header + start, self.header + self.items.end_of(to));
        bytes.extend_from_slice(&self.payload.as_slice()[start..end]);
        Chunk { argument: Payload::of(bytes), layout: Layout { header, items } }
    }
}

/// The result of encoding consecutive inputs.
pub(super) enum Stretch {
    Encoded(Inputs),
    /// One input that cannot be sent.
    Failed(TaskError),
}

impl Stretch {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Encoded(inputs) => inputs.len(),
            Self::Failed(_) => 1,
        }
    }
}

/// Encodes inputs, each of which may be nested `nesting` levels deep. An input that contains [`SharedBytes`](crate::SharedBytes)
/// gets a chunk of its own.
pub(super) fn encode<A>(items: Vec<A>, nesting: u32, limit: u64) -> Vec<Stretch>
where
    A: Serialize + DeserializeOwned + Send + 'static,
{
    let (size, count) = (size_of::<A>(), items.len());
    let items = match call::to_plain(items) {
        Ok(plain) => {
            let payload = Payload::Plain(plain);
            let items = Items::Plain { size, count };
            return vec![Stretch::Encoded(Inputs { payload, header: 0, items, next: 0 })];
        }
        Err(items) => items,
    };
    let mut stretches = Vec::new();
    let mut bytes = Vec::new();
    let mut ends = Vec::new();
    let finish = |bytes: &mut Vec<u8>, ends: &mut Vec<usize>, stretches: &mut Vec<Stretch>| {
        if !ends.is_empty() {
            let (payload, items) = (Payload::Bytes(std::mem::take(bytes)), Items::Encoded(std::mem::take(ends)));
            stretches.push(Stretch::Encoded(Inputs { payload, header: 0, items, next: 0 }));
        }
    };
    for item in items {
        let before = bytes.len();
        let alone = match call::append(&item, &mut bytes, nesting) {
            Ok(attached) => {
                let length = bytes.len() - before;
                let size = (call::list_of(1).len() + length) as u64;
                if size > limit {
                    Some(Err(TaskError::TooLarge(Box::new(SizeLimit { size, limit }))))
                } else if attached.is_empty() {
                    None
                } else {
                    let mut list = call::list_of(1);
                    let header = list.len();
                    list.extend_from_slice(&bytes[before..]);
                    let payload = call::attached(list, attached).map_err(encode_error::<A>);
                    Some(payload.map(|payload| Inputs {
                        payload,
                        header,
                        items: Items::Encoded(vec![length]),
                        next: 0,
                    }))
                }
            }
            Err(reason) => Some(Err(encode_error::<A>(reason))),
        };
        quiet::drop(item);
        match alone {
            None => ends.push(bytes.len()),
            Some(alone) => {
                bytes.truncate(before);
                finish(&mut bytes, &mut ends, &mut stretches);
                stretches.push(alone.map_or_else(Stretch::Failed, Stretch::Encoded));
            }
        }
    }
    finish(&mut bytes, &mut ends, &mut stretches);
    stretches
}

fn encode_error<A>(reason: String) -> TaskError {
    TaskError::Encode(CodecError::new(std::any::type_name::<A>(), reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SharedBytes;
    use crate::process::body::Body;
    use crate::process::codec::NESTING;

    const MOST: u64 = u64::MAX;

    fn inputs<A: Serialize + DeserializeOwned + Send + 'static>(items: Vec<A>) -> Inputs {
        match encode(items, NESTING, MOST).pop() {
            Some(Stretch::Encoded(inputs)) => inputs,
            _ => panic!("all of them can be encoded"),
        }
    }

    fn decode<A: DeserializeOwned + 'static>(chunk: &Chunk) -> Vec<A> {
        let items = call::decode::<Vec<A>>(Body::of::<Vec<A>>(chunk.argument.as_slice()), NESTING + 1).unwrap();
        assert_eq!(items.len(), chunk.layout.count());
        items
    }

    /// Takes the inputs in chunks of every size, and puts parts of the chunks back.
    fn check<A>(items: &[A])
    where
        A: Serialize + DeserializeOwned + Send + Clone + PartialEq + std::fmt::Debug + 'static,
    {
        for size in 1..=items.len() + 1 {
            let mut rest = inputs(items.to_vec());
            let mut taken = Vec::new();
            while rest.len() > 0 {
                let chunk = rest.take(size, MOST);
                assert_eq!(chunk.layout.count(), size.min(items.len() - taken.len()));
                let whole: Vec<A> = decode(&chunk);
                let back = whole.len() / 2;
                taken.extend_from_slice(&whole[..back]);
                let mut back = Inputs::of(chunk).skip(back);
                while back.len() > 0 {
                    taken.extend(decode::<A>(&back.take(2, MOST)));
                }
            }
            assert_eq!(taken, items);
        }
    }

    #[test]
    fn chunks_are_lists_of_the_inputs() {
        check(&(0..20u64).map(|n| (n * n) << 40).collect::<Vec<_>>());
        check(&(0..200).map(|n| "x".repeat(n)).collect::<Vec<String>>());
        check(&[Some((1u8, 'a')); 9]);
        check(&[(), ()]);
    }

    #[test]
    fn chunks_are_no_longer_than_the_limit_unless_one_input_is() {
        let mut rest = inputs(vec!["1234567890".to_owned(); 10]);
        while rest.len() > 0 {
            let chunk = rest.take(10, 50);
            assert!(chunk.argument.as_slice().len() <= 50 && chunk.layout.count() > 1 || rest.len() == 0);
        }
        assert_eq!(inputs(vec![5u64; 10]).take(10, 1).layout.count(), 1);
    }

    #[test]
    fn inputs_that_cannot_be_sent_fail_alone() {
        struct Odd(u32);
        impl Serialize for Odd {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self.0 {
                    3 => Err(serde::ser::Error::custom("three")),
                    5 => panic!("five"),
                    7 => serializer.serialize_bytes(&[7; 100]),
                    n => serializer.serialize_u32(n),
                }
            }
        }
        impl<'de> serde::Deserialize<'de> for Odd {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                u32::deserialize(deserializer).map(Self)
            }
        }
        let stretches = encode((0..10).map(Odd).collect(), NESTING, 100);
        let shape: Vec<_> = stretches
            .iter()
            .map(|stretch| match stretch {
                Stretch::Encoded(inputs) => inputs.len().to_string(),
                Stretch::Failed(TaskError::Encode(_)) => "encode".to_owned(),
                Stretch::Failed(TaskError::TooLarge(size)) => format!("{} of {}", size.size, size.limit),
                Stretch::Failed(error) => panic!("{error}"),
            })
            .collect();
        assert_eq!(shape, ["3", "encode", "1", "encode", "1", "102 of 100", "2"]);
    }

    #[test]
    fn shared_bytes_have_a_chunk_of_their_own() {
        let some = |n: u8| (n % 2 == 1).then(|| SharedBytes::copy_from(&[n]).unwrap());
        let stretches = encode((0..4u8).map(|n| (n, some(n))).collect(), NESTING, MOST);
        let mut attachments = Vec::new();
        for stretch in stretches {
            let Stretch::Encoded(mut inputs) = stretch else { panic!("all can be encoded") };
            let chunk = inputs.take(10, MOST);
            attachments.push((chunk.layout.count(), chunk.argument.attachments().len()));
        }
        assert_eq!(attachments, [(1, 0), (1, 1), (1, 0), (1, 1)]);
    }
}
