//! The end of the program while a pool is at work. Each case is a child process, whose exit code is looked at.

use std::cell::RefCell;
use std::mem;
use std::process::{self, Output};
use std::sync::{Arc, OnceLock};

use concurrent_futures::{Shutdown, ThreadPoolExecutor, default_executor};

use crate::support::*;

const CODE: i32 = 42;

/// Runs `in_the_child` in a child process, and returns how it ended.
fn child(test: &str, in_the_child: impl FnOnce()) -> Option<Output> {
    if is_child() {
        // No watchdog thread of its own: the parent's test has one.
        in_the_child();
        return None;
    }
    let name = format!("process_exit::{test}");
    Some(guarded(move || in_child(&name)))
}

/// A child that was to exit with [`CODE`].
fn exits_with_code(test: &str, in_the_child: impl FnOnce()) {
    if let Some(output) = child(test, in_the_child) {
        assert_eq!(output.status.code(), Some(CODE), "{}", printed(&output));
    }
}

fn static_pool() -> &'static ThreadPoolExecutor {
    static POOL: OnceLock<ThreadPoolExecutor> = OnceLock::new();
    POOL.get_or_init(|| pool(2))
}

#[test]
fn main_waits_where_it_drops_the_pool() {
    let output = child("main_waits_where_it_drops_the_pool", || {
        let pool = pool(1);
        let gate = Gate::new();
        let behind = gate.clone();
        drop(pool.submit(move || {
            behind.pass();
            println!("\napple");
        }));
        gate.open();
    });
    if let Some(output) = output {
        assert!(output.status.success(), "{}", printed(&output));
        assert!(String::from_utf8_lossy(&output.stdout).contains("\napple"), "{}", printed(&output));
    }
}

#[test]
fn exit_while_tasks_run() {
    exits_with_code("exit_while_tasks_run", || {
        let pool = pool(2);
        mem::forget(Plug::new(&pool, 2));
        let _queued = pool.submit(|| ());
        process::exit(CODE);
    });
}

#[test]
fn exit_inside_a_task() {
    exits_with_code("exit_inside_a_task", || {
        let pool = pool(1);
        let _ = pool.submit(|| process::exit(CODE)).result();
    });
}

#[test]
fn exit_with_a_static_pool() {
    exits_with_code("exit_with_a_static_pool", || {
        mem::forget(Plug::new(static_pool(), 2));
        mem::forget(Plug::new(default_executor(), 2));
        process::exit(CODE);
    });
}

#[test]
fn exit_while_workers_are_idle() {
    exits_with_code("exit_while_workers_are_idle", || {
        assert_eq!(static_pool().submit(|| 1).result().unwrap(), 1);
        process::exit(CODE);
    });
}

#[test]
fn main_returns_while_a_static_pool_works() {
    let output = child("main_returns_while_a_static_pool_works", || mem::forget(Plug::new(static_pool(), 2)));
    if let Some(output) = output {
        assert!(output.status.success(), "{}", printed(&output));
    }
}

#[test]
fn main_returns_after_the_pool_was_forgotten() {
    let output = child("main_returns_after_the_pool_was_forgotten", || {
        let pool = pool(2);
        mem::forget(Plug::new(&pool, 2));
        mem::forget(pool);
    });
    if let Some(output) = output {
        assert!(output.status.success(), "{}", printed(&output));
    }
}

#[test]
fn after_a_shutdown_that_does_not_wait() {
    exits_with_code("after_a_shutdown_that_does_not_wait", || {
        let pool = pool(1);
        mem::forget(Plug::new(&pool, 1));
        pool.shutdown(Shutdown::NoWait).unwrap();
        process::exit(CODE);
    });
}

/// Submits to the static pool, in a destructor of a thread-local.
struct Submits;

impl Drop for Submits {
    fn drop(&mut self) {
        let code = static_pool().submit(|| CODE).result().unwrap();
        process::exit(code);
    }
}

thread_local! {
    static SUBMITS: RefCell<Option<Submits>> = const { RefCell::new(None) };
}

#[test]
fn a_hook_of_the_exit_may_submit() {
    exits_with_code("a_hook_of_the_exit_may_submit", || {
        let thread = std::thread::spawn(|| SUBMITS.set(Some(Submits)));
        let _ = thread.join();
    });
}

// A panic in a thread-local's destructor aborts, as in any thread of std: the process ends, it does not hang.
#[test]
fn a_panic_in_a_thread_local_of_a_worker_aborts() {
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("a thread-local's destructor panics, as this test wants it");
        }
    }
    thread_local! {
        static PANICS: RefCell<Option<Panics>> = const { RefCell::new(None) };
    }
    let output = child("a_panic_in_a_thread_local_of_a_worker_aborts", || {
        let pool = pool(1);
        pool.submit(|| PANICS.set(Some(Panics))).result().unwrap();
        drop(pool);
    });
    if let Some(output) = output {
        assert!(!output.status.success(), "{}", printed(&output));
    }
}

#[test]
fn a_stack_overflow_ends_the_process() {
    fn recurse(depth: u64) -> u64 {
        let here = std::hint::black_box([depth; 64]);
        if depth == u64::MAX {
            return 0;
        }
        recurse(depth + 1) + here[(depth % 64) as usize]
    }
    let output = child("a_stack_overflow_ends_the_process", || {
        let pool = ThreadPoolExecutor::builder().max_workers(1).stack_size(64 << 10).build().unwrap();
        let _ = pool.submit(|| recurse(0)).result();
    });
    if let Some(output) = output {
        assert_eq!(output.status.code(), None, "a signal, not a code: {}", printed(&output));
        assert!(String::from_utf8_lossy(&output.stderr).contains("overflow"), "{}", printed(&output));
    }
}

#[test]
fn many_exits_in_the_middle_of_everything() {
    if is_child() {
        exits_with_code("many_exits_in_the_middle_of_everything", || {
            let pool = Arc::new(pool(2));
            let inner = Arc::clone(&pool);
            let _busy = pool.submit(move || inner.map(|n: u64| n * n, 0..1_000_000).count());
            let futures: Vec<_> = (0..1000).map(|n| pool.submit(move || n)).collect();
            drop(futures);
            process::exit(CODE);
        });
        return;
    }
    for _ in 0..10 {
        exits_with_code("many_exits_in_the_middle_of_everything", || ());
    }
}
