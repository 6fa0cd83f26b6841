//! What the tests share: a watchdog, gates, drop counters, child processes.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use concurrent_futures::{Shutdown, ThreadPoolExecutor};
// Not those of std, which no sanitizer sees: what they order it would take for a race.
use parking_lot::{Condvar, Mutex};

/// How long a test may take before it counts as hung. Nothing here waits for it: it only ends what would never end.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// Runs `body` on a thread of its own, and ends the process with a message if it takes longer than `limit`.
pub(crate) fn watchdog<R: Send + 'static>(limit: Duration, body: impl FnOnce() -> R + Send + 'static) -> R {
    let name = thread::current().name().unwrap_or("a test").to_owned();
    let ended = Arc::new((Mutex::new(None), Condvar::new()));
    let inner = Arc::clone(&ended);
    let body = move || {
        let outcome = catch_unwind(AssertUnwindSafe(body));
        *inner.0.lock() = Some(outcome);
        inner.1.notify_all();
    };
    let runner = thread::Builder::new().name(name.clone()).spawn(body).expect("the test's thread starts");
    let limit = limit * patience();
    let end = Instant::now() + limit;
    let mut outcome = ended.0.lock();
    while outcome.is_none() {
        if ended.1.wait_until(&mut outcome, end).timed_out() && outcome.is_none() {
            // Straight to the file: the captured output of a test dies with the process.
            let _ = writeln!(std::io::stderr(), "\n{name}: not done after {limit:?}, it hangs");
            std::process::abort();
        }
    }
    let outcome = outcome.take().expect("it is there");
    let _ = runner.join();
    outcome.unwrap_or_else(|panic| resume_unwind(panic))
}

/// All ways to shut a pool down; `Within` with this time.
pub(crate) fn every_shutdown(time: Duration) -> [Shutdown; 5] {
    use Shutdown::*;
    [Wait, NoWait, CancelPending, CancelPendingNoWait, Within(time)]
}

/// Under a sanitizer everything takes longer, so much as its script says.
fn patience() -> u32 {
    std::env::var("CONCURRENT_FUTURES_TEST_PATIENCE").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// [`watchdog`] with the usual limit. A test of worker processes that is alone in its process must give back all that it took.
pub(crate) fn guarded<R: Send + 'static>(body: impl FnOnce() -> R + Send + 'static) -> R {
    #[cfg(all(feature = "process", target_os = "linux"))]
    return crate::process::giving_back(LIMIT / 2, || watchdog(LIMIT, body));
    #[cfg(not(all(feature = "process", target_os = "linux")))]
    watchdog(LIMIT, body)
}

/// The numbers below `most`, or as many of them as there is time for: for races that are tried again and again. A machine
/// with other things to do tries less often, and what hangs hangs all the same.
pub(crate) fn rounds(most: usize) -> impl Iterator<Item = usize> {
    let start = Instant::now();
    (0..most).take_while(move |_| start.elapsed() < LIMIT / 6)
}

/// Threads that keep the CPUs busy until they are dropped, for what goes wrong only if somebody is late.
pub(crate) struct Burners {
    over: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Burners {
    pub(crate) fn new(count: usize) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let burn = |over: Arc<AtomicBool>| {
            move || {
                while !over.load(SeqCst) {
                    std::hint::spin_loop();
                }
            }
        };
        let threads = (0..count).map(|_| thread::spawn(burn(Arc::clone(&over)))).collect();
        Self { over, threads }
    }
}

impl Drop for Burners {
    fn drop(&mut self) {
        self.over.store(true, SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A pool of so many threads.
pub(crate) fn pool(max_workers: usize) -> ThreadPoolExecutor {
    ThreadPoolExecutor::new(max_workers).unwrap()
}

/// A door that is shut at first; once open it stays open.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn open(&self) {
        *self.0.0.lock() = true;
        self.0.1.notify_all();
    }

    pub(crate) fn is_open(&self) -> bool {
        *self.0.0.lock()
    }

    pub(crate) fn pass(&self) {
        let mut open = self.0.0.lock();
        while !*open {
            self.0.1.wait(&mut open);
        }
    }
}

/// Occupies so many workers of a pool until it is released (or dropped).
pub(crate) struct Plug {
    gate: Gate,
    futures: Vec<concurrent_futures::TaskFuture<()>>,
}

impl Plug {
    /// Returns when all of these workers are busy.
    pub(crate) fn new(pool: &ThreadPoolExecutor, workers: usize) -> Self {
        let gate = Gate::new();
        let futures = on_workers(pool, workers, {
            let gate = gate.clone();
            move |started| {
                started.open();
                gate.pass();
            }
        });
        Self { gate, futures }
    }

