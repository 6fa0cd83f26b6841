//! The format of arguments and results: postcard's, and with it what is needed to find a value that serde took apart in one
//! way and would put together in another.
//!
//! postcard writes no names: what is read at a place is what the reader expects there. An attribute that leaves a field out
//! (`skip_serializing_if`) would shift everything behind it. So this format also has
//!
//! - the number of fields in front of every struct and tuple. It has to be what the reader expects, and the reader has to
//!   read so many;
//! - behind the number of an enum's variant a mark made of its name: serde counts skipped variants when it writes, and does
//!   not when it reads.
//!
//! Numbers, texts, options, lists and maps are postcard's. A list is not shorter or longer than it said, nor read in part.

mod decode;
mod encode;

pub(super) use decode::from_slice;
pub(super) use encode::{NotEncoded, append, to_slice, to_vec};

/// What the name of a variant comes down to: letters and digits, in either case, for `rename_all` may be different for the
/// two directions. Different names have the same mark once in 65,536.
#[inline(always)]
fn mark(variant: &str) -> u16 {
    let mut hash: u32 = 0x811c_9dc5;
    for byte in variant.bytes().filter(|byte| byte.is_ascii_alphanumeric() || !byte.is_ascii()) {
        hash = (hash ^ u32::from(byte | 0x20)).wrapping_mul(0x0100_0193);
    }
    (hash >> 16) as u16 ^ hash as u16
}

/// How many levels of values inside others there may be, unless [`max_nesting`](crate::ProcessPoolBuilder::max_nesting) says otherwise.
/// Every struct, tuple, list, map, option and variant with something in it is one.
pub(super) const NESTING: u32 = 512;

/// Why a value was refused that is nested more than `nesting` levels deep. To encode and to decode take stack for each level.
fn too_deep(nesting: u32) -> String {
    format!("it has values nested more than {nesting} levels deep: see `ProcessPoolBuilder::max_nesting`")
}

/// The reason for all that postcard has an error of its own for.
fn explain(error: postcard::Error) -> String {
    match error {
        postcard::Error::WontImplement | postcard::Error::NotYetImplemented => {
            "its serde implementation needs a format that describes itself (`untagged`, `flatten` and the like do): \
             send it in a form that does not, such as a text of your own"
                .to_owned()
        }
        postcard::Error::SerializeSeqLengthUnknown => {
            "a sequence or map has to know its length (with `flatten` it does not)".to_owned()
        }
        postcard::Error::SerdeSerCustom | postcard::Error::SerdeDeCustom => {
            "its serde implementation reported an error".to_owned()
        }
        other => other.to_string(),
    }
}

/// What has a number of fields or items.
#[derive(Debug, Clone, Copy)]
struct Owner {
    /// The name of the type, if serde has one for it.
    name: Option<&'static str>,
    variant: Option<&'static str>,
    is_list: bool,
}

impl Owner {
    const TUPLE: Self = Self { name: None, variant: None, is_list: false };
    const LIST: Self = Self { name: None, variant: None, is_list: true };

    fn named(name: &'static str) -> Self {
        Self { name: Some(name), ..Self::TUPLE }
    }

    fn variant(name: &'static str, variant: &'static str) -> Self {
        Self { variant: Some(variant), ..Self::named(name) }
    }

    /// What its parts are called.
    fn parts(self) -> &'static str {
        if self.is_list { "items" } else { "fields" }
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.name, self.variant) {
            (Some(name), Some(variant)) => write!(f, "`{name}::{variant}`"),
            (Some(name), None) => write!(f, "`{name}`"),
            _ if self.is_list => f.write_str("a list"),
            _ => f.write_str("a tuple"),
        }
    }
}

#[cfg(test)]
mod tests;
