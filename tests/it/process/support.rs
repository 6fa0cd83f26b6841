//! What the tests of worker processes share: pools, signs that are seen in all processes, a look at what a process has.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Once};
use std::thread;
use std::time::{Duration, Instant};

use concurrent_futures::{ProcessPoolExecutor, Stdio, TaskError, TaskFuture, WorkerExit};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::support::*;

/// A pool of so many workers, whose panics and crashes print nothing.
pub(crate) fn pool(max_workers: usize) -> ProcessPoolExecutor {
    ProcessPoolExecutor::builder().max_workers(max_workers).stdio(Stdio::Null).build().unwrap()
}

/// Looks again and again until `condition` holds, politely. The watchdog ends it if it never does.
pub(crate) fn poll(condition: impl Fn() -> bool) {
    while !condition() {
        thread::sleep(Duration::from_millis(1));
    }
}

/// A folder of its own, which goes when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct Folder(Arc<FolderInner>);

struct FolderInner(PathBuf);

impl Drop for FolderInner {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // Process ids come again; what a killed process has left must not be in the way.
        let name = format!(
            "concurrent-futures-{}-{}-{:x}",
            std::process::id(),
            COUNT.fetch_add(1, Relaxed),
            fastrand::u64(..)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(Arc::new(FolderInner(path)))
    }

    pub(super) fn path(&self) -> PathBuf {
        self.0.0.clone()
    }

    /// A sign that is not given yet.
    pub(crate) fn sign(&self, name: impl std::fmt::Display) -> Sign {
        Sign(self.0.0.join(name.to_string()))
    }

    /// A ledger in which nothing is written yet.
    pub(crate) fn ledger(&self, name: &str) -> Ledger {
        let path = self.0.0.join(name);
        File::create(&path).unwrap();
        Ledger(path)
    }
}

/// Something that one process waits for and another does: a file that is there or not.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Sign(PathBuf);

impl Sign {
    pub(crate) fn give(&self) {
        File::create(&self.0).unwrap();
    }

    pub(crate) fn is_given(&self) -> bool {
        self.0.exists()
    }

    pub(crate) fn wait(&self) {
        poll(|| self.is_given());
    }
}

/// A file in which all processes write lines, and none is lost.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ledger(PathBuf);

impl Ledger {
    pub(super) fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// A process that is killed while it writes can leave a part of a line only where that goes from one page of the file to the next.
    /// So lines are filled up to a length that divides a page, and none does.
    pub(crate) fn write(&self, line: impl std::fmt::Display) {
        const LENGTH: usize = 64;
        let line = line.to_string();
        let spaces = (line.len() + 1).next_multiple_of(LENGTH) - line.len() - 1;
        let mut file = OpenOptions::new().append(true).open(&self.0).unwrap();
        // In one piece, so that lines do not mix.
        file.write_all(format!("{line}{:spaces$}\n", "").as_bytes()).unwrap();
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        fs::read_to_string(&self.0).unwrap().lines().map(|line| line.trim_end_matches(' ').to_owned()).collect()
    }
}

/// Occupies a worker until it is released (or dropped).
pub(super) struct Plug {
    release: Sign,
    pub(super) future: Option<TaskFuture<()>>,
    pub(super) pid: u32,
    _folder: Folder,
}

impl Plug {
    /// Returns when a worker is busy with it.
    pub(super) fn new(pool: &ProcessPoolExecutor) -> Self {
        let folder = Folder::new();
        let (begun, release) = (folder.path().join("begun"), folder.sign("release"));
        let wait = |(begun, release): (PathBuf, Sign)| {
            // Renamed, so that whoever sees it can read it.
            let half = begun.with_extension("half");
            fs::write(&half, std::process::id().to_string()).unwrap();
            fs::rename(half, begun).unwrap();
            // The folder may be gone when the test has failed.
            poll(|| release.is_given() || !release.0.parent().unwrap().exists());
        };
        let future = pool.submit(wait, (begun.clone(), release.clone()));
        // Without shared memory the pool knows that it has begun when the first message of its worker has been read.
        poll(|| begun.exists() && (shares_memory() || future.is_running()) || future.is_done());
        let pid = fs::read_to_string(begun).unwrap().parse().unwrap();
        Self { release, future: Some(future), pid, _folder: folder }
    }

