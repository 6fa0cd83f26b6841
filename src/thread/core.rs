//! The state that the handle of a pool and its workers share.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*, fence};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use crate::lock::Mutex;
use crossbeam::utils::CachePadded;

use super::queues::{self, Shared};
use super::registry::Registry;
use super::sleep::{Counts, Sleep};
use super::spares::Spares;
use super::worker;
use crate::combine::Host;
use crate::error::{Cause, TaskError, spawn_error};
use crate::executor::{Capacity, Priority};
use crate::fork::{self, Origin};
use crate::future::{LiveFutures, Owner, Shells, SpareHost, Sweep, Task, TaskFuture, WaitMode, task};
use crate::quiet;
use crate::spin;

/// The initializer or finalizer of threads.
pub(super) type Hook = Arc<dyn Fn() + Send + Sync>;

/// The settings of a pool.
pub(super) struct Config {
    pub(super) name: String,
    pub(super) stack_size: Option<usize>,
    pub(super) idle_timeout: Option<Duration>,
}

/// What each thread runs first and last. A thread gets a copy when it is started.
#[derive(Clone, Default)]
pub(super) struct Hooks {
    pub(super) initializer: Option<Hook>,
    pub(super) finalizer: Option<Hook>,
}

pub(super) struct Core {
    pub(super) config: Config,
    /// Empty as soon as no thread can start any more.
    hooks: Mutex<Hooks>,
    pub(super) queues: Shared,
    /// How many empty shells there are in the queues.
    pub(super) shells: &'static Shells,
    /// How many there were after the last sweep. Locked during a sweep.
    swept: Mutex<usize>,
    pub(super) sleep: CachePadded<Sleep>,
    pub(super) max_workers: AtomicUsize,
    pub(super) registry: Registry,
    pub(super) spares: Spares,
    pub(super) capacity: Option<Arc<Capacity>>,
    /// Spawned futures that have not ended.
    pub(super) unfinished: LiveFutures,
    /// A worker sleeps beyond its idle timeout because of `unfinished`.
    pub(super) someone_stays: AtomicBool,
    /// The pool was shut down without waiting; dropping it does not wait either.
    pub(super) is_left_alone: AtomicBool,
    /// The process that the pool was built in.
    origin: Origin,
    /// For starting threads, which hold the core.
    me: Weak<Self>,
    /// Why the pool is broken, once it is.
    broken: OnceLock<Cause>,
    /// Why there is no thread, if the last attempt to start the first one failed.
    no_thread: Mutex<Option<TaskError>>,
}

/// Identifies the pool of a task by its count of empty shells, which no other pool has at the same time.
///
/// A core is not dropped while tasks are queued, so if the calling worker holds a core with that count, it is the task's own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct PoolId(&'static Shells);

impl PoolId {
    /// Whether the pool was built in a process from which this one was forked.
    #[inline]
    pub(super) fn is_elsewhere(self) -> bool {
        fork::is_child() && fork::is_foreign(self.0.origin())
    }
}

impl Owner for PoolId {
    #[inline]
    fn may_claim(self) -> bool {
        worker::current_pool() == Some(self)
    }

    fn claimed(self) {
        worker::with_current(worker::Worker::count_claimed);
    }

    fn is_foreign(self) -> bool {
        self.is_elsewhere()
    }

    fn spare_host(self) -> Option<Arc<dyn SpareHost>> {
        worker::with_current(|worker| Arc::clone(&worker.core) as Arc<dyn SpareHost>)
    }

    #[inline]
    fn released(self) {}

    fn shell_left(self) {
        self.0.left();
    }

    fn shell_gone(self) {
        self.0.gone();
    }

    fn drive_while_waiting(self, done: &dyn Fn() -> bool, _deadline: Option<Instant>, mode: WaitMode) -> bool {
        let spins = mode == WaitMode::Poll;
        if spins {
            spin::spin_for(done);
        }
        spins
    }
}

