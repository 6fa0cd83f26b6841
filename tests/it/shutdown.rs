//! The ends of a pool: each mode, each moment, from anywhere.

use std::cell::RefCell;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use concurrent_futures::{ReturnWhen, Shutdown, ShutdownError, ThreadPoolExecutor, wait};

use crate::support::*;

thread_local! {
    static KEPT: RefCell<Option<Token>> = const { RefCell::new(None) };
}

/// Leaves a token in a thread-local of each of so many workers: who sees its drop has seen the thread's end.
fn leave_tokens(pool: &ThreadPoolExecutor, workers: usize) -> Drops {
    let drops = Drops::new();
    let tokens = drops.clone();
    on_each_worker(pool, workers, move || KEPT.set(Some(tokens.token())));
    assert_eq!(drops.count(), 0);
    drops
}

#[test]
fn run_after_shutdown() {
    guarded(|| {
        for how in every_shutdown(LIMIT) {
            let pool = pool(1);
            pool.submit(|| ()).result().unwrap();
            pool.shutdown(how).unwrap();
            assert!(pool.submit(|| 1).result().unwrap_err().is_shut_down());
            assert!(pool.task(|| 1).submit().result().unwrap_err().is_shut_down());
            let refused = pool.try_submit(|| 7).unwrap_err();
            assert!(refused.is_shut_down());
            assert_eq!(refused.into_inner()(), 7);
            assert!(pool.submit_all([|| 1]).pop().unwrap().result().unwrap_err().is_shut_down());
            assert!(pool.scope(|scope| scope.submit(|| 1).result()).unwrap_err().is_shut_down());
        }
    });
}

#[test]
fn what_is_refused_is_dropped_at_once() {
    guarded(|| {
        let (pool, drops) = (pool(1), Drops::new());
        pool.shutdown(Shutdown::Wait).unwrap();
        let token = drops.token();
        let future = pool.submit(move || drop(token));
        assert_eq!(drops.count(), 1);
        assert!(future.result().unwrap_err().is_shut_down());
    });
}

#[test]
fn hang_issue12364() {
    guarded(|| {
        let pool = pool(2);
        let futures: Vec<_> = (0..50).map(|n| pool.submit(move || n)).collect();
        pool.shutdown(Shutdown::Wait).unwrap();
        for (n, future) in futures.into_iter().enumerate() {
            assert_eq!(future.try_result().expect("it has run").unwrap(), n);
        }
    });
}

#[test]
fn cancel_futures() {
    guarded(|| {
        let pool = Arc::new(pool(2));
        let plug = Plug::new(&pool, 2);
        let drops = Drops::new();
        let futures: Vec<_> = (0..50)
            .map(|_| {
                let token = drops.token();
                pool.submit(move || drop(token))
            })
            .collect();
        let ender = {
            let pool = Arc::clone(&pool);
            thread::spawn(move || pool.shutdown(Shutdown::CancelPending))
        };
        // The workers are still busy: it is the shutdown that resolves all these.
        let waited = wait(futures, None, ReturnWhen::AllCompleted);
        assert!(waited.done.iter().all(|future| future.is_cancelled()));
        assert_eq!(drops.count(), 50);
        plug.release();
        ender.join().unwrap().unwrap();
    });
}

#[test]
fn cancel_futures_wait_false() {
    guarded(|| {
        let pool = pool(1);
        let plug = Plug::new(&pool, 1);
        let first = pool.submit(|| 1);
        pool.shutdown(Shutdown::NoWait).unwrap();
        assert!(!first.is_done());
        // What is queued can still be cancelled one by one.
        assert!(first.cancel());
        plug.release();
    });
}

#[test]
fn cancel_futures_and_no_wait() {
    guarded(|| {
        let pool = pool(1);
        let plug = Plug::new(&pool, 1);
        let queued = pool.submit(|| 1);
        pool.shutdown(Shutdown::CancelPendingNoWait).unwrap();
        assert!(queued.result().unwrap_err().is_cancelled());
        assert!(pool.submit(|| 2).result().unwrap_err().is_shut_down());
        assert!(pool.is_shut_down() && !pool.is_broken());
        plug.release();
        until(|| pool.stats().workers == 0);
    });
}

