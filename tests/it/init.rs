//! Initializers and finalizers of workers.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use concurrent_futures::{Shutdown, ThreadPoolExecutor};

use crate::support::*;

thread_local! {
    static STATUS: Cell<&'static str> = const { Cell::new("uninitialized") };
}

#[test]
fn initializer() {
    guarded(|| {
        let pool =
            ThreadPoolExecutor::builder().max_workers(2).initializer(|| STATUS.set("initialized")).build().unwrap();
        let futures: Vec<_> = (0..50).map(|_| pool.submit(|| STATUS.get())).collect();
        for future in futures {
            assert_eq!(future.result().unwrap(), "initialized");
        }
        assert_eq!(STATUS.get(), "uninitialized");
    });
}

#[test]
fn initializer_runs_once_in_every_thread() {
    guarded(|| {
        let runs = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&runs);
        let initializer = move || {
            count.fetch_add(1, SeqCst);
        };
        let pool = ThreadPoolExecutor::builder().max_workers(3).initializer(initializer).build().unwrap();
        assert_eq!(runs.load(SeqCst), 0, "no thread before the first task");
        Plug::new(&pool, 3).release();
        Plug::new(&pool, 3).release();
        assert_eq!(runs.load(SeqCst), 3);
    });
}

/// A pool whose initializer panics when the gate opens.
fn fails_behind(gate: &Gate) -> ThreadPoolExecutor {
    let gate = gate.clone();
    let initializer = move || {
        gate.pass();
        panic!("error in the initializer");
    };
    ThreadPoolExecutor::builder().max_workers(1).initializer(initializer).build().unwrap()
}

#[test]
fn failing_initializer() {
    guarded(|| {
        let gate = Gate::new();
        let pool = fails_behind(&gate);
        let drops = Drops::new();
        let futures: Vec<_> = (0..100)
            .map(|_| {
                let token = drops.token();
                pool.submit(move || drop(token))
            })
            .collect();
        gate.open();
        for future in futures {
            let error = future.result().unwrap_err();
            assert!(error.is_broken(), "{error:?}");
            assert!(error.to_string().contains("error in the initializer"), "{error}");
        }
        assert_eq!(drops.count(), 100);
        // Later submits fail as well.
        assert!(pool.submit(|| 1).result().unwrap_err().is_broken());
        assert!(pool.task(|| 1).submit().result().unwrap_err().is_broken());
        let refused = pool.try_submit(|| 7).unwrap_err();
        assert!(refused.reason().is_broken());
        assert_eq!(refused.into_inner()(), 7);
        assert!(pool.submit_all([|| 1]).pop().unwrap().result().unwrap_err().is_broken());
        assert!(pool.scope(|scope| scope.submit(|| 1).result()).unwrap_err().is_broken());
        pool.shutdown(Shutdown::Wait).unwrap();
        assert!(pool.submit(|| 1).result().unwrap_err().is_broken(), "broken, not shut down");
    });
}

#[test]
fn failing_initializer_and_map() {
    guarded(|| {
        let gate = Gate::new();
        let pool = fails_behind(&gate);
        let during = pool.map(|n: u8| n, 0..20);
        gate.open();
        let errors: Vec<_> = during.map(Result::unwrap_err).collect();
        assert_eq!(errors.len(), 20);
        assert!(errors.iter().all(|error| error.is_broken()), "{errors:?}");
        let errors: Vec<_> = pool.map(|n: u8| n, 0..20).map(Result::unwrap_err).collect();
        assert_eq!(errors.len(), 20);
        assert!(errors.iter().all(|error| error.is_broken()), "{errors:?}");
    });
}

#[test]
fn tasks_of_other_threads_finish_when_an_initializer_fails() {
    guarded(|| {
        let first = AtomicUsize::new(0);
        let initializer = move || assert_eq!(first.fetch_add(1, SeqCst), 0, "only the first thread starts well");
        let pool = ThreadPoolExecutor::builder().max_workers(2).initializer(initializer).build().unwrap();
        let (started, go_on) = (Gate::new(), Gate::new());
        let running = {
            let (started, go_on) = (started.clone(), go_on.clone());
            pool.submit(move || {
                started.open();
                go_on.pass();
                42
            })
        };
        started.pass();
        // It needs a second thread, whose initializer fails.
        assert!(pool.submit(|| 1).result().unwrap_err().is_broken());
        go_on.open();
        assert_eq!(running.result().unwrap(), 42);
    });
}

