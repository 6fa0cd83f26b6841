//! Both pools in a program that is built with `panic = "abort"`: a panic costs a process. In a worker process that is one
//! task; in a thread it is the program.

use std::process::{Command, ExitCode};

use concurrent_futures::{ProcessPoolExecutor, TaskError, ThreadPoolExecutor};

fn in_processes() {
    let pool = ProcessPoolExecutor::new(2).unwrap();
    let futures: Vec<_> = (0..20u64).map(|n| pool.submit(|n: u64| n * n, n)).collect();
    for _ in 0..3 {
        let future = pool.submit(|text: String| -> u64 { panic!("{text}") }, "as it is meant to".to_owned());
        let Err(TaskError::WorkerDied(exit)) = future.result() else { panic!("a panic ends the worker") };
        assert_eq!(exit.signal_name(), Some("SIGABRT"));
        assert!(exit.last_panic().unwrap().contains("as it is meant to"), "{exit:?}");
    }
    for (future, n) in futures.into_iter().zip(0..) {
        // One that ran beside them on the same worker had its result already, or began elsewhere.
        assert_eq!(future.result().unwrap(), n * n);
    }
    assert_eq!(pool.map(|n: u64| n, 0..1000).map(Result::unwrap).sum::<u64>(), 499_500);
}

fn in_threads() {
    let pool = ThreadPoolExecutor::new(2).unwrap();
    assert_eq!(pool.map(|n: u64| n, 0..1000).map(Result::unwrap).sum::<u64>(), 499_500);
    let _ = pool.submit(|| -> u64 { panic!("as it is meant to") }).result();
    unreachable!("a panic in a thread ends the program");
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("threads") {
        in_threads();
    }
    in_processes();
    let program = std::env::current_exe().unwrap();
    let status = Command::new(program).arg("threads").stderr(std::process::Stdio::null()).status().unwrap();
    let aborted = std::os::unix::process::ExitStatusExt::signal(&status) == Some(6);
    println!("a panic costs a worker process, or the program: {aborted}");
    if aborted { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
