//! Workers are killed, stopped and continued at random under load. Afterwards a history is checked: every task is resolved
//! exactly once, none has begun twice, and nothing has failed but for a reason that it had.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use concurrent_futures::{ProcessPoolBuilder, ProcessPoolExecutor, Shutdown, Stdio, TaskError, TaskFuture};
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
}

const USUAL: Weather = Weather { time: Duration::from_millis(1500), stops: false, mixed: false, strains: false };

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Kind {
    Quick,
    Panics,
    /// Has an argument and a result of so many bytes.
    Long(usize),
    /// Is over its time.
    Late,
    /// Is cancelled soon after it was submitted.
    Cancelled,
}

impl Kind {
    fn any() -> Self {
        match fastrand::u32(0..100) {
            0..4 => Self::Panics,
            4..7 => Self::Long(fastrand::usize(0..3 << 20)),
            7 => Self::Late,
            8..11 => Self::Cancelled,
            _ => Self::Quick,
        }
    }

    /// Is this an end that a task of this kind may have?
    fn may_end_with(self, error: &TaskError, weather: Weather) -> bool {
        match error {
            // Perhaps it died before it could write the first line of the task. Others on its worker are late, or cancelled.
            TaskError::WorkerDied(exit) => {
                exit.signal_name() == Some("SIGKILL") || weather.mixed && exit.signal_name() == Some("SIGTERM")
            }
            TaskError::Panicked(panic) => self == Self::Panics && panic.message() == "as it is meant to",
            TaskError::TimedOut => self == Self::Late,
            TaskError::Cancelled => self == Self::Cancelled,
            TaskError::Spawn(_) => weather.strains,
            _ => false,
        }
    }
}

fn task((ledger, n, kind, body): (Ledger, u64, Kind, Vec<u8>)) -> (u64, Vec<u8>) {
    ledger.write(n);
    match kind {
        Kind::Panics => panic!("as it is meant to"),
        Kind::Late => thread::sleep(Duration::from_secs(3600)),
        Kind::Quick | Kind::Long(_) | Kind::Cancelled => {}
    }
    // Some take a while, none is the same as the next.
    let end = Instant::now() + Duration::from_micros(n * 37 % 500);
    while Instant::now() < end {
        std::hint::spin_loop();
    }
    (n, body)
}

