//! What holds for every blocking wait.

use std::panic::{RefUnwindSafe, UnwindSafe};
use std::thread;

use concurrent_futures::{
    AsCompleted, AsCompletedTimeout, CancelOnDrop, Map, Promise, ReturnWhen, Scope, ScopedFuture, SharedFuture,
    TaskError, TaskFuture, TaskPanic, ThreadPoolExecutor, ThreadPoolStats, WaitAsync, Waited, as_completed,
    as_completed_timeout, block_on, promise, wait, wait_async,
};

use crate::support::*;

type Way = (&'static str, fn(&ThreadPoolExecutor));

/// All the ways to block until something is done. Each submits it, and waits for it.
const WAYS: &[Way] = &[
    ("result", |pool| pool.submit(|| ()).result().unwrap()),
    ("result_timeout", |pool| pool.submit(|| ()).result_timeout(LIMIT).unwrap().unwrap()),
    ("shared result", |pool| pool.submit(|| ()).shared().result().unwrap()),
    ("shared get", |pool| pool.submit(|| ()).shared().get().copied().unwrap()),
    ("shared get_timeout", |pool| pool.submit(|| ()).shared().get_timeout(LIMIT).unwrap().copied().unwrap()),
    ("wait for all", |pool| assert_eq!(wait([pool.submit(|| ())], None, ReturnWhen::AllCompleted).done.len(), 1)),
    ("wait for the first", |pool| {
        assert_eq!(wait([pool.submit(|| ())], Some(LIMIT), ReturnWhen::FirstCompleted).done.len(), 1);
    }),
    ("wait for shared ones", |pool| {
        let shared = pool.submit(|| ()).shared();
        assert_eq!(wait([shared.clone(), shared], None, ReturnWhen::AllCompleted).done.len(), 2);
    }),
    ("as_completed", |pool| assert_eq!(as_completed([pool.submit(|| ())]).count(), 1)),
    ("as_completed_timeout", |pool| {
        assert!(as_completed_timeout([pool.submit(|| ())], LIMIT).all(|future| future.is_ok()));
    }),
    ("block_on", |pool| block_on(pool.submit(|| ())).unwrap()),
    ("block_on a shared one", |pool| block_on(pool.submit(|| ()).shared()).unwrap()),
    ("block_on wait_async", |pool| {
        let waited = block_on(wait_async([pool.submit(|| ())], ReturnWhen::AllCompleted));
        assert_eq!(waited.done.len(), 1);
    }),
    ("block_on a spawned future that awaits", |pool| {
        block_on(async { pool.spawn(yield_now()).await.unwrap() });
    }),
    ("result of a spawned future", |pool| pool.spawn(yield_now()).result().unwrap()),
    ("the result of a task of a scope", |pool| pool.scope(|scope| scope.submit(|| ()).result().unwrap())),
];

/// Those after which the worker may still be at the task, or at the rest of it.
const MORE_WAYS: &[Way] = &[
    ("a promise", |pool| {
        let (promise, future) = promise::<()>();
        pool.submit(move || promise.set_result(()).unwrap()).detach();
        future.result().unwrap();
    }),
    ("the end of a scope", |pool| pool.scope(|scope| drop(scope.submit(|| ())))),
    ("map", |pool| assert_eq!(pool.map(|n: u8| n, [1]).count(), 1)),
    ("join", |pool| assert_eq!(pool.join(|| 1, || 2), (1, 2))),
    ("dropping a pool", |_| {
        let pool = ThreadPoolExecutor::new(1).unwrap();
        pool.submit(|| ()).detach();
    }),
];

/// As the user's own `park` does it, in a loop of one round: it returns at once if there is a token, and hangs if not.
fn take_token() {
    thread::park();
}

#[test]
fn an_unpark_token_of_the_caller_is_kept() {
    guarded(|| {
        let pool = pool(2);
        for (name, wait) in WAYS.iter().chain(MORE_WAYS) {
            println!("{name}");
            for _ in rounds(100).take(100) {
                thread::current().unpark();
                wait(&pool);
                take_token();
            }
        }
    });
}

// Inside a task of one pool, for tasks of another, so that nothing is run in place.
#[test]
fn an_unpark_token_of_a_task_is_kept() {
    guarded(|| {
        let (outer, other) = (pool(1), pool(2));
        let waiting = outer.submit(move || {
            for (name, wait) in WAYS.iter().chain(MORE_WAYS) {
                println!("{name}");
                for _ in 0..10 {
                    thread::current().unpark();
                    wait(&other);
                    take_token();
                }
            }
        });
        waiting.result().unwrap();
    });
}

// The worker that has done the one task is free for the next, whichever way the end of the first was waited for.
#[test]
fn an_idle_thread_is_reused_after_every_kind_of_wait() {
    guarded(|| {
        for (name, wait) in WAYS {
            let pool = pool(8);
            for _ in 0..200 {
                wait(&pool);
            }
            assert_eq!(pool.stats().workers, 1, "{name}");
        }
    });
}

fn crosses<T: UnwindSafe + RefUnwindSafe>() {}

/// A compile-time test: what is here can be captured by a closure for `catch_unwind` by value and by reference.
#[test]
fn handles_and_pools_cross_catch_unwind() {
    crosses::<ThreadPoolExecutor>();
    crosses::<ThreadPoolStats>();
    crosses::<TaskFuture<String>>();
    crosses::<SharedFuture<String>>();
    crosses::<CancelOnDrop<String>>();
    crosses::<Promise<String>>();
    crosses::<Scope<'static, 'static>>();
    crosses::<ScopedFuture<'static, String>>();
    crosses::<AsCompleted<TaskFuture<String>>>();
    crosses::<AsCompletedTimeout<(u32, SharedFuture<String>)>>();
    crosses::<WaitAsync<TaskFuture<String>>>();
    crosses::<Waited<TaskFuture<String>>>();
    crosses::<Map<std::vec::IntoIter<u8>, String>>();
    crosses::<TaskError>();
    crosses::<TaskPanic>();
    #[cfg(feature = "stream")]
    crosses::<concurrent_futures::AsCompletedStream<TaskFuture<String>>>();
    #[cfg(all(feature = "process", target_os = "linux"))]
    {
        crosses::<concurrent_futures::ProcessPoolExecutor>();
        crosses::<concurrent_futures::ProcessPoolStats>();
        crosses::<concurrent_futures::SharedBytes>();
    }
}

// What the impls promise: after a panic in the middle of a closure the handles and the pool are as good as before.
#[test]
fn pools_and_handles_are_good_after_a_panic_that_was_caught() {
    guarded(|| {
        let pool = pool(1);
        let (future, shared) = (pool.submit(|| 1), pool.submit(|| 2).shared());
        let caught = std::panic::catch_unwind(|| {
            let _ = (&pool, future.is_done(), shared.is_done());
            panic!("as this test wants it");
        });
        assert!(caught.is_err());
        assert_eq!((future.result().unwrap(), shared.result().unwrap()), (1, 2));
        let caught = std::panic::catch_unwind(|| {
            pool.scope(|scope| {
                scope.submit(|| ()).result().unwrap();
                panic!("as this test wants it");
            })
        });
        assert!(caught.is_err());
        assert_eq!(pool.submit(|| 3).result().unwrap(), 3);
    });
}
