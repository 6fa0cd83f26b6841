//! One worker as the parent sees it.
//!
//! | file | what it is |
//! |---|---|
//! | `life` | its states, from its start until it is reaped |
//! | `inflight` | the calls that it has been handed and has not answered |
//! | `outgoing` | what the parent still has to write to it |
//! | `incoming` | what it has written and the parent has not processed |
//! | `process` | its process |
//!
//! All of it is behind the lock of the pool. Nothing here resolves a task: a task enters through [`hand_over`](Child::hand_over),
//! and leaves as a return value.

mod incoming;
mod inflight;
mod life;
mod outgoing;
mod process;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::config::{Config, Hook};
use super::job::{Job, JobBox, Raw};
use super::output::Captured;
use crate::process::later;
use crate::process::link::{BEGUN, INLINE, ParentLink, QUEUED, Shared};
use crate::process::wire::{Call, CallKind, ProtocolError, padded};
use incoming::{Incoming, Trust, Whole};
pub(crate) use inflight::{BegunTask, DrainedTasks, HandedCall, Inflight, Work};
pub(crate) use life::{EndReason, Life};
use outgoing::Outgoing;
pub(crate) use process::WorkerProcess;

pub(crate) struct Child {
    /// Unique among the children of the pool.
    pub(crate) serial: u64,
    pub(crate) process: Box<dyn WorkerProcess>,
    pub(crate) link: ParentLink,
    life: Life,
    /// READY has arrived, even if the worker was already being ended.
    has_answered: bool,
    pub(crate) inflight: Inflight,
    outgoing: Outgoing,
    incoming: Incoming,
    /// How many more tasks it may be handed.
    calls_left: u64,
    pub(crate) idle_since: Instant,
    pub(crate) output: Option<Captured>,
    /// How many processes the kernel had killed, because memory ran out, when this one was started.
    pub(crate) oom_kills: u64,
}

/// The parts of a worker that has been started.
pub(crate) struct Launched {
    pub(crate) serial: u64,
    pub(crate) process: Box<dyn WorkerProcess>,
    pub(crate) link: ParentLink,
    pub(crate) initializer: Option<HandedCall>,
    pub(crate) max_tasks: Option<u64>,
    /// When it has to be ready.
    pub(crate) deadline: Instant,
    pub(crate) output: Option<Captured>,
    pub(crate) oom_kills: u64,
}

/// A task that could not be handed over.
pub(crate) struct Refused {
    pub(crate) job: JobBox,
    /// How the worker has broken the protocol; `None` if there is no room at the moment.
    pub(crate) violation: Option<ProtocolError>,
}

/// What a worker has answered.
pub(crate) enum Returned {
    Task(JobBox, Raw),
    /// The reply to the initializer.
    Initializer(Raw),
}

/// Whether the end of a worker counts as a failed start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// It ended before it was prepared, and by its own doing.
    FailedStart,
    /// It was prepared, or a task, the user or the executor ended it.
    None,
}

/// Hands the initializer over as the very first call, before there is a process, so no thread has to be woken.
pub(crate) fn hand_over_initializer(link: &mut ParentLink, hook: &Hook) -> io::Result<HandedCall> {
    let no_room = || io::Error::other("there is no room for the argument of the initializer");
    let (argument, attachments) = (hook.argument.as_slice(), hook.argument.attachments());
    if !link.send_attachments(0, attachments) {
        return Err(no_room());
    }
    let (function, len) = (hook.function.0, argument.len());
    let call = Call { kind: CallKind::Initializer, id: 0, function, len, attachments: attachments.len() as u16 };
    match link.send(call, BEGUN, argument) {
        Ok(Some((position, sent))) if sent == padded(len) => {
            Ok(HandedCall::new(Work::Initializer, position, true, Instant::now()))
        }
        _ => Err(no_room()),
    }
}

impl Child {
    pub(crate) fn new(launched: Launched) -> Self {
        let Launched { serial, process, link, initializer, max_tasks, deadline, output, oom_kills } = launched;
        Self {
            serial,
            process,
            link,
            life: Life::Starting { deadline },
            has_answered: false,
            inflight: Inflight::new(initializer),
            outgoing: Outgoing::default(),
            incoming: Incoming::default(),
            calls_left: max_tasks.unwrap_or(u64::MAX),
            idle_since: Instant::now(),
            output,
            oom_kills,
        }
    }

