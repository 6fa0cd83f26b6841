//! How many descriptors a pool needs, and what happens when there are none.

use concurrent_futures::{ProcessPoolExecutor, Stdio};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::support::*;

fn limit_descriptors(most: u64) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum }).unwrap();
}

// procspawn holds three for every queued task.
#[test]
fn ten_thousand_queued_tasks_need_none() {
    alone("descriptors::ten_thousand_queued_tasks_need_none", || {
        limit_descriptors(64);
        let pool = pool(2);
        let plugs = [Plug::new(&pool), Plug::new(&pool)];
        let before = open_descriptors();
        let futures: Vec<_> = (0..10_000u32).map(|n| pool.submit(|n: u32| n, n)).collect();
        assert_eq!(open_descriptors(), before);
        plugs.into_iter().for_each(Plug::release);
        for (n, future) in futures.into_iter().enumerate() {
            assert_eq!(future.result().unwrap() as usize, n);
        }
        assert_eq!(open_descriptors(), before);
    });
}

#[test]
fn none_at_the_start_and_some_later() {
    alone("descriptors::none_at_the_start_and_some_later", || {
        let idle = pool(1);
        let before = open_descriptors();
        let highest = *before.last().unwrap() as u64;
        limit_descriptors(highest + 1);
        // Those below are taken.
        let all: Vec<_> = std::iter::from_fn(|| rustix::io::dup(std::io::stdin()).ok()).collect();
        assert!(pool_fails());
        for _ in 0..3 {
            let error = idle.submit(|_: ()| (), ()).result().unwrap_err();
            assert!(error.is_spawn(), "{error:?}");
        }
        drop(all);
        // To count them takes one itself, and there may be no number below the limit that is free.
        limit_descriptors(highest + 50);
        assert_eq!(open_descriptors(), before, "what half a start took has been given back");
        assert_eq!(idle.submit(|n: u32| n, 5).result().unwrap(), 5, "it recovers");
    });
}

/// A pool needs one for itself.
fn pool_fails() -> bool {
    let built = concurrent_futures::ProcessPoolExecutor::new(1);
    matches!(built, Err(concurrent_futures::BuildError::System { .. }))
}

// Those workers that there are do what there is to do.
#[test]
fn none_for_a_second_worker() {
    alone("descriptors::none_for_a_second_worker", || {
        let pool = pool(4);
        let first = pool.submit(|_: ()| std::process::id(), ()).result().unwrap();
        limit_descriptors(*open_descriptors().last().unwrap() as u64 + 1);
        let all: Vec<_> = std::iter::from_fn(|| rustix::io::dup(std::io::stdin()).ok()).collect();
        let futures: Vec<_> = (0..500).map(|_| pool.submit(|_: ()| std::process::id(), ())).collect();
        assert!(futures.into_iter().all(|future| future.result().unwrap() == first));
        drop(all);
        limit_descriptors(200);
        // And with room for them the others come: four tasks that need each other.
        let ledger = Folder::new();
        let meet = |ledger: Ledger| {
            ledger.write("here");
            poll(|| ledger.lines().len() >= 4);
        };
        let shared = ledger.ledger("ledger");
        let futures: Vec<_> = (0..4).map(|_| pool.submit(meet, shared.clone())).collect();
        futures.into_iter().for_each(|future| future.result().unwrap());
    });
}

#[test]
fn how_many_there_are() {
    alone("descriptors::how_many_there_are", || {
        for (stdio, captured) in [(Stdio::Null, 0), (Stdio::Capture, 1)] {
            // The process has those of its first pool that stay, if any.
            drop(pool(1));
            let before = open_descriptors().len();
            let pool = ProcessPoolExecutor::builder().max_workers(3).stdio(stdio).build().unwrap();
            assert_eq!(open_descriptors().len(), before + 2);
            let plugs = [Plug::new(&pool), Plug::new(&pool), Plug::new(&pool)];
            let each = if shares_memory() { 2 } else { 1 };
            assert_eq!(open_descriptors().len(), before + 2 + 3 * (each + captured));
            plugs.into_iter().for_each(Plug::release);
            let inside = pool.submit(|_: ()| open_descriptors(), ()).result().unwrap();
            assert!(inside.starts_with(&[0, 1, 2]) && inside.len() == 3 + 2, "{inside:?}");
        }
    });
}
