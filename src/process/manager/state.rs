//! What the lock of a pool guards: queues, children, and how tasks move between them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::call::Payload;
use super::super::child::{Child, Refused, Returned, Stage};
use super::super::job::{Job, JobBox, Raw};
use super::super::later;
use super::super::transport::{INLINE, Shared};
use super::super::wire::Garbled;
use super::core::Config;
use crate::error::{Cause, TaskError};
use crate::executor::Priority;

/// How often it is looked whether tasks should move from a worker that is stuck to one that has nothing to do.
const REBALANCE: Duration = Duration::from_micros(200);

/// How long a worker that has nothing left to do may take to end.
const ENDING: Duration = Duration::from_secs(5);

/// So many cancelled tasks may be queued in any case.
const HUSKS: usize = 100;

/// What a pool takes, and what it does with what it has.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    Open,
    /// Nothing new; what it has is done.
    Draining,
    /// Nothing new; what has not begun is cancelled.
    Cancelled,
    /// It can do nothing any more.
    Broken(Cause),
}

pub(super) struct State {
    pub(super) phase: Phase,
    /// By priority, most urgent last.
    pub(super) queues: [VecDeque<JobBox>; 3],
    /// The least urgent that there has been.
    lowest: Priority,
    pub(super) children: Vec<Child>,
    /// How many workers there may be.
    pub(super) max_workers: usize,
    /// How many more workers are being started at the moment.
    pub(super) starting: usize,
    /// No worker is started before then: the last attempt failed.
    pub(super) not_before: Option<Instant>,
    /// The system has refused something: workers start one after the other, so that they do not fail for each other's sake.
    pub(super) cautious: bool,
    /// How many workers in a row have died before they answered, and how many may.
    pub(super) stillborn: u32,
    restart_limit: u32,
    /// A worker of this pool has answered: what is started is a worker indeed.
    pub(super) proven: bool,
    /// No worker has room, as far as is known.
    full: bool,
    /// About how many of the queued tasks are cancelled.
    husks: usize,
    /// Something has to be done at that time at the latest.
    pub(super) wake_at: Option<Instant>,
    /// The supervisor sleeps, or is about to: bells are to be armed, and it has to be woken if it should do something.
    pub(super) asleep: bool,
    pub(super) completed: u64,
    pub(super) supervised: bool,
    threads: usize,
    limit: u64,
    max_tasks: Option<u64>,
    idle_timeout: Option<Duration>,
    /// Nothing is taken any more, not even what was submitted long ago.
    pub(super) ended: bool,
    /// The supervisor is gone, and all workers with it.
    pub(super) gone: bool,
    /// The program has closed the descriptors of the pool.
    pub(super) lost: bool,
    /// How many maps have parts that they have not submitted.
    pub(super) holds: usize,
    /// How many threads are doing what has to be done outside the lock.
    pub(super) posting: usize,
}

/// What has to be done outside the lock.
#[derive(Default)]
pub(super) struct Outbox {
    pub(super) settle: Vec<(JobBox, Raw)>,
    /// The arguments of tasks that are cancelled: their destructors are the user's.
    pub(super) stripped: Vec<Payload>,
    /// The workers whose waiting threads have to look again.
    pub(super) touched: Vec<Arc<Shared>>,
    pub(super) wake_supervisor: bool,
}

impl Outbox {
    pub(super) fn fail(&mut self, job: JobBox, error: TaskError) {
        self.settle.push((job, Raw::Failed(error)));
    }

    pub(super) fn touch(&mut self, child: &Child) {
        let Some(shared) = child.shared() else { return };
        if !self.touched.iter().any(|other| Arc::ptr_eq(other, shared)) {
            self.touched.push(Arc::clone(shared));
        }
    }
}

impl State {
    pub(super) fn new(max_workers: usize, config: &Config) -> Self {
        Self {
            phase: Phase::Open,
            queues: Default::default(),
            lowest: Priority::High,
            children: Vec::new(),
            max_workers,
            starting: 0,
            not_before: None,
            cautious: false,
            stillborn: 0,
            restart_limit: config.restart_limit,
            proven: false,
            full: false,
            husks: 0,
            wake_at: None,
            asleep: false,
            completed: 0,
            supervised: false,
            threads: config.threads,
            limit: config.max_payload,
            max_tasks: config.max_tasks,
            idle_timeout: config.idle_timeout,
            ended: false,
            gone: false,
            lost: false,
            holds: 0,
            posting: 0,
        }
    }

