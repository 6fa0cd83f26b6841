//! How a process finds out that it is a worker, and makes itself one.
//!
//! An environment variable alone never does it: standard input has to be a socket that the parent process has made, and
//! the first message on it has to repeat the number in the variable. Anything else, and the program goes on as if
//! nothing had happened.
//!
//! This module is an unsafe island, for three calls: removing a variable while there is one thread only, closing what was
//! inherited by accident, and installing the fault handler with memory that is never unmapped.

#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rustix::process::{self, Resource, Rlimit, Signal};

use super::super::transport::WorkerLink;
use super::super::wire::{self, Hello, NO_THREADS, PROTOCOL, Ready, message};
use super::serve::{self, Server};
use crate::os::socket::{self, Received};
use crate::os::{fault, image};
use crate::unwind;

/// Set for a process that is to be a worker: protocol, number, depth.
pub(in crate::process) const VARIABLE: &str = "CONCURRENT_FUTURES_WORKER";

/// A worker may have workers of its own, and they may, and so on: 8 levels deep.
pub(in crate::process) const MAX_DEPTH: u32 = 8;

/// How many worker processes this process is below the first parent.
static DEPTH: AtomicU32 = AtomicU32::new(0);

pub(crate) fn depth() -> u32 {
    DEPTH.load(Relaxed)
}

/// What the variable says.
struct Summons {
    nonce: u64,
    depth: u32,
}

/// This process's parent has started it as a worker.
fn summons() -> Option<Summons> {
    let value = std::env::var(VARIABLE).ok()?;
    let mut parts = value.split(':');
    if parts.next()?.parse() != Ok(PROTOCOL) {
        return None;
    }
    let (nonce, depth) = (u64::from_str_radix(parts.next()?, 16).ok()?, parts.next()?.parse().ok()?);
    let stdin = rustix::stdio::stdin();
    let parent = process::getppid()?.as_raw_nonzero().get();
    let ours = !image::is_secure() && socket::made_by(stdin) == u32::try_from(parent).ok();
    ours.then_some(Summons { nonce, depth })
}

/// Has this process been started as a worker, and reached `main` all the same?
pub(crate) fn is_stray() -> bool {
    // Also if something stands between the two, such as a shell: a worker that has not become one is not to start others.
    std::env::var_os(VARIABLE).is_some() && socket::made_by(rustix::stdio::stdin()).is_some()
}

/// Serves and never returns, if this process is a worker; calls `prepare` before it runs anything that is the user's. For the
/// start of the program, before `main`.
pub(crate) fn enter_if_worker(prepare: impl FnOnce()) {
    enter(false, prepare);
}

/// The same for `main`, which may have done anything before: that there are other threads is found out, and what it has opened
/// stays open.
pub(super) fn enter_from_main() {
    enter(true, || ());
}

fn enter(from_main: bool, prepare: impl FnOnce()) {
    let Some(summons) = summons() else { return };
    // The message was sent before this process was started, or is about to be. A buffer for the longest would stay in the
    // heap of every worker.
    let Ok(length) = socket::next_length(rustix::stdio::stdin()) else { return };
    let mut buffer = vec![0; length.min(socket::LONGEST)];
    let Ok(Received::Message(length, mut fds)) = socket::receive(rustix::stdio::stdin(), &mut buffer, true) else {
        return;
    };
    let Some((&message::HELLO, hello)) = buffer[..length].split_first() else { return };
    let Ok(hello) = wire::decode::<Hello>(hello) else { return };
    if hello.nonce != summons.nonce || hello.protocol != PROTOCOL {
        return;
    }
    DEPTH.store(summons.depth, Relaxed);
    if from_main && !is_alone() {
        let refusal = "`run_if_worker` was called when this process had other threads: call it first in `main`";
        refuse(refusal);
    }
    // From here on this is a worker and nothing else.
    prepare();
    let code = match become_worker(&hello, fds.pop(), from_main) {
        Ok((server, answer)) => serve::run(server, hello.threads, &hello.name, &answer),
        // A thread that the system does not give now.
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => NO_THREADS,
        Err(_) => 71,
    };
    std::process::exit(code);
}

/// Has this process no thread but the calling one?
fn is_alone() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1)
}

/// Tells the parent why this process does not serve, and ends.
fn refuse(reason: &str) -> ! {
    let build = image::executable().build_id().0;
    let answer = Ready { protocol: PROTOCOL, build, refusal: Some(reason.to_owned()) };
    let _ = socket::send(rustix::stdio::stdin(), &[&wire::encode(message::READY, &answer)], &[]);
    std::process::exit(71);
}

