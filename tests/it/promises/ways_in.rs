//! What is promised of a task, for every verb that starts one.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use concurrent_futures::{ProcessPoolExecutor, QueuePolicy, Shutdown, Stdio, TaskError, ThreadPoolExecutor};

use super::job::{Busy, Job, PANIC, Pool, Setting, on_pools};
use super::started::{Failure, Started, start, start_and_cancel};
use super::table::{Kind, PromiseIn, WayIn, ways_in};
use crate::process::support::Folder;
use crate::support::{every_shutdown, guarded};

/// Runs `body` for every cell of the promise that holds.
fn on_cells(promise: PromiseIn, body: impl Fn(&Setting, WayIn) + Clone + Send + 'static) {
    for kind in [Kind::Threads, Kind::Processes] {
        for way in ways_in(promise, kind) {
            let body = body.clone();
            on_pools(kind, &format!("{promise:?}, {way:?}, {kind:?}"), move |setting| body(&setting, way));
        }
    }
}

#[track_caller]
fn error_of(outcome: Result<u64, Failure>) -> TaskError {
    match outcome {
        Err(Failure::Error(error)) => error,
        other => panic!("not an error of a task: {other:?}"),
    }
}

#[test]
fn the_result_arrives() {
    on_cells(PromiseIn::Resolves, |setting, way| {
        let ledger = setting.folder.ledger("ran");
        assert_eq!(start(setting, way, Job::Write(ledger.clone(), 7)).result().unwrap(), 7);
        assert_eq!(ledger.lines(), ["7"]);
    });
}

#[test]
fn a_panic_is_named() {
    on_cells(PromiseIn::PanicNamed, |setting, way| match start(setting, way, Job::Panic).result() {
        Err(Failure::Error(TaskError::Panicked(panic))) => {
            assert_eq!(panic.message(), PANIC);
            assert!(panic.location().unwrap().file().ends_with("job.rs"));
        }
        Err(Failure::Panic(message)) if way == WayIn::Join => assert_eq!(message, PANIC),
        other => panic!("{other:?}"),
    });
}

#[test]
fn a_death_is_named() {
    on_cells(PromiseIn::DeathNamed, |setting, way| {
        let error = error_of(start(setting, way, Job::Abort).result());
        let TaskError::WorkerDied(exit) = error else { panic!("{error:?}") };
        assert_eq!(exit.signal_name(), Some("SIGABRT"));
    });
}

#[test]
fn what_is_cancelled_never_runs() {
    on_cells(PromiseIn::CancelledNeverRuns, |setting, way| {
        let ledger = setting.folder.ledger("ran");
        // A worker that would take it, inside too: there this thread is one.
        let busy = setting.occupy();
        let error = start_and_cancel(setting, way, Job::Write(ledger.clone(), 1));
        assert!(error.is_none_or(|error| error.is_cancelled()));
        busy.end();
        setting.pool.submit(Job::Return(0)).result().unwrap();
        assert_eq!(ledger.lines(), [""; 0]);
    });
}

/// A pool of one process with the given settings.
fn process_pool(
    settings: impl FnOnce(concurrent_futures::ProcessPoolBuilder) -> concurrent_futures::ProcessPoolBuilder,
) -> Setting {
    let builder = ProcessPoolExecutor::builder().max_workers(1).stdio(Stdio::Null);
    let pool = Pool::Processes(Arc::new(settings(builder).build().unwrap()));
    Setting { pool, workers: 1, inside: false, folder: Folder::new() }
}

#[test]
fn the_time_limit_of_the_pool_ends_it() {
    for way in ways_in(PromiseIn::TimeLimit, Kind::Processes) {
        guarded(move || {
            let setting = process_pool(|builder| builder.task_timeout(Duration::from_millis(20)));
            assert!(error_of(start(&setting, way, Job::Hang).result()).is_timed_out(), "{way:?}");
        });
    }
}

#[test]
fn the_retries_of_the_pool_begin_it_again() {
    for way in ways_in(PromiseIn::Retries, Kind::Processes) {
        guarded(move || {
            let setting = process_pool(|builder| builder.retries(1));
            let ledger = setting.folder.ledger("begun");
            assert_eq!(start(&setting, way, Job::AbortOnce(ledger.clone())).result().unwrap(), 1, "{way:?}");
            assert_eq!(ledger.lines().len(), 2);
        });
    }
}

#[test]
fn a_full_queue_refuses_it() {
    for kind in [Kind::Threads, Kind::Processes] {
        for way in ways_in(PromiseIn::QueueLimit, kind) {
            guarded(move || {
                let folder = Folder::new();
                let pool = match kind {
                    Kind::Threads => {
                        let builder = ThreadPoolExecutor::builder().max_workers(1);
                        Pool::Threads(Arc::new(builder.queue_capacity(1, QueuePolicy::Fail).build().unwrap()))
                    }
                    Kind::Processes => {
                        let builder = ProcessPoolExecutor::builder().max_workers(1).stdio(Stdio::Null);
                        Pool::Processes(Arc::new(builder.queue_capacity(1, QueuePolicy::Fail).build().unwrap()))
                    }
                };
                let setting = Setting { pool, workers: 1, inside: false, folder };
                let ledger = setting.folder.ledger("ran");
                let busy = setting.occupy();
                // One may have been handed to the worker in advance.
                let mut waiting = Vec::new();
                while let Some(future) = setting.pool.try_submit(Job::Return(1)) {
                    waiting.push(future);
                }
                let job = Job::Write(ledger.clone(), 2);
                let refused = match way {
                    WayIn::TrySubmit => setting.pool.try_submit(job).is_none(),
                    _ => error_of(start(&setting, way, job).result()).is_queue_full(),
                };
                assert!(refused, "{way:?}, {kind:?}");
                busy.end();
                waiting.into_iter().for_each(|future| assert_eq!(future.result().unwrap(), 1));
                assert_eq!(ledger.lines(), [""; 0]);
            });
        }
    }
}

