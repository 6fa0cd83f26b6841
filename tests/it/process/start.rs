//! Workers that do not start: other programs, other builds, crashes before they are ready; and a program that is no
//! worker although somebody pretends that it is.

use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Output, Stdio as Channel};
use std::time::Duration;

use concurrent_futures::{
    BuildError, ProcessPoolBuilder, ProcessPoolExecutor, SharedBytes, StartError, Stdio, TaskError,
};

use super::support::*;
use crate::support::{Burners, child_command, guarded, is_child, printed, rounds};

fn pid(_: ()) -> u32 {
    std::process::id()
}

fn builder() -> ProcessPoolBuilder {
    ProcessPoolExecutor::builder().max_workers(2).stdio(Stdio::Null)
}

/// Runs that test as a child, in a copy of this program.
fn in_copy(copy: &Path, test: &str) -> Output {
    let template = child_command(test);
    let mut command = Command::new(copy);
    command.args(template.get_args()).current_dir("/");
    command.envs(template.get_envs().filter_map(|(key, value)| Some((key, value?))));
    loop {
        match command.output() {
            // A process that another test is about to start has inherited the descriptor with which the copy was written.
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => std::thread::yield_now(),
            output => return output.unwrap(),
        }
    }
}

/// Why a pool with these settings never serves: said by every future, before and after.
fn broken_because(builder: ProcessPoolBuilder) -> StartError {
    let pool = builder.build().unwrap();
    let futures: Vec<_> = (0..10).map(|_| pool.submit(pid, ())).collect();
    let errors: Vec<_> = futures.into_iter().map(|future| future.result().unwrap_err()).collect();
    assert!(errors.iter().all(TaskError::is_broken), "{errors:?}");
    assert!(pool.submit(pid, ()).result().unwrap_err().is_broken());
    assert!(pool.try_submit(pid, ()).unwrap_err().reason().is_broken());
    assert!(pool.map(|n: u8| n, 0..5).all(|result| result.is_err_and(|error| error.is_broken())));
    poll(|| pool.worker_pids().is_empty());
    let TaskError::Broken(cause) = &errors[0] else { unreachable!() };
    cause.get_ref().downcast_ref::<StartError>().unwrap_or_else(|| panic!("{cause:?}")).clone()
}

// procspawn hangs when a child dies before its handshake.
#[test]
fn programs_that_end_at_once() {
    guarded(|| {
        for (program, code) in [("/bin/true", 0), ("/bin/false", 1)] {
            let error = broken_because(builder().worker_command([program]));
            let StartError::Died(exit) = error else { panic!("{program}: {error:?}") };
            assert_eq!(exit.code(), Some(code));
        }
    });
}

#[test]
fn a_program_that_is_killed_before_it_answers() {
    guarded(|| {
        let error = broken_because(builder().worker_command(["/bin/sh", "-c", "kill -SEGV $$"]));
        let StartError::Died(exit) = error else { panic!("{error:?}") };
        assert_eq!(exit.signal_name(), Some("SIGSEGV"));
    });
}

#[test]
fn what_it_wrote_to_stderr_before_it_ended_is_told() {
    guarded(|| {
        let sad = builder().stdio(Stdio::Capture).worker_command(["/bin/sh", "-c", "echo no such luck >&2; exit 9"]);
        let error = broken_because(sad);
        let StartError::Died(exit) = &error else { panic!("{error:?}") };
        assert_eq!((exit.code(), exit.stderr().map(str::trim_end)), (Some(9), Some("no such luck")));
        assert!(error.to_string().contains("no such luck"), "{error}");
    });
}

// It reads the greeting as an input, and writes it to the output.
#[test]
fn a_program_that_talks_and_is_no_worker() {
    guarded(|| {
        let error = broken_because(builder().worker_command(["/bin/cat"]).start_timeout(Duration::from_millis(100)));
        assert!(
            matches!(error, StartError::NoAnswer(_) | StartError::Died(_) | StartError::NotAWorker(_)),
            "{error:?}"
        );
    });
}

#[test]
fn a_program_that_answers_nonsense() {
    guarded(|| {
        let error = broken_because(builder().worker_command(["/bin/sh", "-c", "echo nonsense >&0; exec sleep 1000"]));
        assert!(matches!(error, StartError::NotAWorker(_)), "{error:?}");
    });
}