    // Queries.

    pub(crate) fn life(&self) -> Life {
        self.life
    }

    /// The memory that it shares with the parent, if it does.
    pub(crate) fn shared(&self) -> Option<&Arc<Shared>> {
        self.link.shared()
    }

    /// Returns `true` if it has answered all calls.
    pub(crate) fn is_idle(&self) -> bool {
        self.inflight.is_empty() && !self.incoming.is_reading()
    }

    /// Returns `true` if it has that task, or if a part of the task's reply has been read.
    pub(crate) fn has(&self, id: u64) -> bool {
        self.inflight.find(id).is_some() || self.incoming.is_reading_task(id)
    }

    /// Returns `true` if it may be handed a task.
    pub(crate) fn takes_calls(&self) -> bool {
        self.life.takes_calls() && self.calls_left > 0 && !self.outgoing.is_sending()
    }

    /// Returns `true` if the worker has to end once it is idle, because it is retiring or has run `max_tasks_per_child` tasks.
    pub(crate) fn is_spent(&self) -> bool {
        self.life == Life::Retiring || (self.life.takes_calls() && self.calls_left == 0)
    }

    /// Returns `true` if it is ready and its initializer, if there is one, has ended. Before that it begins no task.
    pub(crate) fn is_prepared(&self) -> bool {
        self.has_answered && !self.inflight.has_initializer()
    }

    /// Returns `true` if the worker may have begun tasks, judged without shared memory. A worker that has broken the protocol may
    /// have sent that it is prepared without the parent reading it.
    fn may_have_begun(&self) -> bool {
        self.is_prepared() || self.has_violated()
    }

    /// Returns `true` if the worker cannot announce its replies, because it has closed its control socket.
    pub(crate) fn is_silent(&self) -> bool {
        self.incoming.trust() == Trust::SocketClosed
    }

    /// Returns `true` if it has broken the protocol.
    pub(crate) fn has_violated(&self) -> bool {
        self.incoming.trust() == Trust::Violated
    }

    pub(crate) fn is_sending(&self) -> bool {
        self.outgoing.is_sending()
    }

    /// Returns `true` if a long value has been transferred in part, to it or from it.
    pub(crate) fn is_streaming(&self) -> bool {
        self.outgoing.is_sending() || self.incoming.is_reading()
    }

    /// Returns `true` if there is more to read that `epoll` will not report again.
    pub(crate) fn has_more(&self) -> bool {
        self.incoming.has_more()
    }

    /// The maximum number of tasks that it should have.
    pub(crate) fn window(&self, threads: usize) -> usize {
        if !self.link.can_take_back() {
            // A task counts as begun as soon as it is handed over, so cancelling it ends the worker. That must not lose a reply
            // that has partly arrived.
            return threads - usize::from(self.incoming.is_reading());
        }
        if self.output.is_some() {
            // Captured output can be attributed to a task only if the worker does not have the next task already.
            return threads;
        }
        self.inflight.store(threads)
    }

    /// Returns `true` if it could begin a task now.
    pub(crate) fn has_free_thread(&self, threads: usize) -> bool {
        let load = self.inflight.load();
        load < threads && self.takes_calls() && load < self.window(threads)
    }

    /// Returns `true` if it has begun the call at that place.
    pub(crate) fn has_begun(&self, place: usize) -> bool {
        self.inflight.has_begun(place, &self.link, self.may_have_begun())
    }

    /// Since when it has been running the call at that place; `None` if it has not begun.
    pub(crate) fn begun_at(&mut self, place: usize, now: Instant) -> Option<Instant> {
        let served = self.may_have_begun();
        self.inflight.begun_at(place, &self.link, served, now)
    }

    // Tasks in and out.