/// With one worker the order is exact.
#[test]
fn queued_tasks_start_in_order() {
    for kind in [Kind::Threads, Kind::Processes] {
        for way in ways_in(PromiseIn::InOrder, kind) {
            guarded(move || {
                let setting =
                    Setting { pool: super::job::new_pool(kind, 1), workers: 1, inside: false, folder: Folder::new() };
                let ledger = setting.folder.ledger("started");
                let busy = setting.occupy();
                let mut all = Vec::new();
                for n in 0..9 {
                    // Every second one comes by `submit`: the order is one for all verbs.
                    let by = if n % 2 == 0 { way } else { WayIn::Submit };
                    all.push(start(&setting, by, Job::Write(ledger.clone(), n)));
                    setting.until_queued(n as usize + 1);
                }
                busy.end();
                for (n, started) in all.into_iter().enumerate() {
                    assert_eq!(started.result().unwrap(), n as u64);
                }
                assert_eq!(ledger.lines(), ["0", "1", "2", "3", "4", "5", "6", "7", "8"], "{way:?}, {kind:?}");
            });
        }
    }
}

#[test]
fn after_a_shutdown_it_is_refused() {
    for kind in [Kind::Threads, Kind::Processes] {
        for way in ways_in(PromiseIn::RefusedAfterShutdown, kind) {
            for how in every_shutdown(Duration::from_secs(3600)) {
                guarded(move || {
                    let pool = super::job::new_pool(kind, 2);
                    let setting = Setting { pool, workers: 2, inside: false, folder: Folder::new() };
                    let ledger = setting.folder.ledger("ran");
                    setting.pool.shutdown(how).unwrap();
                    let job = Job::Write(ledger.clone(), 1);
                    let label = format!("{way:?}, {kind:?}, {how:?}");
                    match way {
                        WayIn::TrySubmit => assert!(setting.pool.try_submit(job).is_none(), "{label}"),
                        WayIn::Join => {
                            let outcome = start(&setting, way, job).result();
                            assert!(
                                matches!(&outcome, Err(Failure::Panic(text)) if text.contains("shut down")),
                                "{outcome:?}"
                            );
                        }
                        _ => assert!(error_of(start(&setting, way, job).result()).is_shut_down(), "{label}"),
                    }
                    assert_eq!(ledger.lines(), [""; 0], "{label}");
                });
            }
        }
    }
}

/// Something is queued behind a busy worker when the pool is shut down; returns what became of it, and whether it ran.
fn shut_down_with_one_queued(kind: Kind, way: WayIn, how: Shutdown) -> (Result<u64, Failure>, bool) {
    guarded(move || {
        let pool = super::job::new_pool(kind, 1);
        let setting = Setting { pool, workers: 1, inside: false, folder: Folder::new() };
        let ledger = setting.folder.ledger("ran");
        let busy = setting.occupy();
        let started = start(&setting, way, Job::Write(ledger.clone(), 1));
        setting.until_queued(1);
        let outcome = match how {
            Shutdown::NoWait => {
                setting.pool.shutdown(how).unwrap();
                busy.end();
                started.result()
            }
            _ => {
                let pool = setting.pool.clone();
                let ending = thread::spawn(move || pool.shutdown(how));
                let outcome = end(how, busy, started);
                let ended = ending.join().unwrap();
                assert_eq!(ended.is_err(), matches!(how, Shutdown::Within(_)), "{ended:?}");
                outcome
            }
        };
        (outcome, !ledger.lines().is_empty())
    })
}

/// With `Wait` the worker has to be free for what is queued; else what is queued ends while it is busy.
fn end(how: Shutdown, busy: Busy, started: Started) -> Result<u64, Failure> {
    if how == Shutdown::Wait {
        busy.end();
        return started.result();
    }
    let outcome = started.result();
    busy.release();
    outcome
}

#[test]
fn what_is_queued_runs_before_a_shutdown_returns() {
    for kind in [Kind::Threads, Kind::Processes] {
        for way in ways_in(PromiseIn::WaitRuns, kind) {
            let (outcome, ran) = shut_down_with_one_queued(kind, way, Shutdown::Wait);
            assert!(matches!(outcome, Ok(1)) && ran, "{way:?}, {kind:?}: {outcome:?}");
        }
        for way in ways_in(PromiseIn::NoWaitRuns, kind) {
            let (outcome, ran) = shut_down_with_one_queued(kind, way, Shutdown::NoWait);
            assert!(matches!(outcome, Ok(1)) && ran, "{way:?}, {kind:?}: {outcome:?}");
        }
    }
}

#[test]
fn what_is_queued_is_cancelled_by_a_shutdown_that_says_so() {
    for kind in [Kind::Threads, Kind::Processes] {
        for (promise, how) in [
            (PromiseIn::CancelPendingCancels, Shutdown::CancelPending),
            (PromiseIn::CancelPendingCancels, Shutdown::CancelPendingNoWait),
            (PromiseIn::WithinEnds, Shutdown::Within(Duration::from_millis(5))),
        ] {
            for way in ways_in(promise, kind) {
                let (outcome, ran) = shut_down_with_one_queued(kind, way, how);
                assert!(!ran, "{way:?}, {kind:?}, {how:?}");
                match outcome {
                    Err(Failure::Error(TaskError::Cancelled)) => {}
                    // `join` has no other way to say so.
                    Err(Failure::Panic(text)) if way == WayIn::Join => assert!(text.contains("cancelled"), "{text}"),
                    other => panic!("{way:?}, {kind:?}, {how:?}: {other:?}"),
                }
            }
        }
    }
}
