//! Tests of the parent's state, without any process: for random sequences of events, each task is resolved exactly once, begins
//! no more often than it may, and the pool comes to its end.
//!
//! The test acts as the workers. Each has the worker's end of a real link, over shared memory or the socket, so that claiming
//! calls, taking them back and sending replies are real.

use std::collections::HashMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rustix::process::Signal;

use super::child::{Child, EndReason, Launched, WorkerProcess, hand_over_initializer};
use super::config::{Config, Hook};
use super::deferred::Deferred;
use super::job::{Job, JobOptions, PartOfMap, Raw, Sink};
use super::state::State;
use crate::error::{Cause, TaskError};
use crate::executor::Priority;
use crate::os::clock;
use crate::os::pidfd::Ended;
use crate::os::{image, socket};
use crate::process::body::{Body, Element};
use crate::process::call::{Function, Payload};
use crate::process::link::{Calls, INLINE, ParentLink, Replies, Transport, WorkerLink};
use crate::process::stdio::Stdio;
use crate::process::wire::{self, CallKind, PROTOCOL, Ready, Reply, ReplyKind, message};

const GRACE: Duration = Duration::from_millis(10);
const RESTART_LIMIT: u32 = 3;

/// How many random cases each test runs.
const CASES: u32 = 600;

/// The settings that differ between cases.
#[derive(Debug, Clone)]
struct Setting {
    transport: Transport,
    max_workers: usize,
    threads: usize,
    max_tasks: Option<u64>,
    idle_timeout: Option<Duration>,
    initializer: bool,
}

impl Setting {
    fn config(&self) -> Config {
        let initializer =
            self.initializer.then(|| Hook { function: Function::of_task(|()| ()).unwrap(), argument: Payload::EMPTY });
        Config {
            name: "model".to_owned(),
            threads: self.threads,
            stack_size: None,
            max_tasks: self.max_tasks,
            max_rss: None,
            memory_limit: None,
            cpu_limit: None,
            max_payload: 1 << 20,
            max_nesting: 8,
            env: Vec::new(),
            current_dir: None,
            stdio: Stdio::Inherit,
            idle_timeout: self.idle_timeout,
            start_timeout: Duration::from_secs(5),
            restart_limit: RESTART_LIMIT,
            kill_grace: GRACE,
            worker_command: None,
            initializer,
            transport: self.transport,
        }
    }
}

/// An event. A number stands for a worker or a task, and is taken modulo their number.
#[derive(Debug, Clone)]
enum Event {
    Submit {
        retries: u32,
        limit: Option<Duration>,
        hangs: bool,
        priority: Priority,
        long: bool,
    },
    Cancel(usize),
    Withdraw(usize),
    Resize(usize),
    /// A worker is started, if the pool wants one.
    Start,
    RefuseStart,
    Ready(usize),
    /// The worker begins the next call, if there is one.
    Begin(usize),
    /// The worker answers the oldest call that it has begun.
    Answer {
        worker: usize,
        retire: bool,
    },
    /// The worker's process ends by itself, without a signal.
    Die {
        worker: usize,
        code: i32,
    },
    /// The worker obeys the signal that it was sent.
    Obey(usize),
    CloseSocket(usize),
    /// The worker sends a message of an unknown kind.
    Babble(usize),
    /// One iteration of the supervisor's loop.
    Round,
    Pass(Duration),
    Close {
        cancel: bool,
    },
    EndWorkers {
        at_once: bool,
    },
    Break,
}

