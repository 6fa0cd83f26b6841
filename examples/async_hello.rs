//! An async function that waits a second between two words. The thread that runs it sleeps meanwhile.

use std::time::{Duration, Instant};

use concurrent_futures::block_on;
use smol::Timer;

#[path = "common/args.rs"]
mod args;

const USAGE: &str = "\
Prints a word, and a second later another one.

Usage: async_hello";

async fn hello() {
    println!("Hello ...");
    Timer::after(Duration::from_secs(1)).await;
    println!("... World!");
}

fn main() {
    let arguments = args::arguments(USAGE);
    if !arguments.is_empty() {
        args::reject(USAGE, &arguments);
    }

    let start = Instant::now();
    block_on(hello());
    assert!(start.elapsed() >= Duration::from_secs(1));
}
