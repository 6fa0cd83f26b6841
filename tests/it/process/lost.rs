//! What a program can do to its own pool from outside: it closes file descriptors that it has not opened, or becomes, by a wish of
//! a worker's, that worker's tracer. The pool says so, and ends.

use std::os::fd::RawFd;
use std::sync::mpsc;
use std::thread;

use concurrent_futures::{ProcessPoolExecutor, Shutdown, TaskError, block_on};

use super::support::*;

/// Closes what a daemon closes that wants to have nothing of its parent's.
#[allow(unsafe_code)]
fn close_all() {
    for fd in open_descriptors().into_iter().filter(|fd| *fd > 2) {
        // SAFETY: none of them is used by anything that would not find out; this is what the test is about.
        unsafe { libc::close(fd) };
    }
}

#[track_caller]
fn is_broken<T: std::fmt::Debug>(result: Result<T, TaskError>) {
    let error = result.unwrap_err();
    assert!(error.is_broken() && error.to_string().contains("descriptors"), "{error:?}");
}

/// The pool ends, and its workers with it.
fn ends(pool: ProcessPoolExecutor, workers: &[u32]) {
    is_broken(pool.submit(|n: u32| n, 7).result());
    pool.shutdown(Shutdown::Wait).unwrap();
    drop(pool);
    poll(|| !workers.iter().any(|pid| is_running(*pid)));
}

/// Nothing that is opened later is closed by the pool, which may have had that number.
#[allow(unsafe_code)]
fn later() -> Vec<RawFd> {
    use std::os::fd::IntoRawFd;
    (0..40).map(|_| std::fs::File::open("/dev/null").unwrap().into_raw_fd()).collect()
}

fn are_open(fds: &[RawFd]) {
    let open = open_descriptors();
    assert!(fds.iter().all(|fd| open.contains(fd)));
}

#[test]
fn descriptors_closed_before_the_first_task() {
    alone_with_losses("lost::descriptors_closed_before_the_first_task", || {
        let pool = pool(1);
        close_all();
        is_broken(pool.submit(|n: u32| n, 7).result());
        let files = later();
        ends(pool, &[]);
        are_open(&files);
    });
}

#[test]
fn descriptors_closed_while_workers_are_idle() {
    alone_with_losses("lost::descriptors_closed_while_workers_are_idle", || {
        let pool = pool(2);
        [Plug::new(&pool), Plug::new(&pool)].into_iter().for_each(Plug::release);
        let workers = pool.worker_pids();
        close_all();
        // What is awaited is not taken in by the thread that waits.
        let outcome = block_on(pool.submit(|n: u32| n, 7));
        assert!(matches!(outcome, Ok(7) | Err(TaskError::Broken(_))), "{outcome:?}");
        let files = later();
        // A task that never ends by itself.
        is_broken(pool.submit(|_: ()| thread::park(), ()).result());
        ends(pool, &workers);
        are_open(&files);
    });
}

#[test]
fn descriptors_closed_while_a_task_runs() {
    alone_with_losses("lost::descriptors_closed_while_a_task_runs", || {
        let pool = pool(1);
        let mut plug = Plug::new(&pool);
        let queued = pool.submit(|n: u32| n, 7);
        let (tx, rx) = mpsc::channel();
        queued.add_done_callback(move |outcome| tx.send(outcome.unwrap_err().is_broken()).unwrap());
        let workers = pool.worker_pids();
        close_all();
        is_broken(plug.take().result());
        assert!(rx.recv().unwrap());
        is_broken(queued.result());
        ends(pool, &workers);
    });
}

#[test]
fn descriptors_closed_and_the_pool_dropped() {
    alone_with_losses("lost::descriptors_closed_and_the_pool_dropped", || {
        let unused = pool(1);
        let used = pool(1);
        used.submit(|_: ()| (), ()).result().unwrap();
        let workers = used.worker_pids();
        close_all();
        drop((unused, used));
        poll(|| !workers.iter().any(|pid| is_running(*pid)));
    });
}

/// Makes the parent of this process, which is the host of the pool, the tracer of the calling thread.
#[allow(unsafe_code)]
fn be_traced() {
    // SAFETY: it takes no arguments.
    assert_eq!(unsafe { libc::ptrace(libc::PTRACE_TRACEME) }, 0);
}

#[test]
fn a_traced_worker_ends() {
    alone("lost::a_traced_worker_ends", || {
        for threads in [1, 2] {
            let pool = ProcessPoolExecutor::builder().max_workers(1).threads_per_worker(threads).build().unwrap();
            pool.submit(|_: ()| be_traced(), ()).result().unwrap();
            let workers = pool.worker_pids();
            assert_eq!(pool.submit(|n: u32| n, 7).result().unwrap(), 7);
            drop(pool);
            assert!(!workers.iter().any(|pid| is_running(*pid)));
        }
    });
}

#[test]
fn a_traced_worker_that_is_stopped_is_ended() {
    alone("lost::a_traced_worker_that_is_stopped_is_ended", || {
        for threads in [1, 2] {
            let pool = ProcessPoolExecutor::builder().max_workers(1).threads_per_worker(threads).build().unwrap();
            #[allow(unsafe_code)]
            let stop = |_: ()| {
                be_traced();
                // SAFETY: it stops this thread.
                unsafe { libc::raise(libc::SIGUSR1) };
            };
            let exit = exit_of(pool.submit(stop, ()).result());
            assert!(exit.to_string().contains("traced"), "{exit}");
            assert_eq!(pool.submit(|n: u32| n, 7).result().unwrap(), 7, "the pool goes on");
            drop(pool);
        }
    });
}