    /// Hands a task over. Returns it if there is no room for it, or if the worker has broken the protocol.
    pub(crate) fn hand_over(&mut self, mut job: JobBox, now: Instant) -> Result<(), Refused> {
        self.forget_output();
        let argument = job.argument.as_slice();
        let attachments = job.argument.attachments();
        let sealed = argument.len() > INLINE || !attachments.is_empty() || !self.link.can_take_back();
        let (kind, function, len) = (CallKind::Task, job.function.0, argument.len());
        let call = Call { kind, id: job.id, function, len, attachments: attachments.len() as u16 };
        if !attachments.is_empty() {
            // Sent only if there is room for the call: without it, the descriptors would stay in the worker's socket.
            match self.link.has_room(len) {
                Ok(true) if self.link.send_attachments(job.id, attachments) => {}
                Ok(has_room) => {
                    if !has_room {
                        self.link.want_room();
                    }
                    return Err(Refused { job, violation: None });
                }
                Err(violation) => return Err(Refused { job, violation: Some(violation) }),
            }
        }
        let (position, sent) = match self.link.send(call, QUEUED, argument) {
            Ok(Some(sent)) => sent,
            Ok(None) => {
                // Asks the worker to announce room. Room that it made before this request is not announced.
                self.link.want_room();
                return Err(Refused { job, violation: None });
            }
            Err(violation) => return Err(Refused { job, violation: Some(violation) }),
        };
        self.outgoing.has_written(sent, len);
        if let Some(options) = &mut job.options {
            options.permit = None;
        }
        self.calls_left -= 1;
        self.inflight.push(HandedCall::new(Work::Task(job), position, sealed, now));
        if self.outgoing.is_sending() {
            // A violation is found again by the next thread that collects from this worker.
            let _ = self.send_more();
        }
        Ok(())
    }

    /// Discards what the worker wrote before it became idle: it does not belong to the next task. Output from its start is kept,
    /// because it may explain why the worker never becomes ready. A worker that has answered a call has become ready, even if
    /// the message that says so has not been read.
    fn forget_output(&mut self) {
        if (self.life == Life::Ready || self.inflight.has_answered()) && self.is_idle() {
            if let Some(output) = &mut self.output {
                output.forget();
            }
        }
    }

    /// Continues to write a long argument, and then the call to exit, for which there was no room before.
    pub(crate) fn send_more(&mut self) -> Result<(), ProtocolError> {
        self.outgoing.send_more(&mut self.link, &self.inflight)?;
        self.outgoing.send_exit(&mut self.link)
    }

    /// Returns the next complete reply; `None` if there is none.
    pub(crate) fn receive(&mut self, config: &Config, now: Instant) -> Result<Option<Returned>, ProtocolError> {
        let (limit, nesting) = (config.max_payload, config.max_nesting);
        loop {
            let awaits_argument = self.outgoing.is_sending();
            let whole = self.incoming.receive(&mut self.link, &mut self.inflight, limit, awaits_argument)?;
            let Some(Whole { reply, body, work }) = whole else { return Ok(None) };
            if reply.retire {
                self.life.retire();
            }
            if self.inflight.is_empty() {
                self.idle_since = now;
            }
            let (kind, pid, took) = (reply.kind, self.process.id(), reply.took);
            let raw = |name| Raw::Reply { kind, body, pid, name, limit, nesting, took };
            match work {
                Work::Task(job) => {
                    let name = job.name();
                    return Ok(Some(Returned::Task(job, raw(name))));
                }
                Work::Initializer => return Ok(Some(Returned::Initializer(raw(None)))),
                Work::Forgotten(_) => {}
            }
        }
    }

    /// Takes back tasks for which `which` returns `true`, if they have not begun and can be taken back: the newest `most` of
    /// them. Returns them oldest first.
    #[must_use]
    pub(crate) fn take_back(&mut self, most: usize, which: impl Fn(&Job) -> bool) -> Vec<JobBox> {
        let back = self.inflight.take_back(most, &self.link, which);
        self.calls_left += back.len() as u64;
        back
    }

