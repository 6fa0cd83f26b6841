//! Tasks that run once, promises, and shared handles.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use loom::sync::atomic::AtomicUsize;
use loom::sync::atomic::Ordering::SeqCst;
use loom::thread;

use super::super::cell::Owner;
use super::super::{Offload, Source, TaskFuture, promise, task};
use super::{Alarm, Counted, poll, run};

/// An executor that lets every thread claim.
#[derive(Clone, Copy)]
struct Open;

impl Owner for Open {
    fn may_claim(self) -> bool {
        true
    }

    fn released(self) {}
}

/// An executor that lets no thread claim.
#[derive(Clone, Copy)]
pub(crate) struct Strict;

impl Owner for Strict {
    fn may_claim(self) -> bool {
        false
    }

    fn released(self) {}
}

#[test]
fn complete_while_a_thread_waits() {
    loom::model(|| {
        let (task, future) = task(|| 7, Strict);
        let worker = thread::spawn(|| run(task));
        assert_eq!(future.result().unwrap(), 7);
        worker.join().unwrap();
    });
}

#[test]
fn complete_while_a_time_out_strikes() {
    loom::model(|| {
        let (task, future) = task(|| 7, Strict);
        let worker = thread::spawn(|| run(task));
        match future.result_timeout(Duration::from_secs(1)) {
            Ok(result) => assert_eq!(result.unwrap(), 7),
            Err(future) => assert_eq!(future.result().unwrap(), 7),
        }
        worker.join().unwrap();
    });
}

#[test]
fn complete_while_polled() {
    loom::model(|| {
        let (task, mut future) = task(|| 7, Strict);
        let worker = thread::spawn(|| run(task));
        let alarm = Alarm::new();
        let value = loop {
            match poll(&mut future, &alarm) {
                Poll::Ready(result) => break result.unwrap(),
                Poll::Pending => alarm.notify.wait(),
            }
        };
        assert_eq!(value, 7);
        worker.join().unwrap();
        assert!(alarm.wakes.load(SeqCst) <= 1);
    });
}

#[test]
fn complete_while_the_waker_changes() {
    loom::model(|| {
        let (task, mut future) = task(|| 7, Strict);
        let worker = thread::spawn(|| run(task));
        let (first, second) = (Alarm::new(), Alarm::new());
        if poll(&mut future, &first).is_pending() {
            // `Notify` may return early, as a condition variable may.
            while poll(&mut future, &second).is_pending() {
                second.notify.wait();
            }
        }
        // At most one of them: the last one, or the first one if the task was done before the second poll.
        assert!(first.wakes.load(SeqCst) + second.wakes.load(SeqCst) <= 1);
        worker.join().unwrap();
    });
}

#[test]
fn complete_while_a_polled_handle_is_dropped() {
    loom::model(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        let value = Counted(Arc::clone(&drops));
        let (task, mut future) = task(move || value, Strict);
        let worker = thread::spawn(|| run(task));
        let alarm = Alarm::new();
        let _ = poll(&mut future, &alarm);
        drop(future);
        worker.join().unwrap();
        assert_eq!(drops.load(SeqCst), 1);
        assert!(alarm.wakes.load(SeqCst) <= 1);
        assert_eq!(Arc::strong_count(&alarm), 1);
    });
}

#[test]
fn complete_while_the_handle_is_dropped() {
    loom::model(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        let value = Counted(Arc::clone(&drops));
        let (task, future) = task(move || value, Strict);
        let worker = thread::spawn(|| run(task));
        drop(future);
        worker.join().unwrap();
        assert_eq!(drops.load(SeqCst), 1);
    });
}

#[test]
fn cancel_against_start() {
    loom::model(|| {
        let runs = Arc::new(AtomicUsize::new(0));
        let drops = Arc::new(AtomicUsize::new(0));
        let (count, held) = (Arc::clone(&runs), Counted(Arc::clone(&drops)));
        let work = move || {
            let _held = held;
            count.fetch_add(1, SeqCst);
        };
        let (task, future) = task(work, Strict);
        let worker = thread::spawn(|| run(task));
        let cancelled = future.cancel();
        let result = future.result();
        worker.join().unwrap();
        assert_eq!(runs.load(SeqCst), usize::from(!cancelled));
        assert_eq!(drops.load(SeqCst), 1);
        assert_eq!(result.is_err_and(|error| error.is_cancelled()), cancelled);
    });
}

#[test]
fn claim_against_start() {
    loom::model(|| {
        let runs = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&runs);
        let (task, future) = task(move || count.fetch_add(1, SeqCst), Open);
        let worker = thread::spawn(|| run(task));
        assert_eq!(future.result().unwrap(), 0);
        worker.join().unwrap();
        assert_eq!(runs.load(SeqCst), 1);
    });
}

#[test]
fn callback_against_complete() {
    loom::model(|| {
        let (task, future) = task(|| 7, Strict);
        let worker = thread::spawn(|| run(task));
        let calls = Arc::new(AtomicUsize::new(0));
        for _ in 0..2 {
            let calls = Arc::clone(&calls);
            future.add_done_callback(move |outcome| {
                assert_eq!(*outcome.unwrap(), 7);
                calls.fetch_add(1, SeqCst);
            });
        }
        // The callbacks have run before the result can be read.
        assert_eq!(future.result().unwrap(), 7);
        assert_eq!(calls.load(SeqCst), 2);
        worker.join().unwrap();
    });
}

