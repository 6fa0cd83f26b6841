//! Tasks that wait for themselves, or for each other: every way to wait says so, and nobody hangs.

use std::future::Future;
use std::sync::mpsc;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use concurrent_futures::{
    Priority, ReturnWhen, TaskError, TaskFuture, ThreadPoolExecutor, as_completed, block_on, promise, wait, wait_async,
};

use super::support::{Plug, guarded, pool};

type Way = fn(TaskFuture<u32>) -> Result<u32, TaskError>;

/// The ways to wait that block a thread.
const BLOCKING: [(&str, Way); 6] = [
    ("result", TaskFuture::result),
    ("shared", |future| future.shared().result()),
    ("wait", |future| {
        let mut waited = wait([future], None, ReturnWhen::AllCompleted);
        assert!(waited.not_done.is_empty());
        waited.done.pop().unwrap().result()
    }),
    ("wait for the first", |future| {
        let mut waited = wait([future.shared()], None, ReturnWhen::FirstCompleted);
        assert!(waited.not_done.is_empty());
        waited.done.pop().unwrap().result()
    }),
    ("wait for a failure", |future| {
        let mut waited = wait([(1, future)], None, ReturnWhen::FirstException);
        assert!(waited.not_done.is_empty());
        waited.done.pop().unwrap().1.result()
    }),
    ("as_completed", |future| {
        let mut results = as_completed([future]).map(TaskFuture::result);
        let result = results.next().unwrap();
        assert!(results.next().is_none());
        result
    }),
];

/// Submits a closure that is given its own handle.
fn submit_with_own<T: Send + 'static>(
    pool: &ThreadPoolExecutor,
    f: impl FnOnce(TaskFuture<u32>) -> T + Send + 'static,
) -> T {
    let (give, take) = mpsc::channel();
    let (tell, told) = mpsc::channel();
    let own = pool.submit(move || {
        tell.send(f(take.recv().unwrap())).unwrap();
        7
    });
    give.send(own).unwrap();
    told.recv().unwrap()
}

