//! Bytes to values.

use postcard::de_flavors::Slice;
use postcard::{Deserializer as Postcard, Error, Result};
use serde::de::{DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::super::shared_bytes;
use super::{Owner, explain, mark, too_deep};

/// The value that these bytes are, all of them; or the reason why not. Values inside others are `nesting` levels deep at most.
pub(in crate::process) fn from_slice<'de, T: Deserialize<'de>>(
    bytes: &'de [u8],
    nesting: u32,
) -> std::result::Result<T, String> {
    let mut decoder = Decoder { inner: Postcard::from_bytes(bytes), length: bytes.len(), nesting, fault: None };
    let read = T::deserialize(&mut decoder);
    // What was found wrong counts even if the user's code went on after the error.
    match (decoder.fault, read) {
        (Some(fault), _) => Err(fault.explain(nesting)),
        (None, Err(error)) => Err(explain(error)),
        (None, Ok(value)) => match decoder.inner.finalize() {
            Ok([]) => Ok(value),
            Ok(_) => Err("there are bytes left over".to_owned()),
            Err(error) => Err(explain(error)),
        },
    }
}

/// Where what was written and what is to be read are not the same. Kept beside postcard's errors, which have no room for it.
#[derive(Debug)]
enum Fault {
    Fields { owner: Owner, sent: usize, expected: Expected },
    Unread { owner: Owner, left: usize },
    Variant { name: &'static str, index: u32 },
    TooDeep,
}

#[derive(Debug)]
enum Expected {
    Exactly(usize),
    More,
}

impl Fault {
    fn explain(self, nesting: u32) -> String {
        match self {
            Self::TooDeep => too_deep(nesting),
            Self::Fields { owner, sent, expected } => {
                let expected = match expected {
                    Expected::Exactly(count) => count.to_string(),
                    Expected::More => "more".to_owned(),
                };
                format!(
                    "{owner} was sent with {sent} fields, and {expected} are to be read: a field is skipped in one \
                     direction and not in the other (`skip_serializing`, `skip_serializing_if`, `skip_deserializing`), \
                     or the type needs a format that describes itself"
                )
            }
            Self::Unread { owner, left } => {
                format!("its Deserialize has not read all of {owner}: {left} {} are left", owner.parts())
            }
            Self::Variant { name, index } => format!(
                "variant {index} of `{name}` was sent, and no variant of that name is to be read: it is skipped or \
                 renamed in one direction only (`skip_deserializing`, `rename`)"
            ),
        }
    }
}

struct Decoder<'de> {
    inner: Postcard<'de, Slice<'de>>,
    /// How many bytes there are in all.
    length: usize,
    /// How many more levels there may be.
    nesting: u32,
    fault: Option<Box<Fault>>,
}

impl<'de> Decoder<'de> {
    #[cold]
    #[inline(never)]
    fn refuse<T>(&mut self, fault: Fault) -> Result<T> {
        self.fault.get_or_insert_with(|| Box::new(fault));
        Err(Error::SerdeDeCustom)
    }

    #[cold]
    #[inline(never)]
    fn left_over<T>(&mut self, owner: Owner, left: usize) -> Result<T> {
        self.refuse(Fault::Unread { owner, left })
    }

    #[cold]
    #[inline(never)]
    fn wants_more<T>(&mut self, owner: Owner, sent: usize) -> Result<T> {
        self.refuse(Fault::Fields { owner, sent, expected: Expected::More })
    }

    #[cold]
    #[inline(never)]
    fn too_deep<T>(&mut self) -> Result<T> {
        self.refuse(Fault::TooDeep)
    }

    /// Reads something that has values in it.
    #[inline]
    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        match self.nesting.checked_sub(1) {
            Some(left) => self.nesting = left,
            None => return self.too_deep(),
        }
        let value = read(self);
        self.nesting += 1;
        value
    }

    #[inline]
    fn length(&mut self) -> Result<usize> {
        let length = u64::deserialize(&mut self.inner)?;
        usize::try_from(length).map_err(|_| Error::DeserializeBadVarint)
    }

    /// A number of fields: one byte, as a rule.
    #[inline]
    fn count(&mut self) -> Result<usize> {
        match u8::deserialize(&mut self.inner)? {
            first @ 0..0x80 => Ok(first.into()),
            first => self.rest_of_count(first),
        }
    }

    #[cold]
    #[inline(never)]
    fn rest_of_count(&mut self, first: u8) -> Result<usize> {
        let rest = self.length()?;
        rest.checked_mul(0x80)
            .and_then(|rest| rest.checked_add(usize::from(first & 0x7f)))
            .ok_or(Error::DeserializeBadVarint)
    }

    /// Reads a tuple with so many fields.
    #[inline]
    fn tuple<V: Visitor<'de>>(&mut self, owner: Owner, expected: usize, visitor: V) -> Result<V::Value> {
        let sent = self.count()?;
        if sent != expected {
            return self.refuse(Fault::Fields { owner, sent, expected: Expected::Exactly(expected) });
        }
        self.nested(|decoder| {
            let mut parts = Parts::<true> { decoder, owner, sent, left: expected };
            let value = visitor.visit_seq(&mut parts)?;
            parts.end(value)
        })
    }

    /// Reads a struct. Its names are not less than its fields, but may be more: serde has the aliases among them. So what tells
    /// is whether it asks for more than was sent.
    #[inline]
    fn fields<V: Visitor<'de>>(&mut self, owner: Owner, names: usize, visitor: V) -> Result<V::Value> {
        let sent = self.count()?;
        if sent != names {
            return self.less_fields(owner, sent, names, visitor);
        }
        self.nested(|decoder| {
            let mut parts = Parts::<true> { decoder, owner, sent, left: names };
            let value = visitor.visit_seq(&mut parts)?;
            parts.end(value)
        })
    }

    #[cold]
    #[inline(never)]
    fn less_fields<V: Visitor<'de>>(
        &mut self,
        owner: Owner,
        sent: usize,
        names: usize,
        visitor: V,
    ) -> Result<V::Value> {
        if sent > names {
            return self.refuse(Fault::Fields { owner, sent, expected: Expected::Exactly(names) });
        }
        self.nested(|decoder| {
            let mut parts = Parts::<false> { decoder, owner, sent, left: sent };
            let value = visitor.visit_seq(&mut parts)?;
            parts.end(value)
        })
    }

    /// Reads what says itself how long it is.
    #[inline]
    fn list<T>(&mut self, read: impl FnOnce(&mut Parts<'_, 'de, true>) -> Result<T>) -> Result<T> {
        let sent = self.length()?;
        self.nested(|decoder| {
            let mut parts = Parts::<true> { decoder, owner: Owner::LIST, sent, left: sent };
            let value = read(&mut parts)?;
            parts.end(value)
        })
    }
}

