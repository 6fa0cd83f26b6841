//! Models of the sleep protocol under loom: the rules of `sleep`, with counters in the place of queues. `ci/loom.sh`
//! runs them.

use std::sync::Arc;

use loom::sync::atomic::{AtomicUsize, Ordering::*, fence};
use loom::thread;

use super::sleep::{Bed, Sleep, Woken};

/// A pool reduced to its protocol: a count of tasks that wait, and of those that were run.
struct Model {
    sleep: Sleep,
    waiting: AtomicUsize,
    run: AtomicUsize,
}

impl Model {
    fn new() -> Arc<Self> {
        Arc::new(Self { sleep: Sleep::new(), waiting: AtomicUsize::new(0), run: AtomicUsize::new(0) })
    }

    fn take(&self) -> bool {
        self.waiting.fetch_update(AcqRel, Acquire, |waiting| waiting.checked_sub(1)).is_ok()
    }

    /// Rule 1.
    fn notify(&self) {
        fence(SeqCst);
        self.sleep.wake_one_if_wanted(self.sleep.counts());
    }

    fn submit(&self) {
        self.waiting.fetch_add(1, Release);
        self.notify();
    }

    /// A worker that ends when `total` tasks have been run, or the pool is closed and nothing waits.
    fn work(&self, total: usize) {
        let bed = Bed::new();
        loop {
            fence(SeqCst);
            if self.take() {
                self.sleep.stop_searching();
                if self.waiting.load(Acquire) > 0 {
                    self.notify();
                }
                if self.run.fetch_add(1, AcqRel) + 1 == total {
                    self.sleep.close();
                    self.sleep.wake_all();
                }
                self.sleep.start_searching();
                continue;
            }
            if self.sleep.counts().is_closed() {
                return;
            }
            let woken = self.sleep.sleep(&bed, None, || {
                fence(SeqCst);
                self.waiting.load(Acquire) > 0 || self.sleep.counts().is_closed()
            });
            assert_ne!(woken, Woken::TimedOut);
        }
    }
}

/// A lost wake-up would leave the worker asleep for ever, which loom reports as a deadlock.
#[test]
fn submit_against_falling_asleep() {
    loom::model(|| {
        let model = Model::new();
        assert!(model.sleep.add_thread_below(2));
        let worker = {
            let model = Arc::clone(&model);
            thread::spawn(move || model.work(2))
        };
        model.submit();
        model.submit();
        worker.join().unwrap();
        assert_eq!(model.run.load(SeqCst), 2);
    });
}

#[test]
fn close_against_falling_asleep() {
    loom::model(|| {
        let model = Model::new();
        assert!(model.sleep.add_thread_below(2));
        let worker = {
            let model = Arc::clone(&model);
            thread::spawn(move || model.work(usize::MAX))
        };
        model.sleep.close();
        model.sleep.wake_all();
        worker.join().unwrap();
    });
}

/// Two workers, of which the searching one takes the first task: the second task must find somebody.
#[test]
fn two_workers_and_two_tasks() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(|| {
        let model = Model::new();
        let workers: Vec<_> = (0..2)
            .map(|_| {
                assert!(model.sleep.add_thread_below(2));
                let model = Arc::clone(&model);
                thread::spawn(move || model.work(2))
            })
            .collect();
        model.submit();
        model.submit();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        assert_eq!(model.run.load(SeqCst), 2);
    });
}
