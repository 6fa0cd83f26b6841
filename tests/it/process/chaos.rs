//! Workers are killed, stopped and continued at random under load, and at last the pool is shut down while there is work. Then
//! a ledger is checked: every task is resolved exactly once, none has begun more often than it may, and none has failed but for
//! a reason that it had.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use concurrent_futures::{
    ProcessPoolBuilder, ProcessPoolExecutor, Shutdown, Stdio, TaskError, TaskFuture, as_completed, block_on,
};
use parking_lot::Mutex;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use serde::{Deserialize, Serialize};

use super::support::*;
use crate::support::{LIMIT, guarded, watchdog};

/// What happens while there is work.
#[derive(Debug, Clone, Copy)]
struct Weather {
    time: Duration,
    /// Workers are stopped and continued.
    stops: bool,
    /// There are tasks of all kinds, and not only quick ones.
    mixed: bool,
    /// The pool is resized, and the process runs out of descriptors. Only for a process of its own.
    strains: bool,
    end: End,
}

/// How the pool is shut down, while tasks are submitted and workers are killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Wait,
    CancelPending,
    Within,
    Kill,
}

impl End {
    const ALL: [Self; 4] = [Self::Wait, Self::CancelPending, Self::Within, Self::Kill];

    fn bring(self, pool: &ProcessPoolExecutor) {
        match self {
            Self::Wait => pool.shutdown(Shutdown::Wait).unwrap(),
            Self::CancelPending => pool.shutdown(Shutdown::CancelPending).unwrap(),
            // Whether that is enough is for the machine to say.
            Self::Within => drop(pool.shutdown(Shutdown::Within(Duration::from_millis(5)))),
            Self::Kill => {
                pool.kill_workers();
                pool.shutdown(Shutdown::Wait).unwrap();
            }
        }
    }
}

const USUAL: Weather =
    Weather { time: Duration::from_millis(1500), stops: false, mixed: false, strains: false, end: End::Wait };

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    Quick,
    Panics,
    /// Kills its worker in the middle of it: then it is known which tasks that worker had begun.
    Kills,
    /// Has an argument and a result of so many bytes.
    Long(usize),
    /// Is over its time.
    Late,
    /// Is cancelled soon after it was submitted.
    Cancelled,
}

impl Kind {
    fn any(weather: Weather) -> Self {
        match fastrand::u32(0..100) {
            0..2 => Self::Kills,
            2..6 if weather.mixed => Self::Panics,
            6..9 if weather.mixed => Self::Long(fastrand::usize(0..3 << 20)),
            9 if weather.mixed => Self::Late,
            10..13 if weather.mixed => Self::Cancelled,
            _ => Self::Quick,
        }
    }
}

/// A task as its submitter knows it.
#[derive(Debug, Clone, Copy)]
struct Task {
    n: u64,
    kind: Kind,
    retries: u32,
}

/// How a task has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Done,
    Died { pid: u32, attempts: u32, signal: Option<&'static str> },
    Panicked(String),
    TimedOut,
    Cancelled,
    Spawn,
    ShutDown,
    Other(String),
}

impl Outcome {
    fn of<T>(result: Result<T, &TaskError>) -> Self {
        match result {
            Ok(_) => Self::Done,
            Err(TaskError::WorkerDied(exit)) => {
                Self::Died { pid: exit.pid(), attempts: exit.attempts(), signal: exit.signal_name() }
            }
            Err(TaskError::Panicked(panic)) => Self::Panicked(panic.message().to_owned()),
            Err(TaskError::TimedOut) => Self::TimedOut,
            Err(TaskError::Cancelled) => Self::Cancelled,
            Err(TaskError::Spawn(_)) => Self::Spawn,
            Err(TaskError::ShutDown) => Self::ShutDown,
            Err(other) => Self::Other(format!("{other:?}")),
        }
    }
}

/// What is written down of all tasks.
#[derive(Default)]
struct History {
    submitted: Vec<Task>,
    /// How each was resolved, as its callback was told: once.
    resolved: Vec<(u64, Outcome)>,
    /// How each was resolved, as whoever waited for it was told. Those that nobody waits for are not there.
    received: HashMap<u64, Outcome>,
    /// In which processes each has begun and has come to the end of its function, as the workers say.
    begun: HashMap<u64, Vec<u32>>,
    ended: HashSet<(u64, u32)>,
}

