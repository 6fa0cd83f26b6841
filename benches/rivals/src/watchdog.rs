//! Reports a contender that hangs, and ends the process.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Much longer than any run, even on a loaded machine.
const LIMIT: Duration = Duration::from_secs(180);

static RUNNING: Mutex<Option<(Instant, String)>> = Mutex::new(None);

/// Starts a thread that checks periodically whether a run hangs; if so, it prints which, and ends the process.
pub(crate) fn start() {
    thread::spawn(|| {
        loop {
            thread::sleep(LIMIT / 10);
            let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, what)) = running.as_ref().filter(|(start, _)| start.elapsed() > LIMIT) {
                eprintln!("{what} hangs: no end after {LIMIT:?}");
                std::process::exit(1);
            }
        }
    });
}

/// Runs `f` under a name, supervised by the watchdog.
pub(crate) fn watch<T>(workload: &str, contender: &str, f: impl FnOnce() -> T) -> T {
    let set = |what| *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) = what;
    set(Some((Instant::now(), format!("{workload}, {contender},"))));
    let result = f();
    set(None);
    result
}
