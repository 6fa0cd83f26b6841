//! What is promised to whoever waits for a task, for every verb that does.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use concurrent_futures::{
    ReturnWhen, Shutdown, TaskError, TaskFuture, ThreadPoolExecutor, as_completed, as_completed_timeout, block_on,
    wait, wait_async,
};

use super::job::{Job, PANIC, Pool, Setting, on_pools};
use super::table::{Kind, PromiseOut, WayOut, ways_out};
use crate::process::support::poll;
use crate::support::guarded;

type Outcome = Result<u64, TaskError>;

/// Runs `body` for every cell of the promise that holds.
fn on_cells(promise: PromiseOut, body: impl Fn(&Setting, WayOut) + Clone + Send + 'static) {
    for kind in [Kind::Threads, Kind::Processes] {
        for way in ways_out(promise, kind) {
            let body = body.clone();
            on_pools(kind, &format!("{promise:?}, {way:?}, {kind:?}"), move |setting| body(&setting, way));
        }
    }
}

/// Longer than any test takes: a deadline that must not pass.
const LONG: Duration = Duration::from_secs(3600);

/// Waits for the task by that verb, and returns its outcome. `pool` polls for `.await`.
fn outcome_by(way: WayOut, future: TaskFuture<u64>, setting: &Setting) -> Outcome {
    match way {
        WayOut::Result => future.result(),
        WayOut::ResultTimeout => future.result_timeout(LONG).expect("it is done long before"),
        WayOut::Await => match &setting.pool {
            Pool::Threads(pool) => pool.spawn(future).result()?,
            Pool::Processes(_) => ThreadPoolExecutor::new(1).unwrap().spawn(future).result()?,
        },
        WayOut::BlockOn => block_on(future),
        WayOut::Wait => {
            let waited = wait([future], None, ReturnWhen::FirstCompleted);
            waited.done.into_iter().next().expect("one is done").result()
        }
        WayOut::AsCompleted => as_completed([("key", future)]).next().expect("one is done").1.result(),
        WayOut::WaitAsync => {
            let waited = block_on(wait_async([future], ReturnWhen::AllCompleted));
            waited.done.into_iter().next().expect("one is done").result()
        }
        WayOut::Stream => {
            use futures::StreamExt;
            let done = block_on(as_completed([future]).into_stream().next());
            done.expect("one is done").result()
        }
        WayOut::Callback => {
            let (told, outcome) = mpsc::channel();
            future.add_done_callback(move |outcome| told.send(outcome.copied().map_err(TaskError::clone)).unwrap());
            drop(future);
            outcome.recv().expect("the callback runs")
        }
        WayOut::Shared => future.shared().result(),
        WayOut::Drop => unreachable!("nobody sees the outcome"),
    }
}

#[test]
fn the_value_arrives() {
    on_cells(PromiseOut::Value, |setting, way| {
        if way == WayOut::Drop {
            // Inside a task the only worker would be this one.
            if setting.inside && setting.workers == 1 {
                return;
            }
            let ledger = setting.folder.ledger("ran");
            drop(setting.pool.submit(Job::Write(ledger.clone(), 5)));
            poll(|| ledger.lines() == ["5"]);
            return;
        }
        // A callback does not wait, so inside it needs a worker that is free.
        if way == WayOut::Callback && setting.inside && setting.workers == 1 {
            return;
        }
        let future = setting.pool.submit(Job::Return(5));
        assert_eq!(outcome_by(way, future, setting).unwrap(), 5);
    });
}

#[test]
fn a_queued_task_does_not_keep_its_waiter_waiting() {
    on_cells(PromiseOut::QueuedTask, |setting, way| {
        if setting.inside {
            let busy = setting.occupy();
            let future = setting.pool.submit(Job::Return(6));
            assert_eq!(outcome_by(way, future, setting).unwrap(), 6);
            busy.end();
        }
    });
}

#[test]
fn a_panic_arrives() {
    on_cells(PromiseOut::Panic, |setting, way| {
        if way == WayOut::Callback && setting.inside && setting.workers == 1 {
            return;
        }
        let error = outcome_by(way, setting.pool.submit(Job::Panic), setting).unwrap_err();
        assert!(matches!(&error, TaskError::Panicked(panic) if panic.message() == PANIC), "{error:?}");
    });
}

