//! The parent is gone, without a word: its workers are gone too, whatever they were doing.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio as Channel};

use concurrent_futures::ProcessPoolExecutor;
use rustix::process::Signal;

use super::support::*;
use crate::support::{child_command, guarded, is_child};

/// Starts this test again as a parent whose workers do as `body` says; kills it, and waits until all is quiet. `body` says
/// which workers there are.
fn orphaned(test: &str, body: impl FnOnce() -> (ProcessPoolExecutor, Vec<u32>)) {
    if is_child() {
        let (_pool, workers) = body();
        for worker in workers {
            println!("\nworker {worker}");
        }
        println!("\nready");
        loop {
            std::thread::park();
        }
    }
    let test = format!("process::orphans::{test}");
    guarded(move || {
        for _ in 0..3 {
            let folder = Folder::new();
            let mut command = child_command(&test);
            command.env("TMPDIR", folder.path());
            let mut parent = command.stdout(Channel::piped()).stderr(Channel::null()).spawn().unwrap();
            let workers = workers_of(&mut parent);
            assert!(!workers.is_empty() && workers.iter().all(|pid| is_running(*pid)));
            parent.kill().unwrap();
            poll(|| !workers.iter().any(|pid| is_running(*pid)));
            parent.wait().unwrap();
        }
    });
}

fn workers_of(parent: &mut Child) -> Vec<u32> {
    let lines = BufReader::new(parent.stdout.as_mut().unwrap()).lines().map(Result::unwrap);
    let lines: Vec<String> = lines.take_while(|line| line != "ready").collect();
    lines.iter().filter_map(|line| line.strip_prefix("worker ")?.parse().ok()).collect()
}

#[test]
fn idle_workers() {
    orphaned("idle_workers", || {
        let pool = pool(2);
        [Plug::new(&pool), Plug::new(&pool)].into_iter().for_each(Plug::release);
        let workers = pool.worker_pids();
        (pool, workers)
    });
}

#[test]
fn workers_that_compute() {
    orphaned("workers_that_compute", || {
        let (pool, folder) = (pool(2), Folder::new());
        let ledger = folder.ledger("ledger");
        let compute = |ledger: Ledger| -> () {
            block_sigterm();
            ledger.write("begun");
            loop {
                std::hint::spin_loop();
            }
        };
        (0..2).for_each(|_| pool.submit(compute, ledger.clone()).detach());
        poll(|| ledger.lines().len() == 2);
        let workers = pool.worker_pids();
        (pool, workers)
    });
}

#[test]
fn workers_that_wait() {
    orphaned("workers_that_wait", || {
        let (pool, folder) = (pool(2), Folder::new());
        let ledger = folder.ledger("ledger");
        let wait = |ledger: Ledger| -> () {
            ledger.write("begun");
            loop {
                std::thread::park();
            }
        };
        (0..2).for_each(|_| pool.submit(wait, ledger.clone()).detach());
        poll(|| ledger.lines().len() == 2);
        let workers = pool.worker_pids();
        (pool, workers)
    });
}

#[test]
fn stopped_workers() {
    orphaned("stopped_workers", || {
        let pool = pool(1);
        pool.submit(|_: ()| (), ()).result().unwrap();
        let workers = pool.worker_pids();
        workers.iter().for_each(|pid| signal(*pid, Signal::STOP));
        poll(|| workers.iter().all(|pid| process_state(*pid) == Some('T')));
        (pool, workers)
    });
}

#[test]
fn workers_of_workers() {
    fn nested(_: ()) -> Vec<u32> {
        let pool = Box::leak(Box::new(pool(1)));
        vec![std::process::id(), pool.submit(|_: ()| std::process::id(), ()).result().unwrap()]
    }
    orphaned("workers_of_workers", || {
        let pool = pool(1);
        let workers = pool.submit(nested, ()).result().unwrap();
        (pool, workers)
    });
}

#[test]
fn workers_in_the_middle_of_a_long_result() {
    orphaned("workers_in_the_middle_of_a_long_result", || {
        let (pool, folder) = (pool(1), Folder::new());
        let sign = folder.sign("sign");
        let future = pool.submit(
            |sign: Sign| {
                sign.give();
                vec![1u8; 500 << 20]
            },
            sign.clone(),
        );
        sign.wait();
        future.detach();
        let workers = pool.worker_pids();
        (pool, workers)
    });
}
