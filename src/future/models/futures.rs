//! Futures that an executor polls.

use std::future::Future;
use std::sync::Arc;
use std::task::{Poll, Waker};

use loom::sync::Notify;
use loom::sync::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use loom::thread;

use super::super::{
    InlineWaitGuard, Listener, LiveFutures, Offload, Owner, Scheduler, Shells, Source, SpareHost, Sweep, Task,
    TaskFuture, spawned,
};
use super::{Alarm, Counted, run};
use crate::error::TaskError;
use crate::sync::Mutex;

/// An executor whose queue is a list, from which any thread takes futures to poll.
struct TestExecutor {
    queue: Mutex<Vec<Task>>,
    filled: Notify,
    unfinished: LiveFutures,
    shells: &'static Shells,
}

/// There is no sweeping in these models.
struct NoSweep;

impl Sweep for NoSweep {
    fn sweep_if_due(&self) {}
}

/// The count of shells of a separate executor.
fn no_shells() -> &'static Shells {
    Shells::lease(std::sync::Weak::<NoSweep>::new(), 0)
}

impl TestExecutor {
    fn new() -> Arc<Self> {
        let (queue, shells) = (Mutex::new(Vec::new()), no_shells());
        Arc::new(Self { queue, filled: Notify::new(), unfinished: LiveFutures::new(), shells })
    }

    fn spawn<F>(self: &Arc<Self>, future: F) -> TaskFuture<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (task, handle) = spawned(future, Arc::clone(self) as Arc<dyn Scheduler>);
        self.schedule(task, false);
        handle
    }

    /// Polls the oldest future of the queue; false if there is none.
    fn step(&self) -> bool {
        let task = {
            let mut queue = self.queue.lock();
            if queue.is_empty() { None } else { Some(queue.remove(0)) }
        };
        task.map(run).is_some()
    }

    /// Polls what is in the queue until nothing is unfinished. A lost wake-up would make it wait forever.
    fn work(&self) {
        while !self.unfinished.is_empty() {
            if !self.step() {
                self.filled.wait();
            }
        }
    }

    /// Polls once what is queued now.
    fn drain(&self) {
        while self.step() {}
    }
}

impl Scheduler for TestExecutor {
    fn may_poll(&self) -> bool {
        true
    }

    fn schedule(&self, task: Task, _yielded: bool) {
        self.queue.lock().push(task);
        self.filled.notify();
    }

    fn claimed(&self) {}

    fn spare_host(&self) -> Option<Arc<dyn SpareHost>> {
        None
    }

    fn refusal(&self) -> TaskError {
        TaskError::Cancelled
    }

    fn inside(&self, end: &mut dyn FnMut()) {
        end();
    }

    fn shells(&self) -> Option<&'static Shells> {
        Some(self.shells)
    }

    fn unfinished(&self) -> &LiveFutures {
        &self.unfinished
    }

    fn all_finished(&self) {
        self.filled.notify();
    }
}

/// What a scripted future and the threads around it share.
struct Script {
    ready: AtomicBool,
    polls: AtomicUsize,
    polling: AtomicBool,
    drops: Arc<AtomicUsize>,
    waker: Mutex<Option<Waker>>,
}

impl Script {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            ready: AtomicBool::new(false),
            polls: AtomicUsize::new(0),
            polling: AtomicBool::new(false),
            drops: Arc::new(AtomicUsize::new(0)),
            waker: Mutex::new(None),
        })
    }

    /// Ready when the flag is set. Relaxed: the wake-up must make the flag visible.
    fn future(self: &Arc<Self>) -> impl Future<Output = u32> + Send + 'static {
        let (this, held) = (Arc::clone(self), Counted(Arc::clone(&self.drops)));
        std::future::poll_fn(move |context| {
            let _held = &held;
            assert!(!this.polling.swap(true, Relaxed), "polled by two threads at once");
            this.polls.fetch_add(1, Relaxed);
            let ready = this.ready.load(Relaxed);
            let keep = (!ready).then(|| context.waker().clone());
            let old = std::mem::replace(&mut *this.waker.lock(), keep);
            drop(old);
            this.polling.store(false, Relaxed);
            if ready { Poll::Ready(7) } else { Poll::Pending }
        })
    }

    fn take_waker(&self) -> Option<Waker> {
        self.waker.lock().take()
    }

    fn finish(&self) {
        self.ready.store(true, Relaxed);
        if let Some(waker) = self.take_waker() {
            waker.wake();
        }
    }
}

