//! The pool as its users see it: submit, cancel, collect.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::lock::{Condvar, Mutex, MutexGuard, RwLock};

use super::super::call::{Function, Payload};
use super::super::job::{Job, JobBox};
use super::super::later;
use super::super::stderr::Stdio;
use super::super::transport::{Shared, Transport};
use super::callbacks::{self, Callbacks};
use super::state::{Outbox, Phase, State};
use super::{help, supervise};
use crate::error::{Cause, ShutdownError, TaskError};
use crate::executor::{Capacity, Shutdown};
use crate::fork::Origin;
use crate::os::events::Events;
use crate::unwind;

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
    pub(in crate::process) transport: Transport,
}

pub(in crate::process) struct Core {
    /// The process that the pool was built in, and a number that no other pool has.
    origin: Origin,
    pub(in crate::process) config: Config,
    pub(super) state: Mutex<State>,
    pub(super) events: Events,
    pub(in crate::process) capacity: Option<Arc<Capacity>>,
    next_id: AtomicU64,
    /// The memory of all workers, for a glance without the lock.
    pub(super) rings: RwLock<Arc<[Arc<Shared>]>>,
    pub(super) callbacks: Callbacks,
    /// This very value.
    this: Weak<Self>,
    pub(super) ended: Condvar,
    supervisor: Mutex<Option<JoinHandle<()>>>,
}

