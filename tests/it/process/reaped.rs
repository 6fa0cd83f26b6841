//! Something else in the program reaps the workers: what is told of their ends is less, and true.

use concurrent_futures::{ProcessPoolExecutor, StartError, Stdio, TaskError};

use super::support::*;

fn pid(_: ()) -> u32 {
    std::process::id()
}

fn exit(code: i32) {
    std::process::exit(code);
}

#[allow(unsafe_code)]
fn ignore_sigchld() {
    // SAFETY: to ignore a signal is always allowed.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

fn builder() -> concurrent_futures::ProcessPoolBuilder {
    ProcessPoolExecutor::builder().max_workers(1).stdio(Stdio::Null)
}

// The kernel reaps the children of a program that ignores SIGCHLD.
#[test]
fn the_status_of_a_worker_that_the_kernel_reaped_is_unknown() {
    alone("reaped::the_status_of_a_worker_that_the_kernel_reaped_is_unknown", || {
        ignore_sigchld();
        let pool = builder().build().unwrap();
        for code in [0, 3] {
            let worker = pool.submit(pid, ()).result().unwrap();
            let error = pool.submit(exit, code).result().unwrap_err();
            let text = error.to_string();
            let exit = exit_of(Err::<(), _>(error));
            assert_eq!((exit.pid(), exit.code(), exit.signal(), exit.signal_name()), (worker, None, None, None));
            assert!(text.contains("unknown") && text.contains("reaped") && !text.contains("code"), "{text}");
            assert!(!exit.core_dumped() && !exit.is_probably_out_of_memory());
        }
        // What the worker itself has said is known all the same.
        if shares_memory() {
            let exit = exit_of(pool.submit(|_: ()| -> () { std::process::abort() }, ()).result());
            assert!(exit.crash_note().unwrap().starts_with("SIGABRT"), "{exit}");
            assert_eq!((exit.code(), exit.signal()), (None, None));
        }
    });
}

#[test]
fn a_pool_whose_workers_others_reap_works_and_ends() {
    alone("reaped::a_pool_whose_workers_others_reap_works_and_ends", || {
        ignore_sigchld();
        let pool = builder().build().unwrap();
        for n in 0..10 {
            assert_eq!(pool.submit(|n: u32| n, n).result().unwrap(), n);
        }
        let mut plug = Plug::new(&pool);
        let future = plug.take();
        assert!(future.cancel());
        assert!(future.result().unwrap_err().is_cancelled());
        pool.submit(pid, ()).result().unwrap();
        drop(pool);
        assert_eq!(children(), []);
        let pool = builder().worker_command(["/bin/false"]).restart_limit(2).build().unwrap();
        let TaskError::Broken(cause) = pool.submit(pid, ()).result().unwrap_err() else { panic!() };
        let Some(StartError::Died(exit)) = cause.get_ref().downcast_ref() else { panic!("{cause}") };
        assert_eq!((exit.code(), exit.signal()), (None, None));
    });
}

// Whoever is first knows; nobody is told what nobody knows.
#[test]
fn a_thread_that_waits_for_any_child_may_take_the_status() {
    #[allow(unsafe_code)]
    fn reap_all(over: &std::sync::atomic::AtomicBool) {
        while !over.load(std::sync::atomic::Ordering::SeqCst) {
            // SAFETY: waits for any child.
            if unsafe { libc::waitpid(-1, std::ptr::null_mut(), 0) } < 0 {
                std::thread::yield_now();
            }
        }
    }
    alone("reaped::a_thread_that_waits_for_any_child_may_take_the_status", || {
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| reap_all(&over));
            let pool = builder().build().unwrap();
            for code in 1..=20 {
                let exit = exit_of(pool.submit(exit, code).result());
                assert!(exit.code().is_none_or(|told| told == code), "{exit}");
                assert_eq!(exit.signal(), None);
            }
            drop(pool);
            over.store(true, std::sync::atomic::Ordering::SeqCst);
        });
    });
}
