//! The states of a future, and what each call says in each of them.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use concurrent_futures::{Promise, TaskError, TaskFuture, ThreadPoolExecutor, promise};

use crate::support::*;

/// A future in each of the states. (Python has a sixth, for a cancellation that nobody has been told of yet.)
struct States {
    pending: TaskFuture<i32>,
    running: TaskFuture<i32>,
    cancelled: TaskFuture<i32>,
    failed: TaskFuture<i32>,
    finished: TaskFuture<i32>,
    _promise: Promise<i32>,
    /// Let go before the pool is dropped, which waits.
    go_on: Opens,
    _pool: ThreadPoolExecutor,
}

struct Opens(Gate);

impl Drop for Opens {
    fn drop(&mut self) {
        self.0.open();
    }
}

impl States {
    fn new() -> Self {
        let pool = pool(1);
        let (started, gate) = (Gate::new(), Gate::new());
        let running = {
            let (started, gate) = (started.clone(), gate.clone());
            pool.submit(move || {
                started.open();
                gate.pass();
                1
            })
        };
        started.pass();
        let (promise, pending) = self::promise();
        let (unused, cancelled) = self::promise();
        assert!(cancelled.cancel());
        assert_eq!(unused.set_result(1), Err(1));
        let (set, failed) = self::promise();
        set.set_error("it failed").unwrap();
        let (set, finished) = self::promise();
        set.set_result(42).unwrap();
        Self { pending, running, cancelled, failed, finished, _promise: promise, go_on: Opens(gate), _pool: pool }
    }

    fn all(&self) -> [&TaskFuture<i32>; 5] {
        [&self.pending, &self.running, &self.cancelled, &self.failed, &self.finished]
    }
}

#[test]
fn repr() {
    guarded(|| {
        let states = States::new();
        let names = ["pending", "running", "cancelled", "failed", "finished"];
        for (future, name) in states.all().into_iter().zip(names) {
            let text = format!("{future:?}");
            assert!(text.contains(&format!("state: {name}")), "{text}");
            assert!(text.contains(&future.id().to_string()), "{text}");
        }
    });
}

#[test]
fn cancel() {
    guarded(|| {
        let states = States::new();
        assert_eq!(states.all().map(TaskFuture::cancel), [true, false, true, false, false]);
        assert_eq!(states.all().map(TaskFuture::is_cancelled), [true, false, true, false, false]);
        assert_eq!(states.all().map(TaskFuture::is_done), [true, false, true, true, true]);
        assert_eq!(*states.finished.peek().unwrap().unwrap(), 42);
    });
}

#[test]
fn cancelled() {
    guarded(|| {
        let states = States::new();
        assert_eq!(states.all().map(TaskFuture::is_cancelled), [false, false, true, false, false]);
    });
}

#[test]
fn done() {
    guarded(|| {
        let states = States::new();
        assert_eq!(states.all().map(TaskFuture::is_done), [false, false, true, true, true]);
    });
}

#[test]
fn running() {
    guarded(|| {
        let states = States::new();
        assert_eq!(states.all().map(TaskFuture::is_running), [false, true, false, false, false]);
    });
}

#[test]
fn peek() {
    guarded(|| {
        let states = States::new();
        assert!(states.pending.peek().is_none());
        assert!(states.running.peek().is_none());
        assert!(states.cancelled.peek().unwrap().unwrap_err().is_cancelled());
        assert!(states.failed.peek().unwrap().unwrap_err().is_failed());
        assert_eq!(*states.finished.peek().unwrap().unwrap(), 42);
    });
}

#[test]
fn result_with_timeout() {
    guarded(|| {
        for timeout in [Duration::ZERO, Duration::from_millis(1)] {
            let states = States::new();
            let pending = states.pending.result_timeout(timeout).expect_err("it is pending");
            assert!(!pending.is_done());
            let running = states.running.result_timeout(timeout).expect_err("it is running");
            assert!(states.cancelled.result_timeout(timeout).unwrap().unwrap_err().is_cancelled());
            assert_eq!(
                states.failed.result_timeout(timeout).unwrap().unwrap_err().to_string(),
                "the task failed: it failed"
            );
            assert_eq!(states.finished.result_timeout(timeout).unwrap().unwrap(), 42);
            // The time-out has done nothing to them.
            assert!(pending.cancel());
            drop(states.go_on);
            assert_eq!(running.result().unwrap(), 1);
        }
    });
}

#[test]
fn try_result() {
    guarded(|| {
        let states = States::new();
        assert!(states.pending.try_result().is_err());
        assert!(states.running.try_result().is_err());
        assert!(states.cancelled.try_result().unwrap().unwrap_err().is_cancelled());
        assert!(states.failed.try_result().unwrap().unwrap_err().is_failed());
        assert_eq!(states.finished.try_result().unwrap().unwrap(), 42);
    });
}