/// Something of which so many parts have not been read. `MAY_ASK`: to ask for more than was sent is how the end is found out.
struct Parts<'a, 'de, const MAY_ASK: bool> {
    decoder: &'a mut Decoder<'de>,
    owner: Owner,
    sent: usize,
    left: usize,
}

impl<const MAY_ASK: bool> Parts<'_, '_, MAY_ASK> {
    #[inline]
    fn end<T>(self, value: T) -> Result<T> {
        match self.left {
            0 => Ok(value),
            left => self.decoder.left_over(self.owner, left),
        }
    }

    /// How many parts are left, unless that cannot be: every value that is worth an allocation has a byte.
    #[inline]
    fn hint(&self) -> Option<usize> {
        Some(self.left).filter(|left| *left <= self.decoder.length)
    }
}

impl<'de, const MAY_ASK: bool> SeqAccess<'de> for Parts<'_, 'de, MAY_ASK> {
    type Error = Error;

    #[inline(always)]
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None if MAY_ASK => return Ok(None),
            None => return self.decoder.wants_more(self.owner, self.sent),
        }
        seed.deserialize(&mut *self.decoder).map(Some)
    }

    #[inline(always)]
    fn size_hint(&self) -> Option<usize> {
        self.hint()
    }
}

impl<'de> MapAccess<'de> for Parts<'_, 'de, true> {
    type Error = Error;

