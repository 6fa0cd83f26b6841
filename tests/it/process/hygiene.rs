//! What a worker inherits, and what a pool leaves behind: nothing that it should not.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::time::Duration;

use concurrent_futures::{ProcessPoolExecutor, SharedBytes, Stdio};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use super::support::*;
use crate::support::{Gate, message};

fn descriptors(_: ()) -> Vec<i32> {
    open_descriptors()
}

#[test]
fn descriptors_that_are_open_by_accident_do_not_reach_the_workers() {
    alone("hygiene::descriptors_that_are_open_by_accident_do_not_reach_the_workers", || {
        let clean = pool(1).submit(descriptors, ()).result().unwrap();
        assert!(clean.len() < 10, "{clean:?}");
        let file = std::fs::File::open("/dev/null").unwrap();
        // Unlike those of std, these survive an exec.
        let open: Vec<_> = (0..100).map(|_| rustix::io::dup(file.as_fd()).unwrap()).collect();
        let pool = pool(1);
        for _ in 0..2 {
            let seen = pool.submit(descriptors, ()).result().unwrap();
            assert_eq!(seen.len(), clean.len(), "as many as in a program that has none of them: {seen:?}");
        }
        drop(open);
    });
}

#[test]
fn standard_input_is_empty() {
    alone("hygiene::standard_input_is_empty", || {
        let read = |_: ()| {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map(|_| text).map_err(|error| error.to_string())
        };
        assert_eq!(pool(1).submit(read, ()).result().unwrap(), Ok(String::new()));
    });
}

// Ctrl-C reaches all processes of a terminal; what it means is for the parent to say.
#[test]
fn sigint_is_not_for_workers() {
    alone("hygiene::sigint_is_not_for_workers", || {
        let pool = pool(2);
        let plug = Plug::new(&pool);
        let idle = pool.submit(|_: ()| std::process::id(), ()).result().unwrap();
        for worker in [plug.pid, idle] {
            signal(worker, Signal::INT);
        }
        plug.release();
        pool.submit(|_: ()| (), ()).result().unwrap();
        assert!(is_running(idle));
    });
}

// A Rust program does not end of a closed pipe, and neither does a worker.
#[test]
fn sigpipe_is_ignored_as_in_every_rust_program() {
    alone("hygiene::sigpipe_is_ignored_as_in_every_rust_program", || {
        let write = |_: ()| {
            let (reader, writer) = rustix::pipe::pipe().unwrap();
            drop(reader);
            rustix::io::write(writer, b"x").is_err()
        };
        assert!(pool(1).submit(write, ()).result().unwrap());
    });
}

#[test]
fn a_pool_gives_back_all_that_it_took() {
    alone("hygiene::a_pool_gives_back_all_that_it_took", || {
        let use_it = || {
            let pool = ProcessPoolExecutor::builder().max_workers(3).stdio(Stdio::Capture).build().unwrap();
            let futures: Vec<_> = (0..200u64).map(|n| pool.submit(|n: u64| n, n)).collect();
            let crash = pool.submit(|_: ()| -> () { std::process::abort() }, ());
            let panic = pool.submit(|_: ()| -> () { panic!() }, ());
            let long = pool.submit(|bytes: Vec<u8>| bytes, vec![1; 1 << 20]);
            let mut plug = Plug::new(&pool);
            assert!(plug.take().cancel());
            futures.into_iter().for_each(|future| assert!(future.result().is_ok()));
            exit_of(crash.result());
            assert!(panic.result().unwrap_err().is_panicked());
            long.result().unwrap();
            assert_eq!(pool.map(|n: u64| n, 0..100).map(Result::unwrap).sum::<u64>(), 4950);
        };
        // What is made once and stays.
        use_it();
        let before = Belongings::now();
        (0..10).for_each(|_| use_it());
        assert_eq!(Belongings::now(), before);
    });
}

#[test]
fn a_broken_pool_gives_back_all_that_it_took() {
    alone("hygiene::a_broken_pool_gives_back_all_that_it_took", || {
        let use_it = || {
            for program in ["/bin/false", "/bin/cat", "/no/such/program"] {
                let limit = std::time::Duration::from_millis(20);
                let builder = ProcessPoolExecutor::builder().max_workers(2).stdio(Stdio::Null).start_timeout(limit);
                let pool = builder.worker_command([program]).build().unwrap();
                assert!(pool.submit(|_: ()| (), ()).result().is_err());
            }
        };
        use_it();
        let before = Belongings::now();
        (0..5).for_each(|_| use_it());
        assert_eq!(Belongings::now(), before);
    });
}

