//! Waiting for many descriptors at once, and being woken by another thread meanwhile.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::io::Errno;

use super::fd::above_standard;
use super::futex::timespec;

/// What [`Events::wait`] reports for [`Events::wake`].
pub(crate) const WOKEN: u64 = u64::MAX;

/// The longest sleep. More milliseconds than fit into an `int` are for newer kernels only. And whoever sleeps here while the program
/// closes these descriptors (which it should not) is woken by nothing else, and then sees it.
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
        // Edge-triggered: the counter need not be read back, every write is an edge.
        epoll::add(&epoll, &bell, epoll::EventData::new_u64(WOKEN), epoll::EventFlags::IN | epoll::EventFlags::ET)?;
        Ok(Self { epoll, bell })
    }

    /// Reports `data` when something can be read from `fd`, once each time that becomes so.
    pub(crate) fn watch(&self, fd: impl AsFd, data: u64) -> io::Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(data), flags)?)
    }

    /// Like [`watch`](Self::watch), and also when there is room to write.
    pub(crate) fn watch_both_ways(&self, fd: impl AsFd, data: u64) -> io::Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(data), flags)?)
    }

    /// Has to be called before a watched descriptor is closed, if it may have been duplicated.
    pub(crate) fn forget(&self, fd: impl AsFd) {
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Makes [`wait`](Self::wait) return, now or when it is next called. False if the program has closed the descriptors.
    #[must_use = "nobody can be woken by descriptors that are closed"]
    pub(crate) fn wake(&self) -> bool {
        match rustix::io::write(&self.bell, &1u64.to_ne_bytes()) {
            // The counter is about to overflow; then it has long been woken.
            Err(Errno::AGAIN) => {
                let _ = rustix::io::read(&self.bell, &mut [0; 8]);
                rustix::io::write(&self.bell, &1u64.to_ne_bytes()).is_ok()
            }
            written => written.is_ok(),
        }
    }

    /// Sleeps until something happens or the time is up; what happened goes to `to`. False if the program has closed the
    /// descriptors: then nothing will ever be reported.
    #[must_use = "nothing is reported by descriptors that are closed"]
    pub(crate) fn wait(&self, timeout: Option<Duration>, to: &mut Vec<u64>) -> bool {
        let mut events = Vec::with_capacity(64);
        let timeout = timeout.map(|timeout| timespec(timeout.min(LONGEST)));
        // An interrupted wait is one in which nothing happened.
        let waited = epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref());
        to.clear();
        to.extend(events.iter().map(|event| event.data.u64()));
        // The number may be that of another file by now.
        !matches!(waited, Err(Errno::BADF | Errno::INVAL))
    }
}
