//! Systems that refuse what newer or less careful ones have: each call is made to fail as on an old kernel (ENOSYS), and as
//! in a sandbox (EPERM). The pool takes another way, or says that there is none.

use std::fs;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use concurrent_futures::{BuildError, ProcessPoolExecutor, SharedBytes, Shutdown, Stdio, Transport};
use libc::c_int;
use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};

use super::seccomp::{Refusal, refuse};
use super::support::*;
use crate::support::{Gate, LIMIT, child_command, guarded, is_child, printed, watchdog};

const ERROR: &str = "CONCURRENT_FUTURES_TEST_ERROR";

/// Runs `body` in a child process, once for each error, which the child gets to make what is refused.
fn with_each_error(test: &str, body: impl FnOnce(c_int) + Send + 'static) {
    if is_child() {
        let error = std::env::var(ERROR).unwrap().parse().unwrap();
        return guarded(move || body(error));
    }
    let test = format!("process::refused::{test}");
    for error in [libc::ENOSYS, libc::EPERM] {
        let mut command = child_command(&test);
        command.env(ERROR, error.to_string());
        let output = watchdog(2 * LIMIT, move || command.output().unwrap());
        assert!(output.status.success(), "{}", printed(&output));
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{}", printed(&output));
    }
}

/// False, with a word about it, where there are no such filters.
fn refused(refusals: &[Refusal]) -> bool {
    let result = refuse(refusals);
    if let Err(error) = &result {
        println!("not tested, for this system has no filters for system calls: {error}");
    }
    result.is_ok()
}

/// All that a pool can do, a little of each.
fn everything_works(builder: concurrent_futures::ProcessPoolBuilder) {
    let pool = builder.max_workers(2).stdio(Stdio::Capture).kill_grace(Duration::from_millis(50)).build().unwrap();
    let futures: Vec<_> = (0..100u32).map(|n| pool.submit(|n: u32| n * 2, n)).collect();
    futures.into_iter().zip(0..).for_each(|(future, n)| assert_eq!(future.result().unwrap(), n * 2));
    assert_eq!(pool.map(|n: u64| n, 0..1000).map(Result::unwrap).sum::<u64>(), 499_500);
    let long = vec![7u8; 3 << 20];
    assert!(pool.submit(|bytes: Vec<u8>| bytes, long.clone()).result().unwrap() == long);
    assert!(pool.submit(|()| -> () { panic!("boo") }, ()).result().unwrap_err().is_panicked());
    let exit = exit_of(pool.submit(|()| -> () { std::process::abort() }, ()).result());
    assert_eq!(exit.signal_name(), Some("SIGABRT"));
    let exit = exit_of(pool.submit(|()| -> () { std::process::exit(3) }, ()).result());
    assert_eq!(exit.code(), Some(3));
    let sleep = |()| std::thread::sleep(Duration::from_secs(3600));
    let late = pool.task(sleep, ()).timeout(Duration::from_millis(20)).submit();
    assert!(late.result().unwrap_err().is_timed_out());
    let mut plug = Plug::new(&pool);
    assert!(plug.take().cancel());
    poll(|| !is_running(plug.pid));
    let plug = Plug::new(&pool);
    signal(plug.pid, Signal::KILL);
    poll(|| pool.submit(|n: u32| n, 1).result().unwrap() == 1 && !pool.worker_pids().contains(&plug.pid));
    let callback = Gate::new();
    let opens = callback.clone();
    pool.submit(|n: u32| n, 1).add_done_callback(move |_| opens.open());
    callback.pass();
    let workers = pool.worker_pids();
    pool.shutdown(Shutdown::Wait).unwrap();
    // Not even as zombies.
    assert!(!children().iter().any(|child| workers.contains(child)));
}

fn everything_works_if_it_may_choose() {
    if may_choose() {
        everything_works(ProcessPoolExecutor::builder().transport(Transport::Auto));
    }
}

#[test]
fn memfd_create() {
    with_each_error("memfd_create", |error| {
        if refused(&[Refusal::of(libc::SYS_memfd_create, error)]) {
            everything_works_if_it_may_choose();
            assert_eq!(SharedBytes::copy_from(b"x").unwrap_err().raw_os_error(), Some(error));
            // Who insists is told.
            let pool = ProcessPoolExecutor::builder().transport(Transport::SharedMemory).build().unwrap();
            assert!(pool.submit(|()| (), ()).result().unwrap_err().is_spawn());
        }
    });
}

