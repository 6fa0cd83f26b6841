//! Destructors of thread-locals that run when a worker's thread ends, after the pool has let go of it.

use std::cell::RefCell;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use concurrent_futures::{Shutdown, TaskError, ThreadPoolExecutor};

use crate::support::*;

/// Asks the pool for its statistics, again and again, while the thread that shuts it down comes to join this one.
struct AsksForStats(Arc<ThreadPoolExecutor>);

impl Drop for AsksForStats {
    fn drop(&mut self) {
        for _ in 0..10_000 {
            assert_eq!(self.0.stats().workers, 0);
            std::thread::yield_now();
        }
    }
}

thread_local! {
    static LAST_HANDLE: RefCell<Option<Arc<ThreadPoolExecutor>>> = const { RefCell::new(None) };
    static ASKS: RefCell<Option<AsksForStats>> = const { RefCell::new(None) };
}

#[test]
fn a_thread_local_destructor_may_ask_for_stats_during_shutdown() {
    guarded(|| {
        let pool = Arc::new(pool(1));
        let inner = Arc::clone(&pool);
        pool.submit(move || ASKS.set(Some(AsksForStats(inner)))).result().unwrap();
        pool.shutdown(Shutdown::Wait).unwrap();
    });
}

#[test]
fn the_last_handle_of_a_pool_in_a_thread_local_of_its_own_worker() {
    const TEST: &str = "thread_locals::the_last_handle_of_a_pool_in_a_thread_local_of_its_own_worker";
    if !is_child() {
        // A panic in a thread-local's destructor ends the process.
        let output = in_child(TEST);
        assert!(output.status.success(), "{}", printed(&output));
        return;
    }
    guarded(|| {
        let builder = ThreadPoolExecutor::builder().max_workers(1).name("last");
        let pool = Arc::new(builder.idle_timeout(Duration::from_millis(1)).build().unwrap());
        let held_up = Gate::new();
        let (inner, gate) = (Arc::clone(&pool), held_up.clone());
        let future = pool.submit(move || {
            LAST_HANDLE.set(Some(inner));
            gate.pass();
        });
        drop(pool);
        held_up.open();
        future.result().unwrap();
        until(|| threads_named("last_") == 0);
    });
}

/// Submits a task, and sends what comes of it.
struct SubmitsAtTheEnd(Arc<ThreadPoolExecutor>, mpsc::Sender<Result<u32, TaskError>>);

impl Drop for SubmitsAtTheEnd {
    fn drop(&mut self) {
        self.1.send(self.0.submit(|| 5).result()).unwrap();
    }
}

thread_local! {
    static SUBMITS: RefCell<Option<SubmitsAtTheEnd>> = const { RefCell::new(None) };
}

#[test]
fn a_thread_local_destructor_may_submit_to_a_pool_that_goes_on() {
    guarded(|| {
        let builder = ThreadPoolExecutor::builder().max_workers(1).idle_timeout(Duration::from_millis(1));
        let pool = Arc::new(builder.build().unwrap());
        let (tx, rx) = mpsc::channel();
        let inner = Arc::clone(&pool);
        pool.submit(move || SUBMITS.set(Some(SubmitsAtTheEnd(inner, tx)))).result().unwrap();
        // The thread ends because it has nothing to do; what its destructor submits runs on another.
        assert_eq!(rx.recv().unwrap().unwrap(), 5);
    });
}

#[test]
fn a_thread_local_destructor_that_submits_to_a_pool_that_ends_is_refused() {
    guarded(|| {
        let pool = Arc::new(pool(1));
        let (tx, rx) = mpsc::channel();
        let inner = Arc::clone(&pool);
        pool.submit(move || SUBMITS.set(Some(SubmitsAtTheEnd(inner, tx)))).result().unwrap();
        pool.shutdown(Shutdown::Wait).unwrap();
        assert!(rx.try_recv().expect("the thread was joined").unwrap_err().is_shut_down());
    });
}