/// What serves, and the message that says so.
fn become_worker(hello: &Hello, memory: Option<OwnedFd>, from_main: bool) -> std::io::Result<(Arc<Server>, Vec<u8>)> {
    // SAFETY: no other thread could read the environment: `main` has not begun, or `is_alone` has found none.
    unsafe { std::env::remove_var(VARIABLE) };
    let control = control_socket(memory.as_ref().map(AsFd::as_fd), from_main)?;
    follow_parent(&control)?;
    // The parent decides what Ctrl-C means; and a closed pipe is an error to handle, as in every Rust program.
    // SAFETY: no handler is installed, the dispositions are constants.
    unsafe {
        libc::signal(libc::SIGINT, libc::SIG_IGN);
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
    }
    let build = image::executable().build_id().0;
    let refusal = (build != hello.build).then(|| "it is another build of the program".to_owned());
    let refused = refusal.is_some();
    let answer = wire::encode(message::READY, &Ready { protocol: PROTOCOL, build, refusal });
    let link = WorkerLink::new(control, memory, hello.ring, hello.threads)?;
    limit(Resource::As, hello.memory_limit)?;
    limit(Resource::Cpu, hello.cpu_limit)?;
    unwind::install_hook();
    if let Some(shared) = link.shared() {
        // The mapping is as long as the process: nobody unmaps it.
        let shared: &'static _ = Box::leak(Box::new(Arc::clone(shared)));
        // SAFETY: the note is in that mapping.
        unsafe { fault::install(shared.note()) };
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            shared.note().set_panic(&info.to_string());
            previous(info);
        }));
    }
    if refused {
        link.send_message(&answer)?;
        std::process::exit(0);
    }
    Ok((Arc::new(Server::new(link, hello)), answer))
}

/// Moves the control socket away from standard input, which becomes empty, and closes everything else that this process
/// has inherited beyond standard output and error; unless that may be the program's own by now.
fn control_socket(memory: Option<BorrowedFd<'_>>, from_main: bool) -> std::io::Result<OwnedFd> {
    let control = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let mut keep = [control.as_raw_fd(), memory.map_or(control.as_raw_fd(), |fd| fd.as_raw_fd())];
    keep.sort_unstable();
    let mut from = 3;
    for fd in keep.into_iter().chain([i32::MAX]).filter(|_| !from_main) {
        // SAFETY: nothing in this process owns these descriptors: its `main` has not begun.
        if from < fd && unsafe { libc::syscall(libc::SYS_close_range, from, fd - 1, 0) } != 0 {
            close_one_by_one(from..fd)?;
        }
        from = fd.saturating_add(1);
    }
    let null = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(control)
}

/// Closes descriptors of this process that nothing in it owns, where the system cannot close many at once.
fn close_one_by_one(range: std::ops::Range<i32>) -> std::io::Result<()> {
    let names = std::fs::read_dir("/proc/self/fd")?.map(|entry| entry.map(|entry| entry.file_name()));
    let names = names.collect::<std::io::Result<Vec<_>>>()?;
    let numbers = names.iter().filter_map(|name| name.to_str()?.parse().ok());
    for fd in numbers.filter(|fd| range.contains(fd)) {
        // SAFETY: as the caller says. The one with which they were read is closed already: that is an error, and no more.
        unsafe { libc::close(fd) };
    }
    Ok(())
}

/// Makes sure that this process does not outlive its parent.
fn follow_parent(control: &OwnedFd) -> std::io::Result<()> {
    let parent = socket::made_by(control);
    if process::set_parent_process_death_signal(Some(Signal::KILL)).is_err() {
        let control = control.try_clone()?;
        std::thread::Builder::new().name("parent-watch".to_owned()).spawn(move || {
            use rustix::event::{PollFd, PollFlags, poll};
            loop {
                let mut fds = [PollFd::new(&control, PollFlags::empty())];
                if poll(&mut fds, None).is_ok() && fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR) {
                    // SAFETY: ends the process at once, which is the point.
                    unsafe { libc::_exit(1) };
                }
            }
        })?;
    }
    // It may have died before the signal was asked for.
    let now = process::getppid().and_then(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok());
    match now == parent {
        true => Ok(()),
        false => Err(std::io::ErrorKind::BrokenPipe.into()),
    }
}

fn limit(resource: Resource, limit: Option<u64>) -> std::io::Result<()> {
    if limit.is_some() {
        // A little later the kernel is less polite: SIGXCPU first, SIGKILL a second after.
        let maximum = limit.map(|limit| limit.saturating_add((resource == Resource::Cpu).into()));
        process::setrlimit(resource, Rlimit { current: limit, maximum })?;
    }
    Ok(())
}
