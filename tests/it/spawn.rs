//! Futures on the pool: polled when they are woken, and only then.

use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use concurrent_futures::{
    BuildError, QueuePolicy, ReturnWhen, Shutdown, TaskError, ThreadPoolExecutor, as_completed, promise, wait,
};
use parking_lot::Mutex;

use crate::support::*;

#[test]
fn ready_at_the_first_poll() {
    guarded(|| {
        let pool = pool(2);
        assert_eq!(pool.spawn(async { 42 }).result().unwrap(), 42);
        let futures: Vec<_> = (0..1000).map(|n| pool.spawn(async move { n })).collect();
        for (n, future) in futures.into_iter().enumerate() {
            assert_eq!(future.result().unwrap(), n);
        }
    });
}

#[test]
fn woken_from_another_thread() {
    guarded(|| {
        let pool = pool(1);
        let (puppet, drops) = (Puppet::new(), Drops::new());
        let future = pool.spawn(puppet.future(drops.token()));
        puppet.waker();
        assert!(future.is_running() && !future.is_done());
        let other = puppet.clone();
        thread::spawn(move || other.finish()).join().unwrap();
        assert_eq!(future.result().unwrap(), 2);
        assert_eq!((puppet.polls(), drops.count()), (2, 1));
    });
}

#[test]
fn awaiting_tasks_promises_and_each_other() {
    guarded(|| {
        let pool = Arc::new(pool(1));
        let (promise, told) = promise::<u32>();
        let inner = Arc::clone(&pool);
        let future = pool.spawn(async move {
            let task = inner.submit(|| 1);
            let other = inner.spawn(async { 2 });
            told.await.unwrap() + task.await.unwrap() + other.await.unwrap()
        });
        promise.set_result(10).unwrap();
        assert_eq!(future.result().unwrap(), 13);
    });
}

#[test]
fn a_panic_in_a_poll_is_the_tasks() {
    guarded(|| {
        let pool = pool(1);
        let drops = Drops::new();
        let token = drops.token();
        let future = pool.spawn(async move {
            yield_now().await;
            token.touch();
            panic!("as this test wants it");
        });
        let error: TaskError = future.result().map(|(): ()| ()).unwrap_err();
        assert!(error.is_panicked());
        assert!(error.to_string().contains("as this test wants it"));
        assert_eq!(drops.count(), 1);
        assert_eq!(pool.spawn(async { 1 }).result().unwrap(), 1);
        assert_eq!(pool.stats().workers, 1);
    });
}

#[test]
fn nobody_can_wake_it() {
    guarded(|| {
        let pool = pool(1);
        // It keeps no waker: known at once.
        assert!(pool.spawn(pending::<()>()).result().unwrap_err().is_abandoned());
        // Its waker is dropped later.
        let (puppet, drops) = (Puppet::new(), Drops::new());
        let future = pool.spawn(puppet.future(drops.token()));
        let (one, two) = (puppet.waker(), puppet.take_waker());
        drop(one);
        assert!(!future.is_done());
        drop(two);
        assert!(future.result().unwrap_err().is_abandoned());
        assert_eq!((drops.count(), puppet.polls()), (1, 1));
    });
}

#[test]
fn it_runs_from_its_first_poll_on() {
    guarded(|| {
        let pool = pool(1);
        let plug = Plug::new(&pool, 1);
        let puppet = Puppet::new();
        let future = pool.spawn(puppet.future(Drops::new().token()));
        assert!(!future.is_running() && !future.is_done());
        assert!(format!("{future:?}").contains("pending"));
        plug.release();
        puppet.waker();
        assert!(future.is_running() && !future.is_done());
        assert!(format!("{future:?}").contains("running"));
        puppet.finish();
        assert_eq!(future.result().unwrap(), 2);
    });
}

