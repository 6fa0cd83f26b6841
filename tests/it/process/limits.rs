//! Limits of tasks and of workers: time, attempts, memory, processor time, age, idleness, number.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use concurrent_futures::{BuildError, ProcessPoolBuilder, ProcessPoolExecutor, Shutdown, Stdio, TaskError};

use super::support::*;
use crate::support::guarded;

fn pid(_: ()) -> u32 {
    std::process::id()
}

fn builder(workers: usize) -> ProcessPoolBuilder {
    ProcessPoolExecutor::builder().max_workers(workers).stdio(Stdio::Null)
}

/// A limit that is meant to be reached.
const SHORT: Duration = Duration::from_millis(30);

fn spin(ledger: Ledger) {
    ledger.write(std::process::id());
    loop {
        std::hint::spin_loop();
    }
}

#[test]
fn a_task_over_its_time_is_ended() {
    guarded(|| {
        let (pool, folder) = (pool(1), Folder::new());
        let worker = pool.submit(pid, ()).result().unwrap();
        let start = Instant::now();
        let error = pool.task(spin, folder.ledger("ledger")).timeout(SHORT).submit().result().unwrap_err();
        assert!(error.is_timed_out() && start.elapsed() >= SHORT);
        poll(|| !is_running(worker));
        assert_ne!(pool.submit(pid, ()).result().unwrap(), worker);
    });
}

#[test]
fn a_task_that_ignores_sigterm_is_ended_all_the_same() {
    guarded(|| {
        let folder = Folder::new();
        let pool = builder(1).kill_grace(Duration::from_millis(20)).build().unwrap();
        let stubborn = |_: ()| {
            block_sigterm();
            std::process::id()
        };
        let worker = pool.submit(stubborn, ()).result().unwrap();
        let late = pool.task(spin, folder.ledger("ledger")).timeout(SHORT).submit();
        assert!(late.result().unwrap_err().is_timed_out());
        poll(|| !is_running(worker));
    });
}

#[test]
fn a_stopped_worker_is_ended_by_its_time_limit() {
    guarded(|| {
        let pool = pool(1);
        let stop = |_: ()| -> () {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP).unwrap();
            // Any thread may be the first to stop.
            loop {
                std::thread::park();
            }
        };
        assert!(pool.task(stop, ()).timeout(SHORT).submit().result().unwrap_err().is_timed_out());
        pool.submit(pid, ()).result().unwrap();
    });
}

// The clock starts when the task does, not when it is submitted.
#[test]
fn waiting_in_the_queue_takes_no_time() {
    guarded(|| {
        let pool = pool(1);
        let mut plug = Plug::new(&pool);
        let limit = Duration::from_millis(200);
        let futures: Vec<_> = (0..20).map(|_| pool.task(pid, ()).timeout(limit).submit()).collect();
        // Longer than the limit, by the clock that counts.
        let blocked = plug.take().result_timeout(2 * limit).unwrap_err();
        drop(plug);
        blocked.result().unwrap();
        futures.into_iter().for_each(|future| assert!(future.result().is_ok()));
    });
}

#[test]
fn the_tasks_beside_one_over_its_time_are_unharmed() {
    guarded(|| {
        let folder = Folder::new();
        let (pool, ledger) = (pool(1), folder.ledger("ledger"));
        let late = pool.task(spin, ledger.clone()).timeout(SHORT).submit();
        let mark = |(ledger, n): (Ledger, u32)| ledger.write(n);
        let others: Vec<_> = (0..20).map(|n| pool.submit(mark, (ledger.clone(), n))).collect();
        assert!(late.result().unwrap_err().is_timed_out());
        others.into_iter().for_each(|other| other.result().unwrap());
        let lines = ledger.lines();
        for n in 0..20 {
            let begun = lines.iter().filter(|line| **line == n.to_string()).count();
            assert_eq!(begun, 1, "none is begun twice: {lines:?}");
        }
        // Where nobody knows when a task begins, its time is counted from before that, and may be over before its first line.
        let late_began = lines.len() - 20;
        assert!(late_began == 1 || late_began == 0 && !shares_memory(), "{lines:?}");
    });
}

#[test]
fn a_task_in_time_is_not_ended_and_neither_is_the_next() {
    guarded(|| {
        let pool = builder(1).task_timeout(Duration::from_secs(60)).build().unwrap();
        let worker = pool.submit(pid, ()).result().unwrap();
        for _ in 0..50 {
            assert_eq!(pool.task(pid, ()).timeout(Duration::from_secs(30)).submit().result().unwrap(), worker);
        }
    });
}

