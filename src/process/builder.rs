//! The builder of a pool.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::call::{self, Function};
use super::codec;
use super::link::Transport;
use super::parent::{Config, Hook, Inner, Limits, check_ids};
use super::stdio::Stdio;
use super::{worker, worker_env};
use crate::error::BuildError;
use crate::executor::{Capacity, QueuePolicy, check_workers};
use crate::os::image;
use crate::{spin, unwind};

/// The default of [`max_payload`](ProcessPoolBuilder::max_payload): 4 GiB.
const MAX_PAYLOAD: u64 = 4 << 30;

/// Settings of a [`ProcessPoolExecutor`](crate::ProcessPoolExecutor), made by
/// [`ProcessPoolExecutor::builder`](crate::ProcessPoolExecutor::builder).
///
/// ```
/// use std::time::Duration;
/// use concurrent_futures::ProcessPoolExecutor;
///
/// let pool = ProcessPoolExecutor::builder()
///     .max_workers(2)
///     .max_tasks_per_child(1000)
///     .task_timeout(Duration::from_secs(60))
///     .env("LANG", "C")
///     .build()?;
/// assert_eq!(pool.submit(|()| std::env::var("LANG").unwrap(), ()).result()?, "C");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a builder does nothing until `build` is called"]
pub struct ProcessPoolBuilder {
    max_workers: Option<usize>,
    name: Option<String>,
    threads: usize,
    queue_capacity: Option<(usize, QueuePolicy)>,
    max_tasks: Option<u64>,
    max_rss: Option<u64>,
    memory_limit: Option<u64>,
    cpu_limit: Option<Duration>,
    max_payload: u64,
    max_nesting: u32,
    stack_size: Option<usize>,
    defaults: Limits,
    env: Vec<(OsString, Option<OsString>)>,
    current_dir: Option<PathBuf>,
    stdio: Stdio,
    idle_timeout: Option<Duration>,
    start_timeout: Duration,
    restart_limit: u32,
    kill_grace: Duration,
    worker_command: Option<Vec<OsString>>,
    initializer: Option<Result<Hook, BuildError>>,
    transport: Transport,
}

impl Default for ProcessPoolBuilder {
    fn default() -> Self {
        Self {
            max_workers: None,
            name: None,
            threads: 1,
            queue_capacity: None,
            max_tasks: None,
            max_rss: None,
            memory_limit: None,
            cpu_limit: None,
            max_payload: MAX_PAYLOAD,
            max_nesting: codec::NESTING,
            stack_size: None,
            defaults: Limits::default(),
            env: Vec::new(),
            current_dir: None,
            stdio: Stdio::default(),
            idle_timeout: None,
            start_timeout: Duration::from_secs(30),
            restart_limit: 3,
            kill_grace: Duration::from_millis(500),
            worker_command: None,
            initializer: None,
            transport: Transport::Auto,
        }
    }
}

impl ProcessPoolBuilder {
    /// Sets the maximum number of worker processes, from 1 to [`MAX_WORKERS`](crate::MAX_WORKERS). They are started on demand.
    /// The default is the number of logical cores, taking cgroup quotas and affinity into account, as in Python.
    pub fn max_workers(mut self, workers: usize) -> Self {
        self.max_workers = Some(workers);
        self
    }

    /// Sets the name of the pool. The serving thread of its `N`th worker is called `NAME_N`; with several
    /// [threads per worker](Self::threads_per_worker) they are called `NAME_N_0`, `NAME_N_1` and so on. The default name is
    /// `ProcessPoolExecutor-` and a number that no other pool has.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets how many tasks each worker process runs at the same time, each on a thread of its own, from 1 to
    /// [`MAX_WORKERS`](crate::MAX_WORKERS). A crash then ends the tasks of all threads of the process, and so does the timeout
    /// or cancellation of a running one. The default is 1.
    ///
    /// ```
    /// use concurrent_futures::{as_completed, ProcessPoolExecutor};
    ///
    /// let pool = ProcessPoolExecutor::builder().max_workers(2).threads_per_worker(4).build()?;
    /// let pids = (0..8).map(|_| pool.submit(|()| std::process::id(), ()));
    /// assert_eq!(as_completed(pids).count(), 8);
    /// assert!(pool.worker_pids().len() <= 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn threads_per_worker(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Limits the number of queued tasks, not counting those that have been handed to a worker. `policy` says what happens to a
    /// task that exceeds the limit. By default the queue is unbounded. The chunks of a `map` are not counted; a map is bounded by
    /// its [`buffer`](crate::MapOptions::buffer).
    pub fn queue_capacity(mut self, tasks: usize, policy: QueuePolicy) -> Self {
        self.queue_capacity = Some((tasks, policy));
        self
    }