#[test]
fn seals() {
    with_each_error("seals", |error| {
        let add = Some((1, u32::MAX, libc::F_ADD_SEALS as u32));
        if refused(&[Refusal { call: libc::SYS_fcntl, only: add, error }]) {
            everything_works_if_it_may_choose();
        }
    });
}

// No room in memory, while there are workers: those that come after them are refused, and nothing is left of the attempt.
#[test]
fn memory_that_cannot_be_reserved() {
    alone("refused::memory_that_cannot_be_reserved", || {
        let before = pool(1);
        let plug = Plug::new(&before);
        if !shares_memory() || !may_choose() || !refused(&[Refusal::of(libc::SYS_fallocate, libc::ENOSPC)]) {
            return;
        }
        let pid = plug.pid;
        plug.release();
        assert_eq!(before.submit(|n: u32| n, 3).result().unwrap(), 3);
        signal(pid, Signal::KILL);
        poll(|| before.worker_pids().is_empty());
        let open = open_descriptors();
        for _ in 0..3 {
            assert!(before.submit(|()| (), ()).result().unwrap_err().is_spawn());
            assert_eq!(open_descriptors(), open);
        }
        assert_eq!(SharedBytes::copy_from(b"x").unwrap_err().raw_os_error(), Some(libc::ENOSPC));
        everything_works(ProcessPoolExecutor::builder());
    });
}

// Only the two operations of a word that is shared with another process: nothing works without the others.
#[test]
fn shared_futexes() {
    with_each_error("shared_futexes", |error| {
        let shared = [libc::FUTEX_WAIT, libc::FUTEX_WAKE].map(|operation| Some((1, u32::MAX, operation as u32)));
        if refused(&shared.map(|only| Refusal { call: libc::SYS_futex, only, error })) {
            everything_works_if_it_may_choose();
        }
    });
}

#[test]
fn pidfd_open() {
    with_each_error("pidfd_open", |error| {
        if refused(&[Refusal::of(libc::SYS_pidfd_open, error)]) {
            everything_works(ProcessPoolExecutor::builder());
        }
    });
}

#[test]
fn pidfd_send_signal() {
    with_each_error("pidfd_send_signal", |error| {
        if refused(&[Refusal::of(libc::SYS_pidfd_send_signal, error)]) {
            everything_works(ProcessPoolExecutor::builder());
        }
    });
}

#[test]
fn close_range() {
    with_each_error("close_range", |error| {
        if refused(&[Refusal::of(libc::SYS_close_range, error)]) {
            everything_works(ProcessPoolExecutor::builder());
            // What was open by accident stays here all the same.
            let clean = pool(1).submit(|()| open_descriptors(), ()).result().unwrap();
            let file = fs::File::open("/dev/null").unwrap();
            let _open: Vec<_> = (0..50).map(|_| rustix::io::dup(file.as_fd()).unwrap()).collect();
            let seen = pool(1).submit(|()| open_descriptors(), ()).result().unwrap();
            assert_eq!(seen.len(), clean.len(), "{seen:?}");
        }
    });
}

/// The signal that the kernel sends at the death of a parent.
fn at_death(error: c_int) -> Refusal {
    Refusal { call: libc::SYS_prctl, only: Some((0, u32::MAX, libc::PR_SET_PDEATHSIG as u32)), error }
}

#[test]
fn the_signal_at_the_death_of_the_parent() {
    orphans_end("the_signal_at_the_death_of_the_parent", |error| vec![at_death(error)]);
}

// Nor a descriptor that stands for the parent: the control socket is left.
#[test]
fn the_signal_and_the_descriptor_of_the_parent() {
    orphans_end("the_signal_and_the_descriptor_of_the_parent", |error| {
        vec![at_death(error), Refusal::of(libc::SYS_pidfd_open, error)]
    });
}

// Nor a table of descriptors for the thread that watches the parent.
#[test]
fn the_signal_and_a_table_of_descriptors() {
    orphans_end("the_signal_and_a_table_of_descriptors", |error| {
        vec![at_death(error), Refusal::of(libc::SYS_close_range, error)]
    });
}

