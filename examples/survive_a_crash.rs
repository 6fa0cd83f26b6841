//! A hundred tasks that succeed, and among them five that end their worker process. The five fail, each with an error that
//! says what is known about the death of its worker; the others are not affected.

use std::collections::BTreeSet;
use std::error::Error;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, io, process, ptr, thread};

use concurrent_futures::{ProcessPoolExecutor, Stdio, TaskError, as_completed};

#[path = "common/args.rs"]
mod args;

const USAGE: &str = "\
Submits a hundred good tasks and five that crash, abort, exit, hang and exhaust memory, and shows the result of each.

Usage: survive_a_crash";

/// A good task: the sum of the squares, and the process that found it.
fn work(n: u64) -> (u32, u64) {
    (process::id(), (0..=n).map(|k| k * k).sum())
}

/// Writes to an unmapped address.
#[allow(unsafe_code)]
fn segfault(address: usize) -> (u32, u64) {
    // SAFETY: this is unsound on purpose. It runs in a worker process, in which such a low address is not mapped.
    unsafe { ptr::without_provenance_mut::<u32>(address).write_volatile(1) };
    (process::id(), 0)
}

fn abort(_: ()) -> (u32, u64) {
    process::abort()
}

fn exit(code: i32) -> (u32, u64) {
    process::exit(code)
}

fn hang(_: ()) -> (u32, u64) {
    loop {
        thread::sleep(Duration::from_secs(1));
    }
}

fn eat_memory(bite: usize) -> (u32, u64) {
    let mut eaten = Vec::new();
    loop {
        eaten.push(black_box(vec![0u8; bite]));
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = args::arguments(USAGE);
    if !arguments.is_empty() {
        args::reject(USAGE, &arguments);
    }

    let start = Instant::now();
    let descriptors = open_descriptors()?;
    let pool = ProcessPoolExecutor::builder()
        .max_workers(2)
        .memory_limit(1 << 30)
        // The output of a worker before its death is kept for the error of its task.
        .stdio(Stdio::Capture)
        .env_remove("RUST_BACKTRACE")
        .build()?;

    let mut tasks = Vec::new();
    for n in 0..100 {
        tasks.push(("good", pool.submit(work, 1000 * n)));
        match n {
            10 => tasks.push(("segfault", pool.submit(segfault, 16))),
            30 => tasks.push(("abort", pool.submit(abort, ()))),
            50 => tasks.push(("exit", pool.submit(exit, 3))),
            70 => tasks.push(("hang", pool.task(hang, ()).timeout(Duration::from_millis(100)).submit())),
            90 => tasks.push(("eat_memory", pool.submit(eat_memory, 64 << 20))),
            _ => {}
        }
    }

    let (mut good, mut workers) = (0, BTreeSet::new());
    for (name, task) in as_completed(tasks) {
        workers.extend(pool.worker_pids());
        match task.result() {
            Ok((pid, _)) => {
                good += 1;
                workers.insert(pid);
            }
            Err(error) => {
                println!("{name}: {error}");
                // `WorkerExit` also has methods for each part of this.
                if let TaskError::WorkerDied(exit) = error {
                    workers.insert(exit.pid());
                }
            }
        }
    }
    println!("{good} good results, in {:.3} s.", start.elapsed().as_secs_f64());

    // Dropping the pool ends its workers and waits for them.
    drop(pool);
    // Zombies and orphaned processes are still listed there.
    let left = workers.iter().filter(|pid| Path::new(&format!("/proc/{pid}")).exists()).count();
    println!("Of {} worker processes {left} are left, be it as zombies or orphans.", workers.len());
    println!("Open descriptors: {descriptors} before, {} after.", open_descriptors()?);
    assert_eq!((good, left, open_descriptors()?), (100, 0, descriptors));
    Ok(())
}

fn open_descriptors() -> io::Result<usize> {
    Ok(fs::read_dir("/proc/self/fd")?.count())
}