#[test]
fn a_limit_for_all_tasks_and_one_for_this() {
    guarded(|| {
        let folder = Folder::new();
        let pool = builder(1).task_timeout(SHORT).build().unwrap();
        assert!(pool.submit(spin, folder.ledger("ledger")).result().unwrap_err().is_timed_out());
        let nap = |_: ()| std::thread::sleep(3 * SHORT);
        pool.task(nap, ()).timeout(Duration::from_secs(60)).submit().result().unwrap();
        // Time over is no reason to try again.
        let again = folder.ledger("again");
        assert!(pool.task(spin, again.clone()).retries(3).submit().result().unwrap_err().is_timed_out());
        // Its time may even have been over before it wrote a line.
        assert!(again.lines().len() <= 1);
    });
}

#[test]
fn a_time_limit_holds_for_a_long_argument() {
    guarded(|| {
        for byte in [0, 1, 0xff] {
            let pool = pool(1);
            let sleep = |_: Vec<u8>| loop {
                std::thread::park();
            };
            let future = pool.task(sleep, vec![byte; 1 << 20]).timeout(SHORT).submit::<()>();
            assert!(future.result().unwrap_err().is_timed_out());
        }
    });
}

#[test]
fn no_time_at_all_and_all_the_time() {
    guarded(|| {
        let pool = pool(1);
        let outcome = pool.task(pid, ()).timeout(Duration::ZERO).submit().result();
        assert!(outcome.is_ok() || outcome.unwrap_err().is_timed_out());
        pool.task(pid, ()).timeout(Duration::MAX).submit().result().unwrap();
    });
}

#[test]
fn max_tasks_per_child() {
    guarded(|| {
        let pool = builder(1).max_tasks_per_child(3).build().unwrap();
        let pids: Vec<u32> = (0..12).map(|_| pool.submit(pid, ()).result().unwrap()).collect();
        for generation in pids.chunks(3) {
            assert!(generation.iter().all(|pid| *pid == generation[0]), "{pids:?}");
        }
        assert_eq!(pids.iter().collect::<HashSet<_>>().len(), 4);
        poll(|| pool.worker_pids().len() <= 1);
    });
}

#[test]
fn max_tasks_per_child_pending_tasks_gh115634() {
    guarded(|| {
        for (workers, most, tasks) in [(1, 2, 6), (2, 2, 8), (3, 1, 50), (2, 7, 200)] {
            let pool = builder(workers).max_tasks_per_child(most).build().unwrap();
            let futures: Vec<_> = (0..tasks).map(|_| pool.submit(pid, ())).collect();
            let pids: Vec<u32> = futures.into_iter().map(|future| future.result().unwrap()).collect();
            for pid in &pids {
                assert!(pids.iter().filter(|other| *other == pid).count() as u64 <= most);
            }
        }
    });
}

#[test]
fn shutdown_no_wait_max_tasks_gh119592() {
    guarded(|| {
        for drops in [false, true] {
            let pool = builder(2).max_tasks_per_child(1).build().unwrap();
            let futures: Vec<_> = (0..20).map(|_| pool.submit(pid, ())).collect();
            pool.shutdown(Shutdown::NoWait).unwrap();
            if drops {
                drop(pool);
            }
            futures.into_iter().for_each(|future| assert!(future.result().is_ok()));
        }
    });
}

#[test]
fn max_tasks_early_shutdown() {
    guarded(|| {
        let pool = builder(3).max_tasks_per_child(1).build().unwrap();
        let futures: Vec<_> = (0..6).map(|n: u32| pool.submit(|n: u32| n, n)).collect();
        pool.shutdown(Shutdown::Wait).unwrap();
        assert_eq!(futures.into_iter().map(|future| future.result().unwrap()).sum::<u32>(), 15);
    });
}

#[test]
fn shutdown_gh_132969_case_1() {
    guarded(|| {
        for workers in [2, 4] {
            let pool = builder(workers).max_tasks_per_child(1).build().unwrap();
            let futures: Vec<_> = (0..6).map(|n: u32| pool.submit(|n: u32| assert_ne!(n, 2), n)).collect();
            pool.shutdown(Shutdown::NoWait).unwrap();
            let failed = futures.into_iter().filter_map(|future| future.result().err()).collect::<Vec<_>>();
            assert!(failed.len() == 1 && failed[0].is_panicked(), "{failed:?}");
            pool.shutdown(Shutdown::Wait).unwrap();
        }
    });
}

#[test]
fn force_shutdown_during_max_tasks_worker_exit() {
    guarded(|| {
        for _ in 0..10 {
            let pool = builder(2).max_tasks_per_child(1).build().unwrap();
            let futures: Vec<_> = (0..10).map(|_| pool.submit(pid, ())).collect();
            pool.kill_workers();
            pool.shutdown(Shutdown::Wait).unwrap();
            assert_eq!(pool.worker_pids(), []);
            for future in futures {
                match future.result() {
                    Ok(_) | Err(TaskError::Cancelled | TaskError::WorkerDied(_)) => {}
                    other => panic!("{other:?}"),
                }
            }
        }
    });
}