fn event() -> impl Strategy<Value = Event> {
    let limit = prop_oneof![4 => Just(None), 1 => (1u64..30).prop_map(|ms| Some(Duration::from_millis(ms)))];
    let priority = prop_oneof![1 => Just(Priority::Low), 6 => Just(Priority::Normal), 1 => Just(Priority::High)];
    let submit = (0u32..3, limit, any::<bool>(), priority, prop::bool::weighted(0.1)).prop_map(
        |(retries, limit, hangs, priority, long)| {
            let hangs = hangs && limit.is_some();
            Event::Submit { retries, limit, hangs, priority, long }
        },
    );
    prop_oneof![
        12 => submit,
        3 => any::<usize>().prop_map(Event::Cancel),
        1 => any::<usize>().prop_map(Event::Withdraw),
        1 => (1usize..4).prop_map(Event::Resize),
        8 => Just(Event::Start),
        1 => Just(Event::RefuseStart),
        8 => any::<usize>().prop_map(Event::Ready),
        16 => any::<usize>().prop_map(Event::Begin),
        12 => (any::<usize>(), prop::bool::weighted(0.05)).prop_map(|(worker, retire)| Event::Answer { worker, retire }),
        3 => (any::<usize>(), 0..3).prop_map(|(worker, code)| Event::Die { worker, code }),
        3 => any::<usize>().prop_map(Event::Obey),
        1 => any::<usize>().prop_map(Event::CloseSocket),
        2 => any::<usize>().prop_map(Event::Babble),
        20 => Just(Event::Round),
        6 => (0u64..40).prop_map(|ms| Event::Pass(Duration::from_millis(ms))),
        1 => any::<bool>().prop_map(|cancel| Event::Close { cancel }),
        1 => any::<bool>().prop_map(|at_once| Event::EndWorkers { at_once }),
    ]
}

fn setting() -> impl Strategy<Value = Setting> {
    let transport = prop_oneof![Just(Transport::SharedMemory), Just(Transport::Socket)];
    let max_tasks = prop_oneof![3 => Just(None), 1 => (1u64..4).prop_map(Some)];
    let idle_timeout = prop_oneof![3 => Just(None), 1 => Just(Some(Duration::from_millis(20)))];
    (transport, 1usize..4, 1usize..3, max_tasks, idle_timeout, any::<bool>()).prop_map(
        |(transport, max_workers, threads, max_tasks, idle_timeout, initializer)| Setting {
            transport,
            max_workers,
            threads,
            max_tasks,
            idle_timeout,
            initializer,
        },
    )
}

/// How a task ended, in the categories that the checks need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    Died,
    TimedOut,
    Cancelled,
    /// The pool was closed or broken, or no worker could be started.
    Refused,
    Violated,
}

impl Outcome {
    fn of(raw: &Raw) -> Self {
        match raw {
            Raw::Reply { .. } => Self::Done,
            Raw::Lost(..) | Raw::Failed(TaskError::WorkerDied(_)) => Self::Died,
            Raw::Failed(TaskError::TimedOut) => Self::TimedOut,
            Raw::Failed(TaskError::Cancelled) => Self::Cancelled,
            Raw::Failed(TaskError::ShutDown | TaskError::Broken(_) | TaskError::Spawn(_)) => Self::Refused,
            Raw::Failed(TaskError::Protocol(_)) => Self::Violated,
            Raw::Failed(error) => panic!("no task of the model ends with {error:?}"),
        }
    }
}

/// What is known of a task.
#[derive(Debug, Clone)]
struct Entry {
    retries: u32,
    limit: Option<Duration>,
    /// It never ends by itself.
    hangs: bool,
    /// It cannot be taken back from a worker, so it counts as begun when it is handed over.
    sealed: bool,
    begun: u32,
    outcomes: Vec<Outcome>,
    cancelled: Arc<AtomicBool>,
}

type Ledger = Arc<Mutex<HashMap<u64, Entry>>>;

/// A worker begins that task.
fn begins(ledger: &Ledger, id: u64) {
    let mut ledger = ledger.lock().unwrap();
    let entry = ledger.get_mut(&id).unwrap();
    assert!(entry.outcomes.is_empty() || entry.sealed, "{id} begins, and was resolved: {entry:?}");
    entry.begun += u32::from(entry.outcomes.is_empty());
}

/// Enters the outcome of a task into the ledger.
struct Entered {
    id: u64,
    ledger: Ledger,
    cancelled: Arc<AtomicBool>,
}

