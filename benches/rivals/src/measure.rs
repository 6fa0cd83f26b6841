//! Runs contenders in turns, and summarises their figures.

use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::pools::Pool;
use crate::watchdog::watch;

/// The pause between two contenders: long enough for the workers of the previous one to stop spinning.
const PAUSE: Duration = Duration::from_millis(1);

type Run = Box<dyn FnMut() -> Vec<f64>>;

/// How a contender's figures are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Ours,
    Rival,
    /// A limit or a variant: shown, but compared with only if a goal names it.
    Reference,
}

/// A workload and its contenders.
pub(crate) struct Bench {
    pub(crate) name: &'static str,
    pub(crate) what: String,
    /// The names of the figures that a run returns.
    pub(crate) columns: &'static [&'static str],
    entries: Vec<(&'static str, Role, Run)>,
    once: bool,
    /// Run only on request.
    pub(crate) is_rare: bool,
}

/// The outcome of a bench.
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) what: String,
    pub(crate) columns: &'static [&'static str],
    pub(crate) rows: Vec<Row>,
}

pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) role: Role,
    pub(crate) figures: Vec<Spread>,
}

/// One figure over all rounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Bench {
    pub(crate) fn new(name: &'static str, what: impl Into<String>, columns: &'static [&'static str]) -> Self {
        Self { name, what: what.into(), columns, entries: Vec::new(), once: false, is_rare: false }
    }

    /// For figures that do not vary, but would in a second run (a queue keeps its memory): one round, no warm-up.
    pub(crate) fn once(mut self) -> Self {
        self.once = true;
        self
    }

    /// For long workloads.
    pub(crate) fn rare(mut self) -> Self {
        self.is_rare = true;
        self
    }

    /// Adds a pool under its name.
    pub(crate) fn add<P: Pool, R: Into<Vec<f64>>>(&mut self, _: &P, run: impl FnMut() -> R + 'static) {
        let role = if P::NAME == "ours" { Role::Ours } else { Role::Rival };
        self.add_as(P::NAME, role, run);
    }

    pub(crate) fn add_as<R: Into<Vec<f64>>>(
        &mut self,
        name: &'static str,
        role: Role,
        mut run: impl FnMut() -> R + 'static,
    ) {
        self.entries.push((name, role, Box::new(move || run().into())));
    }

    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.entries.iter().map(|(name, ..)| *name).collect()
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<Run> {
        let at = self.entries.iter().position(|(other, ..)| *other == name)?;
        Some(self.entries.swap_remove(at).2)
    }

    /// One warm-up round, then the measured rounds.
    pub(crate) fn measure(mut self, rounds: usize) -> Table {
        let (warm_up, rounds) = if self.once { (0, 1) } else { (1, rounds) };
        let mut samples = vec![Vec::new(); self.entries.len()];
        for round in 0..warm_up + rounds {
            for (samples, (name, _, run)) in samples.iter_mut().zip(&mut self.entries) {
                thread::sleep(PAUSE);
                let sample = watch(self.name, name, run);
                if round >= warm_up {
                    samples.push(sample);
                }
            }
        }
        let rows = samples.iter().zip(&self.entries).map(|(samples, (name, role, _))| {
            let column = |n| Spread::of(samples.iter().map(|sample: &Vec<f64>| sample[n]).collect());
            Row { name, role: *role, figures: (0..self.columns.len()).map(column).collect() }
        });
        Table { rows: rows.collect(), name: self.name, what: self.what, columns: self.columns }
    }
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self { median: quantile(&values, 0.5), min: values[0], max: values[values.len() - 1] }
    }
}

/// The median of sorted values.
pub(crate) fn quantile(sorted: &[f64], q: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * q).round() as usize]
}

/// Time per task in nanoseconds: elapsed time, and CPU time of all threads.
pub(crate) fn per_task(tasks: usize, f: impl FnOnce()) -> [f64; 2] {
    let (start, cpu) = (Instant::now(), cpu_time());
    f();
    let (wall, cpu) = (start.elapsed(), cpu_time() - cpu);
    [wall, cpu].map(|time| time.as_nanos() as f64 / tasks as f64)
}

/// The CPU time that this process has used so far.
pub(crate) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The time that `f` takes, in milliseconds; what it returns is dropped later.
pub(crate) fn millis<T>(f: impl FnOnce() -> T) -> [f64; 1] {
    let start = Instant::now();
    let result = std::hint::black_box(f());
    let time = start.elapsed();
    drop(result);
    [time.as_secs_f64() * 1e3]
}