#[test]
fn max_rss_per_child() {
    guarded(|| {
        let pool = builder(1).max_rss_per_child(200 << 20).build().unwrap();
        let leak = |megabytes: usize| {
            std::mem::forget(vec![1u8; megabytes << 20]);
            std::process::id()
        };
        let small = pool.submit(leak, 1).result().unwrap();
        assert_eq!(pool.submit(leak, 300).result().unwrap(), small, "a task that uses too much has its result");
        let next = pool.submit(leak, 1).result().unwrap();
        assert_ne!(next, small);
        assert_eq!(pool.submit(pid, ()).result().unwrap(), next);
    });
}

#[test]
fn memory_limit() {
    guarded(|| {
        let pool = builder(1).memory_limit(2 << 30).build().unwrap();
        let allocate = |megabytes: usize| vec![1u8; megabytes << 20].len() >> 20;
        assert_eq!(pool.submit(allocate, 10).result().unwrap(), 10);
        assert_eq!(exit_of(pool.submit(allocate, 3 << 10).result()).signal_name(), Some("SIGABRT"));
        assert_eq!(pool.submit(allocate, 10).result().unwrap(), 10);
    });
}

#[test]
fn cpu_limit() {
    guarded(|| {
        let folder = Folder::new();
        let pool = builder(1).cpu_limit(Duration::from_secs(1)).build().unwrap();
        let exit = exit_of(pool.submit(spin, folder.ledger("ledger")).result());
        assert_eq!(exit.signal_name(), Some("SIGXCPU"));
        pool.submit(pid, ()).result().unwrap();
    });
}

#[test]
fn idle_timeout() {
    guarded(|| {
        let pool = builder(2).idle_timeout(Duration::from_millis(20)).build().unwrap();
        let plugs = [Plug::new(&pool), Plug::new(&pool)];
        assert_eq!(pool.worker_pids().len(), 2);
        plugs.into_iter().for_each(Plug::release);
        poll(|| pool.worker_pids().is_empty());
        // Again from nothing.
        pool.submit(pid, ()).result().unwrap();
        // A busy worker is not idle, however long it takes.
        let mut plug = Plug::new(&pool);
        let future = plug.take().result_timeout(Duration::from_millis(100)).unwrap_err();
        assert!(pool.worker_pids().contains(&plug.pid));
        drop(plug);
        future.result().unwrap();
        poll(|| pool.worker_pids().is_empty());
    });
}

#[test]
fn idle_workers_that_go_lose_no_task() {
    guarded(|| {
        let pool = builder(1).idle_timeout(Duration::from_micros(300)).build().unwrap();
        for n in 0..300u64 {
            assert_eq!(pool.submit(|n: u64| n, n).result().unwrap(), n);
            std::thread::sleep(Duration::from_micros(n * 7 % 600));
        }
    });
}

#[test]
fn resize_up() {
    guarded(|| {
        let folder = Folder::new();
        let (pool, sign) = (pool(1), folder.sign("sign"));
        let wait = |sign: Sign| sign.wait();
        let waiting: Vec<_> = (0..4).map(|_| pool.submit(wait, sign.clone())).collect();
        let rescue = pool.submit(|sign: Sign| sign.give(), sign);
        // Only a fifth worker can end the wait of the four.
        pool.resize(5).unwrap();
        rescue.result().unwrap();
        waiting.into_iter().for_each(|future| future.result().unwrap());
        assert_eq!(pool.stats().max_workers, 5);
    });
}

#[test]
fn resize_down() {
    guarded(|| {
        let pool = pool(4);
        let plugs: Vec<_> = (0..4).map(|_| Plug::new(&pool)).collect();
        pool.resize(1).unwrap();
        assert_eq!(pool.worker_pids().len(), 4, "nobody is ended in the middle of a task");
        plugs.into_iter().for_each(Plug::release);
        poll(|| pool.worker_pids().len() == 1);
        let pids: HashSet<u32> = (0..20).map(|_| pool.submit(pid, ()).result().unwrap()).collect();
        assert_eq!(pids.len(), 1);
        assert_eq!(pool.resize(0).unwrap_err(), BuildError::NoWorkers);
        assert_eq!(pool.stats().max_workers, 1);
    });
}

#[test]
fn resized_all_the_time() {
    guarded(|| {
        let pool = pool(3);
        let futures: Vec<_> = (0..600)
            .map(|n: usize| {
                if n % 20 == 0 {
                    pool.resize(1 + n / 20 % 4).unwrap();
                }
                pool.submit(|n: usize| n, n)
            })
            .collect();
        for (n, future) in futures.into_iter().enumerate() {
            assert_eq!(future.result().unwrap(), n);
        }
    });
}
