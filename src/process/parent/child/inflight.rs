//! The calls that a worker has been handed and has not answered.
//!
//! # Rules
//!
//! 1. They are in the order in which they were written, which is the order in which the worker begins them.
//! 2. A call leaves when its reply arrives, when it is taken back before it has begun, or when its worker is dead or left behind
//!    ([`drain_tasks`]).
//! 3. A call whose task was resolved in another way stays, as [`Work::Forgotten`], until its reply arrives: the worker still has
//!    it.
//!
//! [`drain_tasks`]: Inflight::drain_tasks

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::super::job::{Job, JobBox};
use crate::os::clock;
use crate::process::link::ParentLink;

/// The most calls that one worker has at a time, unless it has at least as many threads.
const MAX_CALLS: usize = 256;

/// How long the calls that a worker has are expected to take together, at most.
const STORE: Duration = Duration::from_micros(300);

pub(crate) struct Inflight {
    calls: VecDeque<HandedCall>,
    /// How long a call takes (the initializer included), as a moving average; `None` until the first reply.
    pace: Option<Duration>,
}

pub(crate) struct HandedCall {
    pub(super) work: Work,
    position: u64,
    /// It cannot be taken back.
    sealed: bool,
    handed: Instant,
    /// When it was first seen to have begun.
    begun: Option<Instant>,
}

/// Returns the duration in nanoseconds, saturating after some centuries. Avoids a division of 128 bits, which is slow.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl HandedCall {
    pub(super) fn new(work: Work, position: u64, sealed: bool, now: Instant) -> Self {
        Self { work, position, sealed, handed: now, begun: None }
    }
}

pub(crate) enum Work {
    Task(JobBox),
    Initializer,
    /// Its future has been resolved; the reply is ignored.
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

    fn task(&self) -> Option<&JobBox> {
        match self {
            Self::Task(job) => Some(job),
            Self::Initializer | Self::Forgotten(_) => None,
        }
    }
}

/// The tasks of a dead worker.
#[derive(Default)]
pub(crate) struct DrainedTasks {
    pub(crate) begun: Vec<BegunTask>,
    pub(crate) not_begun: Vec<JobBox>,
}

/// A task that a dead worker had begun.
pub(crate) struct BegunTask {
    pub(crate) job: JobBox,
    /// The item that it was at, in a chunk of a map.
    pub(crate) item: u64,
    /// When it began, in nanoseconds of the monotonic clock; 0 if that is not known.
    pub(crate) since: u64,
}