#[test]
fn a_program_that_never_answers() {
    guarded(|| {
        let limit = Duration::from_millis(50);
        let error = broken_because(builder().worker_command(["/bin/sleep", "1000"]).start_timeout(limit));
        assert!(matches!(error, StartError::NoAnswer(time) if time == limit), "{error:?}");
    });
}

#[test]
fn a_program_that_does_not_exist() {
    guarded(|| {
        let pool = builder().worker_command(["/no/such/program"]).build().unwrap();
        let error = pool.submit(pid, ()).result().unwrap_err();
        assert!(error.is_spawn() || error.is_broken(), "{error:?}");
        let error = pool.submit(pid, ()).result().unwrap_err();
        assert!(error.is_spawn() || error.is_broken(), "{error:?}");
    });
}

#[test]
fn the_number_of_attempts_is_limited() {
    guarded(|| {
        for limit in [1, 2, 7] {
            let folder = Folder::new();
            let (ledger, path) = (folder.ledger("ledger"), folder.path().join("ledger"));
            let script = format!("echo x >> {}; exit 1", path.display());
            broken_because(builder().max_workers(1).restart_limit(limit).worker_command(["/bin/sh", "-c", &script]));
            // One more may have been started when the last of them was seen to go, and was not yet counted.
            let starts = ledger.lines().len();
            assert!((limit as usize..=limit as usize + 1).contains(&starts), "{starts} starts, {limit} allowed");
        }
    });
}

// The program itself, with a wrapper around it, is a good worker.
#[test]
fn the_same_program_by_way_of_another() {
    guarded(|| {
        let this = std::env::current_exe().unwrap();
        let pool = builder().worker_command(["/usr/bin/env".into(), this]).build().unwrap();
        assert_ne!(pool.submit(pid, ()).result().unwrap(), std::process::id());
    });
}

#[test]
fn another_build_of_the_program_is_refused() {
    guarded(|| {
        let Some(other) = another_build() else { return };
        let error = broken_because(builder().worker_command([other]));
        let StartError::WrongBuild { expected, found } = error else { panic!("{error:?}") };
        assert_ne!(expected, found);
    });
}

/// A program that has the same library in it: the other tests of this package were built beside these.
fn another_build() -> Option<std::path::PathBuf> {
    let this = std::env::current_exe().unwrap();
    let bench = this.parent()?.parent()?.join("examples").join("is_prime_threads");
    bench.exists().then_some(bench)
}

#[test]
fn an_initializer_runs_before_the_first_task() {
    use std::sync::OnceLock;
    static WORD: OnceLock<String> = OnceLock::new();
    guarded(|| {
        let pool = builder().initializer(|word| WORD.set(word).unwrap(), "sesame".to_owned()).build().unwrap();
        for _ in 0..10 {
            assert_eq!(pool.submit(|_: ()| WORD.get().unwrap().clone(), ()).result().unwrap(), "sesame");
        }
        assert!(WORD.get().is_none(), "not in this process");
    });
}

// The second worker may get nothing but the initializer: it has to hear of it, however late the parent is with it.
#[test]
fn workers_that_get_only_the_initializer() {
    guarded(|| {
        let burners = Burners::new(4);
        for n in rounds(100) {
            let pool = builder().initializer(|_: u64| (), 3).build().unwrap();
            let futures = [n, n].map(|n| pool.submit(|n: usize| n + 1, n));
            futures.into_iter().for_each(|future| assert_eq!(future.result().unwrap(), n + 1));
            drop(pool);
        }
        drop(burners);
    });
}

// The initializer is no task: the first task can wait behind it, and needs no second worker.
#[test]
fn an_initializer_takes_no_place_from_a_task() {
    guarded(|| {
        let folder = Folder::new();
        let (ledger, go_on) = (folder.ledger("ledger"), folder.sign("go_on"));
        let wait = |(ledger, go_on): (Ledger, Sign)| {
            ledger.write(std::process::id());
            go_on.wait();
        };
        let pool = builder().max_workers(8).initializer(wait, (ledger.clone(), go_on.clone())).build().unwrap();
        let future = pool.submit(pid, ());
        poll(|| !ledger.lines().is_empty());
        // If another worker were wanted, it would be started now: nothing is in the way.
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(pool.worker_pids().len(), 1);
        go_on.give();
        let worker = future.result().unwrap();
        assert_eq!((pool.worker_pids(), ledger.lines()), (vec![worker], vec![worker.to_string()]));
    });
}

