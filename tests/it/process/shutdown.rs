//! The end of a pool, in every way there is, at every moment; and the end of the program.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Output;
use std::sync::{Arc, Barrier, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use concurrent_futures::{ProcessPoolExecutor, Shutdown, ShutdownError, Stdio, TaskError, TaskFuture};
use rustix::process::Signal;

use super::support::*;
use crate::support::{every_shutdown, guarded, in_child, is_child, printed, rounds};

fn pid(_: ()) -> u32 {
    std::process::id()
}

fn mark((ledger, n): (Ledger, u32)) {
    ledger.write(n);
}

#[test]
fn run_after_shutdown() {
    guarded(|| {
        let pool = pool(1);
        pool.shutdown(Shutdown::Wait).unwrap();
        assert!(pool.submit(pid, ()).result().unwrap_err().is_shut_down());
        let error = pool.try_submit(|text: String| text, "mine".to_owned()).unwrap_err();
        assert!(error.is_shut_down());
        assert_eq!(error.into_inner(), "mine");
    });
}

#[test]
fn hang_issue12364() {
    guarded(|| {
        let folder = Folder::new();
        let (pool, ledger) = (pool(2), folder.ledger("ledger"));
        let futures: Vec<_> = (0..50).map(|n| pool.submit(mark, (ledger.clone(), n))).collect();
        pool.shutdown(Shutdown::Wait).unwrap();
        assert_eq!(ledger.lines().len(), 50);
        assert_eq!(pool.worker_pids(), []);
        assert!(futures.into_iter().all(|future| future.is_done() && future.result().is_ok()));
    });
}

#[test]
fn processes_terminate() {
    guarded(|| {
        let pool = pool(3);
        let plugs: Vec<_> = (0..3).map(|_| Plug::new(&pool)).collect();
        let pids = pool.worker_pids();
        assert_eq!(pids.len(), 3);
        plugs.into_iter().for_each(Plug::release);
        pool.shutdown(Shutdown::Wait).unwrap();
        assert!(pids.into_iter().all(|pid| process_state(pid).is_none()), "ended, and collected");
    });
}

#[test]
fn context_manager_shutdown() {
    guarded(|| {
        let pids;
        {
            let pool = pool(2);
            assert_eq!(pool.map(i64::wrapping_abs, [-3, 2]).map(Result::unwrap).collect::<Vec<_>>(), [3, 2]);
            pids = pool.worker_pids();
        }
        assert!(!pids.is_empty() && pids.into_iter().all(|pid| process_state(pid).is_none()));
    });
}

#[test]
fn del_shutdown() {
    guarded(|| {
        let folder = Folder::new();
        let (pool, ledger) = (pool(2), folder.ledger("ledger"));
        let futures: Vec<_> = (0..100).map(|n| pool.submit(mark, (ledger.clone(), n))).collect();
        drop(pool);
        assert_eq!(ledger.lines().len(), 100, "everything that was submitted has run");
        assert!(futures.into_iter().all(|future| future.result().is_ok()));
    });
}

#[test]
fn shutdown_no_wait() {
    guarded(|| {
        let folder = Folder::new();
        let (pool, ledger) = (pool(1), folder.ledger("ledger"));
        let plug = Plug::new(&pool);
        let futures: Vec<_> = (0..10).map(|n| pool.submit(mark, (ledger.clone(), n))).collect();
        pool.shutdown(Shutdown::NoWait).unwrap();
        assert_eq!(ledger.lines().len(), 0);
        let worker = plug.pid;
        plug.release();
        assert!(futures.into_iter().all(|future| future.result().is_ok()));
        poll(|| !is_running(worker));
    });
}

#[test]
fn cancel_futures_and_no_wait() {
    guarded(|| {
        let pool = pool(1);
        let plug = Plug::new(&pool);
        let (worker, queued) = (plug.pid, pool.submit(pid, ()));
        pool.shutdown(Shutdown::CancelPendingNoWait).unwrap();
        assert!(queued.result().unwrap_err().is_cancelled());
        assert!(pool.submit(pid, ()).result().unwrap_err().is_shut_down());
        assert!(pool.is_shut_down() && !pool.is_broken());
        plug.release();
        poll(|| !is_running(worker));
    });
}

// It would hang: the plug is released after it.
#[test]
fn dropped_after_a_shutdown_that_did_not_wait_it_does_not_wait() {
    guarded(|| {
        for how in [Shutdown::NoWait, Shutdown::CancelPendingNoWait] {
            let pool = pool(1);
            let plug = Plug::new(&pool);
            let (worker, queued) = (plug.pid, pool.submit(pid, ()));
            pool.shutdown(how).unwrap();
            drop(pool);
            plug.release();
            assert_eq!(queued.result().is_ok(), how == Shutdown::NoWait);
            poll(|| !is_running(worker));
        }
    });
}

#[test]
fn cancel_futures() {
    guarded(|| {
        let folder = Folder::new();
        let (pool, ledger) = (pool(1), folder.ledger("ledger"));
        let mut plug = Plug::new(&pool);
        let futures: Vec<_> = (0..50).map(|n| pool.submit(mark, (ledger.clone(), n))).collect();
        let running = plug.take();
        thread::scope(|scope| {
            let shutdown = scope.spawn(|| pool.shutdown(Shutdown::CancelPending));
            // They are told while the worker is still busy.
            for future in futures {
                assert!(future.result().unwrap_err().is_cancelled());
            }
            drop(plug);
            shutdown.join().unwrap().unwrap();
        });
        running.result().unwrap();
        assert_eq!(ledger.lines(), [""; 0]);
    });
}

#[test]
fn within_ends_what_does_not_want_to_end() {
    guarded(|| {
        let folder = Folder::new();
        let (pool, ledger) = (pool(1), folder.ledger("ledger"));
        let stubborn = |ledger: Ledger| -> () {
            block_sigterm();
            ledger.write(std::process::id());
            loop {
                std::hint::spin_loop();
            }
        };
        let future = pool.submit(stubborn, ledger.clone());
        let queued = pool.submit(pid, ());
        poll(|| !ledger.lines().is_empty());
        let (start, limit) = (Instant::now(), Duration::from_millis(50));
        let error = pool.shutdown(Shutdown::Within(limit)).unwrap_err();
        let ShutdownError::TimedOut { running, waited } = error else { panic!("{error:?}") };
        assert!(running == 1 && waited >= limit && start.elapsed() >= waited);
        assert_eq!(exit_of(future.result()).signal_name(), Some("SIGKILL"));
        assert!(queued.result().unwrap_err().is_cancelled());
        assert_eq!(pool.worker_pids(), []);
    });
}

#[test]
fn within_is_in_time_if_the_tasks_are() {
    guarded(|| {
        let pool = pool(2);
        let futures: Vec<_> = (0..20).map(|_| pool.submit(pid, ())).collect();
        pool.shutdown(Shutdown::Within(Duration::from_secs(3600))).unwrap();
        assert!(futures.into_iter().all(|future| future.result().is_ok()));
    });
}

#[test]
fn a_stopped_worker_does_not_stop_the_end() {
    guarded(|| {
        let pool = pool(1);
        let plug = Plug::new(&pool);
        signal(plug.pid, Signal::STOP);
        poll(|| process_state(plug.pid) == Some('T'));
        assert!(pool.shutdown(Shutdown::Within(Duration::from_millis(20))).is_err());
        assert!(!is_running(plug.pid));
    });
}

// What was taken back is in the way until the worker has passed it. It is told to end all the same, and not killed.
#[test]
fn a_worker_whose_ring_is_full_ends_by_itself() {
    #[allow(unsafe_code)]
    fn give_at_the_end(sign: Sign) {
        static SIGN: OnceLock<Sign> = OnceLock::new();
        extern "C" fn give() {
            SIGN.get().unwrap().give();
        }
        SIGN.set(sign).unwrap();
        // SAFETY: the function only makes a file.
        assert_eq!(unsafe { libc::atexit(give) }, 0);
    }
    if !shares_memory() {
        return;
    }
    guarded(|| {
        let (pool, folder) = (pool(1), Folder::new());
        let end = folder.sign("end");
        pool.submit(give_at_the_end, end.clone()).result().unwrap();
        // Quick tasks, so that it is given many at a time.
        (0..200).for_each(|_| assert_eq!(pool.submit(pid, ()).result().unwrap(), pool.worker_pids()[0]));
        let worker = pool.worker_pids()[0];
        signal(worker, Signal::STOP);
        poll(|| process_state(worker) == Some('T'));
        // With their heads of 32 bytes these fill 256 KiB.
        let lengths = [65_536, 65_536, 65_536, 65_376, 0];
        let futures = lengths.map(|length| pool.submit(|bytes: Vec<u8>| bytes.len(), vec![0; length]));
        assert!(futures.iter().all(TaskFuture::cancel));
        pool.shutdown(Shutdown::NoWait).unwrap();
        signal(worker, Signal::CONT);
        pool.shutdown(Shutdown::Wait).unwrap();
        assert!(end.is_given());
    });
}

#[test]
fn many_at_once_and_again() {
    guarded(|| {
        for how in [Shutdown::Wait, Shutdown::CancelPending, Shutdown::Within(Duration::from_secs(60))] {
            let pool = Arc::new(pool(2));
            let futures: Vec<_> = (0..50).map(|_| pool.submit(pid, ())).collect();
            let start = Arc::new(Barrier::new(8));
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    let (pool, start) = (Arc::clone(&pool), Arc::clone(&start));
                    thread::spawn(move || {
                        start.wait();
                        pool.shutdown(how).unwrap();
                        pool.worker_pids()
                    })
                })
                .collect();
            assert!(threads.into_iter().all(|thread| thread.join().unwrap().is_empty()));
            pool.shutdown(Shutdown::Wait).unwrap();
            assert!(futures.into_iter().all(|future| future.is_done()));
        }
    });
}

