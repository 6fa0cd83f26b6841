//! Signals interrupt system calls; no wait may fail or end early because of them.

use std::process::Stdio;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use concurrent_futures::{ReturnWhen, promise, wait};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::*;

// The process is stopped and continued again and again, which takes every thread out of its system call.
#[test]
fn stopped_and_continued() {
    const TEST: &str = "signals::stopped_and_continued";
    if is_child() {
        return guarded(waits_of_all_kinds);
    }
    guarded(|| {
        let child = child_command(TEST).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let pid = Pid::from_child(&child);
        let ended = Gate::new();
        let done = ended.clone();
        let output = thread::spawn(move || {
            let output = child.wait_with_output().unwrap();
            done.open();
            output
        });
        while !ended.is_open() {
            // An error means that the child has ended, which the gate is about to say.
            let _ = kill_process(pid, Signal::STOP);
            let _ = kill_process(pid, Signal::CONT);
            thread::sleep(Duration::from_micros(200));
        }
        let output = output.join().unwrap();
        assert!(output.status.success(), "{}", printed(&output));
    });
}

fn waits_of_all_kinds() {
    let pool = Arc::new(pool(2));
    let time = Duration::from_millis(3);
    for round in 0..50 {
        let (kept, never) = promise::<u32>();
        let start = Instant::now();
        let never = never.result_timeout(time).unwrap_err();
        assert!(start.elapsed() >= time, "a wait ended early");
        let start = Instant::now();
        let waited = wait([never], Some(time), ReturnWhen::AllCompleted);
        assert!(waited.done.is_empty() && start.elapsed() >= time, "a wait ended early");
        drop(kept);
        let gate = Gate::new();
        let behind = gate.clone();
        let blocked = pool.submit(move || behind.pass());
        let inner = Arc::clone(&pool);
        let nested = pool.submit(move || inner.submit(move || round).result().unwrap());
        assert_eq!(nested.result().unwrap(), round);
        gate.open();
        blocked.result().unwrap();
        assert_eq!(pool.map(|n: u32| n, 0..100).map(Result::unwrap).sum::<u32>(), 4950);
    }
}
