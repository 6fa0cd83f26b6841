//! The process pool.
//!
//! | file | what it is |
//! |---|---|
//! | `pool` | what the user sees; `builder`, `options`, `stdio` beside it |
//! | `submit` | from a function and its argument to a task of the pool |
//! | `call` | how a function is named in another process, and how values become bytes |
//! | `body` | bytes that can become a vector without being copied again |
//! | `codec` | the format of arguments and results |
//! | `wire` | what the two sides say to each other, as pure bytes |
//! | `shared_bytes` | bytes that are not copied at all |
//! | `link` | how calls and replies travel |
//! | `parent` | the parent's side |
//! | `worker` | the worker's side |
//! | `worker_env` | the variable in the environment of a worker, and its depth |
//! | `start` | how an executable becomes a worker before its `main` |

mod body;
mod builder;
mod call;
mod codec;
#[cfg(fuzzing)]
pub mod fuzzing;
mod link;
mod options;
mod parent;
mod pool;
mod shared_bytes;
mod start;
mod stdio;
mod submit;
mod wire;
pub mod worker;
mod worker_env;

use std::time::{Duration, Instant};

pub use builder::ProcessPoolBuilder;
pub use link::Transport;
pub use options::ProcessTask;
pub use pool::{ProcessPoolExecutor, ProcessPoolStats};
pub use shared_bytes::SharedBytes;
pub use stdio::Stdio;

/// `time + by`, or a century from `time` if there is no such moment.
fn later(time: Instant, by: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    time.checked_add(by).unwrap_or(time + CENTURY)
}
