//! Chains: what is nested in a long one does not overflow the stack.
//!
//! Every chain here is run on a pool of one worker with a stack of the default size, or resolved on one.

use std::any::Any;
use std::future::pending;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use concurrent_futures::{
    CancelOnDrop, Priority, Promise, QueuePolicy, TaskError, TaskFuture, ThreadPoolExecutor, promise,
};

use super::support::{Plug, pool, watchdog};

/// How many links a chain has.
const LINKS: usize = match (cfg!(feature = "deep-stacks"), cfg!(debug_assertions)) {
    (true, false) => 1_000_000,
    (true, true) => 100_000,
    // What fits into a thread's own stack.
    (false, _) => 100,
};

/// One after the other, as each takes up to 1.6 GB for a moment. The limit is long enough for a debug build on a busy
/// machine: it ends only what hangs.
fn guarded<R: Send + 'static>(body: impl FnOnce() -> R + Send + 'static) -> R {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    watchdog(Duration::from_secs(300), body)
}

/// Promises, each of which is resolved by `link` when the one before is. The first, and the last future.
fn promises(mut link: impl FnMut(TaskFuture<usize>, Promise<usize>)) -> (Promise<usize>, TaskFuture<usize>) {
    let (first, mut last) = promise::<usize>();
    for _ in 0..LINKS {
        let (next, future) = promise();
        link(std::mem::replace(&mut last, future), next);
    }
    (first, last)
}

#[test]
fn promises_linked_by_callbacks() {
    guarded(|| {
        let pool = pool(1);
        let (first, last) = promises(|future, next| {
            future.add_done_callback(move |outcome| next.set_result(outcome.unwrap() + 1).unwrap());
        });
        pool.submit(move || first.set_result(0).unwrap()).result().unwrap();
        assert_eq!(last.try_result().unwrap().unwrap(), LINKS);
    });
}

#[test]
fn promises_linked_by_callbacks_and_abandoned() {
    guarded(|| {
        let (first, last) = promises(|future, next| future.add_done_callback(move |_| drop(next)));
        drop(first);
        assert!(last.try_result().unwrap().unwrap_err().is_abandoned());
    });
}

#[test]
fn callbacks_of_a_chain_run_before_their_future_is_done() {
    guarded(|| {
        let (first, mut last) = promise::<()>();
        let in_order = Arc::new(AtomicUsize::new(0));
        for n in 0..LINKS {
            let ((next, future), in_order) = (promise(), Arc::clone(&in_order));
            let seen = future.shared();
            let looking = seen.clone();
            last.add_done_callback(move |_| {
                next.set_result(()).unwrap();
                // What was resolved in a callback is resolved when `set_result` returns, its callbacks included.
                assert!(looking.is_done());
                assert_eq!(in_order.fetch_add(1, SeqCst), LINKS - 1 - n);
            });
            let (again, future) = promise();
            seen.add_done_callback(move |_| again.set_result(()).unwrap());
            last = future;
        }
        first.set_result(()).unwrap();
        assert!(last.is_done());
        assert_eq!(in_order.load(SeqCst), LINKS);
    });
}

#[test]
fn callbacks_that_are_added_late_by_callbacks() {
    guarded(|| {
        let pool = pool(1);
        let count = Arc::new(AtomicUsize::new(0));
        let mut callback: Box<dyn FnOnce() + Send> = Box::new(|| ());
        for _ in 0..LINKS {
            let (promise, future) = promise::<()>();
            promise.set_result(()).unwrap();
            let count = Arc::clone(&count);
            callback = Box::new(move || {
                count.fetch_add(1, SeqCst);
                future.add_done_callback(move |_| callback());
            });
        }
        pool.submit(callback).result().unwrap();
        assert_eq!(count.load(SeqCst), LINKS);
    });
}