    #[inline(always)]
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>> {
        self.next_element_seed(seed)
    }

    #[inline(always)]
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value> {
        seed.deserialize(&mut *self.decoder)
    }

    #[inline(always)]
    fn size_hint(&self) -> Option<usize> {
        self.hint()
    }
}

/// An enum of which it is not known yet which variant it is.
struct Enum<'a, 'de> {
    decoder: &'a mut Decoder<'de>,
    name: &'static str,
    /// Their names, aliases included.
    variants: &'static [&'static str],
}

impl Enum<'_, '_> {
    /// Finds the name of the variant by its mark. Its number says no more than where to look first: a variant that is skipped has a
    /// number when another one is written, and none when it is read.
    #[inline]
    fn find(&self, index: u32, sent: u16) -> Option<&'static str> {
        match self.variants.get(index as usize) {
            Some(variant) if mark(variant) == sent => Some(variant),
            _ => self.look_for(sent),
        }
    }

    #[cold]
    #[inline(never)]
    fn look_for(&self, sent: u16) -> Option<&'static str> {
        self.variants.iter().find(|variant| mark(variant) == sent).copied()
    }
}

impl<'a, 'de> EnumAccess<'de> for Enum<'a, 'de> {
    type Error = Error;
    type Variant = Variant<'a, 'de>;

    #[inline]
    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Variant<'a, 'de>)> {
        let index = u32::deserialize(&mut self.decoder.inner)?;
        let low = u8::deserialize(&mut self.decoder.inner)?;
        let high = u8::deserialize(&mut self.decoder.inner)?;
        let variant = self.find(index, u16::from_le_bytes([low, high]));
        let value = match variant {
            Some(variant) => seed.deserialize(variant.into_deserializer())?,
            // A list that somebody has left empty says nothing.
            None if self.variants.is_empty() => seed.deserialize(index.into_deserializer())?,
            None => return self.decoder.refuse(Fault::Variant { name: self.name, index }),
        };
        Ok((value, Variant { decoder: self.decoder, owner: Owner { variant, ..Owner::named(self.name) } }))
    }
}

/// A variant that has been found, and what it has.
struct Variant<'a, 'de> {
    decoder: &'a mut Decoder<'de>,
    owner: Owner,
}

impl<'de> VariantAccess<'de> for Variant<'_, 'de> {
    type Error = Error;

    #[inline]
    fn unit_variant(self) -> Result<()> {
        Ok(())
    }

    #[inline]
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value> {
        self.decoder.nested(|decoder| seed.deserialize(decoder))
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value> {
        self.decoder.tuple(self.owner, length, visitor)
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value> {
        self.decoder.fields(self.owner, fields.len(), visitor)
    }
}

macro_rules! pass_on {
    ($($method:ident)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
            (&mut self.inner).$method(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for &mut Decoder<'de> {
    type Error = Error;

    // None of these visitors is given a deserializer; and the last three are errors.
    pass_on! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32
        deserialize_f64 deserialize_char deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf
        deserialize_unit
        deserialize_any deserialize_identifier deserialize_ignored_any
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match u8::deserialize(&mut self.inner)? {
            0 => visitor.visit_none(),
            1 => self.nested(|decoder| visitor.visit_some(decoder)),
            _ => Err(Error::DeserializeBadOption),
        }
    }

    #[inline]
    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value> {
        if name == shared_bytes::NAME {
            shared_bytes::expect();
        }
        self.nested(|decoder| visitor.visit_newtype_struct(decoder))
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.list(|parts| visitor.visit_seq(parts))
    }

    #[inline]
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.list(|parts| visitor.visit_map(parts))
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value> {
        self.tuple(Owner::TUPLE, length, visitor)
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value> {
        self.tuple(Owner::named(name), length, visitor)
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.fields(Owner::named(name), fields.len(), visitor)
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        visitor.visit_enum(Enum { decoder: self, name, variants })
    }
}
