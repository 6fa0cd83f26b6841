//! What a worker inherits, and what a pool leaves behind: nothing that it should not.

use std::io::Read;
use std::os::fd::AsFd;

use concurrent_futures::{ProcessPoolExecutor, Stdio};
use rustix::process::Signal;

use super::support::*;

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
