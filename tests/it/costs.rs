//! What a future costs does not depend on how many others there are.
//!
//! The CPU time of the measuring thread for so many futures is compared with that for eight times as many. Where the cost of
//! each is the same, the ratio is about 8; where it grows with the number of futures, it is about 64.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use concurrent_futures::{
    Promise, ReturnWhen, SharedFuture, TaskFuture, ThreadPoolExecutor, as_completed, block_on, promise, wait,
    wait_async,
};
use rustix::time::{ClockId, clock_gettime};

use crate::support::*;

/// Well above 8, and well below 64.
const LIMIT_OF_RATIO: f64 = 24.0;

fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// How much CPU time this thread spends in `f`.
fn spent(f: impl FnOnce()) -> Duration {
    let start = cpu_time();
    f();
    cpu_time() - start
}

/// Fails if `cost`, a CPU time, grows much faster than its argument. The least of three tries counts.
fn assert_linear(what: &str, few: usize, cost: impl Fn(usize) -> Duration) {
    let least = |count| (0..3).map(|_| cost(count)).min().unwrap().max(Duration::from_micros(1));
    let (one, eight) = (least(few), least(few * 8));
    let ratio = eight.as_secs_f64() / one.as_secs_f64();
    assert!(
        ratio < LIMIT_OF_RATIO,
        "{what}: {one:?} for {few}, {eight:?} for 8 times as many, which is {ratio:.1} times"
    );
}

fn poll_once<T: Clone>(future: &mut SharedFuture<T>) -> Poll<()> {
    poll(future, Waker::noop()).map(drop)
}

#[test]
fn clones_of_a_shared_future_that_come_and_go_among_many() {
    guarded(|| {
        assert_linear("one more clone", 2_000, |count| {
            let (_promise, future) = promise::<u32>();
            let shared = future.shared();
            let mut waiting: Vec<_> = (0..count).map(|_| shared.clone()).collect();
            assert!(waiting.iter_mut().all(|clone| poll_once(clone).is_pending()));
            spent(|| (0..count).for_each(|_| assert!(poll_once(&mut shared.clone()).is_pending())))
        });
    });
}

#[test]
fn polled_clones_of_a_shared_future_are_dropped() {
    guarded(|| {
        // In either order, as one end of a list may be cheaper than the other.
        for backwards in [false, true] {
            assert_linear("dropping clones", 2_000, |count| {
                let (_promise, future) = promise::<u32>();
                let shared = future.shared();
                let mut waiting: Vec<_> = (0..count).map(|_| shared.clone()).collect();
                assert!(waiting.iter_mut().all(|clone| poll_once(clone).is_pending()));
                if backwards {
                    waiting.reverse();
                }
                spent(|| waiting.into_iter().for_each(drop))
            });
        }
    });
}

#[test]
fn clones_of_a_shared_future_in_a_combinator() {
    guarded(|| {
        assert_linear("combinator", 2_000, |count| {
            let (_promise, future) = promise::<u32>();
            let shared = future.shared();
            let clones: Vec<_> = (0..count).map(|_| shared.clone()).collect();
            spent(|| drop(wait(clones, Some(Duration::ZERO), ReturnWhen::AllCompleted)))
        });
    });
}

// A clone whose waker is taken back, or changes, leaves its place to others; what is notified are those that wait.
#[test]
fn a_shared_future_wakes_those_that_wait_whoever_has_left() {
    guarded(|| {
        let (promise, future) = promise::<u32>();
        let shared = future.shared();
        let mut clones: Vec<_> = (0..100).map(|_| (shared.clone(), counting())).collect();
        for (clone, (_, waker)) in &mut clones {
            assert!(poll(clone, waker).is_pending());
        }
        // Every second one goes, and newcomers take the places.
        let mut index = 0;
        clones.retain(|_| {
            index += 1;
            index % 2 == 0
        });
        for _ in 0..80 {
            let (counting, waker) = counting();
            let mut clone = shared.clone();
            assert!(poll(&mut clone, &waker).is_pending());
            clones.push((clone, (counting, waker)));
        }
        // Some are polled with another waker.
        for (clone, told) in clones.iter_mut().step_by(3) {
            let (old, _) = std::mem::replace(told, counting());
            assert!(poll(clone, &told.1).is_pending());
            assert_eq!(Arc::strong_count(&old), 1);
        }
        promise.set_result(7).unwrap();
        for (clone, (counting, waker)) in &mut clones {
            assert_eq!(counting.wakes(), 1);
            assert!(matches!(poll(clone, waker), Poll::Ready(Ok(7))));
        }
    });
}

/// All the ways to wait for many futures at once. The last two block on a future that does it.
const WAYS: usize = 6;

/// Those that poll where they wait. For the others, which wait for any of several or may be more than a wait, spare threads poll.
const POLLS_IN_PLACE: [usize; 2] = [0, 4];

