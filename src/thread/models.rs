//! Models of the sleep protocol under loom: the rules of `sleep`, with counters instead of queues. `ci/loom.sh` runs them.

mod injector;

use std::sync::Arc;
use std::task::Waker;

use loom::sync::Notify;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*, fence};
use loom::thread;

use super::batch::Batch;
use super::sleep::{Sleep, Sleeper, Woken};
use super::watch::Watch;
use crate::future::models::Alarm;

/// A pool reduced to its protocol: the number of waiting tasks, and of tasks that were run.
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
        let sleeper = Sleeper::new();
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
            let woken = self.sleep.sleep(&sleeper, None, || {
                fence(SeqCst);
                self.waiting.load(Acquire) > 0 || self.sleep.counts().is_closed()
            });
            assert_ne!(woken, Woken::TimedOut);
        }
    }
}

/// A lost wake-up would leave the worker asleep forever, which loom reports as a deadlock.
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

/// Two workers, of which the searching one takes the first task: the second task must reach a worker.
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

/// A worker takes batch after batch while another one puts back what it finds: as long as there is something in its own queue, it
/// is counted.
#[test]
fn a_worker_that_has_a_batch_is_counted() {
    loom::model(|| {
        let shared = Arc::new((Batch::new(), AtomicUsize::new(0), AtomicUsize::new(0)));
        let other = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let (batch, count, own) = &*shared;
                for _ in 0..2 {
                    if own.load(SeqCst) > 0 {
                        if let Some(overdue) = batch.look() {
                            own.swap(0, SeqCst);
                            if batch.gone_back(overdue) {
                                count.fetch_sub(1, SeqCst);
                            }
                        }
                    }
                }
            })
        };
        let (batch, count, own) = &*shared;
        for _ in 0..3 {
            // The worker has run the rest of its batch.
            own.swap(0, SeqCst);
            if batch.begin() {
                count.fetch_add(1, SeqCst);
            }
            own.store(1, SeqCst);
            own.fetch_add(1, SeqCst);
            batch.filled();
        }
        other.join().unwrap();
        assert!(own.load(SeqCst) == 0 || count.load(SeqCst) == 1);
        if batch.end() {
            count.fetch_sub(1, SeqCst);
        }
        assert_eq!(count.load(SeqCst), 0);
    });
}

/// A lane reduced to the order of its accesses: a task that is being moved from the back to the front is not missed by a worker
/// that checks whether it may sleep, nor by one that takes a task.
#[test]
fn a_task_on_its_way_to_the_front_is_seen() {
    loom::model(|| {
        let lane = Arc::new((AtomicUsize::new(1), AtomicUsize::new(0), loom::sync::Mutex::new(0)));
        let sweeper = {
            let lane = Arc::clone(&lane);
            thread::spawn(move || {
                let (back, returned, front) = &*lane;
                let mut front = front.lock().unwrap();
                returned.store(*front + 1, SeqCst);
                *front += back.swap(0, SeqCst);
                returned.store(*front, Release);
            })
        };
        let (back, returned, front) = &*lane;
        // `Lane::is_empty`
        assert!(back.load(SeqCst) > 0 || returned.load(Acquire) > 0);
        // `Lane::pop`
        let mut found = 0;
        loop {
            if returned.load(Acquire) > 0 {
                let mut front = front.lock().unwrap();
                found = std::mem::take(&mut *front);
                returned.store(0, Release);
            }
            if found == 0 {
                found = back.swap(0, SeqCst);
            }
            if found > 0 || returned.load(Acquire) == 0 {
                break;
            }
        }
        assert_eq!(found, 1);
        sweeper.join().unwrap();
    });
}

/// A thread that waits for a queued task that it must not run, and the workers: the real `Sleep` and `Watch`, with a flag instead
/// of the queue.
struct Watched {
    sleep: Sleep,
    watch: Watch,
    /// The awaited task is in the queue.
    queued: AtomicBool,
    /// What the other worker waits for.
    go_on: Notify,
}

impl Watched {
    /// With one worker, which is free.
    fn new() -> Arc<Self> {
        let sleep = Sleep::new();
        assert!(sleep.add_thread_below(2));
        Arc::new(Self { sleep, watch: Watch::new(), queued: AtomicBool::new(true), go_on: Notify::new() })
    }

    fn take(&self) -> bool {
        self.queued.swap(false, AcqRel)
    }

    /// As `Offload::decide`: waits until another thread has the task, or no worker is free. In the latter case this thread may
    /// start one that takes it.
    fn wait(&self) {
        let alarm = Alarm::new();
        let waker = Waker::from(Arc::clone(&alarm));
        while self.queued.load(Acquire) {
            let mut own = Some(waker.clone());
            if !self.watch.watch(&self.sleep, 1, &mut own) {
                self.take();
                break;
            }
            alarm.notify.wait();
        }
        drop(self.watch.forget(&self.sleep, 1));
    }
}

/// W1 waits for any of what is queued, B, and sees that W2 is free. W2 takes C, which waits for the task of W1.
#[test]
fn the_free_worker_takes_something_else() {
    loom::model(|| {
        let model = Watched::new();
        let other = {
            let model = Arc::clone(&model);
            thread::spawn(move || {
                model.watch.stopped_being_free(&model.sleep, model.sleep.stop_searching());
                model.go_on.wait();
            })
        };
        model.wait();
        model.go_on.notify();
        other.join().unwrap();
    });
}

/// The same with two workers that are free: the last one that takes something else wakes the watcher.
#[test]
fn two_free_workers_take_something_else() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(|| {
        let model = Watched::new();
        assert!(model.sleep.add_thread_below(2));
        let others: Vec<_> = (0..2)
            .map(|_| {
                let model = Arc::clone(&model);
                thread::spawn(move || model.watch.stopped_being_free(&model.sleep, model.sleep.stop_searching()))
            })
            .collect();
        model.wait();
        others.into_iter().for_each(|other| other.join().unwrap());
        assert!(!model.sleep.counts().is_watched());
    });
}

/// The free worker is surplus, and ends.
#[test]
fn the_free_worker_ends() {
    loom::model(|| {
        let model = Watched::new();
        let other = {
            let model = Arc::clone(&model);
            thread::spawn(move || {
                let counts = model.sleep.remove_thread_above(0).expect("there is one");
                model.watch.stopped_being_free(&model.sleep, counts);
            })
        };
        model.wait();
        other.join().unwrap();
    });
}

/// Two threads wait, and one of them gives up.
#[test]
fn one_of_two_watchers_gives_up() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(|| {
        let model = Watched::new();
        let worker = {
            let model = Arc::clone(&model);
            thread::spawn(move || model.watch.stopped_being_free(&model.sleep, model.sleep.stop_searching()))
        };
        let gives_up = {
            let model = Arc::clone(&model);
            thread::spawn(move || {
                let mut own = Some(Waker::noop().clone());
                model.watch.watch(&model.sleep, 2, &mut own);
                drop(model.watch.forget(&model.sleep, 2));
            })
        };
        model.wait();
        worker.join().unwrap();
        gives_up.join().unwrap();
        assert!(!model.sleep.counts().is_watched());
    });
}
