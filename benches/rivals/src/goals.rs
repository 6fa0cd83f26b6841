//! The target ratios, and which of them are met.

use crate::measure::{Role, Row, Table};

/// The figure that ours is compared with.
#[derive(Debug, Clone, Copy)]
enum Against {
    /// The rival with the best median.
    Best,
    /// The best round that any rival had.
    BestRound,
    Named(&'static str),
}

struct Goal {
    workload: &'static str,
    figure: &'static str,
    ours: &'static str,
    against: Against,
    ratio: f64,
}

use Against::{Best, BestRound, Named};

const fn goal(workload: &'static str, figure: &'static str, ours: &'static str, against: Against, ratio: f64) -> Goal {
    Goal { workload, figure, ours, against, ratio }
}

#[rustfmt::skip]
const GOALS: &[Goal] = &[
    goal("T1",      "ns/task", "ours",        Best,                              0.35),
    goal("T1",      "ns/task", "ours",        Named("rayon"),                    0.30),
    goal("T2",      "median",  "ours",        Best,                              0.06),
    goal("T2",      "median",  "ours",        BestRound,                         0.75),
    goal("T2",      "mean",    "ours",        Best,                              0.15),
    goal("T2",      "p99",     "ours",        Named("rayon"),                    0.50),
    goal("T2",      "cpu",     "ours",        Best,                              1.00),
    goal("T2b",     "median",  "ours",        Best,                              1.00),
    goal("T3",      "ns/task", "ours",        Best,                              0.35),
    goal("T3",      "ns/task", "ours",        Named("rayon scope (no results)"), 0.50),
    goal("T4",      "ms",      "ours join",   Named("rayon join"),               1.00),
    goal("T4",      "ms",      "ours submit", Named("rayon join"),               1.15),
    goal("T5",      "ms",      "ours map",    Named("rayon par_iter"),           0.75),
    goal("T5",      "ms",      "ours map",    Named("bare threads"),             1.05),
    goal("T6",      "ns/task", "ours",        Best,                              0.45),
    goal("T7",      "ms",      "ours",        Named("bare threads"),             1.03),
    goal("T7",      "ms",      "ours",        Named("sequential"),               0.56),
    goal("T8",      "bytes",   "ours",        Named("blocking"),                 0.80),
    goal("T8",      "bytes",   "ours",        Named("rayon"),                    0.57),
    goal("T9-2",    "first",   "ours",        Named("spawn_blocking"),           1.00),
    goal("T9-2",    "one",     "ours",        Named("spawn_blocking"),           1.00),
    goal("T9-2",    "all",     "ours",        Named("bare threads"),             1.10),
    goal("T9-64",   "one",     "ours",        Best,                              1.00),
    goal("T9-64",   "all",     "ours",        Named("bare threads"),             1.15),
    goal("T10-all", "ns/task", "ours",        Best,                              0.40),
    goal("T10-64",  "ns/task", "ours",        Best,                              0.50),
    goal("T10-one", "ns/task", "ours",        Best,                              0.50),
    goal("P1",      "median",  "ours",        Named("procspawn"),                0.0143),
    goal("P1",      "median",  "ours",        Named("concurrent.futures"),       0.005),
    goal("P1b",     "median",  "ours",        Named("shm + futex"),              1.30),
    goal("P2",      "us/task", "ours",        Named("procspawn"),                0.005),
    goal("P2",      "us/task", "ours",        Named("multiprocessing"),          0.0128),
    goal("P2",      "us/task", "ours",        Named("concurrent.futures"),       0.0033),
    goal("P2map",   "ns/item", "ours",        Named("procspawn"),                0.20),
    goal("P2map",   "ns/item", "ours",        Named("concurrent.futures"),       0.0167),
    goal("P3-1K",   "us",      "ours",        Named("procspawn"),                0.018),
    goal("P3-64K",  "us",      "ours",        Named("procspawn"),                0.053),
    goal("P3-1M",   "us",      "ours",        Named("procspawn"),                0.071),
    goal("P3-64M",  "us",      "ours",        Named("procspawn"),                0.125),
    goal("P4-2",    "ready",   "ours",        Named("procspawn"),                0.35),
    goal("P4-2",    "total",   "ours",        Named("procspawn"),                0.40),
    goal("P4-8",    "ready",   "ours",        Named("procspawn"),                0.40),
    goal("P4-8",    "total",   "ours",        Named("procspawn"),                0.40),
    goal("P5",      "ms",      "ours",        Named("ours threads"),             1.05),
    goal("P6",      "ms",      "ours",        Named("procspawn"),                0.90),
    goal("P6list",  "ms",      "ours",        Named("procspawn"),                0.15),
    goal("P6list",  "ms",      "ours",        Named("concurrent.futures"),       0.04),
    goal("P7",      "private", "ours",        Named("procspawn"),                1.00),
    goal("P7",      "private", "ours",        Named("concurrent.futures"),       0.167),
];

/// One goal, and its result.
pub(crate) struct Outcome {
    pub(crate) workload: &'static str,
    pub(crate) figure: &'static str,
    pub(crate) ours: (&'static str, f64),
    pub(crate) rival: (String, f64),
    pub(crate) goal: f64,
}

impl Outcome {
    pub(crate) fn ratio(&self) -> f64 {
        self.ours.1 / self.rival.1
    }

    pub(crate) fn is_met(&self) -> bool {
        self.ratio() <= self.goal
    }
}

/// The goals whose workloads have been run.
pub(crate) fn outcomes(tables: &[Table]) -> Vec<Outcome> {
    GOALS.iter().filter_map(|goal| outcome(goal, tables)).collect()
}

fn outcome(goal: &Goal, tables: &[Table]) -> Option<Outcome> {
    let table = tables.iter().find(|table| table.name == goal.workload)?;
    let column = table.columns.iter().position(|column| *column == goal.figure)?;
    let row = |name| table.rows.iter().find(|row| row.name == name);
    let best = |figure: fn(&Row, usize) -> f64| {
        let rivals = table.rows.iter().filter(|row| row.role == Role::Rival);
        rivals.map(|row| (row.name, figure(row, column))).min_by(|a, b| a.1.total_cmp(&b.1))
    };
    let rival = match goal.against {
        Best => best(|row, column| row.figures[column].median).map(|(name, figure)| (name.to_owned(), figure)),
        BestRound => {
            best(|row, column| row.figures[column].min).map(|(name, figure)| (format!("{name}, best round"), figure))
        }
        Named(name) => row(name).map(|row| (name.to_owned(), row.figures[column].median)),
    };
    let ours = (goal.ours, row(goal.ours)?.figures[column].median);
    Some(Outcome { workload: goal.workload, figure: goal.figure, ours, rival: rival?, goal: goal.ratio })
}
