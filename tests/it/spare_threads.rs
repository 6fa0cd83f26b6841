//! Spare threads: what runs on them, how many there are, and when they end.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use concurrent_futures::{
    MapOptions, QueuePolicy, ReturnWhen, Shutdown, ShutdownError, TaskFuture, ThreadPoolExecutor, as_completed,
    block_on, promise, wait,
};

use crate::support::*;

/// Runs `f` in a task of a pool of so many workers, with the pool; the other workers are busy all the time.
fn with_the_others_busy<R: Send + 'static>(
    workers: usize,
    f: impl FnOnce(&Arc<ThreadPoolExecutor>) -> R + Send + 'static,
) -> R {
    guarded(move || {
        let pool = Arc::new(pool(workers));
        let _plug = Plug::new(&pool, workers - 1);
        let inner = Arc::clone(&pool);
        pool.submit(move || f(&inner)).result().unwrap()
    })
}

/// Waits until all spare threads have ended.
fn until_none(pool: &ThreadPoolExecutor) {
    until(|| pool.stats().spare_threads == 0);
}

/// All the ways to wait that run nothing on the waiting thread, for what ends in time.
const WAYS: usize = 8;

fn wait_for(way: usize, pool: &Arc<ThreadPoolExecutor>, future: TaskFuture<thread::ThreadId>) -> thread::ThreadId {
    let never = || {
        let (promise, future) = promise();
        std::mem::forget(promise);
        future
    };
    match way {
        0 => future.result_timeout(LIMIT).unwrap().unwrap(),
        1 => *future.shared().get_timeout(LIMIT).unwrap().unwrap(),
        2 => wait([future], Some(LIMIT), ReturnWhen::AllCompleted).done.remove(0).result().unwrap(),
        3 => wait([never(), future], None, ReturnWhen::FirstCompleted).done.remove(0).result().unwrap(),
        4 => as_completed([never(), future]).next().unwrap().result().unwrap(),
        5 => block_on(future).unwrap(),
        6 => pool.spawn(future).result().unwrap().unwrap(),
        _ => pool.spawn(future).result_timeout(LIMIT).unwrap().unwrap().unwrap(),
    }
}

#[test]
fn a_queued_task_runs_on_a_spare_thread() {
    for way in 0..WAYS {
        for workers in [1, 3] {
            with_the_others_busy(workers, move |pool| {
                let before = pool.stats().completed;
                let ran_on = wait_for(way, pool, pool.submit(|| thread::current().id()));
                assert_ne!(ran_on, thread::current().id());
                assert!(pool.stats().completed > before);
                until_none(pool);
                let polled_on = wait_for(way, pool, pool.spawn(async { thread::current().id() }));
                assert_ne!(polled_on, thread::current().id());
                until_none(pool);
            });
        }
    }
}

#[test]
fn unconditional_waits_run_tasks_in_place() {
    with_the_others_busy(2, |pool| {
        let own = thread::current().id();
        let submit = || pool.submit(|| thread::current().id());
        assert_eq!(submit().result().unwrap(), own);
        assert_eq!(submit().shared().result().unwrap(), own);
        let waited = wait([submit(), submit()], None, ReturnWhen::AllCompleted);
        assert!(waited.done.into_iter().all(|future| future.result().unwrap() == own));
        assert_eq!(as_completed([submit()]).next().unwrap().result().unwrap(), own);
        assert_eq!(pool.scope(|scope| scope.submit(|| thread::current().id()).result().unwrap()), own);
        assert_eq!(pool.map(|()| thread::current().id(), [()]).next().unwrap().unwrap(), own);
        assert_eq!(pool.spawn(async { thread::current().id() }).result().unwrap(), own);
        assert_eq!(pool.stats().spare_threads, 0);
    });
}

#[test]
fn a_map_with_a_time_out_runs_on_a_spare_thread() {
    with_the_others_busy(2, |pool| {
        let own = thread::current().id();
        for ordered in [true, false] {
            let options = MapOptions::new().timeout(LIMIT).ordered(ordered);
            let map = pool.map_with(options, |_| thread::current().id(), 0..1000).unwrap();
            assert!(map.map(Result::unwrap).all(|id| id != own));
        }
        let map = pool.map_with(MapOptions::new().ordered(false), |_| thread::current().id(), 0..1000).unwrap();
        assert_eq!(map.map(Result::unwrap).count(), 1000);
        until_none(pool);
    });
}