// It would hang: the plug is released after it.
#[test]
fn dropped_after_a_shutdown_that_did_not_wait_it_does_not_wait() {
    guarded(|| {
        for how in [Shutdown::NoWait, Shutdown::CancelPendingNoWait] {
            let name = format!("left{}", how == Shutdown::NoWait);
            let pool = ThreadPoolExecutor::builder().max_workers(1).name(&name).build().unwrap();
            let plug = Plug::new(&pool, 1);
            let queued = pool.submit(|| 1);
            pool.shutdown(how).unwrap();
            drop(pool);
            plug.release();
            assert_eq!(queued.result().is_ok(), how == Shutdown::NoWait);
            until(|| threads_named(&name) == 0);
        }
    });
}

// Of two ways to end a pool the one that waits does, whichever came first.
#[test]
fn a_shutdown_that_waits_does_so_after_one_that_does_not() {
    guarded(|| {
        let pool = pool(1);
        let (gate, ran) = (Gate::new(), Counter::new());
        let (behind, runs) = (gate.clone(), Arc::clone(&ran));
        let future = pool.submit(move || {
            behind.pass();
            runs.add();
        });
        pool.shutdown(Shutdown::NoWait).unwrap();
        gate.open();
        pool.shutdown(Shutdown::Wait).unwrap();
        assert!(future.is_done());
        assert_eq!(pool.stats().workers, 0);
    });
}

#[test]
fn hang_gh94440() {
    guarded(|| {
        for _ in 0..200 {
            let pool = pool(1);
            assert_eq!(pool.submit(|| 1).result().unwrap(), 1);
            let future = pool.submit(|| 2);
            let cancelled = future.cancel();
            pool.shutdown(Shutdown::Wait).unwrap();
            assert_eq!(future.is_cancelled(), cancelled);
        }
    });
}

#[test]
fn threads_terminate() {
    guarded(|| {
        let pool = pool(5);
        let drops = leave_tokens(&pool, 3);
        assert_eq!(pool.stats().workers, 3);
        pool.shutdown(Shutdown::Wait).unwrap();
        assert_eq!(drops.count(), 3);
        assert_eq!(pool.stats().workers, 0);
    });
}

#[test]
fn context_manager_shutdown() {
    guarded(|| {
        let drops;
        {
            let pool = pool(5);
            drops = leave_tokens(&pool, 5);
            let doubled: Vec<_> = pool.map(|n: i32| 2 * n, -5..5).map(Result::unwrap).collect();
            assert_eq!(doubled, (-5..5).map(|n| 2 * n).collect::<Vec<_>>());
        }
        assert_eq!(drops.count(), 5);
    });
}

#[test]
fn del_shutdown() {
    guarded(|| {
        let pool = pool(2);
        let gate = Gate::new();
        let behind = gate.clone();
        let first = pool.submit(move || behind.pass());
        let futures: Vec<_> = (0..10_000u64).map(|n| pool.submit(move || n)).collect();
        let results = pool.map(|n: u64| n + 1, 0..100);
        gate.open();
        drop(pool);
        assert!(first.is_done());
        let sum: u64 = futures.into_iter().map(|future| future.try_result().expect("it has run").unwrap()).sum();
        assert_eq!(sum, 9_999 * 10_000 / 2);
        assert_eq!(results.map(Result::unwrap).sum::<u64>(), 5050);
    });
}

#[test]
fn shutdown_no_wait() {
    guarded(|| {
        let pool = ThreadPoolExecutor::builder().max_workers(2).name("nowait").build().unwrap();
        let plug = Plug::new(&pool, 2);
        let futures: Vec<_> = (0..20).map(|n| pool.submit(move || n)).collect();
        pool.shutdown(Shutdown::NoWait).unwrap();
        assert!(futures.iter().all(|future| !future.is_done()));
        plug.release();
        assert_eq!(futures.into_iter().map(|future| future.result().unwrap()).sum::<i32>(), 190);
        until(|| pool.stats().workers == 0);
        until(|| threads_named("nowait_") == 0);
    });
}

#[test]
fn thread_names_assigned() {
    guarded(|| {
        let pool = ThreadPoolExecutor::builder().max_workers(5).name("special").build().unwrap();
        let mut names = names(&pool, 5);
        names.sort();
        assert_eq!(names, ["special_0", "special_1", "special_2", "special_3", "special_4"]);
    });
}

