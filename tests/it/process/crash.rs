//! A worker process dies: that costs the tasks that it had begun, says how, and nothing else.

use std::collections::HashSet;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use concurrent_futures::{MapOptions, ProcessPoolExecutor, ReturnWhen, Stdio, TaskError, as_completed, promise, wait};
use rustix::process::Signal;

use super::support::*;
use crate::support::guarded;

fn pid(_: ()) -> u32 {
    std::process::id()
}

/// Brings the signal of this number upon the process that it runs in.
fn die_of(number: i32) {
    let signal = Signal::from_named_raw(number).unwrap();
    rustix::process::kill_process(rustix::process::getpid(), signal).unwrap();
    loop {
        std::thread::park();
    }
}

fn exit(code: i32) {
    std::process::exit(code);
}

// procspawn cannot name the signal that ended a worker.
#[test]
fn every_fatal_signal_is_named() {
    const SIGNALS: [(Signal, &str); 14] = [
        (Signal::HUP, "SIGHUP"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ILL, "SIGILL"),
        (Signal::TRAP, "SIGTRAP"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL"),
        (Signal::USR1, "SIGUSR1"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::ALARM, "SIGALRM"),
        (Signal::TERM, "SIGTERM"),
        (Signal::XCPU, "SIGXCPU"),
        (Signal::SYS, "SIGSYS"),
    ];
    guarded(|| {
        let pool = pool(1);
        // What whoever started this program made it ignore (a shell does so with SIGQUIT for what runs in the background),
        // its workers ignore as well.
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
        let ignored = u64::from_str_radix(ignored, 16).unwrap();
        for (signal, name) in SIGNALS.into_iter().filter(|(signal, _)| ignored >> (signal.as_raw() - 1) & 1 == 0) {
            let worker = pool.submit(pid, ()).result().unwrap();
            let error = pool.task(die_of, signal.as_raw()).name("doomed").submit().result().unwrap_err();
            let text = error.to_string();
            let exit = exit_of(Err::<(), _>(error));
            assert_eq!((exit.pid(), exit.code(), exit.signal()), (worker, None, Some(signal.as_raw())));
            assert_eq!((exit.signal_name(), exit.task_name(), exit.attempts()), (Some(name), Some("doomed"), 1));
            assert!(text.contains(name) && text.contains("doomed") && text.contains(&worker.to_string()), "{text}");
            assert_ne!(pool.submit(pid, ()).result().unwrap(), worker);
        }
    });
}

#[test]
fn every_exit_is_an_error_and_its_code_is_known() {
    guarded(|| {
        let pool = pool(1);
        for code in [0, 1, 3, 70, 71, 72, 99, 101, 255] {
            let exit = exit_of(pool.submit(exit, code).result());
            assert_eq!((exit.code(), exit.signal(), exit.signal_name()), (Some(code), None, None));
            assert!(exit.to_string().contains(&format!("code {code}")), "{exit}");
        }
        pool.submit(pid, ()).result().unwrap();
    });
}

#[test]
fn an_abort_keeps_the_last_panic() {
    if !shares_memory() {
        return;
    }
    struct PanicsOnDrop;
    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            panic!("the second panic");
        }
    }
    guarded(|| {
        let pool = pool(1);
        let twice = |_: ()| -> () {
            let _second = PanicsOnDrop;
            panic!("the first panic");
        };
        let exit = exit_of(pool.submit(twice, ()).result());
        assert_eq!(exit.signal_name(), Some("SIGABRT"));
        assert!(exit.last_panic().is_some_and(|panic| panic.contains("panic")), "{exit:?}");
        assert_eq!(exit_of(pool.submit(|_: ()| -> () { std::process::abort() }, ()).result()).last_panic(), None);
    });
}

fn recurse(depth: u64) -> u64 {
    let here = std::hint::black_box([depth; 64]);
    if depth == u64::MAX {
        return 0;
    }
    recurse(depth + 1) + here[(depth % 64) as usize]
}

