//! How many workers? CPU-bound tasks need as many as there are cores, waiting tasks many more. Measures and plots this.

use std::error::Error;
use std::hint::black_box;
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use concurrent_futures::{ReturnWhen, ThreadPoolExecutor, cpu_workers, io_workers, wait};

#[path = "common/args.rs"]
mod args;
#[path = "sizing/plot.rs"]
mod plot;

const USAGE: &str = "\
Measures how many tasks per second a pool completes with few and with many workers: tasks that compute
for about a millisecond, and tasks that wait (sleep) for five.

Usage: sizing [--svg PATH] [--long]

  --svg PATH  write the plot to this file; target/sizing.svg by default
  --long      measure ten times as long, for steadier numbers";

const WAIT: Duration = Duration::from_millis(5);
const ROUNDS: usize = 5;

/// The throughput of a pool of this size, in tasks per second, in each round.
struct Row {
    workers: usize,
    compute: Vec<f64>,
    wait: Vec<f64>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = args::arguments(USAGE);
    let (mut svg, mut length, mut rest) = ("target/sizing.svg", 1, &arguments[..]);
    while !rest.is_empty() {
        rest = match rest {
            ["--svg", path, others @ ..] => {
                svg = path;
                others
            }
            ["--long", others @ ..] => {
                length = 10;
                others
            }
            _ => args::reject(USAGE, &arguments),
        };
    }

    let rows = measure(length)?;
    println!("workers   computing tasks/s     waiting tasks/s");
    for row in &rows {
        let (computed, waited) = (median(&row.compute), median(&row.wait));
        let (faster, more) = (computed / median(&rows[0].compute), waited / median(&rows[0].wait));
        println!("{:7}   {computed:8.0}  (x {faster:5.2})   {waited:8.0}  (x {more:5.2})", row.workers);
    }
    println!();
    conclude("Tasks that compute", &rows, |row| &row.compute);
    conclude("Tasks that wait", &rows, |row| &row.wait);
    println!("cpu_workers() suggests {}, io_workers() {}.", cpu_workers(), io_workers());

    plot::draw(&rows, Path::new(svg)).map_err(|error| format!("cannot write {svg}: {error}"))?;
    println!("The plot is in {svg}");
    Ok(())
}

/// Rows for 1 worker, for one per core, and for repeated doublings far above the number of cores.
fn measure(length: usize) -> Result<Vec<Row>, Box<dyn Error>> {
    let cores = cpu_workers();
    let mut counts = vec![1];
    counts.extend((0..).map(|doublings| cores << doublings).take_while(|&count| count <= 64.max(8 * cores)));
    counts.dedup();

    let steps = steps_per_millisecond();
    let row = |&workers| Row { workers, compute: Vec::new(), wait: Vec::new() };
    let mut rows: Vec<Row> = counts.iter().map(row).collect();
    // In interleaved rounds, so that other load on the machine affects all rows alike.
    for _ in 0..ROUNDS {
        for row in &mut rows {
            let computing = 20 * length * row.workers.min(cores);
            row.compute.push(throughput(row.workers, computing, move || compute(steps))?);
            let waiting = 4 * length * row.workers;
            row.wait.push(throughput(row.workers, waiting, || thread::sleep(WAIT))?);
        }
    }
    Ok(rows)
}

fn throughput(workers: usize, tasks: usize, task: impl Fn() + Copy + Send + 'static) -> Result<f64, Box<dyn Error>> {
    let pool = ThreadPoolExecutor::new(workers)?;
    // Threads start on demand. To start them all before the measurement, each gets a task that waits for the others.
    let all = Arc::new(Barrier::new(workers));
    let started = (0..workers).map(|_| Arc::clone(&all)).map(|all| {
        pool.submit(move || {
            all.wait();
        })
    });
    let _ = wait(started, None, ReturnWhen::AllCompleted);

    let start = Instant::now();
    let _ = wait(pool.submit_all((0..tasks).map(|_| task)), None, ReturnWhen::AllCompleted);
    Ok(tasks as f64 / start.elapsed().as_secs_f64())
}

/// A chain of dependent multiplications and additions, which occupies one core.
fn compute(steps: u64) {
    black_box((0..steps).fold(1u64, |x, step| black_box(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(step))));
}

fn steps_per_millisecond() -> u64 {
    const STEPS: u64 = 100_000;
    let time = || {
        let start = Instant::now();
        compute(STEPS);
        start.elapsed().as_secs_f64()
    };
    let fastest = (0..10).map(|_| time()).fold(f64::INFINITY, f64::min);
    (STEPS as f64 * 0.001 / fastest).max(1.0) as u64
}

fn median(rates: &[f64]) -> f64 {
    let mut sorted = rates.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// States a conclusion only if all rounds agree on it.
fn conclude(tasks: &str, rows: &[Row], rates: impl Fn(&Row) -> &[f64]) {
    let cores = cpu_workers();
    let one_each = rows.iter().find(|row| row.workers == cores).expect("there is a row for one worker per core");
    let (first, last) = (&rows[0], rows.last().expect("there are rows"));
    if cores > 1 {
        let gain = median(rates(one_each)) / median(rates(first));
        println!("{tasks}: {cores} workers, one per core, did {gain:.2} times the work of 1.");
    }
    let ratios = || rates(last).iter().zip(rates(one_each)).map(|(many, few)| many / few);
    let (low, high) = (ratios().fold(f64::INFINITY, f64::min), ratios().fold(0.0, f64::max));
    let verdict = match (low, high) {
        (1.1.., _) => "more workers than cores help",
        (_, ..0.9) => "more workers than cores cost throughput",
        _ => "more workers than cores do not help",
    };
    println!("{tasks}: {} workers did {low:.2} to {high:.2} times the work of {cores}: {verdict}.", last.workers);
}