impl PartOfMap for Entered {
    fn is_cancelled(&self) -> bool {
        self.cancelled.load(SeqCst)
    }

    fn settle(self: Box<Self>, raw: Raw, _: Payload) {
        self.ledger.lock().unwrap().get_mut(&self.id).unwrap().outcomes.push(Outcome::of(&raw));
    }
}

/// The state of a process that exists only in the test.
#[derive(Debug, Default)]
struct Fate {
    /// The last signal other than SIGCONT; SIGKILL stays.
    signal: Option<Signal>,
    ended: Option<Ended>,
}

struct NoProcess {
    id: u32,
    fate: Arc<Mutex<Fate>>,
}

impl WorkerProcess for NoProcess {
    fn id(&self) -> u32 {
        self.id
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn try_reap(&mut self) -> Option<Ended> {
        self.fate.lock().unwrap().ended
    }

    fn is_traced_and_stopped(&mut self) -> bool {
        false
    }

    fn is_ending(&self) -> bool {
        self.fate.lock().unwrap().ended.is_some()
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        let mut fate = self.fate.lock().unwrap();
        if signal != Signal::CONT && fate.signal != Some(Signal::KILL) {
            fate.signal = Some(signal);
        }
        Ok(())
    }
}

/// The worker's side, which the test controls.
struct Worker {
    serial: u64,
    /// `None` when the process has ended.
    ends: Option<(WorkerLink, Calls, Replies)>,
    /// The control socket. Shutting it down simulates that the worker has closed it.
    socket: OwnedFd,
    fate: Arc<Mutex<Fate>>,
    is_ready: bool,
    has_initializer: bool,
    /// The ids of the calls that it has begun, oldest first; 0 is the initializer.
    at: Vec<u64>,
}

struct Pool {
    setting: Setting,
    state: State,
    now: Instant,
    ledger: Ledger,
    workers: Vec<Worker>,
    serial: u64,
    ids: u64,
    /// The pool was closed or its workers were ended, so tasks may be cancelled or refused.
    was_closed: bool,
    may_refuse: bool,
}

impl Pool {
    fn new(setting: &Setting) -> Self {
        let config = Arc::new(setting.config());
        let mut state = State::new(setting.max_workers, &config);
        state.lifecycle.supervised();
        Self {
            setting: setting.clone(),
            state,
            now: Instant::now(),
            ledger: Ledger::default(),
            workers: Vec::new(),
            serial: 0,
            ids: 0,
            was_closed: false,
            may_refuse: false,
        }
    }

    /// Changes the state, and resolves the tasks that this ended.
    fn change<R>(&mut self, f: impl FnOnce(&mut State, &mut Deferred) -> R) -> R {
        let mut deferred = Deferred::at(self.now);
        let result = f(&mut self.state, &mut deferred);
        for (job, raw) in deferred.settle {
            let Job { sink, argument, .. } = *job;
            assert!(sink.settle(raw, argument).is_none());
        }
        result
    }

    fn worker(&mut self, number: usize) -> Option<&mut Worker> {
        let count = self.workers.len();
        (count > 0).then(|| &mut self.workers[number % count])
    }

    fn task(&self, number: usize) -> Option<u64> {
        (self.ids > 0).then(|| 1 + number as u64 % self.ids)
    }

