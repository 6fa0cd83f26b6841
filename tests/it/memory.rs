//! Many tasks, deep structures, and nothing left behind.

use std::sync::Arc;

use concurrent_futures::{Priority, QueuePolicy, ReturnWhen, Shutdown, TaskFuture, promise, wait};
use parking_lot::Mutex;

use crate::support::*;

#[test]
fn a_million_pending_tasks_are_cancelled() {
    guarded(|| {
        const TASKS: usize = 1_000_000;
        let pool = Arc::new(pool(1));
        let plug = Plug::new(&pool, 1);
        let drops = Drops::new();
        let futures = pool.submit_all((0..TASKS).map(|_| {
            let token = drops.token();
            move || drop(token)
        }));
        let inner = Arc::clone(&pool);
        let ender = std::thread::spawn(move || inner.shutdown(Shutdown::CancelPending));
        let waited = wait(futures, None, ReturnWhen::AllCompleted);
        assert_eq!(waited.done.len(), TASKS);
        assert!(waited.done.iter().all(TaskFuture::is_cancelled));
        assert_eq!(drops.count(), TASKS);
        plug.release();
        ender.join().unwrap().unwrap();
    });
}

#[test]
fn many_tasks_cancelled_by_their_handles() {
    guarded(|| {
        const TASKS: usize = 100_000;
        let pool = pool(1);
        let plug = Plug::new(&pool, 1);
        let drops = Drops::new();
        let submit = |_| {
            let token = drops.token();
            pool.submit(move || drop(token)).cancel_on_drop()
        };
        let futures: Vec<_> = (0..TASKS).map(submit).collect();
        drop(futures);
        assert_eq!(drops.count(), TASKS);
        plug.release();
        pool.shutdown(Shutdown::Wait).unwrap();
        assert_eq!((pool.stats().queued, pool.stats().completed), (0, 1));
    });
}

// The closure of each task owns the handle of the one before. Whoever drops the last drops them all, on a small stack.
#[test]
fn a_long_chain_of_handles_is_dropped() {
    const LENGTH: usize = 10_000;
    fn chain() -> (concurrent_futures::Promise<()>, TaskFuture<()>) {
        let (first, mut last) = promise::<()>();
        for _ in 0..LENGTH {
            let (next, future) = promise::<()>();
            last.add_done_callback(move |_| drop(next));
            last = future;
        }
        (first, last)
    }
    // Not resolved: each callback owns the promise of the next future. A chain of values is dropped by recursion
    // everywhere in Rust, so what is asked for is only that each link costs little stack.
    let thread = std::thread::Builder::new().stack_size(64 << 20);
    let dropped = thread.spawn(|| {
        let (first, last) = chain();
        drop(first);
        assert!(last.result().unwrap_err().is_abandoned());
        let (first, last) = chain();
        drop(last);
        drop(first);
    });
    dropped.unwrap().join().unwrap();
}

#[test]
fn many_callbacks_and_waiters_on_one_future() {
    guarded(|| {
        const CALLBACKS: usize = 100_000;
        let (promise, future) = promise();
        let calls = Counter::new();
        for n in 0..CALLBACKS {
            let calls = Arc::clone(&calls);
            future.add_done_callback(move |_| {
                assert_eq!(calls.get(), n, "in the order of registration");
                calls.add();
            });
        }
        let future = future.shared();
        let clones: Vec<_> = (0..10_000).map(|_| future.clone()).collect();
        let waiter = std::thread::spawn(move || wait(clones, None, ReturnWhen::AllCompleted).done.len());
        promise.set_result(()).unwrap();
        assert_eq!((calls.get(), waiter.join().unwrap()), (CALLBACKS, 10_000));
    });
}

#[test]
fn many_pools_one_after_the_other_leave_no_threads() {
    guarded(|| {
        for n in 0..300 {
            let pool = concurrent_futures::ThreadPoolExecutor::builder();
            let pool = pool.max_workers(2).name("passing").build().unwrap();
            assert_eq!(pool.submit(move || n).result().unwrap(), n);
        }
        until(|| threads_named("passing_") == 0);
    });
}

/// The resident pages of this process.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("proc is mounted");
    statm.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_pool_that_works_on_and_on_does_not_grow() {
    const TEST: &str = "memory::a_pool_that_works_on_and_on_does_not_grow";
    if !is_child() {
        let output = guarded(|| in_child(TEST));
        assert!(output.status.success(), "{}", printed(&output));
        return;
    }
    guarded(|| {
        const ROUNDS: usize = 100;
        const TASKS: usize = 2000;
        let pool = pool(2);
        let mut settled = 0;
        for round in 0..ROUNDS {
            let futures = pool.submit_all((0..TASKS).map(|n| move || vec![n; 16]));
            for (n, future) in futures.into_iter().enumerate() {
                match n % 4 {
                    0 => drop(future),
                    1 => drop(future.cancel()),
                    2 => drop(future.shared().get().unwrap().len()),
                    _ => assert_eq!(future.result().unwrap()[0], n),
                }
            }
            assert_eq!(pool.map(|n: usize| n, 0..TASKS).filter(Result::is_ok).count(), TASKS);
            if round == ROUNDS / 5 {
                settled = resident();
            }
        }
        let grown = resident().saturating_sub(settled) * rustix::param::page_size() as u64;
        // A leak of 16 bytes for each task would be more.
        assert!(grown < 4 << 20, "{grown} bytes more than after the first rounds");
        assert!(threads_named("ThreadPoolExecu") <= 2);
    });
}

