//! A new worker process.

use std::io;
use std::os::fd::AsFd;
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
use crate::process::worker;

/// Starts a worker. It has not answered yet when this returns, but can be handed calls.
pub(super) fn launch(config: &Config, serial: u64) -> io::Result<Child> {
    check_ids().map_err(|ids| io::Error::other(StartError::DifferentIds(ids)))?;
    let (ours, theirs) = socket::pair()?;
    let (mut link, memory) = ParentLink::new(ours, config.transport, config.threads)?;
    let depth = worker::depth() + 1;
    let hello = Hello {
        magic: Hello::MAGIC,
        protocol: PROTOCOL,
        build: image::executable().build_id().0,
        depth,
        threads: u32::try_from(config.threads).unwrap_or(u32::MAX),
        stack_size: config.stack_size.map(|size| size as u64),
        name: format!("{}_{serial}", config.name),
        ring: link.ring() as u64,
        largest: config.max_payload,
        nesting: config.max_nesting,
        max_rss: config.max_rss,
        memory_limit: config.memory_limit,
        cpu_limit: config.cpu_limit.map(|limit| limit.as_secs().max(1)),
    };
    // It waits in the socket until the worker is there.
    let this = pidfd::open(rustix::process::getpid());
    let fds: Vec<_> = memory.iter().chain(&this).map(AsFd::as_fd).collect();
    if !socket::send(link.socket(), &[&wire::encode(message::HELLO, &hello)], &fds)? {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let initializer = match &config.initializer {
        Some(hook) => Some(hand_over_initializer(&mut link, hook)?),
        None => None,
    };
    let mut command = match config.worker_command.as_deref() {
        Some([program, arguments @ ..]) => {
            let mut command = Command::new(program);
            command.args(arguments);
            command
        }
        _ => {
            let mut command = Command::new(image::file());
            if let Some(name) = std::env::args_os().next() {
                command.arg0(name);
            }
            command
        }
    };
    command.env(worker::VARIABLE_NAME, worker::summons(depth));
    for (key, value) in &config.env {
        match value {
            Some(value) => command.env(key, value),
            None => command.env_remove(key),
        };
    }
    if let Some(directory) = &config.current_dir {
        command.current_dir(directory);
    }
    command.stdin(Channel::from(theirs));
    let output = match config.stdio {
        Stdio::Inherit => None,
        Stdio::Null => {
            let null = fd::null()?;
            command.stdout(null.try_clone()?).stderr(null);
            None
        }
        Stdio::Capture => {
            let (captured, writer) = Captured::new()?;
            command.stdout(writer.try_clone()?).stderr(writer);
            Some(captured)
        }
    };
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

/// Whether the system would trust a program that this process starts: not if its effective ids are not the real ones.
pub(crate) fn check_ids() -> Result<(), DifferentIds> {
    use rustix::process::{getegid, geteuid, getgid, getuid};
    let ids =
        DifferentIds { user: (getuid().as_raw(), geteuid().as_raw()), group: (getgid().as_raw(), getegid().as_raw()) };
    if ids.user.0 == ids.user.1 && ids.group.0 == ids.group.1 { Ok(()) } else { Err(ids) }
}

/// How many processes the kernel has killed for want of memory since it was booted.
pub(super) fn oom_kills() -> u64 {
    let count = |text: String| text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
    std::fs::read_to_string("/proc/vmstat").ok().and_then(count).unwrap_or(0)
}