/// What a worker writes down. It is written when the worker has claimed the task and has decoded its argument: between these
/// two it may be killed.
fn task((ledger, n, kind, body): (Ledger, u64, Kind, Vec<u8>)) -> (u64, Vec<u8>) {
    let pid = std::process::id();
    ledger.write(format_args!("begun {n} {pid}"));
    if kind == Kind::Late {
        thread::sleep(Duration::from_secs(3600));
    }
    // Some take a while, none is the same as the next.
    let end = Instant::now() + Duration::from_micros(n * 37 % 500);
    while Instant::now() < end {
        std::hint::spin_loop();
    }
    if kind == Kind::Kills {
        poke(pid, Signal::KILL);
        // One of the other threads may be the first to end.
        loop {
            thread::park();
        }
    }
    ledger.write(format_args!("ended {n} {pid}"));
    if kind == Kind::Panics {
        panic!("as it is meant to");
    }
    (n, body)
}

impl History {
    fn read(&mut self, ledger: &Ledger) {
        for line in ledger.lines() {
            let mut words = line.split(' ');
            let (what, n, pid) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            let (n, pid) = (n.parse().unwrap(), pid.parse().unwrap());
            match what {
                "begun" => self.begun.entry(n).or_default().push(pid),
                _ => drop(self.ended.insert((n, pid))),
            }
        }
    }

    /// What is wrong with it, one line for each task or worker.
    fn faults(&self, threads: usize, weather: Weather) -> Vec<String> {
        let mut faults = Vec::new();
        let tasks: HashMap<u64, Task> = self.submitted.iter().map(|task| (task.n, *task)).collect();
        let mut outcomes: HashMap<u64, Vec<&Outcome>> = HashMap::new();
        self.resolved.iter().for_each(|(n, outcome)| outcomes.entry(*n).or_default().push(outcome));
        let none = Vec::new();
        // Which tasks each dead worker was in the middle of, and which it died with before it said so.
        let (mut occupied, mut silent): (HashMap<u32, HashSet<u64>>, HashMap<u32, Vec<u64>>) = Default::default();
        for (n, pids) in &self.begun {
            for pid in pids.iter().filter(|pid| !self.ended.contains(&(*n, **pid))) {
                occupied.entry(*pid).or_default().insert(*n);
            }
            if !tasks.contains_key(n) {
                faults.push(format!("{n} has begun, and was not submitted"));
            }
        }
        for task in tasks.values() {
            let begun = self.begun.get(&task.n).unwrap_or(&none);
            let mut fault = |what: &str| faults.push(format!("{task:?}, begun in {begun:?}: {what}"));
            if begun.len() > 1 + task.retries as usize {
                fault("begun more often than it may");
            }
            let outcome = match outcomes.get(&task.n).map(Vec::as_slice) {
                Some([outcome]) => *outcome,
                other => {
                    fault(&format!("not resolved exactly once: {other:?}"));
                    continue;
                }
            };
            if self.received.get(&task.n).is_some_and(|received| received != outcome) {
                fault(&format!("its callback was told {outcome:?}, whoever waited {:?}", self.received[&task.n]));
            }
            // After a shutdown that does not wait nothing is tried again.
            let cut_short = weather.end != End::Wait;
            let may_end_so = match outcome {
                Outcome::Done => !begun.is_empty() && !matches!(task.kind, Kind::Panics | Kind::Late | Kind::Kills),
                Outcome::Died { pid, attempts, signal } => {
                    match begun.contains(pid) {
                        true => drop(occupied.entry(*pid).or_default().insert(task.n)),
                        false => silent.entry(*pid).or_default().push(task.n),
                    }
                    let all = 1 + task.retries;
                    let used = *attempts == all || cut_short && (1..all).contains(attempts);
                    // Others on its worker are late, or cancelled.
                    let ended = weather.mixed || weather.end == End::Within;
                    used && begun.len() <= *attempts as usize
                        && (*signal == Some("SIGKILL") || ended && *signal == Some("SIGTERM"))
                }
                Outcome::Panicked(message) => task.kind == Kind::Panics && message == "as it is meant to",
                Outcome::TimedOut => task.kind == Kind::Late,
                Outcome::Cancelled => task.kind == Kind::Cancelled || weather.end != End::Wait,
                Outcome::Spawn => weather.strains,
                // Submitted too late, and so it never begins.
                Outcome::ShutDown => begun.is_empty(),
                Outcome::Other(_) => false,
            };
            if !may_end_so {
                fault(&format!("it must not end with {outcome:?}"));
            }
        }
        // A worker runs so many at a time. Whatever else it had been handed had not begun, and goes to another.
        for (pid, silent) in silent {
            let occupied = occupied.get(&pid).map_or(0, HashSet::len);
            if occupied + silent.len() > threads {
                faults.push(format!(
                    "{silent:?} have died with {pid}, which was busy with {occupied} others of {threads}"
                ));
            }
        }
        faults
    }
}

