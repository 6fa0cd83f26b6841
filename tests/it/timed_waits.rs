//! A wait with a deadline, or for any of several, inside a task: it ends although what it waits for waits for it.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use concurrent_futures::{
    MapOptions, ReturnWhen, TaskFuture, ThreadPoolExecutor, as_completed, as_completed_timeout, block_on, promise,
    wait, wait_async,
};

use crate::support::*;

/// Long enough that a free worker has taken the task, in most runs; nothing is asserted about it.
const SOON: Duration = Duration::from_millis(20);

/// Runs `f` in a task, with the pool, for pools of several sizes.
fn in_a_task(f: impl Fn(&Arc<ThreadPoolExecutor>) + Clone + Send + 'static) {
    guarded(move || {
        for workers in [1, 2, 4] {
            let pool = Arc::new(pool(workers));
            let (inner, f) = (Arc::clone(&pool), f.clone());
            pool.submit(move || f(&inner)).result().unwrap();
        }
    });
}

/// A task that ends when the task that waits for it goes on.
struct Helper {
    begun: Gate,
    go_on: Gate,
}

impl Helper {
    fn submit(pool: &ThreadPoolExecutor) -> (Self, TaskFuture<u32>) {
        let helper = Self { begun: Gate::new(), go_on: Gate::new() };
        let (begun, go_on) = (helper.begun.clone(), helper.go_on.clone());
        let future = pool.submit(move || {
            begun.open();
            go_on.pass();
            1
        });
        (helper, future)
    }

    /// The same as a future that blocks in its first poll.
    fn spawn(pool: &ThreadPoolExecutor) -> (Self, TaskFuture<u32>) {
        let helper = Self { begun: Gate::new(), go_on: Gate::new() };
        let (begun, go_on) = (helper.begun.clone(), helper.go_on.clone());
        let future = pool.spawn(async move {
            begun.open();
            go_on.pass();
            1
        });
        (helper, future)
    }

    /// A future that another thread resolves when the helper has begun.
    fn other(&self, fails: bool) -> TaskFuture<u32> {
        let (promise, future) = promise();
        let begun = self.begun.clone();
        thread::spawn(move || {
            begun.pass();
            match fails {
                true => promise.set_error("as this test wants it").unwrap(),
                false => promise.set_result(2).unwrap(),
            }
        });
        future
    }
}

/// Ready with 0 or 1, whichever is ready first.
async fn first_of(one: impl Future, other: impl Future) -> usize {
    let (mut one, mut other) = (pin!(one), pin!(other));
    std::future::poll_fn(|context| {
        if one.as_mut().poll(context).is_ready() {
            return Poll::Ready(0);
        }
        other.as_mut().poll(context).map(|_| 1)
    })
    .await
}

/// Ready when both are.
async fn both(one: impl Future<Output = u32>, other: impl Future<Output = u32>) -> u32 {
    let (mut one, mut other) = (pin!(one), pin!(other));
    let mut done = [None; 2];
    std::future::poll_fn(|context| {
        if done[0].is_none() {
            if let Poll::Ready(value) = one.as_mut().poll(context) {
                done[0] = Some(value);
            }
        }
        if done[1].is_none() {
            if let Poll::Ready(value) = other.as_mut().poll(context) {
                done[1] = Some(value);
            }
        }
        match done {
            [Some(one), Some(other)] => Poll::Ready(one + other),
            _ => Poll::Pending,
        }
    })
    .await
}

#[test]
fn result_timeout() {
    in_a_task(|pool| {
        for make in [Helper::submit, Helper::spawn] {
            let (helper, future) = make(pool);
            let future = future.result_timeout(SOON).expect_err("it waits for us");
            helper.go_on.open();
            assert_eq!(future.result().unwrap(), 1);
        }
    });
}

#[test]
fn get_timeout_of_a_shared_future() {
    in_a_task(|pool| {
        for make in [Helper::submit, Helper::spawn] {
            let (helper, future) = make(pool);
            let future = future.shared();
            assert!(future.get_timeout(SOON).is_none());
            helper.go_on.open();
            assert_eq!(future.result().unwrap(), 1);
        }
    });
}

#[test]
fn result_timeout_in_a_scope() {
    in_a_task(|pool| {
        pool.scope(|scope| {
            let go_on = Gate::new();
            let gate = go_on.clone();
            let future = scope.submit(move || gate.pass());
            let future = future.result_timeout(SOON).expect_err("it waits for us");
            go_on.open();
            future.result().unwrap();
        });
    });
}

#[test]
fn wait_with_a_time_out() {
    in_a_task(|pool| {
        for make in [Helper::submit, Helper::spawn] {
            for when in [ReturnWhen::AllCompleted, ReturnWhen::FirstCompleted, ReturnWhen::FirstException] {
                let (helper, future) = make(pool);
                let waited = wait([future], Some(SOON), when);
                assert_eq!(waited.not_done.len(), 1);
                helper.go_on.open();
            }
        }
    });
}