#[test]
fn a_stack_overflow_is_told_as_one() {
    if !shares_memory() {
        return;
    }
    guarded(|| {
        let exit = exit_of(pool(1).submit(recurse, 0).result());
        assert!(matches!(exit.signal_name(), Some("SIGSEGV" | "SIGABRT")), "{exit:?}");
        assert!(exit.crash_note().is_some_and(|note| note.contains("stack overflow")), "{exit:?}");
        assert!(exit.to_string().contains("stack overflow"), "{exit}");
    });
}

/// Callbacks until the stack has ended and goes on elsewhere; there the last of them runs over its end.
fn overflow_in_a_chain_of_callbacks(_: ()) {
    let (first, mut last) = promise::<()>();
    for _ in 0..20_000 {
        let (next, future) = promise();
        last.add_done_callback(move |_| next.set_result(()).unwrap());
        last = future;
    }
    last.add_done_callback(|_| {
        std::hint::black_box(recurse(0));
    });
    first.set_result(()).unwrap();
}

#[test]
fn an_overflow_of_a_stack_that_has_grown_is_told_as_one() {
    if !shares_memory() {
        return;
    }
    guarded(|| {
        let exit = exit_of(pool(1).submit(overflow_in_a_chain_of_callbacks, ()).result());
        assert_eq!(exit.signal_name(), Some("SIGSEGV"));
        assert!(exit.crash_note().is_some_and(|note| note.contains("stack overflow")), "{exit:?}");
    });
}

#[test]
fn a_fault_says_at_which_address() {
    if !shares_memory() {
        return;
    }
    #[allow(unsafe_code)]
    fn fault(address: usize) -> u8 {
        // SAFETY: there is none: the process ends here.
        unsafe { std::ptr::with_exposed_provenance::<u8>(address).read_volatile() }
    }
    guarded(|| {
        let exit = exit_of(pool(1).submit(fault, 0x1230).result());
        assert_eq!(exit.signal_name(), Some("SIGSEGV"));
        assert!(exit.crash_note().is_some_and(|note| note.contains("0x1230")), "{exit:?}");
    });
}

#[test]
fn what_was_written_to_stderr_is_kept() {
    guarded(|| {
        let pool = ProcessPoolExecutor::builder().max_workers(1).stdio(Stdio::Capture).build().unwrap();
        let last_words = |_: ()| -> () {
            println!("to stdout");
            eprintln!("{}", "x".repeat(100_000));
            eprintln!("last words");
            std::process::abort();
        };
        let exit = exit_of(pool.submit(last_words, ()).result());
        let stderr = exit.stderr().unwrap();
        assert!(stderr.trim_end().ends_with("last words"), "{stderr}");
        assert!(stderr.len() <= 8 * 1024, "{}", stderr.len());
        assert!(exit.to_string().contains("last words"));
        let quiet = exit_of(pool.submit(exit_quietly, ()).result());
        assert_eq!(quiet.stderr(), Some(""), "another process's words are not this one's");
    });
}

fn exit_quietly(_: ()) {
    std::process::exit(5);
}

#[test]
fn an_idle_worker_that_is_killed_costs_nothing() {
    if !shares_memory() {
        return;
    }
    guarded(|| {
        let pool = pool(1);
        for _ in 0..20 {
            let worker = pool.submit(pid, ()).result().unwrap();
            signal(worker, Signal::KILL);
            // Handed to a worker that is dead already, perhaps: then it moves on.
            assert_ne!(pool.submit(pid, ()).result().unwrap(), worker);
        }
    });
}

#[test]
fn an_idle_worker_that_is_killed_is_buried() {
    guarded(|| {
        let pool = pool(1);
        let worker = pool.submit(pid, ()).result().unwrap();
        signal(worker, Signal::KILL);
        poll(|| process_state(worker).is_none());
        poll(|| pool.worker_pids().is_empty());
        assert_eq!(pool.stats().workers, 0);
    });
}