#[test]
fn thread_names_default() {
    guarded(|| {
        let (one, two) = (pool(2), pool(1));
        let name = names(&one, 2).remove(0);
        let (prefix, number) = name.rsplit_once('_').unwrap();
        assert!(["0", "1"].contains(&number), "{name}");
        let count = prefix.strip_prefix("ThreadPoolExecutor-").unwrap();
        count.parse::<usize>().unwrap();
        assert!(!names(&two, 1).remove(0).starts_with(&format!("{prefix}_")), "two pools have one name");
    });
}

/// What the threads of so many workers are called.
fn names(pool: &ThreadPoolExecutor, workers: usize) -> Vec<String> {
    on_each_worker(pool, workers, || thread::current().name().unwrap().to_owned())
}

#[test]
fn twice_is_as_good_as_once() {
    guarded(|| {
        let pool = pool(2);
        let future = pool.submit(|| 1);
        for how in [Shutdown::NoWait, Shutdown::Wait, Shutdown::CancelPending, Shutdown::Wait, Shutdown::Within(LIMIT)]
        {
            pool.shutdown(how).unwrap();
        }
        assert_eq!(future.result().unwrap(), 1);
    });
}

#[test]
fn from_eight_threads_at_once() {
    guarded(|| {
        for round in 0..50 {
            let pool = Arc::new(pool(3));
            let drops = leave_tokens(&pool, 3);
            let futures: Vec<_> = (0..100).map(|n| pool.submit(move || n)).collect();
            let start = Arc::new(Barrier::new(8));
            let enders: Vec<_> = (0..8)
                .map(|n| {
                    let (pool, start, drops) = (Arc::clone(&pool), Arc::clone(&start), drops.clone());
                    let how = if round % 2 == 0 || n % 2 == 0 { Shutdown::Wait } else { Shutdown::CancelPending };
                    thread::spawn(move || {
                        start.wait();
                        pool.shutdown(how).unwrap();
                        assert_eq!(drops.count(), 3, "a caller came back before the threads were gone");
                    })
                })
                .collect();
            enders.into_iter().for_each(|ender| ender.join().unwrap());
            for (n, future) in futures.into_iter().enumerate() {
                match future.try_result().expect("everything is resolved") {
                    Ok(value) => assert_eq!(value, n),
                    Err(error) => assert!(round % 2 == 1 && error.is_cancelled(), "{error}"),
                }
            }
        }
    });
}

#[test]
fn submit_races_shutdown() {
    guarded(|| {
        for round in rounds(300) {
            let pool = Arc::new(pool(2));
            let start = Arc::new(Barrier::new(4));
            let ran = Counter::new();
            let submitters: Vec<_> = (0..3)
                .map(|_| {
                    let (pool, start, ran) = (Arc::clone(&pool), Arc::clone(&start), Arc::clone(&ran));
                    thread::spawn(move || {
                        start.wait();
                        let submit = |_| {
                            let ran = Arc::clone(&ran);
                            pool.submit(move || ran.add())
                        };
                        (0..50).map(submit).collect::<Vec<_>>()
                    })
                })
                .collect();
            start.wait();
            for _ in 0..round * 10 {
                std::hint::spin_loop();
            }
            let how = if round % 2 == 0 { Shutdown::Wait } else { Shutdown::CancelPending };
            pool.shutdown(how).unwrap();
            let (mut accepted, mut rejected) = (0, 0);
            for future in submitters.into_iter().flat_map(|submitter| submitter.join().unwrap()) {
                match future.result() {
                    Ok(()) => accepted += 1,
                    Err(error) if error.is_shut_down() => rejected += 1,
                    Err(error) => {
                        assert!(round % 2 == 1 && error.is_cancelled(), "{error}");
                        rejected += 1;
                    }
                }
            }
            assert_eq!(accepted + rejected, 150);
            assert_eq!(ran.get(), accepted);
        }
    });
}

#[test]
fn within_is_enough() {
    guarded(|| {
        let pool = pool(1);
        let future = pool.submit(|| 1);
        pool.shutdown(Shutdown::Within(LIMIT)).unwrap();
        assert_eq!(future.try_result().unwrap().unwrap(), 1);
    });
}