#[test]
fn callbacks_from_two_threads_against_complete() {
    loom::model(|| {
        let (promise, future) = promise::<u32>();
        let future = Arc::new(future);
        let calls = Arc::new(AtomicUsize::new(0));
        let add = |future: &TaskFuture<u32>, calls: &Arc<AtomicUsize>| {
            let calls = Arc::clone(calls);
            future.add_done_callback(move |_| {
                calls.fetch_add(1, SeqCst);
            });
        };
        let (other, other_calls) = (Arc::clone(&future), Arc::clone(&calls));
        let adder = thread::spawn(move || add(&other, &other_calls));
        let resolver = thread::spawn(move || promise.set_result(1).unwrap());
        add(&future, &calls);
        adder.join().unwrap();
        resolver.join().unwrap();
        assert_eq!(calls.load(SeqCst), 2);
    });
}

#[test]
fn promise_dropped_while_a_thread_waits() {
    loom::model(|| {
        let (promise, future) = promise::<u32>();
        let producer = thread::spawn(move || drop(promise));
        assert!(future.result().unwrap_err().is_abandoned());
        producer.join().unwrap();
    });
}

#[test]
fn promise_against_cancel() {
    loom::model(|| {
        let (promise, future) = promise::<u32>();
        let producer = thread::spawn(move || promise.set_result(1).is_ok());
        let cancelled = future.cancel();
        let set = producer.join().unwrap();
        assert_ne!(set, cancelled);
        assert_eq!(future.result().is_ok(), set);
    });
}

#[test]
fn two_readers_of_a_shared_future() {
    loom::model(|| {
        let (promise, future) = promise::<u32>();
        let (one, two) = {
            let shared = future.shared();
            (shared.clone(), shared)
        };
        let producer = thread::spawn(move || promise.set_result(7).unwrap());
        let reader = thread::spawn(move || one.result().unwrap());
        assert_eq!(two.result().unwrap(), 7);
        assert_eq!(reader.join().unwrap(), 7);
        producer.join().unwrap();
    });
}

#[test]
fn shared_while_it_completes() {
    loom::model(|| {
        let (promise, future) = promise::<u32>();
        let producer = thread::spawn(move || promise.set_result(7).unwrap());
        let shared = future.shared();
        assert_eq!(shared.result().unwrap(), 7);
        producer.join().unwrap();
    });
}

/// A spare thread runs it while the handle is dropped and the entry left in the queue is taken out.
#[test]
fn run_by_a_spare_thread_while_the_handle_is_dropped() {
    loom::model(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        let value = Counted(Arc::clone(&drops));
        let (task, future) = task(move || value, Open);
        let claimed = future.claim_for_spare().expect("nobody else has it");
        let spare = thread::spawn(move || claimed.run(&Arc::new(Offload::new(1)), &|_| ()));
        let worker = thread::spawn(|| run(task));
        drop(future);
        assert!(spare.join().unwrap());
        // Dropped at the latest when the task has ended, whatever is left in the queue.
        assert_eq!(drops.load(SeqCst), 1);
        worker.join().unwrap();
        assert_eq!(Arc::strong_count(&drops), 1);
    });
}

/// The same, but the entry is not taken out of the queue before the end.
#[test]
fn run_by_a_spare_thread_while_the_rest_stays_in_the_queue() {
    loom::model(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        let value = Counted(Arc::clone(&drops));
        let (task, future) = task(move || value, Open);
        let claimed = future.claim_for_spare().expect("nobody else has it");
        let spare = thread::spawn(move || claimed.run(&Arc::new(Offload::new(1)), &|_| ()));
        drop(future);
        assert!(spare.join().unwrap());
        assert_eq!(drops.load(SeqCst), 1);
        run(task);
        assert_eq!(Arc::strong_count(&drops), 1);
    });
}

/// A waiter claims it for a spare thread, while a worker takes it out of the queue.
#[test]
fn claimed_for_a_spare_thread_while_a_worker_takes_it() {
    loom::model(|| {
        let (task, future) = task(|| 7, Open);
        let worker = thread::spawn(|| run(task));
        if let Some(claimed) = future.claim_for_spare() {
            assert!(claimed.run(&Arc::new(Offload::new(1)), &|_| ()));
        }
        assert_eq!(future.result().unwrap(), 7);
        worker.join().unwrap();
    });
}

/// Both clones are dropped, one after a `peek`, while the task completes: the result is dropped once, by one of three threads.
#[test]
fn the_last_clone_is_dropped_while_it_completes() {
    loom::model(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        let (promise, future) = promise::<Counted>();
        let value = Counted(Arc::clone(&drops));
        let producer = thread::spawn(move || assert!(promise.set_result(value).is_ok()));
        let (one, two) = {
            let shared = future.shared();
            (shared.clone(), shared)
        };
        let reader = thread::spawn(move || one.peek().is_some());
        drop(two);
        reader.join().unwrap();
        producer.join().unwrap();
        assert_eq!(drops.load(SeqCst), 1);
    });
}
