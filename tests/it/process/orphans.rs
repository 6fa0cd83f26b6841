//! The parent is gone, without a word: its workers are gone too, whatever they were doing.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio as Channel};

use concurrent_futures::{ProcessPoolBuilder, ProcessPoolExecutor, Stdio};
use rustix::process::Signal;

use super::support::*;
use crate::support::{child_command, guarded, is_child};

/// Starts this test again as a parent whose workers do as `body` says; kills it, and waits until all is quiet. `body` says
/// which workers there are.
fn orphaned(test: &str, body: impl FnOnce() -> (ProcessPoolExecutor, Vec<u32>)) {
    orphaned_and(test, body, |_| ());
}

/// The same; `then` is done with the workers when the parent has been killed.
fn orphaned_and(
    test: &str,
    body: impl FnOnce() -> (ProcessPoolExecutor, Vec<u32>),
    then: impl Fn(u32) + Send + 'static,
) {
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
            let (workers, copies) = offspring_of(&mut parent);
            assert!(!workers.is_empty() && workers.iter().all(|pid| is_running(*pid)));
            parent.kill().unwrap();
            workers.iter().for_each(|worker| then(*worker));
            poll(|| !workers.iter().any(|pid| is_running(*pid)));
            copies.into_iter().for_each(|copy| signal(copy, Signal::KILL));
            parent.wait().unwrap();
        }
    });
}

/// The workers and the copies of itself that a parent says it has.
fn offspring_of(parent: &mut Child) -> (Vec<u32>, Vec<u32>) {
    let lines = BufReader::new(parent.stdout.as_mut().unwrap()).lines().map(Result::unwrap);
    let lines: Vec<String> = lines.take_while(|line| line != "ready").collect();
    let named = |name: &str| lines.iter().filter_map(|line| line.strip_prefix(name)?.parse().ok()).collect();
    (named("worker "), named("copy "))
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

fn pid(_: ()) -> u32 {
    std::process::id()
}

/// A pool of two workers, both of which have done something.
fn two_workers(builder: ProcessPoolBuilder) -> (ProcessPoolExecutor, Vec<u32>) {
    let pool = builder.max_workers(2).stdio(Stdio::Null).build().unwrap();
    [Plug::new(&pool), Plug::new(&pool)].into_iter().for_each(Plug::release);
    let workers = pool.worker_pids();
    assert_eq!(workers.len(), 2);
    (pool, workers)
}

// A user may not signal the processes of another one. That is asked even when the kernel sends the signal for a parent that dies.
#[test]
fn workers_of_a_host_that_changed_its_user() {
    if may_change_user() {
        orphaned("workers_of_a_host_that_changed_its_user", || {
            let (pool, workers) = two_workers(ProcessPoolExecutor::builder());
            become_nobody();
            (pool, workers)
        });
    }
}

#[test]
fn workers_of_a_host_that_changed_its_user_before() {
    if may_change_user() {
        orphaned("workers_of_a_host_that_changed_its_user_before", || {
            let pool = pool(1);
            become_nobody();
            let worker = pool.submit(pid, ()).result().unwrap();
            (pool, vec![worker])
        });
    }
}

// A change of credentials withdraws the wish to be killed when the parent dies.
#[test]
fn workers_that_changed_their_user_in_the_initializer() {
    if may_change_user() {
        orphaned("workers_that_changed_their_user_in_the_initializer", || {
            let pool = ProcessPoolExecutor::builder().max_workers(2).stdio(Stdio::Null);
            let pool = pool.initializer(|_: ()| become_nobody(), ()).build().unwrap();
            let worker = pool.submit(pid, ()).result().unwrap();
            (pool, vec![worker])
        });
    }
}

#[test]
fn workers_that_changed_their_user_in_a_task() {
    if may_change_user() {
        orphaned("workers_that_changed_their_user_in_a_task", || {
            let pool = pool(1);
            let changed = |_: ()| {
                become_nobody();
                std::process::id()
            };
            let worker = pool.submit(changed, ()).result().unwrap();
            (pool, vec![worker])
        });
    }
}

#[test]
fn workers_that_compute_after_they_changed_their_user() {
    if may_change_user() {
        orphaned("workers_that_compute_after_they_changed_their_user", || {
            let (pool, folder) = (pool(1), Folder::new());
            let ledger = folder.ledger("ledger");
            let compute = |ledger: Ledger| -> () {
                ledger.write(std::process::id());
                become_nobody();
                loop {
                    std::hint::spin_loop();
                }
            };
            pool.submit(compute, ledger.clone()).detach();
            poll(|| !ledger.lines().is_empty());
            let worker = ledger.lines()[0].parse().unwrap();
            poll(|| user_of(worker) == Some(NOBODY));
            (pool, vec![worker])
        });
    }
}

/// The user of a process.
fn user_of(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse().ok())
}

