//! Every error of this crate. No type of a dependency appears in them.
//!
//! | file | what it is |
//! |---|---|
//! | `task` | why a task has no value |
//! | `panic`, `worker`, `codec`, `cause` | what the variants of that hold |
//! | `build`, `submit`, `start`, `ending` | what else can fail: building an executor, submitting a task, starting a worker process, waiting for an end |

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
