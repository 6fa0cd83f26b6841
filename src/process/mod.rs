//! The process pool.
//!
//! | file | what it is |
//! |---|---|
//! | `pool` | the public API, with `builder`, `options` and `stdio` |
//! | `submit` | makes a task of the pool from a function and its argument |
//! | `call` | how a function is identified in another process, and how values are encoded |
//! | `body` | bytes that can become a vector without another copy |
//! | `codec` | the format of arguments and results |
//! | `wire` | the format of the messages between the two sides |
//! | `shared_bytes` | bytes that are sent without being copied |
//! | `link` | how calls and replies are transferred |
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

/// `time + by`, or a century after `time` if an `Instant` cannot represent that.
fn later(time: Instant, by: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    time.checked_add(by).unwrap_or(time + CENTURY)
}
