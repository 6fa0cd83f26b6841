//! What all executors have in common.
//!
//! | file | what it is |
//! |---|---|
//! | `any` | what code can ask of an executor without knowing which one it is |
//! | `capacity` | the bound of a bounded queue |
//! | `options` | the words in which a user speaks to any executor |

#[cfg(all(feature = "process", target_os = "linux", not(loom)))]
mod any;
mod capacity;
mod options;

#[cfg(all(feature = "process", target_os = "linux", not(loom)))]
pub use any::Executor;
#[cfg(all(feature = "process", target_os = "linux", not(loom)))]
pub(crate) use any::Sealed;
pub(crate) use capacity::Capacity;
#[cfg(all(feature = "process", target_os = "linux", not(loom)))]
pub(crate) use capacity::Permit;
pub use capacity::QueuePolicy;
pub(crate) use options::check_workers;
pub use options::{MAX_WORKERS, Priority, Shutdown};
