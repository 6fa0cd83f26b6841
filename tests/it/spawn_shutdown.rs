//! The end of a pool that still has futures.

use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use concurrent_futures::{Shutdown, ShutdownError, ThreadPoolExecutor, promise};

use crate::support::*;

/// A pool whose threads can be found by their name.
fn named(prefix: &str, workers: usize) -> ThreadPoolExecutor {
    ThreadPoolExecutor::builder().max_workers(workers).name(prefix).build().unwrap()
}

#[test]
fn wait_waits_for_what_is_suspended() {
    guarded(|| {
        let pool = Arc::new(pool(2));
        let puppets: Vec<_> = (0..20).map(|_| Puppet::new()).collect();
        let futures: Vec<_> = puppets.iter().map(|puppet| pool.spawn(puppet.future(Drops::new().token()))).collect();
        puppets.iter().for_each(|puppet| drop(puppet.waker()));
        let inner = Arc::clone(&pool);
        let ender = thread::spawn(move || inner.shutdown(Shutdown::Wait));
        until(|| pool.try_submit(|| ()).is_err());
        assert!(pool.spawn(pending::<()>()).result().unwrap_err().is_shut_down());
        for puppet in &puppets {
            assert!(!ender.is_finished());
            puppet.finish();
        }
        ender.join().unwrap().unwrap();
        assert!(futures.iter().all(|future| future.is_done()));
        assert!(futures.into_iter().all(|future| future.result().unwrap() == 2));
        assert_eq!((pool.stats().workers, pool.stats().spawned), (0, 0));
    });
}

#[test]
fn dropping_the_pool_waits_too() {
    guarded(|| {
        let pool = pool(1);
        let (puppet, drops) = (Puppet::new(), Drops::new());
        let future = pool.spawn(puppet.future(drops.token()));
        puppet.waker();
        let other = puppet.clone();
        let finisher = thread::spawn(move || other.finish());
        drop(pool);
        assert_eq!((puppet.polls(), drops.count()), (2, 1));
        assert_eq!(future.try_result().unwrap().unwrap(), 2);
        finisher.join().unwrap();
    });
}

#[test]
fn no_wait_returns_and_the_threads_end_after_the_last_future() {
    guarded(|| {
        let pool = named("nowait-spawn", 2);
        let puppet = Puppet::new();
        let future = pool.spawn(puppet.future(Drops::new().token()));
        puppet.waker();
        pool.shutdown(Shutdown::NoWait).unwrap();
        assert!(!future.is_done());
        puppet.finish();
        assert_eq!(future.result().unwrap(), 2);
        until(|| threads_named("nowait-spawn") == 0);
    });
}

#[test]
fn cancel_pending_ends_what_is_queued_suspended_or_polled() {
    guarded(|| {
        let pool = Arc::new(named("cancel-spawn", 2));
        let drops = Drops::new();
        // Suspended.
        let puppet = Puppet::new();
        let suspended = pool.spawn(puppet.future(drops.token()));
        puppet.waker();
        pool.submit(|| ()).result().unwrap();
        // Polled, and never ready.
        let (started, gate, token) = (Gate::new(), Gate::new(), drops.token());
        let (begun, behind) = (started.clone(), gate.clone());
        let polled = pool.spawn(poll_fn(move |context| -> Poll<()> {
            token.touch();
            begun.open();
            behind.pass();
            context.waker().wake_by_ref();
            Poll::Pending
        }));
        started.pass();
        // Queued, and woken and queued again.
        let _plug = Plug::new(&pool, 1);
        let token = drops.token();
        let queued = pool.spawn(async move { token.touch() });
        let again = Puppet::new();
        let inner = Arc::clone(&pool);
        let ender = thread::spawn(move || inner.shutdown(Shutdown::CancelPending));
        assert!(suspended.result().unwrap_err().is_cancelled());
        assert!(queued.result().unwrap_err().is_cancelled());
        assert!(!polled.is_done() && drops.count() == 2);
        gate.open();
        assert!(polled.result().unwrap_err().is_cancelled());
        drop(_plug);
        ender.join().unwrap().unwrap();
        assert_eq!((drops.count(), again.polls(), threads_named("cancel-spawn")), (3, 0, 0));
    });
}

#[test]
fn within_cancels_at_the_deadline() {
    guarded(|| {
        let pool = pool(1);
        let (puppet, drops) = (Puppet::new(), Drops::new());
        let future = pool.spawn(puppet.future(drops.token()));
        puppet.waker();
        let ended = pool.shutdown(Shutdown::Within(Duration::from_millis(10)));
        assert!(matches!(ended, Err(ShutdownError::TimedOut { .. })));
        assert!(future.result().unwrap_err().is_cancelled());
        assert_eq!((drops.count(), puppet.polls()), (1, 1));
        pool.shutdown(Shutdown::Wait).unwrap();
        // In time, it finishes.
        let pool = self::pool(1);
        let future = pool.spawn(async {
            yield_now().await;
            1
        });
        pool.shutdown(Shutdown::Within(LIMIT)).unwrap();
        assert_eq!(future.result().unwrap(), 1);
    });
}

