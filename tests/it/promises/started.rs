//! The ways in: one counterpart for each verb that starts work, and what it gives back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{self, JoinHandle};

use concurrent_futures::{Executor, MapOptions, TaskError, TaskFuture, ThreadPoolExecutor, promise};

use super::job::{Job, Pool, Setting, run};
use super::table::WayIn;
use crate::support::message;

type Outcome = Result<u64, TaskError>;

/// Why a verb gave no value.
#[derive(Debug)]
pub(super) enum Failure {
    Error(TaskError),
    /// The verb panicked in its caller: the message.
    Panic(String),
}

/// Work that was started by some verb.
pub(super) enum Started {
    Future(TaskFuture<u64>),
    Map(Box<dyn Iterator<Item = Outcome>>),
    /// The verb blocks until the work is done: it does so on a thread of its own ...
    Blocking(JoinHandle<Result<u64, Failure>>),
    /// ... or where it is asked for its result, inside a task of the pool.
    InPlace(Box<dyn FnOnce() -> Result<u64, Failure>>),
}

impl Started {
    pub(super) fn result(self) -> Result<u64, Failure> {
        match self {
            Self::Future(future) => future.result().map_err(Failure::Error),
            Self::Map(mut map) => map.next().expect("the map has one item").map_err(Failure::Error),
            Self::Blocking(thread) => thread.join().expect("what panics is caught there"),
            Self::InPlace(call) => call(),
        }
    }
}

fn caught(f: impl FnOnce() -> Outcome) -> Result<u64, Failure> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(outcome) => outcome.map_err(Failure::Error),
        Err(panic) => Err(Failure::Panic(message(&*panic))),
    }
}

/// Starts the job by that verb.
pub(super) fn start(setting: &Setting, way: WayIn, job: Job) -> Started {
    let blocking = |job: Job, call: fn(&ThreadPoolExecutor, Job) -> Outcome| {
        let Pool::Threads(pool) = setting.pool.clone() else { unreachable!("the table has no such cell") };
        let call = move || caught(|| call(&pool, job));
        if setting.inside { Started::InPlace(Box::new(call)) } else { Started::Blocking(thread::spawn(call)) }
    };
    match way {
        WayIn::Scope => return blocking(job, |pool, job| pool.scope(|scope| scope.submit(move || run(job)).result())),
        WayIn::Join => return blocking(job, |pool, job| Ok(pool.join(|| (), move || run(job)).1)),
        WayIn::Promise => {
            let (promise, future) = promise();
            thread::spawn(move || promise.set_result(run(job)));
            return Started::Future(future);
        }
        _ => {}
    }
    let options = || MapOptions::new().chunk_size(1).buffer(1);
    match &setting.pool {
        Pool::Threads(pool) => match way {
            WayIn::Submit => Started::Future(pool.submit(move || run(job))),
            WayIn::TrySubmit => Started::Future(pool.try_submit(move || run(job)).unwrap()),
            WayIn::Task => Started::Future(pool.task(move || run(job)).submit()),
            WayIn::SubmitAll => Started::Future(pool.submit_all([move || run(job)]).pop().unwrap()),
            WayIn::SubmitCall => Started::Future(pool.submit_call(run, job)),
            WayIn::Map => Started::Map(Box::new(pool.map(run, [job]))),
            WayIn::MapWith => Started::Map(Box::new(pool.map_with(options(), run, [job]).unwrap())),
            WayIn::Spawn => Started::Future(pool.spawn(async move { run(job) })),
            WayIn::Scope | WayIn::Join | WayIn::Promise => unreachable!("handled above"),
        },
        Pool::Processes(pool) => match way {
            WayIn::Submit => Started::Future(pool.submit(run, job)),
            WayIn::TrySubmit => Started::Future(pool.try_submit(run, job).unwrap()),
            WayIn::Task => Started::Future(pool.task(run, job).submit()),
            WayIn::SubmitCall => Started::Future(pool.submit_call(run, job)),
            WayIn::Map => Started::Map(Box::new(pool.map(run, [job]))),
            WayIn::MapWith => Started::Map(Box::new(pool.map_with(options(), run, [job]).unwrap())),
            _ => unreachable!("the table has no such cell"),
        },
    }
}

/// Starts the job by that verb, cancels it in the way that the verb has, and returns what became of it.
pub(super) fn start_and_cancel(setting: &Setting, way: WayIn, job: Job) -> Option<TaskError> {
    if way == WayIn::Scope {
        let Pool::Threads(pool) = &setting.pool else { unreachable!("the table has no such cell") };
        return pool.scope(|scope| {
            let future = scope.submit(move || run(job));
            assert!(future.cancel());
            future.result().err()
        });
    }
    match start(setting, way, job) {
        Started::Future(future) => {
            assert!(future.cancel());
            future.result().err()
        }
        Started::Map(map) => {
            // A map is cancelled by dropping it.
            drop(map);
            None
        }
        Started::Blocking(_) | Started::InPlace(_) => unreachable!("the table has no such cell"),
    }
}