#[test]
fn wait_for_the_first() {
    in_a_task(|pool| {
        for make in [Helper::submit, Helper::spawn] {
            let (helper, future) = make(pool);
            let other = helper.other(false);
            let waited = wait([future, other], None, ReturnWhen::FirstCompleted);
            assert_eq!((waited.done.len(), waited.not_done.len()), (1, 1));
            helper.go_on.open();
        }
    });
}

#[test]
fn wait_for_the_first_failure() {
    in_a_task(|pool| {
        let (helper, future) = Helper::submit(pool);
        let other = helper.other(true);
        let waited = wait([future, other], None, ReturnWhen::FirstException);
        assert_eq!((waited.done.len(), waited.not_done.len()), (1, 1));
        helper.go_on.open();
    });
}

#[test]
fn as_completed_yields_what_is_done() {
    in_a_task(|pool| {
        for make in [Helper::submit, Helper::spawn] {
            let (helper, future) = make(pool);
            let other = helper.other(false);
            let mut completed = as_completed([future, other]);
            assert_eq!(completed.next().unwrap().result().unwrap(), 2);
            helper.go_on.open();
            assert_eq!(completed.next().unwrap().result().unwrap(), 1);
        }
    });
}

#[test]
fn as_completed_with_a_time_out() {
    in_a_task(|pool| {
        let (helper, future) = Helper::submit(pool);
        let mut completed = as_completed_timeout([future], SOON);
        assert_eq!(completed.next().unwrap().unwrap_err().unfinished(), 1);
        helper.go_on.open();
    });
}

#[test]
fn a_map_with_a_time_out() {
    in_a_task(|pool| {
        for ordered in [true, false] {
            let go_on = Gate::new();
            let gate = go_on.clone();
            let options = MapOptions::new().timeout(SOON).ordered(ordered);
            let mut map = pool.map_with(options, move |()| gate.pass(), [()]).unwrap();
            assert!(map.next().unwrap().unwrap_err().is_timed_out());
            go_on.open();
        }
    });
}

// The other worker is at the first item; the second one is done elsewhere, by a worker or a spare thread.
#[test]
fn an_unordered_map_yields_what_is_done() {
    guarded(|| {
        let pool = Arc::new(pool(2));
        let inner = Arc::clone(&pool);
        let task = move || {
            let (go_on, begun) = (Gate::new(), Gate::new());
            let gates = (go_on.clone(), begun.clone());
            let f = move |first: bool| {
                if first {
                    gates.1.open();
                    gates.0.pass();
                } else {
                    gates.1.pass();
                }
                first
            };
            let options = MapOptions::new().chunk_size(1).ordered(false);
            let mut map = inner.map_with(options, f, [true, false]).unwrap();
            assert!(!map.next().unwrap().unwrap());
            go_on.open();
            assert!(map.next().unwrap().unwrap());
        };
        pool.submit(task).result().unwrap();
    });
}

#[test]
fn select_in_block_on() {
    in_a_task(|pool| {
        for make in [Helper::submit, Helper::spawn] {
            let (helper, future) = make(pool);
            let other = helper.other(false);
            assert_eq!(block_on(first_of(future, other)), 1);
            helper.go_on.open();
            let (helper, future) = make(pool);
            let (future, other) = (future.shared(), helper.other(false));
            assert_eq!(block_on(first_of(future, other)), 1);
            helper.go_on.open();
        }
    });
}

#[test]
fn join_in_block_on() {
    in_a_task(|pool| {
        let (helper, future) = Helper::submit(pool);
        let (begun, go_on) = (helper.begun.clone(), helper.go_on.clone());
        let other = helper.other(false);
        let sum = block_on(both(async { future.await.unwrap() }, async move {
            let value = other.await.unwrap();
            assert!(begun.is_open());
            go_on.open();
            value
        }));
        assert_eq!(sum, 3);
    });
}

#[test]
fn wait_async_in_block_on() {
    in_a_task(|pool| {
        let (helper, future) = Helper::submit(pool);
        let other = helper.other(false);
        let waited = block_on(wait_async([future, other], ReturnWhen::FirstCompleted));
        assert_eq!(waited.done.len(), 1);
        helper.go_on.open();
    });
}

#[cfg(feature = "stream")]
#[test]
fn a_stream_in_block_on() {
    use futures_core::Stream;
    in_a_task(|pool| {
        let (helper, future) = Helper::submit(pool);
        let other = helper.other(false);
        let mut completed = as_completed([future, other]).into_stream();
        let next = std::future::poll_fn(|context| std::pin::Pin::new(&mut completed).poll_next(context));
        assert_eq!(block_on(next).unwrap().result().unwrap(), 2);
        helper.go_on.open();
    });
}

