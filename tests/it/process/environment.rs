//! What lies between the host and its workers: programs that clear the environment, close standard input, or start the worker in a
//! process of its own. A worker knows that it is one all the same, or the pool is broken and says why; `main` does not run again and
//! again.

use std::ffi::OsString;

use concurrent_futures::{BuildError, ProcessPoolBuilder, ProcessPoolExecutor, StartError, Stdio, TaskError};

use super::support::*;
use crate::support::{LIMIT, child_command, guarded, is_child, printed, watchdog};

/// The environment variable that makes the constructor below clear the environment; its value is that of the next.
const CLEAR: &str = "CONCURRENT_FUTURES_TEST_CLEAR";
/// Names the ledger in which every run of `main` writes a line.
const LEDGER: &str = "CONCURRENT_FUTURES_TEST_LEDGER";
const VARIABLE: &str = "CONCURRENT_FUTURES_WORKER";

/// What a preloaded library might do.
#[allow(unsafe_code)]
mod constructor {
    #[used]
    // SAFETY: constructors run in front of `main`, one after the other, when there are no other threads.
    #[unsafe(link_section = ".init_array")]
    static CONSTRUCTOR: extern "C" fn() = {
        extern "C" fn clear_environment() {
            // SAFETY: as above.
            unsafe {
                let ledger = libc::getenv(c"CONCURRENT_FUTURES_TEST_CLEAR".as_ptr());
                if !ledger.is_null() {
                    let ledger = libc::strdup(ledger);
                    libc::clearenv();
                    // If this comes to `main` all the same, it must not take itself for the first process.
                    libc::setenv(c"CONCURRENT_FUTURES_TEST_CHILD".as_ptr(), c"1".as_ptr(), 1);
                    libc::setenv(c"CONCURRENT_FUTURES_TEST_LEDGER".as_ptr(), ledger, 1);
                }
            }
        }
        clear_environment
    };
}

fn pid(_: ()) -> u32 {
    std::process::id()
}

fn builder() -> ProcessPoolBuilder {
    ProcessPoolExecutor::builder().max_workers(2).stdio(Stdio::Null)
}

/// A shell that runs the program that it is given in this way.
fn shell(script: &str) -> Vec<OsString> {
    ["/bin/sh", "-c", script].map(OsString::from).into()
}

/// This test as a program, with what it needs in its environment.
fn this_test(test: &str, keep: bool) -> Vec<OsString> {
    let template = child_command(&format!("process::environment::{test}"));
    let mut words = Vec::new();
    if keep {
        let kept = template.get_envs().filter_map(|(key, value)| Some((key, value?)));
        let ledger = std::env::var_os(LEDGER).unwrap();
        for (key, value) in kept.chain([(LEDGER.as_ref(), &*ledger)]) {
            let mut word = key.to_owned();
            word.push("=");
            word.push(value);
            words.push(word);
        }
    }
    words.push(template.get_program().to_owned());
    words.extend(template.get_args().map(OsString::from));
    words
}

/// Runs the test again as a host whose workers start by way of `wrapper`, which may be one that is to be told what it should `keep` of
/// the environment. `body` gets the builder. Returns what all runs of `main` have written, the host's own first.
fn by_way_of(
    test: &str,
    wrapper: Vec<OsString>,
    keep: bool,
    body: impl FnOnce(ProcessPoolBuilder) + Send + 'static,
) -> Vec<String> {
    if is_child() {
        let ledger = Ledger::at(std::env::var_os(LEDGER).unwrap());
        if !ledger.lines().is_empty() {
            // A worker's start has come to `main`.
            ledger.write(format!("{:?}", ProcessPoolExecutor::new(1).err()));
            std::process::exit(9);
        }
        ledger.write("host");
        let command: Vec<_> = wrapper.into_iter().chain(this_test(test, keep)).collect();
        guarded(move || body(builder().worker_command(command)));
        return ledger.lines();
    }
    let folder = Folder::new();
    let ledger = folder.ledger("ledger");
    let mut command = child_command(&format!("process::environment::{test}"));
    command.env(LEDGER, folder.path().join("ledger"));
    let output = watchdog(2 * LIMIT, move || command.output().unwrap());
    assert!(output.status.success(), "{}\n{:?}", printed(&output), ledger.lines());
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{}", printed(&output));
    let lines = ledger.lines();
    assert_eq!(lines[0], "host");
    lines
}

