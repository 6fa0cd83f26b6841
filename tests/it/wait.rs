//! `wait`: for the first, for the first failure, for all, for so long.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use concurrent_futures::{ReturnWhen, TaskFuture, Waited, promise, wait};

use crate::support::*;

/// A future that is done, one that is cancelled, one that has failed.
fn finals() -> [TaskFuture<u32>; 3] {
    let ((set, done), (_kept, cancelled), (broken, failed)) = (promise(), promise(), promise());
    set.set_result(1).unwrap();
    assert!(cancelled.cancel());
    broken.set_error("failed").unwrap();
    [done, cancelled, failed]
}

fn sizes<F>(waited: &Waited<F>) -> (usize, usize) {
    (waited.done.len(), waited.not_done.len())
}

/// Calls `wait` on a thread, and `settle` on this one, at the same time.
fn wait_while(
    futures: Vec<TaskFuture<u32>>,
    return_when: ReturnWhen,
    settle: impl FnOnce(),
) -> Waited<TaskFuture<u32>> {
    let start = Arc::new(Barrier::new(2));
    let begin = Arc::clone(&start);
    let waiter = thread::spawn(move || {
        begin.wait();
        wait(futures, None, return_when)
    });
    start.wait();
    settle();
    waiter.join().unwrap()
}

// Python's test of issue 20369: the same future twice. Here a future is in one place only; clones of a shared one count
// each for itself.
#[test]
fn issue_20369() {
    guarded(|| {
        let pool = pool(1);
        let future = pool.submit(|| 1).shared();
        let waited = wait([future.clone(), future.clone(), future], None, ReturnWhen::AllCompleted);
        assert_eq!(sizes(&waited), (3, 0));
    });
}

#[test]
fn first_completed() {
    guarded(|| {
        for _ in 0..100 {
            let ((first, a), (_second, b)) = (promise(), promise());
            let waited = wait_while(vec![a, b], ReturnWhen::FirstCompleted, || first.set_result(1).unwrap());
            assert_eq!(sizes(&waited), (1, 1));
            assert_eq!(*waited.done[0].peek().unwrap().unwrap(), 1);
        }
    });
}

// Python counts a cancelled future only when a worker comes across it, which may be never.
#[test]
fn a_cancelled_future_counts_at_once() {
    guarded(|| {
        let pool = pool(1);
        let _plug = Plug::new(&pool, 1);
        let ((_kept, running), queued) = (promise(), pool.submit(|| 1));
        assert!(queued.cancel());
        let waited = wait([running, queued], None, ReturnWhen::FirstCompleted);
        assert_eq!(sizes(&waited), (1, 1));
        assert!(waited.done[0].is_cancelled());
    });
}

#[test]
fn a_cancellation_wakes_who_waits() {
    guarded(|| {
        for _ in 0..100 {
            let (_promise, future) = promise::<u32>();
            let future = future.shared();
            let (other, start) = (future.clone(), Arc::new(Barrier::new(2)));
            let begin = Arc::clone(&start);
            let waiter = thread::spawn(move || {
                begin.wait();
                wait([other], None, ReturnWhen::AllCompleted)
            });
            start.wait();
            assert!(future.cancel());
            assert_eq!(sizes(&waiter.join().unwrap()), (1, 0));
        }
    });
}

#[test]
fn first_completed_some_already_completed() {
    guarded(|| {
        for already in finals() {
            let (_promise, open) = promise();
            let waited = wait([open, already], None, ReturnWhen::FirstCompleted);
            assert_eq!(sizes(&waited), (1, 1));
        }
    });
}

#[test]
fn first_exception() {
    guarded(|| {
        for _ in 0..100 {
            let ((first, a), (second, b), (_third, c)) = (promise(), promise(), promise());
            let waited = wait_while(vec![a, b, c], ReturnWhen::FirstException, || {
                first.set_result(1).unwrap();
                second.set_error("failed").unwrap();
            });
            assert_eq!(sizes(&waited), (2, 1));
            assert!(waited.done[1].peek().unwrap().is_err());
        }
    });
}

#[test]
fn first_exception_some_already_complete() {
    guarded(|| {
        let [done, cancelled, _failed] = finals();
        let ((first, a), (_second, b)) = (promise(), promise());
        // Neither a value nor a cancellation is a failure.
        let futures = vec![done, cancelled, a, b];
        let waited = wait_while(futures, ReturnWhen::FirstException, || first.set_error("failed").unwrap());
        assert_eq!(sizes(&waited), (3, 1));
    });
}

