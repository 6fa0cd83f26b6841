//! The pool as its users see it: submit, cancel, collect.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::lock::{Condvar, Mutex, MutexGuard, RwLock};

use super::callbacks::{self, Callbacks};
use super::child::EndReason;
use super::deferred::Deferred;
use super::job::{Job, JobBox};
use super::lifecycle::Supervision;
use super::state::State;
use super::{supervisor, waiting};
use crate::error::{Cause, ShutdownError, TaskError};
use crate::executor::{Capacity, Shutdown};
use crate::fork::Origin;
use crate::os::events::Events;
use crate::process::call::{Function, Payload};
use crate::process::stdio::Stdio;
use crate::process::transport::{Shared, Transport};
use crate::unwind;

/// What every worker runs first.
pub(crate) struct Hook {
    pub(crate) function: Function,
    pub(crate) argument: Payload,
}

/// What a pool was built with.
pub(crate) struct Config {
    pub(crate) name: String,
    pub(crate) threads: usize,
    pub(crate) max_tasks: Option<u64>,
    pub(crate) max_rss: Option<u64>,
    pub(crate) memory_limit: Option<u64>,
    pub(crate) cpu_limit: Option<Duration>,
    pub(crate) max_payload: u64,
    pub(crate) max_nesting: u32,
    pub(crate) env: Vec<(OsString, Option<OsString>)>,
    pub(crate) current_dir: Option<PathBuf>,
    pub(crate) stdio: Stdio,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) start_timeout: Duration,
    pub(crate) restart_limit: u32,
    pub(crate) kill_grace: Duration,
    pub(crate) worker_command: Option<Vec<OsString>>,
    pub(crate) initializer: Option<Hook>,
    pub(crate) transport: Transport,
}

pub(crate) struct Inner {
    /// The process that the pool was built in, and a number that no other pool has.
    origin: Origin,
    pub(crate) config: Arc<Config>,
    pub(super) state: Mutex<State>,
    pub(super) events: Events,
    pub(crate) capacity: Option<Arc<Capacity>>,
    next_id: AtomicU64,
    /// The memory of all workers, for a glance without the lock.
    pub(super) rings: RwLock<Arc<[Arc<Shared>]>>,
    pub(super) callbacks: Callbacks,
    /// This very value.
    this: Weak<Self>,
    pub(super) ended: Condvar,
    supervisor: Mutex<Option<JoinHandle<()>>>,
}

impl Inner {
    pub(crate) fn new(
        config: Config,
        max_workers: usize,
        capacity: Option<Arc<Capacity>>,
    ) -> std::io::Result<Arc<Self>> {
        let config = Arc::new(config);
        let state = State::new(max_workers, &config);
        let events = Events::new()?;
        let inner = Arc::new_cyclic(|this| Self {
            origin: Origin::new(),
            config,
            state: Mutex::new(state),
            events,
            capacity,
            next_id: AtomicU64::new(1),
            rings: RwLock::new(Arc::new([])),
            callbacks: Callbacks::default(),
            this: Weak::clone(this),
            ended: Condvar::new(),
            supervisor: Mutex::new(None),
        });
        waiting::enter(&inner);
        Ok(inner)
    }

    pub(crate) fn id(&self) -> usize {
        self.origin.number()
    }

    /// Is this the process that the pool was built in? In a child that was forked from it the locks may be held by nobody, and
    /// descriptors, rings and workers are the parent's: nothing of the pool may be touched there. One load.
    #[inline(always)]
    pub(crate) fn is_here(&self) -> bool {
        self.origin.is_here()
    }

    pub(crate) fn next_task_id(&self) -> u64 {
        self.next_id.fetch_add(1, Relaxed)
    }

    pub(crate) fn closed_because(&self) -> Option<TaskError> {
        if !self.is_here() {
            return Some(TaskError::WrongProcess);
        }
        self.state.lock().lifecycle.closed_because()
    }

    /// Takes a task.
    pub(crate) fn submit(self: &Arc<Self>, job: JobBox) {
        self.take(job, false);
    }

    /// Takes a part of a map, which counts as submitted since the map was.
    pub(crate) fn submit_part(self: &Arc<Self>, job: JobBox) {
        self.take(job, true);
    }