#[test]
fn killed_child() {
    guarded(|| {
        let pool = pool(2);
        let mut doomed = Plug::new(&pool);
        let mut other = Plug::new(&pool);
        let queued: Vec<_> = (0..20).map(|_| pool.submit(pid, ())).collect();
        signal(doomed.pid, Signal::KILL);
        let exit = exit_of(doomed.take().result());
        assert_eq!((exit.pid(), exit.signal_name()), (doomed.pid, Some("SIGKILL")));
        assert!(!exit.is_probably_out_of_memory());
        let (future, worker) = (other.take(), other.pid);
        drop(other);
        future.result().unwrap();
        for future in queued {
            assert_ne!(future.result().unwrap(), doomed.pid);
        }
        assert!(pool.submit(pid, ()).result().is_ok());
        assert!(is_running(worker));
    });
}

// What a worker was handed and has not begun is done elsewhere, once.
#[test]
fn what_had_not_begun_is_begun_once_elsewhere() {
    guarded(|| {
        let folder = Folder::new();
        let ledger = folder.ledger("ledger");
        for round in 0..10 {
            let pool = pool(1);
            // A quick worker is given many in advance.
            (0..50).for_each(|_| assert!(pool.submit(pid, ()).result().is_ok()));
            let mut plug = Plug::new(&pool);
            let mark = |(ledger, id): (Ledger, u32)| ledger.write(id);
            let marks: Vec<_> = (0..20).map(|n| pool.submit(mark, (ledger.clone(), round * 100 + n))).collect();
            signal(plug.pid, Signal::KILL);
            exit_of(plug.take().result());
            marks.into_iter().for_each(|mark| mark.result().unwrap());
        }
        let lines = ledger.lines();
        assert_eq!(lines.len(), 200);
        assert_eq!(lines.iter().collect::<HashSet<_>>().len(), 200, "none is begun twice");
    });
}

// Python breaks the pool here, once and for all.
#[test]
fn a_hundred_crashes_cost_a_hundred_tasks() {
    guarded(|| {
        let pool = pool(2);
        let task = |n: u32| if n % 2 == 0 { std::process::abort() } else { n };
        let futures: Vec<_> = (0..200).map(|n| pool.submit(task, n)).collect();
        for (n, future) in futures.into_iter().enumerate() {
            match n % 2 {
                0 => assert_eq!(exit_of(future.result()).signal_name(), Some("SIGABRT")),
                _ => assert_eq!(future.result().unwrap() as usize, n),
            }
        }
    });
}

#[test]
fn each_error_is_its_own() {
    guarded(|| {
        let pool = pool(2);
        let futures: Vec<_> = (0..6).map(|code| pool.submit(exit, code)).collect();
        let exits: Vec<_> = futures.into_iter().map(|future| exit_of(future.result())).collect();
        let codes: Vec<_> = exits.iter().map(|exit| exit.code().unwrap()).collect();
        assert_eq!(codes, [0, 1, 2, 3, 4, 5]);
        let pids: HashSet<_> = exits.iter().map(|exit| exit.pid()).collect();
        assert_eq!(pids.len(), 6);
    });
}

