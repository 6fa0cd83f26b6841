//! How a process finds out that it is a worker, and makes itself one.
//!
//! It is one if its standard input is a socket of the right kind in which a greeting waits, and somebody has made that socket who could
//! control this process anyway: its parent, its own user, or root. The environment is not asked: see `worker_env`.
//!
//! This module is an unsafe island: removing a variable and resetting signals while there is one thread only, closing what was
//! inherited by accident, starting the thread that watches the host, and installing the fault handler with memory that is never
//! unmapped.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use rustix::process::{self, Pid, Resource, Rlimit};

use super::super::link::WorkerLink;
use super::super::wire::{self, GREETING, Hello, PROTOCOL, Ready, exit_code, message};
use super::super::worker_env::{self, WorkerEnv};
use super::host;
use super::serve::{self, Server};
use super::watch::{self, Watched};
use crate::os::socket::{self, Maker, Received};
use crate::os::{fault, fd, image, pidfd};
use crate::unwind;

/// Who has made the control socket, if this is a worker's process that has not become one yet.
fn greeted_by() -> Option<Maker> {
    let stdin = rustix::stdio::stdin();
    socket::made_by(stdin).filter(|_| socket::next_begins_with(stdin, &GREETING))
}

/// May this process be a worker? A quick look, for the start of any program.
pub(crate) fn may_be_one() -> bool {
    socket::made_by(rustix::stdio::stdin()).is_some()
}

/// Has this process been started as a worker, and reached `main` all the same?
pub(crate) fn is_stray() -> bool {
    // Also if something stands between the two, such as a shell: a worker that has not become one is not to start others.
    greeted_by().is_some() || WorkerEnv::read().is_some()
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
    let Some(maker) = greeted_by() else {
        // A program that its caller has given more rights than that one has does nothing because of its environment.
        if !image::is_secure() && WorkerEnv::read().is_some_and(|env| i32::try_from(env.host) == Ok(host::parent())) {
            leave(
                exit_code::NO_SOCKET,
                "its standard input is not the socket that it was given: something has closed or replaced it",
            );
        }
        return;
    };
    let is_child = maker.process != 0 && maker.process == host::parent();
    let may_command = is_child || maker.user == 0 || maker.user == process::getuid().as_raw();
    if !may_command {
        return;
    }
    if image::is_secure() {
        leave(exit_code::DISTRUSTED, "the system gives it more rights than its parent has");
    }
    // From here on this is a worker and nothing else.
    let (hello, fds) = match receive_greeting() {
        Ok(Some(greeting)) => greeting,
        Ok(None) => refuse("it has another version of `concurrent_futures`"),
        Err(_) => std::process::exit(exit_code::FAILED),
    };
    worker_env::set_depth(hello.depth);
    if from_main && !is_alone() {
        let refusal = "`run_if_worker` was called when this process had other threads: call it first in `main`";
        refuse(refusal);
    }
    reset_signals();
    prepare();
    let control = control_socket(&fds, from_main);
    let code = match control.and_then(|control| become_worker(&hello, control, fds, maker, is_child)) {
        Ok((server, answer)) => serve::run(server, &hello, &answer),
        // A thread that the system does not give now.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => exit_code::NO_THREADS,
        Err(_) => exit_code::FAILED,
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
    std::process::exit(exit_code::FAILED);
}

/// Ends a process that was started as a worker and cannot be one. Its `main` would take itself for the program.
fn leave(code: i32, why: &str) -> ! {
    eprintln!("a worker process of `concurrent_futures` ends before `main`: {why}");
    std::process::exit(code);
}

/// The greeting that waits on standard input, and the descriptors that came with it. `None` if it is that of another version of this crate.
fn receive_greeting() -> io::Result<Option<(Hello, Vec<OwnedFd>)>> {
    let stdin = rustix::stdio::stdin();
    fd::fill_standard()?;
    // A buffer for the longest message would stay in the heap of every worker.
    let mut buffer = vec![0; socket::next_length(stdin)?.min(socket::LONGEST)];
    let Received::Message(length, fds) = socket::receive(stdin, &mut buffer, true)? else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    let hello = buffer[..length].split_first().map(|(_, hello)| wire::decode::<Hello>(hello));
    let hello = hello.and_then(Result::ok).filter(|hello| hello.protocol == PROTOCOL);
    Ok(hello.map(|hello| (hello, fds)))
}

/// The signals that say how a process has ended, as a pool understands it: those of crashes, and of the CPU limit.
const TELLING: [libc::c_int; 8] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGABRT,
    libc::SIGTRAP,
    libc::SIGSYS,
    libc::SIGXCPU,
];