    /// Removes all tasks of a worker that is dead or left behind. It never begins those that it has not begun yet.
    #[must_use]
    pub(crate) fn drain_tasks(&mut self) -> DrainedTasks {
        let served = self.may_have_begun();
        let read = self.incoming.drain_task();
        let mut tasks = self.inflight.drain_tasks(&self.link, served);
        if let Some(mut job) = read {
            job.attempts += 1;
            // The task itself had ended, so a panic that was recorded belongs to another one.
            tasks.begun.insert(0, BegunTask { job, item: u64::MAX, since: u64::MAX });
        }
        tasks
    }

    // Messages.

    /// Reads the messages on the control socket, and returns those that are for the supervisor. The second value is `false` if
    /// the worker's end is closed.
    pub(crate) fn read_messages(&mut self) -> (Vec<Vec<u8>>, bool) {
        let open = matches!(self.incoming.read_messages(&mut self.link), Ok(true));
        (self.incoming.take_messages(), open)
    }

    /// Reads its captured output.
    pub(crate) fn read_output(&mut self) {
        let has_more = self.output.as_mut().is_some_and(Captured::read);
        self.incoming.note_more(has_more);
    }

    /// Returns [`has_more`](Self::has_more), and resets it.
    pub(crate) fn take_has_more(&mut self) -> bool {
        self.incoming.take_has_more()
    }

    // Life.

    /// READY has arrived. Returns `false` if the worker was not in the state `Starting`.
    #[must_use]
    pub(crate) fn ready(&mut self, now: Instant) -> bool {
        self.has_answered = true;
        let counts = self.life.ready();
        if counts {
            self.idle_since = now;
        }
        counts
    }

    /// It gets no more calls, and ends when it is idle.
    pub(crate) fn retire(&mut self) {
        self.life.retire();
    }

    /// Tells it to exit when it has answered all calls. Does nothing if it is being ended already.
    pub(crate) fn ask_to_end(&mut self, deadline: Instant) -> Result<(), ProtocolError> {
        if self.life.ask_to_end(deadline) { self.outgoing.exit(&mut self.link) } else { Ok(()) }
    }

    /// Sends SIGTERM now; SIGKILL follows after `grace`.
    pub(crate) fn terminate(&mut self, grace: Duration, reason: EndReason, now: Instant) {
        if self.life.terminate(later(now, grace), reason) {
            let _ = self.process.signal(Signal::TERM);
            // A stopped process does not act on SIGTERM before it is continued.
            let _ = self.process.signal(Signal::CONT);
        }
    }

    /// Sends SIGKILL.
    pub(crate) fn kill(&mut self, reason: EndReason, now: Instant) {
        self.life.kill(reason, now);
        let _ = self.process.signal(Signal::KILL);
    }

    /// The pool goes on without the worker, although its process still exists. It is told to exit, in case it ever runs again,
    /// and a separate thread reaps it. If that thread cannot be started, the process stays a zombie.
    pub(crate) fn leave_behind(mut self) {
        let _ = self.outgoing.exit(&mut self.link);
        let mut process = self.process;
        let name = format!("reaper-{}", process.id());
        let reap = move || {
            while process.try_reap().is_none() {
                std::thread::sleep(Duration::from_millis(100));
            }
        };
        let _ = std::thread::Builder::new().name(name).spawn(reap);
    }

    /// It has broken the protocol: kills it. Nothing that it has written is read any more.
    pub(crate) fn kill_for_violation(&mut self, now: Instant) {
        self.incoming.violated();
        self.kill(EndReason::ProtocolViolation, now);
    }

    /// Its end of the control socket is closed.
    pub(crate) fn socket_closed(&mut self) {
        self.incoming.socket_closed();
    }

    /// Its process has ended: returns whether that was a failed start.
    pub(crate) fn blame(&self) -> Blame {
        let by_itself = match self.life {
            Life::Starting { .. } | Life::Ready | Life::Retiring => true,
            Life::Ending { .. } => self.is_silent(),
            // The pool ended it, but for something that the worker itself had done.
            Life::Terminating { reason, .. } | Life::Killed { reason, .. } => {
                self.has_violated() || reason.is_workers_fault()
            }
        };
        if by_itself && !self.is_prepared() { Blame::FailedStart } else { Blame::None }
    }
}