#[test]
fn callbacks_that_cancel() {
    guarded(|| {
        let pool = pool(1);
        let plug = Plug::new(&pool, 1);
        let mut handle: TaskFuture<()> = pool.submit(|| ());
        let first_task = handle.id();
        for _ in 0..LINKS {
            let next = pool.submit(|| ());
            next.add_done_callback(move |_| assert!(handle.cancel()));
            handle = next;
        }
        assert_ne!(handle.id(), first_task);
        assert!(handle.cancel());
        plug.release();
        drop(pool);
    });
}

/// A waker that resolves the next promise.
struct Resolve(Mutex<Option<Promise<usize>>>);

impl Wake for Resolve {
    fn wake(self: Arc<Self>) {
        let next = self.0.lock().unwrap().take();
        next.unwrap().set_result(7).unwrap();
    }
}

#[test]
fn promises_linked_by_wakers() {
    guarded(|| {
        let pool = pool(1);
        let mut handles = Vec::new();
        let (first, last) = promises(|mut future, next| {
            let waker = Waker::from(Arc::new(Resolve(Mutex::new(Some(next)))));
            assert!(Pin::new(&mut future).poll(&mut Context::from_waker(&waker)).is_pending());
            handles.push(future);
        });
        pool.submit(move || first.set_result(0).unwrap()).result().unwrap();
        assert_eq!(last.try_result().unwrap().unwrap(), 7);
        assert!(handles.iter().all(TaskFuture::is_done));
    });
}

#[test]
fn shared_futures_linked_by_wakers_and_callbacks() {
    guarded(|| {
        let pool = pool(1);
        let mut readers = Vec::new();
        let (first, last) = promises(|future, next| {
            let mut shared = future.shared();
            match readers.len() % 2 {
                0 => {
                    let waker = Waker::from(Arc::new(Resolve(Mutex::new(Some(next)))));
                    assert!(Pin::new(&mut shared).poll(&mut Context::from_waker(&waker)).is_pending());
                }
                _ => shared.add_done_callback(move |_| next.set_result(7).unwrap()),
            }
            readers.push(shared);
        });
        pool.submit(move || first.set_result(7).unwrap()).result().unwrap();
        assert_eq!(last.try_result().unwrap().unwrap(), 7);
        assert!(readers.iter().all(|reader| reader.is_done()));
    });
}

#[test]
fn closures_that_wait_for_the_one_before() {
    guarded(|| {
        let pool = pool(1);
        let plug = Plug::new(&pool, 1);
        let mut last = pool.submit(|| 0);
        for _ in 0..LINKS {
            last = pool.submit(move || last.result().unwrap() + 1);
        }
        // It is the first to run, and claims the last of them.
        let first = pool.task(move || last.result().unwrap()).priority(Priority::High).submit();
        plug.release();
        assert_eq!(first.result().unwrap(), LINKS);
    });
}

#[test]
fn spawned_futures_that_await_the_one_before() {
    guarded(|| {
        let pool = pool(1);
        let plug = Plug::new(&pool, 1);
        let mut last = pool.spawn(async { 0 });
        for _ in 0..LINKS {
            last = pool.spawn(async move { last.await.unwrap() + 1 });
        }
        let first = pool.task(move || last.result().unwrap()).priority(Priority::High).submit();
        plug.release();
        assert_eq!(first.result().unwrap(), LINKS);
    });
}

#[test]
fn a_full_queue_and_tasks_that_submit_their_successors() {
    fn step(pool: &Arc<ThreadPoolExecutor>, left: usize, ends: &Arc<AtomicUsize>) -> TaskFuture<()> {
        let (inner, ends) = (Arc::clone(pool), Arc::clone(ends));
        pool.submit(move || {
            if left > 0 {
                step(&inner, left - 1, &ends).detach();
            }
            ends.fetch_add(1, SeqCst);
        })
    }
    guarded(|| {
        for policy in [QueuePolicy::Block, QueuePolicy::CallerRuns] {
            let builder = ThreadPoolExecutor::builder().max_workers(1).queue_capacity(1, policy);
            let pool = Arc::new(builder.build().unwrap());
            let ends = Arc::new(AtomicUsize::new(0));
            let (inner, counter) = (Arc::clone(&pool), Arc::clone(&ends));
            let filler = pool.submit(move || {
                // This fills the queue.
                let filler = inner.submit(|| ());
                step(&inner, LINKS, &counter).detach();
                filler
            });
            filler.result().unwrap().result().unwrap();
            assert_eq!(ends.load(SeqCst), LINKS + 1);
        }
    });
}