    /// Lets the workers go on, and waits until they have done with the plug.
    pub(crate) fn release(mut self) {
        self.gate.open();
        for future in self.futures.drain(..) {
            future.result().unwrap();
        }
    }

    /// Lets the workers go on.
    pub(crate) fn gate(&self) -> Gate {
        self.gate.clone()
    }
}

/// Runs `f` on so many workers at the same time. It is to open the gate that it is given, and then block: only then is
/// the next one submitted.
pub(crate) fn on_workers<R: Send + 'static>(
    pool: &ThreadPoolExecutor,
    workers: usize,
    f: impl Fn(&Gate) -> R + Clone + Send + 'static,
) -> Vec<concurrent_futures::TaskFuture<R>> {
    let submit = |_| {
        let (f, started) = (f.clone(), Gate::new());
        let opened = started.clone();
        let future = pool.submit(move || f(&opened));
        started.pass();
        future
    };
    (0..workers).map(submit).collect()
}

/// What `f` returns on so many different workers.
pub(crate) fn on_each_worker<R: Send + 'static>(
    pool: &ThreadPoolExecutor,
    workers: usize,
    f: impl Fn() -> R + Clone + Send + 'static,
) -> Vec<R> {
    let gate = Gate::new();
    let futures = on_workers(pool, workers, {
        let gate = gate.clone();
        move |started| {
            let value = f();
            started.open();
            gate.pass();
            value
        }
    });
    gate.open();
    futures.into_iter().map(|future| future.result().unwrap()).collect()
}

impl Drop for Plug {
    fn drop(&mut self) {
        self.gate.open();
    }
}

/// A number that can be waited for.
#[derive(Default)]
pub(crate) struct Counter {
    value: Mutex<usize>,
    changed: Condvar,
}

impl Counter {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn add(&self) {
        *self.value.lock() += 1;
        self.changed.notify_all();
    }

    pub(crate) fn get(&self) -> usize {
        *self.value.lock()
    }

    /// Blocks until the number is at least `value`.
    pub(crate) fn wait_for(&self, value: usize) {
        let mut now = self.value.lock();
        while *now < value {
            self.changed.wait(&mut now);
        }
    }
}

/// Counts how often it and its siblings were dropped.
#[derive(Clone, Default)]
pub(crate) struct Drops(Arc<AtomicUsize>);

impl Drops {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A value whose drop is counted.
    pub(crate) fn token(&self) -> Token {
        Token(Arc::clone(&self.0))
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(SeqCst)
    }
}

/// See [`Drops::token`].
#[derive(Debug)]
pub(crate) struct Token(Arc<AtomicUsize>);

impl Token {
    /// For those who are to own one, and cannot give it away.
    pub(crate) fn touch(&self) {}
}

impl Drop for Token {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// A value whose destructor panics (once; never while unwinding, which would abort).
#[derive(Debug)]
pub(crate) struct PanicsOnDrop(pub(crate) Token);

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        self.0.touch();
        if !thread::panicking() {
            panic!("a destructor panics, as this test wants it");
        }
    }
}

/// The message of a caught panic.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (_, Some(text)) => text.clone(),
        _ => "no text".to_owned(),
    }
}

/// Spins, politely, until `condition` holds: for states that nothing announces. The watchdog ends it if it never does.
pub(crate) fn until(condition: impl Fn() -> bool) {
    while !condition() {
        thread::yield_now();
    }
}

/// Counts its wakes, and unparks the thread that made it.
pub(crate) struct Counting {
    wakes: AtomicUsize,
    thread: Thread,
}

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(1, SeqCst);
        self.thread.unpark();
    }
}