#[test]
fn a_death_arrives() {
    on_cells(PromiseOut::Death, |setting, way| {
        let error = outcome_by(way, setting.pool.submit(Job::Abort), setting).unwrap_err();
        assert!(matches!(&error, TaskError::WorkerDied(exit) if exit.signal_name() == Some("SIGABRT")), "{error:?}");
    });
}

/// A handle is used up by waiting, so it is cancelled before; a shared one by a clone, while another thread waits. (The next test
/// cancels during every wait.)
#[test]
fn a_cancelled_task_ends_the_wait() {
    on_cells(PromiseOut::Cancelled, |setting, way| {
        let busy = setting.occupy();
        let future = setting.pool.submit(Job::Return(0));
        if way == WayOut::Shared && !setting.inside {
            let future = future.shared();
            let clone = future.clone();
            let cancelling = thread::spawn(move || assert!(clone.cancel()));
            assert!(future.result().unwrap_err().is_cancelled());
            cancelling.join().unwrap();
        } else {
            assert!(future.cancel());
            let error = match way {
                // The pool that would poll it may have no free worker.
                WayOut::Await => ThreadPoolExecutor::new(1).unwrap().spawn(future).result().unwrap().unwrap_err(),
                _ => outcome_by(way, future, setting).unwrap_err(),
            };
            assert!(error.is_cancelled(), "{way:?}: {error:?}");
        }
        busy.end();
    });
}

#[test]
fn a_shutdown_that_cancels_ends_the_wait() {
    on_cells(PromiseOut::ShutDown, |setting, way| {
        if setting.inside {
            return;
        }
        let busy = setting.occupy();
        let future = setting.pool.submit(Job::Return(0));
        let pool = setting.pool.clone();
        let ending = thread::spawn(move || pool.shutdown(Shutdown::CancelPending));
        if way == WayOut::Await && matches!(setting.pool, Pool::Threads(_)) {
            // The pool that would poll is the one that ends.
            assert!(block_on(future).unwrap_err().is_cancelled());
        } else {
            assert!(outcome_by(way, future, setting).unwrap_err().is_cancelled(), "{way:?}");
        }
        busy.end();
        ending.join().unwrap().unwrap();
    });
}

/// What is awaited holds its worker until the wait is over, so a wait that ran it in place would never end.
#[test]
fn the_deadline_ends_the_wait() {
    on_cells(PromiseOut::Deadline, |setting, way| {
        let (begun, release) = (setting.folder.sign("task begun"), setting.folder.sign("task release"));
        let future = setting.pool.submit(Job::Hold(begun, release.clone()));
        let soon = Duration::from_millis(5);
        let future = match way {
            WayOut::ResultTimeout => future.result_timeout(soon).unwrap_err(),
            WayOut::Wait => {
                let waited = wait([future], Some(soon), ReturnWhen::AllCompleted);
                assert!(waited.done.is_empty());
                waited.not_done.into_iter().next().unwrap()
            }
            WayOut::AsCompleted => {
                let mut completed = as_completed_timeout([future], soon);
                assert_eq!(completed.next().unwrap().unwrap_err().unfinished(), 1);
                completed.into_unfinished().pop().unwrap()
            }
            WayOut::Shared => {
                let future = future.shared();
                assert!(future.get_timeout(soon).is_none());
                release.give();
                assert_eq!(*future.get().unwrap(), 0);
                return;
            }
            _ => unreachable!("the table has no such cell"),
        };
        release.give();
        assert_eq!(future.result().unwrap(), 0);
    });
}

/// The same verbs with nothing to wait for return at once.
#[test]
fn a_deadline_that_has_passed_looks_once() {
    guarded(|| {
        let (_promise, future) = concurrent_futures::promise::<u64>();
        let future = future.result_timeout(Duration::ZERO).unwrap_err();
        let waited = wait([future], Some(Duration::ZERO), ReturnWhen::AllCompleted);
        assert_eq!((waited.done.len(), waited.not_done.len()), (0, 1));
        let mut completed = as_completed_timeout(waited.not_done, Duration::ZERO);
        assert!(completed.next().unwrap().is_err());
        let future = completed.into_unfinished().pop().unwrap().shared();
        assert!(future.get_timeout(Duration::ZERO).is_none());
    });
}
