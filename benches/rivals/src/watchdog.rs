//! A contender that never comes back would otherwise leave nothing behind but silence.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// No run takes nearly as long, whatever else the machine does.
const LIMIT: Duration = Duration::from_secs(180);

static RUNNING: Mutex<Option<(Instant, String)>> = Mutex::new(None);

/// Starts the thread that looks, now and then, whether a run hangs: then it says which, and ends the process.
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

/// Runs `f`, watched, under a name.
pub(crate) fn watch<T>(workload: &str, contender: &str, f: impl FnOnce() -> T) -> T {
    let set = |what| *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) = what;
    set(Some((Instant::now(), format!("{workload}, {contender},"))));
    let result = f();
    set(None);
    result
}