// However often it is woken during a poll, one more poll follows.
#[test]
fn woken_while_it_is_polled() {
    guarded(|| {
        let pool = pool(1);
        let (polls, go) = (Counter::new(), Gate::new());
        let (waker, done) = (Arc::new(Mutex::new(None::<Waker>)), Arc::new(AtomicBool::new(false)));
        let future = pool.spawn({
            let (polls, go, waker, done) = (Arc::clone(&polls), go.clone(), Arc::clone(&waker), Arc::clone(&done));
            poll_fn(move |context| {
                *waker.lock() = Some(context.waker().clone());
                polls.add();
                go.pass();
                if done.load(SeqCst) { Poll::Ready(polls.get()) } else { Poll::Pending }
            })
        });
        polls.wait_for(1);
        let woken = waker.lock().clone().unwrap();
        for _ in 0..100 {
            woken.wake_by_ref();
        }
        go.open();
        polls.wait_for(2);
        // The second poll ends before the first of these, and a third one would come before the second.
        pool.submit(|| ()).result().unwrap();
        pool.submit(|| ()).result().unwrap();
        assert_eq!(polls.get(), 2);
        done.store(true, SeqCst);
        woken.wake();
        assert_eq!(future.result().unwrap(), 3);
    });
}

#[test]
fn woken_while_it_is_queued() {
    guarded(|| {
        let pool = pool(1);
        let puppet = Puppet::new();
        let future = pool.spawn(puppet.future(Drops::new().token()));
        let waker = puppet.waker();
        let plug = Plug::new(&pool, 1);
        for _ in 0..100 {
            waker.wake_by_ref();
            let other = waker.clone();
            other.wake();
        }
        assert_eq!(pool.stats().queued, 1);
        plug.release();
        pool.submit(|| ()).result().unwrap();
        assert_eq!(puppet.polls(), 2);
        puppet.finish();
        assert_eq!(future.result().unwrap(), 3);
    });
}

#[test]
fn woken_after_it_is_over_and_after_the_pool_is() {
    guarded(|| {
        let pool = pool(1);
        let (puppet, drops) = (Puppet::new(), Drops::new());
        let future = pool.spawn(puppet.future(drops.token()));
        let wakers = [puppet.waker(), puppet.waker(), puppet.waker()];
        puppet.finish();
        assert_eq!(future.result().unwrap(), 2);
        let [one, two, three] = wakers;
        one.wake_by_ref();
        let other = two.clone();
        other.wake();
        drop(pool);
        three.wake();
        two.wake_by_ref();
        assert!(one.will_wake(&two));
        assert_eq!((puppet.polls(), drops.count()), (2, 1));
    });
}

// Each thread does something, and wakes. If a wake-up were lost, the future would not see the last of it.
#[test]
fn many_threads_wake_one_future() {
    guarded(|| {
        let pool = pool(2);
        for _ in rounds(300) {
            const THREADS: usize = 3;
            let (count, slot) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(None::<Waker>)));
            let future = pool.spawn({
                let (count, slot) = (Arc::clone(&count), Arc::clone(&slot));
                poll_fn(move |context| {
                    *slot.lock() = Some(context.waker().clone());
                    if count.load(SeqCst) == THREADS * 10 { Poll::Ready(()) } else { Poll::Pending }
                })
            });
            until(|| slot.lock().is_some());
            let threads: Vec<_> = (0..THREADS)
                .map(|_| {
                    let (count, slot) = (Arc::clone(&count), Arc::clone(&slot));
                    thread::spawn(move || {
                        for _ in 0..10 {
                            count.fetch_add(1, SeqCst);
                            let waker = slot.lock().clone();
                            waker.unwrap().wake();
                        }
                    })
                })
                .collect();
            future.result().unwrap();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        }
    });
}

#[test]
fn the_waker_is_the_same_from_poll_to_poll() {
    guarded(|| {
        let pool = pool(2);
        let mut seen = None::<Waker>;
        let mut polls = 0;
        let future = pool.spawn(poll_fn(move |context| {
            let same = seen.as_ref().is_none_or(|waker| waker.will_wake(context.waker()));
            assert!(same && seen.as_ref().is_none_or(|waker| waker.clone().will_wake(context.waker())));
            seen = Some(context.waker().clone());
            context.waker().wake_by_ref();
            polls += 1;
            if polls == 50 { Poll::Ready(polls) } else { Poll::Pending }
        }));
        assert_eq!(future.result().unwrap(), 50);
    });
}