    pub(super) fn queued(&self) -> usize {
        self.queues.iter().map(VecDeque::len).sum()
    }

    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// How many workers there are, those that are about to end included: there are never more than there may be.
    fn living(&self) -> usize {
        self.children.len() + self.starting
    }

    /// How many workers should be started.
    pub(super) fn wanted(&self) -> usize {
        if matches!(self.phase, Phase::Broken(_)) || self.not_before.is_some_and(|time| Instant::now() < time) {
            return 0;
        }
        // A start that goes wrong may run the program once more, so no more are in flight than may still go wrong.
        let at_once = match (self.proven && !self.cautious, self.stillborn) {
            (true, 0) => usize::MAX,
            (true, deaths) => self.restart_limit.saturating_sub(deaths).max(1) as usize,
            (false, _) => 1,
        };
        if at_once != usize::MAX {
            let is_starting = |child: &&Child| matches!(child.stage, Stage::Starting(_));
            if self.children.iter().filter(is_starting).count() + self.starting >= at_once {
                return 0;
            }
        }
        let room = self.max_workers.saturating_sub(self.living());
        self.queued().div_ceil(self.threads).saturating_sub(self.starting).min(room)
    }

    pub(super) fn enqueue(&mut self, job: JobBox) {
        // What is urgent may take the place of what has only been handed over.
        self.full &= job.priority <= self.lowest;
        self.lowest = self.lowest.min(job.priority);
        self.queues[job.priority as usize].push_back(job);
    }

    /// Puts tasks back to the front, in their order.
    pub(super) fn requeue(&mut self, jobs: Vec<JobBox>) {
        for job in jobs.into_iter().rev() {
            self.queues[job.priority as usize].push_front(job);
        }
        self.full = false;
    }

    /// Hands queued tasks to workers as long as there are both.
    pub(super) fn dispatch(&mut self, out: &mut Outbox) {
        if self.full {
            out.wake_supervisor |= self.asleep && self.wanted() > 0;
            return;
        }
        let mut touched = [false; 64];
        while let Some(queue) = self.queues.iter().rposition(|queue| !queue.is_empty()) {
            let first = self.queues[queue].front().expect("it is not empty");
            if first.sink.is_cancelled() {
                self.drop_first(queue, out);
                continue;
            }
            let long = first.argument.as_slice().len() > INLINE || !first.argument.attachments().is_empty();
            let Some(at) = self.find_worker(long, first.priority, out) else {
                self.full = !long;
                break;
            };
            let job = self.queues[queue].pop_front().expect("it is not empty");
            let timeout = job.timeout();
            // Before the call can be answered.
            out.wake_supervisor |= self.asleep && !self.children[at].link.arm_bell();
            match self.children[at].hand_over(job) {
                Ok(()) => {
                    match touched.get_mut(at) {
                        Some(touched) => *touched = true,
                        None => self.children[at].link.wake_worker(),
                    }
                    if let Some(timeout) = timeout {
                        self.wake_by(Instant::now().checked_add(timeout), out);
                    }
                    self.retire_when_used_up(at);
                }
                Err(Refused { job, garbled: None }) => {
                    self.queues[queue].push_front(job);
                    self.full = true;
                    break;
                }
                Err(Refused { job, garbled: Some(garbled) }) => {
                    self.queues[queue].push_front(job);
                    self.distrust(at, garbled, out);
                }
            }
        }
        for (child, _) in self.children.iter().zip(touched).filter(|(_, touched)| *touched) {
            child.link.wake_worker();
        }
        if self.wanted() > 0 {
            out.wake_supervisor = true;
        }
    }

    fn drop_first(&mut self, queue: usize, out: &mut Outbox) {
        let job = self.queues[queue].pop_front().expect("it is not empty");
        // Its future is resolved; the argument's destructor is the user's.
        out.fail(job, TaskError::Cancelled);
        self.husks = self.husks.saturating_sub(1);
    }

