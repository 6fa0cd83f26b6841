//! How soon a death is noticed: that of a worker by whoever waits for its task, and that of the program by its workers.
//! 200 times each; `--test` makes it 3.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use concurrent_futures::{ProcessPoolExecutor, TaskError};
use rustix::process::{Pid, Signal, kill_process};

/// Set for the program that is to be killed.
const VICTIM: &str = "DEATHS_VICTIM";

fn main() {
    if env::var_os(VICTIM).is_some() {
        return be_killed();
    }
    let rounds = if env::args().any(|argument| argument == "--test") { 3 } else { 200 };
    report("a worker is killed, its task fails", rounds, death_of_a_worker);
    report("a program is killed, its two busy workers are gone", rounds, death_of_a_program);
}

fn report(what: &str, rounds: usize, mut measure: impl FnMut() -> Duration) {
    let mut times: Vec<Duration> = (0..rounds).map(|_| measure()).collect();
    times.sort();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    println!("{what}: median {:.1?}, 99 of 100 within {:.1?}, all {rounds} within {:.1?}", at(50), at(99), at(100));
}

fn death_of_a_worker() -> Duration {
    let pool = ProcessPoolExecutor::new(1).unwrap();
    let worker = pool.submit(|_: ()| std::process::id(), ()).result().unwrap();
    let future = pool.submit(wait, ());
    while !future.is_running() {
        thread::sleep(Duration::from_micros(100));
    }
    let killed = Instant::now();
    kill(worker);
    let error = future.result().unwrap_err();
    let took = killed.elapsed();
    assert!(matches!(error, TaskError::WorkerDied(exit) if exit.signal_name() == Some("SIGKILL")));
    took
}

fn death_of_a_program() -> Duration {
    let mut command = Command::new(env::current_exe().unwrap());
    let mut program = command.env(VICTIM, "1").stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(program.stdout.take().unwrap()).lines().map(Result::unwrap);
    let workers: Vec<u32> = lines.take_while(|line| line != "ready").map(|line| line.parse().unwrap()).collect();
    assert!(workers.len() == 2 && workers.iter().all(|worker| runs(*worker)));
    let killed = Instant::now();
    kill(program.id());
    while workers.iter().any(|worker| runs(*worker)) {
        thread::sleep(Duration::from_micros(200));
    }
    let took = killed.elapsed();
    program.wait().unwrap();
    took
}

/// One worker waits, one computes.
fn be_killed() {
    let pool = ProcessPoolExecutor::new(2).unwrap();
    let futures = [pool.submit(wait, ()), pool.submit(compute, ())];
    while !futures.iter().all(|future| future.is_running()) {
        thread::sleep(Duration::from_micros(100));
    }
    for worker in pool.worker_pids() {
        println!("{worker}");
    }
    println!("ready");
    wait(());
}

fn wait(_: ()) {
    loop {
        thread::park();
    }
}

fn compute(_: ()) {
    loop {
        std::hint::spin_loop();
    }
}

fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), Signal::KILL).unwrap();
}

/// A process that has ended and waits to be collected does not run any more.
fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}