impl Core {
    pub(in crate::process) fn new(
        config: Config,
        max_workers: usize,
        capacity: Option<Arc<Capacity>>,
    ) -> std::io::Result<Arc<Self>> {
        let state = State::new(max_workers, &config);
        let events = Events::new()?;
        let core = Arc::new_cyclic(|this| Self {
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
        help::enter(&core);
        Ok(core)
    }

    pub(in crate::process) fn id(&self) -> usize {
        self.origin.number()
    }

    /// Is this the process that the pool was built in? In a child that was forked from it the locks may be held by nobody, and
    /// descriptors, rings and workers are the parent's: nothing of the pool may be touched there. One load.
    #[inline(always)]
    pub(in crate::process) fn is_here(&self) -> bool {
        self.origin.is_here()
    }

    pub(in crate::process) fn next_task_id(&self) -> u64 {
        self.next_id.fetch_add(1, Relaxed)
    }

    pub(in crate::process) fn closed_because(&self) -> Option<TaskError> {
        if !self.is_here() {
            return Some(TaskError::WrongProcess);
        }
        self.state.lock().closed_because()
    }

    /// Takes a task.
    pub(in crate::process) fn submit(self: &Arc<Self>, job: JobBox) {
        self.take(job, false);
    }

    /// Takes a part of a map, which counts as submitted since the map was.
    pub(in crate::process) fn submit_part(self: &Arc<Self>, job: JobBox) {
        self.take(job, true);
    }

    fn take(self: &Arc<Self>, job: JobBox, part: bool) {
        self.change(|state, out| {
            let refusal = if part { state.refusal() } else { state.closed_because() };
            if let Some(reason) = refusal {
                return out.fail(job, reason);
            }
            if !state.supervised {
                // Holding the lock, so that no task is in a pool whose supervisor could not be started.
                if let Err(error) = self.start_supervisor() {
                    return out.fail(job, TaskError::Spawn(Cause::new(error)));
                }
                state.supervised = true;
            }
            state.enqueue(job);
            state.dispatch(out);
            // With all workers full, whoever submits does what is to be done anyway.
            if !part && state.is_full() && state.children.iter().any(|child| child.link.has_replies()) {
                state.collect(out);
                state.settle_down(out);
            }
        });
    }

    /// Changes the state, and then does what has to be done outside the lock.
    pub(super) fn change<R>(&self, f: impl FnOnce(&mut State, &mut Outbox) -> R) -> R {
        let mut out = Outbox::default();
        let mut state = self.state.lock();
        let result = f(&mut state, &mut out);
        self.release(state, out);
        result
    }

    /// Gives up the lock, and does what has to be done outside it. The pool does not end before that is done.
    pub(super) fn release(&self, mut state: MutexGuard<'_, State>, out: Outbox) {
        let counts = !out.settle.is_empty();
        state.posting += usize::from(counts);
        drop(state);
        self.post(out);
        if counts {
            let mut state = self.state.lock();
            state.posting -= 1;
            let is_last = state.posting == 0 && state.closed_because().is_some();
            drop(state);
            if is_last {
                self.wake_supervisor();
            }
        }
    }

    fn start_supervisor(self: &Arc<Self>) -> std::io::Result<()> {
        let core = Arc::clone(self);
        let name = format!("{}-mgr", self.config.name);
        let thread = std::thread::Builder::new().name(name).spawn(move || supervise::run(&core))?;
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
        let Some(core) = self.this.upgrade() else { return };
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.lost, true) {
            return;
        }
        let supervised = state.supervised;
        drop(state);
        let name = format!("{}-end", self.config.name);
        let ended = std::thread::Builder::new().name(name).spawn(move || supervise::end_without_descriptors(&core));
        if ended.is_err() || !supervised {
            self.change(|state, out| {
                state.break_down(supervise::descriptors_lost(), out);
                (state.ended, state.gone) = (true, true);
            });
            self.ended.notify_all();
        }
    }

    /// Takes in what has come back; says whether there was anything to look at.
    pub(super) fn collect(&self) -> bool {
        if !self.has_replies() {
            return false;
        }
        self.change(|state, out| {
            state.collect(out);
            state.settle_down(out);
        });
        true
    }

    /// A glance at all rings.
    pub(super) fn has_replies(&self) -> bool {
        let rings = Arc::clone(&self.rings.read());
        rings.iter().any(|shared| shared.has_replies())
    }

    /// Does what has to be done outside the lock. What would run callbacks is left to a thread of its own.
    fn post(&self, out: Outbox) {
        let Outbox { settle, stripped, touched, wake_supervisor } = out;
        stripped.into_iter().for_each(unwind::drop_quietly);
        for (job, raw) in settle {
            let Job { sink, argument, .. } = *job;
            if let Some(unpublished) = sink.settle(raw, argument) {
                match self.this.upgrade() {
                    Some(core) => self.callbacks.add(&core, unpublished),
                    None => unpublished.publish(),
                }
            }
        }
        for shared in touched {
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

    /// The future of this task has been cancelled: it never begins, or its worker is ended.
    pub(super) fn revoke(&self, id: u64) {
        self.change(|state, out| {
            let found = state.children.iter().enumerate().find_map(|(at, child)| Some((at, child.find(id)?)));
            let Some((at, place)) = found else { return state.strip(id, out) };
            let child = &mut state.children[at];
            let job = match child.has_begun(place) {
                false => child.take_back(usize::MAX, |job| job.id == id).pop(),
                true => None,
            };
            out.touch(child);
            let job = job.or_else(|| {
                let grace = self.config.kill_grace;
                state.stop(at, id, grace, "the task that it ran was cancelled", out)
            });
            if let Some(job) = job {
                out.fail(job, TaskError::Cancelled);
            }
            state.settle_down(out);
        });
    }

    /// Something will still submit parts: the pool does not end before. Every call is followed by one of
    /// [`let_go`](Self::let_go).
    pub(in crate::process) fn hold(&self) {
        self.state.lock().holds += 1;
    }

    pub(in crate::process) fn let_go(&self) {
        let mut state = self.state.lock();
        state.holds -= 1;
        let last = state.holds == 0 && state.closed_because().is_some();
        drop(state);
        if last {
            self.wake_supervisor();
        }
    }

    /// Nobody wants these tasks any more: those that have not begun never do.
    pub(in crate::process) fn withdraw(&self, ids: &HashSet<u64>) {
        self.change(|state, out| {
            for child in &mut state.children {
                let back = child.take_back(usize::MAX, |job| ids.contains(&job.id));
                back.into_iter().for_each(|job| out.fail(job, TaskError::Cancelled));
            }
            state.discard(|job| ids.contains(&job.id), out);
            state.settle_down(out);
        });
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
        self.change(|state, out| {
            state.max_workers = max_workers;
            state.make_use_of_room(out);
        });
    }

    /// The processes of all workers.
    pub(in crate::process) fn pids(&self) -> Vec<u32> {
        if !self.is_here() {
            return Vec::new();
        }
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
        if !self.is_here() {
            return;
        }
        self.change(|state, out| {
            if matches!(state.phase, Phase::Open | Phase::Draining) {
                state.phase = Phase::Cancelled;
            }
            state.cancel_pending(out);
            for child in &mut state.children {
                match grace.is_zero() {
                    true => child.kill(why),
                    false => child.terminate(grace, why),
                }
            }
            state.wake_by(Some(later(Instant::now(), grace)), out);
            out.wake_supervisor = true;
            if !state.supervised {
                (state.ended, state.gone) = (true, true);
            }
        });
        if let Some(capacity) = &self.capacity {
            capacity.close();
        }
    }

    pub(in crate::process) fn shut_down(&self, how: Shutdown) -> Result<(), ShutdownError> {
        if !self.is_here() {
            return Err(ShutdownError::WrongProcess);
        }
        let start = Instant::now();
        self.close(how == Shutdown::CancelPending);
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
        self.end_workers(Duration::from_millis(50), "the time for the shutdown was over");
        self.wait_for_end(None);
        Err(ShutdownError::TimedOut { running: running.max(1), waited: start.elapsed() })
    }

    fn close(&self, cancel: bool) {
        self.change(|state, out| {
            match (&state.phase, cancel) {
                (Phase::Open, false) => state.phase = Phase::Draining,
                (Phase::Open | Phase::Draining, true) => {
                    state.phase = Phase::Cancelled;
                    state.cancel_pending(out);
                }
                _ => {}
            }
            state.settle_down(out);
            if !state.supervised {
                (state.ended, state.gone) = (true, true);
            }
            out.wake_supervisor = true;
        });
    }

    /// Waits until all workers are gone; false at the deadline.
    fn wait_for_end(&self, deadline: Option<Instant>) -> bool {
        let mut state = self.state.lock();
        if !self.ended.wait_while(&mut state, deadline, |state| !state.gone) {
            return false;
        }
        let lost = state.lost;
        drop(state);
        // It has nothing left to do but to return; unless it sleeps where only time wakes it.
        let supervisor = self.supervisor.lock().take();
        if let Some(thread) = supervisor.filter(|_| !lost) {
            let _ = thread.join();
        }
        true
    }
}
