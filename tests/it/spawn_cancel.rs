//! Cancelling a future on the pool, in whatever state it is.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::task::{Poll, Waker};
use std::thread::{self, ThreadId};

use concurrent_futures::{ReturnWhen, Shutdown, TaskFuture, ThreadPoolExecutor, as_completed, promise, wait};
use parking_lot::Mutex;

use crate::support::*;

/// Notes in which thread it was dropped.
struct Place(Arc<Mutex<Option<ThreadId>>>);

impl Drop for Place {
    fn drop(&mut self) {
        *self.0.lock() = Some(thread::current().id());
    }
}

#[test]
fn while_queued_it_is_never_polled() {
    guarded(|| {
        let pool = pool(1);
        let plug = Plug::new(&pool, 1);
        let (puppet, drops) = (Puppet::new(), Drops::new());
        let future = pool.spawn(puppet.future(drops.token()));
        assert!(future.cancel() && future.cancel());
        assert_eq!(drops.count(), 1, "the future is dropped before `cancel` returns");
        assert!(future.is_cancelled() && future.is_done() && !future.is_running());
        plug.release();
        pool.shutdown(Shutdown::Wait).unwrap();
        assert_eq!((puppet.polls(), pool.stats().completed), (0, 1));
        assert!(future.result().unwrap_err().is_cancelled());
    });
}

#[test]
fn while_suspended_it_is_dropped_here_and_now() {
    guarded(|| {
        let pool = pool(1);
        let (puppet, drops, place) = (Puppet::new(), Drops::new(), Arc::new(Mutex::new(None)));
        let (inner, noted) = (puppet.future(drops.token()), Place(Arc::clone(&place)));
        let future = pool.spawn(async move {
            let _noted = noted;
            inner.await
        });
        let waker = puppet.waker();
        // The test must not be faster than the suspension.
        pool.submit(|| ()).result().unwrap();
        // The worker is not needed for it.
        let plug = Plug::new(&pool, 1);
        assert!(future.cancel());
        assert!(future.is_cancelled() && future.is_done() && !future.is_running());
        assert_eq!((drops.count(), *place.lock()), (1, Some(thread::current().id())));
        waker.wake_by_ref();
        plug.release();
        pool.submit(|| ()).result().unwrap();
        assert_eq!(puppet.polls(), 1);
        assert!(future.result().unwrap_err().is_cancelled());
        waker.wake();
    });
}

#[test]
fn while_woken_and_queued_again() {
    guarded(|| {
        let pool = pool(1);
        let (puppet, drops) = (Puppet::new(), Drops::new());
        let future = pool.spawn(puppet.future(drops.token()));
        puppet.waker();
        let plug = Plug::new(&pool, 1);
        puppet.finish();
        assert!(future.cancel());
        assert_eq!(drops.count(), 1);
        plug.release();
        assert!(future.result().unwrap_err().is_cancelled());
        pool.submit(|| ()).result().unwrap();
        assert_eq!(puppet.polls(), 1);
    });
}

/// A future whose first poll waits for the gate, and ends as told.
fn polling(
    pool: &ThreadPoolExecutor,
    drops: &Drops,
    end: fn(&Waker) -> Poll<Token>,
) -> (TaskFuture<Token>, Gate, Arc<Counter>) {
    let (gate, polls, token) = (Gate::new(), Counter::new(), drops.token());
    let (behind, count) = (gate.clone(), Arc::clone(&polls));
    let future = pool.spawn(poll_fn(move |context| {
        token.touch();
        count.add();
        behind.pass();
        end(context.waker())
    }));
    polls.wait_for(1);
    (future, gate, polls)
}

#[test]
fn while_it_is_polled_it_ends_with_the_poll() {
    guarded(|| {
        let pool = pool(1);
        let drops = Drops::new();
        let (future, gate, polls) = polling(&pool, &drops, |waker| {
            waker.wake_by_ref();
            Poll::Pending
        });
        assert!(future.cancel() && future.cancel());
        assert!(!future.is_done() && future.is_running() && !future.is_cancelled());
        assert_eq!(drops.count(), 0);
        gate.open();
        assert!(future.result().unwrap_err().is_cancelled());
        pool.submit(|| ()).result().unwrap();
        assert_eq!((polls.get(), drops.count(), pool.stats().completed), (1, 1, 1));
    });
}

#[test]
fn while_it_is_polled_and_the_poll_returns_a_value() {
    guarded(|| {
        static VALUES: AtomicUsize = AtomicUsize::new(0);
        struct Value;
        impl Drop for Value {
            fn drop(&mut self) {
                VALUES.fetch_add(1, SeqCst);
            }
        }
        let pool = pool(1);
        let (started, gate) = (Gate::new(), Gate::new());
        let (begun, behind) = (started.clone(), gate.clone());
        let future = pool.spawn(async move {
            begun.open();
            behind.pass();
            Value
        });
        started.pass();
        assert!(future.cancel());
        gate.open();
        assert!(future.result().is_err_and(|error| error.is_cancelled()), "`cancel` has said so");
        assert_eq!(VALUES.load(SeqCst), 1);
    });
}