    /// Sets the number of tasks after which a worker ends and is replaced, for code that leaks resources. A chunk of a map counts
    /// as one task. Like Python's `max_tasks_per_child`.
    pub fn max_tasks_per_child(mut self, tasks: u64) -> Self {
        self.max_tasks = Some(tasks);
        self
    }

    /// Sets the resident memory, in bytes, above which a worker ends after a task and is replaced, for code that leaks memory.
    pub fn max_rss_per_child(mut self, bytes: u64) -> Self {
        self.max_rss = Some(bytes);
        self
    }

    /// Limits the address space of each worker, in bytes (RLIMIT_AS). An allocation beyond it fails, which in most programs
    /// ends the process with SIGABRT. The program itself and the stacks of its threads count too.
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.memory_limit = Some(bytes);
        self
    }

    /// Limits the processor time of each worker, in whole seconds, at least 1 (RLIMIT_CPU). When it is used up, the kernel ends
    /// the process with SIGXCPU.
    pub fn cpu_limit(mut self, time: Duration) -> Self {
        self.cpu_limit = Some(time);
        self
    }

    /// Sets the maximum encoded length of an argument or a result, in bytes. The default is 4 GiB.
    pub fn max_payload(mut self, bytes: u64) -> Self {
        self.max_payload = bytes;
        self
    }

    /// Sets how many levels deep an argument or a result may be nested; each struct, tuple, list, map, option and variant that
    /// contains something is one level. A deeper one is [`TaskError::Encode`](crate::TaskError::Encode) where it is sent, and
    /// [`TaskError::Decode`](crate::TaskError::Decode) where it is received, because it could overflow the stack. Each level
    /// takes about 500 bytes of stack, more in debug builds: on the thread that submits, in the worker, and on the thread of
    /// this process that asks for the result. The default is 512.
    ///
    /// For the argument of [`initializer`](Self::initializer), call this method before that one.
    ///
    /// ```
    /// use concurrent_futures::{ProcessPoolExecutor, TaskError};
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct Chain(Option<Box<Chain>>);
    ///
    /// fn chain(length: u32) -> Chain {
    ///     (0..length).fold(Chain(None), |chain, _| Chain(Some(Box::new(chain))))
    /// }
    ///
    /// let pool = ProcessPoolExecutor::builder().max_workers(1).max_nesting(100).build()?;
    /// assert!(pool.submit(chain, 40).result().is_ok());
    /// assert!(matches!(pool.submit(chain, 60).result(), Err(TaskError::Encode(_))));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn max_nesting(mut self, levels: u32) -> Self {
        self.max_nesting = levels;
        self
    }

    /// The minimum stack size of a thread that serves tasks, in bytes.
    pub const MIN_STACK_SIZE: usize = 64 << 10;

    /// Sets the size of the stack on which tasks run in the workers, in bytes. Values below
    /// [`MIN_STACK_SIZE`](Self::MIN_STACK_SIZE) are raised to it. The default is that of `std::thread`. If there is not
    /// enough memory for such a stack, workers do not start.
    ///
    /// ```
    /// use concurrent_futures::ProcessPoolExecutor;
    ///
    /// fn depth_of(n: u64) -> u64 {
    ///     let frame = std::hint::black_box([n; 1024]);
    ///     if n == 0 { 0 } else { 1 + depth_of(frame[1023] - 1) }
    /// }
    ///
    /// let pool = ProcessPoolExecutor::builder().max_workers(1).stack_size(256 << 20).build()?;
    /// assert_eq!(pool.submit(depth_of, 4000).result()?, 4000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = Some(bytes.max(Self::MIN_STACK_SIZE));
        self
    }

    /// Sets the time limit of tasks without one of their own: see [`ProcessTask::timeout`](crate::ProcessTask::timeout).
    pub fn task_timeout(mut self, limit: Duration) -> Self {
        self.defaults.timeout = Some(limit);
        self
    }

    /// Sets the retries of tasks without a number of their own: see [`ProcessTask::retries`](crate::ProcessTask::retries).
    pub fn retries(mut self, retries: u32) -> Self {
        self.defaults.retries = retries;
        self
    }

    /// Sets an environment variable for the workers, in addition to those of this program when the worker is started.
    /// `CONCURRENT_FUTURES_WORKER` is set by the pool itself: [`build`](Self::build) fails with
    /// [`BuildError::ReservedVariable`].
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((key.into(), Some(value.into())));
        self
    }

    /// Removes an environment variable for the workers. As with [`env`](Self::env), `CONCURRENT_FUTURES_WORKER` is refused.
    pub fn env_remove(mut self, key: impl Into<OsString>) -> Self {
        self.env.push((key.into(), None));
        self
    }

    /// Sets the working directory of the workers. The default is that of this program when the worker is started.
    pub fn current_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.current_dir = Some(directory.into());
        self
    }

    /// Sets where standard output and error of the workers go. The default is where those of this program go.
    pub fn stdio(mut self, stdio: Stdio) -> Self {
        self.stdio = stdio;
        self
    }

    /// Sets the time after which an idle worker ends. By default workers stay, as in Python.
    pub fn idle_timeout(mut self, time: Duration) -> Self {
        self.idle_timeout = Some(time);
        self
    }

    /// Sets how long a worker may take from its start until it is ready (not including its initializer). If one takes longer,
    /// the pool is broken, with [`StartError::NoAnswer`](crate::StartError::NoAnswer). The default is 30 seconds.
    pub fn start_timeout(mut self, time: Duration) -> Self {
        self.start_timeout = time;
        self
    }

    /// Sets how many workers in a row may end by themselves before they are ready and their initializer has returned. After
    /// `deaths` of them the pool is broken, with [`StartError::Died`](crate::StartError::Died). Until one worker has been ready,
    /// workers are started one at a time. The default is 3.
    pub fn restart_limit(mut self, deaths: u32) -> Self {
        self.restart_limit = deaths;
        self
    }

    /// Sets the time between SIGTERM and SIGKILL when a worker is killed because its task was cancelled or timed out, or by
    /// [`terminate_workers`](crate::ProcessPoolExecutor::terminate_workers). The default is 500 ms.
    pub fn kill_grace(mut self, time: Duration) -> Self {
        self.kill_grace = time;
        self
    }

    /// Sets the program that is started as a worker, with its arguments, instead of this executable. It has to be the same
    /// build of the same program (build ids are compared), or workers refuse to serve. It may be a program that starts the
    /// worker, such as `nice` or a shell, as long as it passes standard input on unchanged: the worker recognizes itself by its
    /// standard input. The environment may be changed or cleared.
    pub fn worker_command<I>(mut self, command: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<OsString>,
    {
        self.worker_command = Some(command.into_iter().map(Into::into).collect());
        self
    }

    /// Runs `f` with `argument` in every worker before its first task. If it panics, the pool is broken: all tasks fail with
    /// [`TaskError::Broken`](crate::TaskError::Broken). The encoded argument may have at most 64 KiB, otherwise
    /// [`build`](Self::build) fails with [`BuildError::Initializer`]; [`SharedBytes`](crate::SharedBytes) in it count as a few
    /// bytes.
    ///
    /// ```
    /// use std::sync::OnceLock;
    /// use concurrent_futures::ProcessPoolExecutor;
    ///
    /// static FACTOR: OnceLock<u64> = OnceLock::new();
    ///
    /// let pool = ProcessPoolExecutor::builder()
    ///     .initializer(|factor| FACTOR.set(factor).unwrap(), 3)
    ///     .build()?;
    /// assert_eq!(pool.submit(|n: u64| n * FACTOR.get().unwrap(), 5).result()?, 15);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn initializer<F, A>(mut self, f: F, argument: A) -> Self
    where
        F: Fn(A) + Copy + Send + Sync + 'static,
        A: Serialize + DeserializeOwned + Send + 'static,
    {
        let hook = Function::of_task(f).map_err(|error| error.to_string()).and_then(|function| {
            let argument = call::encode(argument, self.max_nesting).map_err(|(reason, _)| reason)?;
            if argument.as_slice().len() <= super::link::INLINE {
                Ok(Hook { function, argument })
            } else {
                Err(format!("its argument is longer than {} bytes", super::link::INLINE))
            }
        });
        self.initializer = Some(hook.map_err(BuildError::Initializer));
        self
    }

    /// Sets how arguments and results are transferred. The default is [`Transport::Auto`].
    pub fn transport(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }
}

