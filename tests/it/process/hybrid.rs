//! Processes times threads: several tasks at the same time in each worker.

use std::collections::HashSet;
use std::time::Duration;

use concurrent_futures::{ProcessPoolBuilder, ProcessPoolExecutor, Shutdown, Stdio, as_completed};
use rustix::process::Signal;

use super::support::*;
use crate::support::guarded;

fn builder(workers: usize, threads: usize) -> ProcessPoolBuilder {
    ProcessPoolExecutor::builder().max_workers(workers).threads_per_worker(threads).stdio(Stdio::Null)
}

/// Returns when so many tasks have come here.
fn meet((ledger, all): (Ledger, usize)) -> (u32, String) {
    ledger.write("here");
    poll(|| ledger.lines().len() >= all);
    (std::process::id(), std::thread::current().name().unwrap_or_default().to_owned())
}

#[test]
fn all_threads_of_all_workers_work_at_once() {
    guarded(|| {
        let folder = Folder::new();
        let (pool, ledger) = (builder(2, 4).name("weaver").build().unwrap(), folder.ledger("ledger"));
        let futures: Vec<_> = (0..8).map(|_| pool.submit(meet, (ledger.clone(), 8))).collect();
        let seen: HashSet<_> = futures.into_iter().map(|future| future.result().unwrap()).collect();
        assert_eq!(seen.len(), 8);
        assert_eq!(seen.iter().map(|(pid, _)| pid).collect::<HashSet<_>>().len(), 2);
        assert!(seen.iter().all(|(_, thread)| thread.starts_with("weaver_")), "{seen:?}");
        assert_eq!(pool.worker_pids().len(), 2);
    });
}

// After the first replies, when the pool knows how long a task takes.
#[test]
fn more_threads_than_a_worker_has_tasks_in_store() {
    guarded(|| {
        let folder = Folder::new();
        let (pool, ledger) = (builder(1, 300).build().unwrap(), folder.ledger("ledger"));
        assert_eq!(pool.map(|n: u32| n, 0..1000).map(Result::unwrap).sum::<u32>(), 499_500);
        let futures: Vec<_> = (0..300).map(|_| pool.submit(meet, (ledger.clone(), 300))).collect();
        let threads: HashSet<_> = futures.into_iter().map(|future| future.result().unwrap()).collect();
        assert_eq!(threads.len(), 300);
    });
}

#[test]
fn a_crash_costs_the_tasks_of_that_process_only() {
    guarded(|| {
        let folder = Folder::new();
        let pool = builder(2, 2).build().unwrap();
        let (ledger, release) = (folder.ledger("ledger"), folder.sign("release"));
        let task = |(ledger, release): (Ledger, Sign)| {
            ledger.write(std::process::id());
            release.wait();
            std::process::id()
        };
        let futures: Vec<_> = (0..4).map(|_| pool.submit(task, (ledger.clone(), release.clone()))).collect();
        poll(|| ledger.lines().len() == 4);
        let victim: u32 = ledger.lines()[0].parse().unwrap();
        signal(victim, Signal::KILL);
        poll(|| !pool.worker_pids().contains(&victim));
        release.give();
        let (mut lost, mut fine) = (0, 0);
        for future in futures {
            match future.result() {
                Ok(pid) => {
                    assert_ne!(pid, victim);
                    fine += 1;
                }
                error => {
                    assert_eq!(exit_of(error).pid(), victim);
                    lost += 1;
                }
            }
        }
        assert_eq!((lost, fine), (2, 2));
        assert_eq!(ledger.lines().len(), 4, "nothing is begun twice");
    });
}

#[test]
fn many_tasks() {
    guarded(|| {
        let pool = builder(2, 3).build().unwrap();
        let futures: Vec<_> = (0..3000u64).map(|n| pool.submit(|n: u64| n * 2, n)).collect();
        for (n, future) in futures.into_iter().enumerate().rev() {
            assert_eq!(future.result().unwrap(), 2 * n as u64);
        }
        let sum: u64 = pool.map(|n: u64| n, 0..20_000).map(Result::unwrap).sum();
        assert_eq!(sum, 199_990_000);
    });
}

#[test]
fn long_arguments_and_results_do_not_mix() {
    guarded(|| {
        let pool = builder(1, 4).build().unwrap();
        let futures: Vec<_> =
            (0..24u8).map(|n| pool.submit(|bytes: Vec<u8>| bytes, vec![n; 700_000 + usize::from(n)])).collect();
        for (n, future) in futures.into_iter().enumerate() {
            let bytes = future.result().unwrap();
            assert!(bytes.len() == 700_000 + n && bytes.iter().all(|byte| usize::from(*byte) == n), "{n}");
        }
    });
}

#[test]
fn a_time_limit_ends_the_whole_worker() {
    guarded(|| {
        let folder = Folder::new();
        let pool = builder(1, 2).build().unwrap();
        let mut plug = Plug::new(&pool);
        let wait = |sign: Sign| sign.wait();
        let late = pool.task(wait, folder.sign("never")).timeout(Duration::from_millis(30)).submit();
        assert!(late.result().unwrap_err().is_timed_out());
        assert_eq!(exit_of(plug.take().result()).pid(), plug.pid);
        pool.submit(|_: ()| (), ()).result().unwrap();
    });
}

#[test]
fn panics_in_some_threads() {
    guarded(|| {
        let pool = builder(1, 4).build().unwrap();
        let futures = (0..400u32).map(|n| (n, pool.submit(|n: u32| assert_ne!(n % 3, 0), n)));
        for (n, future) in as_completed(futures) {
            assert_eq!(future.result().is_err(), n % 3 == 0);
        }
        assert_eq!(pool.worker_pids().len(), 1);
    });
}

#[test]
fn the_initializer_runs_once_for_all_threads() {
    guarded(|| {
        let folder = Folder::new();
        let ledger = folder.ledger("ledger");
        let pool = builder(1, 4).initializer(|ledger: Ledger| ledger.write("ready"), ledger.clone()).build().unwrap();
        let meeting = folder.ledger("meeting");
        let futures: Vec<_> = (0..4).map(|_| pool.submit(meet, (meeting.clone(), 4))).collect();
        futures.into_iter().for_each(|future| assert!(future.result().is_ok()));
        assert_eq!(ledger.lines(), ["ready"]);
        pool.shutdown(Shutdown::Wait).unwrap();
    });
}

#[test]
fn recycled_by_age() {
    guarded(|| {
        let pool = builder(2, 2).max_tasks_per_child(5).build().unwrap();
        let futures: Vec<_> = (0..100).map(|_| pool.submit(|_: ()| std::process::id(), ())).collect();
        let pids: Vec<u32> = futures.into_iter().map(|future| future.result().unwrap()).collect();
        for pid in &pids {
            assert!(pids.iter().filter(|other| *other == pid).count() <= 5);
        }
    });
}