// On one thread: what yields goes behind what was queued before.
#[test]
fn a_future_that_yields_goes_to_the_end_of_the_queue() {
    guarded(|| {
        let pool = pool(1);
        let plug = Plug::new(&pool, 1);
        let log = Arc::new(Mutex::new(Vec::new()));
        let spawned = |name: &'static str| {
            let log = Arc::clone(&log);
            pool.spawn(async move {
                for _ in 0..2 {
                    log.lock().push(name);
                    yield_now().await;
                }
            })
        };
        let submitted = |name: &'static str| {
            let log = Arc::clone(&log);
            pool.submit(move || log.lock().push(name))
        };
        let futures = [spawned("a"), submitted("1"), spawned("b"), submitted("2")];
        plug.release();
        assert_eq!(wait(futures, None, ReturnWhen::AllCompleted).done.len(), 4);
        assert_eq!(*log.lock(), ["a", "1", "b", "2", "a", "b"]);
    });
}

#[test]
fn a_future_that_always_yields_and_tasks_do_not_starve_each_other() {
    guarded(|| {
        for workers in [1, 2] {
            let pool = Arc::new(pool(workers));
            let stop = Arc::new(AtomicBool::new(false));
            let polls = Counter::new();
            let spinners: Vec<_> = (0..workers * 2)
                .map(|_| {
                    let (stop, polls) = (Arc::clone(&stop), Arc::clone(&polls));
                    pool.spawn(async move {
                        while !stop.load(SeqCst) {
                            polls.add();
                            yield_now().await;
                        }
                    })
                })
                .collect();
            // Tasks get through while futures spin...
            let tasks = (0..200).map(|n| pool.submit(move || n)).collect::<Vec<_>>();
            assert_eq!(as_completed(tasks).map(|task| task.result().unwrap()).sum::<i32>(), 19_900);
            // ... and futures while tasks submit tasks.
            fn again(pool: &Arc<ThreadPoolExecutor>, stop: &Arc<AtomicBool>) {
                if !stop.load(SeqCst) {
                    let (inner, stop) = (Arc::clone(pool), Arc::clone(stop));
                    pool.submit(move || again(&inner, &stop)).detach();
                }
            }
            again(&pool, &stop);
            polls.wait_for(polls.get() + 1000);
            stop.store(true, SeqCst);
            assert!(spinners.into_iter().all(|spinner| spinner.result().is_ok()));
        }
    });
}

#[test]
fn one_thread_is_an_event_loop() {
    guarded(|| {
        const FUTURES: usize = 10_000;
        let pool = pool(1);
        let (promises, futures): (Vec<_>, Vec<_>) = (0..FUTURES)
            .map(|_| {
                let (promise, told) = promise::<usize>();
                (promise, pool.spawn(async move { told.await.unwrap() + 1 }))
            })
            .unzip();
        for (n, promise) in promises.into_iter().enumerate() {
            promise.set_result(n).unwrap();
        }
        let sum = as_completed(futures).map(|future| future.result().unwrap()).sum::<usize>();
        assert_eq!(sum, FUTURES * (FUTURES + 1) / 2);
        assert_eq!(pool.stats().workers, 1);
    });
}

#[test]
fn spawned_from_inside() {
    guarded(|| {
        fn tree(pool: Arc<ThreadPoolExecutor>, depth: usize) -> concurrent_futures::TaskFuture<usize> {
            let inner = Arc::clone(&pool);
            pool.spawn(async move {
                if depth == 0 {
                    return 1;
                }
                let children = [tree(Arc::clone(&inner), depth - 1), tree(inner, depth - 1)];
                let mut sum = 0;
                for child in children {
                    sum += child.await.unwrap();
                }
                sum
            })
        }
        for workers in [1, 3] {
            assert_eq!(tree(Arc::new(pool(workers)), 8).result().unwrap(), 256);
        }
    });
}

