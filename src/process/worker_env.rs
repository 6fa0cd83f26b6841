//! The environment variable that a worker process is started with, and how many levels of worker processes this one is below
//! the first parent.
//!
//! A worker recognises itself by its control socket (`worker/entry`), because a program that starts it may have cleared the
//! environment. The variable serves to detect a worker that was started without its socket, which would otherwise run the
//! program's `main`.

use std::ffi::CStr;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::wire::PROTOCOL;

/// The name of the variable.
pub(super) const NAME: &str = match C_NAME.to_str() {
    Ok(name) => name,
    Err(_) => unreachable!(),
};

/// [`NAME`] as a C string.
pub(super) const C_NAME: &CStr = c"CONCURRENT_FUTURES_WORKER";

/// Workers may have workers of their own, up to this depth.
pub(super) const MAX_DEPTH: u32 = 8;

static DEPTH: AtomicU32 = AtomicU32::new(0);

/// The level of this process: 0 if it is not a worker, 1 in a worker of such a process, and so on.
pub(super) fn depth() -> u32 {
    DEPTH.load(Relaxed)
}

pub(super) fn set_depth(depth: u32) {
    DEPTH.store(depth, Relaxed);
}

/// The value of the variable.
pub(super) struct WorkerEnv {
    /// The process that starts the worker, directly or through another program.
    pub(super) host: u32,
    pub(super) depth: u32,
}

impl WorkerEnv {
    /// The value for a worker of this process.
    pub(super) fn of_worker() -> Self {
        Self { host: std::process::id(), depth: depth() + 1 }
    }

    /// The value of this process, if it was started by the same version of this crate.
    pub(super) fn read() -> Option<Self> {
        let value = std::env::var(NAME).ok()?;
        let mut parts = value.split(':');
        let mut number = || parts.next()?.parse().ok();
        let (protocol, host, depth): (u32, u32, u32) = (number()?, number()?, number()?);
        (protocol == PROTOCOL && parts.next().is_none()).then_some(Self { host, depth })
    }
}

impl fmt::Display for WorkerEnv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PROTOCOL}:{}:{}", self.host, self.depth)
    }
}