// Whatever else is queued stays there.
#[test]
fn nothing_unrelated_runs_on_a_spare_thread() {
    with_the_others_busy(2, |pool| {
        let unrelated = Counter::new();
        let submit_unrelated = || {
            let unrelated = Arc::clone(&unrelated);
            pool.submit(move || unrelated.add()).detach();
        };
        (0..10).for_each(|_| submit_unrelated());
        let futures: Vec<_> = (0..10).map(|n| pool.submit(move || n)).collect();
        (0..10).for_each(|_| submit_unrelated());
        let waited = wait(futures, Some(LIMIT), ReturnWhen::AllCompleted);
        assert_eq!(waited.done.len(), 10);
        until_none(pool);
        assert_eq!(unrelated.get(), 0);
    });
}

#[test]
fn at_most_one_for_each_blocked_worker() {
    guarded(|| {
        const WORKERS: usize = 3;
        let pool = Arc::new(pool(WORKERS));
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let all = Arc::new(std::sync::Barrier::new(WORKERS));
        let waiters: Vec<_> = (0..WORKERS)
            .map(|_| {
                let (inner, now, most, all) =
                    (Arc::clone(&pool), Arc::clone(&now), Arc::clone(&most), Arc::clone(&all));
                pool.submit(move || {
                    all.wait();
                    let futures: Vec<_> = (0..50)
                        .map(|_| {
                            let (pool, now, most) = (Arc::clone(&inner), Arc::clone(&now), Arc::clone(&most));
                            inner.submit(move || {
                                most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                                assert!(pool.stats().spare_threads <= WORKERS);
                                thread::yield_now();
                                now.fetch_sub(1, SeqCst);
                            })
                        })
                        .collect();
                    all.wait();
                    let waited = wait(futures, Some(LIMIT), ReturnWhen::AllCompleted);
                    assert!(waited.not_done.is_empty());
                    assert!(waited.done.into_iter().all(|future| future.result().is_ok()));
                })
            })
            .collect();
        waiters.into_iter().for_each(|waiter| waiter.result().unwrap());
        assert!(most.load(SeqCst) <= 2 * WORKERS);
        until_none(&pool);
        assert_eq!(pool.stats().workers, WORKERS);
    });
}

// W1 waits for any of what is queued, and W2 is free. W2 takes something else, which waits for the task of W1.
#[test]
fn a_free_worker_takes_something_else() {
    guarded(|| {
        for _ in rounds(200) {
            let pool = Arc::new(pool(2));
            // Started, and free again.
            Plug::new(&pool, 2).release();
            let (inner, go_on) = (Arc::clone(&pool), Gate::new());
            let done = go_on.clone();
            let waiter = pool.submit(move || {
                let gate = go_on.clone();
                inner.task(move || gate.pass()).priority(concurrent_futures::Priority::High).submit().detach();
                let futures = [inner.submit(|| 1), inner.submit(|| 2)];
                let waited = wait(futures, None, ReturnWhen::FirstCompleted);
                go_on.open();
                waited.done.len()
            });
            assert!(waiter.result().unwrap() > 0);
            assert!(done.is_open());
        }
    });
}

#[test]
fn a_free_worker_is_removed_by_resize() {
    guarded(|| {
        for _ in rounds(50) {
            let pool = Arc::new(pool(2));
            Plug::new(&pool, 2).release();
            let inner = Arc::clone(&pool);
            let waiter = pool.submit(move || {
                let futures = [inner.submit(|| 1), inner.submit(|| 2)];
                inner.resize(1).unwrap();
                wait(futures, Some(LIMIT), ReturnWhen::AllCompleted).done.len()
            });
            assert_eq!(waiter.result().unwrap(), 2);
        }
    });
}

#[test]
fn initializer_and_finalizer_run_on_spare_threads() {
    guarded(|| {
        let (begun, ended) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let (at_begin, at_end) = (Arc::clone(&begun), Arc::clone(&ended));
        let pool = ThreadPoolExecutor::builder()
            .max_workers(1)
            .initializer(move || at_begin.lock().unwrap().push(thread::current().id()))
            .finalizer(move || at_end.lock().unwrap().push(thread::current().id()))
            .build()
            .unwrap();
        let pool = Arc::new(pool);
        let inner = Arc::clone(&pool);
        let on_spare = pool.submit(move || {
            let id = inner.submit(|| thread::current().id()).result_timeout(LIMIT).unwrap().unwrap();
            until_none(&inner);
            id
        });
        let on_spare = on_spare.result().unwrap();
        assert_eq!(begun.lock().unwrap().len(), 2);
        assert_eq!(begun.lock().unwrap()[1], on_spare);
        assert_eq!(*ended.lock().unwrap(), [on_spare]);
        drop(pool);
        assert_eq!(begun.lock().unwrap().iter().collect::<HashSet<_>>(), ended.lock().unwrap().iter().collect());
    });
}

