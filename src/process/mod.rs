//! The process pool.
//!
//! | file | what it is |
//! |---|---|
//! | `builder`, `options`, `stderr` | what the user sees beside the pool itself |
//! | `call` | how a function is named in another process, and how values become bytes |
//! | `body` | bytes that can become a vector without being copied again |
//! | `codec` | the format of arguments and results |
//! | `wire` | what the two sides say to each other, as pure bytes |
//! | `shared_bytes` | bytes that are not copied at all |
//! | `job` | a task on its way |
//! | `transport` | how calls and replies travel |
//! | `manager` | the parent's side |
//! | `child` | one worker as the parent sees it |
//! | `worker` | the worker's side |
//! | `start` | how an executable becomes a worker before its `main` |

mod body;
mod builder;
mod call;
mod child;
mod codec;
#[cfg(fuzzing)]
pub mod fuzzing;
mod job;
mod manager;
mod map;
mod options;
mod pool;
mod shared_bytes;
mod start;
mod stderr;
mod transport;
mod wire;
pub mod worker;

use std::time::{Duration, Instant};

pub use builder::ProcessPoolBuilder;
pub use options::ProcessTask;
pub use pool::{ProcessPoolExecutor, ProcessPoolStats};
pub use shared_bytes::SharedBytes;
pub use stderr::Stdio;
pub use transport::Transport;

/// A moment that much later, or, if there is no such moment, in a century.
fn later(time: Instant, by: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    time.checked_add(by).unwrap_or(time + CENTURY)
}