    fn happen(&mut self, event: &Event) {
        match *event {
            Event::Submit { retries, limit, hangs, priority, long } => {
                self.submit(retries, limit, hangs, priority, long);
            }
            Event::Cancel(number) => {
                let Some(id) = self.task(number) else { return };
                self.ledger.lock().unwrap()[&id].cancelled.store(true, SeqCst);
                self.change(|state, deferred| state.cancel(id, deferred));
            }
            Event::Withdraw(number) => {
                let Some(id) = self.task(number) else { return };
                self.ledger.lock().unwrap()[&id].cancelled.store(true, SeqCst);
                self.change(|state, deferred| state.withdraw(&[id].into(), deferred));
            }
            Event::Resize(workers) => self.change(|state, deferred| state.resize(workers, deferred)),
            Event::Start => self.start(),
            Event::RefuseStart => {
                let now = self.now;
                if self.state.wants_worker(&Deferred::at(now)) {
                    self.may_refuse = true;
                    self.state.restarts.begin();
                    let error = io::ErrorKind::OutOfMemory.into();
                    self.change(|state, deferred| state.on_start_refused(error, deferred));
                }
            }
            Event::Ready(number) => {
                let Some(worker) = self.worker(number) else { return };
                worker.is_ready |= worker.say_ready();
            }
            Event::Begin(number) => {
                let (ledger, threads) = (Arc::clone(&self.ledger), self.setting.threads);
                let Some(worker) = self.worker(number) else { return };
                worker.begin(threads, |id| begins(&ledger, id));
            }
            Event::Answer { worker, retire } => {
                let ledger = Arc::clone(&self.ledger);
                let Some(worker) = self.worker(worker) else { return };
                worker.answer(retire, |id| ledger.lock().unwrap().get(&id).is_some_and(|entry| entry.hangs));
            }
            Event::Die { worker, code } => {
                let Some(worker) = self.worker(worker) else { return };
                worker.end(code << 8);
                self.may_refuse = true;
            }
            Event::Obey(number) => {
                let Some(worker) = self.worker(number) else { return };
                let signal = worker.fate.lock().unwrap().signal;
                // Some workers ignore SIGTERM, and some cannot be killed.
                let obeys = |signal: &Signal| match worker.serial % 5 {
                    3 => false,
                    4 => *signal == Signal::KILL,
                    _ => true,
                };
                if let Some(signal) = signal.filter(obeys) {
                    worker.end(signal.as_raw());
                }
            }
            Event::CloseSocket(number) => {
                let Some(worker) = self.worker(number) else { return };
                let _ = rustix::net::shutdown(&worker.socket, rustix::net::Shutdown::Both);
                self.may_refuse = true;
            }
            Event::Babble(number) => {
                let Some(worker) = self.worker(number) else { return };
                if let Some((link, ..)) = &worker.ends {
                    let _ = link.send_message(&[99, 1, 2]);
                }
                self.may_refuse = true;
            }
            Event::Round => self.round(),
            Event::Pass(time) => self.now += time,
            Event::Close { cancel } => {
                self.was_closed = true;
                self.change(|state, deferred| state.close(cancel, deferred));
            }
            Event::EndWorkers { at_once } => {
                self.was_closed = true;
                let grace = if at_once { Duration::ZERO } else { GRACE };
                self.change(|state, deferred| state.end_workers(grace, EndReason::WorkersKilled, deferred));
            }
            Event::Break => {
                self.may_refuse = true;
                self.change(|state, deferred| state.break_down(Cause::new("on purpose"), deferred));
            }
        }
    }

    fn submit(&mut self, retries: u32, limit: Option<Duration>, hangs: bool, priority: Priority, long: bool) {
        self.ids += 1;
        let id = self.ids;
        let cancelled = Arc::new(AtomicBool::new(false));
        let long = long && self.setting.transport == Transport::SharedMemory;
        let sealed = long || self.setting.transport == Transport::Socket;
        let outcomes = Vec::new();
        let entry = Entry { retries, limit, hangs, sealed, begun: 0, outcomes, cancelled: Arc::clone(&cancelled) };
        self.ledger.lock().unwrap().insert(id, entry);
        let sink = Sink::Part(Box::new(Entered { id, ledger: Arc::clone(&self.ledger), cancelled }));
        let argument = crate::process::call::encode(vec![7u8; if long { 66_000 } else { 0 }], 8).ok().unwrap();
        let options = Some(Box::new(JobOptions { timeout: limit, retries, ..JobOptions::default() }));
        let function = Function::of_task(|()| ()).unwrap();
        let job = Job { id, function, argument, element: Element::BYTE, sink, priority, options, attempts: 0 };
        self.change(|state, deferred| match state.lifecycle.closed_because() {
            Some(reason) => deferred.fail(Box::new(job), reason),
            None => state.submit(Box::new(job), deferred),
        });
    }

