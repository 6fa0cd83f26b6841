//! What needs something from outside that not every machine has: `ci/faults.sh` provides it, and runs these.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use concurrent_futures::{ProcessPoolExecutor, Stdio, TaskError};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use super::support::*;
use crate::support::guarded;

/// The control group that this process was put into, alone.
fn group() -> PathBuf {
    std::env::var_os("GROUP").expect("the script says which control group it is").into()
}

fn allocate(megabytes: usize) -> usize {
    let bytes = std::hint::black_box(vec![1u8; megabytes << 20]);
    bytes.iter().filter(|byte| **byte == 1).count() >> 20
}

#[test]
#[ignore = "needs a memory control group: ci/faults.sh"]
fn killed_for_want_of_memory() {
    guarded(|| {
        let pool = pool(2);
        for _ in 0..3 {
            let beside = Plug::new(&pool);
            let exit = exit_of(pool.submit(allocate, 400).result());
            assert!(exit.signal_name() == Some("SIGKILL") && exit.is_probably_out_of_memory(), "{exit:?}");
            assert!(exit.to_string().contains("memory"), "{exit}");
            // The kernel may have thought that it takes more than one.
            if let Err(error) = beside.end() {
                assert!(exit_of::<()>(Err(error)).is_probably_out_of_memory());
            }
            assert_eq!(pool.submit(allocate, 8).result().unwrap(), 8, "the pool goes on");
        }
        // A kill that has nothing to do with memory, and none that has since that worker started.
        let other = self::pool(1);
        let mut plug = Plug::new(&other);
        signal(plug.pid, Signal::KILL);
        assert!(!exit_of(plug.take().result()).is_probably_out_of_memory());
    });
}

/// So many more processes and threads than there are now.
fn allow(more: u64) {
    let (now, file) = if rustix::process::geteuid().is_root() {
        let group = group();
        (fs::read_to_string(group.join("pids.current")).unwrap(), Some(group.join("pids.max")))
    } else {
        // Nobody else runs anything as this user.
        let own = |entry: &fs::DirEntry| {
            let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
            let user = format!("\nUid:\t{}\t", rustix::process::getuid().as_raw());
            status.contains(&user)
        };
        let processes = fs::read_dir("/proc").unwrap().flatten().filter(own);
        let threads = processes.filter_map(|entry| Some(fs::read_dir(entry.path().join("task")).ok()?.count()));
        (threads.sum::<usize>().to_string(), None)
    };
    let most = now.trim().parse::<u64>().unwrap() + more;
    match file {
        Some(file) => fs::write(file, most.to_string()).unwrap(),
        None => {
            let maximum = getrlimit(Resource::Nproc).maximum;
            setrlimit(Resource::Nproc, Rlimit { current: Some(most), maximum }).unwrap();
        }
    }
}

// Whichever thread or process it is that there may not be: the tasks are done or fail, and nothing is left of the attempt.
#[test]
#[ignore = "needs a pids control group, or a user of its own: ci/faults.sh"]
fn at_the_limit_of_processes() {
    guarded(|| {
        // The thread of the test, which the pool does not have to start.
        let use_it = |more| {
            let pool = ProcessPoolExecutor::builder().max_workers(3).threads_per_worker(2).stdio(Stdio::Null).build();
            let pool = pool.unwrap();
            allow(more);
            let futures: Vec<_> = (0..50u32).map(|n| pool.submit(|n: u32| n, n)).collect();
            let good = futures.into_iter().map(|future| match future.result() {
                Ok(_) => 1,
                Err(TaskError::Spawn(_)) => 0,
                Err(other) => panic!("with {more} more: {other:?}"),
            });
            let good: u32 = good.sum();
            let workers = pool.worker_pids().len();
            allow(100);
            // What could not be is tried again, without anybody's asking.
            let meet = |ledger: Ledger| {
                ledger.write("here");
                poll(|| ledger.lines().len() >= 6);
            };
            let folder = Folder::new();
            let ledger = folder.ledger("ledger");
            let futures: Vec<_> = (0..6).map(|_| pool.submit(meet, ledger.clone())).collect();
            futures.into_iter().for_each(|future| future.result().unwrap());
            println!("with {more} more: {good} of 50 tasks done, {workers} workers");
            good
        };
        use_it(100);
        let before = Belongings::now();
        let good: Vec<u32> = (0..16).map(use_it).collect();
        assert!(good[0] == 0 && good[15] == 50, "{good:?}");
        assert_eq!(Belongings::now(), before);
    });
}

/// The resident memory of a process, in KiB.
fn resident(pid: u32) -> i64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// What is left of many tasks: nothing, neither here nor in the workers.
#[test]
#[ignore = "takes a minute or two: ci/faults.sh"]
fn in_the_long_run() {
    const TASKS: u64 = 50_000;
    let pool = ProcessPoolExecutor::builder().max_workers(2).stdio(Stdio::Null).build().unwrap();
    let some = |n: u64| {
        let futures: Vec<_> = (0..500).map(|m| pool.submit(|n: u64| n, n + m)).collect();
        futures.into_iter().zip(n..).for_each(|(future, n)| assert_eq!(future.result().unwrap(), n));
    };
    let round = || {
        (0..TASKS / 500).for_each(some);
        assert!(pool.submit(|()| -> () { panic!() }, ()).result().unwrap_err().is_panicked());
        let cancelled: Vec<_> = (0..10_000u64).map(|n| pool.submit(|n: u64| n, n)).collect();
        // Some of them are done by then.
        for future in cancelled {
            future.cancel();
        }
        assert_eq!(pool.map(|n: u64| n, 0..TASKS).map(Result::unwrap).sum::<u64>(), TASKS * (TASKS - 1) / 2);
    };
    // The allocator takes a while until it has what it keeps.
    (0..4).for_each(|_| round());
    // What is cancelled while it runs takes its worker with it, so there may be others at the end.
    let workers = |belongings: &mut Belongings| belongings.forget_children();
    let (mut before, memory) = (Belongings::now(), resident(std::process::id()));
    for _ in 0..8 {
        round();
    }
    let (mut after, grown) = (Belongings::now(), resident(std::process::id()) - memory);
    let of_workers: Vec<i64> = pool.worker_pids().into_iter().map(resident).collect();
    let millions = 8.0 * 2.0 * TASKS as f64 / 1e6;
    println!("{millions} million tasks: {grown} KiB more here; the workers have {of_workers:?} KiB");
    workers(&mut before);
    workers(&mut after);
    assert_eq!(before, after);
    assert!(grown < 2048, "not even three bytes a task");
    assert!(of_workers.into_iter().all(|size| size < 64 << 10));
}

/// A million tasks that wait cost so much each, and nothing when they are cancelled.
#[test]
#[ignore = "takes a while: ci/faults.sh"]
fn a_million_that_wait() {
    const TASKS: u64 = 1_000_000;
    let pool = pool(1);
    let plug = Plug::new(&pool);
    let before = resident(std::process::id());
    let futures: Vec<_> = (0..TASKS).map(|n| pool.submit(|n: u64| n, n)).collect();
    let each = (resident(std::process::id()) - before) * 1024 / TASKS as i64;
    let start = std::time::Instant::now();
    assert!(futures.iter().all(|future| future.cancel()));
    drop(futures);
    let time = start.elapsed();
    println!("{each} bytes for each task that waits; a million of them cancelled in {time:?}");
    assert!(each < 600 && time < Duration::from_secs(20));
    plug.release();
    assert_eq!(pool.submit(|n: u32| n, 1).result().unwrap(), 1);
}
