//! Futures that a pool polls, with the timers and channels of a runtime in them, awaited in another.

use std::sync::Arc;
use std::time::Duration;

use concurrent_futures::ThreadPoolExecutor;
use futures::future::try_join_all;

use super::support::*;
use crate::support::guarded;

// One thread, which the tasks that it waits for need, too: it waits for none of them.
#[test]
fn a_pool_of_one_awaits_its_own_tasks_and_those_of_others() {
    guarded(|| {
        for runtime in RUNTIMES {
            let polling = Arc::new(ThreadPoolExecutor::new(1).unwrap());
            let (own, processes) = (Arc::clone(&polling), Arc::new(Pool::processes(1)));
            let outer = (0..50u64).map(|n| {
                let (own, processes) = (Arc::clone(&own), Arc::clone(&processes));
                polling.spawn(async move {
                    let one = own.submit(move || n).await.unwrap();
                    let two = processes.submit(|n: u64| 2 * n, n).await.unwrap();
                    let three = own.spawn(async move { 3 * n }).await.unwrap();
                    one + two + three
                })
            });
            let values = runtime.run(|spawner| spawner.spawn(try_join_all(outer.collect::<Vec<_>>())));
            assert_eq!(values.unwrap(), (0..50).map(|n| 6 * n).collect::<Vec<_>>(), "{runtime:?}");
        }
    });
}

// smol's timers, channels and locks work on any thread; of tokio the channels do.
#[test]
fn with_the_means_of_runtimes() {
    guarded(|| {
        for runtime in RUNTIMES {
            let pool = ThreadPoolExecutor::new(2).unwrap();
            let (to_pool, mut numbers) = tokio::sync::mpsc::channel(1);
            let (from_pool, doubled) = smol::channel::bounded(1);
            let lock = Arc::new(smol::lock::Mutex::new(0));
            let sum = Arc::clone(&lock);
            let task = pool.spawn(async move {
                while let Some(number) = numbers.recv().await {
                    smol::Timer::after(Duration::from_micros(10)).await;
                    *sum.lock().await += number;
                    from_pool.send(2 * number).await.unwrap();
                }
                "all taken"
            });
            let end = runtime.run(|spawner| {
                spawner.spawn(async move {
                    for number in 0..50 {
                        to_pool.send(number).await.unwrap();
                        assert_eq!(doubled.recv().await.unwrap(), 2 * number);
                    }
                    drop(to_pool);
                    task.await
                })
            });
            assert_eq!((end.unwrap(), *lock.lock_blocking()), ("all taken", 49 * 50 / 2), "{runtime:?}");
        }
    });
}

// It waits in one runtime for what a pool polls: its end by cancelling comes there at once.
#[test]
fn cancelled_where_it_waits() {
    guarded(|| {
        let pool = ThreadPoolExecutor::new(1).unwrap();
        for runtime in RUNTIMES {
            for kind in [Kind::Shared, Kind::SharedTwice] {
                let (queue, items) = smol::channel::unbounded::<u64>();
                let (taken, took) = smol::channel::unbounded();
                let handle = kind.of(pool.spawn(async move {
                    while let Ok(item) = items.recv().await {
                        taken.send(item).await.unwrap();
                    }
                    0
                }));
                let other = handle.other().unwrap();
                let error = runtime.run(|spawner| async move {
                    let waiting = spawner.spawn(handle);
                    queue.send(7).await.unwrap();
                    assert_eq!(took.recv().await.unwrap(), 7);
                    assert!(other.cancel());
                    // What it had was dropped with it.
                    assert!(took.recv().await.is_err());
                    waiting.await.unwrap_err()
                });
                assert!(error.is_cancelled(), "{runtime:?}, {kind:?}");
            }
        }
    });
}