#[test]
fn a_million_awaited_futures_leave_nothing_behind() {
    const TEST: &str = "memory::a_million_awaited_futures_leave_nothing_behind";
    if !is_child() {
        let output = watchdog(4 * LIMIT, || in_child(TEST));
        assert!(output.status.success(), "{}", printed(&output));
        return;
    }
    watchdog(4 * LIMIT, || {
        const ROUNDS: usize = 100;
        const FUTURES: usize = 10_000;
        let pool = pool(2);
        let mut settled = 0;
        for round in 0..ROUNDS {
            let spawn = |n| {
                pool.spawn(async move {
                    if n % 4 == 0 {
                        yield_now().await;
                    }
                    [n; 8]
                })
            };
            let futures: Vec<_> = (0..FUTURES).map(spawn).collect();
            concurrent_futures::block_on(async {
                for (n, future) in futures.into_iter().enumerate() {
                    match n % 10 {
                        0 => drop(future),
                        1 => drop(future.cancel_on_drop()),
                        2 => assert_eq!(future.shared().await.unwrap()[0], n),
                        _ => assert_eq!(future.await.unwrap()[0], n),
                    }
                }
            });
            if round == ROUNDS / 5 {
                settled = resident();
            }
        }
        let grown = resident().saturating_sub(settled) * rustix::param::page_size() as u64;
        // A leak of 8 bytes for each future would be more.
        assert!(grown < 4 << 20, "{grown} bytes more than after the first rounds");
        until(|| pool.stats().spawned == 0);
    });
}

// What awaits on and on, one task after the other, does not grow either: nothing is kept of what was awaited.
#[test]
fn one_future_that_awaits_many_does_not_grow() {
    const TEST: &str = "memory::one_future_that_awaits_many_does_not_grow";
    if !is_child() {
        let output = watchdog(4 * LIMIT, || in_child(TEST));
        assert!(output.status.success(), "{}", printed(&output));
        return;
    }
    watchdog(4 * LIMIT, || {
        let pool = Arc::new(pool(1));
        let inner = Arc::clone(&pool);
        let future = pool.spawn(async move {
            let mut settled = 0;
            for n in 0..200_000_usize {
                assert_eq!(inner.spawn(async move { n }).await.unwrap(), n);
                assert_eq!(inner.submit(move || n).await.unwrap(), n);
                if n == 40_000 {
                    settled = resident();
                }
            }
            resident().saturating_sub(settled) * rustix::param::page_size() as u64
        });
        let grown = future.result().unwrap();
        assert!(grown < 2 << 20, "{grown} bytes more than after the first rounds");
    });
}

#[test]
fn a_pool_needs_no_file_descriptors() {
    const TEST: &str = "memory::a_pool_needs_no_file_descriptors";
    if !is_child() {
        let output = guarded(|| in_child(TEST));
        assert!(output.status.success(), "{}", printed(&output));
        return;
    }
    guarded(|| {
        let open = || std::fs::read_dir("/proc/self/fd").expect("proc is mounted").count();
        let before = open();
        let pools: Vec<_> = (0..4).map(|_| pool(2)).collect();
        let plugs: Vec<_> = pools.iter().map(|pool| Plug::new(pool, 2)).collect();
        assert_eq!(open(), before);
        plugs.into_iter().for_each(Plug::release);
        drop(pools);
        assert_eq!(open(), before);
    });
}

/// Runs `round` again and again, and says how many bytes more are resident afterwards than after the first tenth of the rounds.
fn grown(rounds: usize, mut round: impl FnMut()) -> u64 {
    (0..rounds / 10).for_each(|_| round());
    let settled = resident();
    (rounds / 10..rounds).for_each(|_| round());
    resident().saturating_sub(settled) * rustix::param::page_size() as u64
}

/// Runs the rest of the test in a child, whose memory is nobody else's.
fn alone(test: &str, body: impl FnOnce() + Send + 'static) {
    if is_child() {
        return watchdog(4 * LIMIT, body);
    }
    let output = in_child(test);
    assert!(output.status.success(), "{}", printed(&output));
}