    /// A task has been cancelled that no worker has. If it is queued, what it holds goes now, and what is left of it when its
    /// turn comes, or when there is more of that than of anything else: what is in front of it may take for ever.
    pub(super) fn strip(&mut self, id: u64, out: &mut Outbox) {
        for queue in &mut self.queues {
            // They are in the order of their ids, by and large; one that is not found waits for its turn.
            let at = queue.partition_point(|job| job.id < id);
            let Some(job) = queue.get_mut(at).filter(|job| job.id == id) else { continue };
            out.stripped.push(std::mem::replace(&mut job.argument, Payload::EMPTY));
            if let Some(options) = &mut job.options {
                options.permit = None;
            }
        }
        self.husks += 1;
        if self.husks > HUSKS && self.husks > self.queued() / 2 {
            self.discard(|job| job.sink.is_cancelled(), out);
            self.husks = 0;
        }
    }

    /// Cancels queued tasks.
    pub(super) fn discard(&mut self, which: impl Fn(&Job) -> bool, out: &mut Outbox) {
        for queue in &mut self.queues {
            // `retain` would drop them here.
            for job in std::mem::take(queue) {
                match which(&job) {
                    true => out.fail(job, TaskError::Cancelled),
                    false => queue.push_back(job),
                }
            }
        }
    }

    fn retire_when_used_up(&mut self, at: usize) {
        let child = &mut self.children[at];
        if self.max_tasks.is_some_and(|most| child.handed >= most) {
            child.retiring = true;
        }
    }

    /// The worker that should get the next task.
    fn find_worker(&mut self, long: bool, priority: Priority, out: &mut Outbox) -> Option<usize> {
        let threads = self.threads;
        let takes = |child: &Child| child.takes_calls();
        // One that has nothing to do, and of these the one that has had nothing to do for the shortest time, which is the
        // most likely to be awake.
        let is_idle = |child: &Child| takes(child) && child.inflight.len() < threads.min(child.window(threads));
        let idle = self.children.iter().enumerate().filter(|(_, child)| is_idle(child));
        let idle = idle.max_by_key(|(_, child)| (child.stage == Stage::Ready, child.idle_since)).map(|(at, _)| at);
        if idle.is_some() || long {
            return idle;
        }
        // A new one, if there may be one, or is one coming.
        let blocked = self.not_before.is_some_and(|time| Instant::now() < time);
        if (self.living() < self.max_workers && !blocked) || self.starting > 0 {
            return None;
        }
        // What is urgent does not wait behind what was only handed over.
        if priority > self.lowest {
            self.recall(|job| job.priority < priority, out);
        }
        let open = self.children.iter().enumerate();
        let open = open.filter(|(_, child)| takes(child) && child.inflight.len() < child.window(threads));
        open.min_by_key(|(_, child)| child.inflight.len()).map(|(at, _)| at)
    }

    /// There may be more workers than before: what was only handed over to those that are busy need not wait for them.
    pub(super) fn make_use_of_room(&mut self, out: &mut Outbox) {
        self.recall(|_| true, out);
        self.settle_down(out);
    }

    /// Takes back such tasks as have not begun.
    fn recall(&mut self, which: impl Fn(&Job) -> bool, out: &mut Outbox) {
        let mut back: Vec<JobBox> = Vec::new();
        for child in &mut self.children {
            if child.inflight.len() <= self.threads {
                continue;
            }
            let jobs = child.take_back(usize::MAX, &which);
            if !jobs.is_empty() {
                out.touch(child);
                back.extend(jobs);
            }
        }
        if !back.is_empty() {
            back.sort_by_key(|job| job.id);
            self.requeue(back);
        }
    }

    /// Takes in all replies.
    pub(super) fn collect(&mut self, out: &mut Outbox) {
        let mut returned = Vec::new();
        for at in 0..self.children.len() {
            let child = &mut self.children[at];
            if child.is_mad {
                continue;
            }
            if child.is_sending() {
                if let Err(garbled) = child.pump() {
                    self.distrust(at, garbled, out);
                    continue;
                }
                self.full = false;
            }
            let child = &mut self.children[at];
            if let Err(garbled) = child.send_exit() {
                self.distrust(at, garbled, out);
                continue;
            }
            if !child.link.has_replies() {
                continue;
            }
            let collected = child.collect(self.limit, &mut returned);
            out.touch(child);
            out.wake_supervisor |= child.has_more;
            if let Err(garbled) = collected {
                self.distrust(at, garbled, out);
            }
            self.full = false;
            self.take_in(&mut returned, out);
        }
    }

