//! The settings of a pool.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::process::call::{Function, Payload};
use crate::process::link::Transport;
use crate::process::stdio::Stdio;

/// The initializer: what every worker runs before its tasks.
pub(crate) struct Hook {
    pub(crate) function: Function,
    pub(crate) argument: Payload,
}

/// The settings that a pool was built with.
pub(crate) struct Config {
    pub(crate) name: String,
    pub(crate) threads: usize,
    pub(crate) stack_size: Option<usize>,
    pub(crate) max_tasks: Option<u64>,
    pub(crate) max_rss: Option<u64>,
    pub(crate) memory_limit: Option<u64>,
    pub(crate) cpu_limit: Option<Duration>,
    pub(crate) max_payload: u64,
    pub(crate) max_nesting: u32,
    pub(crate) env: Vec<(OsString, Option<OsString>)>,
    pub(crate) current_dir: Option<PathBuf>,
    pub(crate) stdio: Stdio,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) start_timeout: Duration,
    pub(crate) restart_limit: u32,
    pub(crate) kill_grace: Duration,
    pub(crate) worker_command: Option<Vec<OsString>>,
    pub(crate) initializer: Option<Hook>,
    pub(crate) transport: Transport,
}