impl ProcessPoolBuilder {
    /// Checks the settings and whether this process can have workers, and makes the parts of the pool.
    pub(super) fn make(self) -> Result<(Arc<Inner>, Limits), BuildError> {
        let max_workers = self.max_workers.unwrap_or_else(spin::cpus);
        check_workers(max_workers)?;
        check_workers(self.threads).map_err(|error| match error {
            BuildError::TooManyWorkers { asked, limit } => BuildError::TooManyThreads { asked, limit },
            _ => BuildError::Zero("threads_per_worker"),
        })?;
        for (what, is_zero) in [
            ("max_tasks_per_child", self.max_tasks == Some(0)),
            ("max_payload", self.max_payload == 0),
            ("restart_limit", self.restart_limit == 0),
        ] {
            if is_zero {
                return Err(BuildError::Zero(what));
            }
        }
        let capacity = match self.queue_capacity {
            Some((0, _)) => return Err(BuildError::NoQueueCapacity),
            Some((tasks, policy)) => Some(Capacity::new(tasks, policy)),
            None => None,
        };
        let name = self.name.unwrap_or_else(next_name);
        if name.contains('\0') {
            return Err(BuildError::BadThreadName);
        }
        if self.worker_command.as_ref().is_some_and(Vec::is_empty) {
            return Err(BuildError::NoCommand);
        }
        if self.env.iter().any(|(key, _)| key == worker_env::NAME) {
            return Err(BuildError::ReservedVariable(worker_env::NAME));
        }
        let initializer = self.initializer.transpose()?;
        check_surroundings(self.worker_command.is_some())?;
        unwind::install_hook();
        let config = Config {
            name,
            threads: self.threads,
            stack_size: self.stack_size,
            max_tasks: self.max_tasks,
            max_rss: self.max_rss,
            memory_limit: self.memory_limit,
            cpu_limit: self.cpu_limit,
            max_payload: self.max_payload,
            max_nesting: self.max_nesting,
            env: self.env,
            current_dir: self.current_dir,
            stdio: self.stdio,
            idle_timeout: self.idle_timeout,
            start_timeout: self.start_timeout,
            restart_limit: self.restart_limit,
            kill_grace: self.kill_grace,
            worker_command: self.worker_command,
            initializer,
            transport: self.transport.resolve(),
        };
        let inner = Inner::new(config, max_workers, capacity)
            .map_err(|error| BuildError::System { code: error.raw_os_error().unwrap_or(0) })?;
        Ok((inner, self.defaults))
    }
}

