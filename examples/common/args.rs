//! The command line of the examples: a few arguments, and `--help`.

use std::env;
use std::ffi::OsString;
use std::process;

/// The arguments, as `'static` strings. With `--help`, prints `usage` and ends the program.
pub(crate) fn arguments(usage: &str) -> Vec<&'static str> {
    let text = |argument: OsString| &*argument.to_string_lossy().into_owned().leak();
    let arguments: Vec<&str> = env::args_os().skip(1).map(text).collect();
    if arguments.contains(&"--help") || arguments.contains(&"-h") {
        println!("{usage}");
        process::exit(0);
    }
    arguments
}

/// Ends the program with an error about the command line.
pub(crate) fn reject(usage: &str, arguments: &[&str]) -> ! {
    eprintln!("cannot make sense of: {}\n\n{usage}", arguments.join(" "));
    process::exit(2)
}