/// Spawns a future that is given its own handle.
fn spawn_with_own<T, F>(pool: &ThreadPoolExecutor, f: impl FnOnce(TaskFuture<u32>) -> F + Send + 'static) -> T
where
    T: Send + 'static,
    F: Future<Output = T> + Send,
{
    let (promise, own) = promise();
    let (tell, told) = mpsc::channel();
    let handle = pool.spawn(async move {
        tell.send(f(own.await.unwrap()).await).unwrap();
        7
    });
    promise.set_result(handle).unwrap();
    told.recv().unwrap()
}

#[test]
fn for_oneself_in_every_way_that_blocks() {
    guarded(|| {
        for workers in [1, 2] {
            let pool = pool(workers);
            for (name, way) in BLOCKING {
                let error = submit_with_own(&pool, way).expect_err(name);
                assert!(error.is_would_deadlock(), "{name}: {error}");
            }
        }
    });
}

#[test]
fn for_oneself_in_a_future() {
    guarded(|| {
        let pool = pool(1);
        for (name, way) in BLOCKING {
            let error = spawn_with_own(&pool, move |own| async move { way(own) }).expect_err(name);
            assert!(error.is_would_deadlock(), "{name}: {error}");
        }
    });
}

#[test]
fn for_oneself_in_block_on() {
    guarded(|| {
        let pool = pool(1);
        assert!(submit_with_own(&pool, block_on).unwrap_err().is_would_deadlock());
        assert!(submit_with_own(&pool, |own| block_on(own.shared())).unwrap_err().is_would_deadlock());
        let waited =
            |own: TaskFuture<u32>| block_on(wait_async([own], ReturnWhen::AllCompleted)).done.pop().unwrap().result();
        assert!(submit_with_own(&pool, waited).unwrap_err().is_would_deadlock());
        // Inside of another one, and inside of a future.
        let nested = |own| block_on(async { block_on(own) });
        assert!(submit_with_own(&pool, nested).unwrap_err().is_would_deadlock());
        let error = spawn_with_own(&pool, |own| async { block_on(own) }).unwrap_err();
        assert!(error.is_would_deadlock());
    });
}

#[test]
fn for_oneself_by_await() {
    guarded(|| {
        let pool = pool(1);
        assert!(spawn_with_own(&pool, |own| own).unwrap_err().is_would_deadlock());
        assert!(spawn_with_own(&pool, |own| own.shared()).unwrap_err().is_would_deadlock());
        let waited = spawn_with_own(&pool, |own| wait_async([own], ReturnWhen::AllCompleted));
        assert_eq!((waited.done.len(), waited.not_done.len()), (1, 0));
        // It was an error for its own task alone.
        assert_eq!(waited.done.into_iter().next().unwrap().result().unwrap(), 7);
    });
}

#[cfg(feature = "stream")]
#[test]
fn for_oneself_by_a_stream() {
    use futures::StreamExt;
    guarded(|| {
        let pool = pool(1);
        let error = spawn_with_own(&pool, |own| async {
            let own = as_completed([own]).into_stream().next().await.unwrap();
            own.await.unwrap_err()
        });
        assert!(error.is_would_deadlock());
    });
}

#[test]
fn the_future_itself_is_not_changed() {
    guarded(|| {
        let pool = pool(1);
        let seen = Arc::new(parking_lot::Mutex::new(None));
        let (give, take) = mpsc::channel::<TaskFuture<u32>>();
        let kept = Arc::clone(&seen);
        let own = pool.submit(move || {
            let own = take.recv().unwrap().shared();
            assert!(own.result().unwrap_err().is_would_deadlock());
            let waited = wait([own.clone()], None, ReturnWhen::AllCompleted);
            assert!(!waited.done[0].is_done());
            *kept.lock() = Some(own);
            7
        });
        let other = pool.submit(|| ());
        give.send(own).unwrap();
        other.result().unwrap();
        assert_eq!(seen.lock().take().unwrap().result().unwrap(), 7);
    });
}

#[test]
fn with_a_deadline_it_is_no_error_and_ends() {
    guarded(|| {
        let pool = pool(1);
        let moment = Duration::from_millis(1);
        let waited = submit_with_own(&pool, move |own| wait([own], Some(moment), ReturnWhen::AllCompleted));
        assert_eq!((waited.done.len(), waited.not_done.len()), (0, 1));
        let own = submit_with_own(&pool, move |own| own.result_timeout(moment));
        assert_eq!(own.unwrap_err().result().unwrap(), 7);
    });
}

#[test]
fn others_are_waited_for_before_and_after() {
    guarded(|| {
        let pool = pool(1);
        let other = promise();
        let order = submit_with_own(&pool, move |own| {
            let (promise, other) = other;
            let mut completed = as_completed([("own", own), ("other", other)]);
            // Whatever is left when nothing else can come: at first the promise may, then it has.
            promise.set_result(1).unwrap();
            let order: Vec<&str> = completed.by_ref().map(|(name, _)| name).collect();
            order
        });
        assert_eq!(order, ["other", "own"]);
        let (first, second) = (pool.submit(|| 1), pool.submit(|| 2));
        let waited = submit_with_own(&pool, move |own| wait([first, own, second], None, ReturnWhen::AllCompleted));
        assert_eq!((waited.done.len(), waited.not_done.len()), (3, 0));
    });
}

/// Each of so many tasks waits for the next in one way, and the last for the first. All run at the same time.
fn circle(ways: &[Way]) -> Vec<Result<u32, TaskError>> {
    let pool = pool(ways.len());
    let together = Arc::new(Barrier::new(ways.len()));
    let mut gives = Vec::new();
    let mut futures: Vec<_> = Vec::new();
    let mut results = Vec::new();
    for &way in ways {
        let ((give, take), (tell, told)) = (mpsc::channel::<TaskFuture<u32>>(), mpsc::channel());
        let together = Arc::clone(&together);
        futures.push(pool.submit(move || {
            let next = take.recv().unwrap();
            together.wait();
            tell.send(way(next)).unwrap();
            7
        }));
        gives.push(give);
        results.push(told);
    }
    futures.rotate_left(1);
    for (give, future) in gives.into_iter().zip(futures) {
        give.send(future).unwrap();
    }
    results.into_iter().map(|told| told.recv().unwrap()).collect()
}

#[test]
fn of_two_or_three_tasks_in_every_combination_of_ways() {
    guarded(|| {
        for (one, first) in BLOCKING {
            for (other, second) in BLOCKING {
                for ways in [vec![first, second], vec![first, second, first]] {
                    let results = circle(&ways);
                    let refused = results.iter().filter(|result| result.is_err()).count();
                    assert_eq!(refused, 1, "{one}, {other}: {results:?}");
                    assert!(results.into_iter().filter_map(Result::err).all(|error| error.is_would_deadlock()));
                }
            }
        }
    });
}

/// Two tasks that wait for each other, but one of them for something else as well, which comes.
#[test]
fn any_of_several_is_in_vain_only_if_each_is() {
    guarded(|| {
        let pool = pool(2);
        let ((give, take), (promise, other)) = (mpsc::channel::<TaskFuture<u32>>(), promise::<u32>());
        let (tell, told) = mpsc::channel();
        let first = pool.submit(move || {
            let mut completed = as_completed([take.recv().unwrap(), other]);
            tell.send(()).unwrap();
            completed.next().unwrap().result().unwrap()
        });
        let ((pass, passed), (tell_value, value)) = (mpsc::channel(), mpsc::channel());
        let (start, started) = mpsc::channel();
        let second = pool.submit(move || {
            start.send(()).unwrap();
            passed.recv().unwrap();
            // Whether it is there already or not: the promise comes, so this is no circle, and it is waited for.
            tell_value.send(first.result().unwrap()).unwrap();
            7
        });
        // It runs on a worker of its own, and is not claimed by the first.
        started.recv().unwrap();
        give.send(second).unwrap();
        told.recv().unwrap();
        pass.send(()).unwrap();
        promise.set_result(1).unwrap();
        assert_eq!(value.recv().unwrap(), 1);
    });
}

/// Longer than what is searched task by task.
#[test]
fn at_the_bottom_of_a_deep_nest() {
    guarded(|| {
        let pool = pool(1);
        let (give, take) = mpsc::channel::<TaskFuture<u32>>();
        let (tell, told) = mpsc::channel();
        let plug = Plug::new(&pool, 1);
        let mut last = pool.submit(move || tell.send(take.recv().unwrap().result()).unwrap());
        for _ in 0..200 {
            last = pool.submit(move || last.result().unwrap());
        }
        let outermost = pool.task(move || last.result().map_or(0, |()| 7)).priority(Priority::High).submit();
        give.send(outermost).unwrap();
        plug.release();
        assert!(told.recv().unwrap().unwrap_err().is_would_deadlock());
    });
}
