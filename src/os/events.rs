//! Waiting for many descriptors at once, with wake-ups by other threads.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::io::Errno;

use super::fd::above_standard;
use super::futex::timespec;

/// The value that [`Events::wait`] reports for [`Events::wake`].
pub(crate) const WOKEN: u64 = u64::MAX;

/// The longest sleep. A timeout whose milliseconds do not fit into an `int` needs a newer kernel. And if the program closes
/// these descriptors (which it should not), a sleeping thread detects this only when the sleep ends.
const LONGEST: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Events {
    epoll: OwnedFd,
    bell: OwnedFd,
}

impl Events {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = above_standard(epoll::create(epoll::CreateFlags::CLOEXEC)?)?;
        let bell = above_standard(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)?;
        // Edge-triggered: the counter need not be read, because every write is an edge.
        epoll::add(&epoll, &bell, epoll::EventData::new_u64(WOKEN), epoll::EventFlags::IN | epoll::EventFlags::ET)?;
        Ok(Self { epoll, bell })
    }

    /// Reports `data` once each time `fd` becomes readable.
    pub(crate) fn watch(&self, fd: impl AsFd, data: u64) -> io::Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(data), flags)?)
    }

    /// Like [`watch`](Self::watch), and also when `fd` becomes writable.
    pub(crate) fn watch_both_ways(&self, fd: impl AsFd, data: u64) -> io::Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(data), flags)?)
    }

    /// Has to be called before a watched descriptor is closed, if it may have been duplicated.
    pub(crate) fn forget(&self, fd: impl AsFd) {
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Makes [`wait`](Self::wait) return, now or when it is next called. Returns `false` if the program has closed the
    /// descriptors.
    #[must_use = "nobody can be woken by descriptors that are closed"]
    pub(crate) fn wake(&self) -> bool {
        match rustix::io::write(&self.bell, &1u64.to_ne_bytes()) {
            // The counter would overflow, so a wake-up is already pending.
            Err(Errno::AGAIN) => {
                let _ = rustix::io::read(&self.bell, &mut [0; 8]);
                rustix::io::write(&self.bell, &1u64.to_ne_bytes()).is_ok()
            }
            written => written.is_ok(),
        }
    }

    /// Sleeps until something happens or the time is up; writes the events to `to`. Returns `false` if the program has closed
    /// the descriptors, after which nothing is reported.
    #[must_use = "nothing is reported by descriptors that are closed"]
    pub(crate) fn wait(&self, timeout: Option<Duration>, to: &mut Vec<u64>) -> bool {
        let mut events = Vec::with_capacity(64);
        let timeout = timeout.map(|timeout| timespec(timeout.min(LONGEST)));
        // An interrupted wait reports no events.
        let waited = epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref());
        to.clear();
        to.extend(events.iter().map(|event| event.data.u64()));
        // The descriptor number may refer to another file by now.
        !matches!(waited, Err(Errno::BADF | Errno::INVAL))
    }
}
