//! One worker as the parent sees it: what it has been handed, what has come back, how it is to end.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::body::{Body, Element};
use super::job::{Job, JobBox, Raw};
use super::later;
use super::stderr::Captured;
use super::transport::{BEGUN, INLINE, ParentLink, QUEUED, Shared, Stash};
use super::wire::{Call, CallKind, Garbled, LONGEST_REPORT, Reply, ReplyKind, message, padded};
use crate::os::pidfd::Process;

/// The most calls that are handed over to one worker at a time.
const MOST: usize = 256;

/// How many messages, and bytes of them, are read at a time: more than a socket holds. Whoever reads has the lock of the pool.
const MOST_MESSAGES: usize = 1024;
const MOST_BYTES: usize = 4 << 20;

/// How much work a worker has in store at most, as far as it can be foreseen.
const STORE: Duration = Duration::from_micros(300);

pub(super) struct Child {
    /// No other child of the pool has the same.
    pub(super) serial: u64,
    pub(super) process: Process,
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
    /// It is to be told to end, and there was no room for that yet.
    owes_exit: bool,
    /// What a task takes, as a moving average; none is known at first.
    pace: Option<Duration>,
    pub(super) idle_since: Instant,
    pub(super) captured: Option<Captured>,
    /// Descriptors that have come for replies.
    attachments: Stash,
    /// It has sent something that makes no sense.
    pub(super) is_mad: bool,
    /// Its end of the control socket is closed: it cannot ring.
    pub(super) is_deaf: bool,
    /// It has been reported that its process has ended.
    pub(super) has_ended: bool,
    /// There are messages, or there is output, of which nothing will be reported again.
    pub(super) has_more: bool,
    /// Messages that the supervisor has to look at.
    pub(super) mail: Vec<Vec<u8>>,
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
    /// It cannot be taken back.
    sealed: bool,
    handed: Instant,
    /// When it was first seen to have begun.
    begun: Option<Instant>,
}

impl InFlight {
    /// The initializer, handed over as the very first call, before there is a worker: nobody has to wake it for that.
    pub(super) fn initializer(link: &mut ParentLink, function: u64, argument: &[u8]) -> io::Result<Self> {
        let len = argument.len();
        let call = Call { kind: CallKind::Initializer, id: 0, function, len, attachments: 0 };
        match link.send(call, BEGUN, argument) {
            Ok(Some((position, sent))) if sent == padded(len) => {
                Ok(Self { work: Work::Initializer, position, sealed: true, handed: Instant::now(), begun: None })
            }
            _ => Err(io::Error::other("there is no room for the argument of the initializer")),
        }
    }
}

/// A task that could not be handed over.
pub(super) struct Refused {
    pub(super) job: JobBox,
    /// Why the worker is not to be trusted any more, if so.
    pub(super) garbled: Option<Garbled>,
}

pub(super) enum Work {
    Task(JobBox),
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

/// What a worker leaves behind.
#[derive(Default)]
pub(super) struct Remains {
    pub(super) begun: Vec<Begun>,
    pub(super) not_begun: Vec<JobBox>,
}

/// A task that a dead worker had begun.
pub(super) struct Begun {
    pub(super) job: JobBox,
    /// The item that it was at, in a chunk of a map.
    pub(super) item: u64,
    /// When it began, in nanoseconds of the monotonic clock; 0 if nobody knows.
    pub(super) since: u64,
}

struct Reading {
    reply: Reply,
    body: Body,
    work: Work,
}

/// What has come back.
pub(super) enum Returned {
    Task(JobBox, Raw),
    /// The initializer has ended like that.
    Initializer(Raw),
}

impl Child {
    pub(super) fn new(
        serial: u64,
        process: Process,
        link: ParentLink,
        deadline: Instant,
        captured: Option<Captured>,
        oom_kills: u64,
        initializer: Option<InFlight>,
    ) -> Self {
        Self {
            serial,
            process,
            link,
            stage: Stage::Starting(deadline),
            served: false,
            inflight: initializer.into_iter().collect(),
            sending: None,
            reading: None,
            handed: 0,
            retiring: false,
            owes_exit: false,
            pace: None,
            idle_since: Instant::now(),
            captured,
            attachments: Stash::default(),
            is_mad: false,
            is_deaf: false,
            has_ended: false,
            has_more: false,
            mail: Vec::new(),
            oom_kills,
        }
    }