#[test]
fn a_full_queue_and_futures_that_spawn_their_successors() {
    fn step(pool: &Arc<ThreadPoolExecutor>, left: usize, ends: &Arc<AtomicUsize>) -> TaskFuture<()> {
        let (inner, ends) = (Arc::clone(pool), Arc::clone(ends));
        pool.spawn(async move {
            if left > 0 {
                step(&inner, left - 1, &ends).detach();
            }
            ends.fetch_add(1, SeqCst);
        })
    }
    guarded(|| {
        let pool = Arc::new(
            ThreadPoolExecutor::builder().max_workers(1).queue_capacity(1, QueuePolicy::Block).build().unwrap(),
        );
        let ends = Arc::new(AtomicUsize::new(0));
        let (inner, counter) = (Arc::clone(&pool), Arc::clone(&ends));
        let filler = pool.submit(move || {
            let filler = inner.submit(|| ());
            step(&inner, LINKS, &counter).detach();
            filler
        });
        filler.result().unwrap().result().unwrap();
        assert_eq!(ends.load(SeqCst), LINKS + 1);
    });
}

#[test]
fn maps_inside_of_maps() {
    fn nested(pool: &Arc<ThreadPoolExecutor>, left: usize) -> usize {
        let inner = Arc::clone(pool);
        let results = pool.map(move |left| if left == 0 { 0 } else { nested(&inner, left - 1) + 1 }, [left]);
        results.map(Result::unwrap).sum()
    }
    guarded(|| {
        let pool = Arc::new(pool(1));
        let inner = Arc::clone(&pool);
        // A link here is a map with all that it needs.
        let links = LINKS / 10;
        assert_eq!(pool.submit(move || nested(&inner, links)).result().unwrap(), links);
    });
}

#[test]
fn scopes_inside_of_scopes() {
    fn nested(pool: &ThreadPoolExecutor, left: usize) -> usize {
        let inside = |left| if left == 0 { 0 } else { nested(pool, left - 1) + 1 };
        pool.scope(|scope| scope.submit(move || inside(left)).result().unwrap())
    }
    guarded(|| {
        let pool = Arc::new(pool(1));
        let inner = Arc::clone(&pool);
        assert_eq!(pool.submit(move || nested(&inner, LINKS)).result().unwrap(), LINKS);
    });
}

#[test]
fn joins_inside_of_joins() {
    fn nested(pool: &ThreadPoolExecutor, left: usize) -> usize {
        let inside = |left| if left == 0 { 0 } else { nested(pool, left - 1) };
        let (one, other) = pool.join(|| 1, || inside(left));
        one + other
    }
    guarded(|| {
        let pool = pool(1);
        assert_eq!(nested(&pool, LINKS), LINKS + 1);
    });
}

#[test]
fn futures_that_own_the_cancelling_handle_of_the_one_before() {
    guarded(|| {
        let pool = pool(1);
        let drops = Arc::new(AtomicUsize::new(0));
        let link = |before: Option<CancelOnDrop<()>>| {
            let drops = CountDrop(Arc::clone(&drops));
            pool.spawn(async move {
                let _owned = (before, drops);
                pending::<()>().await
            })
        };
        // Nobody can run them, so they are cancelled where they lie.
        let plug = Plug::new(&pool, 1);
        let mut last = link(None);
        for _ in 0..LINKS {
            last = link(Some(last.cancel_on_drop()));
        }
        assert!(last.cancel());
        assert_eq!(drops.load(SeqCst), LINKS + 1);
        plug.release();
    });
}