    fn take_in(&mut self, returned: &mut Vec<Returned>, out: &mut Outbox) {
        for back in returned.drain(..) {
            match back {
                Returned::Task(job, raw) => {
                    self.completed += 1;
                    out.settle.push((job, raw));
                }
                Returned::Initializer(raw) => match raw.into_body() {
                    Ok(_) => self.stillborn = 0,
                    Err(error) => self.break_down(Cause::new(error), out),
                },
            }
        }
    }

    /// What a worker wrote makes no sense: it is killed, and its tasks fail.
    pub(super) fn distrust(&mut self, at: usize, garbled: Garbled, out: &mut Outbox) {
        let child = &mut self.children[at];
        child.is_mad = true;
        child.kill("it sent something that makes no sense");
        for at in 0..child.inflight.len() {
            if child.has_begun(at) {
                if let Some(job) = child.forget(at) {
                    out.fail(job, TaskError::Protocol(Cause::new(garbled)));
                }
            }
        }
        out.touch(child);
        out.wake_supervisor = true;
        self.full = false;
    }

    /// After replies have come, or workers gone: hands out what is queued, or moves what has been handed out, and lets
    /// those end that should.
    pub(super) fn settle_down(&mut self, out: &mut Outbox) {
        self.full = false;
        self.dispatch(out);
        self.rebalance(out);
        self.dismiss(out);
        self.count_idle_time(out);
    }

    /// Moves tasks from a worker that has too many to one that has none.
    fn rebalance(&mut self, out: &mut Outbox) {
        if self.queued() > 0 {
            return;
        }
        let threads = self.threads;
        let idle = |child: &Child| child.takes_calls() && child.is_idle();
        if !self.children.iter().any(idle) {
            return;
        }
        let now = Instant::now();
        let mut later = false;
        let mut best: Option<(usize, usize)> = None;
        for (at, child) in self.children.iter().enumerate() {
            let (waiting, takes) = child.backlog(threads);
            if waiting == 0 || child.is_sending() {
                continue;
            }
            // Moving a task costs microseconds, so a short backlog is left to its worker; unless that is stuck.
            if takes < REBALANCE && child.oldest(now) < REBALANCE {
                later = true;
            } else if best.is_none_or(|(_, most)| waiting > most) {
                best = Some((at, waiting));
            }
        }
        if let Some((at, waiting)) = best {
            let child = &mut self.children[at];
            let back = child.take_back(waiting.div_ceil(2), |_| true);
            if !back.is_empty() {
                out.touch(child);
                self.requeue(back);
                self.dispatch(out);
            }
        }
        if later {
            self.wake_by(Some(now + REBALANCE), out);
        }
    }

    /// Sees to it that workers which have nothing to do end in time.
    fn count_idle_time(&mut self, out: &mut Outbox) {
        let Some(timeout) = self.idle_timeout else { return };
        let idle = |child: &&Child| child.stage == Stage::Ready && child.is_idle() && !child.retiring;
        let first = self.children.iter().filter(idle).map(|child| later(child.idle_since, timeout)).min();
        self.wake_by(first, out);
    }

    /// Asks workers to end that are not needed any more.
    fn dismiss(&mut self, out: &mut Outbox) {
        // As long as one has more than it can do at a time, another may have to help.
        let over = self.is_over() && self.children.iter().all(|child| child.inflight.len() <= self.threads);
        let stays = |child: &&Child| matches!(child.stage, Stage::Starting(_) | Stage::Ready) && !child.retiring;
        let mut surplus = self.children.iter().filter(stays).count().saturating_sub(self.max_workers);
        for at in 0..self.children.len() {
            let child = &mut self.children[at];
            if !child.is_idle() || !matches!(child.stage, Stage::Starting(_) | Stage::Ready) {
                continue;
            }
            let is_surplus = surplus > 0 && !child.retiring;
            if is_surplus {
                surplus -= 1;
            }
            if over || child.retiring || is_surplus {
                if let Err(garbled) = child.ask_to_end(Instant::now() + ENDING) {
                    self.distrust(at, garbled, out);
                }
                self.wake_by(Some(Instant::now() + ENDING), out);
            }
        }
    }

