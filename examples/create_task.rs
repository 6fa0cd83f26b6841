//! An async function becomes a task: it runs at once and by itself, somebody is called back when it is done, and its handle is
//! waited for.

use std::error::Error;
use std::time::{Duration, Instant};

use concurrent_futures::{ThreadPoolExecutor, block_on};
use smol::Timer;

#[path = "common/args.rs"]
mod args;

const USAGE: &str = "\
Pretends to fetch a page, which takes a second, and calls back with the time. No network is used: it only waits.

Usage: create_task";

async fn get_html(_url: &str) -> &'static str {
    println!("start get url");
    Timer::after(Duration::from_secs(1)).await;
    println!("end get url");
    "<html></html>"
}

/// The seconds since the start, by a clock that is never set back.
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
    // Callbacks run before a future is seen as done: whoever has the page knows that its line has been printed.
    let page = block_on(task)?;
    assert_eq!(page, "<html></html>");
    Ok(())
}