    /// Lets the worker go on, and waits until it has done with the plug.
    pub(super) fn release(self) {
        self.end().unwrap();
    }

    /// As [`release`](Self::release), where that worker may be gone.
    pub(super) fn end(mut self) -> Result<(), TaskError> {
        self.release.give();
        self.future.take().unwrap().result()
    }

    pub(super) fn take(&mut self) -> TaskFuture<()> {
        self.future.take().unwrap()
    }
}

impl Drop for Plug {
    fn drop(&mut self) {
        self.release.give();
    }
}

/// The end of the worker, of which this is the error.
#[track_caller]
pub(super) fn exit_of<T: std::fmt::Debug>(result: Result<T, TaskError>) -> WorkerExit {
    match result {
        Err(TaskError::WorkerDied(exit)) => exit,
        other => panic!("not the end of a worker: {other:?}"),
    }
}

/// Sends a signal to a worker, which the caller knows to be there.
pub(super) fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal).unwrap();
}

/// What the kernel says of the process: a letter such as `R`, `S`, `T` (stopped), `Z` (ended, not collected).
pub(super) fn process_state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Does this process still run?
pub(super) fn is_running(pid: u32) -> bool {
    process_state(pid).is_some_and(|state| state != 'Z')
}

/// Runs the body in a child process: it changes, or counts, what the whole process has.
pub(super) fn alone(test: &str, body: impl FnOnce() + Send + 'static) {
    in_a_child(test, || guarded(body));
}

/// [`alone`] for a body that takes descriptors away from its pool: the pool cannot know which of them are its own any more, so it
/// leaves them, and the memory behind them, to the end of the process.
pub(super) fn alone_with_losses(test: &str, body: impl FnOnce() + Send + 'static) {
    in_a_child(test, || watchdog(LIMIT, body));
}

fn in_a_child(test: &str, body: impl FnOnce()) {
    if is_child() {
        return body();
    }
    let name = format!("process::{test}");
    let output = watchdog(2 * LIMIT, move || in_child(&name));
    assert!(output.status.success(), "{}", printed(&output));
    // A name that does not fit would run no test, and succeed.
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{}", printed(&output));
}

/// What a process has that it should give back. Only what is its own counts, whatever else the machine does.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Belongings {
    threads: usize,
    /// What each is open on; of anonymous ones the kind, or a number that no other has.
    descriptors: Vec<String>,
    children: Vec<u32>,
    /// What it has mapped that others can map as well.
    mappings: Vec<String>,
    /// Files in /dev/shm that carry its process id, mapped or not.
    names: Vec<String>,
}

impl Belongings {
    pub(crate) fn now() -> Self {
        let list = |path: &str| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
        let mut children = children();
        children.sort_unstable();
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let shared = |line: &&str| line.contains("/memfd:") || line.contains("/dev/shm/");
        // Without the addresses.
        let mut mappings: Vec<String> = maps
            .lines()
            .filter(shared)
            .map(|line| line.split_whitespace().skip(4).collect::<Vec<_>>().join(" "))
            .collect();
        mappings.sort_unstable();
        let pid = std::process::id().to_string();
        let is_ours = |name: &String| name.split(|c: char| !c.is_ascii_digit()).any(|number| number == pid);
        let names = fs::read_dir("/dev/shm").map(Iterator::flatten).into_iter().flatten();
        let mut names: Vec<String> =
            names.map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(is_ours).collect();
        names.sort_unstable();
        Self { threads: list("/proc/self/task").count(), descriptors: descriptors(), children, mappings, names }
    }

    /// What there is now and was not then: what has gone since does not count.
    pub(crate) fn left_since(&self) -> Vec<String> {
        fn more<T: Clone + PartialEq + std::fmt::Debug>(what: &str, before: &[T], now: &[T], to: &mut Vec<String>) {
            let mut before = before.to_vec();
            for one in now {
                match before.iter().position(|other| other == one) {
                    Some(at) => drop(before.swap_remove(at)),
                    None => to.push(format!("{what} {one:?}")),
                }
            }
        }
        let (now, mut left) = (Self::now(), Vec::new());
        more("descriptor", &self.descriptors, &now.descriptors, &mut left);
        more("child", &self.children, &now.children, &mut left);
        more("mapping", &self.mappings, &now.mappings, &mut left);
        more("name", &self.names, &now.names, &mut left);
        if now.threads > self.threads {
            left.push(format!("{} threads", now.threads - self.threads));
        }
        left
    }