#[test]
fn unwinding_cancels() {
    guarded(|| {
        let (puppet, drops) = (Puppet::new(), Drops::new());
        let mut future = None;
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let pool = pool(1);
            future = Some(pool.spawn(puppet.future(drops.token())));
            puppet.waker();
            panic!("as this test wants it");
        }));
        assert!(panicked.is_err());
        assert!(future.unwrap().result().unwrap_err().is_cancelled());
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn after_a_shutdown_nothing_is_polled() {
    guarded(|| {
        let pool = pool(1);
        pool.shutdown(Shutdown::Wait).unwrap();
        let (puppet, drops) = (Puppet::new(), Drops::new());
        let future = pool.spawn(puppet.future(drops.token()));
        assert!(future.is_done());
        assert!(future.result().unwrap_err().is_shut_down());
        assert_eq!((puppet.polls(), drops.count()), (0, 1));
    });
}

#[test]
fn the_pool_is_dropped_inside_one_of_its_futures() {
    guarded(|| {
        let pool = named("inside-spawn", 2);
        let (promise, told) = promise::<ThreadPoolExecutor>();
        let (second, more) = concurrent_futures::promise::<u32>();
        let future = pool.spawn(async move {
            drop(told.await.unwrap());
            // The pool is closed, and goes on until this is done.
            more.await.unwrap()
        });
        promise.set_result(pool).unwrap();
        second.set_result(4).unwrap();
        assert_eq!(future.result().unwrap(), 4);
        until(|| threads_named("inside-spawn") == 0);
    });
}

#[test]
fn a_worker_outstays_its_idle_timeout_for_a_future() {
    guarded(|| {
        for time in [Duration::ZERO, Duration::from_millis(1)] {
            let pool = ThreadPoolExecutor::builder().max_workers(3).idle_timeout(time).name("outstay").build().unwrap();
            let puppet = Puppet::new();
            let future = pool.spawn(puppet.future(Drops::new().token()));
            puppet.waker();
            // The others go, and it sleeps.
            let plug = Plug::new(&pool, 3);
            plug.release();
            until(|| pool.stats().workers == 1);
            puppet.finish();
            assert_eq!(future.result().unwrap(), 2);
            until(|| pool.stats().workers == 0);
            // Closed meanwhile, it stays for the future as well.
            let puppet = Puppet::new();
            let future = pool.spawn(puppet.future(Drops::new().token()));
            puppet.waker();
            until(|| pool.stats().busy == 0);
            pool.shutdown(Shutdown::NoWait).unwrap();
            puppet.finish();
            assert_eq!(future.result().unwrap(), 2);
            pool.shutdown(Shutdown::Wait).unwrap();
        }
    });
}

#[test]
fn a_broken_pool_fails_its_futures() {
    guarded(|| {
        let break_now = Arc::new(AtomicBool::new(false));
        let broken = Arc::clone(&break_now);
        let pool = ThreadPoolExecutor::builder()
            .max_workers(1)
            .initializer(move || assert!(!broken.load(SeqCst), "as this test wants it"))
            .build()
            .unwrap();
        let (puppet, drops) = (Puppet::new(), Drops::new());
        let suspended = pool.spawn(puppet.future(drops.token()));
        puppet.waker();
        let plug = Plug::new(&pool, 1);
        break_now.store(true, SeqCst);
        let queued = pool.spawn(async { 1 });
        // The second worker comes now, and breaks the pool.
        pool.resize(2).unwrap();
        assert!(suspended.result().unwrap_err().is_broken());
        assert!(queued.result().unwrap_err().is_broken());
        assert_eq!(drops.count(), 1);
        plug.release();
        pool.shutdown(Shutdown::Wait).unwrap();
    });
}

#[test]
fn wake_ups_race_the_end() {
    guarded(|| {
        for round in rounds(300) {
            let pool = pool(2);
            let (promises, futures): (Vec<_>, Vec<_>) = (0..10)
                .map(|n| {
                    let (promise, told) = promise::<usize>();
                    (promise, pool.spawn(async move { told.await.unwrap() + n }))
                })
                .unzip();
            let setter = thread::spawn(move || {
                promises.into_iter().for_each(|promise| {
                    let _ = promise.set_result(1);
                })
            });
            (0..round).for_each(|_| std::hint::spin_loop());
            match round % 2 {
                0 => drop(pool),
                _ => pool.shutdown(Shutdown::CancelPending).unwrap(),
            }
            for (n, future) in futures.into_iter().enumerate() {
                match future.try_result().expect("the pool has ended") {
                    Ok(value) => assert_eq!(value, n + 1),
                    Err(error) => assert!(error.is_cancelled() && round % 2 == 1),
                }
            }
            setter.join().unwrap();
        }
    });
}

#[test]
fn spawning_races_the_end() {
    guarded(|| {
        for round in rounds(300) {
            let pool = Arc::new(pool(2));
            let spawners: Vec<_> = (0..2)
                .map(|_| {
                    let pool = Arc::clone(&pool);
                    thread::spawn(move || {
                        let spawn = |n| {
                            pool.spawn(async move {
                                yield_now().await;
                                n
                            })
                        };
                        (0..20).map(spawn).collect::<Vec<_>>()
                    })
                })
                .collect();
            (0..round * 10).for_each(|_| std::hint::spin_loop());
            let how = [Shutdown::Wait, Shutdown::CancelPending, Shutdown::NoWait][round % 3];
            pool.shutdown(how).unwrap();
            for spawner in spawners {
                for (n, future) in spawner.join().unwrap().into_iter().enumerate() {
                    match future.result() {
                        Ok(value) => assert_eq!(value, n),
                        Err(error) => assert!(error.is_shut_down() || error.is_cancelled()),
                    }
                }
            }
            pool.shutdown(Shutdown::Wait).unwrap();
            assert_eq!(pool.stats().spawned, 0);
        }
    });
}