#[test]
fn destructors_that_panic() {
    guarded(|| {
        let pool = pool(1);
        let drops = Drops::new();
        // When it is ready: the value counts.
        let guard = PanicsOnDrop(drops.token());
        let mut guard = Some(guard);
        let future = pool.spawn(poll_fn(move |_| {
            assert!(guard.is_some());
            let _ = &mut guard;
            Poll::Ready(7)
        }));
        assert_eq!(future.result().unwrap(), 7);
        assert_eq!(drops.count(), 1);
        // When it is cancelled.
        let puppet = Puppet::new();
        let (inner, guard) = (puppet.future(drops.token()), PanicsOnDrop(drops.token()));
        let future = pool.spawn(async move {
            let _guard = guard;
            inner.await
        });
        puppet.waker();
        assert!(future.cancel());
        assert!(future.result().unwrap_err().is_cancelled());
        assert_eq!(drops.count(), 3);
        // When it panics, too.
        let guard = PanicsOnDrop(drops.token());
        let future = pool.spawn(poll_fn(move |_| -> Poll<()> {
            guard.0.touch();
            panic!("as this test wants it")
        }));
        assert!(future.result().unwrap_err().is_panicked());
        assert_eq!(drops.count(), 4);
        // A result that nobody takes.
        let plug = Plug::new(&pool, 1);
        let token = drops.token();
        drop(pool.spawn(async move { PanicsOnDrop(token) }));
        plug.release();
        pool.shutdown(Shutdown::Wait).unwrap();
        assert_eq!((drops.count(), pool.stats().completed), (5, 4));
    });
}

#[test]
fn detached_by_dropping_the_handle() {
    guarded(|| {
        let pool = pool(1);
        let (puppet, drops) = (Puppet::new(), Drops::new());
        drop(pool.spawn(puppet.future(drops.token())));
        puppet.waker();
        assert_eq!(drops.count(), 0);
        puppet.finish();
        pool.shutdown(Shutdown::Wait).unwrap();
        assert_eq!((puppet.polls(), drops.count()), (2, 1));
    });
}

#[test]
fn callbacks_and_many_readers() {
    guarded(|| {
        let pool = pool(1);
        let puppet = Puppet::new();
        let future = pool.spawn(puppet.future(Drops::new().token()));
        let calls = Counter::new();
        for _ in 0..2 {
            let calls = Arc::clone(&calls);
            future.add_done_callback(move |outcome| {
                assert_eq!(*outcome.unwrap(), 2);
                calls.add();
            });
        }
        let shared = future.shared();
        let readers: Vec<_> = (0..3)
            .map(|n| {
                let shared = shared.clone();
                thread::spawn(move || match n {
                    0 => shared.result().unwrap(),
                    1 => concurrent_futures::block_on(shared).unwrap(),
                    _ => wait([shared], None, ReturnWhen::AllCompleted).done.remove(0).result().unwrap(),
                })
            })
            .collect();
        puppet.finish();
        assert_eq!(shared.result().unwrap(), 2);
        assert!(readers.into_iter().all(|reader| reader.join().unwrap() == 2));
        assert_eq!(calls.get(), 2);
    });
}

#[test]
fn a_time_out_gives_the_handle_back() {
    guarded(|| {
        let pool = pool(1);
        let puppet = Puppet::new();
        let future = pool.spawn(puppet.future(Drops::new().token()));
        puppet.waker();
        let future = future.result_timeout(Duration::from_millis(1)).unwrap_err();
        puppet.finish();
        assert_eq!(future.result_timeout(LIMIT).unwrap().unwrap(), 2);
    });
}

fn bounded(policy: QueuePolicy) -> Result<ThreadPoolExecutor, BuildError> {
    ThreadPoolExecutor::builder().max_workers(1).queue_capacity(1, policy).build()
}

#[test]
fn a_bounded_queue_counts_what_was_not_polled_yet() {
    guarded(|| {
        // What waits takes no room: ten futures are pending, one after the other, in a queue for one.
        let pool = bounded(QueuePolicy::Block).unwrap();
        let puppets: Vec<_> = (0..10).map(|_| Puppet::new()).collect();
        let futures: Vec<_> = puppets.iter().map(|puppet| pool.spawn(puppet.future(Drops::new().token()))).collect();
        puppets.iter().for_each(|puppet| drop(puppet.waker()));
        // Nor does what is woken.
        let plug = Plug::new(&pool, 1);
        puppets.iter().for_each(Puppet::finish);
        let queued = pool.try_submit(|| ()).unwrap();
        assert!(pool.try_submit(|| ()).unwrap_err().is_queue_full());
        plug.release();
        assert!(futures.into_iter().all(|future| future.result().unwrap() == 2));
        queued.result().unwrap();
    });
}