/// Runs `settle` on one thread while another blocks on the future, or soon will; many times, so that both happen.
fn blocked_until(settle: fn(Promise<u32>, &dyn Fn()), check: fn(Result<u32, TaskError>)) {
    guarded(move || {
        for _ in 0..200 {
            let (promise, future) = promise();
            let future = future.shared();
            let (other, round) = (future.clone(), Arc::new(Barrier::new(2)));
            let begin = Arc::clone(&round);
            let waiter = thread::spawn(move || {
                begin.wait();
                check(other.result());
            });
            round.wait();
            settle(promise, &|| assert!(future.cancel()));
            waiter.join().unwrap();
        }
    });
}

#[test]
fn result_with_success() {
    blocked_until(|promise, _| promise.set_result(42).unwrap(), |result| assert_eq!(result.unwrap(), 42));
}

#[test]
fn result_with_cancel() {
    blocked_until(
        |promise, cancel| {
            cancel();
            assert!(promise.is_cancelled());
        },
        |result| assert!(result.unwrap_err().is_cancelled()),
    );
}

#[test]
fn exception_with_success() {
    blocked_until(
        |promise, _| promise.set_error("no value").unwrap(),
        |result| assert_eq!(result.unwrap_err().to_string(), "the task failed: no value"),
    );
}

#[test]
fn a_result_survives_any_number_of_timeouts() {
    guarded(|| {
        let (promise, mut future) = promise();
        for _ in 0..50 {
            future = future.result_timeout(Duration::from_micros(50)).unwrap_err();
        }
        promise.set_result(7).unwrap();
        assert_eq!(future.result_timeout(Duration::MAX).unwrap().unwrap(), 7);
    });
}

// A time-out and a completion that meet: one of the two comes out, and the future is good for another go.
#[test]
fn a_timeout_races_the_completion() {
    guarded(|| {
        for round in rounds(2000) {
            let (promise, future) = promise();
            let start = Arc::new(Barrier::new(2));
            let begin = Arc::clone(&start);
            let setter = thread::spawn(move || {
                begin.wait();
                for _ in 0..round * 10 {
                    std::hint::spin_loop();
                }
                promise.set_result(round).unwrap();
            });
            start.wait();
            match future.result_timeout(Duration::from_micros(30)) {
                Ok(value) => assert_eq!(value.unwrap(), round),
                Err(future) => assert_eq!(future.result().unwrap(), round),
            }
            setter.join().unwrap();
        }
    });
}

#[test]
fn multiple_set_result() {
    // A promise is used up by its first outcome, so a second one does not compile. What is left: the future was
    // cancelled before, and what was to be set comes back.
    let (first, cancelled) = promise::<String>();
    assert!(cancelled.cancel());
    assert_eq!(first.set_result("late".to_owned()), Err("late".to_owned()));
    assert!(cancelled.result().unwrap_err().is_cancelled());
}

#[test]
fn multiple_set_exception() {
    let (first, cancelled) = promise::<()>();
    assert!(cancelled.cancel());
    assert_eq!(first.set_error("late").unwrap_err().to_string(), "the task failed: late");
    assert!(cancelled.result().unwrap_err().is_cancelled());
}

#[test]
fn get_snapshot() {
    guarded(|| {
        let (promise, future) = promise();
        let future = future.shared();
        let looking = Arc::new(Barrier::new(5));
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let (future, looking) = (future.clone(), Arc::clone(&looking));
                thread::spawn(move || {
                    assert!(future.peek().is_none());
                    looking.wait();
                    let value = loop {
                        if let Some(outcome) = future.peek() {
                            break outcome.unwrap();
                        }
                        thread::yield_now();
                    };
                    assert_eq!(value, "whole");
                    // What was final once stays as it was.
                    assert!(future.is_done() && std::ptr::eq(value, future.get().unwrap()));
                })
            })
            .collect();
        looking.wait();
        promise.set_result("whole".to_owned()).unwrap();
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
}

#[test]
fn a_promise_dropped_unused_abandons_its_future() {
    guarded(|| {
        let (promise, future) = promise::<u32>();
        let dropper = thread::spawn(move || drop(promise));
        assert!(future.result().unwrap_err().is_abandoned());
        dropper.join().unwrap();
    });
}

#[test]
fn a_promise_passes_a_task_error_on_as_it_is() {
    let (promise, future) = promise::<u32>();
    promise.set_error(TaskError::QueueFull).unwrap();
    assert!(future.result().unwrap_err().is_queue_full());
}

#[test]
fn ids_tell_living_tasks_apart() {
    let futures: Vec<_> = (0..100).map(|_| promise::<u32>()).collect();
    let ids: std::collections::HashSet<_> = futures.iter().map(|(_, future)| future.id()).collect();
    assert_eq!(ids.len(), 100);
}