#[test]
fn who_waits_is_woken_whichever_way_it_waits() {
    guarded(|| {
        let pool = Arc::new(pool(4));
        let plugs: Vec<_> = (0..4).map(|_| Plug::new(&pool)).collect();
        let pids: Vec<_> = plugs.iter().map(|plug| plug.pid).collect();
        let mut futures: Vec<_> = plugs.into_iter().map(|mut plug| (plug.take(), plug)).collect();
        let (blocked, plug_1) = futures.pop().unwrap();
        let (waited, plug_2) = futures.pop().unwrap();
        let (completed, plug_3) = futures.pop().unwrap();
        let (limited, plug_4) = futures.pop().unwrap();
        let waiters = [
            std::thread::spawn(move || blocked.result()),
            std::thread::spawn(move || wait([waited], None, ReturnWhen::AllCompleted).done.pop().unwrap().result()),
            std::thread::spawn(move || as_completed([completed]).next().unwrap().result()),
            std::thread::spawn(move || limited.result_timeout(Duration::from_secs(3600)).unwrap()),
        ];
        for pid in pids {
            signal(pid, Signal::KILL);
        }
        for waiter in waiters {
            exit_of(waiter.join().unwrap());
        }
        drop((plug_1, plug_2, plug_3, plug_4));
    });
}

#[test]
fn a_crash_after_the_result_was_written_costs_nothing_that_was_done() {
    guarded(|| {
        for _ in 0..20 {
            let pool = pool(1);
            let results: Vec<_> = (0..20).map(|n: u32| pool.submit(|n: u32| n, n)).collect();
            let crash = pool.submit(|_: ()| -> () { std::process::abort() }, ());
            for (n, result) in results.into_iter().enumerate() {
                assert_eq!(result.result().unwrap() as usize, n);
            }
            exit_of(crash.result());
        }
    });
}

// What the task does to the descriptors of its process is no danger to the parent.
#[test]
fn garbage_on_the_descriptors_of_the_worker() {
    #[allow(unsafe_code)]
    fn vandalise(garbage: Vec<u8>) {
        use std::os::fd::BorrowedFd;
        for fd in 3..64 {
            // SAFETY: it may well not be open; that is an error, and no more.
            let fd = unsafe { BorrowedFd::borrow_raw(fd) };
            let _ = rustix::io::write(fd, &garbage);
        }
    }
    guarded(|| {
        let pool = pool(1);
        for garbage in [vec![], vec![0; 1], vec![2; 100], vec![3; 2], vec![0xff; 5000], vec![1; 40_000]] {
            let outcome = pool.submit(vandalise, garbage).result();
            let expected = match &outcome {
                Ok(()) => true,
                Err(error) => error.is_protocol() || error.is_worker_died(),
            };
            assert!(expected, "{outcome:?}");
        }
        // A worker that had already answered may be found out only now.
        poll(|| pool.submit(pid, ()).result().is_ok());
    });
}

#[test]
fn a_task_that_closes_all_descriptors() {
    #[allow(unsafe_code)]
    fn close_all(_: ()) {
        for fd in open_descriptors().into_iter().filter(|fd| *fd > 2) {
            // SAFETY: whoever owned them finds them closed, which is what is tried here.
            unsafe { rustix::io::close(fd) };
        }
    }
    guarded(|| {
        let pool = pool(1);
        // Closed twice is an error in the worker, and, where that is checked, a panic.
        let outcome = pool.submit(close_all, ()).result();
        assert!(
            matches!(outcome, Ok(()) | Err(TaskError::WorkerDied(_) | TaskError::Panicked(_) | TaskError::Protocol(_))),
            "{outcome:?}"
        );
        for _ in 0..5 {
            pool.submit(pid, ()).result().unwrap();
        }
    });
}

// A poison task, tried again, takes no neighbour with it.
#[test]
fn retries_end_and_neighbours_are_unharmed() {
    guarded(|| {
        let folder = Folder::new();
        let (pool, ledger) = (pool(2), folder.ledger("ledger"));
        let neighbours: Vec<_> = (0..50).map(|n: u64| pool.submit(|n: u64| n, n)).collect();
        let poison = |ledger: Ledger| -> () {
            ledger.write("begun");
            std::process::abort()
        };
        let exit = exit_of(pool.task(poison, ledger.clone()).retries(2).submit().result());
        assert_eq!((exit.attempts(), ledger.lines().len()), (3, 3));
        assert!(exit.to_string().contains("attempt 3"), "{exit}");
        assert_eq!(neighbours.into_iter().map(|future| future.result().unwrap()).sum::<u64>(), 1225);
    });
}