/// The pool works, all of it.
fn works(builder: ProcessPoolBuilder) {
    let pool = builder.build().unwrap();
    for _ in 0..3 {
        let futures: Vec<_> = (0..20u32).map(|n| pool.submit(|n: u32| n + 1, n)).collect();
        futures.into_iter().zip(1..).for_each(|(future, n)| assert_eq!(future.result().unwrap(), n));
    }
    assert!(pool.submit(|_: ()| -> () { std::process::abort() }, ()).result().unwrap_err().is_worker_died());
    let folder = Folder::new();
    let ledger = folder.ledger("ledger");
    let wait = |ledger: Ledger| -> () {
        // Its number as the host knows it.
        ledger.write(std::fs::read_link("/proc/self").unwrap().display());
        loop {
            std::thread::park();
        }
    };
    let future = pool.submit(wait, ledger.clone());
    poll(|| !ledger.lines().is_empty());
    assert!(future.cancel());
    let worker = ledger.lines()[0].parse().unwrap();
    poll(|| !is_running(worker));
    assert_ne!(pool.submit(pid, ()).result().unwrap(), std::process::id());
}

/// Why the pool is broken.
fn broken_because(builder: ProcessPoolBuilder) -> StartError {
    let pool = builder.build().unwrap();
    let error = pool.submit(pid, ()).result().unwrap_err();
    let TaskError::Broken(cause) = &error else { panic!("{error:?}") };
    poll(|| pool.worker_pids().is_empty());
    cause.get_ref().downcast_ref::<StartError>().unwrap_or_else(|| panic!("{cause:?}")).clone()
}

#[test]
fn a_cleared_environment() {
    let clear = ["/usr/bin/env", "-i"].map(OsString::from).into();
    assert_eq!(by_way_of("a_cleared_environment", clear, true, works), ["host"]);
}

#[test]
fn a_constructor_that_clears_the_environment() {
    let test = "a_constructor_that_clears_the_environment";
    let clear = |builder: ProcessPoolBuilder| works(builder.env(CLEAR, std::env::var_os(LEDGER).unwrap()));
    assert_eq!(by_way_of(test, Vec::new(), false, clear), ["host"]);
}

#[test]
fn a_variable_that_says_something_else() {
    let other = ["/usr/bin/env", "CONCURRENT_FUTURES_WORKER=nonsense"].map(OsString::from).into();
    assert_eq!(by_way_of("a_variable_that_says_something_else", other, false, works), ["host"]);
}

#[test]
fn a_shell_that_waits_for_the_worker() {
    let wait = shell("\"$0\" \"$@\"; exit $?");
    assert_eq!(by_way_of("a_shell_that_waits_for_the_worker", wait, false, works), ["host"]);
}

#[test]
fn a_process_namespace_of_its_own() {
    let unshare = ["unshare", "-p", "-f"];
    let can = std::process::Command::new(unshare[0]).args(&unshare[1..]).arg("true").status();
    if !can.is_ok_and(|status| status.success()) {
        return println!("not tested: there can be no new process namespace here");
    }
    let unshare = unshare.map(OsString::from).into();
    assert_eq!(by_way_of("a_process_namespace_of_its_own", unshare, false, works), ["host"]);
}

fn input_is_lost(test: &str, script: &str) {
    let lines = by_way_of(test, shell(script), false, |builder| {
        let error = broken_because(builder);
        assert!(error.to_string().contains("standard input"), "{error}");
    });
    assert_eq!(lines, ["host"]);
}

#[test]
fn standard_input_closed_on_the_way() {
    input_is_lost("standard_input_closed_on_the_way", "exec \"$0\" \"$@\" <&-");
}

#[test]
fn standard_input_replaced_on_the_way() {
    input_is_lost("standard_input_replaced_on_the_way", "exec \"$0\" \"$@\" </dev/null");
}

#[test]
fn standard_input_moved_on_the_way() {
    input_is_lost("standard_input_moved_on_the_way", "exec \"$0\" \"$@\" 4<&0 </dev/null");
}

// Nothing in the process says any more that it is a worker. The pool sees that its end of the socket is gone.
#[test]
fn a_cleared_environment_and_standard_input_closed_on_the_way() {
    let lost = shell("exec /usr/bin/env -i \"$@\" <&-");
    // The shell takes the first word behind the script for its own name.
    let lost = lost.into_iter().chain(["sh".into()]).collect();
    let test = "a_cleared_environment_and_standard_input_closed_on_the_way";
    let lines = by_way_of(test, lost, true, |builder| {
        let error = broken_because(builder.restart_limit(2));
        assert!(matches!(error, StartError::Died(_)), "{error:?}");
    });
    assert!(lines.len() <= 3, "{lines:?}");
}