#[test]
fn wake_against_poll_and_suspension() {
    loom::model(|| {
        let (executor, script) = (TestExecutor::new(), Script::new());
        let future = executor.spawn(script.future());
        executor.drain();
        // Suspended now. One thread wakes it twice; at the second wake-up it may be polled already, or have ended.
        let waker = script.take_waker().unwrap();
        let other = Arc::clone(&script);
        let finisher = thread::spawn(move || {
            waker.wake_by_ref();
            other.ready.store(true, Relaxed);
            waker.wake();
        });
        executor.work();
        assert_eq!(future.result().unwrap(), 7);
        finisher.join().unwrap();
        assert!(script.polls.load(Relaxed) <= 3);
        assert_eq!(script.drops.load(SeqCst), 1);
        drop(script.take_waker());
        assert_eq!(Arc::strong_count(&script), 1);
    });
}

#[test]
fn two_threads_wake_one_future() {
    loom::model(|| {
        let (executor, script) = (TestExecutor::new(), Script::new());
        let future = executor.spawn(script.future());
        executor.drain();
        let waker = script.take_waker().unwrap();
        let (one, two) = (waker.clone(), waker);
        let waking = thread::spawn(move || one.wake());
        script.ready.store(true, Relaxed);
        two.wake();
        executor.work();
        waking.join().unwrap();
        assert_eq!(future.result().unwrap(), 7);
        assert!(executor.queue.lock().is_empty());
    });
}

#[test]
fn cancel_against_poll() {
    loom::model(|| {
        let (executor, script) = (TestExecutor::new(), Script::new());
        let future = executor.spawn(script.future());
        script.ready.store(true, Relaxed);
        let worker = {
            let executor = Arc::clone(&executor);
            thread::spawn(move || executor.drain())
        };
        let cancelled = future.cancel();
        worker.join().unwrap();
        assert!(future.is_done());
        assert_eq!(future.result().is_err_and(|error| error.is_cancelled()), cancelled);
        assert_eq!(script.drops.load(SeqCst), 1);
        assert_eq!(Arc::strong_count(&script), 1);
    });
}

#[test]
fn cancel_against_wake_and_poll() {
    loom::model(|| {
        let (executor, script) = (TestExecutor::new(), Script::new());
        let future = executor.spawn(script.future());
        executor.drain();
        let worker = {
            let (executor, script) = (Arc::clone(&executor), Arc::clone(&script));
            thread::spawn(move || {
                script.finish();
                executor.drain();
            })
        };
        let cancelled = future.cancel();
        worker.join().unwrap();
        assert!(future.is_done());
        assert_eq!(future.result().is_err_and(|error| error.is_cancelled()), cancelled);
        assert_eq!(script.drops.load(SeqCst), 1);
        assert_eq!(Arc::strong_count(&script), 1);
    });
}

#[test]
fn last_waker_dropped_against_suspension() {
    loom::model(|| {
        let (executor, script) = (TestExecutor::new(), Script::new());
        let future = executor.spawn(script.future());
        let dropper = {
            let script = Arc::clone(&script);
            thread::spawn(move || drop(script.take_waker()))
        };
        executor.drain();
        dropper.join().unwrap();
        drop(script.take_waker());
        executor.drain();
        assert!(future.result().unwrap_err().is_abandoned());
        assert_eq!(script.drops.load(SeqCst), 1);
        assert_eq!(Arc::strong_count(&script), 1);
    });
}

#[test]
fn last_waker_dropped_against_wake() {
    loom::model(|| {
        let (executor, script) = (TestExecutor::new(), Script::new());
        let future = executor.spawn(script.future());
        executor.drain();
        let waker = script.take_waker().unwrap();
        let last = waker.clone();
        let dropper = thread::spawn(move || drop(last));
        script.ready.store(true, Relaxed);
        waker.wake();
        executor.work();
        dropper.join().unwrap();
        // It was woken before the last waker was dropped, so it must be polled.
        assert_eq!(future.result().unwrap(), 7);
        assert_eq!(script.drops.load(SeqCst), 1);
    });
}

#[test]
fn last_waker_dropped_against_cancel() {
    loom::model(|| {
        let (executor, script) = (TestExecutor::new(), Script::new());
        let future = executor.spawn(script.future());
        executor.drain();
        let waker = script.take_waker().unwrap();
        let dropper = {
            let executor = Arc::clone(&executor);
            thread::spawn(move || {
                drop(waker);
                executor.drain();
            })
        };
        let cancelled = future.cancel();
        dropper.join().unwrap();
        executor.drain();
        let error = future.result().unwrap_err();
        assert_eq!((error.is_cancelled(), error.is_abandoned()), (cancelled, !cancelled));
        assert_eq!(script.drops.load(SeqCst), 1);
    });
}