#[test]
fn an_initializer_that_fails_on_a_spare_thread_breaks_the_pool() {
    guarded(|| {
        let calls = AtomicUsize::new(0);
        let initializer = move || assert_eq!(calls.fetch_add(1, SeqCst), 0, "as this test wants it");
        let pool = Arc::new(ThreadPoolExecutor::builder().max_workers(1).initializer(initializer).build().unwrap());
        let inner = Arc::clone(&pool);
        let task = pool.submit(move || {
            let error = inner.submit(|| 1).result_timeout(LIMIT).unwrap().unwrap_err();
            assert!(error.is_broken(), "{error}");
            until_none(&inner);
            let error = inner.submit(|| 1).result_timeout(LIMIT).unwrap().unwrap_err();
            assert!(error.is_broken(), "{error}");
        });
        task.result().unwrap();
    });
}

#[test]
fn a_spawned_future_whose_spare_thread_cannot_begin_is_broken() {
    guarded(|| {
        let calls = AtomicUsize::new(0);
        let initializer = move || assert_eq!(calls.fetch_add(1, SeqCst), 0, "as this test wants it");
        let pool = Arc::new(ThreadPoolExecutor::builder().max_workers(1).initializer(initializer).build().unwrap());
        let inner = Arc::clone(&pool);
        let drops = Drops::new();
        let token = drops.token();
        let task = pool.submit(move || {
            let future = inner.spawn(async move { token.touch() });
            let error = future.result_timeout(LIMIT).unwrap().unwrap_err();
            assert!(error.is_broken(), "{error}");
        });
        task.result().unwrap();
        drop(pool);
        assert_eq!(drops.count(), 1);
    });
}

// The task on the spare thread does all that a task does.
#[test]
fn a_task_on_a_spare_thread_uses_the_pool() {
    with_the_others_busy(1, |pool| {
        let inner = Arc::clone(pool);
        let task = pool.submit(move || {
            let own = thread::current().id();
            // It claims, as on a worker.
            assert_eq!(inner.submit(|| thread::current().id()).result().unwrap(), own);
            let (one, two) = inner.join(|| 1, || 2);
            let scoped = inner.scope(|scope| scope.submit(|| 3).result().unwrap());
            let mapped: u32 = inner.map(|n: u32| n, [4, 5]).map(Result::unwrap).sum();
            let spawned = inner.spawn(async { 6 }).result().unwrap();
            assert_eq!(inner.shutdown(Shutdown::Wait), Err(ShutdownError::WouldDeadlock));
            one + two + scoped + mapped + spawned
        });
        assert_eq!(task.result_timeout(LIMIT).unwrap().unwrap(), 21);
    });
}

#[test]
fn the_outcome_that_nobody_wants_is_dropped_where_the_task_ends() {
    with_the_others_busy(1, |pool| {
        for panics in [false, true] {
            let (drops, gate) = (Drops::new(), Gate::new());
            let (token, opened) = (drops.token(), gate.clone());
            let future = pool.submit(move || {
                opened.pass();
                assert!(!panics, "as this test wants it");
                token
            });
            drop(future.result_timeout(Duration::from_millis(1)).expect_err("the gate is shut"));
            gate.open();
            until_none(pool);
            assert_eq!(drops.count(), 1);
        }
    });
}

#[test]
fn shutdown_waits_for_spare_threads() {
    guarded(|| {
        for cancel in [false, true] {
            let pool = Arc::new(pool(1));
            let (inner, gate, begun) = (Arc::clone(&pool), Gate::new(), Gate::new());
            let ended = Arc::new(AtomicUsize::new(0));
            let (opened, started, seen) = (gate.clone(), begun.clone(), Arc::clone(&ended));
            let waiter = pool.submit(move || {
                let task = inner.submit(move || {
                    started.open();
                    opened.pass();
                    seen.fetch_add(1, SeqCst);
                });
                // The worker gives up; the spare thread does not.
                task.result_timeout(Duration::from_millis(1)).is_err()
            });
            assert!(waiter.result().unwrap());
            begun.pass();
            assert_eq!(pool.stats().spare_threads, 1);
            let error = pool.shutdown(Shutdown::Within(Duration::from_millis(1))).unwrap_err();
            assert!(matches!(error, ShutdownError::TimedOut { running: 1, .. }));
            assert_eq!(ended.load(SeqCst), 0);
            let opener = thread::spawn(move || gate.open());
            pool.shutdown(if cancel { Shutdown::CancelPending } else { Shutdown::Wait }).unwrap();
            assert_eq!(ended.load(SeqCst), 1);
            assert_eq!(pool.stats().spare_threads, 0);
            opener.join().unwrap();
        }
    });
}

