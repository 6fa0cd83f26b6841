//! What the tasks of these tests do. One type for both pools, so it can be sent to a process.

use std::sync::Arc;

use concurrent_futures::{ProcessPoolExecutor, Shutdown, ShutdownError, TaskFuture, ThreadPoolExecutor};
use serde::{Deserialize, Serialize};

use super::table::Kind;
use crate::process::support::{Folder, Ledger, Sign, poll};
use crate::support::guarded;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Job {
    Return(u64),
    /// Writes the number into the ledger, and returns it.
    Write(Ledger, u64),
    Panic,
    Abort,
    /// Aborts, unless it was begun before.
    AbortOnce(Ledger),
    /// Gives the first sign, then waits for the second.
    Hold(Sign, Sign),
    /// Never returns.
    Hang,
}

pub(super) const PANIC: &str = "as the test wants it";

pub(super) fn run(job: Job) -> u64 {
    match job {
        Job::Return(value) => value,
        Job::Write(ledger, value) => {
            ledger.write(value);
            value
        }
        Job::Panic => panic!("{PANIC}"),
        Job::Abort => std::process::abort(),
        Job::AbortOnce(ledger) => {
            let attempts = ledger.lines().len() as u64;
            ledger.write(attempts);
            if attempts == 0 {
                std::process::abort();
            }
            attempts
        }
        Job::Hold(begun, release) => {
            begun.give();
            release.wait();
            0
        }
        Job::Hang => loop {
            std::thread::park();
        },
    }
}

/// A pool of either kind.
#[derive(Clone)]
pub(super) enum Pool {
    Threads(Arc<ThreadPoolExecutor>),
    Processes(Arc<ProcessPoolExecutor>),
}

impl Pool {
    pub(super) fn submit(&self, job: Job) -> TaskFuture<u64> {
        match self {
            Self::Threads(pool) => pool.submit(move || run(job)),
            Self::Processes(pool) => pool.submit(run, job),
        }
    }

    /// `None` if the pool did not take it.
    pub(super) fn try_submit(&self, job: Job) -> Option<TaskFuture<u64>> {
        match self {
            Self::Threads(pool) => pool.try_submit(move || run(job)).ok(),
            Self::Processes(pool) => pool.try_submit(run, job).ok(),
        }
    }

    pub(super) fn queued(&self) -> usize {
        match self {
            Self::Threads(pool) => pool.stats().queued,
            Self::Processes(pool) => pool.stats().queued,
        }
    }

    pub(super) fn shutdown(&self, how: Shutdown) -> Result<(), ShutdownError> {
        match self {
            Self::Threads(pool) => pool.shutdown(how),
            Self::Processes(pool) => pool.shutdown(how),
        }
    }
}

/// Keeps all workers of a pool busy until it is released.
pub(super) struct Busy {
    release: Sign,
    futures: Vec<TaskFuture<u64>>,
}

impl Busy {
    /// Returns when `workers` tasks have begun.
    pub(super) fn new(pool: &Pool, workers: usize, folder: &Folder) -> Self {
        let release = folder.sign("release");
        let begun: Vec<Sign> = (0..workers).map(|n| folder.sign(format!("begun{n}"))).collect();
        let futures = begun.iter().map(|begun| pool.submit(Job::Hold(begun.clone(), release.clone()))).collect();
        begun.iter().for_each(Sign::wait);
        Self { release, futures }
    }

    pub(super) fn release(&self) {
        self.release.give();
    }

    /// Releases the workers, and waits until they are free.
    pub(super) fn end(self) {
        self.release.give();
        for future in self.futures {
            assert_eq!(future.result().unwrap(), 0);
        }
    }
}

/// Runs `body` with pools of that kind: of one and of several workers; those of threads also from inside a task of the pool.
pub(super) fn on_pools(kind: Kind, label: &str, body: impl Fn(Setting) + Clone + Send + 'static) {
    let (body, label) = (body.clone(), label.to_owned());
    guarded(move || {
        for workers in [1, 3] {
            let setting = |inside| {
                println!("{label}, {workers} workers, {}", if inside { "inside" } else { "outside" });
                Setting { pool: new_pool(kind, workers), workers, inside, folder: Folder::new() }
            };
            body(setting(false));
            if let (Kind::Threads, outer) = (kind, setting(true)) {
                let Pool::Threads(pool) = outer.pool.clone() else { unreachable!("of that kind") };
                let body = body.clone();
                if let Err(error) = pool.submit(move || body(outer)).result() {
                    panic!("inside the task: {}", error.resume_panic());
                }
            }
        }
    });
}

pub(super) fn new_pool(kind: Kind, workers: usize) -> Pool {
    match kind {
        Kind::Threads => Pool::Threads(Arc::new(ThreadPoolExecutor::new(workers).unwrap())),
        Kind::Processes => Pool::Processes(Arc::new(crate::process::support::pool(workers))),
    }
}

/// Where a cell of the table is tried.
pub(super) struct Setting {
    pub(super) pool: Pool,
    pub(super) workers: usize,
    /// The body runs inside a task of the pool.
    pub(super) inside: bool,
    pub(super) folder: Folder,
}

impl Setting {
    /// Keeps the workers that do not run the body busy.
    pub(super) fn occupy(&self) -> Busy {
        let others = if self.inside { self.workers - 1 } else { self.workers };
        Busy::new(&self.pool, others, &self.folder)
    }

    /// Waits until so many tasks are queued.
    pub(super) fn until_queued(&self, tasks: usize) {
        poll(|| self.pool.queued() >= tasks);
    }
}
