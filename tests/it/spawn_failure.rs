//! Threads that cannot be started. The limits hold for a whole process, so each test runs in a child.

use std::sync::{Arc, Barrier};
use std::thread;

use concurrent_futures::ThreadPoolExecutor;

use crate::support::*;

/// A pool each of whose threads wants 1 GiB of address space.
fn hungry_pool(max_workers: usize) -> ThreadPoolExecutor {
    ThreadPoolExecutor::builder().max_workers(max_workers).stack_size(1 << 30).build().unwrap()
}

// While the pool tries in vain to start a second thread, that thread counts as searching. A task submitted meanwhile
// relies on it, and the first worker may be asleep by then.
#[test]
fn a_failed_start_loses_no_task() {
    const TEST: &str = "spawn_failure::a_failed_start_loses_no_task";
    if !is_child() {
        let output = in_child(TEST);
        assert!(output.status.success(), "{}", printed(&output));
        return;
    }
    guarded(|| {
        const ROUNDS: usize = 10_000;
        let pool = Arc::new(hungry_pool(2));
        pool.submit(|| ()).result().unwrap();
        let round = Arc::new(Barrier::new(2));
        let other = {
            let (pool, round) = (Arc::clone(&pool), Arc::clone(&round));
            thread::spawn(move || {
                for n in 0..ROUNDS {
                    round.wait();
                    for _ in 0..n % 1000 {
                        std::hint::spin_loop();
                    }
                    pool.submit(|| ()).result().unwrap();
                    round.wait();
                }
            })
        };
        limit_address_space(512 << 20);
        for _ in 0..ROUNDS {
            round.wait();
            let futures = [pool.submit(|| ()), pool.submit(|| ())];
            futures.into_iter().for_each(|future| future.result().unwrap());
            round.wait();
        }
        other.join().unwrap();
        assert_eq!(pool.stats().workers, 1);
    });
}

#[test]
fn map_without_any_thread_says_why() {
    guarded(|| {
        let pool = ThreadPoolExecutor::builder().max_workers(1).stack_size(1 << 46).build().unwrap();
        assert!(pool.submit(|| ()).result().unwrap_err().is_spawn());
        for result in pool.map(|n: u8| n, [1, 2]) {
            let error = result.unwrap_err();
            assert!(error.is_spawn(), "{error:?}");
        }
    });
}