#[test]
fn while_it_is_polled_and_the_poll_panics() {
    guarded(|| {
        let pool = pool(1);
        let drops = Drops::new();
        let (future, gate, _) = polling(&pool, &drops, |_| panic!("as this test wants it"));
        assert!(future.cancel());
        gate.open();
        let shared = future.shared();
        assert!(shared.get().unwrap_err().is_panicked(), "a panic is not swept under the carpet");
        assert!(!shared.cancel());
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn when_it_is_over_it_is_too_late() {
    guarded(|| {
        let pool = pool(1);
        let future = pool.spawn(async { 5 });
        let shared = future.shared();
        assert_eq!(shared.result().unwrap(), 5);
        assert!(!shared.cancel() && !shared.is_cancelled());
        assert_eq!(shared.result().unwrap(), 5);
        let failed = pool.spawn(std::future::pending::<()>()).shared();
        assert!(failed.get().unwrap_err().is_abandoned());
        assert!(!failed.cancel());
    });
}

#[test]
fn by_itself() {
    guarded(|| {
        let pool = pool(1);
        let (slot, drops) = (Arc::new(Mutex::new(None::<TaskFuture<()>>)), Drops::new());
        let (own, token, stored) = (Arc::clone(&slot), drops.token(), Gate::new());
        let there = stored.clone();
        let calls = Counter::new();
        let future = pool.spawn(async move {
            there.pass();
            assert!(own.lock().as_ref().unwrap().cancel());
            yield_now().await;
            token.touch();
            unreachable!("it is cancelled at the first `.await`");
        });
        let called = Arc::clone(&calls);
        future.add_done_callback(move |outcome: Result<&(), _>| {
            assert!(outcome.unwrap_err().is_cancelled());
            called.add();
        });
        *slot.lock() = Some(future);
        stored.open();
        calls.wait_for(1);
        let future = slot.lock().take().unwrap();
        assert!(future.result().unwrap_err().is_cancelled());
        assert_eq!(drops.count(), 1);
    });
}

/// What the script below has to have done when it is cancelled at its await point `at`.
#[test]
fn at_every_await_point() {
    const STEPS: usize = 6;
    guarded(|| {
        let pool = Arc::new(pool(2));
        for at in 0..=STEPS {
            for settled in [false, true] {
                let (drops, steps) = (Drops::new(), Counter::new());
                let (mut promises, awaited): (Vec<_>, Vec<_>) = (0..STEPS).map(|_| promise::<usize>()).unzip();
                let future = pool.spawn({
                    let (drops, steps, inner) = (drops.clone(), Arc::clone(&steps), Arc::clone(&pool));
                    async move {
                        let _outer = drops.token();
                        let mut sum = 0;
                        for (step, next) in awaited.into_iter().enumerate() {
                            let _local = drops.token();
                            steps.add();
                            // Promises, tasks, and futures of the pool in turn.
                            sum += match step % 3 {
                                0 => next.await.unwrap(),
                                1 => inner.spawn(async move { next.await.unwrap() }).cancel_on_drop().await.unwrap(),
                                _ => {
                                    let shared = next.shared();
                                    shared.await.unwrap()
                                }
                            };
                        }
                        sum
                    }
                });
                let rest = promises.split_off(at);
                promises.into_iter().for_each(|promise| promise.set_result(1).unwrap());
                if at == STEPS {
                    assert_eq!(future.result().unwrap(), STEPS);
                    assert_eq!(drops.count(), STEPS + 1);
                    continue;
                }
                steps.wait_for(at + 1);
                if settled {
                    // Not only at its await point, but suspended there.
                    until(|| pool.stats().busy == 0 && pool.stats().queued == 0);
                }
                assert!(future.cancel());
                if settled {
                    assert_eq!(drops.count(), at + 2, "dropped before `cancel` returns");
                }
                assert!(future.result().unwrap_err().is_cancelled());
                assert_eq!((steps.get(), drops.count()), (at + 1, at + 2));
                // What it awaited has been let go, and nobody is woken who is not there any more.
                for promise in rest {
                    let _ = promise.set_result(1);
                }
            }
        }
        assert!(Arc::try_unwrap(pool).is_ok_and(|pool| pool.shutdown(Shutdown::Wait).is_ok()));
    });
}

#[test]
fn it_races_the_wake_up() {
    guarded(|| {
        let pool = pool(2);
        for round in rounds(3000) {
            let (puppet, drops) = (Puppet::new(), Drops::new());
            let future = pool.spawn(puppet.future(drops.token()));
            let start = Arc::new(Barrier::new(2));
            let (other, go) = (puppet.clone(), Arc::clone(&start));
            puppet.waker();
            let waker = thread::spawn(move || {
                go.wait();
                other.finish();
            });
            start.wait();
            (0..round % 100).for_each(|_| std::hint::spin_loop());
            let cancelled = future.cancel();
            match future.result() {
                Ok(_) => assert!(!cancelled),
                Err(error) => assert!(cancelled && error.is_cancelled()),
            }
            assert_eq!(drops.count(), 1);
            waker.join().unwrap();
        }
    });
}

#[test]
fn many_threads_cancel_one_future() {
    guarded(|| {
        let pool = pool(1);
        for _ in rounds(200) {
            let (puppet, drops) = (Puppet::new(), Drops::new());
            let future = pool.spawn(puppet.future(drops.token())).shared();
            let calls = Counter::new();
            let counted = Arc::clone(&calls);
            future.add_done_callback(move |_| counted.add());
            let start = Arc::new(Barrier::new(3));
            let threads: Vec<_> = (0..3)
                .map(|_| {
                    let (future, start) = (future.clone(), Arc::clone(&start));
                    thread::spawn(move || {
                        start.wait();
                        future.cancel()
                    })
                })
                .collect();
            assert!(threads.into_iter().all(|thread| thread.join().unwrap()), "all of them are told yes");
            assert!(future.get().unwrap_err().is_cancelled());
            assert_eq!((calls.get(), drops.count()), (1, 1));
        }
    });
}

#[test]
fn who_waits_wakes_at_once() {
    guarded(|| {
        let pool = pool(1);
        let puppet = Puppet::new();
        let future = pool.spawn(puppet.future(Drops::new().token())).shared();
        puppet.waker();
        pool.submit(|| ()).result().unwrap();
        // The only worker is busy to the end: nobody but `cancel` can wake anybody.
        let _plug = Plug::new(&pool, 1);
        let (a, b, c) = (future.clone(), future.clone(), future.clone());
        let waiters = [
            thread::spawn(move || a.get().unwrap_err().is_cancelled()),
            thread::spawn(move || wait([b], None, ReturnWhen::AllCompleted).done[0].is_cancelled()),
            thread::spawn(move || as_completed([c]).all(|future| future.is_cancelled())),
        ];
        assert!(future.cancel());
        waiters.into_iter().for_each(|waiter| assert!(waiter.join().unwrap()));
    });
}

#[test]
fn by_dropping_the_guard() {
    guarded(|| {
        let pool = pool(1);
        let (puppet, drops) = (Puppet::new(), Drops::new());
        let future = pool.spawn(puppet.future(drops.token())).cancel_on_drop();
        puppet.waker();
        drop(future);
        until(|| drops.count() == 1);
        let future = pool.spawn(puppet.future(drops.token())).cancel_on_drop().into_inner();
        until(|| puppet.polls() == 2);
        puppet.finish();
        assert_eq!(future.result().unwrap(), 3);
    });
}

// What a future owns may do anything when the future is dropped, in this thread, which is no worker.
#[test]
fn what_is_dropped_with_it_uses_the_pool() {
    struct Busy {
        pool: Arc<ThreadPoolExecutor>,
        other: Option<TaskFuture<usize>>,
        done: Arc<Counter>,
    }
    impl Drop for Busy {
        fn drop(&mut self) {
            let done = Arc::clone(&self.done);
            self.pool.submit(move || done.add()).detach();
            self.pool.spawn(async {}).detach();
            if let Some(other) = self.other.take() {
                assert!(other.cancel());
            }
            assert!(self.pool.shutdown(Shutdown::Wait).is_err(), "it would wait for this very future");
            self.done.add();
        }
    }
    guarded(|| {
        let pool = Arc::new(pool(1));
        let (puppet, drops, done) = (Puppet::new(), Drops::new(), Counter::new());
        let other = pool.spawn(puppet.future(drops.token()));
        let busy = Busy { pool: Arc::clone(&pool), other: Some(other), done: Arc::clone(&done) };
        let (own, token, suspended) = (promise::<()>(), drops.token(), Gate::new());
        let there = suspended.clone();
        let future = pool.spawn(async move {
            let (_busy, _token) = (busy, token);
            there.open();
            own.1.await
        });
        suspended.pass();
        puppet.waker();
        // The last handle of the pool goes with the future.
        drop(pool);
        assert!(future.cancel());
        assert!(future.result().unwrap_err().is_cancelled());
        done.wait_for(2);
        assert_eq!(drops.count(), 2);
        drop(own.0);
    });
}