    fn take(self: &Arc<Self>, job: JobBox, part: bool) {
        self.change(|state, deferred| {
            let refusal = if part { state.lifecycle.refusal() } else { state.lifecycle.closed_because() };
            if let Some(reason) = refusal {
                return deferred.fail(job, reason);
            }
            if state.lifecycle.supervision() == Supervision::NotStarted {
                // Holding the lock, so that no task is in a pool whose supervisor could not be started.
                if let Err(error) = self.start_supervisor() {
                    return deferred.fail(job, TaskError::Spawn(Cause::new(error)));
                }
                state.lifecycle.supervised();
            }
            state.submit(job, deferred);
            // With all workers full, whoever submits does what is to be done anyway.
            if !part && state.is_full && state.children.iter().any(|child| child.link.has_replies()) {
                state.collect(deferred);
                state.settle_down(deferred);
            }
        });
    }

    /// Changes the state, and then does what has to be done outside the lock.
    pub(super) fn change<R>(&self, f: impl FnOnce(&mut State, &mut Deferred) -> R) -> R {
        let mut state = self.state.lock();
        let mut deferred = Deferred::new();
        let result = f(&mut state, &mut deferred);
        self.release(state, deferred);
        result
    }

    /// Gives up the lock, and does what has to be done outside it. The pool does not end before that is done.
    pub(super) fn release(&self, mut state: MutexGuard<'_, State>, deferred: Deferred) {
        let settles = !deferred.settle.is_empty();
        if settles {
            state.lifecycle.begin_settling();
        }
        drop(state);
        self.settle(deferred);
        if settles && self.state.lock().lifecycle.end_settling() {
            self.wake_supervisor();
        }
    }

    fn start_supervisor(self: &Arc<Self>) -> std::io::Result<()> {
        let inner = Arc::clone(self);
        let name = format!("{}-mgr", self.config.name);
        let thread = std::thread::Builder::new().name(name).spawn(move || supervisor::run(&inner))?;
        *self.supervisor.lock() = Some(thread);
        Ok(())
    }

    /// Makes the supervisor look. If that cannot be, since the program has closed the pool's descriptors, the pool ends.
    pub(super) fn wake_supervisor(&self) {
        if !self.events.wake() {
            self.end_without_descriptors();
        }
    }

    /// The supervisor may sleep where nothing wakes it, so somebody else does what it would do.
    #[cold]
    fn end_without_descriptors(&self) {
        let Some(inner) = self.this.upgrade() else { return };
        let mut state = self.state.lock();
        if !state.lifecycle.lose_descriptors() {
            return;
        }
        let supervised = state.lifecycle.supervision() != Supervision::NotStarted;
        drop(state);
        let name = format!("{}-end", self.config.name);
        let ended = std::thread::Builder::new().name(name).spawn(move || supervisor::end_without_descriptors(&inner));
        if ended.is_err() || !supervised {
            self.change(|state, deferred| {
                state.break_down(supervisor::descriptors_lost(), deferred);
                state.lifecycle.gone();
            });
            self.ended.notify_all();
        }
    }

    /// Takes in what has come back; says whether there was anything to look at.
    pub(super) fn collect(&self) -> bool {
        if !self.has_replies() {
            return false;
        }
        self.change(|state, deferred| {
            state.collect(deferred);
            state.settle_down(deferred);
        });
        true
    }

    /// A glance at all rings.
    pub(super) fn has_replies(&self) -> bool {
        let rings = Arc::clone(&self.rings.read());
        rings.iter().any(|shared| shared.has_replies())
    }

    /// Does what has to be done outside the lock. What would run callbacks is left to a thread of its own.
    fn settle(&self, deferred: Deferred) {
        let Deferred { settle, arguments, wake_waiters_of, wake_supervisor, now: _ } = deferred;
        arguments.into_iter().for_each(unwind::drop_quietly);
        for (job, raw) in settle {
            let Job { sink, argument, .. } = *job;
            if let Some(unpublished) = sink.settle(raw, argument) {
                match self.this.upgrade() {
                    Some(inner) => self.callbacks.add(&inner, unpublished),
                    None => unpublished.publish(),
                }
            }
        }
        for shared in wake_waiters_of {
            shared.wake_sleepers();
        }
        if wake_supervisor {
            self.wake_supervisor();
        }
    }

