//! Two concurrent downloads on the threads of a pool: together they take as long as the longer one, not as long as both.

use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

use concurrent_futures::ThreadPoolExecutor;

#[path = "common/args.rs"]
mod args;

const USAGE: &str = "\
Two downloads, of 5 to 10 seconds each, at once. No network is used: they only sleep.

Usage: download_threads [--real]

  --real  wait in real time; without it, a second is scaled down to 100 ms";

const FILES: [&str; 2] = ["Python从入门到住院.pdf", "Peking Hot.avi"];

fn download(file: &str, second: Duration) {
    println!("开始下载{file}...");
    let seconds = fastrand::u32(5..=10);
    thread::sleep(seconds * second);
    println!("{file}下载完成! 耗费了{seconds}秒");
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = args::arguments(USAGE);
    let second = match arguments[..] {
        [] => Duration::from_millis(100),
        ["--real"] => Duration::from_secs(1),
        _ => args::reject(USAGE, &arguments),
    };
    if second < Duration::from_secs(1) {
        println!("(Here a second lasts {second:?}; --real makes it a real one.)");
    }

    let start = Instant::now();
    let pool = ThreadPoolExecutor::new(FILES.len())?;
    let downloads = FILES.map(|file| pool.submit(move || download(file, second)));
    for download in downloads {
        download.result()?;
    }
    println!("总共耗费了{:.3}秒", start.elapsed().as_secs_f64() / second.as_secs_f64());
    Ok(())
}