/// What all that submit share.
struct Site {
    pool: ProcessPoolExecutor,
    weather: Weather,
    ledger: Ledger,
    ids: AtomicU64,
    over: AtomicBool,
    history: Mutex<History>,
}

type Future = TaskFuture<(u64, Vec<u8>)>;

impl Site {
    fn submit(self: &Arc<Self>) -> (Task, Future) {
        let n = self.ids.fetch_add(1, SeqCst);
        let kind = Kind::any(self.weather);
        let task = Task { n, kind, retries: fastrand::choice([0, 0, 0, 1, 2]).unwrap() };
        self.history.lock().submitted.push(task);
        let body = match kind {
            Kind::Long(length) => vec![n as u8; length],
            _ => Vec::new(),
        };
        let built = self.pool.task(self::task, (self.ledger.clone(), n, kind, body)).retries(task.retries);
        let future = match kind {
            Kind::Late => built.timeout(Duration::from_millis(3)).submit(),
            _ => built.submit(),
        };
        let site = Arc::clone(self);
        future.add_done_callback(move |result| {
            let outcome = Outcome::of(result);
            // Now and then one leads to the next, which nobody waits for.
            if n % 64 == 0 && outcome != Outcome::ShutDown {
                site.submit().1.detach();
            }
            site.history.lock().resolved.push((n, outcome));
        });
        (task, future)
    }

    fn receive(&self, task: Task, result: Result<(u64, Vec<u8>), TaskError>) {
        if let Ok((value, body)) = &result {
            let expected = if let Kind::Long(length) = task.kind { length } else { 0 };
            assert!(*value == task.n && body.len() == expected && body.iter().all(|byte| *byte == task.n as u8));
        }
        let outcome = Outcome::of(result.as_ref());
        let twice = self.history.lock().received.insert(task.n, outcome);
        assert!(twice.is_none(), "{task:?} is resolved a second time, first with {twice:?}");
    }

    /// Submits some at a time, and waits for them in one way or another.
    fn work(self: &Arc<Self>) {
        while !self.over.load(SeqCst) {
            let batch: Vec<_> = (0..50).map(|_| self.submit()).collect();
            for (task, future) in &batch {
                if task.kind == Kind::Cancelled {
                    future.cancel();
                }
            }
            match fastrand::u32(0..4) {
                0 => batch.into_iter().for_each(|(task, future)| self.receive(task, future.result())),
                1 => block_on(async {
                    for (task, future) in batch {
                        self.receive(task, future.await);
                    }
                }),
                2 => {
                    let tasks: HashMap<_, _> = batch.iter().map(|(task, future)| (future.id(), *task)).collect();
                    for future in as_completed(batch.into_iter().map(|(_, future)| future)) {
                        self.receive(tasks[&future.id()], future.result());
                    }
                }
                _ => {
                    // Some are dropped without a word; the last is waited for, or there would be no end to them.
                    let (task, last) = batch.into_iter().next_back().unwrap();
                    self.receive(task, last.result());
                }
            }
        }
    }

    /// Something happens; true if a worker was killed.
    fn strike(&self) -> bool {
        let Weather { stops, strains, .. } = self.weather;
        let Some(pid) = fastrand::choice(self.pool.worker_pids()) else { return false };
        match fastrand::u8(0..8) {
            0 | 1 if stops => poke(pid, Signal::STOP),
            2 | 3 if stops => self.soothe(),
            4 if strains => self.pool.resize(fastrand::usize(1..6)).unwrap(),
            5 if strains => exhaust(),
            _ => {
                poke(pid, Signal::KILL);
                return true;
            }
        }
        false
    }

    /// What is stopped goes on.
    fn soothe(&self) {
        self.pool.worker_pids().into_iter().for_each(|pid| poke(pid, Signal::CONT));
    }
}

/// May fail: the worker may be gone.
fn poke(pid: u32, signal: Signal) {
    let _ = kill_process(Pid::from_raw(pid as i32).unwrap(), signal);
}

/// For a moment there are no descriptors for anything new.
fn exhaust() {
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(3), maximum: before.maximum }).unwrap();
    thread::sleep(Duration::from_millis(20));
    setrlimit(Resource::Nofile, before).unwrap();
}

fn pause() {
    thread::sleep(Duration::from_micros(fastrand::u64(500..25_000)));
}

