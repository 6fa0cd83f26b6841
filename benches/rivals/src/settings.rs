//! The command line.

pub(crate) const USAGE: &str = "\
usage: rivals [WORKLOAD ...] [options]
       rivals profile WORKLOAD CONTENDER [--seconds N] [options]

workloads: T1 T2 T2b T3 T4 T5 T6 T7 T8 T9 T10 (or one of their parts, as T9-64),
           P1 P1b P2 P2map P3 P4 P5 P6 P6list P7; without any: all but P6list

  --full         more rounds, and P6list
  --rounds N     N rounds
  --tasks N      how many tasks T1, T3 and T6 submit (200000)
  --workers N    threads or processes of each pool, at least 2 (2)";

#[derive(Debug)]
pub(crate) enum Mode {
    Compare,
    Profile { contender: String, seconds: u64 },
}

#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) mode: Mode,
    workloads: Vec<String>,
    full: bool,
    pub(crate) rounds: usize,
    pub(crate) tasks: usize,
    pub(crate) workers: usize,
}

impl Settings {
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut words = Vec::new();
        let mut full = false;
        let (mut rounds, mut tasks, mut workers, mut seconds) = (5, 200_000, 2, 10);
        while let Some(argument) = arguments.next() {
            let mut number = || {
                let number = arguments.next().and_then(|number| number.parse::<usize>().ok());
                number.filter(|number| *number > 0).ok_or_else(|| format!("{argument} needs a positive number"))
            };
            match argument.as_str() {
                "--full" => (full, rounds) = (true, 15),
                "--rounds" => rounds = number()?,
                "--tasks" => tasks = number()?,
                "--workers" => workers = number()?,
                "--seconds" => seconds = number()? as u64,
                option if option.starts_with('-') => return Err(format!("unknown option {option}")),
                _ => words.push(argument),
            }
        }
        if workers < 2 {
            return Err("with one worker the rivals deadlock where a task waits for others".to_owned());
        }
        let (mode, workloads) = match words.as_slice() {
            [profile, workload, contender @ ..] if profile == "profile" => {
                (Mode::Profile { contender: contender.join(" "), seconds }, vec![workload.clone()])
            }
            _ => (Mode::Compare, words),
        };
        Ok(Self { mode, workloads, full, rounds, tasks, workers })
    }

    /// Was this workload requested? "T9" includes all its parts. A rare one must be named, or `--full` given.
    pub(crate) fn wants(&self, name: &str, is_rare: bool) -> bool {
        let whole = name.split('-').next();
        let is_named = self.workloads.iter().any(|asked| asked == name || Some(asked.as_str()) == whole);
        is_named || self.workloads.is_empty() && (!is_rare || self.full)
    }

    /// Was any workload requested that begins with this letter?
    pub(crate) fn wants_any(&self, letter: char) -> bool {
        self.workloads.is_empty() || self.workloads.iter().any(|asked| asked.starts_with(letter))
    }
}
