//! A worker that says more than anybody can listen to: the pool goes on, and comes to its end.

use std::process::Command;
use std::thread;

use concurrent_futures::{ProcessPoolExecutor, Shutdown, Stdio, TaskFuture};
use rustix::net::{AddressFamily, SocketType, sockopt};

use super::support::*;
use crate::support::guarded;

/// Threads of the worker that do it for ever, beside its tasks.
fn for_ever(flood: impl Fn() + Clone + Send + 'static) -> u32 {
    for _ in 0..4 {
        let flood = flood.clone();
        thread::spawn(move || {
            loop {
                flood();
            }
        });
    }
    std::process::id()
}

/// With one of its workers like that, a pool works, and ends.
fn survives(flood: impl FnOnce(&ProcessPoolExecutor) -> TaskFuture<u32>) {
    let pool = ProcessPoolExecutor::builder().max_workers(2).stdio(Stdio::Capture).build().unwrap();
    let flooding = flood(&pool).result().unwrap();
    for n in 0..200u32 {
        assert_eq!(pool.submit(|n: u32| n, n).result().unwrap(), n);
    }
    assert_eq!(pool.map(|n: u64| n, 0..1000).map(Result::unwrap).sum::<u64>(), 499_500);
    pool.shutdown(Shutdown::Wait).unwrap();
    assert!(!is_running(flooding));
}

#[test]
fn of_standard_error() {
    let flood = |_: ()| {
        for_ever(|| {
            let _ = rustix::io::write(rustix::stdio::stderr(), &[b'x'; 65_536]);
        })
    };
    guarded(move || survives(|pool| pool.submit(flood, ())));
}

#[test]
fn of_bells() {
    #[allow(unsafe_code)]
    fn flood(_: ()) -> u32 {
        use std::os::fd::BorrowedFd;
        // SAFETY: it was open a moment ago, and nothing here closes any.
        let fds = open_descriptors().into_iter().map(|fd| unsafe { BorrowedFd::borrow_raw(fd) });
        let is_control = |fd: &BorrowedFd<'_>| {
            sockopt::socket_domain(fd) == Ok(AddressFamily::UNIX)
                && sockopt::socket_type(fd) == Ok(SocketType::SEQPACKET)
        };
        let control = fds.into_iter().find(is_control).unwrap();
        for_ever(move || {
            let _ = rustix::io::write(control, &[3]);
        })
    }
    guarded(|| survives(|pool| pool.submit(flood, ())));
}

// What it has started goes on writing into its pipe when it is dead. The pool does not wait for the last word.
#[test]
fn of_a_grandchild_that_stays() {
    let leave = |_: ()| -> () {
        for _ in 0..4 {
            let _ = Command::new("yes").spawn().unwrap().id();
        }
        std::process::abort();
    };
    guarded(move || {
        let pool = ProcessPoolExecutor::builder().max_workers(1).stdio(Stdio::Capture).build().unwrap();
        for _ in 0..3 {
            let exit = exit_of(pool.submit(leave, ()).result());
            assert!(exit.stderr().unwrap().len() <= 8 * 1024);
        }
        assert_eq!(pool.submit(|n: u32| n, 1).result().unwrap(), 1);
    });
}
