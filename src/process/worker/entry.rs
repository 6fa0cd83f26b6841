//! How a process detects that it was started as a worker, and becomes one.
//!
//! It was started as one if its standard input is a socket of the right kind with a greeting in it, and the socket was made by
//! a process that could control this one anyway: its parent, or a process of the same user or of root. The environment does not
//! decide this: see `worker_env`.
//!
//! This module is an unsafe island: removing a variable and resetting signals while there is only one thread, closing
//! descriptors that were inherited by accident, starting the thread that watches the host, and installing the fault handler
//! with memory that is never unmapped.

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

/// Returns the maker of the control socket, if this process was started as a worker and has not become one yet.
fn greeted_by() -> Option<Maker> {
    let stdin = rustix::stdio::stdin();
    socket::made_by(stdin).filter(|_| socket::next_begins_with(stdin, &GREETING))
}

/// May this process be a worker? A quick check, which runs at the start of every program.
pub(crate) fn may_be_one() -> bool {
    socket::made_by(rustix::stdio::stdin()).is_some()
}

/// Was this process started as a worker, and has it reached `main` nevertheless?
pub(crate) fn is_stray() -> bool {
    // True also if another program, such as a shell, started this one: a process that should be a worker must not start
    // workers.
    greeted_by().is_some() || WorkerEnv::read().is_some()
}

/// Serves and never returns, if this process is a worker; calls `prepare` before it runs any user code. For the start of the
/// program, before `main`.
pub(crate) fn enter_if_worker(prepare: impl FnOnce()) {
    enter(false, prepare);
}

/// The same for a call in `main`, which may have run other code before: checks for other threads, and leaves open what the
/// program has opened.
pub(super) fn enter_from_main() {
    enter(true, || ());
}

fn enter(from_main: bool, prepare: impl FnOnce()) {
    let Some(maker) = greeted_by() else {
        // A program with more rights than its caller (set-user-ID) ignores its environment.
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
    // From here on this process is a worker.
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
        // The system cannot start another thread now.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => exit_code::NO_THREADS,
        Err(_) => exit_code::FAILED,
    };
    std::process::exit(code);
}

/// Is the calling thread the only one of this process?
fn is_alone() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1)
}

/// Tells the parent why this process does not serve, and exits.
fn refuse(reason: &str) -> ! {
    let build = image::executable().build_id().0;
    let answer = Ready { protocol: PROTOCOL, build, refusal: Some(reason.to_owned()) };
    let _ = socket::send(rustix::stdio::stdin(), &[&wire::encode(message::READY, &answer)], &[]);
    std::process::exit(exit_code::FAILED);
}

/// Ends a process that was started as a worker and cannot become one. Its `main` must not run as if it were the program.
fn leave(code: i32, why: &str) -> ! {
    eprintln!("a worker process of `concurrent_futures` ends before `main`: {why}");
    std::process::exit(code);
}

/// The greeting that waits on standard input, and the descriptors that came with it. `None` if it is that of another version of this crate.
fn receive_greeting() -> io::Result<Option<(Hello, Vec<OwnedFd>)>> {
    let stdin = rustix::stdio::stdin();
    fd::fill_standard()?;
    // A buffer for the longest possible message would stay in the heap of every worker.
    let mut buffer = vec![0; socket::next_length(stdin)?.min(socket::LONGEST)];
    let Received::Message(length, fds) = socket::receive(stdin, &mut buffer, true)? else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    let hello = buffer[..length].split_first().map(|(_, hello)| wire::decode::<Hello>(hello));
    let hello = hello.and_then(Result::ok).filter(|hello| hello.protocol == PROTOCOL);
    Ok(hello.map(|hello| (hello, fds)))
}

/// The signals from which a pool can tell how a worker ended: those of crashes, and of the CPU limit.
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

/// Signals that the host blocks or ignores are inherited as such, and would hide how tasks end.
fn reset_signals() {
    // SAFETY: there is one thread; the set is empty before it is used, and the dispositions are constants. A handler that a
    // constructor installed is kept.
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

/// Returns the server and the message that announces it. `is_child`: this process is a direct child of its host.
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
    // The parent handles Ctrl-C; and a closed pipe is an error, as in every Rust program.
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
        // The mapping lasts as long as the process: it is never unmapped.
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

/// Copies the control socket away from standard input, and closes everything else that this process has inherited beyond
/// standard output and error, unless the program itself may have opened it. If something fails from here on, the host sees the
/// socket close when the process ends, not before.
fn control_socket(fds: &[OwnedFd], from_main: bool) -> io::Result<OwnedFd> {
    let control = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), fd::FIRST)?;
    let mut keep: Vec<i32> = fds.iter().chain([&control]).map(AsRawFd::as_raw_fd).collect();
    keep.sort_unstable();
    let mut from = fd::FIRST;
    for fd in keep.into_iter().chain([i32::MAX]).filter(|_| !from_main) {
        // SAFETY: nothing in this process owns these descriptors, because its `main` has not begun.
        if from < fd && unsafe { libc::syscall(libc::SYS_close_range, from, fd - 1, 0) } != 0 {
            close_one_by_one(from..fd)?;
        }
        from = fd.saturating_add(1);
    }
    Ok(control)
}

/// Closes descriptors that nothing in this process owns, if the system cannot close many at once.
fn close_one_by_one(range: std::ops::Range<i32>) -> io::Result<()> {
    let names = std::fs::read_dir("/proc/self/fd")?.map(|entry| entry.map(|entry| entry.file_name()));
    let names = names.collect::<std::io::Result<Vec<_>>>()?;
    let numbers = names.iter().filter_map(|name| name.to_str()?.parse().ok());
    for fd in numbers.filter(|fd| range.contains(fd)) {
        // SAFETY: as for the caller. The descriptor that the directory was read with is already closed: closing it again is
        // only an error.
        unsafe { libc::close(fd) };
    }
    Ok(())
}

/// Makes sure that this process does not outlive its host. The kernel kills it when its parent dies, unless one of the two
/// changes its credentials; so a thread also watches the host, through the descriptor that the host sent.
fn follow_host(control: &OwnedFd, host: Option<OwnedFd>, maker: Maker, is_child: bool) -> io::Result<()> {
    host::follow();
    // The host may have died before the signal was requested.
    if is_child && host::parent() != maker.process {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    let socket = || control.try_clone().map(Watched::socket);
    let mut watched = Vec::with_capacity(3);
    let knows_host = host.is_some();
    watched.extend(host.map(Watched::process));
    if !is_child {
        // Another program started this process, and the host takes that program for its worker. The host closes the socket when
        // that program has ended.
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
        // For the CPU limit the kernel sends SIGXCPU first, and SIGKILL a second later.
        let maximum = limit.map(|limit| limit.saturating_add((resource == Resource::Cpu).into()));
        process::setrlimit(resource, Rlimit { current: limit, maximum })?;
    }
    Ok(())
}
