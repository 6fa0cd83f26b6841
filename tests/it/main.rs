//! The integration tests, one module a situation.

mod as_completed;
mod block_on;
mod bounded_queue;
mod callbacks;
mod cancel;
mod circles;
mod conformance;
mod costs;
mod depth;
mod drops;
mod executor;
#[cfg(unix)]
mod fork;
mod future;
mod idle_timeout;
mod init;
mod join;
mod large;
mod liveness;
mod many_threads;
mod map;
mod memory;
mod nested;
mod order;
mod panics;
mod planted;
mod polling;
mod priorities;
#[cfg(all(feature = "process", target_os = "linux"))]
mod process;
mod process_exit;
#[cfg(all(feature = "process", feature = "stream", target_os = "linux"))]
mod promises;
mod resize;
#[cfg(all(feature = "process", target_os = "linux"))]
mod runtimes;
mod scope;
mod shared_future;
mod shutdown;
mod signals;
mod spare_threads;
mod spawn;
mod spawn_cancel;
mod spawn_failure;
mod spawn_shutdown;
mod spawn_waiting;
#[cfg(feature = "stream")]
mod stream;
mod support;
mod thread_locals;
mod thread_pool;
mod timed_waits;
mod wait;
mod wait_async;
mod waits;
