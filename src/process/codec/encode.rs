//! Values to bytes.

use postcard::ser_flavors::{AllocVec, Flavor, Slice};
use postcard::{Error, Result, Serializer as Postcard};
use serde::ser::{
    SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple, SerializeTupleStruct,
    SerializeTupleVariant,
};
use serde::{Serialize, Serializer};

use super::super::shared_bytes;
use super::{Owner, explain, mark, too_deep};

/// Why there are no bytes.
#[derive(Debug)]
pub(in crate::process) enum NotEncoded {
    /// They do not fit.
    NoRoom,
    /// The reason, a text.
    Because(String),
}

impl NotEncoded {
    pub(in crate::process) fn into_reason(self) -> String {
        match self {
            Self::NoRoom => "there is not enough memory".to_owned(),
            Self::Because(reason) => reason,
        }
    }
}

/// Writes a value to the beginning of `to`; says how many bytes it has.
pub(in crate::process) fn to_slice<T: Serialize>(
    value: &T,
    to: &mut [u8],
    nesting: u32,
) -> std::result::Result<usize, NotEncoded> {
    encode(value, Slice::new(to), nesting).map(|used| used.len())
}

pub(in crate::process) fn to_vec<T: Serialize>(value: &T, nesting: u32) -> std::result::Result<Vec<u8>, NotEncoded> {
    encode(value, AllocVec::new(), nesting)
}

/// Writes a value behind what is in `to`. After an error part of it may be there.
pub(in crate::process) fn append<T: Serialize>(
    value: &T,
    to: &mut Vec<u8>,
    nesting: u32,
) -> std::result::Result<(), NotEncoded> {
    encode(value, Append(to), nesting)
}

struct Append<'a>(&'a mut Vec<u8>);

impl Flavor for Append<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> Result<()> {
        Ok(())
    }
}

/// Values inside others may be `nesting` levels deep.
fn encode<T: Serialize, F: Flavor>(value: &T, flavor: F, nesting: u32) -> std::result::Result<F::Output, NotEncoded> {
    let mut encoder = Encoder { inner: Postcard { output: flavor }, nesting, fault: None };
    let written = value.serialize(&mut encoder);
    // What was found wrong counts even if the user's code went on after the error.
    match (encoder.fault, written) {
        (Some(fault), _) => Err(NotEncoded::Because(fault.explain(nesting))),
        (None, Ok(())) => encoder.inner.output.finalize().map_err(|error| NotEncoded::Because(explain(error))),
        (None, Err(Error::SerializeBufferFull)) => Err(NotEncoded::NoRoom),
        (None, Err(error)) => Err(NotEncoded::Because(explain(error))),
    }
}

/// What this format does not take. postcard's errors have no room for the names, so it is kept beside them.
#[derive(Debug)]
enum Fault {
    Skipped { owner: Owner, field: &'static str },
    Miscounted { owner: Owner, says: usize, has: Count },
    TooDeep,
}

#[derive(Debug)]
enum Count {
    More,
    /// So many are missing.
    Less(usize),
}

impl Fault {
    fn explain(self, nesting: u32) -> String {
        match self {
            Self::TooDeep => too_deep(nesting),
            Self::Skipped { owner, field } => format!(
                "the field `{field}` of {owner} is skipped (`#[serde(skip_serializing_if)]`), and what is sent to another \
                 process has to have all its fields: remove the attribute, or send a type without it"
            ),
            Self::Miscounted { owner, says, has } => {
                let parts = owner.parts();
                let has = match has {
                    Count::More => "has more".to_owned(),
                    Count::Less(missing) => format!("has {}", says - missing),
                };
                format!("its Serialize says that {owner} has {says} {parts}, and it {has}")
            }
        }
    }
}

struct Encoder<F: Flavor> {
    inner: Postcard<F>,
    /// How many more levels there may be.
    nesting: u32,
    fault: Option<Box<Fault>>,
}

impl<F: Flavor> Encoder<F> {
    #[inline]
    fn count(&mut self, count: usize) -> Result<()> {
        // As a variable-length number, of which the most frequent ones are one byte.
        match count {
            0..0x80 => (&mut self.inner).serialize_u8(count as u8),
            _ => self.large_count(count),
        }
    }

