//! The same two downloads as in `download_threads`, each in a separate process, which prints its lines itself.

use std::error::Error;
use std::time::{Duration, Instant};
use std::{process, thread};

use concurrent_futures::ProcessPoolExecutor;

#[path = "common/args.rs"]
mod args;

const USAGE: &str = "\
Two downloads, of 5 to 10 seconds each, in two processes at once. No network is used: they only sleep.

Usage: download_processes [--real]

  --real  wait in real time; without it, a second is scaled down to 100 ms";

const FILES: [&str; 2] = ["Python从入门到住院.pdf", "Peking Hot.avi"];

/// Runs in a worker process. All its data is in the argument: it cannot capture anything.
fn download((file, second): (String, Duration)) {
    println!("启动下载进程,进程号[{}].", process::id());
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
    let pool = ProcessPoolExecutor::new(FILES.len())?;
    let downloads = FILES.map(|file| pool.submit(download, (file.to_owned(), second)));
    for download in downloads {
        download.result()?;
    }
    println!("总共耗费了{:.2}秒.", start.elapsed().as_secs_f64() / second.as_secs_f64());
    Ok(())
}
