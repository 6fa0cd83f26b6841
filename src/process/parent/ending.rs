//! The end of a pool whose supervisor panicked or whose descriptors were closed; and the last step, which every end of a
//! supervised pool shares.

use std::time::{Duration, Instant};

use super::child::{Child, DrainedTasks};
use super::inner::Inner;
use super::lifecycle::Supervision;
use super::workers::describe;
use crate::error::{Cause, TaskError};
use crate::os::pidfd::Ended;

/// The interval at which [`reap`] checks whether a killed worker has ended.
const INTERVAL: Duration = Duration::from_millis(1);

fn descriptors_closed() -> Cause {
    Cause::new("the program has closed file descriptors of this executor")
}

/// Blocks until the worker, which has been killed, has ended and has been reaped. Returns `None` if it cannot be killed.
pub(super) fn reap(child: &mut Child) -> Option<Ended> {
    loop {
        let ended = child.process.try_reap();
        if ended.is_some() || child.life().is_unkillable(Instant::now()) {
            return ended;
        }
        // If the worker has made this process its tracer, it cannot end before its ended threads are reaped, which this call
        // does.
        child.process.is_traced_and_stopped();
        std::thread::sleep(INTERVAL);
    }
}

impl Inner {
    /// Fails all tasks and ends all workers. Returns when they have ended or turned out to be unkillable.
    pub(super) fn break_down(&self, cause: Cause) {
        for (child, ended) in self.end_children(cause) {
            if ended.is_none() {
                child.leave_behind();
            }
        }
    }

    /// Ends the pool because its descriptors have been closed. Another thread does this, since the supervisor may be asleep on a
    /// closed descriptor, where nothing can wake it.
    #[cold]
    pub(super) fn descriptors_are_closed(&self) {
        let Some(inner) = self.this.upgrade() else { return };
        let mut state = self.state.lock();
        if !state.lifecycle.lose_descriptors() {
            return;
        }
        let supervised = state.lifecycle.supervision() != Supervision::NotStarted;
        drop(state);
        let name = format!("{}-end", self.config.name);
        let ends = std::thread::Builder::new().name(name).spawn(move || inner.end_without_descriptors());
        if ends.is_err() || !supervised {
            self.change(|state, deferred| {
                state.break_down(descriptors_closed(), deferred);
                state.lifecycle.gone();
            });
            self.ended.notify_all();
        }
    }

    /// Ends the pool when its descriptors have been found to be closed. Only one thread may call this: the one that
    /// [`lose_descriptors`](super::lifecycle::Lifecycle::lose_descriptors) has told that it is the first, or one that it has
    /// started.
    pub(super) fn end_without_descriptors(&self) {
        for (child, _) in self.end_children(descriptors_closed()) {
            // Dropping it would close its descriptors, whose numbers may belong to other files by now.
            std::mem::forget(child);
        }
        std::mem::forget(self.this.upgrade());
        self.end();
    }

    /// Breaks the pool, ends all workers, and returns each with how it ended; `None` if it cannot be killed.
    fn end_children(&self, cause: Cause) -> Vec<(Child, Option<Ended>)> {
        let children = self.change(|state, deferred| {
            state.break_down(cause, deferred);
            state.lifecycle.end();
            std::mem::take(&mut state.children)
        });
        let end = |mut child: Child| {
            let ended = reap(&mut child);
            let exit = describe(&mut child, ended.flatten(), &self.config);
            let DrainedTasks { begun, not_begun } = child.drain_tasks();
            let jobs = begun.into_iter().map(|begun| begun.job).chain(not_begun);
            self.change(|_, deferred| jobs.for_each(|job| deferred.fail(job, TaskError::WorkerDied(exit.clone()))));
            (child, ended)
        };
        children.into_iter().map(end).collect()
    }

    /// The last step: marks the pool as ended, and wakes the threads that wait for that.
    pub(super) fn end(&self) {
        self.callbacks.end();
        *self.rings.write() = std::sync::Arc::new([]);
        self.state.lock().lifecycle.gone();
        self.ended.notify_all();
    }
}