#[test]
fn within_is_not_enough() {
    guarded(|| {
        let pool = pool(2);
        let plug = Plug::new(&pool, 2);
        let queued = pool.submit(|| 1);
        let time = Duration::from_millis(5);
        match pool.shutdown(Shutdown::Within(time)).unwrap_err() {
            ShutdownError::TimedOut { running, waited } => {
                assert_eq!(running, 2);
                assert!(waited >= time);
            }
            other => panic!("{other}"),
        }
        assert!(queued.result().unwrap_err().is_cancelled());
        plug.release();
        pool.shutdown(Shutdown::Wait).unwrap();
    });
}

#[test]
fn within_no_limit_at_all() {
    guarded(|| {
        let pool = pool(1);
        let future = pool.submit(|| 1);
        pool.shutdown(Shutdown::Within(Duration::MAX)).unwrap();
        assert_eq!(future.result().unwrap(), 1);
    });
}

#[test]
fn of_a_pool_that_never_started() {
    guarded(|| {
        for how in every_shutdown(Duration::ZERO) {
            pool(3).shutdown(how).unwrap();
        }
    });
}

#[test]
fn from_inside_a_task() {
    guarded(|| {
        for how in [Shutdown::Wait, Shutdown::CancelPending, Shutdown::Within(LIMIT)] {
            let pool = Arc::new(pool(1));
            let inner = Arc::clone(&pool);
            let inside = pool.submit(move || inner.shutdown(how));
            assert_eq!(inside.result().unwrap(), Err(ShutdownError::WouldDeadlock));
            assert!(pool.submit(|| ()).result().unwrap_err().is_shut_down(), "it is closed all the same");
        }
        let pool = Arc::new(pool(1));
        let inner = Arc::clone(&pool);
        assert_eq!(pool.submit(move || inner.shutdown(Shutdown::NoWait)).result().unwrap(), Ok(()));
    });
}

#[test]
fn from_a_task_of_another_pool() {
    guarded(|| {
        let (one, two) = (pool(1), pool(1));
        let future = two.submit(|| 1);
        one.submit(move || two.shutdown(Shutdown::Wait)).result().unwrap().unwrap();
        assert_eq!(future.result().unwrap(), 1);
    });
}

#[test]
fn the_last_handle_dropped_inside_a_task() {
    guarded(|| {
        for workers in 1..3 {
            let pool = Arc::new(pool(workers));
            let (alone, drops) = (Gate::new(), leave_tokens(&pool, workers));
            let (inner, gate) = (Arc::clone(&pool), alone.clone());
            let queued: Vec<_> = {
                let plug = Plug::new(&pool, workers);
                let first = pool.submit(move || {
                    gate.pass();
                    let queued = inner.submit(|| 7);
                    drop(Arc::into_inner(inner).expect("it is the last one"));
                    queued
                });
                let second = pool.submit(|| ());
                drop(pool);
                alone.open();
                plug.release();
                second.result().unwrap();
                vec![first]
            };
            for future in queued {
                // What it had submitted itself runs as well.
                assert_eq!(future.result().unwrap().result().unwrap(), 7);
            }
            until(|| drops.count() == workers);
        }
    });
}

#[test]
fn dropped_while_unwinding_it_cancels_what_has_not_started() {
    guarded(|| {
        let (started, go_on, drops) = (Gate::new(), Gate::new(), Drops::new());
        let (gate, tokens) = (go_on.clone(), drops.clone());
        let (sent, futures) = std::sync::mpsc::channel();
        let panicking = thread::spawn(move || {
            let pool = pool(1);
            let running = {
                let started = started.clone();
                pool.submit(move || {
                    started.open();
                    gate.pass();
                })
            };
            started.pass();
            let queued = (0..10).map(|_| {
                let token = tokens.token();
                pool.submit(move || drop(token))
            });
            sent.send((running, queued.collect::<Vec<_>>())).unwrap();
            panic!("this thread panics, as this test wants it");
        });
        let (running, queued) = futures.recv().unwrap();
        // The drop of the pool waits for the task that runs, but it has cancelled the others.
        let waited = wait(queued, None, ReturnWhen::AllCompleted);
        assert!(waited.done.iter().all(|future| future.is_cancelled()));
        assert_eq!(drops.count(), 10);
        assert!(!running.is_done());
        go_on.open();
        assert!(panicking.join().is_err());
        running.try_result().expect("the pool was joined").unwrap();
    });
}