/// Where these are refused, a worker that computes ends with its parent all the same.
fn orphans_end(test: &str, refusals: impl FnOnce(c_int) -> Vec<Refusal> + Send + 'static) {
    with_each_error(test, |error| {
        if refused(&refusals(error)) {
            everything_works(ProcessPoolExecutor::builder());
            // A parent of its own, which dies while its worker computes.
            let nested = |()| {
                let inner = pool(1);
                let worker = inner.submit(|()| std::process::id(), ()).result().unwrap();
                inner
                    .submit(
                        |()| -> () {
                            loop {
                                std::hint::spin_loop();
                            }
                        },
                        (),
                    )
                    .detach();
                std::mem::forget(inner);
                worker
            };
            let pool = pool(1);
            let orphan = pool.submit(nested, ()).result().unwrap();
            assert!(is_running(orphan));
            pool.kill_workers();
            poll(|| !is_running(orphan));
        }
    });
}

// glibc tries the older call where it is told that there is no newer one, and only then.
#[test]
fn clone3() {
    with_each_error("clone3", |error| {
        // The threads of this test are there already.
        if refused(&[Refusal::of(libc::SYS_clone3, error)]) {
            match std::thread::Builder::new().spawn(|| ()) {
                Ok(thread) => {
                    thread.join().unwrap();
                    everything_works(ProcessPoolExecutor::builder());
                }
                Err(_) => {
                    let future = pool(1).submit(|()| (), ());
                    assert!(future.result().unwrap_err().is_spawn());
                }
            }
        }
    });
}

#[test]
fn epoll() {
    with_each_error("epoll", |error| {
        if refused(&[Refusal::of(libc::SYS_epoll_create1, error)]) {
            let built = ProcessPoolExecutor::new(1);
            assert!(matches!(built, Err(BuildError::System { code }) if code == error), "{built:?}");
        }
    });
}

// A time that only newer kernels can sleep for is slept in parts, not spent awake.
#[test]
fn epoll_pwait2() {
    with_each_error("epoll_pwait2", |error| {
        if refused(&[Refusal::of(libc::SYS_epoll_pwait2, error)]) {
            everything_works(ProcessPoolExecutor::builder());
            let pool = ProcessPoolExecutor::builder().max_workers(1).task_timeout(Duration::MAX).build().unwrap();
            let plug = Plug::new(&pool);
            let used = || Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap();
            let (start, before) = (Instant::now(), used());
            std::thread::sleep(Duration::from_millis(300));
            let (real, used) = (start.elapsed(), used().saturating_sub(before));
            assert!(used < real / 2, "asleep most of the time: {used:?} of {real:?}");
            plug.release();
        }
    });
}

/// Processes can be started, but no threads in them: new threads share the memory of the old ones, and are no processes.
fn no_threads() -> [Refusal; 2] {
    let threads = Some((0, libc::CLONE_THREAD as u32, libc::CLONE_THREAD as u32));
    [Refusal::of(libc::SYS_clone3, libc::ENOSYS), Refusal { call: libc::SYS_clone, only: threads, error: libc::EAGAIN }]
}

// A limit of processes counts threads too. A worker that gets none is not tried again at once, nor for ever.
#[test]
fn threads_in_the_workers() {
    alone("refused::threads_in_the_workers", || {
        let folder = Folder::new();
        let ledger = folder.ledger("ledger");
        let script = format!("echo x >> {}; exec {}", folder.path().join("ledger").display(), this_program().display());
        let pool =
            ProcessPoolExecutor::builder().max_workers(2).stdio(Stdio::Null).worker_command(["/bin/sh", "-c", &script]);
        let pool = pool.build().unwrap();
        let plug = Plug::new(&pool);
        if !refused(&no_threads()) {
            return;
        }
        // The one that is there does what there is to do.
        let futures: Vec<_> = (0..20u32).map(|n| pool.submit(|n: u32| n, n)).collect();
        poll(|| ledger.lines().len() >= 4);
        assert!(futures.iter().all(|future| !future.is_done()));
        plug.release();
        futures.into_iter().zip(0..).for_each(|(future, n)| assert_eq!(future.result().unwrap(), n));
        // And when there is none, the tasks fail after three attempts, and the pool is not broken.
        signal(pool.worker_pids()[0], Signal::KILL);
        poll(|| pool.worker_pids().is_empty());
        for _ in 0..3 {
            let before = ledger.lines().len();
            let error = pool.submit(|()| (), ()).result().unwrap_err();
            assert!(error.is_spawn(), "{error:?}");
            assert!(ledger.lines().len() <= before + 4, "one attempt may have been under way already");
        }
    });
}

fn this_program() -> std::path::PathBuf {
    std::env::current_exe().unwrap()
}