impl Sweep for Core {
    fn sweep_if_due(&self) {
        let Some(mut swept) = self.swept.try_lock() else { return };
        let count = self.shells.count();
        // Shells that a sweep does not find, since they are in the batches of workers, do not trigger the next one. So each sweep
        // handles at most twice as many entries as shells were added since the last one.
        *swept = (*swept).min(count);
        if 2 * (count - *swept) > self.queues.len() {
            self.queues.sweep();
            *swept = self.shells.count();
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        if self.is_here() {
            self.shells.give_back();
        }
    }
}

impl Core {
    pub(super) fn new(config: Config, hooks: Hooks, max_workers: usize, capacity: Option<Arc<Capacity>>) -> Arc<Self> {
        let origin = Origin::new();
        Arc::new_cyclic(|me: &Weak<Self>| Self {
            config,
            hooks: Mutex::new(hooks),
            queues: Shared::new(),
            shells: Shells::lease(Weak::<Self>::clone(me), origin.number()),
            swept: Mutex::new(0),
            sleep: CachePadded::new(Sleep::new()),
            max_workers: AtomicUsize::new(max_workers),
            registry: Registry::new(),
            spares: Spares::new(),
            capacity,
            unfinished: LiveFutures::new(),
            someone_stays: AtomicBool::new(false),
            is_left_alone: AtomicBool::new(false),
            origin,
            me: Weak::clone(me),
            broken: OnceLock::new(),
            no_thread: Mutex::new(None),
        })
    }

    pub(super) fn id(&self) -> PoolId {
        PoolId(self.shells)
    }

    /// Whether this is the process that the pool was built in. A forked child has no workers, and locks may be held by threads
    /// that do not exist there, so the pool must not be used there. Costs one load.
    #[inline(always)]
    pub(super) fn is_here(&self) -> bool {
        self.origin.is_here()
    }

    /// Why the pool accepts no new tasks; `None` if it does.
    pub(super) fn closed_because(&self) -> Option<TaskError> {
        if !self.is_here() {
            return Some(TaskError::WrongProcess);
        }
        let counts = self.sleep.counts();
        counts.is_closed().then(|| self.reason(counts, TaskError::ShutDown))
    }

    pub(super) fn reason(&self, counts: Counts, otherwise: TaskError) -> TaskError {
        match self.broken.get() {
            Some(cause) if counts.is_broken() => TaskError::Broken(cause.clone()),
            _ => otherwise,
        }
    }

    /// Queues a closure. If the pool is closed, the future is resolved to the reason.
    pub(super) fn submit<F, T>(&self, f: F, priority: Priority) -> TaskFuture<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        if let Some(reason) = self.closed_because() {
            return TaskFuture::ready(Err(reason));
        }
        let (task, future) = task(f, self.id());
        self.push(task, priority);
        future
    }

    /// Queues a task, and notifies the workers.
    pub(super) fn push(&self, task: Task, priority: Priority) {
        self.push_unannounced(task, priority);
        self.notify();
    }

    /// [`notify`](Self::notify) for one task of a batch; the caller notifies once more at the end of the batch. Cheap, but may
    /// miss a worker that is falling asleep.
    pub(super) fn notify_roughly(&self) {
        self.sleep.wake_one_if_wanted(self.sleep.counts());
    }

    /// Queues a task; the caller notifies.
    pub(super) fn push_unannounced(&self, task: Task, priority: Priority) {
        self.queues.push(task, priority);
    }

    /// Rule 1 of `sleep`: work has been published.
    pub(super) fn notify(&self) {
        fence(SeqCst);
        let counts = self.sleep.counts();
        if counts.is_refusing() {
            // The pool was cancelled between the check and the push, and the thread that emptied the queues may have missed this
            // task; all workers may be busy for long.
            self.drain(|task| self.refuse(task, counts));
        } else if counts.asleep() > 0 {
            self.sleep.wake_one_if_wanted(counts);
        } else if counts.is_closed() && counts.threads() == 0 {
            // The pool ended between the check and the push: no other thread will find the task.
            self.refuse_queued(&TaskError::ShutDown);
        } else if counts.threads() < self.max_workers.load(Relaxed) {
            self.grow_if_short(counts);
        }
    }

