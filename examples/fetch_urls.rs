//! Fetches pages concurrently and prints them in the order in which they arrive; a failure is printed with its URL.

use std::error::Error;
use std::time::Duration;

use concurrent_futures::{ThreadPoolExecutor, as_completed};
use ureq::Agent;

#[path = "common/args.rs"]
mod args;
#[path = "common/pages.rs"]
mod pages;

const USAGE: &str = "\
Fetches pages, five at a time, with a time-out of 60 seconds each, and prints how long each page is.

Usage: fetch_urls [--classic | URL...]

  --classic  the five sites of the Python documentation
  URL...     these pages

Without arguments it fetches pages of its own server: no network is needed.";

const CLASSIC: [&str; 5] = [
    "http://www.foxnews.com/",
    "http://www.cnn.com/",
    "http://europe.wsj.com/",
    "http://www.bbc.co.uk/",
    "http://some-made-up-domain.com/",
];

fn own_pages() -> Result<Vec<String>, Box<dyn Error>> {
    let server = pages::serve()?;
    let mut urls: Vec<String> =
        ["/bytes/1256", "/bytes/5000000", "/delay/400", "/missing"].map(|path| format!("{server}{path}")).into();
    urls.push("http://some-made-up-domain.invalid/".into());
    Ok(urls)
}

fn fetch(agent: &Agent, url: &str) -> Result<Vec<u8>, ureq::Error> {
    agent.get(url).call()?.body_mut().with_config().limit(u64::MAX).read_to_vec()
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = args::arguments(USAGE);
    let mut config = Agent::config_builder().timeout_global(Some(Duration::from_secs(60)));
    let urls: Vec<String> = match arguments[..] {
        [] => {
            // Its own server is reached without a proxy; a name server that does not answer delays this by at most 2 s.
            config = config.proxy(None).timeout_resolve(Some(Duration::from_secs(2)));
            own_pages()?
        }
        ["--classic"] => CLASSIC.map(str::to_owned).into(),
        [option, ..] if option.starts_with('-') => args::reject(USAGE, &arguments),
        _ => arguments.into_iter().map(str::to_owned).collect(),
    };
    let agent = Agent::new_with_config(config.build());

    let pool = ThreadPoolExecutor::new(5)?;
    let requests = urls.into_iter().map(|url| {
        let (agent, target) = (agent.clone(), url.clone());
        (url, pool.submit(move || fetch(&agent, &target)))
    });
    for (url, future) in as_completed(requests) {
        match future.result() {
            Ok(Ok(page)) => println!("'{url}' page is {} bytes", page.len()),
            Ok(Err(cause)) => println!("'{url}' generated an exception: {cause}"),
            Err(cause) => println!("'{url}' generated an exception: {cause}"),
        }
    }
    Ok(())
}