/// What a thread of the host blocks, and which of the signals above it ignores, is inherited, and would hide how tasks end.
fn reset_signals() {
    // SAFETY: there is one thread; the set is empty before it is used, and the dispositions are constants. A handler of a
    // constructor's is left alone.
    unsafe {
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
        for signal in TELLING {
            let mut action: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(signal, std::ptr::null(), &mut action) == 0 && action.sa_sigaction == libc::SIG_IGN {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
    }
}

/// What serves, and the message that says so. `is_child`: nothing stands between this process and its host.
fn become_worker(
    hello: &Hello,
    control: OwnedFd,
    fds: Vec<OwnedFd>,
    maker: Maker,
    is_child: bool,
) -> io::Result<(Arc<Server>, Vec<u8>)> {
    // SAFETY: no other thread could read the environment: `main` has not begun, or `is_alone` has found none.
    unsafe { std::env::remove_var(worker_env::NAME) };
    let mut fds = fds.into_iter();
    let memory = if hello.ring == 0 { None } else { fds.next() };
    follow_host(&control, fds.next(), maker, is_child)?;
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

/// Copies the control socket away from standard input, and closes everything else that this process has inherited beyond standard
/// output and error, unless that may be the program's own by now. If something fails from here on, the host sees the socket close when the process ends, not before.
fn control_socket(fds: &[OwnedFd], from_main: bool) -> io::Result<OwnedFd> {
    let control = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), fd::FIRST)?;
    let mut keep: Vec<i32> = fds.iter().chain([&control]).map(AsRawFd::as_raw_fd).collect();
    keep.sort_unstable();
    let mut from = fd::FIRST;
    for fd in keep.into_iter().chain([i32::MAX]).filter(|_| !from_main) {
        // SAFETY: nothing in this process owns these descriptors: its `main` has not begun.
        if from < fd && unsafe { libc::syscall(libc::SYS_close_range, from, fd - 1, 0) } != 0 {
            close_one_by_one(from..fd)?;
        }
        from = fd.saturating_add(1);
    }
    Ok(control)
}

/// Closes descriptors of this process that nothing in it owns, where the system cannot close many at once.
fn close_one_by_one(range: std::ops::Range<i32>) -> io::Result<()> {
    let names = std::fs::read_dir("/proc/self/fd")?.map(|entry| entry.map(|entry| entry.file_name()));
    let names = names.collect::<std::io::Result<Vec<_>>>()?;
    let numbers = names.iter().filter_map(|name| name.to_str()?.parse().ok());
    for fd in numbers.filter(|fd| range.contains(fd)) {
        // SAFETY: as the caller says. The one with which they were read is closed already: that is an error, and no more.
        unsafe { libc::close(fd) };
    }
    Ok(())
}

/// Makes sure that this process does not outlive its host. The kernel kills it when its parent dies, unless one of the two changes
/// its credentials; so a thread watches the host, by the descriptor that it has sent.
fn follow_host(control: &OwnedFd, host: Option<OwnedFd>, maker: Maker, is_child: bool) -> io::Result<()> {
    host::follow();
    // It may have died before the signal was asked for.
    if is_child && host::parent() != maker.process {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    let socket = || control.try_clone().map(Watched::socket);
    let mut watched = Vec::with_capacity(3);
    let knows_host = host.is_some();
    watched.extend(host.map(Watched::process));
    if !is_child {
        // A program stands between the two, which the host takes for its worker. The host closes the socket when that has ended.
        let between = Pid::from_raw(host::parent()).and_then(pidfd::open);
        watched.extend(between.map(Watched::process));
    }
    if !is_child || !knows_host {
        watched.push(socket()?);
    }
    watch::start(watched, host::parent())
}

fn limit(resource: Resource, limit: Option<u64>) -> io::Result<()> {
    if limit.is_some() {
        // A little later the kernel is less polite: SIGXCPU first, SIGKILL a second after.
        let maximum = limit.map(|limit| limit.saturating_add((resource == Resource::Cpu).into()));
        process::setrlimit(resource, Rlimit { current: limit, maximum })?;
    }
    Ok(())
}
