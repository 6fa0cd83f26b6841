//! Workers that block on futures of their own pool.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use concurrent_futures::{
    ReturnWhen, TaskFuture, ThreadPoolExecutor, as_completed, block_on, promise, wait, wait_async,
};
use parking_lot::Mutex;

use crate::support::*;

/// Runs `f` on the one worker of a pool, with the pool.
fn on_the_only_worker<R: Send + 'static>(f: impl FnOnce(&Arc<ThreadPoolExecutor>) -> R + Send + 'static) -> R {
    guarded(|| {
        let pool = Arc::new(pool(1));
        let inner = Arc::clone(&pool);
        pool.submit(move || f(&inner)).result().unwrap()
    })
}

#[test]
fn ready_ones_and_such_that_yield() {
    on_the_only_worker(|pool| {
        assert_eq!(pool.spawn(async { 1 }).result().unwrap(), 1);
        let yields = |times| async move {
            for _ in 0..times {
                yield_now().await;
            }
            times
        };
        assert_eq!(pool.spawn(yields(100)).result().unwrap(), 100);
        assert_eq!(pool.spawn(yields(10)).shared().result().unwrap(), 10);
        assert_eq!(wait([pool.spawn(yields(5))], None, ReturnWhen::AllCompleted).done.len(), 1);
        let futures = [7, 3].map(|times| pool.spawn(yields(times)));
        assert_eq!(as_completed(futures).map(|future| future.result().unwrap()).sum::<i32>(), 10);
        assert!(pool.spawn(async { panic!("as this test wants it") }).result().is_err_and(|error| error.is_panicked()));
        assert!(pool.spawn(std::future::pending::<()>()).result().unwrap_err().is_abandoned());
    });
}

/// All the ways to block on one future.
const WAYS: usize = 6;

fn block(way: usize, future: TaskFuture<usize>) -> usize {
    match way {
        0 => future.result().unwrap(),
        1 => future.result_timeout(LIMIT).unwrap().unwrap(),
        2 => future.shared().result().unwrap(),
        3 => wait([future], None, ReturnWhen::AllCompleted).done.remove(0).result().unwrap(),
        4 => as_completed([future]).next().unwrap().result().unwrap(),
        _ => block_on(future).unwrap(),
    }
}

#[test]
fn woken_from_another_thread() {
    for way in 0..WAYS {
        on_the_only_worker(move |pool| {
            let puppet = Puppet::new();
            let future = pool.spawn(puppet.future(Drops::new().token()));
            let other = puppet.clone();
            let finisher = thread::spawn(move || {
                for _ in 0..10 {
                    other.waker().wake();
                }
                other.finish();
            });
            assert!(block(way, future) >= 2);
            finisher.join().unwrap();
        });
    }
}

// It is suspended before the worker begins to wait for it.
#[test]
fn suspended_before() {
    guarded(|| {
        for way in 0..WAYS {
            let pool = pool(1);
            let puppet = Puppet::new();
            let future = pool.spawn(puppet.future(Drops::new().token()));
            puppet.waker();
            let begun = Gate::new();
            let started = begun.clone();
            let waiting = pool.submit(move || {
                started.open();
                block(way, future)
            });
            begun.pass();
            puppet.finish();
            assert!(waiting.result().unwrap() >= 2);
        }
    });
}

