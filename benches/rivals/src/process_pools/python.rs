//! The pools of Python's standard library. Each run is a Python process of its own, which measures itself.

use std::process::{Command, Stdio};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/python/pools.py");

/// There is a Python.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Python(());

#[derive(Debug, Clone, Copy)]
pub(crate) enum PythonPool {
    Futures,
    Multiprocessing,
}

impl Python {
    /// Says so if there is none.
    pub(crate) fn find() -> Option<Self> {
        let there = Command::new("python3").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if there.is_ok_and(|status| status.success()) {
            return Some(Self(()));
        }
        println!("there is no python3: concurrent.futures and multiprocessing are left out");
        None
    }

    /// Has a workload run, and returns the figures.
    pub(crate) fn run(self, pool: PythonPool, workload: &str, numbers: &[usize]) -> Vec<f64> {
        let mut command = Command::new("python3");
        command.args([SCRIPT, pool.name(), workload]).args(numbers.iter().map(usize::to_string));
        let output = command.stderr(Stdio::inherit()).output().expect("python3 can be started");
        let text = String::from_utf8_lossy(&output.stdout);
        let figures: Option<Vec<f64>> = text.split_whitespace().map(|figure| figure.parse().ok()).collect();
        match figures {
            Some(figures) if output.status.success() => figures,
            _ => panic!("{} {workload} fails in Python: {text}", pool.name()),
        }
    }
}

impl PythonPool {
    pub(crate) const ALL: [Self; 2] = [Self::Futures, Self::Multiprocessing];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Futures => "concurrent.futures",
            Self::Multiprocessing => "multiprocessing",
        }
    }
}
