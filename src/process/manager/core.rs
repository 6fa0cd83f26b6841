//! The pool as its users see it: submit, cancel, collect.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};

use super::super::call::{Function, Payload};
use super::super::job::Job;
use super::super::stderr::Stdio;
use super::super::transport::Shared;
use super::state::{Outbox, Phase, State};
use super::{help, supervise};
use crate::error::{Cause, ShutdownError, TaskError};
use crate::executor::{Capacity, Shutdown};
use crate::future::Unpublished;
use crate::os::events::Events;

/// What every worker runs first.
pub(in crate::process) struct Hook {
    pub(in crate::process) function: Function,
    pub(in crate::process) argument: Payload,
}

/// What a pool was built with.
pub(in crate::process) struct Config {
    pub(in crate::process) name: String,
    pub(in crate::process) threads: usize,
    pub(in crate::process) max_tasks: Option<u64>,
    pub(in crate::process) max_rss: Option<u64>,
    pub(in crate::process) memory_limit: Option<u64>,
    pub(in crate::process) cpu_limit: Option<Duration>,
    pub(in crate::process) max_payload: u64,
    pub(in crate::process) env: Vec<(OsString, Option<OsString>)>,
    pub(in crate::process) current_dir: Option<PathBuf>,
    pub(in crate::process) stdio: Stdio,
    pub(in crate::process) idle_timeout: Option<Duration>,
    pub(in crate::process) start_timeout: Duration,
    pub(in crate::process) restart_limit: u32,
    pub(in crate::process) kill_grace: Duration,
    pub(in crate::process) worker_command: Option<Vec<OsString>>,
    pub(in crate::process) initializer: Option<Hook>,
}

pub(in crate::process) struct Core {
    /// No other pool of this process has the same.
    pub(super) id: u64,
    pub(in crate::process) config: Config,
    pub(super) state: Mutex<State>,
    pub(super) events: Events,
    pub(in crate::process) capacity: Option<Arc<Capacity>>,
    next_id: AtomicU64,
    /// The memory of all workers, for a glance without the lock.
    pub(super) rings: RwLock<Arc<[Arc<Shared>]>>,
    /// Futures whose callbacks the supervisor has to run.
    pub(super) deferred: Mutex<Vec<Unpublished>>,
    pub(super) ended: Condvar,
    supervisor: Mutex<Option<JoinHandle<()>>>,
}

impl Core {
    pub(in crate::process) fn new(
        config: Config,
        max_workers: usize,
        capacity: Option<Arc<Capacity>>,
    ) -> std::io::Result<Arc<Self>> {
        static IDS: AtomicU64 = AtomicU64::new(1);
        let state = State::new(max_workers, config.threads, config.max_payload, config.max_tasks, config.idle_timeout);
        let core = Arc::new(Self {
            id: IDS.fetch_add(1, Relaxed),
            config,
            state: Mutex::new(state),
            events: Events::new()?,
            capacity,
            next_id: AtomicU64::new(1),
            rings: RwLock::new(Arc::new([])),
            deferred: Mutex::new(Vec::new()),
            ended: Condvar::new(),
            supervisor: Mutex::new(None),
        });
        help::enter(&core);
        Ok(core)
    }

    pub(in crate::process) fn id(&self) -> u64 {
        self.id
    }

    pub(in crate::process) fn next_task_id(&self) -> u64 {
        self.next_id.fetch_add(1, Relaxed)
    }

    pub(in crate::process) fn closed_because(&self) -> Option<TaskError> {
        self.state.lock().closed_because()
    }

    /// Takes a task.
    pub(in crate::process) fn submit(self: &Arc<Self>, job: Box<Job>) {
        self.take(job, false);
    }

    /// Takes a part of a map, which counts as submitted since the map was.
    pub(in crate::process) fn submit_part(self: &Arc<Self>, job: Box<Job>) {
        self.take(job, true);
    }