    /// Starts a worker as the supervisor does, if one is wanted.
    fn start(&mut self) {
        if !self.state.wants_worker(&Deferred::at(self.now)) {
            return;
        }
        self.state.restarts.begin();
        self.serial += 1;
        let (serial, threads) = (self.serial, self.setting.threads);
        let (ours, theirs) = socket::pair().unwrap();
        let (mut link, memory) = ParentLink::new(ours, self.setting.transport, threads).unwrap();
        let socket = theirs.try_clone().unwrap();
        let theirs = WorkerLink::new(theirs, memory, link.ring() as u64, threads as u32).unwrap();
        let (calls, replies) = theirs.ends();
        let fate = Arc::new(Mutex::new(Fate::default()));
        let process = Box::new(NoProcess { id: serial as u32, fate: Arc::clone(&fate) });
        let hook = self.state.config.initializer.as_ref();
        let hook = hook.map(|hook| hand_over_initializer(&mut link, hook).unwrap());
        let launched = Launched {
            serial,
            process,
            link,
            initializer: hook,
            max_tasks: self.setting.max_tasks,
            deadline: self.now + Duration::from_secs(5),
            output: None,
            oom_kills: 0,
        };
        self.change(|state, deferred| {
            state.on_started(Child::new(launched), deferred);
            state.settle_down(deferred);
        });
        let has_initializer = self.setting.initializer;
        let ends = Some((theirs, calls, replies));
        self.workers.push(Worker { serial, ends, socket, fate, is_ready: false, has_initializer, at: Vec::new() });
    }

    fn round(&mut self) {
        let gone: Vec<u64> = self.change(|state, deferred| {
            for at in 0..state.children.len() {
                state.read_messages(at, deferred);
            }
            state.collect(deferred);
            let mut gone = Vec::new();
            let mut at = 0;
            while at < state.children.len() {
                let ended = state.children[at].process.try_reap();
                if ended.is_some() || state.children[at].life().is_unkillable(deferred.now) {
                    gone.push(state.on_exit(at, ended.flatten(), deferred).serial);
                } else {
                    at += 1;
                }
            }
            state.run_timers(deferred);
            state.settle_down(deferred);
            gone
        });
        let (gone, left) =
            std::mem::take(&mut self.workers).into_iter().partition(|worker| gone.contains(&worker.serial));
        self.workers = left;
        let gone: Vec<Worker> = gone;
        for mut worker in gone {
            // The process of a worker that cannot be killed still exists, and goes on.
            let ledger = Arc::clone(&self.ledger);
            for _ in 0..5 {
                worker.at.clear();
                worker.begin(1, |id| begins(&ledger, id));
            }
        }
    }

    /// Closes the pool, and lets workers start, work and obey signals and time pass, until no task and no worker is left.
    fn come_to_an_end(&mut self) {
        self.happen(&Event::Close { cancel: false });
        for _ in 0..2000 {
            let open = self.ledger.lock().unwrap().values().any(|entry| entry.outcomes.is_empty());
            if !open && self.state.children.is_empty() {
                assert!(self.state.is_over());
                return;
            }
            self.happen(&Event::Start);
            for worker in 0..self.workers.len() {
                for event in [
                    Event::Obey(worker),
                    Event::Ready(worker),
                    Event::Begin(worker),
                    Event::Answer { worker, retire: false },
                ] {
                    self.happen(&event);
                }
            }
            self.happen(&Event::Pass(Duration::from_millis(7)));
            self.round();
        }
        let left: Vec<_> = self.workers.iter().map(|worker| (worker.serial, worker.is_ready, &worker.at)).collect();
        panic!("it does not come to its end; workers: {left:?}, ledger: {:?}", self.ledger.lock().unwrap());
    }

