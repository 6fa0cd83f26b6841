//! The one thread that starts, watches and buries workers, looks at the clock, and runs callbacks.

use std::cell::Cell;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::child::{Child, Stage, Work};
use super::super::job::Raw;
use super::super::wire::{self, Garbled, Ready, message};
use super::core::Core;
use super::spawn;
use super::state::{Outbox, Phase, State};
use crate::error::{Cause, ExitInner, StartError, TaskError, WorkerExit};
use crate::os::events::WOKEN;
use crate::unwind;

/// After replies have come, it is looked again that much later before the bells are armed: at a high rate that saves a
/// message per reply.
const LULL: Duration = Duration::from_micros(100);

/// Without a descriptor that tells of a child's end, it is looked that often.
const LOOK: Duration = Duration::from_millis(20);

/// How long it takes until another worker is started after the system has refused one; doubled up to the last.
const RETRY: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(1)];

thread_local! {
    /// The pool that the calling thread supervises, or 0.
    static SUPERVISES: Cell<u64> = const { Cell::new(0) };
}

pub(super) fn is_supervisor_of(pool: u64) -> bool {
    SUPERVISES.get() == pool
}

pub(super) fn run(core: &Arc<Core>) {
    SUPERVISES.set(core.id);
    let supervised = unwind::catch(|| Supervisor { core, serial: 0, refused: 0, events: Vec::new() }.run());
    let mut out = Outbox::default();
    let mut state = core.state.lock();
    if let Err(panic) = supervised {
        // Nobody must wait for ever, whatever has gone wrong here.
        state.break_down(Cause::new(format!("internal error: {panic}")), &mut out);
        for child in &mut state.children {
            while child.process.try_reap().is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
    state.children.clear();
    drop(state);
    core.post(out);
    run_callbacks(core);
    *core.rings.write() = Arc::new([]);
    let mut out = Outbox::default();
    let mut state = core.state.lock();
    state.ended = true;
    // A map that goes on may have put something here in the last moment.
    for queue in &mut state.queues {
        queue.drain(..).for_each(|job| out.fail(job, TaskError::ShutDown));
    }
    drop(state);
    core.post(out);
    core.ended.notify_all();
}

/// Publishes the futures whose callbacks other threads have left.
fn run_callbacks(core: &Core) {
    loop {
        let deferred = std::mem::take(&mut *core.deferred.lock());
        if deferred.is_empty() {
            return;
        }
        deferred.into_iter().for_each(|unpublished| unpublished.publish());
        // Those who sleep for one of them do not know which worker it came from.
        let rings = Arc::clone(&core.rings.read());
        rings.iter().for_each(|shared| shared.wake_sleepers());
    }
}

struct Supervisor<'a> {
    core: &'a Arc<Core>,
    serial: u64,
    /// How many times in a row the system has refused a new process.
    refused: u32,
    events: Vec<u64>,
}

/// What an event is about: the low bits of its number.
const SOCKET: u64 = 0;
const END: u64 = 1;
const OUTPUT: u64 = 2;

impl Supervisor<'_> {
    fn run(&mut self) {
        loop {
            let mut out = Outbox::default();
            let mut state = self.core.state.lock();
            state.asleep = false;
            self.attend(&mut state, &mut out);
            state.collect(&mut out);
            self.bury(&mut state, &mut out);
            self.look_at_the_clock(&mut state, &mut out);
            state.settle_down(&mut out);
            let wanted = state.wanted();
            if wanted > 0 {
                state.starting += 1;
            }
            let over = self.is_over(&state);
            drop(state);
            let busy = !out.settle.is_empty();
            self.core.post(out);
            run_callbacks(self.core);
            if over {
                return;
            }
            if wanted > 0 {
                self.start_one();
                continue;
            }
            if busy {
                // More is likely to come.
                self.core.events.wait(Some(LULL), &mut self.events);
                if self.core.has_replies() {
                    continue;
                }
            }
            self.sleep();
        }
    }

    fn is_over(&self, state: &State) -> bool {
        state.is_over() && state.children.is_empty() && state.starting == 0
    }

    /// Sleeps until there is something to do.
    fn sleep(&mut self) {
        let mut state = self.core.state.lock();
        // From here on others arm the bells of the workers that they hand something to.
        state.asleep = true;
        let mut quiet = self.core.deferred.lock().is_empty() && state.wanted() == 0;
        for child in &state.children {
            quiet &= child.is_idle() || child.link.arm_bell();
        }
        let polled = state.children.iter().any(|child| child.process.fd().is_none()).then_some(LOOK);
        let by_the_clock = state.wake_at.map(|time| time.saturating_duration_since(Instant::now()));
        let over = self.is_over(&state);
        drop(state);
        if quiet && !over {
            let timeout = [by_the_clock, polled].into_iter().flatten().min();
            // Anything that has been reported during the lull is still in `events`.
            if self.events.is_empty() {
                self.core.events.wait(timeout, &mut self.events);
            }
        }
    }

    /// What the events were about.
    fn attend(&mut self, state: &mut State, out: &mut Outbox) {
        for event in std::mem::take(&mut self.events) {
            let (serial, what) = (event >> 2, event & 3);
            let Some(at) = state.children.iter().position(|child| child.serial == serial) else { continue };
            if event == WOKEN {
                continue;
            }
            match what {
                OUTPUT => state.children[at].captured.iter_mut().for_each(|captured| captured.read()),
                SOCKET => self.read_messages(state, at, out),
                // `bury` asks every child anyway.
                _ => {}
            }
        }
    }

    fn read_messages(&mut self, state: &mut State, at: usize, out: &mut Outbox) {
        let mut answer = None;
        let mut garbled = None;
        let open = state.children[at].read_messages(|_, bytes| match bytes.split_first() {
            Some((&message::READY, ready)) if answer.is_none() => answer = Some(wire::decode::<Ready>(ready)),
            Some((&message::BELL, [])) => {}
            _ => garbled = Some(Garbled("a message of an unknown kind")),
        });
        match answer {
            Some(Ok(ready)) => self.welcome(state, at, &ready, out),
            Some(Err(error)) => garbled = Some(error),
            None => {}
        }
        if let Some(garbled) = garbled {
            match state.children[at].stage {
                // A program that is not a worker at all: it will never do.
                Stage::Starting(_) => state.break_down(Cause::new(StartError::NotAWorker(garbled.to_string())), out),
                _ => state.distrust(at, garbled, out),
            }
        }
        if matches!(open, Ok(false) | Err(_)) {
            let child = &mut state.children[at];
            if matches!(child.stage, Stage::Starting(_) | Stage::Ready) {
                // Without the socket it is of no use, dead or not.
                child.retiring = true;
                state.wake_by(Some(Instant::now() + Duration::from_secs(1)), out);
            }
        }
    }

    /// A worker has answered.
    fn welcome(&mut self, state: &mut State, at: usize, ready: &Ready, out: &mut Outbox) {
        let ours = crate::os::image::executable().build_id();
        let child = &mut state.children[at];
        if !matches!(child.stage, Stage::Starting(_)) {
            return;
        }
        if ready.build != ours.0 {
            let found = crate::os::image::BuildId(ready.build).to_string();
            let error = StartError::WrongBuild { expected: ours.to_string(), found };
            return state.break_down(Cause::new(error), out);
        }
        if let Some(refusal) = &ready.refusal {
            return state.break_down(Cause::new(StartError::NotAWorker(refusal.clone())), out);
        }
        child.stage = Stage::Ready;
        child.served = true;
        child.idle_since = Instant::now();
        if self.core.config.initializer.is_none() {
            state.stillborn = 0;
        }
    }

    /// Takes leave of the workers that have ended.
    fn bury(&mut self, state: &mut State, out: &mut Outbox) {
        let mut buried = false;
        let mut at = 0;
        while at < state.children.len() {
            let Some(status) = state.children[at].process.try_reap() else {
                at += 1;
                continue;
            };
            buried = true;
            // What it has said before it went counts.
            self.read_messages(state, at, out);
            state.collect(out);
            let mut child = state.children.remove(at);
            self.core.events.forget(&child.socket);
            out.touch(&child);
            let exit = describe(&mut child, status);
            let at_start = !child.is_prepared() && !matches!(child.stage, Stage::Ending(_));
            let (begun, not_begun) = child.remains();
            state.requeue(not_begun);
            for (job, items) in begun {
                match job.may_retry() && matches!(state.phase, Phase::Open | Phase::Draining) {
                    true => state.requeue(vec![job]),
                    false => {
                        let exit = exit.of_task(job.name(), job.attempts);
                        out.settle.push((job, Raw::Lost(TaskError::WorkerDied(exit), items)));
                    }
                }
            }
            if at_start {
                state.stillborn += 1;
                if state.stillborn >= self.core.config.restart_limit {
                    state.break_down(Cause::new(StartError::Died(exit)), out);
                }
            }
        }
        if buried {
            self.publish_rings(state);
        }
    }

    fn publish_rings(&self, state: &State) {
        *self.core.rings.write() = state.children.iter().map(|child| Arc::clone(child.shared())).collect();
    }

    /// Everything that has to do with time.
    fn look_at_the_clock(&mut self, state: &mut State, out: &mut Outbox) {
        let now = Instant::now();
        if state.wake_at.is_none_or(|time| now < time) {
            return;
        }
        state.wake_at = None;
        if let Some(time) = state.not_before {
            match now < time {
                true => state.wake_by(Some(time), out),
                false => {
                    state.not_before = None;
                    state.make_use_of_room(out);
                }
            }
        }
        let idle_timeout = self.core.config.idle_timeout;
        for at in 0..state.children.len() {
            let child = &mut state.children[at];
            let next = match child.stage {
                Stage::Starting(deadline) if deadline <= now => {
                    child.kill("it did not answer in time");
                    let error = StartError::NoAnswer(self.core.config.start_timeout);
                    return state.break_down(Cause::new(error), out);
                }
                Stage::Ending(deadline) if deadline <= now => {
                    child.kill("it did not end in time");
                    None
                }
                Stage::Terminated(deadline, why) if deadline <= now => {
                    child.kill(why);
                    None
                }
                Stage::Starting(deadline) | Stage::Ending(deadline) | Stage::Terminated(deadline, _) => Some(deadline),
                Stage::Ready if child.is_idle() => idle_timeout.and_then(|timeout| {
                    let end = child.idle_since + timeout;
                    child.retiring |= end <= now;
                    (end > now).then_some(end)
                }),
                Stage::Ready | Stage::Killed(_) => None,
            };
            state.wake_by(next, out);
            self.look_at_the_tasks(state, at, now, out);
        }
    }

    /// Ends the worker at that place if one of its tasks is over its time.
    fn look_at_the_tasks(&mut self, state: &mut State, at: usize, now: Instant, out: &mut Outbox) {
        let mut late = None;
        let child = &state.children[at];
        let mut next: Option<Instant> = None;
        for place in 0..child.inflight.len() {
            let Work::Task(job) = &child.inflight[place].work else { continue };
            let Some(timeout) = job.timeout() else { continue };
            // What has not begun cannot be over its time before that much has passed.
            let end = child.begun_at(place, now).unwrap_or(now).checked_add(timeout);
            match end {
                Some(end) if end <= now => late = Some(job.id),
                Some(end) => next = Some(next.map_or(end, |next| next.min(end))),
                None => {}
            }
        }
        state.wake_by(next, out);
        if let Some(id) = late {
            let grace = self.core.config.kill_grace;
            if let Some(job) = state.stop(at, id, grace, "the task that it ran was over its time", out) {
                out.fail(job, TaskError::TimedOut);
            }
        }
    }

    /// Starts one worker. Nothing is locked while it does.
    fn start_one(&mut self) {
        self.serial += 1;
        let child = spawn::spawn(&self.core.config, self.serial).and_then(|child| {
            let number = self.serial << 2;
            self.core.events.watch(&child.socket, number | SOCKET)?;
            if let Some(fd) = child.process.fd() {
                self.core.events.watch(fd, number | END)?;
            }
            if let Some(captured) = &child.captured {
                self.core.events.watch(captured.fd(), number | OUTPUT)?;
            }
            Ok(child)
        });
        let mut out = Outbox::default();
        let mut state = self.core.state.lock();
        state.starting -= 1;
        match child {
            Ok(child) => {
                self.refused = 0;
                let Stage::Starting(deadline) = child.stage else { unreachable!("it has just been started") };
                state.wake_by(Some(deadline), &mut out);
                if matches!(state.phase, Phase::Broken(_)) {
                    let mut child = child;
                    child.kill("the executor is broken");
                    state.children.push(child);
                } else {
                    state.children.push(child);
                }
                self.publish_rings(&state);
                state.requeue(Vec::new());
                state.dispatch(&mut out);
            }
            Err(error) => self.cope(&mut state, error, &mut out),
        }
        drop(state);
        self.core.post(out);
    }

    /// The system has refused a new process: those that are there have to do, or else the tasks fail.
    fn cope(&mut self, state: &mut State, error: io::Error, out: &mut Outbox) {
        let wait = RETRY[0].saturating_mul(1 << self.refused.min(10)).min(RETRY[1]);
        self.refused += 1;
        if state.children.is_empty() && self.refused >= self.core.config.restart_limit {
            let cause = Cause::new(error);
            for queue in 0..state.queues.len() {
                for job in std::mem::take(&mut state.queues[queue]) {
                    out.fail(job, TaskError::Spawn(cause.clone()));
                }
            }
            self.refused = 0;
            // The next task is a reason to try again.
            state.requeue(Vec::new());
            return;
        }
        let time = Instant::now() + wait;
        state.not_before = Some(time);
        state.wake_by(Some(time), out);
        state.requeue(Vec::new());
        state.dispatch(out);
    }
}

/// What is known of the end of a worker.
fn describe(child: &mut Child, status: ExitStatus) -> WorkerExit {
    let killed_because = match child.stage {
        Stage::Terminated(_, why) | Stage::Killed(why) => Some(why),
        _ => None,
    };
    let note = child.shared().note();
    // SIGKILL that nobody here has sent.
    let killed = status.signal() == Some(9) && killed_because.is_none();
    WorkerExit::new(ExitInner {
        pid: child.process.id(),
        code: status.code(),
        signal: status.signal(),
        core_dumped: status.core_dumped(),
        note: note.read(),
        panic: note.read_panic(),
        out_of_memory: killed && spawn::oom_kills() > child.oom_kills,
        stderr: child.captured.as_mut().map(|captured| captured.text()),
        task: None,
        attempts: 0,
        killed_because,
    })
}