#[test]
fn a_full_queue_does_with_a_future_what_its_policy_says() {
    guarded(|| {
        for policy in [QueuePolicy::Fail, QueuePolicy::CallerRuns] {
            let pool = bounded(policy).unwrap();
            let plug = Plug::new(&pool, 1);
            let (queued, drops) = (pool.spawn(async { 1 }), Drops::new());
            let puppet = Puppet::new();
            let future = pool.spawn(puppet.future(drops.token()));
            if policy == QueuePolicy::Fail {
                assert!(future.result().unwrap_err().is_queue_full());
                assert_eq!((puppet.polls(), drops.count()), (0, 1));
                // A cancelled future makes room at once.
                assert!(queued.cancel());
                assert!(!pool.spawn(async { 1 }).is_done());
            } else {
                assert_eq!(puppet.polls(), 1, "the first poll was in this thread");
                puppet.finish();
                assert!(!future.is_done(), "the next ones are the workers'");
                plug.release();
                assert_eq!((queued.result().unwrap(), future.result().unwrap()), (1, 2));
                continue;
            }
            plug.release();
        }
        // Blocking ends when the queued future is polled.
        let pool = Arc::new(bounded(QueuePolicy::Block).unwrap());
        let plug = Plug::new(&pool, 1);
        let queued = pool.spawn(async { 1 });
        let inner = Arc::clone(&pool);
        let blocked = thread::spawn(move || inner.spawn(async { 2 }).result().unwrap());
        plug.release();
        assert_eq!((queued.result().unwrap(), blocked.join().unwrap()), (1, 2));
        // A worker does not block.
        let inner = Arc::clone(&pool);
        let inside = pool.submit(move || {
            let futures: Vec<_> = (0..3).map(|n| inner.spawn(async move { n })).collect();
            futures.into_iter().map(|future| future.result().unwrap()).sum::<i32>()
        });
        assert_eq!(inside.result().unwrap(), 3);
    });
}

#[test]
fn an_abandoned_future_wakes_whoever_waits() {
    guarded(|| {
        let pool = pool(1);
        let puppet = Puppet::new();
        let outer = {
            let inner = pool.spawn(puppet.future(Drops::new().token()));
            pool.spawn(async move { inner.await.unwrap_err().is_abandoned() })
        };
        drop(puppet.take_waker());
        assert!(outer.result().unwrap());
    });
}

// The waker is dropped under a lock that the future's destructor wants.
#[test]
fn the_last_waker_is_dropped_under_a_lock_of_the_future() {
    struct Locks(Arc<Mutex<Option<Waker>>>);
    impl Drop for Locks {
        fn drop(&mut self) {
            *self.0.lock() = None;
        }
    }
    guarded(|| {
        let pool = pool(1);
        let slot = Arc::new(Mutex::new(None::<Waker>));
        let locks = Locks(Arc::clone(&slot));
        let future = pool.spawn(poll_fn(move |context| -> Poll<()> {
            *locks.0.lock() = Some(context.waker().clone());
            Poll::Pending
        }));
        until(|| slot.lock().is_some());
        {
            let mut slot = slot.lock();
            *slot = None;
        }
        assert!(future.result().unwrap_err().is_abandoned());
    });
}

// Whoever drops the last waker, and whoever polls: the future is abandoned once, and never polled on.
#[test]
fn dropping_the_last_waker_races_the_suspension() {
    guarded(|| {
        let pool = pool(2);
        for round in rounds(2000) {
            let (sender, receiver) = std::sync::mpsc::channel::<Waker>();
            let dropper = thread::spawn(move || drop(receiver.recv()));
            let drops = Drops::new();
            let token = drops.token();
            let future = pool.spawn(poll_fn(move |context| -> Poll<()> {
                token.touch();
                let _ = sender.send(context.waker().clone());
                (0..round % 50).for_each(|_| std::hint::spin_loop());
                Poll::Pending
            }));
            assert!(matches!(future.result(), Err(TaskError::Abandoned)));
            dropper.join().unwrap();
            assert_eq!(drops.count(), 1);
        }
    });
}
