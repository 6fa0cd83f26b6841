//! One worker as the parent sees it: what it has been handed, what has come back, how it is to end.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::body::{Body, Element};
use super::job::{Job, Raw};
use super::stderr::Captured;
use super::transport::{INLINE, ParentLink, Shared};
use super::wire::{Call, CallKind, Garbled, Reply, ReplyKind, claim};
use crate::os::pidfd::Process;

/// The most calls that are handed over to one worker at a time.
const MOST: usize = 256;

/// How much work a worker has in store at most, as far as it can be foreseen.
const STORE: Duration = Duration::from_micros(300);

pub(super) struct Child {
    /// No other child of the pool has the same.
    pub(super) serial: u64,
    pub(super) process: Process,
    pub(super) socket: OwnedFd,
    pub(super) link: ParentLink,
    pub(super) stage: Stage,
    /// It has answered: what it was handed as begun, it may have begun.
    pub(super) served: bool,
    /// What has been handed over and has not come back, in the order in which the worker begins it.
    pub(super) inflight: VecDeque<InFlight>,
    /// How much of the last one's argument has been written, while that is not all.
    sending: Option<usize>,
    /// The reply that is being read.
    reading: Option<Reading>,
    /// How many tasks it has been handed in all.
    pub(super) handed: u64,
    /// It gets nothing more, and ends when it has nothing left to do.
    pub(super) retiring: bool,
    /// What a task takes, as a moving average; none is known at first.
    pace: Option<Duration>,
    pub(super) idle_since: Instant,
    pub(super) captured: Option<Captured>,
    /// How many processes the kernel had killed for want of memory when this one started.
    pub(super) oom_kills: u64,
}

