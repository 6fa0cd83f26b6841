//! Limits of the system that a process runs into: as many descriptors as it may have, as long as its files may be.

use std::thread;
use std::time::Duration;

use concurrent_futures::{ProcessPoolExecutor, SharedBytes, Stdio, Transport};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use super::support::*;

fn limit(resource: Resource, most: u64) {
    let maximum = getrlimit(resource).maximum;
    setrlimit(resource, Rlimit { current: Some(most), maximum }).unwrap();
}

/// All descriptors that there may be, but so many.
fn all_but(few: usize) -> Vec<std::os::fd::OwnedFd> {
    let mut all: Vec<_> = std::iter::from_fn(|| rustix::io::dup(std::io::stdin()).ok()).collect();
    all.truncate(all.len() - few);
    all
}

// Each step of a start is the one for which there is none: what the steps before it took is given back.
#[test]
fn a_start_fails_at_every_step() {
    alone("limited::a_start_fails_at_every_step", || {
        for (transport, stdio) in [
            (Transport::SharedMemory, Stdio::Capture),
            (Transport::SharedMemory, Stdio::Inherit),
            (Transport::Socket, Stdio::Null),
        ] {
            let pool = ProcessPoolExecutor::builder().max_workers(1).transport(transport).stdio(stdio).build().unwrap();
            limit(Resource::Nofile, 100);
            let before = open_descriptors();
            let mut failures = 0;
            for few in 0..20 {
                let all = all_but(few);
                let outcome = pool.submit(|n: u32| n, 5).result();
                drop(all);
                match outcome {
                    Ok(value) => assert_eq!(value, 5),
                    Err(error) => {
                        assert!(error.is_spawn(), "{few}: {error:?}");
                        assert_eq!(open_descriptors(), before, "{few}: what half a start took");
                        failures += 1;
                    }
                }
            }
            assert!((3..15).contains(&failures), "{failures}");
            assert_eq!(pool.submit(|n: u32| n, 6).result().unwrap(), 6);
        }
    });
}

// The workers go one by one, and no other can come. What is left does the work; then nothing is left, and tasks fail; then
// there are descriptors again.
#[test]
fn no_descriptors_for_those_who_are_to_take_the_place_of_the_dead() {
    alone("limited::no_descriptors_for_those_who_are_to_take_the_place_of_the_dead", || {
        let pool = ProcessPoolExecutor::builder().max_workers(3).stdio(Stdio::Null).build().unwrap();
        let plugs: Vec<_> = (0..3).map(|_| Plug::new(&pool)).collect();
        limit(Resource::Nofile, 64);
        // One is for the test; it is too little for a worker.
        let all = all_but(1);
        let (mut plugs, mut kept) = (plugs.into_iter(), Vec::new());
        for _ in 0..2 {
            let mut dead = plugs.next().unwrap();
            signal(dead.pid, Signal::KILL);
            exit_of(dead.take().result());
            // What the burial has freed is taken at once.
            kept.push(all_but(1));
        }
        let last = plugs.next().unwrap();
        let futures: Vec<_> = (0..100).map(|_| pool.submit(|()| std::process::id(), ())).collect();
        let pid = last.pid;
        last.release();
        assert!(futures.into_iter().all(|future| future.result().unwrap() == pid));
        signal(pid, Signal::KILL);
        poll(|| !pool.worker_pids().contains(&pid));
        kept.push(all_but(1));
        let error = pool.submit(|()| (), ()).result().unwrap_err();
        assert!(error.is_spawn(), "{error:?}");
        drop(all);
        assert_eq!(pool.submit(|n: u32| n, 7).result().unwrap(), 7);
        assert!(pool.submit(|()| -> () { panic!() }, ()).result().unwrap_err().is_panicked());
    });
}

// The kernel would end the process that only tries to make a longer one.
#[test]
fn a_limit_for_the_length_of_files() {
    alone("limited::a_limit_for_the_length_of_files", || {
        for most in [0, 4096, 100 << 10, 1 << 20] {
            limit(Resource::Fsize, most);
            if !may_choose() {
                break;
            }
            let pool = ProcessPoolExecutor::builder().max_workers(2).stdio(Stdio::Null).build().unwrap();
            let long = pool.submit(|bytes: Vec<u8>| bytes, vec![1; 3 << 20]);
            assert_eq!(long.result().unwrap().len(), 3 << 20);
            let error = SharedBytes::with(2 << 20, |_| ()).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(Errno::FBIG.raw_os_error()));
            let in_a_worker = |()| SharedBytes::with(2 << 20, |_| ()).is_err();
            assert!(pool.submit(in_a_worker, ()).result().unwrap());
            if most < 512 << 10 {
                let pool = ProcessPoolExecutor::builder().transport(Transport::SharedMemory).build().unwrap();
                assert!(pool.submit(|()| (), ()).result().unwrap_err().is_spawn());
            }
        }
    });
}

// A pool that has failed like that starts nothing, and sleeps, until it is asked for something.
#[test]
fn a_pool_that_cannot_start_anything_is_quiet() {
    alone("limited::a_pool_that_cannot_start_anything_is_quiet", || {
        let pool = ProcessPoolExecutor::builder().max_workers(2).stdio(Stdio::Null).build().unwrap();
        limit(Resource::Nofile, 64);
        let _all = all_but(0);
        assert!(pool.submit(|()| (), ()).result().unwrap_err().is_spawn());
        let used = || Duration::try_from(rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime)).unwrap();
        let before = used();
        thread::sleep(Duration::from_millis(200));
        assert!(used() - before < Duration::from_millis(100));
    });
}