    fn take(self: &Arc<Self>, job: Box<Job>, part: bool) {
        let mut out = Outbox::default();
        let mut state = self.state.lock();
        let refusal = if part { state.refusal() } else { state.closed_because() };
        if let Some(reason) = refusal {
            drop(state);
            out.fail(job, reason);
            return self.post(out);
        }
        if !state.supervised {
            state.supervised = true;
            // Holding the lock, so that no task is in a pool whose supervisor could not be started.
            if let Err(error) = self.start_supervisor() {
                state.supervised = false;
                drop(state);
                out.fail(job, TaskError::Spawn(Cause::new(error)));
                return self.post(out);
            }
        }
        state.enqueue(job);
        state.dispatch(&mut out);
        // With all workers full, whoever submits does what is to be done anyway.
        if !part && state.is_full() && state.children.iter().any(|child| child.link.has_replies()) {
            state.collect(&mut out);
            state.settle_down(&mut out);
        }
        drop(state);
        self.post(out);
    }

    fn start_supervisor(self: &Arc<Self>) -> std::io::Result<()> {
        let core = Arc::clone(self);
        let name = format!("{}-mgr", self.config.name);
        let thread = std::thread::Builder::new().name(name).spawn(move || supervise::run(&core))?;
        *self.supervisor.lock() = Some(thread);
        Ok(())
    }

    /// Takes in what has come back; says whether there was anything to look at.
    pub(super) fn collect(&self) -> bool {
        if !self.has_replies() {
            return false;
        }
        let mut out = Outbox::default();
        let mut state = self.state.lock();
        state.collect(&mut out);
        state.settle_down(&mut out);
        drop(state);
        self.post(out);
        true
    }

    /// A glance at all rings.
    pub(super) fn has_replies(&self) -> bool {
        let rings = Arc::clone(&self.rings.read());
        rings.iter().any(|shared| shared.has_replies())
    }

    /// Does what has to be done outside the lock. What would run callbacks is left to the supervisor.
    pub(super) fn post(&self, out: Outbox) {
        let Outbox { settle, touched, mut wake_supervisor } = out;
        for (job, raw) in settle {
            let Job { sink, argument, .. } = *job;
            if let Some(unpublished) = sink.settle(raw, argument) {
                self.deferred.lock().push(unpublished);
                wake_supervisor = true;
            }
        }
        for shared in touched {
            shared.wake_sleepers();
        }
        if wake_supervisor {
            self.events.wake();
        }
    }

    /// The future of this task has been cancelled: it never begins, or its worker is ended.
    pub(super) fn revoke(&self, id: u64) {
        let mut out = Outbox::default();
        let mut state = self.state.lock();
        let found = state.children.iter().enumerate().find_map(|(at, child)| Some((at, child.find(id)?)));
        // Where it is still queued, it is found out when its turn comes.
        if let Some((at, place)) = found {
            let child = &mut state.children[at];
            let job = match child.has_begun(place) {
                false => child.take_back(usize::MAX, |job| job.id == id).pop(),
                true => None,
            };
            let job = job.or_else(|| {
                let grace = self.config.kill_grace;
                state.stop(at, id, grace, "the task that it ran was cancelled", &mut out)
            });
            if let Some(job) = job {
                out.fail(job, TaskError::Cancelled);
            }
            state.settle_down(&mut out);
        }
        drop(state);
        self.post(out);
    }

    /// Why not even what was submitted is begun, if so.
    pub(in crate::process) fn refusal(&self) -> Option<TaskError> {
        self.state.lock().refusal()
    }

    /// Something will still submit parts: the pool does not end before.
    pub(in crate::process) fn hold(&self) {
        self.state.lock().holds += 1;
    }

    pub(in crate::process) fn let_go(&self) {
        let mut state = self.state.lock();
        state.holds -= 1;
        let last = state.holds == 0 && state.closed_because().is_some();
        drop(state);
        if last {
            self.events.wake();
        }
    }

    /// Nobody wants these tasks any more: those that have not begun never do.
    pub(in crate::process) fn withdraw(&self, ids: &HashSet<u64>) {
        let mut out = Outbox::default();
        let mut state = self.state.lock();
        for at in 0..state.children.len() {
            let back = state.children[at].take_back(usize::MAX, |job| ids.contains(&job.id));
            back.into_iter().for_each(|job| out.fail(job, TaskError::Cancelled));
        }
        state.settle_down(&mut out);
        drop(state);
        self.post(out);
    }

