//! All error types of this crate. They contain no type of a dependency.
//!
//! | file | what it is |
//! |---|---|
//! | `task` | why a task has no value |
//! | `panic`, `worker`, `codec`, `cause` | what the variants of `TaskError` contain |
//! | `build`, `submit`, `start`, `ending` | errors of building an executor, submitting, starting a worker, waiting for an end |

mod build;
mod cause;
mod codec;
mod ending;
mod panic;
mod start;
mod submit;
mod task;
mod worker;

pub use build::{BuildError, MapError};
pub use cause::Cause;
pub use codec::{CodecError, SizeLimit};
pub use ending::{CompletionTimeout, ShutdownError};
pub use panic::{PanicLocation, TaskPanic};
pub use start::{DifferentIds, StartError};
pub use submit::SubmitError;
pub use task::TaskError;
pub(crate) use task::spawn_error;
#[cfg(all(feature = "process", target_os = "linux", not(loom)))]
pub(crate) use worker::ExitInner;
pub use worker::WorkerExit;
