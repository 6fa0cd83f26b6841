//! `as_completed`: every future once, as it completes.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use concurrent_futures::{TaskFuture, as_completed, as_completed_timeout, promise};

use crate::support::*;

#[test]
fn no_timeout() {
    guarded(|| {
        let pool = pool(2);
        let (_kept, cancelled) = promise();
        assert!(cancelled.cancel());
        let (set, failed) = promise();
        set.set_error("failed").unwrap();
        let (set, done) = promise();
        set.set_result(1).unwrap();
        let futures = [cancelled, failed, done, pool.submit(|| 2), pool.submit(|| 3)];
        let mut keys: Vec<_> = as_completed(futures.into_iter().enumerate()).map(|(key, _)| key).collect();
        // What was done before comes first, in the order given.
        assert_eq!(keys[..3], [0, 1, 2]);
        keys.sort_unstable();
        assert_eq!(keys, [0, 1, 2, 3, 4]);
    });
}

#[test]
fn the_order_is_that_of_completion() {
    guarded(|| {
        let (promises, futures): (Vec<_>, Vec<_>) = (0..50usize).map(|_| promise()).unzip();
        let mut completed = as_completed(futures);
        for (n, promise) in promises.into_iter().enumerate().rev() {
            promise.set_result(n).unwrap();
            assert_eq!(completed.next().unwrap().result().unwrap(), n);
        }
        assert!(completed.next().is_none());
    });
}

#[test]
fn future_times_out() {
    guarded(|| {
        for time in [Duration::ZERO, Duration::from_millis(5)] {
            let ((set, done), (_kept, cancelled), (late, open)) = (promise(), promise(), promise());
            set.set_result(1).unwrap();
            assert!(cancelled.cancel());
            let mut completed = as_completed_timeout([open, cancelled, done], time);
            assert!(completed.next().unwrap().unwrap().is_cancelled());
            assert_eq!(completed.next().unwrap().unwrap().result().unwrap(), 1);
            assert_eq!(completed.next().unwrap().unwrap_err().unfinished(), 1);
            assert!(completed.next().is_none());
            late.set_result(2).unwrap();
            assert!(completed.next().is_none(), "it has ended");
            let unfinished = completed.into_unfinished();
            assert_eq!(unfinished.len(), 1);
            assert_eq!(unfinished.into_iter().next().unwrap().result().unwrap(), 2);
        }
    });
}

// A clone of a shared future counts for itself.
#[test]
fn duplicate_futures() {
    guarded(|| {
        let pool = pool(1);
        let future = pool.submit(|| 1).shared();
        let clones = (0..3).map(|_| future.clone());
        assert_eq!(as_completed(clones).map(|future| future.result().unwrap()).sum::<i32>(), 3);
    });
}

#[test]
fn free_reference_yielded_future() {
    guarded(|| {
        let drops = Drops::new();
        let (promises, futures): (Vec<_>, Vec<_>) = (0..10).map(|_| promise()).unzip();
        let mut completed = as_completed(futures);
        for (n, promise) in promises.into_iter().enumerate() {
            promise.set_result(drops.token()).unwrap();
            drop(completed.next().unwrap());
            assert_eq!(drops.count(), n + 1);
        }
    });
}

#[test]
fn correct_timeout_exception_msg() {
    guarded(|| {
        let (promises, futures): (Vec<_>, Vec<_>) = (0..4).map(|_| promise::<u32>()).unzip();
        let mut promises = promises.into_iter();
        promises.next().unwrap().set_result(1).unwrap();
        promises.next().unwrap().set_error("failed").unwrap();
        let results: Vec<_> = as_completed_timeout(futures, Duration::ZERO).collect();
        assert_eq!(results.len(), 3);
        let error = results.into_iter().last().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "2 (of 4) futures unfinished");
        assert_eq!((error.unfinished(), error.total()), (2, 4));
    });
}

#[test]
fn it_knows_its_length() {
    guarded(|| {
        let (promises, futures): (Vec<_>, Vec<_>) = (0..3u32).map(|_| promise()).unzip();
        let mut completed = as_completed(futures);
        for (n, promise) in promises.into_iter().enumerate() {
            assert_eq!(completed.len(), 3 - n);
            promise.set_result(()).unwrap();
            completed.next().unwrap().result().unwrap();
        }
        assert_eq!(completed.len(), 0);
        assert!(completed.next().is_none() && completed.next().is_none());
    });
}