    pub(super) fn shared(&self) -> Option<&Arc<Shared>> {
        self.link.shared()
    }

    /// Has everything that it was handed come back, whole?
    pub(super) fn is_idle(&self) -> bool {
        self.inflight.is_empty() && self.reading.is_none()
    }

    /// Is this task in its hands, or its result on the way?
    pub(super) fn has(&self, id: u64) -> bool {
        let is_read = |reading: &Reading| matches!(&reading.work, Work::Task(job) if job.id == id);
        self.find(id).is_some() || self.reading.as_ref().is_some_and(is_read)
    }

    /// May it be handed anything?
    pub(super) fn takes_calls(&self) -> bool {
        matches!(self.stage, Stage::Starting(_) | Stage::Ready) && !self.retiring && self.sending.is_none()
    }

    /// How many calls it should have at most.
    pub(super) fn window(&self, threads: usize) -> usize {
        if !self.link.can_take_back() {
            // What it is handed counts as begun. To end it for the sake of that must not cost a reply of which a part has come.
            return threads - usize::from(self.reading.is_some());
        }
        if self.captured.is_some() {
            // Where the output of one task ends, and that of the next begins, can be told only in between.
            return threads;
        }
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
    pub(super) fn hand_over(&mut self, mut job: JobBox) -> Result<(), Refused> {
        self.forget_output();
        let argument = job.argument.as_slice();
        let beside = job.argument.attachments();
        let sealed = argument.len() > INLINE || !beside.is_empty() || !self.link.can_take_back();
        let (kind, function, len) = (CallKind::Task, job.function.0, argument.len());
        let call = Call { kind, id: job.id, function, len, attachments: beside.len() as u16 };
        if !beside.is_empty() {
            // Not before there is room for the call: what was sent for nothing would be in the worker's way.
            match self.link.has_room(len) {
                Ok(true) if self.link.send_attachments(job.id, beside) => {}
                Ok(has_room) => {
                    if !has_room {
                        self.link.want_room();
                    }
                    return Err(Refused { job, garbled: None });
                }
                Err(garbled) => return Err(Refused { job, garbled: Some(garbled) }),
            }
        }
        let (position, sent) = match self.link.send(call, QUEUED, argument) {
            Ok(Some(sent)) => sent,
            Ok(None) => {
                // Somebody has to look again when there is room; what was made meanwhile is not told of.
                self.link.want_room();
                return Err(Refused { job, garbled: None });
            }
            Err(garbled) => return Err(Refused { job, garbled: Some(garbled) }),
        };
        let is_long = sent < padded(argument.len());
        if let Some(options) = &mut job.options {
            options.permit = None;
        }
        self.handed += 1;
        let handed = Instant::now();
        self.inflight.push_back(InFlight { work: Work::Task(job), position, sealed, handed, begun: None });
        if is_long {
            self.sending = Some(sent);
            // A worker that makes no sense is found out by whoever collects from it next.
            let _ = self.pump();
        }
        Ok(())
    }

    /// What an idle worker has written is not the next task's. What it writes at its start may be why it never gets to that.
    fn forget_output(&mut self) {
        if self.stage == Stage::Ready && self.is_idle() {
            if let Some(captured) = &mut self.captured {
                captured.forget();
            }
        }
    }

    /// Asks it to end, when it has done what it was handed.
    pub(super) fn ask_to_end(&mut self, deadline: Instant) -> Result<(), Garbled> {
        self.stage = Stage::Ending(deadline);
        self.owes_exit = true;
        self.send_exit()
    }

    /// Sends the last call, if it is to end and has not been told so. What was taken back may still be in the way.
    pub(super) fn send_exit(&mut self) -> Result<(), Garbled> {
        if !self.owes_exit || self.sending.is_some() {
            return Ok(());
        }
        let call = Call { kind: CallKind::Exit, id: 0, function: 0, len: 0, attachments: 0 };
        let mut sent = self.link.send(call, BEGUN, &[])?;
        if sent.is_none() {
            self.link.want_room();
            // Room that was made between the two steps has not been told of.
            sent = self.link.send(call, BEGUN, &[])?;
        }
        self.owes_exit = sent.is_none();
        self.link.wake_worker();
        Ok(())
    }

    /// Writes more of a long argument, if there is one.
    pub(super) fn pump(&mut self) -> Result<(), Garbled> {
        let (Some(sent), Some(last)) = (self.sending, self.inflight.back()) else { return Ok(()) };
        let Work::Task(job) = &last.work else { return Ok(()) };
        let argument = job.argument.as_slice();
        let mut sent = self.link.send_more(argument, sent)?;
        if sent < padded(argument.len()) {
            self.link.want_room();
            // Room that was made between the two steps has not been told of.
            sent = self.link.send_more(argument, sent)?;
        }
        self.sending = (sent < padded(argument.len())).then_some(sent);
        self.link.wake_worker();
        Ok(())
    }

    /// Has it answered, and is its initializer, if there is one, behind it?
    pub(super) fn is_prepared(&self) -> bool {
        self.served && !self.inflight.iter().any(|inflight| matches!(inflight.work, Work::Initializer))
    }

    pub(super) fn is_sending(&self) -> bool {
        self.sending.is_some()
    }

    /// Is part of a long value on its way, to it or from it?
    pub(super) fn is_streaming(&self) -> bool {
        self.sending.is_some() || self.reading.is_some()
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
            if self.inflight.is_empty() {
                self.idle_since = Instant::now();
            }
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
        let limit = if reply.kind.is_good() { limit } else { LONGEST_REPORT };
        if reply.len as u64 > limit {
            return Err(Garbled("a reply that is longer than allowed"));
        }
        if self.sending.is_some() && at + 1 == self.inflight.len() {
            return Err(Garbled("a reply to a call that it has not got yet"));
        }
        let inflight = self.inflight.remove(at).expect("it was found there");
        let element = match (&inflight.work, reply.kind) {
            (Work::Task(job), ReplyKind::Value) => job.element,
            _ => Element::BYTE,
        };
        let Some(mut body) = Body::with_capacity(element, reply.len) else {
            self.inflight.insert(at, inflight);
            return Err(Garbled("a reply for which there is no memory"));
        };
        if reply.attachments > 0 {
            // They were sent before the reply was published, so they are there.
            let _ = self.read_messages();
            // Reading them has silenced the socket. If there were others among them, the supervisor has to be told; if there
            // was a bell, it is armed once more, and what has come meanwhile is looked for after this.
            self.has_more |= !self.mail.is_empty();
            self.link.arm_bell();
            // If they are too few, decoding says so.
            body.attachments = self.attachments.take(reply.id, reply.attachments.into()).unwrap_or_default();
        }
        self.reading = Some(Reading { reply, body, work: inflight.work });
        self.retiring |= reply.retire;
        self.pace = Some(match self.pace {
            // A slow task counts at once, a quick one slowly: a store that is too small costs little.
            Some(pace) if reply.took < pace => (pace * 7 + reply.took) / 8,
            _ => reply.took,
        });
        Ok(())
    }

    /// Takes back the newest of what has not been begun, at most so many, for others to do; oldest first.
    pub(super) fn take_back(&mut self, most: usize, which: impl Fn(&Job) -> bool) -> Vec<JobBox> {
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

    pub(super) fn find(&self, id: u64) -> Option<usize> {
        self.inflight.iter().position(|inflight| matches!(&inflight.work, Work::Task(job) if job.id == id))
    }

    /// Has the worker begun the call at that place?
    pub(super) fn has_begun(&self, at: usize) -> bool {
        self.link.has_begun(self.inflight[at].position, self.served)
    }

    /// Since when the call at that place has been running.
    pub(super) fn begun_at(&mut self, at: usize, now: Instant) -> Option<Instant> {
        if !self.has_begun(at) {
            return None;
        }
        let said = self.link.begun_at(self.inflight[at].position);
        let inflight = &mut self.inflight[at];
        // The worker's word is not taken for more than it can be: it has not begun before it was given the call, nor after
        // it was seen to have begun.
        let seen = *inflight.begun.get_or_insert(now);
        let said = match said {
            Some(0) => seen,
            Some(begun) => {
                let ago = Duration::from_nanos(super::transport::now().saturating_sub(begun));
                now.checked_sub(ago).unwrap_or(seen)
            }
            None => inflight.handed,
        };
        Some(said.clamp(inflight.handed, seen.max(inflight.handed)))
    }

    /// Makes the call at that place one whose outcome is of no interest, and gives the task.
    pub(super) fn forget(&mut self, at: usize) -> Option<JobBox> {
        let work = &mut self.inflight[at].work;
        let id = work.id();
        match std::mem::replace(work, Work::Forgotten(id)) {
            Work::Task(job) => Some(job),
            _ => None,
        }
    }

    /// Everything that it still had when it died.
    pub(super) fn remains(&mut self) -> Remains {
        let Remains { mut begun, mut not_begun } = Remains::default();
        if let Some(Reading { work: Work::Task(mut job), .. }) = self.reading.take() {
            job.attempts += 1;
            // It had ended: no panic that is noted is one of its own.
            begun.push(Begun { job, item: u64::MAX, since: u64::MAX });
        }
        for inflight in std::mem::take(&mut self.inflight) {
            let is_begun = self.link.has_begun(inflight.position, self.served);
            if let Work::Task(mut job) = inflight.work {
                if is_begun {
                    job.attempts += 1;
                    let item = self.link.progress(inflight.position);
                    let since = self.link.begun_at(inflight.position).unwrap_or(0);
                    begun.push(Begun { job, item, since });
                } else {
                    not_begun.push(job);
                }
            }
        }
        Remains { begun, not_begun }
    }

    /// SIGTERM now, SIGKILL after `grace`.
    pub(super) fn terminate(&mut self, grace: Duration, why: &'static str) {
        if matches!(self.stage, Stage::Terminated(..) | Stage::Killed(_)) {
            return;
        }
        let _ = self.process.signal(Signal::TERM);
        // A stopped process gets the signal when it goes on: it should.
        let _ = self.process.signal(Signal::CONT);
        self.stage = Stage::Terminated(later(Instant::now(), grace), why);
    }

    pub(super) fn kill(&mut self, why: &'static str) {
        let why = match self.stage {
            Stage::Terminated(_, earlier) | Stage::Killed(earlier) => earlier,
            _ => why,
        };
        let _ = self.process.signal(Signal::KILL);
        self.stage = Stage::Killed(why);
    }

    /// Reads the messages on the control socket; what is not about calls and replies goes to `mail`. False at the end. All
    /// that was there before is read, but not all that is added meanwhile.
    pub(super) fn read_messages(&mut self) -> io::Result<bool> {
        use crate::os::socket::{LONGEST, Received, receive};
        let (mut short, mut long) = ([0; 1024], Vec::new());
        let buffer = match self.link.can_take_back() {
            true => &mut short[..],
            // What travels through the socket comes in long messages.
            false => {
                long.resize(LONGEST, 0);
                &mut long[..]
            }
        };
        let (mut messages, mut bytes) = (0, 0);
        while messages < MOST_MESSAGES && bytes < MOST_BYTES {
            match receive(self.link.socket(), buffer, false)? {
                Received::Message(length, fds) => {
                    messages += 1;
                    bytes += length;
                    self.take_in(&buffer[..length], fds);
                }
                Received::Nothing => return Ok(true),
                Received::End => return Ok(false),
            }
        }
        self.has_more = true;
        Ok(true)
    }

    /// Takes in what it has written to its output.
    pub(super) fn read_output(&mut self) {
        self.has_more |= self.captured.as_mut().is_some_and(Captured::read);
    }

    fn take_in(&mut self, bytes: &[u8], fds: Vec<OwnedFd>) {
        match bytes.split_first() {
            Some((&message::ATTACHMENTS, head)) if self.attachments.len() < MOST => self.attachments.keep(head, fds),
            Some((&message::PIECE, piece)) if self.link.take_in(piece) => {}
            // Its purpose was to wake the reader.
            Some((&message::BELL, [])) => {}
            _ if self.mail.len() < MOST => self.mail.push(bytes.to_vec()),
            _ => {}
        }
    }
}
