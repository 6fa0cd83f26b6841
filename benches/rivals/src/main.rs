//! Compares the pools with their rivals in one run: for every workload the contenders take turns, A B C A B C, so that
//! other load on the machine affects all of them. The results are ratios, because absolute figures differ between
//! machines and over time. Nothing here asserts a time.
//!
//! ```text
//! cargo run --release -p rivals -- [T1 P2 ...] [--full] [--rounds N] [--tasks N] [--workers N]
//! cargo run --release -p rivals -- profile T1 ours [--seconds N]
//! ```
//!
//! Workloads whose names begin with T are for pools of threads, those with P for pools of processes (Linux only). The
//! latter have two rivals in Python, for which `python3` must be in the `PATH`; without it they are skipped. P6list needs
//! some 10 GB of memory and a minute, so it is run only if it is named, or with `--full`.
//!
//! | file | what it is |
//! |---|---|
//! | `settings` | the command line |
//! | `pools`, `process_pools` | the contenders, one file each, behind one trait |
//! | `../python` | the code of the contenders in Python |
//! | `workloads` | the workloads, one file per group |
//! | `measure` | rounds, medians, CPU time |
//! | `memory` | a counting allocator |
//! | `goals` | the target ratios |
//! | `report` | output |
//! | `watchdog` | ends a run that hangs |

mod goals;
mod measure;
mod memory;
mod pools;
#[cfg(target_os = "linux")]
mod process_pools;
mod report;
mod settings;
mod watchdog;
mod workloads;

use std::time::{Duration, Instant};

use measure::Bench;
use pools::Pools;
use settings::{Mode, Settings};

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

fn main() {
    // The contenders' worker processes run this program.
    #[cfg(target_os = "linux")]
    process_pools::serve_if_started_by_one();
    let settings = match Settings::parse(std::env::args().skip(1)) {
        Ok(settings) => settings,
        Err(message) => {
            eprintln!("{message}\n\n{}", settings::USAGE);
            std::process::exit(2);
        }
    };
    let pools = Pools::start(settings.workers);
    watchdog::start();
    let benches = workloads::all(&settings, &pools).into_iter();
    let benches = benches.filter(|bench| settings.wants(bench.name, bench.is_rare));
    match &settings.mode {
        Mode::Compare => compare(&settings, benches),
        Mode::Profile { contender, seconds } => profile(benches, contender, Duration::from_secs(*seconds)),
    }
}

fn compare(settings: &Settings, benches: impl Iterator<Item = Bench>) {
    let tables: Vec<_> = benches
        .map(|bench| {
            let table = bench.measure(settings.rounds);
            report::print_table(&table);
            table
        })
        .collect();
    report::print_goals(&tables);
}

/// Runs one contender repeatedly, for a profiler.
fn profile(benches: impl Iterator<Item = Bench>, contender: &str, time: Duration) {
    for mut bench in benches {
        let Some(mut run) = bench.take(contender) else {
            eprintln!("{}: there is no {contender:?}, but {}", bench.name, bench.names().join(", "));
            continue;
        };
        let (start, mut runs) = (Instant::now(), 0);
        let mut last = Vec::new();
        while start.elapsed() < time {
            last = watchdog::watch(bench.name, contender, &mut run);
            runs += 1;
        }
        println!("{} {contender}: {runs} runs, the last: {}", bench.name, report::figures(bench.columns, &last));
    }
}