#[test]
fn of_a_pool_that_never_had_a_task() {
    guarded(|| {
        for how in every_shutdown(Duration::ZERO) {
            let pool = pool(2);
            pool.shutdown(how).unwrap();
            assert!(pool.submit(pid, ()).result().unwrap_err().is_shut_down());
        }
        drop(pool(2));
    });
}

#[test]
fn in_a_callback_it_cannot_wait() {
    guarded(|| {
        let pool = Arc::new(pool(1));
        let (inner, (promise, seen)) = (Arc::clone(&pool), concurrent_futures::promise());
        let promise = Mutex::new(Some(promise));
        let plug = Plug::new(&pool);
        let future = pool.submit(pid, ());
        future.add_done_callback(move |_| {
            let outcome = inner.shutdown(Shutdown::Wait);
            promise.lock().unwrap().take().unwrap().set_result(outcome).unwrap();
        });
        plug.release();
        assert_eq!(seen.result().unwrap(), Err(ShutdownError::WouldDeadlock));
        future.result().unwrap();
        // Closed it is all the same.
        assert!(pool.submit(pid, ()).result().unwrap_err().is_shut_down());
        pool.shutdown(Shutdown::Wait).unwrap();
    });
}

#[test]
fn the_last_handle_of_the_pool_goes_in_a_callback() {
    guarded(|| {
        let pool = pool(1);
        let plug = Plug::new(&pool);
        let (worker, future) = (plug.pid, pool.submit(pid, ()));
        plug.release();
        let pool = Mutex::new(Some(pool));
        future.add_done_callback(move |_| drop(pool.lock().unwrap().take()));
        future.result().unwrap();
        poll(|| !is_running(worker));
    });
}