fn wait_for_all(pool: &Arc<ThreadPoolExecutor>, way: usize, futures: Vec<TaskFuture<usize>>) -> usize {
    match way {
        0 => wait(futures, None, ReturnWhen::AllCompleted).done.len(),
        1 => as_completed(futures).count(),
        2 => block_on(wait_async(futures, ReturnWhen::AllCompleted)).done.len(),
        3 => futures.into_iter().map(|future| block_on(future).map(|_| 1).unwrap()).sum(),
        4 => pool.spawn(async { wait_async(futures, ReturnWhen::AllCompleted).await.done.len() }).result().unwrap(),
        _ => pool.spawn(one_by_one(futures)).result().unwrap(),
    }
}

/// The stream, where there is one.
#[cfg(feature = "stream")]
async fn one_by_one(futures: Vec<TaskFuture<usize>>) -> usize {
    use futures_core::Stream;
    let mut stream = as_completed(futures).into_stream();
    let mut count = 0;
    while std::future::poll_fn(|context| Pin::new(&mut stream).poll_next(context)).await.is_some() {
        count += 1;
    }
    count
}

#[cfg(not(feature = "stream"))]
async fn one_by_one(futures: Vec<TaskFuture<usize>>) -> usize {
    let mut count = 0;
    for future in futures {
        count += future.await.map(|_| 1).unwrap();
    }
    count
}

/// What `f` spends on the one worker of a pool.
fn spent_on_the_worker(f: impl FnOnce(&Arc<ThreadPoolExecutor>) + Send + 'static) -> Duration {
    let pool = Arc::new(pool(1));
    let inner = Arc::clone(&pool);
    pool.submit(move || spent(|| f(&inner))).result().unwrap()
}

#[test]
fn waiting_inside_a_task_for_many_spawned_futures() {
    guarded(|| {
        for way in 0..WAYS {
            // The others have a spare thread started for each future, which takes a while.
            let few = if POLLS_IN_PLACE.contains(&way) { 1_000 } else { 40 };
            let what = format!("futures that yield, way {way}");
            assert_linear(&what, few, |count| {
                spent_on_the_worker(move |pool| {
                    let futures = (0..count).map(|n| {
                        pool.spawn(async move {
                            yield_now().await;
                            n
                        })
                    });
                    let futures: Vec<_> = futures.collect();
                    assert_eq!(wait_for_all(pool, way, futures), count);
                })
            });
        }
    });
}

// The next one is woken when the last one has been polled.
#[test]
fn waiting_inside_a_task_for_futures_that_are_woken_one_by_one() {
    guarded(|| {
        for way in POLLS_IN_PLACE {
            let what = format!("futures that are woken one by one, way {way}");
            assert_linear(&what, 500, |count| {
                let polled = Counter::new();
                let woken = Arc::clone(&polled);
                let (promises, told): (Vec<Promise<usize>>, Vec<_>) = (0..count).map(|_| promise::<usize>()).unzip();
                let waker = thread::spawn(move || {
                    woken.wait_for(count);
                    for (n, promise) in promises.into_iter().enumerate() {
                        promise.set_result(n).unwrap();
                        woken.wait_for(count + n + 1);
                    }
                });
                let spent = spent_on_the_worker(move |pool| {
                    let futures = told.into_iter().map(|mut told| {
                        let polled = Arc::clone(&polled);
                        pool.spawn(std::future::poll_fn(move |context: &mut Context<'_>| {
                            let answer = Pin::new(&mut told).poll(context).map(Result::unwrap);
                            polled.add();
                            answer
                        }))
                    });
                    let futures: Vec<_> = futures.collect();
                    assert_eq!(wait_for_all(pool, way, futures), count);
                });
                waker.join().unwrap();
                spent
            });
        }
    });
}

// Each of them ends before the next one begins, within one wait.
#[test]
fn one_wait_inside_a_task_that_awaits_many_futures_one_after_the_other() {
    guarded(|| {
        assert_linear("one after the other", 1_000, |count| {
            spent_on_the_worker(move |pool| {
                // They are kept in memory, so that none lies where another one was.
                let inner = Arc::clone(pool);
                let all = pool.spawn(async move {
                    let mut kept = Vec::new();
                    for n in 0..count {
                        let future = inner.spawn(async move {
                            yield_now().await;
                            n
                        });
                        let done = wait_async([future], ReturnWhen::AllCompleted);
                        kept.extend(done.await.done);
                    }
                    kept
                });
                assert_eq!(all.result().unwrap().len(), count);
            })
        });
    });
}

// A set of futures gives each of its own a waker of its own.
#[test]
fn waiting_inside_a_task_for_a_set_of_futures() {
    guarded(|| {
        assert_linear("a set with wakers of its own", 1_000, |count| {
            spent_on_the_worker(move |pool| {
                let (_promise, never) = promise::<usize>();
                // A spare thread has something to do; the rest of the futures wait for it.
                let gate = Gate::new();
                let behind = gate.clone();
                let first = pool.submit(move || {
                    behind.pass();
                    0
                });
                let rest = (1..count).map(|n| pool.submit(move || n));
                let mut set: futures::stream::FuturesUnordered<_> = [never, first].into_iter().chain(rest).collect();
                block_on(std::future::poll_fn(|context| {
                    assert!(futures::Stream::poll_next(Pin::new(&mut set), context).is_pending());
                    Poll::Ready(())
                }));
                gate.open();
            })
        });
    });
}