#[test]
fn no_futures() {
    guarded(|| {
        assert!(as_completed(Vec::<TaskFuture<()>>::new()).next().is_none());
        assert!(as_completed_timeout(Vec::<TaskFuture<()>>::new(), Duration::ZERO).next().is_none());
    });
}

#[test]
fn dropped_half_way_it_lets_the_tasks_go_on() {
    guarded(|| {
        let pool = pool(1);
        let ran = Counter::new();
        let plug = Plug::new(&pool, 1);
        let futures: Vec<_> = (0..10)
            .map(|_| {
                let ran = Arc::clone(&ran);
                pool.submit(move || ran.add())
            })
            .collect();
        let mut completed = as_completed(futures);
        plug.release();
        completed.next().unwrap().result().unwrap();
        drop(completed);
        drop(pool);
        assert_eq!(ran.get(), 10);
    });
}

#[test]
fn a_cancellation_wakes_it() {
    guarded(|| {
        for _ in 0..100 {
            let (_promise, future) = promise::<u32>();
            let future = future.shared();
            let (other, start) = (future.clone(), Arc::new(Barrier::new(2)));
            let begin = Arc::clone(&start);
            let waiter = thread::spawn(move || {
                begin.wait();
                as_completed([other]).map(|future| future.is_cancelled()).collect::<Vec<_>>()
            });
            start.wait();
            assert!(future.cancel());
            assert_eq!(waiter.join().unwrap(), [true]);
        }
    });
}

#[test]
fn futures_of_different_executors() {
    guarded(|| {
        let (one, two) = (pool(1), pool(2));
        let futures = (0..100).map(|n| if n % 2 == 0 { one.submit(move || n) } else { two.submit(move || n) });
        let mut values: Vec<i32> = as_completed(futures).map(|future| future.result().unwrap()).collect();
        values.sort_unstable();
        assert_eq!(values, (0..100).collect::<Vec<_>>());
    });
}

#[test]
fn many_threads_complete_many_futures() {
    guarded(|| {
        for _ in 0..20 {
            let (promises, futures): (Vec<_>, Vec<_>) = (0..400usize).map(|_| promise()).unzip();
            let mut shares: Vec<Vec<_>> = (0..4).map(|_| Vec::new()).collect();
            for (n, promise) in promises.into_iter().enumerate() {
                shares[n % 4].push((n, promise));
            }
            let setters: Vec<_> = shares
                .into_iter()
                .map(|share| {
                    thread::spawn(|| share.into_iter().for_each(|(n, promise)| promise.set_result(n).unwrap()))
                })
                .collect();
            let mut values: Vec<_> = as_completed(futures).map(|future| future.result().unwrap()).collect();
            values.sort_unstable();
            assert_eq!(values, (0..400).collect::<Vec<_>>());
            setters.into_iter().for_each(|setter| setter.join().unwrap());
        }
    });
}

// What one thread has found out, and whom it has told to wake it, does not hold for the next one.
#[test]
fn moved_from_a_task_of_one_pool_to_one_of_another() {
    guarded(|| {
        for count in [1, 2, 5] {
            let (one, two) = (Arc::new(pool(1)), Arc::new(pool(1)));
            let (tx, rx) = std::sync::mpsc::channel::<concurrent_futures::AsCompleted<TaskFuture<usize>>>();
            // It is at work when the rest is submitted, which stays in the queue.
            let rest = two.submit(move || rx.recv().unwrap().map(|future| future.result().unwrap()).sum::<usize>());
            until(|| rest.is_running());
            let submit = |n| match n % 2 {
                0 => two.spawn(async move { n }),
                _ => two.submit(move || n),
            };
            let mut futures: Vec<_> = (1..=count).map(submit).collect();
            let inner = Arc::clone(&one);
            let first = one.submit(move || {
                // The last one, so that all others are looked at.
                futures.push(inner.submit(|| 0));
                let mut completed = as_completed(futures);
                let first = completed.next().unwrap().result().unwrap();
                tx.send(completed).unwrap();
                first
            });
            assert_eq!(first.result().unwrap(), 0);
            assert_eq!(rest.result().unwrap(), count * (count + 1) / 2);
        }
    });
}