    /// Which children there are is not looked at, nor what there is for them.
    pub(super) fn forget_children(&mut self) {
        self.children.clear();
    }

    pub(super) fn has_as_many_threads_and_children_as(&self, other: &Self) -> bool {
        self.threads == other.threads && self.children == other.children
    }
}

/// What the descriptors of this process are open on, but for the one with which this is read.
fn descriptors() -> Vec<String> {
    let links = fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
    let own = format!("/proc/{}/fd", std::process::id());
    let mut targets: Vec<String> = links.map(|target| target.display().to_string()).collect();
    let at = targets.iter().position(|target| *target == own).expect("that one is there");
    targets.swap_remove(at);
    targets.sort_unstable();
    targets
}

/// Runs the body of a test. What it has taken and has not given back so much later is a failure, if nobody else uses this
/// process: with `--test-threads=1`, and in the child process of [`alone`]. Tests of threads are not looked at: runtimes keep
/// what they have made.
pub(crate) fn giving_back<R>(patience: Duration, body: impl FnOnce() -> R) -> R {
    static FIRST: Once = Once::new();
    let is_ours = thread::current().name().is_some_and(|name| name.starts_with("process::"));
    if !is_ours || !is_sequential() {
        return body();
    }
    // What the first pool of a process makes, and what stays.
    FIRST.call_once(|| {
        let pool = ProcessPoolExecutor::builder().max_workers(1).stdio(Stdio::Capture).build().unwrap();
        pool.submit(|_: ()| (), ()).result().unwrap();
    });
    let before = Belongings::now();
    let result = body();
    // Threads that a test has not joined, and children whose end it has not waited for, take a moment.
    let end = Instant::now() + patience;
    loop {
        let left = before.left_since();
        if left.is_empty() {
            return result;
        }
        assert!(Instant::now() < end, "this test has left: {}", left.join(", "));
        thread::sleep(Duration::from_millis(1));
    }
}

/// Are tests run one after the other in this process?
fn is_sequential() -> bool {
    let args: Vec<String> = std::env::args().collect();
    args.iter().any(|arg| arg == "--test-threads=1")
        || args.windows(2).any(|pair| pair == ["--test-threads", "1"])
        || std::env::var("RUST_TEST_THREADS").as_deref() == Ok("1")
}

/// The children of this process, ended ones included.
pub(super) fn children() -> Vec<u32> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let texts = tasks.filter_map(|task| fs::read_to_string(task.unwrap().path().join("children")).ok());
    texts.flat_map(|text| text.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<u32>>()).collect()
}

/// From now on this thread's process does not end of SIGTERM.
#[allow(unsafe_code)]
pub(super) fn block_sigterm() {
    // SAFETY: to ignore a signal is always allowed.
    unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
}

/// The numbers of the descriptors of this process.
pub(super) fn open_descriptors() -> Vec<i32> {
    let entries = fs::read_dir("/proc/self/fd").unwrap();
    let mut fds: Vec<i32> = entries.map(|fd| fd.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    // The one with which they were read is gone.
    fds.retain(|fd| fs::read_link(format!("/proc/self/fd/{fd}")).is_ok());
    fds.sort_unstable();
    fds
}

/// Whether the environment leaves it to the system how calls and replies travel.
pub(super) fn may_choose() -> bool {
    std::env::var("CONCURRENT_FUTURES_TRANSPORT").as_deref() != Ok("shared-memory")
}

/// Whether calls and replies travel through shared memory: without it a worker leaves no note when it crashes, and what it has
/// been handed counts as begun.
pub(super) fn shares_memory() -> bool {
    std::env::var("CONCURRENT_FUTURES_TRANSPORT").as_deref() != Ok("socket")
}

/// Only root can change its user. False, with a message, for anybody else.
pub(super) fn may_change_user() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        println!("not tested: only root can change its user");
    }
    is_root
}

/// The user and group that tests change to.
pub(super) const NOBODY: u32 = 65_534;

/// Changes the group and the user of this process, for good.
#[allow(unsafe_code)]
pub(super) fn become_nobody() {
    // SAFETY: the calls have no conditions.
    unsafe {
        assert_eq!(libc::setgid(NOBODY), 0);
        assert_eq!(libc::setuid(NOBODY), 0);
    }
}
