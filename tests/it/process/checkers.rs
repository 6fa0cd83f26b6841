//! Programs that run under a memory checker.

use std::process::Command;

use super::support::*;
use crate::support::{LIMIT, child_command, is_child, printed, watchdog};

/// Runs the test again under valgrind, where it uses a pool.
fn under_valgrind(test: &str, options: &[&str]) {
    if is_child() {
        return watchdog(8 * LIMIT, || {
            let pool = pool(1);
            assert_eq!(pool.submit(|n: u32| n + 1, 1).result().unwrap(), 2);
            assert!(pool.submit(|()| -> () { panic!("boo") }, ()).result().unwrap_err().is_panicked());
            let long = vec![7u8; 1 << 20];
            assert!(pool.submit(|bytes: Vec<u8>| bytes, long.clone()).result().unwrap() == long);
        });
    }
    if !Command::new("valgrind").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return println!("not tested: there is no valgrind here");
    }
    let template = child_command(&format!("process::checkers::{test}"));
    let mut command = Command::new("valgrind");
    command.args(["--quiet", "--error-exitcode=33", "--leak-check=no"]).args(options);
    command.arg(template.get_program()).args(template.get_args());
    command.envs(template.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let output = watchdog(10 * LIMIT, move || command.output().unwrap());
    assert!(output.status.success(), "{}", printed(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{}", printed(&output));
}

#[test]
fn valgrind() {
    under_valgrind("valgrind", &[]);
}

#[test]
#[ignore = "takes a while: ci/faults.sh"]
fn valgrind_with_the_workers() {
    under_valgrind("valgrind_with_the_workers", &["--trace-children=yes"]);
}