    #[cold]
    #[inline(never)]
    fn large_count(&mut self, count: usize) -> Result<()> {
        (&mut self.inner).serialize_u64(count as u64)
    }

    #[inline]
    fn variant(&mut self, index: u32, name: &'static str) -> Result<()> {
        (&mut self.inner).serialize_u32(index)?;
        self.inner.output.try_extend(&mark(name).to_le_bytes()).map_err(|_| Error::SerializeBufferFull)
    }

    /// A value that has values in it begins; it ends with [`leave`](Self::leave).
    #[inline(always)]
    fn enter(&mut self) -> Result<()> {
        match self.nesting.checked_sub(1) {
            Some(left) => self.nesting = left,
            None => return self.too_deep(),
        }
        Ok(())
    }

    #[inline(always)]
    fn leave(&mut self) {
        self.nesting += 1;
    }

    /// A value inside another.
    #[inline]
    fn nested<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.enter()?;
        value.serialize(&mut *self)?;
        self.leave();
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn too_deep(&mut self) -> Result<()> {
        self.fault.get_or_insert_with(|| Box::new(Fault::TooDeep));
        Err(Error::SerdeSerCustom)
    }

    #[cold]
    #[inline(never)]
    fn miscounted(&mut self, owner: Owner, says: usize, has: Count) -> Result<()> {
        self.fault.get_or_insert_with(|| Box::new(Fault::Miscounted { owner, says, has }));
        Err(Error::SerdeSerCustom)
    }

    #[cold]
    #[inline(never)]
    fn skipped(&mut self, owner: Owner, field: &'static str) -> Result<()> {
        self.fault.get_or_insert_with(|| Box::new(Fault::Skipped { owner, field }));
        Err(Error::SerdeSerCustom)
    }
}

/// Something with parts, of which some are still to come.
struct Parts<'a, F: Flavor> {
    encoder: &'a mut Encoder<F>,
    owner: Owner,
    says: usize,
    left: usize,
}

impl<'a, F: Flavor> Parts<'a, F> {
    #[inline(always)]
    fn new(encoder: &'a mut Encoder<F>, owner: Owner, says: usize) -> Result<Self> {
        encoder.count(says)?;
        encoder.enter()?;
        Ok(Self { encoder, owner, says, left: says })
    }

    #[inline(always)]
    fn add<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None => return self.encoder.miscounted(self.owner, self.says, Count::More),
        }
        value.serialize(&mut *self.encoder)
    }

    #[inline(always)]
    fn end(self) -> Result<()> {
        self.encoder.leave();
        match self.left {
            0 => Ok(()),
            missing => self.encoder.miscounted(self.owner, self.says, Count::Less(missing)),
        }
    }
}

macro_rules! pass_on {
    ($($method:ident: $type:ty;)*) => {$(
        #[inline]
        fn $method(self, value: $type) -> Result<()> {
            (&mut self.inner).$method(value)
        }
    )*};
}