/// Where a child stands in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It has not answered yet, and has to by then.
    Starting(Instant),
    Ready,
    /// It has been asked to end, and will be killed then.
    Ending(Instant),
    /// It has been sent SIGTERM, and gets SIGKILL then.
    Terminated(Instant, &'static str),
    Killed(&'static str),
}

pub(super) struct InFlight {
    pub(super) work: Work,
    position: u64,
    /// It was handed over as begun.
    sealed: bool,
    handed: Instant,
}

pub(super) enum Work {
    Task(Box<Job>),
    Initializer,
    /// Its future has been resolved already; what comes back is of no interest.
    Forgotten(u64),
}

impl Work {
    pub(super) fn id(&self) -> u64 {
        match self {
            Self::Task(job) => job.id,
            Self::Initializer => 0,
            Self::Forgotten(id) => *id,
        }
    }
}

struct Reading {
    reply: Reply,
    body: Body,
    work: Work,
}

/// What has come back.
pub(super) enum Returned {
    Task(Box<Job>, Raw),
    /// The initializer has ended like that.
    Initializer(Raw),
}

impl Child {
    pub(super) fn new(
        serial: u64,
        process: Process,
        socket: OwnedFd,
        link: ParentLink,
        deadline: Instant,
        captured: Option<Captured>,
        oom_kills: u64,
    ) -> Self {
        Self {
            serial,
            process,
            socket,
            link,
            stage: Stage::Starting(deadline),
            served: false,
            inflight: VecDeque::new(),
            sending: None,
            reading: None,
            handed: 0,
            retiring: false,
            pace: None,
            idle_since: Instant::now(),
            captured,
            oom_kills,
        }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        self.link.shared()
    }

    /// May it be handed anything?
    pub(super) fn takes_calls(&self) -> bool {
        matches!(self.stage, Stage::Starting(_) | Stage::Ready) && !self.retiring && self.sending.is_none()
    }

    /// How many calls it should have at most.
    pub(super) fn window(&self, threads: usize) -> usize {
        match self.pace {
            None => threads + 1,
            Some(pace) => {
                let fit = STORE.as_nanos() / pace.as_nanos().max(1);
                (threads + 1).max(usize::try_from(fit).unwrap_or(MOST)).min(MOST)
            }
        }
    }

    /// What those of its calls that are not begun would take, as far as it can be foreseen.
    pub(super) fn backlog(&self, threads: usize) -> (usize, Duration) {
        let waiting = self.inflight.len().saturating_sub(threads);
        let pace = self.pace.unwrap_or(STORE);
        (waiting, pace.saturating_mul(u32::try_from(waiting).unwrap_or(u32::MAX)))
    }

    /// How long ago it was given the oldest of what it has.
    pub(super) fn oldest(&self, now: Instant) -> Duration {
        self.inflight.front().map_or(Duration::ZERO, |first| now.saturating_duration_since(first.handed))
    }

    /// Hands a task over. It comes back if there is no room for it.
    pub(super) fn hand_over(&mut self, mut job: Box<Job>) -> Result<Result<(), Box<Job>>, Garbled> {
        let argument = job.argument.as_slice();
        let sealed = argument.len() > INLINE;
        let call = Call { kind: CallKind::Task, id: job.id, function: job.function.0, len: argument.len() };
        let state = if sealed { claim::BEGUN } else { claim::QUEUED };
        let Some((position, sent)) = self.link.send(call, state, argument)? else { return Ok(Err(job)) };
        let is_long = sent < argument.len();
        if let Some(options) = &mut job.options {
            options.permit = None;
        }
        self.handed += 1;
        self.inflight.push_back(InFlight { work: Work::Task(job), position, sealed, handed: Instant::now() });
        if is_long {
            self.sending = Some(sent);
            self.pump()?;
        }
        Ok(Ok(()))
    }

    /// Hands the initializer over, as the very first call.
    pub(super) fn hand_initializer(&mut self, function: u64, argument: &[u8]) -> Result<(), Garbled> {
        let call = Call { kind: CallKind::Initializer, id: 0, function, len: argument.len() };
        if let Some((position, _)) = self.link.send(call, claim::BEGUN, argument)? {
            let handed = Instant::now();
            self.inflight.push_back(InFlight { work: Work::Initializer, position, sealed: true, handed });
        }
        Ok(())
    }

    /// Asks it to end, when it has done what it was handed.
    pub(super) fn ask_to_end(&mut self, threads: usize, deadline: Instant) -> Result<(), Garbled> {
        for _ in 0..threads {
            let call = Call { kind: CallKind::Exit, id: 0, function: 0, len: 0 };
            self.link.send(call, claim::BEGUN, &[])?;
        }
        self.link.wake_worker();
        self.stage = Stage::Ending(deadline);
        Ok(())
    }

    /// Writes more of a long argument, if there is one.
    pub(super) fn pump(&mut self) -> Result<(), Garbled> {
        let (Some(sent), Some(last)) = (self.sending, self.inflight.back()) else { return Ok(()) };
        let Work::Task(job) = &last.work else { return Ok(()) };
        let argument = job.argument.as_slice();
        let mut sent = self.link.send_more(argument, sent)?;
        if sent < argument.len() {
            self.link.want_room();
            // Room that was made between the two steps has not been told of.
            sent = self.link.send_more(argument, sent)?;
        }
        self.sending = (sent < argument.len()).then_some(sent);
        self.link.wake_worker();
        Ok(())
    }

    pub(super) fn is_sending(&self) -> bool {
        self.sending.is_some()
    }

    /// Takes in what has come back.
    pub(super) fn collect(&mut self, limit: u64, to: &mut Vec<Returned>) -> Result<(), Garbled> {
        loop {
            if self.reading.is_none() {
                let Some(reply) = self.link.receive()? else { return Ok(()) };
                self.begin_reading(reply, limit)?;
            }
            let Some(reading) = &mut self.reading else { return Ok(()) };
            if !self.link.receive_body(&mut reading.body, reading.reply.len)? {
                return Ok(());
            }
            let Reading { reply, body, work } = self.reading.take().expect("it is being read");
            let raw =
                |name| Raw::Reply { kind: reply.kind, body, pid: self.process.id(), name, limit, took: reply.took };
            match work {
                Work::Task(job) => {
                    let name = job.name();
                    to.push(Returned::Task(job, raw(name)));
                }
                Work::Initializer => to.push(Returned::Initializer(raw(None))),
                Work::Forgotten(_) => {}
            }
        }
    }

    fn begin_reading(&mut self, reply: Reply, limit: u64) -> Result<(), Garbled> {
        let at = self.inflight.iter().position(|inflight| inflight.work.id() == reply.id);
        let at = at.ok_or(Garbled("a reply to a call that it does not have"))?;
        if reply.len as u64 > limit {
            return Err(Garbled("a reply that is longer than allowed"));
        }
        let inflight = self.inflight.remove(at).expect("it was found there");
        let element = match (&inflight.work, reply.kind) {
            (Work::Task(job), ReplyKind::Value) => job.element,
            _ => Element::BYTE,
        };
        let Some(body) = Body::with_capacity(element, reply.len) else {
            self.inflight.insert(at, inflight);
            return Err(Garbled("a reply for which there is no memory"));
        };
        self.reading = Some(Reading { reply, body, work: inflight.work });
        self.retiring |= reply.retire;
        self.pace = Some(match self.pace {
            // A slow task counts at once, a quick one slowly: a store that is too small costs little.
            Some(pace) if reply.took < pace => (pace * 7 + reply.took) / 8,
            _ => reply.took,
        });
        if self.inflight.is_empty() {
            self.idle_since = Instant::now();
        }
        Ok(())
    }

    /// Takes back the newest of what has not been begun, at most so many, for others to do; oldest first.
    pub(super) fn take_back(&mut self, most: usize, which: impl Fn(&Job) -> bool) -> Vec<Box<Job>> {
        let mut back = VecDeque::new();
        for at in (0..self.inflight.len()).rev() {
            if back.len() == most {
                break;
            }
            let inflight = &self.inflight[at];
            let wanted = matches!(&inflight.work, Work::Task(job) if which(job));
            if wanted && !inflight.sealed && self.link.take_back(inflight.position) {
                if let Some(InFlight { work: Work::Task(job), .. }) = self.inflight.remove(at) {
                    back.push_front(job);
                    self.handed -= 1;
                }
            }
        }
        back.into()
    }

    /// Is there anything that has not come back whole?
    pub(super) fn is_busy(&self) -> bool {
        !self.inflight.is_empty() || self.reading.is_some()
    }

    /// Is the reply to that task on its way?
    pub(super) fn is_replying_to(&self, id: u64) -> bool {
        self.reading.as_ref().is_some_and(|reading| reading.work.id() == id)
    }

    pub(super) fn find(&self, id: u64) -> Option<usize> {
        self.inflight.iter().position(|inflight| matches!(&inflight.work, Work::Task(job) if job.id == id))
    }

    /// Has the worker begun the call at that place?
    pub(super) fn has_begun(&self, at: usize) -> bool {
        let inflight = &self.inflight[at];
        inflight.sealed && self.served || self.link.has_begun(inflight.position)
    }

    /// Since when the call at that place has been running.
    pub(super) fn begun_at(&self, at: usize, now: Instant) -> Option<Instant> {
        let begun = self.link.begun_at(self.inflight[at].position);
        if begun == 0 || !self.has_begun(at) {
            return None;
        }
        // The worker's word is not taken for more than it can be.
        let ago = Duration::from_nanos(super::transport::now().saturating_sub(begun));
        Some(now.checked_sub(ago).unwrap_or(now).max(self.inflight[at].handed))
    }

    /// Makes the call at that place one whose outcome is of no interest, and gives the task.
    pub(super) fn forget(&mut self, at: usize) -> Option<Box<Job>> {
        let work = &mut self.inflight[at].work;
        let id = work.id();
        match std::mem::replace(work, Work::Forgotten(id)) {
            Work::Task(job) => Some(job),
            _ => None,
        }
    }

    /// Everything that it still had when it died: first what it had begun, with how many items of it, then what it had not.
    pub(super) fn remains(&mut self) -> (Vec<(Box<Job>, u64)>, Vec<Box<Job>>) {
        let (mut begun, mut not_begun) = (Vec::new(), Vec::new());
        if let Some(Reading { work: Work::Task(mut job), .. }) = self.reading.take() {
            job.attempts += 1;
            begun.push((job, u64::MAX));
        }
        for inflight in std::mem::take(&mut self.inflight) {
            let is_begun = self.link.has_begun(inflight.position) && (!inflight.sealed || self.served);
            if let Work::Task(mut job) = inflight.work {
                if is_begun {
                    job.attempts += 1;
                    begun.push((job, self.link.progress(inflight.position)));
                } else {
                    not_begun.push(job);
                }
            }
        }
        (begun, not_begun)
    }

    /// SIGTERM now, SIGKILL after `grace`.
    pub(super) fn terminate(&mut self, grace: Duration, why: &'static str) {
        if matches!(self.stage, Stage::Terminated(..) | Stage::Killed(_)) {
            return;
        }
        let _ = self.process.signal(Signal::TERM);
        // A stopped process gets the signal when it goes on: it should.
        let _ = self.process.signal(Signal::CONT);
        self.stage = Stage::Terminated(Instant::now() + grace, why);
    }

    pub(super) fn kill(&mut self, why: &'static str) {
        let why = match self.stage {
            Stage::Terminated(_, earlier) | Stage::Killed(earlier) => earlier,
            _ => why,
        };
        let _ = self.process.signal(Signal::KILL);
        self.stage = Stage::Killed(why);
    }

    /// Reads the messages on the control socket; `ready` is called with the answer of a worker that has just started.
    pub(super) fn read_messages(&mut self, mut on: impl FnMut(&mut Self, &[u8])) -> io::Result<bool> {
        use crate::os::socket::{Received, receive};
        let mut buffer = [0; 1024];
        loop {
            match receive(&self.socket, &mut buffer, false)? {
                Received::Message(length, _) => on(self, &buffer[..length]),
                Received::Nothing => return Ok(true),
                Received::End => return Ok(false),
            }
        }
    }
}
