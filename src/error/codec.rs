//! Values that cannot be sent to or from a worker process.

use std::fmt;
use std::sync::Arc;

/// A value that could not be encoded or decoded on its way to or from a worker process.
#[derive(Clone)]
pub struct CodecError(Arc<(String, String)>);

impl CodecError {
    #[cfg(all(feature = "process", target_os = "linux", not(loom)))]
    pub(crate) fn new(type_name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self(Arc::new((type_name.into(), reason.into())))
    }

    /// The Rust type of the value.
    pub fn type_name(&self) -> &str {
        &self.0.0
    }

    /// What went wrong.
    pub fn reason(&self) -> &str {
        &self.0.1
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.type_name(), self.reason())
    }
}

impl fmt::Debug for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodecError").field("type_name", &self.type_name()).field("reason", &self.reason()).finish()
    }
}

impl std::error::Error for CodecError {}

/// A value whose encoding is longer than its executor allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeLimit {
    pub(crate) size: u64,
    pub(crate) limit: u64,
}

impl SizeLimit {
    /// How many bytes the value has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// How many bytes it may have.
    pub fn limit(&self) -> u64 {
        self.limit
    }
}

impl fmt::Display for SizeLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, where at most {} are allowed", self.size, self.limit)
    }
}
