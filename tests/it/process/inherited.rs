//! What workers inherit of the signals of the host: not the mask, and no disposition that would hide how a task ends.

use std::time::Duration;

use concurrent_futures::{ProcessPoolBuilder, ProcessPoolExecutor, Stdio};

use super::support::*;

fn builder() -> ProcessPoolBuilder {
    ProcessPoolExecutor::builder().max_workers(1).stdio(Stdio::Null)
}

/// From now on no signal comes to this thread, nor to those that it starts.
#[allow(unsafe_code)]
fn block_all_signals() {
    // SAFETY: a full set is one; what is blocked is this test's affair.
    unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&mut all);
        assert_eq!(libc::pthread_sigmask(libc::SIG_SETMASK, &all, std::ptr::null_mut()), 0);
    }
}

/// The signals that a process brings upon itself.
const FATAL: [i32; 8] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGABRT,
    libc::SIGTRAP,
    libc::SIGSYS,
    libc::SIGXCPU,
];

#[allow(unsafe_code)]
fn ignore(signals: &[i32]) {
    // SAFETY: to ignore a signal is always allowed.
    signals.iter().for_each(|signal| unsafe {
        libc::signal(*signal, libc::SIG_IGN);
    });
}

#[allow(unsafe_code)]
fn write_to_address_16(_: ()) {
    // SAFETY: it is not: the process is to die of it.
    unsafe { std::hint::black_box(16 as *mut u8).write_volatile(1) }
}

/// A bad address is named, and so is who raised a signal.
fn crashes_are_described() {
    let pool = builder().build().unwrap();
    let exit = exit_of(pool.submit(write_to_address_16, ()).result());
    assert_eq!(exit.signal_name(), Some("SIGSEGV"));
    if shares_memory() {
        assert!(exit.crash_note().is_some_and(|note| note.starts_with("SIGSEGV at address 0x10")), "{exit}");
    }
    for (signal, name) in [(libc::SIGABRT, "SIGABRT"), (libc::SIGFPE, "SIGFPE"), (libc::SIGTRAP, "SIGTRAP")] {
        let raise = |signal: i32| {
            #[allow(unsafe_code)]
            // SAFETY: raising a signal is.
            unsafe {
                libc::raise(signal)
            };
        };
        let exit = exit_of(pool.submit(raise, signal).result());
        assert_eq!(exit.signal_name(), Some(name));
        if shares_memory() {
            assert!(exit.crash_note().is_some_and(|note| note.starts_with(name)), "{exit}");
        }
    }
}

fn the_cpu_limit_holds() {
    let pool = builder().cpu_limit(Duration::from_secs(1)).build().unwrap();
    let spin = |_: ()| -> () {
        loop {
            std::hint::spin_loop();
        }
    };
    assert_eq!(exit_of(pool.submit(spin, ()).result()).signal_name(), Some("SIGXCPU"));
}

#[test]
fn crashes_with_all_signals_blocked_in_the_host() {
    alone("inherited::crashes_with_all_signals_blocked_in_the_host", || {
        block_all_signals();
        crashes_are_described();
    });
}

#[test]
fn the_cpu_limit_with_all_signals_blocked_in_the_host() {
    alone("inherited::the_cpu_limit_with_all_signals_blocked_in_the_host", || {
        block_all_signals();
        the_cpu_limit_holds();
    });
}

// SIGKILL, which cannot be blocked, would come much later.
#[test]
fn a_cancelled_task_with_all_signals_blocked_in_the_host() {
    alone("inherited::a_cancelled_task_with_all_signals_blocked_in_the_host", || {
        block_all_signals();
        let pool = builder().kill_grace(Duration::from_secs(3600)).build().unwrap();
        let mut plug = Plug::new(&pool);
        assert!(plug.take().cancel());
        poll(|| !is_running(plug.pid));
    });
}

#[test]
fn no_thread_of_a_worker_blocks_a_signal_that_the_host_blocks() {
    alone("inherited::no_thread_of_a_worker_blocks_a_signal_that_the_host_blocks", || {
        block_all_signals();
        let mask = |_: ()| {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            status.lines().find_map(|line| Some(line.strip_prefix("SigBlk:")?.trim().to_owned())).unwrap()
        };
        assert_eq!(builder().build().unwrap().submit(mask, ()).result().unwrap(), "0000000000000000");
    });
}

#[test]
fn crashes_with_those_signals_ignored_in_the_host() {
    alone("inherited::crashes_with_those_signals_ignored_in_the_host", || {
        ignore(&FATAL);
        crashes_are_described();
    });
}

#[test]
fn the_cpu_limit_with_its_signal_ignored_in_the_host() {
    alone("inherited::the_cpu_limit_with_its_signal_ignored_in_the_host", || {
        ignore(&FATAL);
        the_cpu_limit_holds();
    });
}

// `nohup` means the workers too; and they are ended all the same.
#[test]
fn other_ignored_signals_stay_ignored() {
    alone("inherited::other_ignored_signals_stay_ignored", || {
        ignore(&[libc::SIGHUP, libc::SIGTERM]);
        let pool = builder().build().unwrap();
        let plug = Plug::new(&pool);
        signal(plug.pid, rustix::process::Signal::HUP);
        plug.release();
        let mut plug = Plug::new(&pool);
        assert!(plug.take().cancel());
        poll(|| !is_running(plug.pid));
    });
}