#[test]
fn first_exception_one_already_failed() {
    guarded(|| {
        let [.., failed] = finals();
        let (_promise, open) = promise();
        assert_eq!(sizes(&wait([open, failed], None, ReturnWhen::FirstException)), (1, 1));
    });
}

#[test]
fn first_exception_without_any() {
    guarded(|| {
        let [done, cancelled, _failed] = finals();
        let (last, open) = promise();
        let futures = vec![done, cancelled, open];
        let waited = wait_while(futures, ReturnWhen::FirstException, || last.set_result(1).unwrap());
        assert_eq!(sizes(&waited), (3, 0));
    });
}

#[test]
fn first_exception_is_a_panic_too() {
    guarded(|| {
        let pool = pool(1);
        let (_promise, open) = promise();
        let waited = wait([open, pool.submit(|| panic!("it fails"))], None, ReturnWhen::FirstException);
        let _: &Waited<TaskFuture<()>> = &waited;
        assert_eq!(sizes(&waited), (1, 1));
    });
}

#[test]
fn all_completed() {
    guarded(|| {
        let ((first, a), (second, b)) = (promise(), promise());
        let futures = finals().into_iter().chain([a, b]).collect();
        let waited = wait_while(futures, ReturnWhen::AllCompleted, || {
            second.set_result(2).unwrap();
            first.set_result(1).unwrap();
        });
        assert_eq!(sizes(&waited), (5, 0));
        // In the order in which they were given.
        assert_eq!(*waited.done[3].peek().unwrap().unwrap(), 1);
        assert_eq!(*waited.done[4].peek().unwrap().unwrap(), 2);
    });
}

#[test]
fn timeout() {
    guarded(|| {
        for time in [Duration::ZERO, Duration::from_millis(5)] {
            let (promise, open) = promise();
            let futures: Vec<_> = [open].into_iter().chain(finals()).collect();
            let waited = wait(futures, Some(time), ReturnWhen::AllCompleted);
            assert_eq!(sizes(&waited), (3, 1));
            // What is not done can be waited for again.
            promise.set_result(1).unwrap();
            assert_eq!(sizes(&wait(waited.not_done, Some(Duration::MAX), ReturnWhen::AllCompleted)), (1, 0));
        }
    });
}

#[test]
fn no_futures() {
    guarded(|| {
        for when in [ReturnWhen::FirstCompleted, ReturnWhen::FirstException, ReturnWhen::AllCompleted] {
            assert_eq!(sizes(&wait(Vec::<TaskFuture<()>>::new(), None, when)), (0, 0));
        }
    });
}

#[test]
fn keys_come_back_with_their_futures() {
    guarded(|| {
        let pool = pool(2);
        let futures = ["a", "bb"].map(|word| (word, pool.submit(move || word.len())));
        let waited = wait(futures, None, ReturnWhen::AllCompleted);
        for (word, future) in waited.done {
            assert_eq!(future.result().unwrap(), word.len());
        }
    });
}

#[test]
fn futures_of_different_executors() {
    guarded(|| {
        let (one, two) = (pool(1), pool(1));
        let (promise, third) = promise();
        promise.set_result(3).unwrap();
        let futures = [one.submit(|| 1), two.submit(|| 2), third];
        let waited = wait(futures, None, ReturnWhen::AllCompleted);
        let values: Vec<i32> = waited.done.into_iter().map(|future| future.result().unwrap()).collect();
        assert_eq!(values, [1, 2, 3]);
    });
}

#[test]
fn pending_calls_race() {
    guarded(|| {
        const TASKS: usize = 100;
        let pool = pool(TASKS);
        for _ in 0..5 {
            let (gate, started) = (Gate::new(), Counter::new());
            let futures: Vec<_> = (0..TASKS)
                .map(|_| {
                    let (gate, started) = (gate.clone(), Arc::clone(&started));
                    pool.submit(move || {
                        started.add();
                        gate.pass();
                    })
                })
                .collect();
            started.wait_for(TASKS);
            gate.open();
            assert_eq!(sizes(&wait(futures, None, ReturnWhen::AllCompleted)), (TASKS, 0));
        }
    });
}