/// Called in a task: another worker has nothing to do, and has gone to sleep.
#[cfg(target_os = "linux")]
fn until_a_worker_sleeps(pool: &ThreadPoolExecutor) {
    let (tell, told) = std::sync::mpsc::channel();
    pool.submit(move || tell.send(rustix::thread::gettid()).unwrap()).detach();
    until_asleep(told.recv().unwrap());
}

// The task waits for a future, however long, and that future selects.
#[test]
fn select_in_a_spawned_future() {
    in_a_task(|pool| {
        for make in [Helper::submit, Helper::spawn] {
            let (helper, future) = make(pool);
            let other = helper.other(false);
            assert_eq!(pool.spawn(first_of(future, other)).result().unwrap(), 1);
            helper.go_on.open();
            // Otherwise a spare thread may poll the helper inside its poll of the other: `docs/design/spare-threads.md`, "Limits".
            #[cfg(target_os = "linux")]
            if pool.stats().max_workers > 1 {
                until_a_worker_sleeps(pool);
            }
            let (helper, future) = make(pool);
            let other = helper.other(false);
            let selects = pool.spawn(first_of(future, other));
            if pool.stats().max_workers == 1 {
                // The one spare thread is at the helper, and this one must not poll.
                let selects = selects.result_timeout(SOON).expect_err("nobody is there to poll it");
                helper.go_on.open();
                selects.result().unwrap();
            } else {
                assert_eq!(selects.result_timeout(LIMIT).unwrap().unwrap(), 1);
                helper.go_on.open();
            }
        }
    });
}

// Not so today: the only worker that could poll one of the two is busy when the spare thread begins to poll them.
#[test]
#[ignore = "docs/design/spare-threads.md, limits"]
fn a_future_that_blocks_beside_another() {
    guarded(|| {
        let pool = Arc::new(pool(2));
        let inner = Arc::clone(&pool);
        let waits = pool.submit(move || {
            let busy = Gate::new();
            let behind = busy.clone();
            let occupies = inner.submit(move || behind.pass());
            until(|| inner.stats().busy == 2);
            let (helper, future) = Helper::spawn(&inner);
            let other = helper.other(false);
            let selects = inner.spawn(first_of(future, other));
            let unlock = {
                let begun = helper.begun.clone();
                thread::spawn(move || {
                    begun.pass();
                    busy.open();
                })
            };
            let first = selects.result_timeout(LIMIT / 4).map(Result::unwrap);
            helper.go_on.open();
            unlock.join().unwrap();
            occupies.result().unwrap();
            assert_eq!(first.unwrap(), 1);
        });
        waits.result().unwrap();
    });
}

#[test]
fn wait_async_in_a_spawned_future() {
    in_a_task(|pool| {
        let (helper, future) = Helper::submit(pool);
        let other = helper.other(false);
        let waits = pool.spawn(wait_async([future, other], ReturnWhen::FirstCompleted));
        assert_eq!(waits.result().unwrap().done.len(), 1);
        helper.go_on.open();
    });
}

// A second wait finds again what the future awaits that was polled for the first one.
#[test]
fn a_second_wait_goes_on_where_the_first_one_timed_out() {
    in_a_task(|pool| {
        let inner = Arc::clone(pool);
        let (promise, told) = promise::<u32>();
        let mut future = pool.spawn(async move {
            let task = inner.submit(|| 1);
            let deeper = Arc::clone(&inner);
            let nested = inner.spawn(async move { deeper.submit(|| 10).await.unwrap() + told.await.unwrap() });
            task.await.unwrap() + nested.await.unwrap()
        });
        for _ in 0..20 {
            future = future.result_timeout(Duration::from_micros(200)).expect_err("nobody has kept the promise");
        }
        promise.set_result(100).unwrap();
        assert_eq!(future.result_timeout(LIMIT).unwrap().unwrap(), 111);
    });
}

// Such a future can be polled each time that somebody looks; the others must have their turn.
#[test]
fn a_future_that_wakes_itself_keeps_no_other_task_from_running() {
    fn restless(pool: &ThreadPoolExecutor) -> [TaskFuture<u32>; 2] {
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        let restless = pool.spawn(poll_fn(move |context| {
            if is_over.load(SeqCst) {
                return Poll::Ready(1);
            }
            context.waker().wake_by_ref();
            Poll::Pending
        }));
        let other = pool.submit(move || {
            over.store(true, SeqCst);
            2
        });
        [restless, other]
    }
    in_a_task(|pool| {
        let mut waited = wait(restless(pool), None, ReturnWhen::FirstCompleted);
        waited.done.append(&mut waited.not_done);
        assert_eq!(waited.done.into_iter().map(|future| future.result().unwrap()).sum::<u32>(), 3);

        let sum: u32 =
            as_completed_timeout(restless(pool), LIMIT).map(|future| future.unwrap().result().unwrap()).sum();
        assert_eq!(sum, 3);

        let mut waited = block_on(wait_async(restless(pool), ReturnWhen::FirstCompleted));
        waited.done.append(&mut waited.not_done);
        assert_eq!(waited.done.into_iter().map(|future| future.result().unwrap()).sum::<u32>(), 3);
    });
}