#[test]
fn terminate_workers() {
    guarded(|| force(ProcessPoolExecutor::terminate_workers, "SIGTERM"));
}

#[test]
fn kill_workers() {
    guarded(|| force(ProcessPoolExecutor::kill_workers, "SIGKILL"));
}

fn force(end: fn(&ProcessPoolExecutor), name: &str) {
    let pool = pool(2);
    let plugs: Vec<_> = (0..2).map(|_| Plug::new(&pool)).collect();
    let queued: Vec<_> = (0..20).map(|_| pool.submit(pid, ())).collect();
    end(&pool);
    for mut plug in plugs {
        let exit = exit_of(plug.take().result());
        assert_eq!((exit.pid(), exit.signal_name()), (plug.pid, Some(name)));
        assert!(exit.to_string().contains("all workers were"), "{exit}");
    }
    queued.into_iter().for_each(|future| assert!(future.result().unwrap_err().is_cancelled()));
    assert!(pool.submit(pid, ()).result().unwrap_err().is_shut_down());
    end(&pool);
    pool.shutdown(Shutdown::Wait).unwrap();
    assert_eq!(pool.worker_pids(), []);
}

#[test]
fn force_shutdown_workers_not_started_yet() {
    guarded(|| {
        for end in [ProcessPoolExecutor::terminate_workers, ProcessPoolExecutor::kill_workers] {
            let pool = pool(2);
            end(&pool);
            assert!(pool.submit(pid, ()).result().unwrap_err().is_shut_down());
            pool.shutdown(Shutdown::Wait).unwrap();
        }
    });
}

