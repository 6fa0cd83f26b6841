//! Futures on the pool: the workers poll them.

use std::future::Future;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{Ordering::*, fence};

use super::core::Core;
use super::worker;
use crate::error::TaskError;
use crate::executor::{Priority, QueuePolicy};
use crate::future::{LiveFutures, Owner, Scheduler, Shells, SpareHost, Task, TaskFuture, spawned};

/// Submits a future to the pool. With a bounded queue it holds a permit until its first poll.
pub(super) fn spawn<F>(core: &Arc<Core>, future: F) -> TaskFuture<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let Some(capacity) = &core.capacity else { return queue(core, future) };
    if !core.is_here() {
        return TaskFuture::ready(Err(TaskError::WrongProcess));
    }
    let permit = capacity.try_acquire().or_else(|| match capacity.policy {
        QueuePolicy::Block if !core.id().may_claim() => capacity.acquire(),
        _ => None,
    });
    match (permit, capacity.policy) {
        (Some(permit), _) => queue(core, async move {
            drop(permit);
            future.await
        }),
        (None, QueuePolicy::Fail) => TaskFuture::ready(Err(core.closed_because().unwrap_or(TaskError::QueueFull))),
        (None, QueuePolicy::Block | QueuePolicy::CallerRuns) => poll_here(core, future),
    }
}

fn queue<F>(core: &Arc<Core>, future: F) -> TaskFuture<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    if let Some(reason) = core.closed_because() {
        return TaskFuture::ready(Err(reason));
    }
    let (task, handle) = spawned(future, Arc::clone(core) as Arc<dyn Scheduler>);
    core.push(task, Priority::Normal);
    handle
}

/// Polls the future once in the calling thread, so nothing is queued. When it is woken later it is queued without a permit.
fn poll_here<F>(core: &Arc<Core>, future: F) -> TaskFuture<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    if let Some(reason) = core.closed_because() {
        return TaskFuture::ready(Err(reason));
    }
    let (task, handle) = spawned(future, Arc::clone(core) as Arc<dyn Scheduler>);
    let mut task = Some(task);
    worker::inside(core.id(), &mut || {
        if let Some(task) = task.take() {
            task.run_nested();
        }
    });
    // There may be no thread yet, and the pool may have ended since the check.
    fence(SeqCst);
    let counts = core.sleep.counts();
    if counts.is_refusing() || counts.is_closed() && counts.threads() == 0 {
        handle.cancel();
    } else if counts.threads() == 0 && !handle.is_done() {
        core.submit(|| (), Priority::Normal).detach();
    }
    handle
}

impl Scheduler for Core {
    fn is_foreign(&self) -> bool {
        !self.is_here()
    }

    fn may_poll(&self) -> bool {
        self.id().may_claim()
    }

    fn schedule(&self, task: Task, yielded: bool) {
        if !self.is_here() {
            // A forked child: the parent's workers have their own copy.
            return mem::forget(task);
        }
        self.push_unannounced(task, Priority::Normal);
        // The worker that has just polled the future searches for work next, and wakes others if there is more. Waking another
        // worker would move the future between threads.
        if !(yielded && worker::is_about_to_search(self.id())) {
            self.notify_of_woken();
        }
    }

    fn claimed(&self) {
        worker::with_current(worker::Worker::count_claimed);
    }

    fn spare_host(&self) -> Option<Arc<dyn SpareHost>> {
        self.myself().map(|core| core as Arc<dyn SpareHost>)
    }

    fn refusal(&self) -> TaskError {
        self.reason(self.sleep.counts(), TaskError::Cancelled)
    }

    fn inside(&self, end: &mut dyn FnMut()) {
        worker::inside(self.id(), end);
    }

    fn shells(&self) -> Option<&'static Shells> {
        Some(self.shells)
    }

    fn unfinished(&self) -> &LiveFutures {
        &self.unfinished
    }

    fn all_finished(&self) {
        // SeqCst: the list was changed before. A worker that stays because of the list checks it after it has set `someone_stays`
        // and counted itself as asleep.
        fence(SeqCst);
        let stayed = self.someone_stays.load(SeqCst) && self.someone_stays.swap(false, SeqCst);
        if stayed || self.sleep.counts().is_closed() {
            self.sleep.wake_all();
        }
    }
}