#[test]
fn abandoned_meanwhile() {
    guarded(|| {
        let pool = pool(1);
        let (puppet, drops) = (Puppet::new(), Drops::new());
        let future = pool.spawn(puppet.future(drops.token()));
        puppet.waker();
        let waiting = pool.submit(move || future.result().unwrap_err().is_abandoned());
        until(|| pool.stats().busy == 1 && puppet.polls() >= 2);
        drop(puppet.take_waker());
        assert!(waiting.result().unwrap());
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn cancelled_meanwhile() {
    guarded(|| {
        let pool = pool(1);
        let puppet = Puppet::new();
        let future = pool.spawn(puppet.future(Drops::new().token())).shared();
        let other = future.clone();
        let waiting = pool.submit(move || other.get().unwrap_err().is_cancelled());
        until(|| pool.stats().busy == 1 && puppet.polls() >= 1);
        assert!(future.cancel());
        assert!(waiting.result().unwrap());
    });
}

// What the future awaits is queued behind the worker that waits for the future.
#[test]
fn what_it_awaits_is_run_in_place() {
    for way in 0..WAYS {
        on_the_only_worker(move |pool| {
            let inner = Arc::clone(pool);
            let future = pool.spawn(async move {
                let task = inner.submit(|| 1);
                let deeper = Arc::clone(&inner);
                let nested = inner.spawn(async move {
                    yield_now().await;
                    deeper.submit(|| 10).await.unwrap() + deeper.submit(|| 20).shared().await.unwrap()
                });
                let many = (0..3).map(|_| inner.submit(|| 100)).collect::<Vec<_>>();
                let waited = wait_async(many, ReturnWhen::AllCompleted).await;
                task.await.unwrap() + nested.await.unwrap() + waited.done.len() * 100
            });
            assert_eq!(block(way, future), 331);
        });
    }
}

// The same, but all of it is suspended before the worker begins to wait.
#[test]
fn what_it_awaits_is_run_in_place_though_it_was_suspended_before() {
    guarded(|| {
        for way in 0..WAYS {
            let pool = Arc::new(pool(1));
            let slot = Arc::new(Mutex::new(None));
            let (polled, stored) = (Counter::new(), Arc::clone(&slot));
            let (count, inner) = (Arc::clone(&polled), Arc::clone(&pool));
            let plug = Plug::new(&pool, 1);
            let future = pool.spawn(async move {
                let task: TaskFuture<usize> = stored.lock().take().unwrap();
                let nested = inner.spawn(async move {
                    count.add();
                    task.await.unwrap() + 1
                });
                nested.await.unwrap() + 1
            });
            // In the queue: the future, what it spawns later (behind the rest), the one that waits, the task.
            let waiting = pool.submit(move || block(way, future));
            *slot.lock() = Some(pool.submit(|| 40));
            plug.release();
            assert_eq!(waiting.result().unwrap(), 42);
            assert_eq!(polled.get(), 1);
        }
    });
}

// One after the other, so that a new future may lie where an old one was.
#[test]
fn many_futures_one_after_the_other_are_polled_in_place() {
    for way in 0..WAYS {
        on_the_only_worker(move |pool| {
            let inner = Arc::clone(pool);
            let future = pool.spawn(async move {
                let mut sum = 0;
                for n in 0..50_usize {
                    let (promise, told) = promise::<usize>();
                    let deeper = Arc::clone(&inner);
                    let nested = inner.spawn(async move { told.await.unwrap() + deeper.submit(|| 1).await.unwrap() });
                    let setter = thread::spawn(move || {
                        (0..n * 100).for_each(|_| std::hint::spin_loop());
                        promise.set_result(n).unwrap();
                    });
                    sum += nested.await.unwrap();
                    setter.join().unwrap();
                }
                sum
            });
            assert_eq!(block(way, future), 49 * 50 / 2 + 50);
        });
    }
}

#[test]
fn block_on_whole_programs() {
    on_the_only_worker(|pool| {
        let sum = block_on(async {
            let (one, two) = (pool.submit(|| 1), pool.spawn(async { 2 }));
            let shared = pool.submit(|| 3).shared();
            let inner = Arc::clone(pool);
            let nested = pool.spawn(async move { block_on(inner.submit(|| 4)).unwrap() });
            let futures = (0..4).map(|n| pool.submit(move || n)).collect::<Vec<_>>();
            let waited = wait_async(futures, ReturnWhen::AllCompleted).await;
            one.await.unwrap() + two.await.unwrap() + shared.await.unwrap() + nested.await.unwrap() + waited.done.len()
        });
        assert_eq!(sum, 14);
    });
}

#[test]
fn a_time_out_gives_up_and_the_worker_goes_on() {
    on_the_only_worker(|pool| {
        let puppet = Puppet::new();
        let future = pool.spawn(puppet.future(Drops::new().token()));
        let future = future.result_timeout(Duration::from_millis(1)).unwrap_err();
        let waited = wait([future], Some(Duration::from_millis(1)), ReturnWhen::AllCompleted);
        assert_eq!(waited.not_done.len(), 1);
        puppet.finish();
        assert!(block(0, waited.not_done.into_iter().next().unwrap()) >= 2);
    });
}

#[test]
fn it_waits_for_itself() {
    guarded(|| {
        let pool = pool(1);
        let (promise, told) = promise::<TaskFuture<bool>>();
        let future = pool.spawn(async move {
            let own = told.await.unwrap();
            own.result().unwrap_err().is_would_deadlock()
        });
        let shared = Arc::new(Mutex::new(false));
        let seen = Arc::clone(&shared);
        let done = Gate::new();
        let open = done.clone();
        future.add_done_callback(move |outcome| {
            *seen.lock() = *outcome.unwrap();
            open.open();
        });
        promise.set_result(future).ok().unwrap();
        done.pass();
        assert!(*shared.lock());
    });
}

#[test]
fn all_workers_wait_for_futures_that_need_each_other() {
    guarded(|| {
        for _ in rounds(100) {
            let pool = Arc::new(pool(2));
            let (one, first) = promise::<usize>();
            let (two, second) = promise::<usize>();
            // Two futures that talk to each other by promises, and two workers that block on them.
            let a = pool.spawn(async move {
                one.set_result(1).unwrap();
                second.await.unwrap()
            });
            let b = pool.spawn(async move {
                let got = first.await.unwrap();
                yield_now().await;
                two.set_result(got + 1).unwrap();
                got
            });
            let waiters = [pool.submit(move || block(0, a)), pool.submit(move || block(4, b))];
            let sum = waiters.into_iter().map(|waiter| waiter.result().unwrap()).sum::<usize>();
            assert_eq!(sum, 3);
        }
    });
}