#[test]
fn finalizer() {
    guarded(|| {
        let (started, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (starts, ends) = (Arc::clone(&started), Arc::clone(&ended));
        let pool = ThreadPoolExecutor::builder()
            .max_workers(3)
            .initializer(move || {
                starts.fetch_add(1, SeqCst);
            })
            .finalizer(move || {
                ends.fetch_add(1, SeqCst);
                panic!("a finalizer panics, as this test wants it");
            })
            .build()
            .unwrap();
        Plug::new(&pool, 3).release();
        assert_eq!((started.load(SeqCst), ended.load(SeqCst)), (3, 0));
        pool.shutdown(Shutdown::Wait).unwrap();
        assert_eq!((started.load(SeqCst), ended.load(SeqCst)), (3, 3));
    });
}

#[test]
fn no_finalizer_where_the_initializer_failed() {
    guarded(|| {
        let ended = Arc::new(AtomicUsize::new(0));
        let ends = Arc::clone(&ended);
        let pool = ThreadPoolExecutor::builder()
            .max_workers(1)
            .initializer(|| panic!("it fails"))
            .finalizer(move || {
                ends.fetch_add(1, SeqCst);
            })
            .build()
            .unwrap();
        assert!(pool.submit(|| ()).result().unwrap_err().is_broken());
        pool.shutdown(Shutdown::Wait).unwrap();
        assert_eq!(ended.load(SeqCst), 0);
    });
}

/// A pool whose hooks own one counted value each.
fn with_tokens(drops: &Drops, max_workers: usize) -> ThreadPoolExecutor {
    let (first, last) = (drops.token(), drops.token());
    let builder = ThreadPoolExecutor::builder().max_workers(max_workers);
    builder.initializer(move || first.touch()).finalizer(move || last.touch()).build().unwrap()
}

#[test]
fn hooks_are_dropped_with_the_last_thread() {
    guarded(|| {
        for workers in [1, 3] {
            let drops = Drops::new();
            let pool = with_tokens(&drops, workers);
            Plug::new(&pool, workers).release();
            assert_eq!(drops.count(), 0);
            pool.shutdown(Shutdown::Wait).unwrap();
            assert_eq!(drops.count(), 2);
            drop(pool);
        }
    });
}

#[test]
fn hooks_of_a_pool_without_threads_are_dropped_when_it_is_closed() {
    guarded(|| {
        for how in [Shutdown::Wait, Shutdown::NoWait, Shutdown::CancelPending] {
            let drops = Drops::new();
            let pool = with_tokens(&drops, 1);
            pool.shutdown(how).unwrap();
            assert_eq!(drops.count(), 2, "{how:?}");
        }
    });
}

#[test]
fn hooks_are_dropped_when_the_last_thread_ends_although_nobody_waits_for_it() {
    guarded(|| {
        let drops = Drops::new();
        let pool = with_tokens(&drops, 2);
        let plug = Plug::new(&pool, 2);
        pool.shutdown(Shutdown::NoWait).unwrap();
        // The threads that there are still have to run the finalizer.
        assert_eq!(drops.count(), 0);
        plug.release();
        until(|| drops.count() == 2);
        pool.shutdown(Shutdown::Wait).unwrap();
    });
}

#[test]
fn hooks_are_dropped_when_the_initializer_has_failed() {
    guarded(|| {
        let drops = Drops::new();
        let (first, last) = (drops.token(), drops.token());
        let fail = move || {
            first.touch();
            panic!("error in the initializer");
        };
        let pool = ThreadPoolExecutor::builder().max_workers(1).initializer(fail).finalizer(move || last.touch());
        let pool = pool.build().unwrap();
        assert!(pool.submit(|| ()).result().unwrap_err().is_broken());
        until(|| drops.count() == 2);
        drop(pool);
    });
}

/// What a hook owns may want to end the pool when it is dropped, and panic then.
#[test]
fn hooks_may_own_the_pool() {
    struct Ends(std::sync::Weak<ThreadPoolExecutor>, Token);
    impl Drop for Ends {
        fn drop(&mut self) {
            self.1.touch();
            if let Some(pool) = self.0.upgrade() {
                let _ = pool.shutdown(Shutdown::CancelPending);
            }
            panic!("a destructor panics, as this test wants it");
        }
    }
    guarded(|| {
        let drops = Drops::new();
        let pool = Arc::new_cyclic(|pool: &std::sync::Weak<ThreadPoolExecutor>| {
            let ends = Ends(pool.clone(), drops.token());
            ThreadPoolExecutor::builder().max_workers(1).finalizer(move || ends.1.touch()).build().unwrap()
        });
        pool.submit(|| ()).result().unwrap();
        pool.shutdown(Shutdown::NoWait).unwrap();
        until(|| drops.count() == 1);
        pool.shutdown(Shutdown::Wait).unwrap();
    });
}
