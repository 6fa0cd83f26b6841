//! What a task has started belongs to the task: it outlives worker and pool, and is in the way of neither.

use std::process::{Command, Stdio as Channel};
use std::time::Duration;

use concurrent_futures::{ProcessPoolExecutor, Shutdown, Stdio};
use rustix::process::Signal;

use super::support::*;
use crate::support::guarded;

/// Starts a process that stays, and that has the standard output and error of the worker.
fn leave(_: ()) -> u32 {
    Command::new("sleep").arg("1000").stdin(Channel::null()).spawn().unwrap().id()
}

/// Starts a process that stays and has every descriptor that the worker has: it comes from a fork alone.
#[allow(unsafe_code)]
fn fork(_: ()) -> u32 {
    // SAFETY: the child calls nothing that could need a lock.
    unsafe {
        match libc::fork() {
            0 => loop {
                libc::sleep(1000);
            },
            child => child.try_into().unwrap(),
        }
    }
}

fn are_in_nobodys_way(stdio: Stdio, start: impl Fn(&ProcessPoolExecutor) -> u32) {
    let builder = || ProcessPoolExecutor::builder().max_workers(1).stdio(stdio).kill_grace(Duration::from_millis(20));
    let mut left = Vec::new();
    for end in 0..4 {
        let pool = builder().build().unwrap();
        let worker = pool.submit(|()| std::process::id(), ()).result().unwrap();
        left.push(start(&pool));
        match end {
            0 => exit_of(pool.submit(|()| -> () { std::process::abort() }, ()).result()).pid(),
            1 => {
                signal(worker, Signal::KILL);
                poll(|| !pool.worker_pids().contains(&worker));
                worker
            }
            2 => {
                let plug = Plug::new(&pool);
                assert!(plug.future.as_ref().unwrap().cancel());
                plug.pid
            }
            _ => worker,
        };
        // Another worker has come, or the same one goes on.
        if end != 2 {
            assert_eq!(pool.submit(|n: u32| n, 3).result().unwrap(), 3);
        }
        pool.shutdown(Shutdown::Wait).unwrap();
        assert!(!is_running(worker));
    }
    // Documented: they are nobody's but the task's.
    for pid in left {
        assert!(is_running(pid));
        signal(pid, Signal::KILL);
    }
}

#[test]
fn started_as_a_program() {
    guarded(|| are_in_nobodys_way(Stdio::Null, |pool| pool.submit(leave, ()).result().unwrap()));
}

#[test]
fn with_the_pipe_of_a_captured_output() {
    guarded(|| are_in_nobodys_way(Stdio::Capture, |pool| pool.submit(leave, ()).result().unwrap()));
}

#[test]
fn forked_with_all_descriptors() {
    guarded(|| are_in_nobodys_way(Stdio::Capture, |pool| pool.submit(fork, ()).result().unwrap()));
}
