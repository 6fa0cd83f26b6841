//! How a worker process is started.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio as Channel};
use std::time::Instant;

use super::child::{Child, Launched, hand_over_initializer};
use super::config::Config;
use super::output::Captured;
use crate::error::{DifferentIds, StartError};
use crate::os::pidfd::{self, Process};
use crate::os::{fd, image, socket};
use crate::process::later;
use crate::process::link::{ParentLink, Transport};
use crate::process::stdio::Stdio;
use crate::process::wire::{self, Hello, PROTOCOL, message};
use crate::process::worker_env::{self, WorkerEnv};

/// Starts a worker. It has not answered yet when this returns, but can be handed calls.
pub(super) fn launch(config: &Config, serial: u64) -> io::Result<Child> {
    check_ids().map_err(|ids| io::Error::other(StartError::DifferentIds(ids)))?;
    let (ours, theirs) = socket::pair()?;
    let (mut link, memory) = ParentLink::new(ours, config.transport, config.threads)?;
    let env = WorkerEnv::of_worker();
    // The greeting stays in the socket until the worker reads it.
    greet(&link, memory.as_ref(), &hello(config, serial, &env, &link))?;
    let initializer = match &config.initializer {
        Some(hook) => Some(hand_over_initializer(&mut link, hook)?),
        None => None,
    };
    let mut command = program(config);
    set_environment(&mut command, config, &env);
    command.stdin(Channel::from(theirs));
    let output = redirect(&mut command, config.stdio)?;
    let oom_kills = oom_kills();
    let process = Process::new(command.spawn()?, config.transport != Transport::Socket);
    Ok(Child::new(Launched {
        serial,
        process: Box::new(process),
        link,
        initializer,
        max_tasks: config.max_tasks,
        deadline: later(Instant::now(), config.start_timeout),
        output,
        oom_kills,
    }))
}

fn hello(config: &Config, serial: u64, env: &WorkerEnv, link: &ParentLink) -> Hello {
    Hello {
        magic: Hello::MAGIC,
        protocol: PROTOCOL,
        build: image::executable().build_id().0,
        depth: env.depth,
        threads: u32::try_from(config.threads).unwrap_or(u32::MAX),
        stack_size: config.stack_size.map(|size| size as u64),
        name: format!("{}_{serial}", config.name),
        ring: link.ring() as u64,
        largest: config.max_payload,
        nesting: config.max_nesting,
        max_rss: config.max_rss,
        memory_limit: config.memory_limit,
        cpu_limit: config.cpu_limit.map(|limit| limit.as_secs().max(1)),
    }
}

/// Sends `hello`, with the shared memory and a descriptor that stands for this process.
fn greet(link: &ParentLink, memory: Option<&OwnedFd>, hello: &Hello) -> io::Result<()> {
    let this = pidfd::open(rustix::process::getpid());
    let fds: Vec<_> = memory.into_iter().chain(&this).map(AsFd::as_fd).collect();
    if socket::send(link.socket(), &[&wire::encode(message::HELLO, hello)], &fds)? {
        Ok(())
    } else {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

/// The program that becomes the worker: this executable, unless the pool has a `worker_command`.
fn program(config: &Config) -> Command {
    if let Some([program, arguments @ ..]) = config.worker_command.as_deref() {
        let mut command = Command::new(program);
        command.args(arguments);
        return command;
    }
    let mut command = Command::new(image::file());
    if let Some(name) = std::env::args_os().next() {
        command.arg0(name);
    }
    command
}

fn set_environment(command: &mut Command, config: &Config, env: &WorkerEnv) {
    command.env(worker_env::NAME, env.to_string());
    for (key, value) in &config.env {
        match value {
            Some(value) => command.env(key, value),
            None => command.env_remove(key),
        };
    }
    if let Some(directory) = &config.current_dir {
        command.current_dir(directory);
    }
}

/// Redirects standard output and standard error. Returns the other end if the pool captures them.
fn redirect(command: &mut Command, stdio: Stdio) -> io::Result<Option<Captured>> {
    match stdio {
        Stdio::Inherit => Ok(None),
        Stdio::Null => {
            let null = fd::null()?;
            command.stdout(null.try_clone()?).stderr(null);
            Ok(None)
        }
        Stdio::Capture => {
            let (captured, writer) = Captured::new()?;
            command.stdout(writer.try_clone()?).stderr(writer);
            Ok(Some(captured))
        }
    }
}

/// Checks that the effective ids of this process are the real ones. Otherwise the system would distrust the programs that it
/// starts.
pub(crate) fn check_ids() -> Result<(), DifferentIds> {
    use rustix::process::{getegid, geteuid, getgid, getuid};
    let ids =
        DifferentIds { user: (getuid().as_raw(), geteuid().as_raw()), group: (getgid().as_raw(), getegid().as_raw()) };
    if ids.user.0 == ids.user.1 && ids.group.0 == ids.group.1 { Ok(()) } else { Err(ids) }
}

/// How many processes the kernel has killed since it was booted because memory ran out.
pub(super) fn oom_kills() -> u64 {
    let count = |text: String| text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
    std::fs::read_to_string("/proc/vmstat").ok().and_then(count).unwrap_or(0)
}