// One level has a spare thread. Below it there is none to be had: waits for any of several run tasks in place.
#[test]
fn a_hundred_levels_that_wait_for_any() {
    fn level(pool: &Arc<ThreadPoolExecutor>, depth: usize) -> usize {
        if depth == 0 {
            return 0;
        }
        assert!(pool.stats().spare_threads <= 1);
        let inner = Arc::clone(pool);
        let (promise, never) = promise();
        let below = pool.submit(move || level(&inner, depth - 1) + 1);
        let done = wait([below, never], None, ReturnWhen::FirstCompleted).done.remove(0).result().unwrap();
        drop(promise);
        done
    }
    with_the_others_busy(1, |pool| assert_eq!(level(pool, 100), 100));
}

// The deepest ones time out one after the other, and each task ends.
#[test]
fn a_hundred_levels_with_deadlines_end() {
    fn level(pool: &Arc<ThreadPoolExecutor>, depth: usize) {
        if depth == 0 {
            return;
        }
        assert!(pool.stats().spare_threads <= 1);
        let inner = Arc::clone(pool);
        let _ = pool.submit(move || level(&inner, depth - 1)).result_timeout(Duration::from_millis(2));
    }
    with_the_others_busy(1, |pool| level(pool, 100));
}

// The spare thread is still at the task of the wait before.
#[test]
fn a_wait_with_a_deadline_ends_without_a_spare_thread() {
    with_the_others_busy(1, |pool| {
        let gate = Gate::new();
        let opened = gate.clone();
        let first = pool.submit(move || opened.pass());
        let first = first.result_timeout(Duration::from_millis(1)).expect_err("the gate is shut");
        let second = pool.submit(|| 2);
        let second = second.result_timeout(Duration::from_millis(1)).expect_err("nobody is there to run it");
        assert!(!second.is_running());
        // A wait for any runs it in place.
        let waited = wait([promise().1, second], None, ReturnWhen::FirstCompleted);
        assert_eq!(waited.done.len() + waited.not_done.len(), 2);
        gate.open();
        first.result().unwrap();
        // A wait that could not have a thread has one as soon as there is room.
        let (gate, third) = (Gate::new(), Gate::new());
        let opened = gate.clone();
        let blocks = pool.submit(move || opened.pass());
        let _blocks = blocks.result_timeout(Duration::from_millis(1)).expect_err("the gate is shut");
        let begun = third.clone();
        let opener = thread::spawn(move || gate.open());
        pool.submit(move || begun.open()).result_timeout(LIMIT).unwrap().unwrap();
        assert!(third.is_open());
        opener.join().unwrap();
    });
}

#[test]
fn no_thread_can_be_started() {
    const TEST: &str = "spare_threads::no_thread_can_be_started";
    if !is_child() {
        let output = in_child(TEST);
        assert!(output.status.success(), "{}", printed(&output));
        return;
    }
    guarded(|| {
        let pool = ThreadPoolExecutor::builder().max_workers(1).stack_size(1 << 30).build().unwrap();
        let pool = Arc::new(pool);
        pool.submit(|| ()).result().unwrap();
        limit_address_space(512 << 20);
        let inner = Arc::clone(&pool);
        let task = pool.submit(move || {
            let own = thread::current().id();
            // A wait with a deadline ends there.
            let future = inner.submit(|| thread::current().id());
            let future = future.result_timeout(Duration::from_millis(1)).expect_err("nobody can run it");
            // All others run the task themselves.
            let (promise, never) = promise();
            let waited = wait([future, never], None, ReturnWhen::FirstCompleted);
            assert_eq!(waited.done.into_iter().next().unwrap().result().unwrap(), own);
            drop(promise);
            assert_eq!(block_on(inner.submit(|| thread::current().id())).unwrap(), own);
            let deeper = Arc::clone(&inner);
            let spawned = inner.spawn(async move { deeper.submit(|| thread::current().id()).await.unwrap() });
            assert_eq!(spawned.result().unwrap(), own);
            assert_eq!(inner.stats().spare_threads, 0);
        });
        task.result().unwrap();
    });
}