#[test]
fn a_retry_may_succeed() {
    guarded(|| {
        let folder = Folder::new();
        let pool = ProcessPoolExecutor::builder().max_workers(1).stdio(Stdio::Null).retries(5).build().unwrap();
        let third_time_lucky = |ledger: Ledger| {
            ledger.write("begun");
            match ledger.lines().len() {
                3 => 3,
                _ => std::process::abort(),
            }
        };
        let ledger = folder.ledger("ledger");
        assert_eq!(pool.submit(third_time_lucky, ledger.clone()).result().unwrap(), 3);
        assert_eq!(ledger.lines().len(), 3);
        // Only the end of the worker is a reason to try again.
        let panics = folder.ledger("panics");
        let panic = |ledger: Ledger| -> () {
            ledger.write("begun");
            panic!("once is enough");
        };
        assert!(pool.submit(panic, panics.clone()).result().unwrap_err().is_panicked());
        assert_eq!(panics.lines().len(), 1);
    });
}

#[test]
fn no_retries_unless_asked_for() {
    guarded(|| {
        let folder = Folder::new();
        let (pool, ledger) = (pool(1), folder.ledger("ledger"));
        let crash = |ledger: Ledger| -> () {
            ledger.write("begun");
            std::process::abort()
        };
        exit_of(pool.submit(crash, ledger.clone()).result());
        pool.submit(pid, ()).result().unwrap();
        assert_eq!(ledger.lines().len(), 1);
    });
}

#[test]
fn a_crash_in_a_map_costs_the_items_that_had_begun() {
    guarded(|| {
        let pool = pool(2);
        let task = |n: u32| if n == 57 { std::process::abort() } else { n };
        let results: Vec<_> = pool.map_with(MapOptions::new().chunk_size(1), task, 0..100).unwrap().collect();
        for (n, result) in results.into_iter().enumerate() {
            match n {
                57 => assert_eq!(exit_of(result).signal_name(), Some("SIGABRT")),
                _ => assert_eq!(result.unwrap() as usize, n),
            }
        }
    });
}

#[test]
fn a_crash_in_a_chunk_repeats_nothing() {
    if !shares_memory() {
        return;
    }
    guarded(|| {
        let folder = Folder::new();
        let (pool, ledger) = (pool(2), folder.ledger("ledger"));
        let task = |(ledger, n): (Ledger, u32)| {
            ledger.write(n);
            if n % 10 == 4 { std::process::abort() } else { n }
        };
        let items = (0..40).map(|n| (ledger.clone(), n));
        let results: Vec<_> = pool.map_with(MapOptions::new().chunk_size(8), task, items).unwrap().collect();
        assert_eq!(results.len(), 40);
        let lines: Vec<u32> = ledger.lines().iter().map(|line| line.parse().unwrap()).collect();
        assert_eq!(lines.iter().collect::<HashSet<_>>().len(), lines.len(), "no item is begun twice: {lines:?}");
        for (n, result) in results.into_iter().enumerate() {
            let begun = lines.contains(&(n as u32));
            match result {
                Ok(value) => assert_eq!((value as usize, begun), (n, true)),
                // An item that had ended, in a chunk that has not, is lost too; but none that had not begun.
                Err(TaskError::WorkerDied(_)) => assert!(begun, "{n} had not begun"),
                Err(other) => panic!("{n}: {other:?}"),
            }
        }
        assert_eq!(lines.len(), 40, "all have been begun");
    });
}

