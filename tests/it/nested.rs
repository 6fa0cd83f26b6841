//! Waiting inside tasks.

use std::sync::Arc;
use std::time::Duration;

use concurrent_futures::{ReturnWhen, as_completed_timeout, wait};

use crate::support::*;

/// Runs `f` on the one worker of a pool, with the pool.
fn on_the_only_worker<R: Send + 'static>(
    f: impl FnOnce(&concurrent_futures::ThreadPoolExecutor) -> R + Send + 'static,
) -> R {
    guarded(|| {
        let pool = Arc::new(pool(1));
        let inner = Arc::clone(&pool);
        pool.submit(move || f(&inner)).result().unwrap()
    })
}

#[test]
fn a_zero_timeout_inside_a_worker_runs_nothing() {
    on_the_only_worker(|pool| {
        let future = pool.submit(|| 1);
        let future = future.result_timeout(Duration::ZERO).expect_err("nothing has run it");
        let shared = future.shared();
        assert!(shared.get_timeout(Duration::ZERO).is_none());
    });
}

#[test]
fn wait_and_as_completed_inside_a_worker_keep_to_their_deadline() {
    on_the_only_worker(|pool| {
        let futures = [pool.submit(|| 1), pool.submit(|| 2)];
        let waited = wait(futures, Some(Duration::ZERO), ReturnWhen::AllCompleted);
        assert_eq!((waited.done.len(), waited.not_done.len()), (0, 2));
        let mut completed = as_completed_timeout(waited.not_done, Duration::ZERO);
        assert_eq!(completed.next().unwrap().unwrap_err().unfinished(), 2);
        assert!(completed.next().is_none());
    });
}