    /// [`notify`](Self::notify) for a future that was woken, possibly on a thread outside the pool. As long as the future is
    /// unfinished, there is a worker that will find it, even if only to refuse it.
    pub(super) fn notify_of_woken(&self) {
        fence(SeqCst);
        let counts = self.sleep.counts();
        if counts.asleep() > 0 {
            self.sleep.wake_one_if_wanted(counts);
        } else if counts.threads() < self.max_workers.load(Relaxed) {
            self.grow_if_short(counts);
        }
    }

    pub(super) fn max_workers(&self) -> usize {
        self.max_workers.load(Relaxed)
    }

    pub(super) fn myself(&self) -> Option<Arc<Self>> {
        self.me.upgrade()
    }

    /// Starts a thread, if there may be more, for work that was published earlier and has not been taken yet.
    pub(super) fn grow_if_room(&self, counts: Counts) {
        if counts.threads() < self.max_workers() {
            self.grow_if_short(counts);
        }
    }

    /// A thread has stopped being free; `counts` is the word of `sleep` after that change.
    pub(super) fn stopped_being_free(&self, counts: Counts) {
        self.spares.watch.stopped_being_free(&self.sleep, counts);
    }

    /// Whether all queues, the workers' own and the shared ones, hold more than `searching` entries. In this order: a task that a
    /// worker fetches in between is missed, and that worker looks for more; in the other order it could be counted twice.
    fn is_waiting_more_than(&self, searching: usize) -> bool {
        let own = || {
            if self.anything_own() { self.registry.workers().map(|handle| handle.waiting()).sum::<usize>() } else { 0 }
        };
        // Usually the shared queues suffice, and the workers' queues are not read.
        self.queues.len() > searching || own() + self.queues.len() > searching
    }

    /// Is there anything in any queue?
    pub(super) fn has_work(&self) -> bool {
        !self.queues.is_empty() || self.anything_own() && self.registry.workers().any(|handle| !handle.is_empty())
    }

    /// Whether there may be anything in the workers' own queues.
    pub(super) fn anything_own(&self) -> bool {
        self.queues.has_batches() || self.registry.anyone_joins()
    }

    /// How many tasks are queued.
    pub(super) fn queued(&self) -> usize {
        let own = if self.queues.has_batches() {
            self.registry.workers().map(|handle| handle.tasks.len()).sum::<usize>()
        } else {
            0
        };
        (own + self.queues.len()).saturating_sub(self.shells.count())
    }

    /// Starts a thread if more tasks wait than threads are searching.
    #[cold]
    fn grow_if_short(&self, counts: Counts) {
        // A searching worker may have taken the task in the meantime.
        if !self.is_waiting_more_than(counts.searching()) {
            return;
        }
        let Some(me) = self.me.upgrade() else { return };
        if let Err(error) = worker::start(&me, counts) {
            self.start_failed(error);
        }
        let counts = self.sleep.counts();
        if counts.is_closed() && counts.threads() == 0 {
            self.refuse_queued(&TaskError::ShutDown);
            self.drop_hooks_if_over();
        }
    }

    /// If there are other threads, the tasks wait for them. Otherwise no thread would run them, so they fail.
    #[cold]
    fn start_failed(&self, error: io::Error) {
        fence(SeqCst);
        let counts = self.sleep.counts();
        if counts.threads() == 0 {
            let reason = spawn_error(error);
            *self.no_thread.lock() = Some(reason.clone());
            self.refuse_queued(&reason);
            *self.no_thread.lock() = None;
        } else if self.has_work() {
            // The thread that could not be started was counted as searching, and others may have relied on it.
            self.sleep.wake_one_if_wanted(counts);
        }
    }

    /// Removes every task that has not started from the shared queues and those of the workers. A thread that pushes after this
    /// has checked the queues (SeqCst fence) sees the reason, and drains them itself. If a callback of a task forks, the child
    /// leaves the rest.
    pub(super) fn drain(&self, mut each: impl FnMut(Task)) {
        fence(SeqCst);
        for priority in [Priority::High, Priority::Normal, Priority::Low] {
            while let Some(task) = self.queues.pop(priority) {
                each(task);
                if !self.is_here() {
                    return;
                }
            }
        }
        for handle in self.registry.workers() {
            while let Some(task) = queues::steal(&handle.tasks) {
                each(task);
                if !self.is_here() {
                    return;
                }
            }
        }
    }