/// The waiter polls in place while another thread wakes; no other thread polls.
#[test]
fn claimed_in_place_against_wake() {
    loom::model(|| {
        let (executor, script) = (TestExecutor::new(), Script::new());
        let future = executor.spawn(script.future());
        executor.drain();
        let finisher = {
            let script = Arc::clone(&script);
            thread::spawn(move || script.finish())
        };
        // The steps of a blocked worker, written out: it listens, claims, and sleeps if there is nothing to claim.
        let inline_wait = InlineWaitGuard::new();
        let alarm = Alarm::new();
        assert!(future.listen(&inline_wait, Listener::Waker(&Waker::from(Arc::clone(&alarm)))));
        while !future.is_done() {
            if !future.claim(&inline_wait) {
                alarm.notify.wait();
            }
        }
        finisher.join().unwrap();
        executor.drain();
        assert_eq!(future.result().unwrap(), 7);
        assert_eq!(script.drops.load(SeqCst), 1);
    });
}

#[test]
fn cancel_all_against_the_end() {
    loom::model(|| {
        let (executor, script) = (TestExecutor::new(), Script::new());
        let future = executor.spawn(script.future());
        executor.drain();
        let worker = {
            let (executor, script) = (Arc::clone(&executor), Arc::clone(&script));
            thread::spawn(move || {
                script.finish();
                executor.drain();
            })
        };
        executor.unfinished.cancel_all();
        worker.join().unwrap();
        executor.drain();
        assert!(future.result().map_or_else(|error| error.is_cancelled(), |value| value == 7));
        assert_eq!(script.drops.load(SeqCst), 1);
        assert!(executor.unfinished.is_empty());
        drop(executor);
        assert_eq!(Arc::strong_count(&script), 1);
    });
}

/// The outcome owns a waker of its own future, and the handle is dropped while the future ends: the outcome is dropped once,
/// by one of the two, and the cell with it.
#[test]
fn an_outcome_that_owns_its_waker_against_the_drop_of_the_handle() {
    loom::model(|| {
        let executor = TestExecutor::new();
        let drops = Arc::new(AtomicUsize::new(0));
        let counted = Mutex::new(Some(Counted(Arc::clone(&drops))));
        let future = executor
            .spawn(std::future::poll_fn(move |context| Poll::Ready((context.waker().clone(), counted.lock().take()))));
        let worker = {
            let executor = Arc::clone(&executor);
            thread::spawn(move || executor.drain())
        };
        drop(future);
        worker.join().unwrap();
        assert_eq!(drops.load(SeqCst), 1);
        assert_eq!(Arc::strong_count(&executor), 1);
    });
}

/// Each entry that becomes an empty shell is counted once when it does, and once when it is taken out of the queue.
#[test]
fn shells_are_counted_once_each_way() {
    loom::model(|| {
        let (executor, script) = (TestExecutor::new(), Script::new());
        let future = executor.spawn(script.future());
        let canceller = thread::spawn(move || future.cancel());
        executor.drain();
        let cancelled = canceller.join().unwrap();
        drop(script.take_waker());
        executor.drain();
        assert!(cancelled);
        assert_eq!(executor.shells.exactly(), 0);
        executor.shells.give_back();
    });
}

#[test]
fn the_shell_of_a_closure_is_counted_once_each_way() {
    #[derive(Clone, Copy)]
    struct Counts(&'static Shells);
    impl Owner for Counts {
        fn may_claim(self) -> bool {
            true
        }
        fn released(self) {}
        fn shell_left(self) {
            self.0.left();
        }
        fn shell_gone(self) {
            self.0.gone();
        }
    }
    loom::model(|| {
        let shells = no_shells();
        let (task, future) = super::super::task(|| (), Counts(shells));
        let canceller = thread::spawn(move || future.cancel());
        if task.is_shell() {
            task.discard();
        } else {
            run(task);
        }
        canceller.join().unwrap();
        assert_eq!(shells.exactly(), 0);
        shells.give_back();
    });
}

/// A spare thread has claimed it and polls it while it is cancelled and its entry is taken out of the queue.
#[test]
fn claimed_for_a_spare_thread_and_cancelled() {
    loom::model(|| {
        let (executor, script) = (TestExecutor::new(), Script::new());
        script.ready.store(true, Relaxed);
        let handle = executor.spawn(script.future());
        let claimed = handle.claim_for_spare().expect("nobody else has it");
        assert!(handle.claim_for_spare().is_none());
        let spare = thread::spawn(move || claimed.run(&Arc::new(Offload::new(1)), &|_| ()));
        let worker = {
            let executor = Arc::clone(&executor);
            thread::spawn(move || executor.drain())
        };
        let cancelled = handle.cancel();
        spare.join().unwrap();
        worker.join().unwrap();
        match handle.result() {
            Ok(value) => assert_eq!((cancelled, value), (false, 7)),
            Err(error) => assert!(cancelled && error.is_cancelled()),
        }
        assert_eq!(script.drops.load(SeqCst), 1);
    });
}
