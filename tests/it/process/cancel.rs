//! Cancelling: what has not begun never does, what runs is ended with its worker, and everybody is told at once.

use std::sync::Arc;
use std::sync::Barrier;
use std::thread;

use concurrent_futures::{
    ProcessPoolExecutor, QueuePolicy, ReturnWhen, SharedBytes, Shutdown, TaskFuture, as_completed, wait,
};

use super::support::*;
use crate::support::{guarded, rounds};

fn pid(_: ()) -> u32 {
    std::process::id()
}

#[test]
fn what_has_not_begun_never_does() {
    guarded(|| {
        let folder = Folder::new();
        let (pool, ledger) = (pool(1), folder.ledger("ledger"));
        let plug = Plug::new(&pool);
        let worker = plug.pid;
        let mark = |(ledger, n): (Ledger, u32)| ledger.write(n);
        let futures: Vec<_> = (0..100).map(|n| pool.submit(mark, (ledger.clone(), n))).collect();
        // One of them has perhaps been handed to the worker in advance.
        for future in futures.iter().step_by(2) {
            assert!(future.cancel());
            assert!(future.is_cancelled() && future.is_done() && !future.is_running());
        }
        plug.release();
        for (n, future) in futures.into_iter().enumerate() {
            match n % 2 {
                0 => assert!(future.result().unwrap_err().is_cancelled()),
                _ => future.result().unwrap(),
            }
        }
        let odd: Vec<String> = (1..100).step_by(2).map(|n| n.to_string()).collect();
        assert_eq!(ledger.lines(), odd);
        assert_eq!(pool.worker_pids(), [worker], "nothing that ran was in the way");
    });
}

#[test]
fn what_runs_is_ended_with_its_worker() {
    guarded(|| {
        let pool = pool(1);
        let mut plug = Plug::new(&pool);
        let next = pool.submit(pid, ());
        let future = plug.take();
        assert!(future.cancel());
        assert!(future.is_cancelled());
        assert!(future.result().unwrap_err().is_cancelled());
        assert_ne!(next.result().unwrap(), plug.pid);
        poll(|| !is_running(plug.pid));
    });
}

// Not when their turn comes: what is in front of them may take for ever.
#[test]
fn what_they_hold_goes_at_once() {
    alone("cancel::what_they_hold_goes_at_once", || {
        let pool = ProcessPoolExecutor::builder().max_workers(1).queue_capacity(50, QueuePolicy::Fail).build().unwrap();
        let plug = Plug::new(&pool);
        let before = open_descriptors().len();
        // Each has a descriptor.
        let shared = || SharedBytes::copy_from(b"shared").unwrap();
        let futures: Vec<_> = (0..50).map(|_| pool.submit(|bytes: SharedBytes| bytes.len(), shared())).collect();
        assert_eq!(open_descriptors().len(), before + 50);
        assert!(pool.submit(pid, ()).result().unwrap_err().is_queue_full());
        assert!(futures[17].cancel());
        assert_eq!(open_descriptors().len(), before + 49);
        let instead = pool.submit(pid, ());
        assert!(futures.iter().all(TaskFuture::cancel));
        assert_eq!(open_descriptors().len(), before);
        plug.release();
        instead.result().unwrap();
    });
}

#[test]
fn nothing_is_left_of_thousands() {
    guarded(|| {
        let pool = pool(1);
        let plug = Plug::new(&pool);
        let kept: Vec<_> = (0..100u32).map(|n| pool.submit(|n: u32| n, n)).collect();
        for _ in 0..10_000 {
            assert!(pool.submit(pid, ()).cancel());
        }
        assert!(pool.stats().queued <= 300, "{pool:?}");
        plug.release();
        for (n, future) in kept.into_iter().enumerate() {
            assert_eq!(future.result().unwrap() as usize, n);
        }
    });
}

// SIGTERM may be ignored; SIGKILL may not.
#[test]
fn what_does_not_want_to_end_ends_all_the_same() {
    guarded(|| {
        let folder = Folder::new();
        let pool = pool(1);
        let begun = folder.ledger("begun");
        let stubborn = |begun: Ledger| -> () {
            block_sigterm();
            begun.write(std::process::id());
            loop {
                std::hint::spin_loop();
            }
        };
        let future = pool.submit(stubborn, begun.clone());
        poll(|| !begun.lines().is_empty());
        let worker: u32 = begun.lines()[0].parse().unwrap();
        assert!(future.cancel());
        assert!(future.result().unwrap_err().is_cancelled());
        poll(|| !is_running(worker));
        assert_ne!(pool.submit(pid, ()).result().unwrap(), worker);
    });
}

#[test]
fn what_is_done_cannot_be_cancelled() {
    guarded(|| {
        let pool = pool(1);
        let future = pool.submit(pid, ());
        poll(|| future.is_done());
        assert!(!future.cancel() && !future.is_cancelled());
        let worker = future.result().unwrap();
        assert_eq!(pool.submit(pid, ()).result().unwrap(), worker);
    });
}