    /// Checks each task after the pool has ended.
    fn check(&self) {
        for (id, entry) in &*self.ledger.lock().unwrap() {
            let [outcome] = entry.outcomes[..] else { panic!("{id} is not resolved exactly once: {entry:?}") };
            assert!(entry.begun <= 1 + entry.retries, "{id} has begun too often: {entry:?}");
            // Without shared memory, what was handed to a worker counts as begun.
            let begun = entry.begun > 0 || self.setting.transport == Transport::Socket;
            let is_right = match outcome {
                Outcome::Done => entry.begun > 0,
                Outcome::Died | Outcome::Violated => begun,
                Outcome::TimedOut => begun && entry.limit.is_some(),
                Outcome::Cancelled => entry.cancelled.load(SeqCst) || self.was_closed,
                Outcome::Refused => self.was_closed || self.may_refuse,
            };
            assert!(is_right, "{id} must not end so: {entry:?}");
        }
    }
}

impl Worker {
    fn end(&mut self, status: i32) {
        self.fate.lock().unwrap().ended.get_or_insert(Some(ExitStatus::from_raw(status)));
        self.ends = None;
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
    }

    fn say_ready(&self) -> bool {
        let build = image::executable().build_id().0;
        let ready = wire::encode(message::READY, &Ready { protocol: PROTOCOL, build, refusal: None });
        let link = self.ends.as_ref().filter(|_| !self.is_ready);
        link.is_some_and(|(link, ..)| link.send_message(&ready).is_ok())
    }

    fn begin(&mut self, threads: usize, begins: impl FnOnce(u64)) {
        // No task begins before the initializer has ended.
        let room = if self.has_initializer { 1 } else { threads };
        let Some((link, calls, _)) = &mut self.ends else { return };
        if !self.is_ready || self.at.len() >= room {
            return;
        }
        match calls.is_ready() {
            Ok(true) => {}
            Ok(false) => return,
            // The control socket is closed.
            Err(_) => return self.end(70 << 8),
        }
        let Ok(Some(call)) = calls.begin(clock::now(), self.at.len()) else { return };
        match call.kind {
            CallKind::Exit => return self.end(0),
            CallKind::Initializer => {}
            CallKind::Task => {
                begins(call.id);
                if call.len <= INLINE {
                    calls.with_body(call.len, |_| ()).unwrap();
                } else {
                    let mut body = Body::with_capacity(Element::BYTE, call.len).unwrap();
                    calls.read_body(&mut body, call.len, || link.bell()).unwrap();
                }
            }
        }
        self.at.push(call.id);
    }

    fn answer(&mut self, retire: bool, hangs: impl Fn(u64) -> bool) {
        let Some((link, _, replies)) = &mut self.ends else { return };
        let Some(first) = self.at.iter().position(|id| !hangs(*id)) else { return };
        let id = self.at.remove(first);
        self.has_initializer &= id != 0;
        let took = Duration::from_micros(100);
        let reply = Reply { kind: ReplyKind::Value, retire: retire && id != 0, id, len: 0, took, attachments: 0 };
        if replies.send(reply, &[], || link.bell()).is_err() {
            self.end(70 << 8);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::with_cases(CASES) })]

    #[test]
    fn every_task_is_resolved_once_whatever_happens(setting in setting(), events in prop::collection::vec(event(), 0..120)) {
        let mut pool = Pool::new(&setting);
        events.iter().for_each(|event| pool.happen(event));
        pool.come_to_an_end();
        pool.check();
    }

    #[test]
    fn a_pool_that_breaks_resolves_every_task(setting in setting(), before in prop::collection::vec(event(), 0..60), after in prop::collection::vec(event(), 0..20)) {
        let mut pool = Pool::new(&setting);
        before.iter().chain([&Event::Break]).chain(&after).for_each(|event| pool.happen(event));
        pool.come_to_an_end();
        pool.check();
    }
}