    fn refuse_queued(&self, reason: &TaskError) {
        self.drain(|task| task.fail(reason.clone()));
    }

    /// Cancels or fails a task instead of running it, while the pool is refusing.
    pub(super) fn refuse(&self, task: Task, counts: Counts) {
        match self.reason(counts, TaskError::Cancelled) {
            TaskError::Cancelled => task.cancel(),
            reason => task.fail(reason),
        }
    }

    /// Closes the pool: it accepts no new tasks, and the workers end when the queues are empty.
    pub(super) fn close(&self) {
        self.sleep.close();
        self.closed();
    }

    /// Closes the pool, and cancels what has not started.
    pub(super) fn close_and_cancel(&self) {
        self.sleep.cancel();
        self.closed();
        self.drain(Task::cancel);
        if self.is_here() {
            self.unfinished.cancel_all();
        }
    }

    /// A worker's initializer panicked: no task can run any more.
    pub(super) fn break_down(&self, cause: Cause) {
        let _ = self.broken.set(cause);
        if self.sleep.break_down() {
            self.closed();
        }
        let reason = self.reason(self.sleep.counts(), TaskError::ShutDown);
        self.refuse_queued(&reason);
        if self.is_here() {
            self.unfinished.fail_all(&reason);
        }
    }

    fn closed(&self) {
        if let Some(capacity) = &self.capacity {
            capacity.close();
        }
        self.sleep.wake_all();
        self.drop_hooks_if_over();
    }

    /// For a thread that is about to start.
    pub(super) fn hooks(&self) -> Hooks {
        self.hooks.lock().clone()
    }

    /// Drops the hooks, and what they captured, if no thread can start any more: the pool is refusing, or closed and without a
    /// thread (`Sleep::add_thread_below`). Called wherever that may have become true. The registry tells whether there is a
    /// thread: `sleep` temporarily does not count a worker that is about to end, and that worker may stay after all.
    pub(super) fn drop_hooks_if_over(&self) {
        let counts = self.sleep.counts();
        if counts.is_refusing() || counts.is_closed() && !self.registry.is_active() && self.spares.count() == 0 {
            // Outside the lock: destructors are user code.
            let hooks = std::mem::take(&mut *self.hooks.lock());
            quiet::drop(hooks);
        }
    }
}

/// The pool as the host of a map.
pub(super) struct MapHost {
    core: Arc<Core>,
    /// Why the pool accepted no tasks when the map was created: only accepted items count as cancelled.
    closed: Option<TaskError>,
}

impl MapHost {
    pub(super) fn new(core: &Arc<Core>) -> Self {
        Self { core: Arc::clone(core), closed: core.closed_because() }
    }
}

impl Host for MapHost {
    fn start(&self, runner: Box<dyn FnOnce() + Send>) -> TaskFuture<()> {
        // A refused runner's closure is dropped, which tells the map; the result of a runner is not used.
        self.core.submit(runner, Priority::Normal)
    }

    fn why_dropped(&self) -> TaskError {
        let why = self.refusal().or_else(|| self.core.closed_because()).or_else(|| self.core.no_thread.lock().clone());
        why.unwrap_or(TaskError::Cancelled)
    }

    fn workers(&self) -> usize {
        self.core.max_workers.load(Relaxed)
    }

    fn refusal(&self) -> Option<TaskError> {
        let counts = self.core.sleep.counts();
        let refuses = || counts.is_refusing().then(|| self.core.reason(counts, TaskError::Cancelled));
        self.closed.clone().or_else(refuses)
    }

    fn is_elsewhere(&self) -> bool {
        !self.core.is_here()
    }

    fn may_help(&self) -> bool {
        self.core.id().may_claim()
    }

    fn is_urgent_waiting(&self) -> bool {
        !self.core.queues.is_empty_of(Priority::High)
    }

    fn is_other_waiting(&self) -> bool {
        !self.core.queues.is_empty()
    }
}