#[test]
fn the_argument_of_an_initializer_may_have_shared_bytes() {
    use std::sync::OnceLock;
    static TABLE: OnceLock<(SharedBytes, u8)> = OnceLock::new();
    guarded(|| {
        let table = SharedBytes::with(1 << 20, |bytes| bytes[1 << 19] = 42).unwrap();
        let keep = |table: (SharedBytes, u8)| TABLE.set(table).unwrap();
        let pool = builder().max_tasks_per_child(2).initializer(keep, (table, 7)).build().unwrap();
        let look = |place: usize| TABLE.get().map(|(bytes, number)| (bytes[place], bytes.len(), *number)).unwrap();
        for _ in 0..6 {
            assert_eq!(pool.submit(look, 1 << 19).result().unwrap(), (42, 1 << 20, 7));
        }
    });
}

#[test]
fn an_initializer_whose_argument_is_too_long() {
    guarded(|| {
        let error = builder().initializer(|_: Vec<u8>| (), vec![0; 65 << 10]).build().unwrap_err();
        assert!(matches!(error, BuildError::Initializer(_)) && error.to_string().contains("65536"), "{error}");
        let pool = builder().initializer(|_: Vec<u8>| (), vec![0; 63 << 10]).build().unwrap();
        pool.submit(pid, ()).result().unwrap();
    });
}

#[test]
fn failing_initializer() {
    guarded(|| {
        let pool = builder().initializer(|_: ()| panic!("not today"), ()).build().unwrap();
        let futures: Vec<_> = (0..10).map(|_| pool.submit(pid, ())).collect();
        for future in futures {
            let error = future.result().unwrap_err();
            assert!(error.is_broken() && error.to_string().contains("not today"), "{error}");
        }
        assert!(pool.submit(pid, ()).result().unwrap_err().is_broken());
        poll(|| pool.worker_pids().is_empty());
    });
}

#[test]
fn an_initializer_that_ends_its_process() {
    guarded(|| {
        let error = broken_because(builder().initializer(|code: i32| std::process::exit(code), 17));
        let StartError::Died(exit) = error else { panic!("{error:?}") };
        assert_eq!(exit.code(), Some(17));
        let error = broken_because(builder().initializer(|_: ()| std::process::abort(), ()));
        let StartError::Died(exit) = error else { panic!("{error:?}") };
        assert_eq!(exit.signal_name(), Some("SIGABRT"));
    });
}

// Bad luck now and then is no crash loop.
#[test]
fn an_initializer_that_fails_at_times() {
    guarded(|| {
        let folder = Folder::new();
        let ledger = folder.ledger("ledger");
        let every_second = |ledger: Ledger| {
            ledger.write(std::process::id());
            if ledger.lines().len() % 2 == 1 {
                std::process::abort();
            }
        };
        let pool =
            builder().max_workers(1).max_tasks_per_child(1).initializer(every_second, ledger.clone()).build().unwrap();
        for _ in 0..10 {
            pool.submit(pid, ()).result().unwrap();
        }
        assert!(ledger.lines().len() >= 20);
    });
}

// The variable alone makes no worker, whatever it says: anybody could have set it.
#[test]
fn the_variable_alone_makes_no_worker() {
    if is_child() {
        println!("\nthis is main");
        assert_eq!(pool(1).submit(|n: u32| n + 1, 1).result().unwrap(), 2);
        return;
    }
    guarded(|| {
        for value in ["1:0:1", "1:ffffffffffffffff:1", "", "1", "nonsense", "1:1:99999999999999999999"] {
            let mut command = child_command("process::start::the_variable_alone_makes_no_worker");
            command.env("CONCURRENT_FUTURES_WORKER", value);
            let output = command.stdin(Channel::null()).output().unwrap();
            assert!(output.status.success(), "{value:?}: {}", printed(&output));
            assert!(String::from_utf8_lossy(&output.stdout).contains("\nthis is main"), "{value:?}");
        }
    });
}