    /// Sees to it that the supervisor looks at the clock then.
    pub(super) fn wake_by(&mut self, time: Option<Instant>, out: &mut Outbox) {
        let Some(time) = time else { return };
        if self.wake_at.is_none_or(|before| time < before) {
            self.wake_at = Some(time);
            out.wake_supervisor |= self.asleep;
        }
    }

    /// Nothing works any more: everything fails, everybody goes.
    pub(super) fn break_down(&mut self, cause: Cause, out: &mut Outbox) {
        if matches!(self.phase, Phase::Broken(_)) {
            return;
        }
        self.phase = Phase::Broken(cause.clone());
        for queue in &mut self.queues {
            for job in queue.drain(..) {
                out.settle.push((job, Raw::Failed(TaskError::Broken(cause.clone()))));
            }
        }
        for child in &mut self.children {
            for at in 0..child.inflight.len() {
                if let Some(job) = child.forget(at) {
                    out.settle.push((job, Raw::Failed(TaskError::Broken(cause.clone()))));
                }
            }
            child.kill("the executor is broken");
            out.touch(child);
        }
        out.wake_supervisor = true;
    }

    /// Cancels what has not begun.
    pub(super) fn cancel_pending(&mut self, out: &mut Outbox) {
        for queue in &mut self.queues {
            for job in queue.drain(..) {
                out.settle.push((job, Raw::Failed(TaskError::Cancelled)));
            }
        }
        for child in &mut self.children {
            let back = child.take_back(usize::MAX, |_| true);
            if !back.is_empty() {
                out.touch(child);
                out.settle.extend(back.into_iter().map(|job| (job, Raw::Failed(TaskError::Cancelled))));
            }
        }
    }

    /// Is there nothing left to hand out, and never will be?
    pub(super) fn is_over(&self) -> bool {
        match self.phase {
            Phase::Open => false,
            Phase::Draining => self.queued() == 0 && self.holds == 0,
            Phase::Cancelled | Phase::Broken(_) => self.queued() == 0,
        }
    }

    /// Why not even what was submitted is begun, if so.
    pub(super) fn refusal(&self) -> Option<TaskError> {
        match &self.phase {
            _ if self.ended => Some(TaskError::ShutDown),
            Phase::Open | Phase::Draining => None,
            Phase::Cancelled => Some(TaskError::Cancelled),
            Phase::Broken(cause) => Some(TaskError::Broken(cause.clone())),
        }
    }

    /// Why nothing new is taken, if so.
    pub(super) fn closed_because(&self) -> Option<TaskError> {
        match &self.phase {
            Phase::Open => None,
            Phase::Draining | Phase::Cancelled => Some(TaskError::ShutDown),
            Phase::Broken(cause) => Some(TaskError::Broken(cause.clone())),
        }
    }

    /// Ends the worker that runs the task at that place, and only because of that task: it gets nothing more, what it has
    /// not begun is done by others, and if the task has just ended after all, its outcome counts. The task comes back if it
    /// is to be resolved otherwise.
    pub(super) fn stop(
        &mut self,
        at: usize,
        id: u64,
        grace: Duration,
        why: &'static str,
        out: &mut Outbox,
    ) -> Option<JobBox> {
        let child = &mut self.children[at];
        child.retiring = true;
        let back = child.take_back(usize::MAX, |_| true);
        self.requeue(back);
        let mut returned = Vec::new();
        let child = &mut self.children[at];
        let _ = child.collect(self.limit, &mut returned);
        self.take_in(&mut returned, out);
        let child = &mut self.children[at];
        out.touch(child);
        out.wake_supervisor = true;
        let place = child.find(id)?;
        let job = child.forget(place);
        child.terminate(grace, why);
        self.wake_by(Some(later(Instant::now(), grace)), out);
        job
    }
}