/// How many tasks there were, and how often a worker was killed.
fn storm(builder: ProcessPoolBuilder, threads: usize, weather: Weather) -> (usize, usize) {
    let folder = Folder::new();
    let builder = builder.stdio(Stdio::Null).restart_limit(u32::MAX).kill_grace(Duration::from_millis(20));
    let site = Arc::new(Site {
        pool: builder.threads_per_worker(threads).build().unwrap(),
        weather,
        ledger: folder.ledger("ledger"),
        ids: AtomicU64::new(0),
        over: AtomicBool::new(false),
        history: Mutex::default(),
    });
    let doing = |work: fn(&Arc<Site>)| {
        let site = Arc::clone(&site);
        thread::spawn(move || work(&site))
    };
    let submitters = [doing(Site::work), doing(Site::work)];
    let (start, mut kills) = (Instant::now(), 0);
    // A busy machine may get to less.
    while start.elapsed() < weather.time || kills <= 10 {
        pause();
        kills += usize::from(site.strike());
    }
    // From here on none is stopped for long.
    let nurse = doing(|site| {
        while !site.over.load(SeqCst) || !site.pool.worker_pids().is_empty() {
            site.soothe();
            thread::sleep(Duration::from_millis(1));
        }
    });
    assert_eq!(site.pool.submit(|n: u32| n, 7).result().unwrap(), 7, "the pool has survived");
    let end = doing(|site| site.weather.end.bring(&site.pool));
    for _ in 0..10 {
        kills += usize::from(site.strike());
        pause();
    }
    site.over.store(true, SeqCst);
    for thread in submitters.into_iter().chain([end, nurse]) {
        thread.join().unwrap();
    }
    assert_eq!(site.pool.worker_pids(), []);
    let mut history = std::mem::take(&mut *site.history.lock());
    history.read(&site.ledger);
    assert_eq!(history.submitted.len() as u64, site.ids.load(SeqCst));
    let faults = history.faults(threads, weather);
    assert!(faults.is_empty(), "{} faults, {:#?} ...", faults.len(), &faults[..faults.len().min(20)]);
    (history.submitted.len(), kills)
}

#[test]
fn killed_at_random() {
    guarded(|| storm(ProcessPoolExecutor::builder().max_workers(3), 1, USUAL));
}

#[test]
fn killed_stopped_and_continued_at_random() {
    let weather = Weather { stops: true, end: End::CancelPending, ..USUAL };
    guarded(move || storm(ProcessPoolExecutor::builder().max_workers(4), 1, weather));
}

#[test]
fn killed_at_random_with_threads() {
    guarded(|| storm(ProcessPoolExecutor::builder().max_workers(2), 3, Weather { end: End::Within, ..USUAL }));
}

#[test]
fn killed_at_random_while_all_are_replaced_all_the_time() {
    guarded(|| {
        let builder = ProcessPoolExecutor::builder().max_workers(3).max_tasks_per_child(20);
        storm(builder.idle_timeout(Duration::from_millis(2)), 1, Weather { end: End::Kill, ..USUAL });
    });
}

#[test]
fn everything_at_once() {
    alone("chaos::everything_at_once", || {
        let end = fastrand::choice(End::ALL).unwrap();
        let weather = Weather { stops: true, mixed: true, strains: true, end, ..USUAL };
        storm(ProcessPoolExecutor::builder().max_workers(3), 1, weather);
    });
}

/// For so many seconds, in pools of all sorts, one after the other. Each gives back all that it took.
#[test]
#[ignore = "takes minutes, and the process for itself: ci/soak.sh"]
fn for_a_long_time() {
    let seconds = std::env::var("SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let end = Instant::now() + Duration::from_secs(seconds);
    let one = move || {
        let end = fastrand::choice(End::ALL).unwrap();
        let weather = Weather { time: Duration::from_secs(10), stops: true, mixed: true, strains: true, end };
        let mut builder = ProcessPoolExecutor::builder().max_workers(fastrand::usize(1..6));
        let threads = fastrand::usize(1..4);
        if fastrand::bool() {
            builder = builder.max_tasks_per_child(fastrand::u64(1..200));
        }
        if fastrand::bool() {
            builder = builder.idle_timeout(Duration::from_millis(fastrand::u64(0..10)));
        }
        let form = format!("{builder:?}");
        let (tasks, kills) = watchdog(weather.time + LIMIT, move || storm(builder, threads, weather));
        println!("{tasks} tasks, {kills} workers killed, {end:?} at the end: {threads} threads each, {form}");
    };
    one();
    let before = Belongings::now();
    while Instant::now() < end {
        one();
        assert_eq!(Belongings::now(), before);
    }
}
