//! Panics in tasks, payloads, results, closures and destructors: the worker serves on.

use std::panic::{AssertUnwindSafe, catch_unwind, panic_any, resume_unwind, set_hook};
use std::sync::OnceLock;

use concurrent_futures::{TaskError, TaskPanic, ThreadPoolExecutor};

use crate::support::*;

fn panic_of<T: std::fmt::Debug>(result: Result<T, TaskError>) -> TaskPanic {
    match result.unwrap_err() {
        TaskError::Panicked(panic) => panic,
        other => panic!("{other}"),
    }
}

/// One worker still serves, and it is the first one.
fn serves_on(pool: &ThreadPoolExecutor) {
    assert_eq!(pool.submit(|| 42).result().unwrap(), 42);
    assert_eq!(pool.stats().workers, 1);
}

#[test]
fn it_is_described() {
    guarded(|| {
        let pool = ThreadPoolExecutor::builder().max_workers(1).name("described").build().unwrap();
        let line = line!() + 1;
        let task = || -> () { panic!("a task panics, {} this test wants it", "as") };
        let panic = panic_of(pool.submit(task).result());
        assert_eq!(panic.message(), "a task panics, as this test wants it");
        let location = panic.location().unwrap();
        assert_eq!((location.file(), location.line()), (file!(), line));
        assert_eq!((panic.thread_name(), panic.task_name()), (Some("described_0"), None));
        let text = panic.to_string();
        assert!(text.starts_with("the task panicked at ") && text.ends_with("as this test wants it"), "{text}");
        serves_on(&pool);
    });
}

#[test]
fn it_has_the_name_of_the_task() {
    guarded(|| {
        let pool = pool(1);
        let task = || -> () { panic!("as this test wants it") };
        let panic = panic_of(pool.task(task).name("doomed").submit().result());
        assert_eq!(panic.task_name(), Some("doomed"));
        assert!(panic.to_string().starts_with("the task `doomed` panicked at "), "{panic}");
        // The name does not stick to the worker.
        let panic = panic_of(pool.submit(|| -> () { panic!("as this test wants it") }).result());
        assert_eq!((panic.message(), panic.task_name()), ("as this test wants it", None));
        serves_on(&pool);
    });
}

#[test]
fn a_payload_comes_back_as_it_was() {
    guarded(|| {
        let pool = pool(1);
        let panic = panic_of(pool.submit(|| -> () { panic_any(vec![1u32, 2]) }).result());
        assert_eq!(panic.message(), "non-string payload");
        let second = panic.clone();
        assert_eq!(*panic.into_payload().unwrap().downcast::<Vec<u32>>().unwrap(), [1, 2]);
        assert!(second.into_payload().is_none(), "it is there once");
        let panic = panic_of(pool.submit(|| -> () { resume_unwind(Box::new(7u8)) }).result());
        let resumed = catch_unwind(AssertUnwindSafe(|| panic.resume())).unwrap_err();
        assert_eq!(*resumed.downcast::<u8>().unwrap(), 7);
        serves_on(&pool);
    });
}

#[test]
fn a_panic_that_the_hook_never_saw_has_no_place() {
    guarded(|| {
        let pool = pool(1);
        pool.submit(|| -> () { panic!("as this test wants it") }).result().unwrap_err();
        // `resume_unwind` calls no hook, and the place of the panic before must not be taken for its own.
        let panic = panic_of(pool.submit(|| -> () { resume_unwind(Box::new("no hook")) }).result());
        assert_eq!((panic.message(), panic.location()), ("no hook", None));
    });
}

#[test]
fn the_place_of_a_panic_that_the_task_caught_is_not_that_of_a_later_one() {
    guarded(|| {
        let pool = pool(1);
        pool.submit(|| drop(catch_unwind(|| panic!("caught inside, as this test wants it")))).result().unwrap();
        let panic = panic_of(pool.submit(|| -> () { resume_unwind(Box::new("no hook")) }).result());
        assert_eq!(panic.location(), None, "this is the place of a panic in an earlier task");
    });
}

#[test]
fn a_hook_that_waits_on_the_pool_leaves_the_place() {
    const TEST: &str = "panics::a_hook_that_waits_on_the_pool_leaves_the_place";
    if !is_child() {
        let output = guarded(|| in_child(TEST));
        assert!(output.status.success(), "{}", printed(&output));
        return;
    }
    guarded(|| {
        static POOL: OnceLock<ThreadPoolExecutor> = OnceLock::new();
        // Before the first pool is built, which puts its own hook in front.
        set_hook(Box::new(|_| POOL.get().unwrap().task(|| ()).name("of the hook").submit().result().unwrap()));
        let pool = POOL.get_or_init(|| pool(1));
        let line = line!() + 1;
        let task = || -> () { panic!("as this test wants it") };
        let panic = panic_of(pool.task(task).name("of the panic").submit().result());
        let location = panic.location().expect("the hook ran");
        assert_eq!((location.file(), location.line()), (file!(), line));
        assert_eq!(panic.task_name(), Some("of the panic"));
        serves_on(pool);
    });
}