// One that is stopped can do nothing for itself: the kernel has to.
#[test]
fn stopped_workers_that_changed_their_user_in_the_initializer() {
    if may_change_user() {
        orphaned("stopped_workers_that_changed_their_user_in_the_initializer", || {
            let pool = ProcessPoolExecutor::builder().max_workers(1).stdio(Stdio::Null);
            let pool = pool.initializer(|_: ()| become_nobody(), ()).build().unwrap();
            let worker = pool.submit(pid, ()).result().unwrap();
            signal(worker, Signal::STOP);
            poll(|| process_state(worker) == Some('T'));
            (pool, vec![worker])
        });
    }
}

// Nobody asks the kernel again after a task; this one ends when it is continued.
#[test]
fn stopped_workers_that_changed_their_user_in_a_task() {
    if may_change_user() {
        let stopped = || {
            let pool = pool(1);
            let changed = |_: ()| {
                become_nobody();
                std::process::id()
            };
            let worker = pool.submit(changed, ()).result().unwrap();
            signal(worker, Signal::STOP);
            poll(|| process_state(worker) == Some('T'));
            (pool, vec![worker])
        };
        let continued = |worker| signal(worker, Signal::CONT);
        orphaned_and("stopped_workers_that_changed_their_user_in_a_task", stopped, continued);
    }
}

// A copy of the host has all its descriptors, so the control sockets stay open.
#[test]
#[allow(unsafe_code)]
fn workers_of_a_host_of_which_there_is_a_copy() {
    if may_change_user() {
        orphaned("workers_of_a_host_of_which_there_is_a_copy", || {
            let (pool, workers) = two_workers(ProcessPoolExecutor::builder());
            become_nobody();
            // SAFETY: the copy does nothing but wait for a signal.
            let copy = unsafe {
                let copy = libc::fork();
                if copy == 0 {
                    loop {
                        libc::pause();
                    }
                }
                copy
            };
            println!("\ncopy {copy}");
            (pool, workers)
        });
    }
}

// A task that closes every descriptor of its process closes what its process would have seen the host's end with.
#[test]
#[allow(unsafe_code)]
fn workers_that_closed_all_descriptors_after_they_changed_their_user() {
    if may_change_user() {
        orphaned("workers_that_closed_all_descriptors_after_they_changed_their_user", || {
            let (pool, folder) = (pool(1), Folder::new());
            let ledger = folder.ledger("ledger");
            let close_and_wait = |ledger: Ledger| -> () {
                become_nobody();
                for fd in open_descriptors().into_iter().filter(|fd| *fd > 2) {
                    // SAFETY: nothing in this process needs them any more, as far as this test is concerned.
                    unsafe { rustix::io::close(fd) };
                }
                // What takes their numbers can always be read.
                let _files: Vec<_> = (0..20).map(|_| std::fs::File::open("/dev/zero").unwrap()).collect();
                ledger.write(std::process::id());
                loop {
                    std::thread::park();
                }
            };
            std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
            std::fs::set_permissions(folder.path().join("ledger"), std::os::unix::fs::PermissionsExt::from_mode(0o666))
                .unwrap();
            pool.submit(close_and_wait, ledger.clone()).detach();
            poll(|| !ledger.lines().is_empty());
            let worker = ledger.lines()[0].parse().unwrap();
            (pool, vec![worker])
        });
    }
}