// Nor does a socket on standard input: there has to be a greeting in it, with the right number.
#[test]
fn a_socket_without_the_greeting_makes_no_worker() {
    use std::io::Write;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    if is_child() {
        println!("\nthis is main");
        return;
    }
    guarded(|| {
        for greeting in [&b""[..], b"\x01", b"\x01\x01\x05garbage", b"hello there", &[1; 300]] {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            ours.write_all(greeting).unwrap();
            drop(ours);
            let mut command = child_command("process::start::a_socket_without_the_greeting_makes_no_worker");
            command.env("CONCURRENT_FUTURES_WORKER", "1:0:1").stdin(Channel::from(OwnedFd::from(theirs)));
            let output = command.output().unwrap();
            assert!(output.status.success(), "{greeting:?}: {}", printed(&output));
            assert!(String::from_utf8_lossy(&output.stdout).contains("\nthis is main"), "{greeting:?}");
        }
    });
}

/// What a pool sends to its workers first, as a program that is no worker sees it.
fn greeting() -> Vec<u8> {
    let folder = Folder::new();
    let path = folder.path().join("greeting");
    let keep = format!("exec dd bs=64k count=1 of={} 2>/dev/null", path.display());
    broken_because(builder().max_workers(1).worker_command(["/bin/sh", "-c", &keep]));
    let mut greeting = std::fs::read(path).unwrap();
    // The rest makes no sense without what it came with.
    greeting.truncate(16);
    greeting
}

// Who can connect to a service, but could not control its process otherwise, cannot make a worker of it.
#[test]
#[allow(unsafe_code)]
fn a_greeting_from_another_user_makes_no_worker() {
    use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};
    const TEST: &str = "process::start::a_greeting_from_another_user_makes_no_worker";
    if is_child() && std::env::var_os("CONCURRENT_FUTURES_TEST_MAIN").is_some() {
        return println!("\nthis is main");
    }
    if !may_change_user() {
        return;
    }
    alone("start::a_greeting_from_another_user_makes_no_worker", || {
        let greeting = greeting();
        for (maker, is_main) in [(NOBODY, true), (0, false)] {
            // SAFETY: the call has no conditions.
            unsafe { assert_eq!(libc::seteuid(maker), 0) };
            let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
            // SAFETY: as above.
            unsafe { assert_eq!(libc::seteuid(0), 0) };
            let (ours, theirs) = pair.unwrap();
            send(&ours, &greeting, SendFlags::empty()).unwrap();
            let template = child_command(TEST);
            // The shell stands between the two, so that the maker is not the parent.
            let mut command = Command::new("/bin/sh");
            command.args(["-c", "\"$0\" \"$@\"; exit $?"]).arg(template.get_program()).args(template.get_args());
            command.envs(template.get_envs().filter_map(|(key, value)| Some((key, value?))));
            command.env("CONCURRENT_FUTURES_TEST_MAIN", "1").stdin(Channel::from(theirs));
            let output = command.output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout).contains("\nthis is main");
            assert_eq!((said, output.status.success()), (is_main, is_main), "{}", printed(&output));
        }
    });
}

#[test]
fn a_greeting_of_another_version_is_refused() {
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
    const TEST: &str = "process::start::a_greeting_of_another_version_is_refused";
    if is_child() {
        return println!("\nthis is main");
    }
    guarded(|| {
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        let (ours, theirs) = pair.unwrap();
        let mut greeting = greeting();
        greeting.extend([0xff; 3]);
        send(&ours, &greeting, SendFlags::empty()).unwrap();
        let output = child_command(TEST).stdin(Channel::from(theirs)).output().unwrap();
        assert_eq!(output.status.code(), Some(71), "{}", printed(&output));
        let mut answer = [0; 1024];
        let (length, _) = recv(&ours, &mut answer, RecvFlags::empty()).unwrap();
        assert_eq!(answer[0], 2, "READY");
        let text = String::from_utf8_lossy(&answer[1..length]);
        assert!(text.contains("another version of `concurrent_futures`"), "{text}");
    });
}

// A program with more rights than its caller has no workers: the caller would control them.
#[test]
fn a_privileged_program_has_no_workers() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    if is_child() {
        assert_eq!(ProcessPoolExecutor::new(1).unwrap_err(), BuildError::Privileged);
        return;
    }
    guarded(|| {
        // It takes a user and a file of another: only root can arrange for that.
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = Folder::new();
        let (this, copy) = (std::env::current_exe().unwrap(), folder.path().join("setuid"));
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::copy(this, &copy).unwrap();
        chown(&copy, Some(12_345), None).unwrap();
        std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o4755)).unwrap();
        assert_eq!(std::fs::metadata(&copy).unwrap().uid(), 12_345);
        let output = in_copy(&copy, "process::start::a_privileged_program_has_no_workers");
        assert!(output.status.success(), "{}", printed(&output));
    });
}