#[test]
fn force_shutdown_at_any_moment() {
    guarded(|| {
        for round in rounds(60) {
            let pool = pool(2);
            let futures: Vec<_> = (0..20).map(|_| pool.submit(pid, ())).collect();
            thread::sleep(Duration::from_micros(round as u64 * 100));
            match round % 2 {
                0 => pool.terminate_workers(),
                _ => pool.kill_workers(),
            }
            for future in futures {
                match future.result() {
                    Ok(_) | Err(TaskError::Cancelled | TaskError::WorkerDied(_)) => {}
                    other => panic!("{other:?}"),
                }
            }
            pool.shutdown(Shutdown::Wait).unwrap();
        }
    });
}

#[test]
fn dropped_while_unwinding_it_cancels() {
    guarded(|| {
        let folder = Folder::new();
        let ledger = folder.ledger("ledger");
        let inner = ledger.clone();
        let mut handles = Vec::new();
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let pool = pool(1);
            let plug = Plug::new(&pool);
            handles.extend((0..20).map(|n| pool.submit(mark, (inner.clone(), n)).shared()));
            // The worker is busy until they are cancelled.
            let last = handles[19].clone();
            thread::spawn(move || {
                let _ = last.get();
                plug.release();
            });
            panic!("the block ends in a panic, as this test wants it");
        }));
        assert!(unwound.is_err());
        assert!(handles.into_iter().all(|future| future.result().is_err_and(|error| error.is_cancelled())));
        assert_eq!(ledger.lines(), [""; 0]);
    });
}

#[test]
fn submit_races_the_shutdown() {
    guarded(|| {
        for _ in rounds(40) {
            let folder = Folder::new();
            let (pool, ledger) = (Arc::new(pool(2)), folder.ledger("ledger"));
            pool.submit(pid, ()).result().unwrap();
            let start = Arc::new(Barrier::new(3));
            let submitters: Vec<_> = (0..2)
                .map(|_| {
                    let (pool, ledger, start) = (Arc::clone(&pool), ledger.clone(), Arc::clone(&start));
                    thread::spawn(move || {
                        start.wait();
                        let futures: Vec<_> = (0..100).map(|n| pool.submit(mark, (ledger.clone(), n))).collect();
                        futures.into_iter().filter_map(|future| future.result().err()).collect::<Vec<_>>()
                    })
                })
                .collect();
            start.wait();
            pool.shutdown(Shutdown::Wait).unwrap();
            let errors: Vec<_> = submitters.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
            assert!(errors.iter().all(|error| error.is_shut_down()), "{errors:?}");
            assert_eq!(errors.len() + ledger.lines().len(), 200, "accepted and done, or refused");
        }
    });
}

// The end of the program. Each case is a child process, whose end is looked at; its workers have to be gone after it.

const CODE: i32 = 42;