// A future that was claimed for a spare thread and has not been polled can still be cancelled.
#[test]
fn cancelled_before_the_spare_thread_polls_it() {
    guarded(|| {
        let (gate, spare) = (Gate::new(), Gate::new());
        let (opened, begun, calls) = (gate.clone(), spare.clone(), AtomicUsize::new(0));
        let initializer = move || {
            if calls.fetch_add(1, SeqCst) == 1 {
                begun.open();
                opened.pass();
            }
        };
        let pool = Arc::new(ThreadPoolExecutor::builder().max_workers(1).initializer(initializer).build().unwrap());
        let inner = Arc::clone(&pool);
        let (tx, rx) = mpsc::channel();
        let puppet = Puppet::new();
        let polled = puppet.clone();
        let task = pool.submit(move || {
            let future = inner.spawn(polled.future(Drops::new().token())).shared();
            tx.send(future.clone()).unwrap();
            future.get_timeout(LIMIT).unwrap().unwrap_err().is_cancelled()
        });
        let future = rx.recv().unwrap();
        spare.pass();
        assert!(future.cancel());
        gate.open();
        assert!(task.result().unwrap());
        assert_eq!(puppet.polls(), 0);
    });
}

// It polls such a future 64 times in a row at most, so that whatever else the wait waits for has its turn.
#[test]
fn a_future_that_yields_is_polled_by_one_spare_thread() {
    with_the_others_busy(2, |pool| {
        for (yields, most) in [(50, 1), (100, 2)] {
            let ids = Arc::new(Mutex::new(HashSet::new()));
            let seen = Arc::clone(&ids);
            let future = pool.spawn(async move {
                for _ in 0..yields {
                    seen.lock().unwrap().insert(thread::current().id());
                    yield_now().await;
                }
            });
            future.result_timeout(LIMIT).unwrap().unwrap();
            let threads = ids.lock().unwrap().len();
            assert!((1..=most).contains(&threads), "{yields} polls on {threads} threads");
        }
    });
}

#[test]
fn other_pools_and_threads_are_not_concerned() {
    guarded(|| {
        let (one, two) = (Arc::new(pool(1)), Arc::new(pool(1)));
        let plug = Plug::new(&two, 1);
        let other = Arc::clone(&two);
        let task = one.submit(move || {
            let future = other.submit(|| 1);
            future.result_timeout(Duration::from_millis(5)).is_err()
        });
        assert!(task.result().unwrap());
        assert!(two.submit(|| 1).result_timeout(Duration::from_millis(5)).is_err());
        assert_eq!((one.stats().spare_threads, two.stats().spare_threads), (0, 0));
        plug.release();
    });
}

#[test]
fn a_full_queue_runs_the_task_in_place_as_ever() {
    guarded(|| {
        let pool = ThreadPoolExecutor::builder().max_workers(1).queue_capacity(1, QueuePolicy::Block).build().unwrap();
        let pool = Arc::new(pool);
        let inner = Arc::clone(&pool);
        let task = pool.submit(move || {
            let own = thread::current().id();
            let queued = inner.submit(|| thread::current().id());
            let in_place = inner.submit(|| thread::current().id());
            assert_eq!(in_place.result_timeout(LIMIT).unwrap().unwrap(), own);
            assert_ne!(queued.result_timeout(LIMIT).unwrap().unwrap(), own);
        });
        task.result().unwrap();
    });
}