#[test]
fn a_pool_that_is_never_used_takes_no_thread_and_no_process() {
    alone("hygiene::a_pool_that_is_never_used_takes_no_thread_and_no_process", || {
        drop(pool(1));
        let before = Belongings::now();
        let pools: Vec<_> = (0..10).map(|_| pool(8)).collect();
        let with = Belongings::now();
        drop(pools);
        let after = Belongings::now();
        assert_eq!(before, after);
        assert!(with.has_as_many_threads_and_children_as(&before));
    });
}

#[test]
fn killed_workers_leave_no_zombies() {
    alone("hygiene::killed_workers_leave_no_zombies", || {
        let pool = pool(3);
        for _ in 0..10 {
            let plugs: Vec<_> = (0..3).map(|_| Plug::new(&pool)).collect();
            for mut plug in plugs {
                signal(plug.pid, Signal::KILL);
                exit_of(plug.take().result());
            }
        }
        poll(|| children().is_empty());
    });
}

/// What [`giving_back`] says of a test that leaves what `plant` returns; that goes afterwards.
fn found<T>(plant: impl FnOnce() -> T) -> String {
    let mut left = None;
    let checked = catch_unwind(AssertUnwindSafe(|| giving_back(Duration::ZERO, || left = Some(plant()))));
    message(&*checked.expect_err("it was not found"))
}

/// The worker pids of a pool that has worked and is gone, and what `keep` made of each while it was there.
fn worked<T>(keep: impl Fn(u32) -> T) -> Vec<T> {
    let pool = pool(3);
    let plugs: Vec<_> = (0..3).map(|_| Plug::new(&pool)).collect();
    let kept = plugs.iter().map(|plug| keep(plug.pid)).collect();
    plugs.into_iter().for_each(Plug::release);
    kept
}

// Every test of worker processes is looked at like that, so this has to find what there can be.
#[test]
fn what_a_test_leaves_is_found() {
    alone("hygiene::what_a_test_leaves_is_found", || {
        assert_eq!(
            giving_back(Duration::from_secs(10), || worked(|_| ())).len(),
            3,
            "nothing is found where nothing is"
        );

        let pidfd = |pid| pidfd_open(Pid::from_raw(pid as i32).unwrap(), PidfdFlags::empty()).unwrap();
        let text = found(|| worked(pidfd));
        assert_eq!(text.matches("descriptor").count(), 3, "one for each worker: {text}");
        let text = found(|| worked(|_| rustix::pipe::pipe().unwrap()));
        assert_eq!(text.matches("descriptor \"pipe:").count(), 6, "{text}");
        let text = found(|| File::open("/dev/null").unwrap());
        assert!(text.contains("descriptor \"/dev/null\""), "{text}");

        let text = found(|| SharedBytes::copy_from(b"left").unwrap());
        assert!(text.contains("mapping") && text.contains("descriptor \"/memfd:concurrent-futures"), "{text}");

        let mut left = None;
        let text = found(|| left = Some(Command::new("true").spawn().unwrap()));
        assert!(text.contains("child"), "{text}");
        left.unwrap().wait().unwrap();

        let gate = Gate::new();
        let inner = gate.clone();
        let text = found(|| std::thread::spawn(move || inner.pass()));
        assert!(text.contains("1 threads"), "{text}");
        gate.open();

        if !std::path::Path::new("/dev/shm").is_dir() {
            return;
        }
        // Others have names there, too.
        let name = |number: u32| format!("/dev/shm/concurrent-futures-test.{number}.x");
        // No process has such a number.
        let number = u32::MAX - fastrand::u32(0..1 << 30);
        let (own, other) = (name(std::process::id()), name(number));
        let text = found(|| [File::create(&own).unwrap(), File::create(&other).unwrap()].map(drop));
        for path in [&own, &other] {
            std::fs::remove_file(path).unwrap();
        }
        assert!(text.contains(&format!("{}.x", std::process::id())) && !text.contains(&number.to_string()), "{text}");
    });
}