/// Runs the body in a child process, which it is to end; says how that went, and which workers it had.
fn program(test: &str, body: impl FnOnce(&Ledger)) -> Option<(Output, Vec<u32>)> {
    const LEDGER: &str = "CONCURRENT_FUTURES_TEST_LEDGER";
    if is_child() {
        body(&Ledger::at(std::env::var(LEDGER).unwrap()));
        return None;
    }
    let name = format!("process::shutdown::{test}");
    Some(guarded(move || {
        let folder = Folder::new();
        let ledger = folder.ledger("ledger");
        let path = folder.path().join("ledger");
        let output =
            crate::support::child_command(&name).env(LEDGER, path).env("TMPDIR", folder.path()).output().unwrap();
        let workers: Vec<u32> = ledger.lines().iter().map(|line| line.parse().unwrap()).collect();
        assert!(!workers.is_empty(), "{}", printed(&output));
        poll(|| workers.iter().all(|pid| !is_running(*pid)));
        (output, workers)
    }))
}

fn exits_with_code(test: &str, body: impl FnOnce(&Ledger)) {
    if let Some((output, _)) = program(test, body) {
        assert_eq!(output.status.code(), Some(CODE), "{}", printed(&output));
    }
}

/// A pool whose two workers are busy for ever, and what they are.
fn busy_pool(ledger: &Ledger) -> ProcessPoolExecutor {
    let pool = pool(2);
    let plugs = [Plug::new(&pool), Plug::new(&pool)];
    plugs.iter().for_each(|plug| ledger.write(plug.pid));
    mem::forget(plugs);
    pool
}

#[test]
fn exit_while_tasks_run() {
    exits_with_code("exit_while_tasks_run", |ledger| {
        let pool = busy_pool(ledger);
        let _queued = pool.submit(pid, ());
        std::process::exit(CODE);
    });
}

#[test]
fn exit_while_workers_are_idle() {
    exits_with_code("exit_while_workers_are_idle", |ledger| {
        let pool = pool(1);
        ledger.write(pool.submit(pid, ()).result().unwrap());
        std::process::exit(CODE);
    });
}

#[test]
fn exit_after_a_shutdown_that_does_not_wait() {
    exits_with_code("exit_after_a_shutdown_that_does_not_wait", |ledger| {
        let pool = busy_pool(ledger);
        pool.shutdown(Shutdown::NoWait).unwrap();
        std::process::exit(CODE);
    });
}

#[test]
fn main_returns_after_the_pool_was_forgotten() {
    let end = program("main_returns_after_the_pool_was_forgotten", |ledger| mem::forget(busy_pool(ledger)));
    if let Some((output, _)) = end {
        assert!(output.status.success(), "{}", printed(&output));
    }
}

#[test]
fn main_returns_while_a_static_pool_works() {
    static POOL: OnceLock<ProcessPoolExecutor> = OnceLock::new();
    let end = program("main_returns_while_a_static_pool_works", |ledger| {
        POOL.get_or_init(|| busy_pool(ledger));
    });
    if let Some((output, _)) = end {
        assert!(output.status.success(), "{}", printed(&output));
    }
}

#[test]
fn main_waits_where_it_drops_the_pool() {
    let end = program("main_waits_where_it_drops_the_pool", |ledger| {
        let pool = ProcessPoolExecutor::builder().max_workers(1).stdio(Stdio::Inherit).build().unwrap();
        let apple = |ledger: Ledger| {
            ledger.write(std::process::id());
            println!("\napple");
        };
        drop(pool.submit(apple, ledger.clone()));
    });
    if let Some((output, _)) = end {
        assert!(output.status.success(), "{}", printed(&output));
        assert!(String::from_utf8_lossy(&output.stdout).contains("\napple\n"), "{}", printed(&output));
    }
}

#[test]
fn a_panic_in_main_ends_the_workers() {
    if is_child() {
        let _pool = pool(1);
        _pool.submit(pid, ()).result().unwrap();
        panic!("main panics, as this test wants it");
    }
    let output = guarded(|| in_child("process::shutdown::a_panic_in_main_ends_the_workers"));
    assert_eq!(output.status.code(), Some(101), "{}", printed(&output));
}
