//! The one thread that starts, watches and buries workers and looks at the clock.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::child::{Begun, Child, Remains, Stage, Work};
use super::super::job::Raw;
use super::super::later;
use super::super::wire::{self, DISTRUSTED, Garbled, NO_SOCKET, NO_THREADS, Ready, message};
use super::core::{Config, Core};
use super::spawn;
use super::state::{Outbox, Phase, State};
use crate::error::{Cause, ExitInner, StartError, TaskError, WorkerExit};
use crate::os::events::WOKEN;
use crate::os::pidfd::Ended;
use crate::unwind;

/// After so many replies at a time...
const MANY: usize = 64;

/// ... it is looked again that much later before the bells are armed: at a high rate that saves a message per reply. After a
/// few it would only be in the way of whoever awaits the next one. Shorter than what a worker has in store.
const LULL: Duration = Duration::from_micros(100);

/// While others take the replies in, so many lulls follow one another.
const LULLS: usize = 8;

/// Without a descriptor that tells of a child's end, it is looked that often.
const LOOK: Duration = Duration::from_millis(20);

/// While a worker is to end, and while it has something to do, it is looked that often whether all is as it should be: whether
/// the program has left the pool its descriptors, and whether the worker has made this process its tracer and is stopped.
const HEARTBEAT: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];

/// Whether a task with a shorter time limit has begun is looked at that often.
const SHORT: Duration = Duration::from_millis(1);

/// How long a worker that has closed its control socket may go on with what it has begun.
const HANG_UP: Duration = Duration::from_secs(60 * 60);

/// How long it takes until another worker is started after the system has refused one; doubled up to the last.
const RETRY: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(1)];

pub(super) fn run(core: &Arc<Core>) {
    let supervised =
        unwind::catch(|| Supervisor { core, serial: 0, refused: 0, events: Vec::new(), looked: Instant::now() }.run());
    match supervised {
        Ok(Ok(())) => {}
        Ok(Err(DescriptorsLost)) => break_down(core, descriptors_lost(), true),
        // Nobody must wait for ever, whatever has gone wrong here.
        Err(panic) => break_down(core, Cause::new(format!("internal error: {panic}")), false),
    }
    end(core);
}

/// What the supervisor does when it finds that it has no descriptors any more, in another thread.
pub(super) fn end_without_descriptors(core: &Arc<Core>) {
    break_down(core, descriptors_lost(), true);
    end(core);
}

/// The program has closed file descriptors that it has not opened: those of the pool.
struct DescriptorsLost;

pub(super) fn descriptors_lost() -> Cause {
    Cause::new("the program has closed file descriptors of this executor")
}

fn end(core: &Core) {
    core.callbacks.end();
    *core.rings.write() = Arc::new([]);
    core.state.lock().gone = true;
    core.ended.notify_all();
}