// Random waits of all kinds in tasks that wait for each other: all of it ends, and nothing runs twice.
#[test]
fn many_waits_at_once() {
    fn tree(pool: &Arc<ThreadPoolExecutor>, depth: usize, count: &Arc<AtomicUsize>) {
        count.fetch_add(1, SeqCst);
        if depth == 0 {
            return;
        }
        let child = |_| {
            let (inner, count) = (Arc::clone(pool), Arc::clone(count));
            pool.submit(move || tree(&inner, depth - 1, &count))
        };
        let futures: Vec<_> = (0..3).map(child).collect();
        match (depth + count.load(SeqCst)) % 4 {
            0 => as_completed(futures).for_each(|future| future.result().unwrap()),
            1 => {
                // Not in a loop: where there are as many spare threads as there may be, nobody might ever run them.
                let waited = wait(futures, Some(Duration::from_micros(100)), ReturnWhen::FirstCompleted);
                let all = waited.done.into_iter().chain(waited.not_done);
                all.for_each(|future| future.result().unwrap());
            }
            2 => block_on(async {
                for future in futures {
                    future.await.unwrap();
                }
            }),
            _ => futures.into_iter().for_each(|future| {
                if let Err(late) = future.result_timeout(Duration::from_micros(100)) {
                    late.result().unwrap();
                }
            }),
        }
    }
    guarded(|| {
        for round in rounds(30) {
            let pool = Arc::new(pool(1 + round % 3));
            let count = Arc::new(AtomicUsize::new(0));
            let (inner, counted) = (Arc::clone(&pool), Arc::clone(&count));
            pool.submit(move || tree(&inner, 4, &counted)).result().unwrap();
            assert_eq!(count.load(SeqCst), 1 + 3 + 9 + 27 + 81);
        }
    });
}

// A spare thread that was about to end goes on, while another wait relies on its end.
#[test]
fn a_spare_thread_that_stays_is_waited_for_no_more() {
    use std::sync::atomic::AtomicBool;
    // What follows happens within a millisecond, if at all.
    fn spin_until(flag: &AtomicBool) {
        while !flag.load(SeqCst) {
            std::hint::spin_loop();
        }
    }
    guarded(|| {
        for round in rounds(1000) {
            let pool = Arc::new(pool(2));
            // Two workers, each with a wait whose task a spare thread runs.
            let workers = Arc::new(std::sync::Barrier::new(2));
            let both = Arc::new(std::sync::Barrier::new(2));
            let (done, waits) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
            let go_on = Gate::new();
            let one = {
                let (inner, both, done, waits, go_on) =
                    (Arc::clone(&pool), Arc::clone(&both), Arc::clone(&done), Arc::clone(&waits), go_on.clone());
                let begins = Arc::clone(&workers);
                pool.submit(move || {
                    begins.wait();
                    let deeper = Arc::clone(&inner);
                    let task = inner.submit(move || {
                        both.wait();
                        let (kept, never) = promise::<()>();
                        spin_until(&done);
                        waits.store(true, SeqCst);
                        let waited = wait([deeper.submit(|| ()), never], None, ReturnWhen::FirstCompleted);
                        drop(kept);
                        go_on.open();
                        waited.done.len()
                    });
                    assert_eq!(task.result_timeout(LIMIT).unwrap().unwrap(), 1);
                })
            };
            let two = {
                let (inner, both) = (Arc::clone(&pool), Arc::clone(&both));
                pool.submit(move || {
                    workers.wait();
                    let (kept, never) = promise::<()>();
                    let reached = Arc::clone(&both);
                    let first = inner.submit(move || {
                        reached.wait();
                    });
                    let second = inner.submit(move || go_on.pass());
                    let mut completed = as_completed([first, second, never]);
                    completed.next().unwrap().result().unwrap();
                    // The spare thread of this wait has nothing to do, and the other wait may count on its end.
                    done.store(true, SeqCst);
                    spin_until(&waits);
                    (0..100 * (round % 50)).for_each(|_| std::hint::spin_loop());
                    completed.next().unwrap().result().unwrap();
                    drop(kept);
                })
            };
            one.result().unwrap();
            two.result().unwrap();
        }
    });
}

// The pool lets go of its initializer when it takes nothing more, but not before the last thread that may run a task.
#[test]
fn no_task_runs_on_a_spare_thread_without_the_initializer() {
    thread_local!(static READY: std::cell::Cell<bool> = const { std::cell::Cell::new(false) });
    guarded(|| {
        for round in rounds(300) {
            let pool = ThreadPoolExecutor::builder().max_workers(1).initializer(|| READY.set(true)).build().unwrap();
            let (pool, about) = (Arc::new(pool), Arc::new(std::sync::Barrier::new(2)));
            let (inner, begins) = (Arc::clone(&pool), Arc::clone(&about));
            let task = pool.submit(move || {
                let future = inner.submit(|| READY.get());
                begins.wait();
                future.result_timeout(LIMIT).unwrap()
            });
            about.wait();
            (0..100 * (round % 100)).for_each(|_| std::hint::spin_loop());
            pool.shutdown(Shutdown::CancelPending).unwrap();
            match task.result().unwrap() {
                Ok(ready) => assert!(ready, "round {round}"),
                Err(error) => assert!(error.is_cancelled(), "{error}"),
            }
        }
    });
}