// The worker that has taken a closure of `join` is inside no task, and waits all the same like one that is.
#[test]
fn a_closure_of_a_join_that_another_worker_has_taken() {
    fn any_of_two(pool: &ThreadPoolExecutor) -> [TaskFuture<u32>; 2] {
        [pool.submit(|| 1), pool.submit(|| 2)]
    }
    let waits: [fn(&ThreadPoolExecutor) -> u32; 5] = [
        |pool| as_completed(any_of_two(pool)).map(|future| future.result().unwrap()).sum(),
        |pool| wait(any_of_two(pool), None, ReturnWhen::FirstCompleted).done.len().min(1) as u32 * 3,
        |pool| block_on(pool.submit(|| 3)).unwrap(),
        |pool| pool.spawn(async { 3 }).result().unwrap(),
        |pool| pool.map_with(MapOptions::new().ordered(false), |n| n, [1, 2]).unwrap().map(Result::unwrap).sum(),
    ];
    guarded(move || {
        let pool = Arc::new(pool(2));
        for wait in waits {
            let inner = Arc::clone(&pool);
            let joined = pool.submit(move || {
                let taken = AtomicBool::new(false);
                let wait_there = || {
                    taken.store(true, SeqCst);
                    wait(&inner)
                };
                inner.join(|| until(|| taken.load(SeqCst)), wait_there).1
            });
            assert_eq!(joined.result().unwrap(), 3);
        }
    });
}

#[test]
fn a_destructor_in_a_worker_outside_its_task() {
    struct Waits(std::sync::Weak<ThreadPoolExecutor>, std::sync::mpsc::Sender<usize>);
    impl Drop for Waits {
        fn drop(&mut self) {
            let Some(pool) = self.0.upgrade() else { return };
            let mut done = as_completed([pool.submit(|| 1), pool.submit(|| 2)]).count();
            done += usize::from(pool.spawn(async { 1 }).result().is_ok());
            done += usize::from(pool.submit(|| 1).result_timeout(LIMIT).is_ok());
            self.1.send(done).unwrap();
        }
    }
    guarded(|| {
        let pool = Arc::new(pool(1));
        let (tx, rx) = std::sync::mpsc::channel();
        let (weak, gate) = (Arc::downgrade(&pool), Gate::new());
        let behind = gate.clone();
        let nobodys = pool.submit(move || {
            behind.pass();
            Waits(weak, tx)
        });
        nobodys.detach();
        gate.open();
        assert_eq!(rx.recv().unwrap(), 4);
    });
}

// It looks whether a spare thread can be had, which may take a moment. What comes meanwhile is not announced.
#[cfg(target_os = "linux")]
#[test]
fn an_unordered_map_whose_results_come_while_it_looks_for_a_thread() {
    guarded(|| {
        let pool = Arc::new(pool(2));
        let (busy, gate) = (Gate::new(), Gate::new());
        let behind = busy.clone();
        let other = pool.submit(move || behind.pass());
        until(|| other.is_running());
        let (inner, behind) = (Arc::clone(&pool), gate.clone());
        let (tx, rx) = std::sync::mpsc::channel();
        let consumer = pool.submit(move || {
            // As many spare threads as there may be, none of which ends soon.
            let kept: Vec<_> = (0..2)
                .map(|_| {
                    let (started, behind) = (Gate::new(), behind.clone());
                    let begun = started.clone();
                    let blocks = inner.submit(move || {
                        begun.open();
                        behind.pass();
                    });
                    let mut blocks = Some(blocks);
                    while !started.is_open() {
                        blocks = blocks.and_then(|future| future.result_timeout(SOON).err());
                    }
                    blocks
                })
                .collect();
            let map = inner.map_with(MapOptions::new().ordered(false), |n| n, [1, 2]).unwrap();
            tx.send(rustix::thread::gettid()).unwrap();
            let sum: u32 = map.map(Result::unwrap).sum();
            behind.open();
            drop(kept);
            sum
        });
        until_asleep(rx.recv().unwrap());
        busy.open();
        assert_eq!(consumer.result().unwrap(), 3);
        other.result().unwrap();
        gate.open();
    });
}