/// A waker, and what it counts.
pub(crate) fn counting() -> (Arc<Counting>, Waker) {
    let counting = Arc::new(Counting { wakes: AtomicUsize::new(0), thread: thread::current() });
    (Arc::clone(&counting), Waker::from(counting))
}

impl Counting {
    pub(crate) fn wakes(&self) -> usize {
        self.wakes.load(SeqCst)
    }
}

/// Polls a future once.
pub(crate) fn poll<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

/// A future that a test holds by strings: it is pending until it is told to be ready, and counts its polls.
#[derive(Clone, Default)]
pub(crate) struct Puppet(Arc<Strings>);

#[derive(Default)]
struct Strings {
    polls: AtomicUsize,
    ready: Mutex<bool>,
    waker: Mutex<Option<Waker>>,
}

impl Puppet {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// What the pool is to poll. It owns the token until it is dropped.
    pub(crate) fn future(&self, token: Token) -> impl Future<Output = usize> + Send + 'static {
        let strings = Arc::clone(&self.0);
        poll_fn(move |context| {
            token.touch();
            let mut waker = strings.waker.lock();
            let polls = strings.polls.fetch_add(1, SeqCst) + 1;
            if *strings.ready.lock() {
                return Poll::Ready(polls);
            }
            *waker = Some(context.waker().clone());
            Poll::Pending
        })
    }

    pub(crate) fn polls(&self) -> usize {
        self.0.polls.load(SeqCst)
    }

    /// The waker of the last poll, which keeps its own.
    pub(crate) fn waker(&self) -> Waker {
        until(|| self.0.waker.lock().is_some());
        self.0.waker.lock().clone().unwrap()
    }

    /// Takes the waker of the last poll away.
    pub(crate) fn take_waker(&self) -> Waker {
        until(|| self.0.waker.lock().is_some());
        self.0.waker.lock().take().unwrap()
    }

    /// Has it polled once more, and be ready. Waits for the first poll.
    pub(crate) fn finish(&self) {
        let waker = self.take_waker();
        *self.0.ready.lock() = true;
        waker.wake();
    }
}

/// Pending once, and woken at once.
pub(crate) async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| match std::mem::replace(&mut yielded, true) {
        true => Poll::Ready(()),
        false => {
            context.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}

/// Set in the child process in which a test runs its dangerous half.
const CHILD: &str = "CONCURRENT_FUTURES_TEST_CHILD";

/// True in the child process that [`in_child`] has started.
pub(crate) fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Runs the test of this name (path included) again in a child process, where [`is_child`] is true, and returns how it
/// ended. A child that hangs is ended by its own watchdog: its body must be [`guarded`].
pub(crate) fn in_child(test: &str) -> Output {
    child_command(test).output().unwrap()
}

/// What [`in_child`] runs.
pub(crate) fn child_command(test: &str) -> Command {
    let this = std::env::current_exe().unwrap();
    let mut command = Command::new(this);
    command.args([test, "--exact", "--nocapture", "--include-ignored", "--test-threads=1"]);
    command.env(CHILD, "1").env_remove("RUST_BACKTRACE");
    command
}

/// What a child printed, for the message of a failed assertion.
pub(crate) fn printed(output: &Output) -> String {
    format!(
        "{:?}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// How many threads of this process have a name that starts so (Linux keeps 15 bytes of it).
pub(crate) fn threads_named(prefix: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("proc is mounted");
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with(prefix)).count()
}

/// Bounds the address space to what is in use now and so much more.
pub(crate) fn limit_address_space(more: u64) {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let statm = std::fs::read_to_string("/proc/self/statm").expect("proc is mounted");
    let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
    let limit = Some(pages * rustix::param::page_size() as u64 + more);
    setrlimit(Resource::As, Rlimit { current: limit, maximum: limit }).unwrap();
}

/// Waits until a thread of this process sleeps, in whatever: nothing announces that.
#[cfg(target_os = "linux")]
pub(crate) fn until_asleep(thread: rustix::thread::Pid) {
    let stat = format!("/proc/self/task/{}/stat", thread.as_raw_nonzero());
    // The state is behind the name, which is in parentheses.
    let sleeps = || std::fs::read_to_string(&stat).is_ok_and(|stat| stat.rsplit(") ").next().unwrap().starts_with('S'));
    until(sleeps);
}
