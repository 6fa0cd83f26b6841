//! What Python tests of its thread pool alone: how many threads there are, and when they start.

use std::sync::Arc;
use std::time::Duration;

use concurrent_futures::{
    BuildError, MapOptions, ThreadPoolBuilder, ThreadPoolExecutor, cpu_workers, default_executor, io_workers,
};

use crate::support::*;

#[test]
fn map_submits_without_iteration() {
    guarded(|| {
        let pool = pool(2);
        let ran = Counter::new();
        let count = Arc::clone(&ran);
        let map = pool.map(move |_| count.add(), 0..25);
        ran.wait_for(25);
        assert_eq!(map.len(), 25);
    });
}

#[test]
fn default_workers() {
    let pool = ThreadPoolExecutor::builder().build().unwrap();
    assert_eq!(pool.stats().max_workers, io_workers());
    assert_eq!(io_workers(), (cpu_workers() + 4).min(32));
    assert_eq!(default_executor().stats().max_workers, io_workers());
}

#[test]
fn saturation() {
    guarded(|| {
        const WORKERS: usize = 4;
        let pool = ThreadPoolExecutor::builder().max_workers(WORKERS).name("saturated").build().unwrap();
        let (gate, started) = (Gate::new(), Counter::new());
        let submit = |_| {
            let (gate, started) = (gate.clone(), Arc::clone(&started));
            pool.submit(move || {
                started.add();
                gate.pass();
            })
        };
        let futures: Vec<_> = (0..15 * WORKERS).map(submit).collect();
        started.wait_for(WORKERS);
        let stats = pool.stats();
        assert_eq!((stats.workers, stats.busy, stats.queued), (WORKERS, WORKERS, 14 * WORKERS));
        assert_eq!(threads_named("saturated_"), WORKERS);
        gate.open();
        futures.into_iter().for_each(|future| future.result().unwrap());
        assert_eq!(pool.stats().workers, WORKERS);
    });
}

#[test]
fn idle_thread_reuse() {
    guarded(|| {
        let pool = pool(8);
        for n in 0..1000 {
            assert_eq!(pool.submit(move || n).result().unwrap(), n);
        }
        assert_eq!(pool.stats().workers, 1);
    });
}

#[test]
fn executor_map_current_future_cancel() {
    guarded(|| {
        let pool = pool(1);
        let (reached, go_on, started) = (Gate::new(), Gate::new(), Counter::new());
        let f = {
            let (reached, go_on, started) = (reached.clone(), go_on.clone(), Arc::clone(&started));
            move |_: u8| {
                started.add();
                reached.open();
                go_on.pass();
            }
        };
        let options = MapOptions::new().chunk_size(1).timeout(Duration::ZERO);
        let mut results = pool.map_with(options, f, 0..10).unwrap();
        reached.pass();
        assert!(results.next().unwrap().unwrap_err().is_timed_out());
        go_on.open();
        // Joins the worker: whatever would start has started when this returns.
        drop(pool);
        assert_eq!(started.get(), 1);
        assert!(results.next().is_none());
    });
}

#[test]
fn the_default_executor_is_always_the_same() {
    guarded(|| {
        assert!(std::ptr::eq(default_executor(), default_executor()));
        let name = default_executor().submit(|| std::thread::current().name().map(str::to_owned));
        assert!(name.result().unwrap().unwrap().starts_with("default_"));
    });
}

#[test]
fn submit_all_keeps_the_order() {
    guarded(|| {
        let pool = pool(2);
        let futures = pool.submit_all((0..500).map(|n| move || n));
        for (n, future) in futures.into_iter().enumerate() {
            assert_eq!(future.result().unwrap(), n);
        }
        assert!(pool.submit_all(Vec::<fn()>::new()).is_empty());
    });
}

#[test]
fn submit_all_announces_what_it_took_before_its_input_panicked() {
    guarded(|| {
        let pool = pool(2);
        let ran = Counter::new();
        let count = Arc::clone(&ran);
        let input = (0..10).map(move |n| {
            assert!(n < 7, "the input panics, as this test wants it");
            let count = Arc::clone(&count);
            move || count.add()
        });
        let submitting = std::panic::AssertUnwindSafe(|| pool.submit_all(input));
        assert!(std::panic::catch_unwind(submitting).is_err());
        ran.wait_for(7);
        drop(pool);
        assert_eq!(ran.get(), 7);
    });
}

#[test]
fn stats_and_debug_tell_how_the_pool_is_doing() {
    guarded(|| {
        let pool = ThreadPoolExecutor::builder().max_workers(1).name("told").build().unwrap();
        let plug = Plug::new(&pool, 1);
        let futures = [pool.submit(|| ()), pool.submit(|| ())];
        let stats = pool.stats();
        assert_eq!((stats.max_workers, stats.workers, stats.busy), (1, 1, 1));
        assert_eq!((stats.queued, stats.completed), (2, 0));
        let debug = format!("{pool:?}");
        assert!(debug.contains("told") && debug.contains("1/1"), "{debug}");
        plug.release();
        futures.into_iter().for_each(|future| future.result().unwrap());
        assert_eq!(pool.stats().completed, 3);
        assert_eq!(pool.stats().queued, 0);
    });
}

#[test]
fn odd_names_and_small_stacks() {
    guarded(|| {
        let named = |name: &str| ThreadPoolExecutor::builder().max_workers(1).name(name).build();
        assert_eq!(named("nul\0inside").unwrap_err(), BuildError::BadThreadName);
        let long = "long".repeat(64);
        for name in ["", "ünï", "with spaces", &long] {
            let seen = named(name).unwrap().submit(|| std::thread::current().name().unwrap().to_owned()).result();
            assert_eq!(seen.unwrap(), format!("{name}_0"));
        }
        for stack in [0, 1, 64 << 10] {
            let pool = ThreadPoolExecutor::builder().max_workers(2).stack_size(stack).build().unwrap();
            // 0 and 1 are rounded up to what a thread needs at least.
            assert_eq!(pool.submit(|| 1).result().unwrap(), 1);
        }
    });
}

/// A stack that is too small would end the process at the first task, so this runs in a child: what a task does there is run
/// with the smallest stack that the builder lets through, a panic with a backtrace included.
#[test]
fn the_smallest_stack_is_enough_for_a_task_that_panics() {
    if is_child() {
        return guarded(|| {
            for bytes in [0, 1, ThreadPoolBuilder::MIN_STACK_SIZE] {
                let pool = ThreadPoolExecutor::builder().max_workers(1).stack_size(bytes).build().unwrap();
                assert_eq!(pool.submit(|| format!("{}", 6 * 7)).result().unwrap(), "42");
                let panicked = pool.submit(|| panic!("as this test wants it, {}", 1)).result().unwrap_err();
                assert!(panicked.is_panicked(), "{panicked:?}");
                assert_eq!(pool.map(|n: u32| n + 1, 0..10).map(Result::unwrap).sum::<u32>(), 55);
                assert_eq!(pool.join(|| 1, || 2), (1, 2));
                assert_eq!(pool.spawn(async { 3 }).result().unwrap(), 3);
            }
        });
    }
    let test = "thread_pool::the_smallest_stack_is_enough_for_a_task_that_panics";
    for backtrace in ["0", "1", "full"] {
        let output = child_command(test).env("RUST_BACKTRACE", backtrace).output().unwrap();
        assert!(output.status.success(), "{}", printed(&output));
    }
}