// With something between it and the host, this is `main`; but it has no workers of its own.
#[test]
fn a_worker_that_comes_to_main_has_no_pools() {
    let stray = shell("\"$0\" \"$@\" 4<&0 </dev/null; exit $?");
    let lines = by_way_of("a_worker_that_comes_to_main_has_no_pools", stray, false, |builder| {
        let StartError::Died(exit) = broken_because(builder) else { panic!() };
        assert_eq!(exit.code(), Some(9));
    });
    if !is_child() {
        let stray = format!("{:?}", Some(BuildError::StrayWorker));
        assert_eq!(lines[1..], [stray.clone(), stray.clone(), stray]);
    }
}

fn descend((depth, command): (u32, Vec<String>)) -> Result<u32, String> {
    match builder().max_workers(1).worker_command(command.clone()).build() {
        Ok(pool) => pool.submit(descend, (depth + 1, command)).result().unwrap(),
        Err(BuildError::TooDeep { limit }) if limit == depth => Ok(depth),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn the_depth_survives_a_cleared_environment() {
    let test = "the_depth_survives_a_cleared_environment";
    let clear = ["/usr/bin/env", "-i"].map(OsString::from);
    let words = clear.clone().into();
    let lines = by_way_of(test, words, true, move |_| {
        let command = clear.into_iter().chain(this_test(test, true)).map(|word| word.into_string().unwrap()).collect();
        assert_eq!(descend((0, command)), Ok(8));
    });
    assert_eq!(lines, ["host"]);
}

#[test]
fn the_variable_of_the_crate_is_not_for_others() {
    for builder in [builder().env(VARIABLE, "1"), builder().env_remove(VARIABLE)] {
        assert_eq!(builder.build().unwrap_err(), BuildError::ReservedVariable(VARIABLE));
    }
    assert!(BuildError::ReservedVariable(VARIABLE).to_string().contains(VARIABLE));
}

/// A script that counts its starts in the ledger.
fn counting(folder: &Folder, then: &str) -> Vec<OsString> {
    shell(&format!("echo x >> {}; {then}", folder.path().join("ledger").display()))
}

#[test]
fn one_start_is_in_flight_until_a_worker_has_answered() {
    guarded(|| {
        let folder = Folder::new();
        let ledger = folder.ledger("ledger");
        let never = counting(&folder, "exec sleep 1000");
        let pool = builder().max_workers(8).start_timeout(std::time::Duration::from_millis(300));
        let pool = pool.worker_command(never).build().unwrap();
        let futures: Vec<_> = (0..100).map(|_| pool.submit(pid, ())).collect();
        assert!(futures.into_iter().all(|future| future.result().is_err_and(|error| error.is_broken())));
        assert_eq!(ledger.lines().len(), 1);
    });
}

#[test]
fn restart_limit_is_the_number_of_starts() {
    guarded(|| {
        for limit in [1, 2, 5] {
            let folder = Folder::new();
            let ledger = folder.ledger("ledger");
            let pool = builder().max_workers(8).restart_limit(limit).worker_command(counting(&folder, "exit 3"));
            let pool = pool.build().unwrap();
            let futures: Vec<_> = (0..100).map(|_| pool.submit(pid, ())).collect();
            for future in futures {
                let error = future.result().unwrap_err();
                assert!(error.is_broken() && error.to_string().contains("exited with code 3"), "{error}");
            }
            assert_eq!(ledger.lines().len(), limit as usize);
        }
    });
}

// Workers that came before do not help those that come later and fail.
#[test]
fn starts_that_fail_later_break_the_pool_too() {
    guarded(|| {
        let folder = Folder::new();
        let (ledger, sign) = (folder.ledger("ledger"), folder.sign("sign"));
        let sign_path = folder.path().join("sign");
        let this = std::env::current_exe().unwrap();
        let script = format!("if [ -e {} ]; then exit 3; else exec {}; fi", sign_path.display(), this.display());
        let pool = builder().max_workers(8).worker_command(counting(&folder, &script)).build().unwrap();
        let first = Plug::new(&pool);
        sign.give();
        let second = pool.submit(pid, ());
        let error = second.result().unwrap_err();
        assert!(error.is_broken() && error.to_string().contains("exited with code 3"), "{error}");
        assert_eq!(ledger.lines().len(), 4, "the one that works, and three attempts");
        let _ = first.end();
    });
}
