//! How calls and replies travel: through shared memory where the system has what it takes, else through the socket alone.

pub(super) mod ring;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::wire::message;
use crate::os::socket;

/// Nanoseconds of the monotonic clock, which is the same in all processes.
pub(super) fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64)
}

/// The worker's end of everything.
pub(super) struct WorkerLink {
    socket: Arc<OwnedFd>,
    shared: Arc<ring::Shared>,
}

impl WorkerLink {
    pub(super) fn new(socket: OwnedFd, memory: Option<OwnedFd>, ring: u64) -> io::Result<Self> {
        let capacity = usize::try_from(ring).map_err(|_| io::ErrorKind::InvalidInput)?;
        let memory = memory.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { socket: Arc::new(socket), shared: ring::Shared::map(memory, capacity)? })
    }

    pub(super) fn shared(&self) -> Option<&Arc<ring::Shared>> {
        Some(&self.shared)
    }

    pub(super) fn ends(&self) -> (Calls, Replies) {
        ring::worker_ends(&self.shared)
    }

    /// Sends a message that the parent waits for.
    pub(super) fn send_message(&self, bytes: &[u8]) -> io::Result<()> {
        socket::send(&*self.socket, &[bytes], &[]).map(drop)
    }

    /// Tells the parent that there is something to look at. If the socket is full, it has been told often enough.
    pub(super) fn bell(&self) {
        let _ = socket::send(&*self.socket, &[&[message::BELL]], &[]);
    }

    pub(super) fn progress(&self, position: u64, n: u64) {
        ring::Calls::progress(&self.shared, position).store(n, Relaxed);
    }
}

pub(super) use ring::{Calls, INLINE, ParentEnd as ParentLink, RING, Replies, Shared};