    /// Has a worker begun this task?
    pub(super) fn has_begun(&self, id: u64) -> bool {
        let state = self.state.lock();
        state.children.iter().any(|child| child.find(id).is_some_and(|at| child.has_begun(at)))
    }

    /// How many workers there may be.
    pub(in crate::process) fn max_workers(&self) -> usize {
        self.state.lock().max_workers
    }

    pub(in crate::process) fn resize(&self, max_workers: usize) {
        let mut out = Outbox::default();
        let mut state = self.state.lock();
        state.max_workers = max_workers;
        state.make_use_of_room(&mut out);
        state.settle_down(&mut out);
        drop(state);
        self.post(out);
    }

    /// The processes of all workers.
    pub(in crate::process) fn pids(&self) -> Vec<u32> {
        self.state.lock().children.iter().map(|child| child.process.id()).collect()
    }

    /// How many workers there are and are busy, tasks queued (handed over and not begun included) and done.
    pub(in crate::process) fn tally(&self) -> (usize, usize, usize, u64) {
        let state = self.state.lock();
        let threads = self.config.threads;
        let busy = state.children.iter().filter(|child| !child.is_idle()).count();
        let waiting: usize = state.children.iter().map(|child| child.inflight.len().saturating_sub(threads)).sum();
        (state.children.len(), busy, state.queued() + waiting, state.completed)
    }

    /// Ends all workers at once, and with them the pool: SIGTERM and, `grace` later, SIGKILL.
    pub(in crate::process) fn end_workers(&self, grace: Duration, why: &'static str) {
        let mut out = Outbox::default();
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Open | Phase::Draining) {
            state.phase = Phase::Cancelled;
        }
        state.cancel_pending(&mut out);
        for child in &mut state.children {
            match grace.is_zero() {
                true => child.kill(why),
                false => child.terminate(grace, why),
            }
        }
        let deadline = Instant::now() + grace;
        state.wake_by(Some(deadline), &mut out);
        out.wake_supervisor = true;
        drop(state);
        self.post(out);
        if let Some(capacity) = &self.capacity {
            capacity.close();
        }
    }

    pub(in crate::process) fn shut_down(&self, how: Shutdown) -> Result<(), ShutdownError> {
        let start = Instant::now();
        self.close(how == Shutdown::CancelPending);
        if let Some(capacity) = &self.capacity {
            capacity.close();
        }
        if how == Shutdown::NoWait {
            return Ok(());
        }
        if supervise::is_supervisor_of(self.id) {
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
        self.end_workers(Duration::from_millis(50), "the time for the shutdown was over");
        self.wait_for_end(None);
        Err(ShutdownError::TimedOut { running: running.max(1), waited: start.elapsed() })
    }

    fn close(&self, cancel: bool) {
        let mut out = Outbox::default();
        let mut state = self.state.lock();
        match (&state.phase, cancel) {
            (Phase::Open, false) => state.phase = Phase::Draining,
            (Phase::Open | Phase::Draining, true) => {
                state.phase = Phase::Cancelled;
                state.cancel_pending(&mut out);
            }
            _ => {}
        }
        state.settle_down(&mut out);
        if !state.supervised {
            state.ended = true;
        }
        out.wake_supervisor = true;
        drop(state);
        self.post(out);
    }

    /// Waits until all workers are gone; false at the deadline.
    fn wait_for_end(&self, deadline: Option<Instant>) -> bool {
        let mut state = self.state.lock();
        while !state.ended {
            match deadline {
                None => self.ended.wait(&mut state),
                Some(deadline) => {
                    if self.ended.wait_until(&mut state, deadline).timed_out() && !state.ended {
                        return false;
                    }
                }
            }
        }
        drop(state);
        // It has nothing left to do but to return.
        let supervisor = self.supervisor.lock().take();
        if let Some(thread) = supervisor {
            let _ = thread.join();
        }
        true
    }
}