#[test]
fn dropped_with_its_guard() {
    guarded(|| {
        let folder = Folder::new();
        let (pool, ledger) = (pool(1), folder.ledger("ledger"));
        let mut plug = Plug::new(&pool);
        drop(pool.submit(|ledger: Ledger| ledger.write("never"), ledger.clone()).cancel_on_drop());
        drop(plug.take().cancel_on_drop());
        poll(|| !is_running(plug.pid));
        pool.shutdown(Shutdown::Wait).unwrap();
        assert!(ledger.lines().is_empty());
    });
}

// A handle that is dropped is nobody's wish to stop.
#[test]
fn dropped_without_a_guard() {
    guarded(|| {
        let folder = Folder::new();
        let (pool, ledger) = (pool(1), folder.ledger("ledger"));
        for n in 0..20 {
            drop(pool.submit(|(ledger, n): (Ledger, u32)| ledger.write(n), (ledger.clone(), n)));
        }
        pool.shutdown(Shutdown::Wait).unwrap();
        assert_eq!(ledger.lines().len(), 20);
    });
}

// Python tells those who wait only when a worker stumbles over the task.
#[test]
fn who_waits_is_woken_at_once() {
    guarded(|| {
        let pool = pool(1);
        let _plug = Plug::new(&pool);
        for _ in rounds(50) {
            let future = pool.submit(pid, ()).shared();
            let start = Arc::new(Barrier::new(4));
            let (a, b, c) = (future.clone(), future.clone(), future.clone());
            let [x, y, z] = [(); 3].map(|()| Arc::clone(&start));
            let waiters = [
                thread::spawn(move || {
                    x.wait();
                    a.result().unwrap_err().is_cancelled()
                }),
                thread::spawn(move || {
                    y.wait();
                    wait([b], None, ReturnWhen::AllCompleted).done[0].is_cancelled()
                }),
                thread::spawn(move || {
                    z.wait();
                    as_completed([c]).all(|future| future.is_cancelled())
                }),
            ];
            start.wait();
            assert!(future.cancel());
            waiters.into_iter().for_each(|waiter| assert!(waiter.join().unwrap()));
        }
    });
}

// Whoever sleeps for a running task is woken by its cancellation, too.
#[test]
fn who_waits_for_a_running_task_is_woken() {
    guarded(|| {
        let pool = pool(2);
        for _ in rounds(10) {
            let mut plug = Plug::new(&pool);
            let future = plug.take().shared();
            let waits = future.clone();
            let waiter = thread::spawn(move || waits.result());
            assert!(future.cancel());
            assert!(waiter.join().unwrap().unwrap_err().is_cancelled());
        }
    });
}

// Whatever the moment: cancelled, or done with its value; and the neighbours never notice.
#[test]
fn cancel_races_the_task() {
    guarded(|| {
        let pool = pool(2);
        for round in rounds(500) {
            let (before, future, after) = (pool.submit(pid, ()), pool.submit(pid, ()), pool.submit(pid, ()));
            for _ in 0..(round % 50) * 100 {
                std::hint::spin_loop();
            }
            let won = future.cancel();
            assert_eq!(future.result().is_err_and(|error| error.is_cancelled()), won);
            before.result().unwrap();
            after.result().unwrap();
        }
    });
}

#[test]
fn hang_gh94440() {
    guarded(|| {
        for _ in rounds(30) {
            let pool = pool(1);
            pool.submit(pid, ()).result().unwrap();
            let future = pool.submit(pid, ());
            future.cancel();
            pool.shutdown(Shutdown::Wait).unwrap();
            assert!(future.is_done());
        }
    });
}

#[test]
fn cancelled_in_a_callback() {
    guarded(|| {
        let pool = pool(1);
        let plug = Plug::new(&pool);
        let first = pool.submit(pid, ());
        let second = pool.submit(pid, ()).shared();
        let victim = second.clone();
        first.add_done_callback(move |_| _ = victim.cancel());
        plug.release();
        first.result().unwrap();
        // Cancelled in time, or not: resolved in any case.
        let _ = second.result();
        pool.submit(pid, ()).result().unwrap();
    });
}

#[test]
fn thousands_at_once() {
    guarded(|| {
        let pool = pool(2);
        let plugs = [Plug::new(&pool), Plug::new(&pool)];
        let futures: Vec<_> = (0..5000).map(|_| pool.submit(pid, ())).collect();
        assert!(futures.iter().all(|future| future.cancel()));
        assert_eq!(wait(futures, None, ReturnWhen::AllCompleted).done.len(), 5000);
        plugs.into_iter().for_each(Plug::release);
        pool.shutdown(Shutdown::Wait).unwrap();
        assert_eq!(pool.stats().completed, 2, "only the plugs");
    });
}