    /// Some future has been resolved: whoever sleeps for one looks.
    pub(super) fn wake_all_sleepers(&self) {
        let rings = Arc::clone(&self.rings.read());
        rings.iter().for_each(|shared| shared.wake_sleepers());
    }

    /// The future of this task has been cancelled.
    pub(super) fn cancel(&self, id: u64) {
        self.change(|state, deferred| state.cancel(id, deferred));
    }

    /// Something will still submit parts: the pool does not end before. Every call is followed by one of
    /// [`let_go`](Self::let_go).
    pub(crate) fn hold(&self) {
        self.state.lock().lifecycle.hold();
    }

    pub(crate) fn let_go(&self) {
        if self.state.lock().lifecycle.let_go() {
            self.wake_supervisor();
        }
    }

    /// Nobody wants these tasks any more: those that have not begun never do.
    pub(crate) fn withdraw(&self, ids: &HashSet<u64>) {
        self.change(|state, deferred| state.withdraw(ids, deferred));
    }

    /// Has a worker begun this task?
    pub(super) fn has_begun(&self, id: u64) -> bool {
        let state = self.state.lock();
        state.children.iter().any(|child| child.inflight.find(id).is_some_and(|place| child.has_begun(place)))
    }

    /// How many workers there may be.
    pub(crate) fn max_workers(&self) -> usize {
        self.state.lock().max_workers
    }

    pub(crate) fn resize(&self, max_workers: usize) {
        self.change(|state, deferred| state.resize(max_workers, deferred));
    }

    /// The processes of all workers.
    pub(crate) fn pids(&self) -> Vec<u32> {
        if !self.is_here() {
            return Vec::new();
        }
        self.state.lock().children.iter().map(|child| child.process.id()).collect()
    }

    /// How many workers there are and are busy, tasks queued (handed over and not begun included) and done.
    pub(crate) fn tally(&self) -> (usize, usize, usize, u64) {
        let state = self.state.lock();
        let threads = self.config.threads;
        let busy = state.children.iter().filter(|child| !child.is_idle()).count();
        let in_store: usize = state.children.iter().map(|child| child.inflight.load().saturating_sub(threads)).sum();
        (state.children.len(), busy, state.queue.len() + in_store, state.completed)
    }

    /// Ends all workers at once, and with them the pool: SIGTERM and, `grace` later, SIGKILL.
    pub(crate) fn end_workers(&self, grace: Duration, reason: EndReason) {
        if !self.is_here() {
            return;
        }
        self.change(|state, deferred| state.end_workers(grace, reason, deferred));
        if let Some(capacity) = &self.capacity {
            capacity.close();
        }
    }

    pub(crate) fn shut_down(&self, how: Shutdown) -> Result<(), ShutdownError> {
        if !self.is_here() {
            return Err(ShutdownError::WrongProcess);
        }
        let start = Instant::now();
        self.change(|state, deferred| state.close(how == Shutdown::CancelPending, deferred));
        if let Some(capacity) = &self.capacity {
            capacity.close();
        }
        if how == Shutdown::NoWait {
            return Ok(());
        }
        if callbacks::is_inside(self.id()) {
            return Err(ShutdownError::WouldDeadlock);
        }
        let deadline = match how {
            Shutdown::Within(time) => start.checked_add(time),
            _ => None,
        };
        if self.wait_for_end(deadline) {
            return Ok(());
        }
        let (_, running, _, _) = self.tally();
        self.end_workers(Duration::from_millis(50), EndReason::ShutdownTimedOut);
        self.wait_for_end(None);
        Err(ShutdownError::TimedOut { running: running.max(1), waited: start.elapsed() })
    }

    /// Waits until all workers are gone; false at the deadline.
    fn wait_for_end(&self, deadline: Option<Instant>) -> bool {
        let mut state = self.state.lock();
        if !self.ended.wait_while(&mut state, deadline, |state| !state.lifecycle.is_gone()) {
            return false;
        }
        let lost = state.lifecycle.has_lost_descriptors();
        drop(state);
        // It has nothing left to do but to return; unless it sleeps where only time wakes it.
        let supervisor = self.supervisor.lock().take();
        if let Some(thread) = supervisor.filter(|_| !lost) {
            let _ = thread.join();
        }
        true
    }
}