/// What no worker ever comes across does not stay: a task of a pool of one worker goes on and on.
fn inside_one_long_task(rounds: usize, round: impl Fn(&concurrent_futures::ThreadPoolExecutor) + Send + 'static) {
    let pool = Arc::new(pool(1));
    let inner = Arc::clone(&pool);
    let grown = pool.submit(move || grown(rounds, || round(&inner))).result().unwrap();
    // 16 bytes a round would be more.
    assert!(grown < 16 * rounds as u64, "{grown} bytes more in {rounds} rounds");
    assert_eq!(pool.stats().queued, 0);
}

#[test]
fn tasks_that_are_claimed_in_one_long_task_leave_nothing_behind() {
    alone("memory::tasks_that_are_claimed_in_one_long_task_leave_nothing_behind", || {
        inside_one_long_task(200_000, |pool| pool.submit(|| ()).result().unwrap());
        inside_one_long_task(200_000, |pool| pool.task(|| ()).priority(Priority::Low).submit().result().unwrap());
    });
}

#[test]
fn scopes_in_one_long_task_leave_nothing_behind() {
    alone("memory::scopes_in_one_long_task_leave_nothing_behind", || {
        inside_one_long_task(100_000, |pool| pool.scope(|scope| drop(scope.submit(|| ()))));
    });
}

#[test]
fn maps_in_one_long_task_leave_nothing_behind() {
    alone("memory::maps_in_one_long_task_leave_nothing_behind", || {
        inside_one_long_task(100_000, |pool| assert_eq!(pool.map(|n| n, 0..3).count(), 3));
        // Dropped half-way.
        inside_one_long_task(100_000, |pool| assert!(pool.map(|n| n, 0..3).next().is_some()));
    });
}

#[test]
fn spawned_futures_that_are_polled_in_one_long_task_leave_nothing_behind() {
    alone("memory::spawned_futures_that_are_polled_in_one_long_task_leave_nothing_behind", || {
        inside_one_long_task(100_000, |pool| pool.spawn(async {}).result().unwrap());
        inside_one_long_task(100_000, |pool| assert!(pool.spawn(async {}).cancel()));
    });
}

#[test]
fn cancelled_tasks_of_a_bounded_queue_leave_nothing_behind() {
    alone("memory::cancelled_tasks_of_a_bounded_queue_leave_nothing_behind", || {
        let pool = concurrent_futures::ThreadPoolExecutor::builder().max_workers(1);
        let pool = pool.queue_capacity(10, QueuePolicy::Fail).build().unwrap();
        let plug = Plug::new(&pool, 1);
        const ROUNDS: usize = 200_000;
        let grown = grown(ROUNDS, || assert!(pool.submit(|| ()).cancel()));
        assert!(grown < 16 * ROUNDS as u64, "{grown} bytes more");
        assert_eq!(pool.stats().queued, 0);
        plug.release();
    });
}

#[test]
fn only_what_is_pending_counts_as_queued() {
    guarded(|| {
        let pool = Arc::new(pool(1));
        let (inner, other) = (Arc::clone(&pool), pool.submit(|| ()));
        other.result().unwrap();
        let task = pool.submit(move || {
            let mut futures: Vec<_> = (0..1000).map(|n| inner.submit(move || n)).collect();
            assert_eq!(inner.stats().queued, 1000);
            // Cancelled, and claimed.
            for future in futures.drain(..600) {
                assert!(future.cancel());
            }
            for future in futures.drain(..300) {
                future.result().unwrap();
            }
            assert_eq!(inner.stats().queued, 100);
            futures
        });
        let futures = task.result().unwrap();
        assert_eq!(
            futures.into_iter().map(|future| future.result().unwrap()).collect::<Vec<_>>(),
            (900..1000).collect::<Vec<_>>()
        );
        // The worker has come across every shell that was left.
        pool.submit(|| ()).result().unwrap();
        assert_eq!(pool.stats().queued, 0);
    });
}

/// Many living tasks of all priorities between those that are cancelled keep their order.
#[test]
fn what_stays_when_cancelled_tasks_are_swept_out_keeps_its_order() {
    guarded(|| {
        let (pool, order) = (pool(1), Arc::new(Mutex::new(Vec::new())));
        let plug = Plug::new(&pool, 1);
        let mut expected = Vec::new();
        let mut kept = Vec::new();
        for n in 0..20_000 {
            let order = Arc::clone(&order);
            let priority = [Priority::High, Priority::Normal, Priority::Low][n % 3];
            let future = pool.task(move || order.lock().push((n % 3, n))).priority(priority).submit();
            match n % 11 {
                0 => {
                    expected.push((n % 3, n));
                    kept.push(future);
                }
                _ => assert!(future.cancel()),
            }
        }
        assert_eq!(pool.stats().queued, kept.len());
        plug.release();
        kept.into_iter().for_each(|future| future.result().unwrap());
        expected.sort_unstable();
        assert_eq!(*order.lock(), expected);
    });
}