impl Inflight {
    pub(super) fn new(initializer: Option<HandedCall>) -> Self {
        Self { calls: initializer.into_iter().collect(), pace: None }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Returns `true` if a reply has arrived.
    pub(super) fn has_answered(&self) -> bool {
        self.pace.is_some()
    }

    /// How many calls there are, not counting the initializer: that one takes no place from a task, which can wait behind it.
    pub(crate) fn load(&self) -> usize {
        self.calls.len() - usize::from(self.has_initializer())
    }

    /// Returns `true` if the initializer has not been answered. It is always the first call.
    pub(super) fn has_initializer(&self) -> bool {
        self.calls.front().is_some_and(|call| matches!(call.work, Work::Initializer))
    }

    pub(super) fn push(&mut self, call: HandedCall) {
        self.calls.push_back(call);
    }

    /// The task of the last call; `None` if that is not a task, or was forgotten.
    pub(super) fn last_task(&self) -> Option<&JobBox> {
        self.calls.back()?.work.task()
    }

    /// The places of the calls, oldest first.
    pub(crate) fn places(&self) -> std::ops::Range<usize> {
        0..self.calls.len()
    }

    pub(crate) fn task(&self, place: usize) -> Option<&JobBox> {
        self.calls[place].work.task()
    }

    /// The place of the task of that id.
    pub(crate) fn find(&self, id: u64) -> Option<usize> {
        self.calls.iter().position(|call| call.work.task().is_some_and(|job| job.id == id))
    }

    /// The place of the call with that id, whose reply has arrived.
    pub(super) fn find_call(&self, id: u64) -> Option<usize> {
        self.calls.iter().position(|call| call.work.id() == id)
    }

    pub(super) fn is_last(&self, place: usize) -> bool {
        place + 1 == self.calls.len()
    }

    pub(super) fn work(&self, place: usize) -> &Work {
        &self.calls[place].work
    }

    /// Removes the call at that place, whose reply has arrived.
    pub(super) fn answered(&mut self, place: usize, took: Duration) -> Work {
        self.pace = Some(match self.pace {
            // A slow task raises the average at once, a quick one lowers it gradually: too small a store costs little.
            Some(pace) if took < pace => (pace * 7 + took) / 8,
            _ => took,
        });
        self.calls.remove(place).expect("the place is that of a call").work
    }

    /// Marks the call at that place as one whose reply is ignored, and returns its task, if it has one.
    pub(crate) fn forget(&mut self, place: usize) -> Option<JobBox> {
        let work = &mut self.calls[place].work;
        let id = work.id();
        match std::mem::replace(work, Work::Forgotten(id)) {
            Work::Task(job) => Some(job),
            other => {
                *work = other;
                None
            }
        }
    }

    /// The maximum number of calls that the worker should have, if calls can be taken back.
    pub(super) fn store(&self, threads: usize) -> usize {
        let fit = match self.pace {
            None => 0,
            Some(pace) => (nanos(STORE) / nanos(pace).max(1)) as usize,
        };
        fit.min(MAX_CALLS).max(threads + 1)
    }

    /// Estimates how many of its calls have not begun, and how long those will take.
    pub(crate) fn backlog(&self, threads: usize) -> (usize, Duration) {
        let waiting = self.load().saturating_sub(threads);
        let pace = self.pace.unwrap_or(STORE);
        (waiting, pace.saturating_mul(u32::try_from(waiting).unwrap_or(u32::MAX)))
    }

    /// How long ago the oldest of its calls was handed over.
    pub(crate) fn oldest(&self, now: Instant) -> Duration {
        self.calls.front().map_or(Duration::ZERO, |first| now.saturating_duration_since(first.handed))
    }

    /// Returns `true` if the worker has begun the call at that place. Without shared memory this cannot be told for a single
    /// call, so `served` is returned: whether the worker may have begun any call.
    pub(crate) fn has_begun(&self, place: usize, link: &ParentLink, served: bool) -> bool {
        link.has_begun(self.calls[place].position, served)
    }

    /// Since when the call at that place has been running; `None` if it has not begun.
    pub(super) fn begun_at(&mut self, place: usize, link: &ParentLink, served: bool, now: Instant) -> Option<Instant> {
        if !self.has_begun(place, link, served) {
            return None;
        }
        let call = &mut self.calls[place];
        // The time that the worker reports is not trusted. It is limited to the interval from handing the call over to first
        // seeing that it has begun.
        let seen = *call.begun.get_or_insert(now);
        let said = match link.begun_at(call.position) {
            Some(0) => seen,
            Some(begun) => {
                let ago = Duration::from_nanos(clock::now().saturating_sub(begun));
                now.checked_sub(ago).unwrap_or(seen)
            }
            None => call.handed,
        };
        Some(said.clamp(call.handed, seen.max(call.handed)))
    }

    /// Takes back tasks for which `which` returns `true`, if they are not sealed and have not begun: the newest `most` of them.
    /// Returns them oldest first.
    pub(super) fn take_back(&mut self, most: usize, link: &ParentLink, which: impl Fn(&Job) -> bool) -> Vec<JobBox> {
        let mut back = VecDeque::new();
        for place in self.places().rev() {
            if back.len() == most {
                break;
            }
            let call = &self.calls[place];
            let is_wanted = call.work.task().is_some_and(|job| which(job));
            if is_wanted && !call.sealed && link.take_back(call.position) {
                if let Some(HandedCall { work: Work::Task(job), .. }) = self.calls.remove(place) {
                    back.push_front(job);
                }
            }
        }
        back.into()
    }

    /// Removes all tasks of a worker that is dead or left behind, separated into those it has begun and those that another worker
    /// can run. If its process still exists, it will not begin the latter any more.
    pub(super) fn drain_tasks(&mut self, link: &ParentLink, served: bool) -> DrainedTasks {
        let mut tasks = DrainedTasks::default();
        for call in std::mem::take(&mut self.calls) {
            let not_begun = if link.can_take_back() { link.take_back(call.position) } else { !served };
            let Work::Task(mut job) = call.work else { continue };
            if not_begun {
                tasks.not_begun.push(job);
            } else {
                job.attempts += 1;
                let item = link.progress(call.position);
                let since = link.begun_at(call.position).unwrap_or(0);
                tasks.begun.push(BegunTask { job, item, since });
            }
        }
        tasks
    }
}
