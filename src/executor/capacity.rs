//! The bound of a bounded queue: permits to be queued.

use std::sync::Arc;

use crate::lock::{Condvar, Mutex};

/// What `submit` does when the queue of an executor is full
/// ([`queue_capacity`](crate::ThreadPoolBuilder::queue_capacity)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum QueuePolicy {
    /// Blocks until there is room, or the pool is shut down. A worker of the pool itself does not block, since it might be the
    /// one that has to make room: it runs the task in place.
    #[default]
    Block,
    /// Rejects the task: the future resolves to [`TaskError::QueueFull`](crate::TaskError::QueueFull) at once.
    Fail,
    /// Runs the task in the calling thread (also where the executor's workers are processes); the future is done when
    /// `submit` returns.
    CallerRuns,
}

/// The bound of a queue: how many more tasks may be queued.
#[derive(Debug)]
pub(crate) struct Capacity {
    pub(crate) policy: QueuePolicy,
    room: Mutex<Room>,
    changed: Condvar,
}

#[derive(Debug)]
struct Room {
    free: usize,
    closed: bool,
}

/// A permit for one queued task. It is part of the task's closure, so it is released when the task starts and when it is
/// cancelled, whichever comes first.
#[derive(Debug)]
pub(crate) struct Permit(Arc<Capacity>);

impl Capacity {
    pub(crate) fn new(tasks: usize, policy: QueuePolicy) -> Arc<Self> {
        Arc::new(Self { policy, room: Mutex::new(Room { free: tasks, closed: false }), changed: Condvar::new() })
    }

    /// A permit, if there is one now.
    pub(crate) fn try_acquire(self: &Arc<Self>) -> Option<Permit> {
        let mut room = self.room.lock();
        if room.free == 0 {
            return None;
        }
        room.free -= 1;
        Some(Permit(Arc::clone(self)))
    }

    /// Blocks until there is a permit; `None` if the pool is closed.
    pub(crate) fn acquire(self: &Arc<Self>) -> Option<Permit> {
        let mut room = self.room.lock();
        while room.free == 0 && !room.closed {
            self.changed.wait(&mut room);
        }
        if room.closed {
            return None;
        }
        room.free -= 1;
        Some(Permit(Arc::clone(self)))
    }

    /// Wakes all threads that wait for room: no more tasks are accepted.
    pub(crate) fn close(&self) {
        self.room.lock().closed = true;
        self.changed.notify_all();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.room.lock().free += 1;
        self.0.changed.notify_one();
    }
}

impl Permit {
    /// The closure, with the permit in it until it starts.
    pub(crate) fn carried_by<F, T>(self, f: F) -> impl FnOnce() -> T + Send + 'static
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        move || {
            drop(self);
            f()
        }
    }
}