// What is handed over later is written to the ring behind what runs, and in the end over it.
#[test]
fn what_runs_has_begun_whatever_is_handed_over_after_it() {
    const SIZE: usize = 8192 - 48;
    guarded(|| {
        let folder = Folder::new();
        let (pool, ledger) = (pool(1), folder.ledger("ledger"));
        // A worker that is known to be quick is given many in advance.
        (0..5000).for_each(|_| pool.submit(|_: Vec<u8>| (), vec![1; SIZE]).result().unwrap());
        let crash = |path: String| -> () {
            let ledger = Ledger::at(path.trim_end());
            ledger.write("begun");
            poll(|| ledger.lines().len() > 1);
            std::process::abort()
        };
        // As long as the calls after it, so that the head of one of them comes to lie where its own was.
        let path = folder.path().join("ledger").display().to_string();
        let argument = path.clone() + &" ".repeat(SIZE - path.len());
        let future = pool.submit(crash, argument);
        poll(|| !ledger.lines().is_empty());
        let more: Vec<_> = (0..300).map(|_| pool.submit(|bytes: Vec<u8>| bytes.len(), vec![1; SIZE])).collect();
        assert!(future.is_running());
        ledger.write("go on");
        exit_of(future.result());
        assert!(more.into_iter().all(|future| future.result().unwrap() == SIZE));
        assert_eq!(ledger.lines(), ["begun", "go on"], "it was begun once");
    });
}

fn abort(_: ()) {
    std::process::abort();
}

// What another task has survived is not what this one dies of.
#[test]
fn a_panic_of_the_task_before_is_not_told() {
    if !shares_memory() {
        return;
    }
    guarded(|| {
        for threads in [1, 2] {
            let builder = ProcessPoolExecutor::builder().max_workers(1).stdio(Stdio::Null);
            let pool = builder.threads_per_worker(threads).build().unwrap();
            for n in 1..=3 {
                let ended = match n {
                    1 => pool.submit(|_: ()| -> () { panic!("a task before") }, ()).result(),
                    2 => pool.submit(|_: ()| drop(std::panic::catch_unwind(|| panic!("caught before"))), ()).result(),
                    _ => pool.submit(|_: ()| drop(std::thread::spawn(|| panic!("beside")).join()), ()).result(),
                };
                assert_eq!(ended.is_err(), n == 1);
                let exit = exit_of(pool.submit(abort, ()).result());
                assert_eq!((exit.signal_name(), exit.last_panic()), (Some("SIGABRT"), None), "{n}");
                assert!(!exit.to_string().contains("before"), "{exit}");
            }
        }
        // Items of a chunk are tasks, too.
        let item = |n: u32| match n {
            2 => panic!("an item before"),
            5 => std::process::abort(),
            n => n,
        };
        let map = pool(1).map_with(MapOptions::new().chunk_size(8), item, 0..8).unwrap();
        let exit = exit_of(map.filter(|result| matches!(result, Err(TaskError::WorkerDied(_)))).last().unwrap());
        assert_eq!((exit.signal_name(), exit.last_panic()), (Some("SIGABRT"), None));
    });
}

// Also not if both are handed to the worker at the same time.
#[test]
fn the_output_of_the_task_before_is_not_told() {
    guarded(|| {
        let pool = ProcessPoolExecutor::builder().max_workers(1).stdio(Stdio::Capture).build().unwrap();
        let say = |word: String| eprintln!("{word}");
        for round in 0..10 {
            // A worker that is known to be quick.
            (0..20).for_each(|n| pool.submit(say, format!("early {n}")).result().unwrap());
            let before = pool.submit(say, "before".to_owned());
            let crash = pool.submit(abort, ());
            let after = pool.submit(say, "after".to_owned());
            before.result().unwrap();
            let exit = exit_of(crash.result());
            after.result().unwrap();
            assert_eq!(exit.stderr(), Some(""), "{round}");
            let last_words = |word: String| -> () {
                eprintln!("{word}");
                std::process::abort();
            };
            let (before, crash) = (pool.submit(say, "before".to_owned()), pool.submit(last_words, "last".to_owned()));
            before.result().unwrap();
            assert_eq!(exit_of(crash.result()).stderr(), Some("last\n"), "{round}");
        }
    });
}