#[test]
fn the_executable_is_deleted_while_it_runs() {
    if !shares_memory() {
        return;
    }
    if is_child() {
        let this = std::env::current_exe().unwrap();
        let pool = pool(1);
        let first = pool.submit(pid, ()).result().unwrap();
        std::fs::remove_file(&this).unwrap();
        // Somebody else's program in its place.
        std::fs::write(&this, "#!/bin/false\n").unwrap();
        signal(first, rustix::process::Signal::KILL);
        assert_ne!(pool.submit(pid, ()).result().unwrap(), first);
        return;
    }
    guarded(|| {
        let folder = Folder::new();
        let copy = folder.path().join("copy");
        std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
        let output = in_copy(&copy, "process::start::the_executable_is_deleted_while_it_runs");
        assert!(output.status.success(), "{}", printed(&output));
    });
}

/// A program without the hook in front of `main` calls `run_if_worker` there. These tests have the hook, so the socket that tells
/// that they are workers is kept from it under another number, and comes back before the call.
const HIDDEN: i32 = 4;
/// Where that call is made.
const CALLED: &str = "CONCURRENT_FUTURES_TEST_CALLED";

fn hidden_from_the_hook(called: &str, arguments: &str) -> ProcessPoolBuilder {
    let script = format!(
        "{CALLED}={called}; export {CALLED}; unset CONCURRENT_FUTURES_WORKER; \
         exec \"$0\" {arguments} {HIDDEN}<&0 </dev/null"
    );
    let this = std::env::current_exe().unwrap();
    builder().max_workers(1).worker_command(["/bin/sh".into(), "-c".into(), script.into(), this.into_os_string()])
}

/// What was opened before the call, in a process that makes it.
static OPENED: std::sync::OnceLock<std::fs::File> = std::sync::OnceLock::new();

fn call_run_if_worker(called: &str) {
    if std::env::var(CALLED).as_deref() != Ok(called) {
        return;
    }
    let _ = OPENED.set(std::fs::File::open("/proc/self/exe").unwrap());
    #[allow(unsafe_code)]
    // SAFETY: nothing in this process owns that descriptor.
    unsafe {
        assert_eq!(libc::dup2(HIDDEN, 0), 0);
        assert_eq!(libc::close(HIDDEN), 0);
    }
    concurrent_futures::worker::run_if_worker();
    unreachable!("this process is a worker");
}

/// Runs before the threads of the tests are started, as the beginning of a `main` of one's own would.
#[allow(unsafe_code)]
mod beginning {
    #[used]
    #[unsafe(link_section = ".init_array")]
    static BEGINNING: extern "C" fn() = beginning;

    extern "C" fn beginning() {
        super::call_run_if_worker("at the beginning");
    }
}

#[test]
fn a_worker_that_main_enters_keeps_what_main_has_opened() {
    guarded(|| {
        let pool = hidden_from_the_hook("'at the beginning'", "").build().unwrap();
        let is_open = |_: ()| {
            let file = OPENED.get().expect("opened before `run_if_worker`");
            file.metadata().is_ok_and(|metadata| metadata.is_file())
        };
        assert!(pool.submit(is_open, ()).result().unwrap());
        let variable = |_: ()| std::env::var("CONCURRENT_FUTURES_WORKER").ok();
        assert_eq!(pool.submit(variable, ()).result().unwrap(), None);
    });
}

// The environment cannot be changed while another thread may read it.
#[test]
fn a_process_with_other_threads_does_not_become_a_worker() {
    call_run_if_worker("late");
    guarded(|| {
        let this = "process::start::a_process_with_other_threads_does_not_become_a_worker --exact";
        let error = broken_because(hidden_from_the_hook("late", this));
        let StartError::NotAWorker(reason) = &error else { panic!("{error:?}") };
        assert!(reason.contains("threads") && reason.contains("run_if_worker"), "{reason}");
    });
}