#[test]
fn resume_panic_leaves_other_errors() {
    assert!(TaskError::Cancelled.resume_panic().is_cancelled());
}

#[test]
fn a_thousand_panics_cost_no_worker() {
    guarded(|| {
        let pool = pool(1);
        let futures: Vec<_> =
            (0..1000usize).map(|n| pool.submit(move || -> () { resume_unwind(Box::new(n)) })).collect();
        for (n, future) in futures.into_iter().enumerate() {
            let payload = panic_of(future.result()).into_payload().unwrap();
            assert_eq!(*payload.downcast::<usize>().unwrap(), n);
        }
        serves_on(&pool);
    });
}

#[test]
fn a_payload_whose_destructor_panics() {
    guarded(|| {
        let (pool, drops) = (pool(1), Drops::new());
        for taken in [false, true] {
            let payload = PanicsOnDrop(drops.token());
            let future = pool.submit(move || -> () { resume_unwind(Box::new(payload)) });
            match taken {
                false => drop(future),
                true => drop(panic_of(future.result())),
            }
            serves_on(&pool);
        }
        assert_eq!(drops.count(), 2);
    });
}

#[test]
fn a_result_whose_destructor_panics_on_the_worker() {
    guarded(|| {
        let (pool, drops) = (pool(1), Drops::new());
        let plug = Plug::new(&pool, 1);
        let token = drops.token();
        drop(pool.submit(move || PanicsOnDrop(token)));
        plug.release();
        serves_on(&pool);
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn a_closure_whose_capture_panics_in_drop() {
    guarded(|| {
        let (pool, drops) = (pool(1), Drops::new());
        // While it runs: the panic is the task's.
        let captured = PanicsOnDrop(drops.token());
        let panic = panic_of(pool.submit(move || drop(captured)).result());
        assert!(panic.message().contains("as this test wants it"));
        assert_eq!(drops.count(), 1);
        // When it is cancelled: the panic is reported, and the caller of `cancel` goes on.
        let plug = Plug::new(&pool, 1);
        let captured = PanicsOnDrop(drops.token());
        let future = pool.submit(move || drop(captured));
        assert!(future.cancel());
        assert!(future.result().unwrap_err().is_cancelled());
        assert_eq!(drops.count(), 2);
        plug.release();
        serves_on(&pool);
    });
}

#[test]
fn closures_whose_captures_panic_in_drop_when_the_pool_cancels() {
    guarded(|| {
        let (pool, drops) = (std::sync::Arc::new(pool(1)), Drops::new());
        let plug = Plug::new(&pool, 1);
        let futures: Vec<_> = (0..10)
            .map(|_| {
                let captured = PanicsOnDrop(drops.token());
                pool.submit(move || drop(captured))
            })
            .collect();
        let inner = std::sync::Arc::clone(&pool);
        let ender = std::thread::spawn(move || inner.shutdown(concurrent_futures::Shutdown::CancelPending));
        for future in futures {
            assert!(future.result().unwrap_err().is_cancelled());
        }
        plug.release();
        ender.join().unwrap().unwrap();
        assert_eq!(drops.count(), 10);
    });
}

#[test]
fn a_panicking_item_of_a_map_whose_payload_panics_in_drop() {
    guarded(|| {
        let (pool, drops) = (pool(1), Drops::new());
        let source = drops.clone();
        let map = pool.map(move |_| -> () { resume_unwind(Box::new(PanicsOnDrop(source.token()))) }, 0..5);
        assert_eq!(map.map(|result| assert!(result.unwrap_err().is_panicked())).count(), 5);
        assert_eq!(drops.count(), 5);
        serves_on(&pool);
    });
}

#[test]
fn in_every_thread_at_once() {
    guarded(|| {
        let pool = pool(4);
        let futures: Vec<_> = (0..2000u32)
            .map(|n| pool.submit(move || if n % 2 == 0 { resume_unwind(Box::new(n)) } else { n }))
            .collect();
        for (n, future) in futures.into_iter().enumerate() {
            match future.result() {
                Ok(value) => assert_eq!(value as usize, n),
                error => {
                    let payload = panic_of(error).into_payload().unwrap();
                    assert_eq!((*payload.downcast::<u32>().unwrap() as usize, n % 2), (n, 0));
                }
            }
        }
        assert_eq!(pool.stats().completed, 2000);
    });
}
