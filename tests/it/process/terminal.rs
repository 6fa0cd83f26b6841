//! Ctrl-C at a terminal: the signal goes to all processes in the foreground, workers included, and the parent decides what it
//! means.

#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{ExitStatus, Stdio as Channel};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::thread;

use rustix::fs::{Mode, OFlags, open};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::support::*;
use crate::support::{child_command, guarded, is_child};

/// How often this process has been interrupted.
static INTERRUPTS: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: libc::c_int) {
    INTERRUPTS.fetch_add(1, SeqCst);
}

/// Runs the child of this test in the foreground of a terminal of its own. `hands` is what is done at that terminal: it gets a
/// way to type.
fn at_a_terminal(test: &str, folder: &Folder, hands: impl FnOnce(&dyn Fn(&[u8]))) -> (ExitStatus, String) {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let line = open(ptsname(&terminal, Vec::new()).unwrap(), OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    let mut command = child_command(&format!("process::terminal::{test}"));
    command.env("FOLDER", folder.path());
    let clone = || Channel::from(line.try_clone().unwrap());
    command.stdin(clone()).stdout(clone()).stderr(clone());
    // SAFETY: three system calls between fork and exec.
    unsafe {
        // Whoever started this program may have ignored the signal, and that is inherited.
        command.pre_exec(|| {
            match libc::signal(libc::SIGINT, libc::SIG_DFL) != libc::SIG_ERR
                && libc::setsid() != -1
                && libc::ioctl(0, libc::TIOCSCTTY, 0) == 0
            {
                true => Ok(()),
                false => Err(std::io::Error::last_os_error()),
            }
        });
    }
    let mut child = command.spawn().unwrap();
    drop((line, command));
    let mut screen = File::from(terminal.try_clone().unwrap());
    let reader = thread::spawn(move || {
        let mut text = Vec::new();
        // At the end a terminal gives an error.
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = screen.read(&mut buffer) {
            text.extend_from_slice(&buffer[..length]);
        }
        String::from_utf8_lossy(&text).into_owned()
    });
    hands(&|keys| assert_eq!(rustix::io::write(&terminal, keys), Ok(keys.len())));
    let status = child.wait().unwrap();
    (status, reader.join().unwrap())
}

const CTRL_C: &[u8] = b"\x03";

fn folder() -> std::path::PathBuf {
    std::env::var_os("FOLDER").unwrap().into()
}

#[test]
fn a_parent_that_goes_on_loses_nothing() {
    const TEST: &str = "a_parent_that_goes_on_loses_nothing";
    if is_child() {
        return guarded(|| {
            // SAFETY: the handler adds to a number.
            unsafe { libc::signal(libc::SIGINT, count as extern "C" fn(libc::c_int) as usize) };
            let pool = pool(2);
            let work = |(ledger, n): (Ledger, u32)| {
                ledger.write(n);
                n
            };
            let ledger = Ledger::at(folder().join("ledger"));
            let mut n = 0;
            let mut seen = 0;
            while seen < 3 {
                // Two that come at once may be one.
                if INTERRUPTS.load(SeqCst) > seen {
                    seen += 1;
                    fs::write(folder().join(format!("seen-{seen}")), "").unwrap();
                }
                let futures: Vec<_> = (n..n + 10).map(|n| pool.submit(work, (ledger.clone(), n))).collect();
                futures.into_iter().zip(n..).for_each(|(future, n)| assert_eq!(future.result().unwrap(), n));
                n += 10;
            }
            assert_eq!(ledger.lines().len(), n as usize);
        });
    }
    guarded(|| {
        let folder = Folder::new();
        let ledger = folder.ledger("ledger");
        let (status, text) = at_a_terminal(TEST, &folder, |keys| {
            poll(|| ledger.lines().len() >= 100);
            for n in 1..=3 {
                keys(CTRL_C);
                folder.sign(format!("seen-{n}")).wait();
            }
        });
        assert!(status.success() && text.contains("1 passed"), "{status:?}: {text}");
    });
}

#[test]
fn a_parent_that_ends_takes_its_workers_with_it() {
    const TEST: &str = "a_parent_that_ends_takes_its_workers_with_it";
    if is_child() {
        return guarded(|| {
            let pool = pool(2);
            let sleep = |ledger: Ledger| -> () {
                ledger.write(std::process::id());
                loop {
                    std::hint::spin_loop();
                }
            };
            let ledger = Ledger::at(folder().join("ledger"));
            let futures = [(); 2].map(|()| pool.submit(sleep, ledger.clone()));
            futures.into_iter().for_each(|future| drop(future.result()));
        });
    }
    guarded(|| {
        let folder = Folder::new();
        let ledger = folder.ledger("ledger");
        let (status, text) = at_a_terminal(TEST, &folder, |keys| {
            poll(|| ledger.lines().len() == 2);
            keys(CTRL_C);
        });
        assert_eq!(status.signal(), Some(libc::SIGINT), "{text}");
        let workers: Vec<u32> = ledger.lines().iter().map(|line| line.parse().unwrap()).collect();
        poll(|| !workers.iter().any(|worker| is_running(*worker)));
    });
}

// Ctrl-Z and `fg`: all of them stop, and all of them go on.
#[test]
fn all_are_stopped_and_continued() {
    const TEST: &str = "all_are_stopped_and_continued";
    if is_child() {
        return guarded(|| {
            let (pool, ledger) = (pool(2), Ledger::at(folder().join("ledger")));
            ledger.write(std::process::id());
            let write = |(ledger, text): (Ledger, String)| ledger.write(text);
            let mut n = 0;
            while !folder().join("enough").exists() {
                pool.submit(write, (ledger.clone(), n.to_string())).result().unwrap();
                n += 1;
            }
            (0..100).for_each(|_| pool.submit(write, (ledger.clone(), "more".to_owned())).result().unwrap());
            assert_eq!(ledger.lines().len(), 1 + n + 100);
        });
    }
    guarded(|| {
        let folder = Folder::new();
        let ledger = folder.ledger("ledger");
        let (status, text) = at_a_terminal(TEST, &folder, |_| {
            poll(|| ledger.lines().len() > 50);
            let parent: u32 = ledger.lines()[0].parse().unwrap();
            // Ctrl-Z itself would do nothing here: there is no shell that could bring them back to the foreground.
            let group = rustix::process::Pid::from_raw(parent as i32).unwrap();
            rustix::process::kill_process_group(group, Signal::STOP).unwrap();
            poll(|| process_state(parent) == Some('T'));
            rustix::process::kill_process_group(group, Signal::CONT).unwrap();
            folder.sign("enough").give();
        });
        assert!(status.success() && text.contains("1 passed"), "{status:?}: {text}");
    });
}