impl<'a, F: Flavor> Serializer for &'a mut Encoder<F> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Parts<'a, F>;
    type SerializeTuple = Parts<'a, F>;
    type SerializeTupleStruct = Parts<'a, F>;
    type SerializeTupleVariant = Parts<'a, F>;
    type SerializeMap = Parts<'a, F>;
    type SerializeStruct = Parts<'a, F>;
    type SerializeStructVariant = Parts<'a, F>;

    pass_on! {
        serialize_bool: bool;
        serialize_i8: i8;
        serialize_i16: i16;
        serialize_i32: i32;
        serialize_i64: i64;
        serialize_i128: i128;
        serialize_u8: u8;
        serialize_u16: u16;
        serialize_u32: u32;
        serialize_u64: u64;
        serialize_u128: u128;
        serialize_f32: f32;
        serialize_f64: f64;
        serialize_char: char;
        serialize_str: &str;
        serialize_bytes: &[u8];
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    #[inline]
    fn collect_str<T: std::fmt::Display + ?Sized>(self, value: &T) -> Result<()> {
        (&mut self.inner).collect_str(value)
    }

    #[inline]
    fn serialize_none(self) -> Result<()> {
        (&mut self.inner).serialize_none()
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<()> {
        (&mut self.inner).serialize_u8(1)?;
        self.nested(value)
    }

    #[inline]
    fn serialize_unit(self) -> Result<()> {
        Ok(())
    }

    #[inline]
    fn serialize_unit_struct(self, _: &'static str) -> Result<()> {
        Ok(())
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Result<()> {
        if name == shared_bytes::NAME {
            shared_bytes::expect();
        }
        self.nested(value)
    }

    #[inline]
    fn serialize_unit_variant(self, _: &'static str, index: u32, variant: &'static str) -> Result<()> {
        self.variant(index, variant)
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<()> {
        self.variant(index, variant)?;
        self.nested(value)
    }

    #[inline]
    fn serialize_seq(self, length: Option<usize>) -> Result<Parts<'a, F>> {
        Parts::new(self, Owner::LIST, length.ok_or(Error::SerializeSeqLengthUnknown)?)
    }

    #[inline]
    fn serialize_map(self, length: Option<usize>) -> Result<Parts<'a, F>> {
        Parts::new(self, Owner::LIST, length.ok_or(Error::SerializeSeqLengthUnknown)?)
    }

    #[inline]
    fn serialize_tuple(self, length: usize) -> Result<Parts<'a, F>> {
        Parts::new(self, Owner::TUPLE, length)
    }

    #[inline]
    fn serialize_tuple_struct(self, name: &'static str, length: usize) -> Result<Parts<'a, F>> {
        Parts::new(self, Owner::named(name), length)
    }

    #[inline]
    fn serialize_struct(self, name: &'static str, length: usize) -> Result<Parts<'a, F>> {
        Parts::new(self, Owner::named(name), length)
    }

    #[inline]
    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Parts<'a, F>> {
        self.variant(index, variant)?;
        Parts::new(self, Owner::variant(name, variant), length)
    }

    #[inline]
    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Parts<'a, F>> {
        self.serialize_tuple_variant(name, index, variant, length)
    }
}

/// What has no names for its parts.
macro_rules! unnamed {
    ($($kind:ident: $method:ident;)*) => {$(
        impl<F: Flavor> $kind for Parts<'_, F> {
            type Ok = ();
            type Error = Error;

            #[inline(always)]
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
                self.add(value)
            }

            #[inline(always)]
            fn end(self) -> Result<()> {
                Parts::end(self)
            }
        }
    )*};
}

unnamed! {
    SerializeSeq: serialize_element;
    SerializeTuple: serialize_element;
    SerializeTupleStruct: serialize_field;
    SerializeTupleVariant: serialize_field;
}

macro_rules! named {
    ($($kind:ident)*) => {$(
        impl<F: Flavor> $kind for Parts<'_, F> {
            type Ok = ();
            type Error = Error;

            #[inline(always)]
            fn serialize_field<T: Serialize + ?Sized>(&mut self, _: &'static str, value: &T) -> Result<()> {
                self.add(value)
            }

            fn skip_field(&mut self, field: &'static str) -> Result<()> {
                self.encoder.skipped(self.owner, field)
            }

            #[inline(always)]
            fn end(self) -> Result<()> {
                Parts::end(self)
            }
        }
    )*};
}

named!(SerializeStruct SerializeStructVariant);

impl<F: Flavor> SerializeMap for Parts<'_, F> {
    type Ok = ();
    type Error = Error;

    #[inline(always)]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<()> {
        self.add(key)
    }

    #[inline(always)]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        value.serialize(&mut *self.encoder)
    }

    #[inline(always)]
    fn end(self) -> Result<()> {
        Parts::end(self)
    }
}