/// Ends everything, and does not return before the workers are gone.
fn break_down(core: &Arc<Core>, cause: Cause, lost: bool) {
    let children = core.change(|state, out| {
        state.lost |= lost;
        state.break_down(cause, out);
        state.ended = true;
        std::mem::take(&mut state.children)
    });
    for mut child in children {
        let ended = loop {
            match child.process.try_reap() {
                Some(ended) => break ended,
                None => {
                    child.process.is_traced_and_stopped();
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        };
        let exit = describe(&mut child, ended, &core.config);
        let Remains { begun, not_begun } = child.remains();
        let jobs = begun.into_iter().map(|begun| begun.job).chain(not_begun);
        core.change(|_, out| jobs.for_each(|job| out.fail(job, TaskError::WorkerDied(exit.clone()))));
        if lost {
            // The numbers of its descriptors may be those of other files by now.
            std::mem::forget(child);
        }
    }
    if lost {
        std::mem::forget(Arc::clone(core));
    }
}

struct Supervisor<'a> {
    core: &'a Arc<Core>,
    serial: u64,
    /// How many times in a row the system has refused a new process.
    refused: u32,
    events: Vec<u64>,
    /// When it was last looked at all children, whether anything was reported or not.
    looked: Instant,
}

/// What an event is about: the low bits of its number.
const SOCKET: u64 = 0;
const END: u64 = 1;
const OUTPUT: u64 = 2;

impl Supervisor<'_> {
    fn run(&mut self) -> Result<(), DescriptorsLost> {
        loop {
            let mut out = Outbox::default();
            let mut state = self.core.state.lock();
            if state.lost {
                return Err(DescriptorsLost);
            }
            state.asleep = false;
            self.attend(&mut state, &mut out);
            state.collect(&mut out);
            self.bury(&mut state, &mut out);
            self.look_at_the_clock(&mut state, &mut out);
            state.settle_down(&mut out);
            if out.settle.is_empty() && self.is_over(&state) {
                // From here on nothing is taken, whoever asks.
                state.ended = true;
                return Ok(());
            }
            let wanted = state.wanted() > 0;
            state.starting += usize::from(wanted);
            let busy = out.settle.len() >= MANY && !state.children.iter().any(Child::is_streaming);
            out.wake_supervisor = false;
            self.core.release(state, out);
            if wanted {
                self.start_one();
                self.wait(Some(Duration::ZERO))?;
                continue;
            }
            if busy {
                self.lull();
                if self.core.has_replies() {
                    self.wait(Some(Duration::ZERO))?;
                    continue;
                }
            }
            self.sleep()?;
        }
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<(), DescriptorsLost> {
        match self.core.events.wait(timeout, &mut self.events) {
            true => Ok(()),
            false => Err(DescriptorsLost),
        }
    }

    /// More is likely to come. This does not wait in `epoll`, which on some systems can be told whole milliseconds only.
    fn lull(&self) {
        let mut completed = self.core.state.lock().completed;
        for _ in 0..LULLS {
            std::thread::sleep(LULL);
            let before = std::mem::replace(&mut completed, self.core.state.lock().completed);
            if completed == before {
                return;
            }
        }
    }

    fn is_over(&self, state: &State) -> bool {
        let idle = state.children.is_empty() && state.starting == 0 && state.posting == 0;
        state.is_over() && idle && self.core.callbacks.is_quiet()
    }

    /// Sleeps until there is something to do, and in any case looks what has happened.
    fn sleep(&mut self) -> Result<(), DescriptorsLost> {
        let mut state = self.core.state.lock();
        // From here on others arm the bells of the workers that they hand something to.
        state.asleep = true;
        let mut quiet = state.wanted() == 0;
        for child in &state.children {
            // What a worker that makes no sense has written is not read any more.
            quiet &= (child.is_idle() || child.is_mad || child.link.arm_bell()) && !child.has_more;
        }
        let is_deaf = |child: &Child| child.process.fd().is_none() || child.is_deaf;
        let ends = |child: &Child| !matches!(child.stage, Stage::Starting(_) | Stage::Ready);
        let polled = if state.children.iter().any(is_deaf) {
            Some(LOOK)
        } else if state.children.iter().any(ends) {
            Some(HEARTBEAT[0])
        } else if state.children.iter().any(|child| !child.is_idle()) {
            Some(HEARTBEAT[1])
        } else {
            None
        };
        let by_the_clock = state.wake_at.map(|time| time.saturating_duration_since(Instant::now()));
        let over = self.is_over(&state);
        drop(state);
        let timeout = match quiet && !over {
            true => [by_the_clock, polled].into_iter().flatten().min(),
            false => Some(Duration::ZERO),
        };
        self.wait(timeout)
    }

    /// What the events were about.
    fn attend(&mut self, state: &mut State, out: &mut Outbox) {
        // Those that say more than is read at a time get another turn, and everybody else one between.
        for at in 0..state.children.len() {
            if std::mem::take(&mut state.children[at].has_more) {
                state.children[at].read_output();
                self.read_messages(state, at, out);
            }
        }
        for event in std::mem::take(&mut self.events) {
            let (serial, what) = (event >> 2, event & 3);
            let Some(at) = state.children.iter().position(|child| child.serial == serial) else { continue };
            if event == WOKEN {
                continue;
            }
            match what {
                OUTPUT => state.children[at].read_output(),
                SOCKET => self.read_messages(state, at, out),
                _ => state.children[at].has_ended = true,
            }
        }
    }

    fn read_messages(&mut self, state: &mut State, at: usize, out: &mut Outbox) {
        let open = state.children[at].read_messages();
        let mut answer = None;
        let mut garbled = None;
        for message in std::mem::take(&mut state.children[at].mail) {
            match message.split_first() {
                // Only the first answer is one.
                Some((&message::READY, ready)) if answer.is_none() => answer = Some(wire::decode::<Ready>(ready)),
                _ => garbled = Some(Garbled("a message of an unknown kind")),
            }
        }
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
            self.hang_up(state, at, out);
        }
    }

    /// The worker's end of the control socket is closed: it is dead, or one of its tasks has closed all descriptors. Its
    /// memory still speaks, but it cannot ring any more; so it finishes what it has begun, and ends.
    fn hang_up(&self, state: &mut State, at: usize, out: &mut Outbox) {
        let child = &mut state.children[at];
        if matches!(child.stage, Stage::Starting(_)) && !child.process.is_ending() {
            // What was started has lost the socket, so it will never answer, whatever it is doing instead.
            child.is_deaf = true;
            child.kill("it closed its control socket, which is its standard input, before it was ready");
        }
        if child.stage != Stage::Ready {
            return;
        }
        child.is_deaf = true;
        let back = child.take_back(usize::MAX, |_| true);
        out.touch(child);
        // Without shared memory nothing will be heard from it any more.
        let patience = if child.link.can_take_back() { HANG_UP } else { Duration::from_secs(1) };
        if child.ask_to_end(Instant::now() + patience).is_err() {
            child.kill("it closed its control socket");
        }
        state.requeue(back);
        state.wake_by(Some(Instant::now() + patience), out);
    }

    /// A worker has answered.
    fn welcome(&mut self, state: &mut State, at: usize, ready: &Ready, out: &mut Outbox) {
        let ours = crate::os::image::executable().build_id();
        let child = &mut state.children[at];
        child.served = true;
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
        child.idle_since = Instant::now();
        self.refused = 0;
        state.cautious = false;
        state.proven = true;
        if self.core.config.initializer.is_none() {
            state.stillborn = 0;
        }
    }

    /// Takes leave of the workers that have ended.
    fn bury(&mut self, state: &mut State, out: &mut Outbox) {
        let mut buried = false;
        let mut at = 0;
        let looks = self.looked.elapsed() >= HEARTBEAT[0];
        if looks {
            self.looked = Instant::now();
        }
        while at < state.children.len() {
            let child = &mut state.children[at];
            let is_quiet = child.is_idle() && matches!(child.stage, Stage::Starting(_) | Stage::Ready);
            if looks && !is_quiet && child.process.is_traced_and_stopped() {
                child.kill("it was traced by its executor, and stopped");
            }
            let may_have_ended = looks || child.has_ended || child.process.fd().is_none();
            let Some(ended) = may_have_ended.then(|| child.process.try_reap()).flatten() else {
                at += 1;
                continue;
            };
            buried = true;
            // What it has said before it went counts.
            self.read_messages(state, at, out);
            state.collect(out);
            let mut child = state.children.remove(at);
            self.core.events.forget(child.link.socket());
            if let Some(shared) = child.shared() {
                // They find that their task is not there any more.
                shared.release_sleepers();
            }
            let exit = describe(&mut child, ended, &self.core.config);
            // Those that the pool itself has ended do not count.
            let by_itself = match child.stage {
                Stage::Starting(_) | Stage::Ready => true,
                Stage::Ending(_) => child.is_deaf,
                // Also for what it did before it was ready.
                Stage::Terminated(..) | Stage::Killed(_) => child.is_mad || (child.is_deaf && !child.served),
            };
            let at_start = by_itself && !child.is_prepared();
            let Remains { begun, not_begun } = child.remains();
            match state.refusal() {
                None => state.requeue(not_begun),
                Some(reason) => not_begun.into_iter().for_each(|job| out.fail(job, reason.clone())),
            }
            for Begun { job, item, since } in begun {
                match job.may_retry() && matches!(state.phase, Phase::Open | Phase::Draining) {
                    true => state.requeue(vec![job]),
                    false => {
                        let exit = exit.of_task(job.name(), job.attempts, since);
                        out.settle.push((job, Raw::Lost(TaskError::WorkerDied(exit), item)));
                    }
                }
            }
            let code = ended.and_then(|status| status.code()).filter(|_| at_start);
            if code == Some(NO_THREADS) {
                let error = io::Error::from(rustix::io::Errno::AGAIN);
                self.cope(state, error, out);
            } else if code == Some(DISTRUSTED) {
                let reason = "the system gives it more rights than this process has";
                self.cope(state, io::Error::other(StartError::NotAWorker(reason.to_owned())), out);
            } else if code == Some(NO_SOCKET) {
                let reason = "its standard input is not the socket that it was given; the program that starts workers has closed \
                              or replaced it";
                state.break_down(Cause::new(StartError::NotAWorker(reason.to_owned())), out);
            } else if at_start {
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
        *self.core.rings.write() = state.children.iter().filter_map(Child::shared).cloned().collect();
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
                    let end = later(child.idle_since, timeout);
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
        let mut late = Vec::new();
        let child = &mut state.children[at];
        let mut next: Option<Instant> = None;
        for place in 0..child.inflight.len() {
            let Work::Task(job) = &child.inflight[place].work else { continue };
            let (Some(timeout), id) = (job.timeout(), job.id) else { continue };
            let end = match child.begun_at(place, now) {
                Some(begun) => later(begun, timeout),
                // It cannot be over its time before that much has passed.
                None => later(now, timeout.max(SHORT)),
            };
            match end <= now {
                true => late.push(id),
                false => next = Some(next.map_or(end, |next| next.min(end))),
            }
        }
        state.wake_by(next, out);
        let grace = self.core.config.kill_grace;
        for id in late {
            if let Some(job) = state.stop(at, id, grace, "the task that it ran was over its time", out) {
                out.fail(job, TaskError::TimedOut);
            }
        }
    }

    /// Starts one worker. Nothing is locked while it does.
    fn start_one(&mut self) {
        self.serial += 1;
        let child = spawn::spawn(&self.core.config, self.serial).and_then(|mut child| {
            self.watch(&child).inspect_err(|_| {
                child.kill("it cannot be watched");
                while child.process.try_reap().is_none() {
                    std::thread::sleep(Duration::from_millis(1));
                }
            })?;
            Ok(child)
        });
        self.receive(child);
    }

    fn watch(&self, child: &Child) -> io::Result<()> {
        let number = self.serial << 2;
        match child.link.can_take_back() {
            true => self.core.events.watch(child.link.socket(), number | SOCKET)?,
            false => self.core.events.watch_both_ways(child.link.socket(), number | SOCKET)?,
        }
        if let Some(fd) = child.process.fd() {
            self.core.events.watch(fd, number | END)?;
        }
        if let Some(captured) = &child.captured {
            self.core.events.watch(captured.fd(), number | OUTPUT)?;
        }
        Ok(())
    }

    /// Takes in a worker that has just been started.
    fn receive(&mut self, child: io::Result<Child>) {
        let mut out = Outbox::default();
        let mut state = self.core.state.lock();
        state.starting -= 1;
        match child {
            Ok(child) => {
                let Stage::Starting(deadline) = child.stage else { unreachable!("it has just been started") };
                state.wake_by(Some(deadline), &mut out);
                state.children.push(child);
                if matches!(state.phase, Phase::Broken(_)) {
                    state.children.iter_mut().for_each(|child| child.kill("the executor is broken"));
                }
                self.publish_rings(&state);
                state.settle_down(&mut out);
            }
            Err(error) => self.cope(&mut state, error, &mut out),
        }
        self.core.release(state, out);
    }

    /// The system has refused a new process: those that are there have to do, or else the tasks fail.
    fn cope(&mut self, state: &mut State, error: io::Error, out: &mut Outbox) {
        let wait = RETRY[0].saturating_mul(1 << self.refused.min(10)).min(RETRY[1]);
        self.refused += 1;
        state.cautious = true;
        if state.children.is_empty() && self.refused >= self.core.config.restart_limit {
            let cause = match error.downcast::<StartError>() {
                Ok(error) => Cause::new(error),
                Err(error) => Cause::new(error),
            };
            for queue in 0..state.queues.len() {
                for job in std::mem::take(&mut state.queues[queue]) {
                    out.fail(job, TaskError::Spawn(cause.clone()));
                }
            }
            self.refused = 0;
            // The next task is a reason to try again.
            return state.settle_down(out);
        }
        let time = Instant::now() + wait;
        state.not_before = Some(time);
        state.wake_by(Some(time), out);
        state.settle_down(out);
    }
}

/// What is known of the end of a worker.
fn describe(child: &mut Child, ended: Ended, config: &Config) -> WorkerExit {
    let signal = ended.and_then(|status| status.signal());
    let killed_because = match child.stage {
        Stage::Terminated(_, why) | Stage::Killed(why) if ended.is_none() || matches!(signal, Some(9 | 15)) => {
            Some(why)
        }
        _ => None,
    };
    let note = child.shared().map(|shared| shared.note());
    // SIGKILL that nobody here has sent.
    let killed = signal == Some(9) && killed_because.is_none();
    WorkerExit::new(ExitInner {
        pid: child.process.id(),
        code: ended.and_then(|status| status.code()),
        signal,
        core_dumped: ended.is_some_and(|status| status.core_dumped()),
        note: note.and_then(|note| note.read()),
        panic: note.and_then(|note| note.read_panic()),
        out_of_memory: killed && spawn::oom_kills() > child.oom_kills,
        memory_limit: config.memory_limit,
        stderr: child.captured.as_mut().map(|captured| captured.text()),
        task: None,
        attempts: 0,
        killed_because,
    })
}