fn submit(pool: &ProcessPoolExecutor, ledger: &Ledger, n: u64, kind: Kind) -> TaskFuture<(u64, Vec<u8>)> {
    let body = match kind {
        Kind::Long(length) => vec![n as u8; length],
        _ => Vec::new(),
    };
    let task = pool.task(task, (ledger.clone(), n, kind, body));
    match kind {
        Kind::Late => task.timeout(Duration::from_millis(3)).submit(),
        _ => task.submit(),
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

/// How many tasks there were, and how often a worker was killed.
fn storm(builder: ProcessPoolBuilder, weather: Weather) -> (usize, usize) {
    let folder = Folder::new();
    let ledger = folder.ledger("ledger");
    let builder = builder.stdio(Stdio::Null).restart_limit(u32::MAX).kill_grace(Duration::from_millis(20));
    let pool = Arc::new(builder.build().unwrap());
    let (over, ids) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let submitters: Vec<_> = (0..2)
        .map(|_| {
            let (pool, over, ids, ledger) = (Arc::clone(&pool), Arc::clone(&over), Arc::clone(&ids), ledger.clone());
            thread::spawn(move || {
                let mut outcomes = Vec::new();
                while !over.load(SeqCst) {
                    let batch: Vec<_> = (0..50)
                        .map(|_| {
                            let n = ids.fetch_add(1, SeqCst);
                            let kind = if weather.mixed { Kind::any() } else { Kind::Quick };
                            (n, kind, submit(&pool, &ledger, n, kind))
                        })
                        .collect();
                    for (_, kind, future) in &batch {
                        if *kind == Kind::Cancelled {
                            future.cancel();
                        }
                    }
                    outcomes.extend(batch.into_iter().map(|(n, kind, future)| (n, kind, check(n, kind, future))));
                }
                outcomes
            })
        })
        .collect();
    let (start, mut kills) = (Instant::now(), 0);
    // A busy machine may get to less.
    while start.elapsed() < weather.time || kills <= 10 {
        thread::sleep(Duration::from_micros(fastrand::u64(500..15_000)));
        let pids = pool.worker_pids();
        let Some(pid) = fastrand::choice(pids) else { continue };
        match fastrand::u8(0..8) {
            0 | 1 if weather.stops => poke(pid, Signal::STOP),
            2 | 3 if weather.stops => pool.worker_pids().into_iter().for_each(|pid| poke(pid, Signal::CONT)),
            4 if weather.strains => pool.resize(fastrand::usize(1..6)).unwrap(),
            5 if weather.strains => exhaust(),
            _ => {
                poke(pid, Signal::KILL);
                kills += 1;
            }
        }
    }
    over.store(true, SeqCst);
    // What is stopped goes on, until everything is done.
    let calm = Arc::new(AtomicBool::new(false));
    let (inner, quiet) = (Arc::clone(&pool), Arc::clone(&calm));
    let nurse = thread::spawn(move || {
        while !quiet.load(SeqCst) {
            inner.worker_pids().into_iter().for_each(|pid| poke(pid, Signal::CONT));
            thread::sleep(Duration::from_millis(1));
        }
    });
    let outcomes: Vec<_> = submitters.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    assert_eq!(pool.submit(|n: u32| n, 7).result().unwrap(), 7, "the pool has survived");
    pool.shutdown(Shutdown::Wait).unwrap();
    calm.store(true, SeqCst);
    nurse.join().unwrap();

    let mut begun: HashMap<u64, u32> = HashMap::new();
    ledger.lines().iter().for_each(|line| *begun.entry(line.parse().unwrap()).or_default() += 1);
    assert_eq!(outcomes.len() as u64, ids.load(SeqCst));
    assert_eq!(begun.values().filter(|times| **times > 1).count(), 0, "none has begun twice");
    let tasks = outcomes.len();
    for (n, kind, outcome) in outcomes {
        match outcome {
            Ok(()) => assert_eq!(begun[&n], 1),
            Err(error) => assert!(kind.may_end_with(&error, weather), "{n}, {kind:?}: {error:?}"),
        }
    }
    (tasks, kills)
}

/// The outcome, of which a good one is looked at here: nobody wants to keep them all.
fn check(n: u64, kind: Kind, future: TaskFuture<(u64, Vec<u8>)>) -> Result<(), TaskError> {
    let (value, body) = future.result()?;
    let expected = if let Kind::Long(length) = kind { length } else { 0 };
    assert!(value == n && body.len() == expected && body.iter().all(|byte| *byte == n as u8));
    assert!(!matches!(kind, Kind::Panics | Kind::Late));
    Ok(())
}

#[test]
fn killed_at_random() {
    guarded(|| storm(ProcessPoolExecutor::builder().max_workers(3), USUAL));
}

#[test]
fn killed_stopped_and_continued_at_random() {
    guarded(|| storm(ProcessPoolExecutor::builder().max_workers(4), Weather { stops: true, ..USUAL }));
}

#[test]
fn killed_at_random_with_threads() {
    guarded(|| storm(ProcessPoolExecutor::builder().max_workers(2).threads_per_worker(3), USUAL));
}

#[test]
fn killed_at_random_while_all_are_replaced_all_the_time() {
    guarded(|| {
        let builder = ProcessPoolExecutor::builder().max_workers(3).max_tasks_per_child(20);
        storm(builder.idle_timeout(Duration::from_millis(2)), USUAL);
    });
}

#[test]
fn everything_at_once() {
    alone("chaos::everything_at_once", || {
        storm(
            ProcessPoolExecutor::builder().max_workers(3),
            Weather { stops: true, mixed: true, strains: true, ..USUAL },
        );
    });
}

/// For so many seconds, in pools of all sorts, one after the other. Each gives back all that it took.
#[test]
#[ignore = "takes minutes, and the process for itself: ci/soak.sh"]
fn for_a_long_time() {
    let seconds = std::env::var("SOAK_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    let end = Instant::now() + Duration::from_secs(seconds);
    let weather = Weather { time: Duration::from_secs(10), stops: true, mixed: true, strains: true };
    let one = move || {
        let mut builder = ProcessPoolExecutor::builder().max_workers(fastrand::usize(1..6));
        builder = builder.threads_per_worker(fastrand::usize(1..4));
        if fastrand::bool() {
            builder = builder.max_tasks_per_child(fastrand::u64(1..200));
        }
        if fastrand::bool() {
            builder = builder.idle_timeout(Duration::from_millis(fastrand::u64(0..10)));
        }
        let form = format!("{builder:?}");
        let (tasks, kills) = watchdog(weather.time + LIMIT, move || storm(builder, weather));
        println!("{tasks} tasks, {kills} workers killed: {form}");
    };
    one();
    let before = Belongings::now();
    while Instant::now() < end {
        one();
        assert_eq!(Belongings::now(), before);
    }
}
