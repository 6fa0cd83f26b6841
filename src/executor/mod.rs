//! What all executors have in common.
//!
//! | file | what it is |
//! |---|---|
//! | `capacity` | the bound of a bounded queue |
//! | `options` | the words in which a user speaks to any executor |

mod capacity;
mod options;

pub use capacity::QueuePolicy;
pub(crate) use capacity::{Capacity, Permit};
pub(crate) use options::check_workers;
pub use options::{MAX_WORKERS, Priority, Shutdown};