/// Can this process have workers?
fn check_surroundings(has_command: bool) -> Result<(), BuildError> {
    if image::is_secure() {
        return Err(BuildError::Privileged);
    }
    check_ids().map_err(BuildError::DifferentIds)?;
    if worker_env::depth() >= worker_env::MAX_DEPTH {
        return Err(BuildError::TooDeep { limit: worker_env::MAX_DEPTH });
    }
    if worker::is_stray() {
        return Err(BuildError::StrayWorker);
    }
    let here: fn() -> String = next_name;
    if !has_command && image::executable().offset_of(here as usize).is_none() {
        return Err(BuildError::ForeignExecutable);
    }
    Ok(())
}

fn next_name() -> String {
    static COUNTER: AtomicUsize = AtomicUsize::new(0);
    // Relaxed: the number only has to be unique.
    format!("ProcessPoolExecutor-{}", COUNTER.fetch_add(1, Relaxed))
}

impl fmt::Debug for ProcessPoolBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessPoolBuilder")
            .field("max_workers", &self.max_workers)
            .field("name", &self.name)
            .field("threads_per_worker", &self.threads)
            .field("queue_capacity", &self.queue_capacity)
            .field("stdio", &self.stdio)
            .field("worker_command", &self.worker_command)
            .finish_non_exhaustive()
    }
}
