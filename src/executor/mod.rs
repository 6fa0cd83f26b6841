//! What all executors have in common.
//!
//! | file | what it is |
//! |---|---|
//! | `any` | the operations that all executors support |
//! | `capacity` | the bound of a bounded queue |
//! | `options` | option types that both executors share |

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
