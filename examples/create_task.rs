//! An async function as a task: it starts at once, a callback runs when it is done, and `main` waits for its handle.

use std::error::Error;
use std::time::{Duration, Instant};

use concurrent_futures::{ThreadPoolExecutor, block_on};
use smol::Timer;

#[path = "common/args.rs"]
mod args;

const USAGE: &str = "\
Simulates fetching a page, which takes a second, and prints the time in a callback. No network is used: it only waits.

Usage: create_task";

async fn get_html(_url: &str) -> &'static str {
    println!("start get url");
    Timer::after(Duration::from_secs(1)).await;
    println!("end get url");
    "<html></html>"
}

/// The seconds since the start, by a monotonic clock.
struct LoopTime(Instant);

impl LoopTime {
    fn time(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}

fn callback(i: u32, clock: &LoopTime) {
    println!("success time {i} {}", clock.time());
    assert!(clock.time() >= 1.0);
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = args::arguments(USAGE);
    if !arguments.is_empty() {
        args::reject(USAGE, &arguments);
    }

    let clock = LoopTime(Instant::now());
    let pool = ThreadPoolExecutor::new(1)?;
    let task = pool.spawn(get_html("http://www.example.com/"));
    task.add_done_callback(move |_page| callback(1, &clock));
    // Callbacks run before a future is seen as done, so their line has been printed when the page is here.
    let page = block_on(task)?;
    assert_eq!(page, "<html></html>");
    Ok(())
}