// A thread that waits may collect the reply to it before the supervisor has read that the worker is ready.
#[test]
fn the_output_of_the_first_task_of_a_worker_is_not_told() {
    guarded(|| {
        let pool = ProcessPoolExecutor::builder().max_workers(1).stdio(Stdio::Capture).build().unwrap();
        let say = |word: String| eprintln!("{word}");
        let last_words = |word: String| -> () {
            eprintln!("{word}");
            std::process::abort();
        };
        for round in 0..20 {
            let old = pool.worker_pids();
            let crash = pool.submit(last_words, "last".to_owned());
            let after = pool.submit(say, "after".to_owned());
            exit_of(crash.result());
            // The next worker has been handed the task, so this thread waits for the worker itself.
            poll(|| pool.worker_pids().iter().any(|pid| !old.contains(pid)));
            after.result().unwrap();
            let (before, crash) = (pool.submit(say, "before".to_owned()), pool.submit(last_words, "last".to_owned()));
            before.result().unwrap();
            assert_eq!(exit_of(crash.result()).stderr(), Some("last\n"), "{round}");
        }
    });
}

#[test]
fn a_process_that_may_have_run_out_of_memory_is_told_as_one() {
    guarded(|| {
        const LIMIT: u64 = 2 << 30;
        let builder = || ProcessPoolExecutor::builder().max_workers(1).stdio(Stdio::Null);
        let pool = builder().memory_limit(LIMIT).build().unwrap();
        let allocate = |megabytes: usize| std::hint::black_box(vec![1u8; megabytes << 20]).len();
        let exit = exit_of(pool.submit(allocate, 3 << 10).result());
        assert_eq!((exit.signal_name(), exit.memory_limit()), (Some("SIGABRT"), Some(LIMIT)));
        let text = exit.to_string();
        assert!(text.contains("out of memory") && text.contains(&LIMIT.to_string()), "{text}");
        // Nor is it said where it cannot be the reason.
        let exit = exit_of(pool.submit(exit_quietly, ()).result());
        assert_eq!((exit.memory_limit(), exit.to_string().contains("memory")), (None, false), "{exit}");
        let exit = exit_of(builder().build().unwrap().submit(abort, ()).result());
        assert_eq!((exit.memory_limit(), exit.to_string().contains("memory")), (None, false), "{exit}");
    });
}

#[test]
fn a_crash_note_has_the_whole_name_of_the_thread() {
    if !shares_memory() {
        return;
    }
    guarded(|| {
        let crash = |name: String| -> () {
            match name.as_str() {
                "" => std::process::abort(),
                _ => drop(std::thread::Builder::new().name(name).spawn(|| std::process::abort()).unwrap().join()),
            }
        };
        let builder = || ProcessPoolExecutor::builder().max_workers(1).stdio(Stdio::Null);
        let note = |pool: ProcessPoolExecutor, name: &str| {
            exit_of(pool.submit(crash, name.to_owned()).result()).crash_note().unwrap().to_owned()
        };
        let raised = "SIGABRT raised by the process itself";
        let unnamed = note(builder().build().unwrap(), "");
        let name = unnamed.strip_prefix(&format!("{raised} in thread 'ProcessPoolExecutor-")).expect(&unnamed);
        assert!(name.ends_with("_1'"), "{unnamed}");
        let named = builder().name("image conversion").threads_per_worker(2).build().unwrap();
        let named = note(named, "");
        assert!(named.starts_with(&format!("{raised} in thread 'image conversion_1_")), "{named}");
        // Of other threads the kernel keeps 15 bytes.
        assert_eq!(note(builder().build().unwrap(), "short"), format!("{raised} in thread 'short'"));
        assert_eq!(note(builder().build().unwrap(), "longer than fifteen bytes"), raised);
    });
}