struct CountDrop(Arc<AtomicUsize>);

impl Drop for CountDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn closures_that_own_the_cancelling_handle_of_the_one_before() {
    guarded(|| {
        let pool = pool(1);
        let plug = Plug::new(&pool, 1);
        let drops = Arc::new(AtomicUsize::new(0));
        let mut last = pool.submit(|| ());
        for _ in 0..LINKS {
            let owned = (last.cancel_on_drop(), CountDrop(Arc::clone(&drops)));
            last = pool.submit(move || drop(owned));
        }
        assert!(last.cancel());
        assert_eq!(drops.load(SeqCst), LINKS);
        plug.release();
    });
}

#[test]
fn outcomes_that_own_the_next_handle() {
    type Owned = Box<dyn Any + Send>;
    guarded(|| {
        let pool = pool(1);
        let mut last: TaskFuture<Owned> = pool.submit(|| Box::new(()) as Owned);
        for _ in 0..LINKS {
            last = pool.submit(move || Box::new(last) as Owned);
        }
        let count = Arc::new(AtomicUsize::new(0));
        let end = pool.submit({
            let end = CountDrop(Arc::clone(&count));
            move || end
        });
        // They are all done when a later one is.
        assert!(matches!(end.result(), Ok(CountDrop(_))));
        pool.submit(move || drop(last)).result().unwrap();
    });
}

#[test]
fn errors_that_own_the_next_handle() {
    #[derive(Debug)]
    struct Owner(#[allow(dead_code, reason = "it is there to be dropped")] TaskFuture<()>);
    impl std::fmt::Display for Owner {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an owner")
        }
    }
    impl std::error::Error for Owner {}
    guarded(|| {
        let (first, mut last) = promise::<()>();
        first.set_result(()).unwrap();
        for _ in 0..LINKS {
            let (promise, future) = promise::<()>();
            promise.set_error(Owner(last)).unwrap();
            last = future;
        }
        pool(1).submit(move || drop(last)).result().unwrap();
    });
}

#[test]
fn queued_tasks_that_own_the_promise_of_the_next() {
    guarded(|| {
        let pool = pool(1);
        let plug = Plug::new(&pool, 1);
        let (mut next, end) = promise::<()>();
        for _ in 0..LINKS {
            let (promise, future) = promise::<()>();
            let task = pool.submit(move || drop(next));
            future.add_done_callback(move |_| assert!(task.cancel()));
            next = promise;
        }
        drop(next);
        assert!(end.try_result().unwrap().unwrap_err().is_abandoned());
        plug.release();
    });
}

/// Without growing stacks the error comes before the stack ends.
#[test]
fn what_is_nested_too_deeply_is_an_error_where_stacks_do_not_grow() {
    if cfg!(feature = "deep-stacks") {
        return;
    }
    guarded(|| {
        let pool = pool(1);
        let plug = Plug::new(&pool, 1);
        let mut last = pool.submit(|| Ok::<usize, TaskError>(0));
        for _ in 0..100_000 {
            last = pool.submit(move || Ok(last.result()?? + 1));
        }
        let first = pool.task(move || last.result().and_then(|result| result)).priority(Priority::High).submit();
        plug.release();
        assert!(first.result().unwrap().unwrap_err().is_too_deep());
        // The worker is as good as before, and the pool knows how many tasks are queued.
        assert_eq!(pool.submit(|| 1).result().unwrap(), 1);
        let plug = Plug::new(&pool, 1);
        let queued: Vec<_> = (0..5).map(|n| pool.submit(move || n)).collect();
        assert_eq!(pool.stats().queued, 5);
        plug.release();
        assert_eq!(queued.into_iter().map(|future| future.result().unwrap()).sum::<i32>(), 10);
    });
}
