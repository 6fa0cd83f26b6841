//! Signals interrupt every system call of every thread, in this process and in its workers: no wait fails or ends early,
//! nothing is lost, and nothing takes for ever.

#![allow(unsafe_code)]

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use concurrent_futures::{ProcessPoolExecutor, SharedBytes, Shutdown, Stdio};

use super::support::*;

extern "C" fn nothing(_: libc::c_int) {}

/// The storms of this process are over.
static OVER: AtomicBool = AtomicBool::new(false);

/// From now on each thread of this process gets a signal about every millisecond, to which it does nothing.
fn storm(restart: bool) {
    // SAFETY: the handler does nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let handler: extern "C" fn(libc::c_int) = nothing;
        action.sa_sigaction = handler as usize;
        action.sa_flags = if restart { libc::SA_RESTART } else { 0 };
        assert_eq!(libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()), 0);
    }
    thread::spawn(|| {
        // SAFETY: no argument, nothing that could go wrong.
        let own = unsafe { libc::gettid() };
        while !OVER.load(SeqCst) {
            for task in fs::read_dir("/proc/self/task").unwrap() {
                let Some(thread) = task.unwrap().file_name().to_str().and_then(|name| name.parse::<libc::pid_t>().ok())
                else {
                    continue;
                };
                if thread != own {
                    // SAFETY: a thread that is gone gets nothing.
                    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, libc::SIGUSR1) };
                }
            }
            thread::sleep(Duration::from_millis(1));
        }
    });
}

fn in_a_storm(restart: bool) {
    storm(restart);
    for _ in 0..3 {
        let pool = ProcessPoolExecutor::builder().max_workers(2).stdio(Stdio::Capture);
        let pool = pool.kill_grace(Duration::from_millis(20)).initializer(storm, restart).build().unwrap();
        let plug = Plug::new(&pool);
        let time = Duration::from_millis(20);
        let start = Instant::now();
        let never = pool.submit(|bytes: Vec<u8>| bytes, vec![5; 5 << 20]);
        plug.release();
        assert!(never.result().unwrap() == vec![5; 5 << 20]);
        let sleep = |()| thread::sleep(Duration::from_secs(3600));
        let late = pool.task(sleep, ()).timeout(time).submit();
        assert!(late.result().unwrap_err().is_timed_out() && start.elapsed() >= time, "a time limit is over early");
        let (start, kept) = (Instant::now(), Plug::new(&pool));
        let waiting = pool.submit(sleep, ()).result_timeout(time).unwrap_err();
        assert!(start.elapsed() >= time, "a wait is over early");
        assert!(waiting.cancel());
        kept.release();
        for round in 0..20u64 {
            let futures: Vec<_> = (0..50).map(|n| pool.submit(|n: u64| n, n + round)).collect();
            futures.into_iter().zip(round..).for_each(|(future, n)| assert_eq!(future.result().unwrap(), n));
            assert_eq!(pool.map(|n: u64| n, 0..100).map(Result::unwrap).sum::<u64>(), 4950);
        }
        let shared = SharedBytes::with(16 << 20, |bytes| bytes.fill(3)).unwrap();
        assert_eq!(pool.submit(|bytes: SharedBytes| bytes.len(), shared).result().unwrap(), 16 << 20);
        exit_of(pool.submit(|()| -> () { std::process::abort() }, ()).result());
        let workers = pool.worker_pids();
        pool.shutdown(Shutdown::Wait).unwrap();
        assert!(!children().iter().any(|child| workers.contains(child)));
    }
    OVER.store(true, SeqCst);
}

#[test]
fn calls_that_fail() {
    alone("interrupted::calls_that_fail", || in_a_storm(false));
}

#[test]
fn calls_that_are_begun_again() {
    alone("interrupted::calls_that_are_begun_again", || in_a_storm(true));
}
