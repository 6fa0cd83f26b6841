//! What a child sees, and what its parent does not, when a program forks that has thread pools.
//!
//! Each test is run in a copy of this program, which forks. The forked child ends with `_exit`, so that the test harness does not
//! go on in it.

use std::future::Future;
use std::mem;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use concurrent_futures::{
    BuildError, MapOptions, Priority, QueuePolicy, ReturnWhen, Shutdown, ShutdownError, TaskError, TaskFuture,
    ThreadPoolExecutor, as_completed, as_completed_timeout, block_on, default_executor, promise, wait, wait_async,
};

use crate::support::*;

/// Runs the body in a copy of this program: other tests run in this one.
pub(crate) fn alone(test: &str, body: impl FnOnce() + Send + 'static) {
    if is_child() {
        return guarded(body);
    }
    let name = test.to_owned();
    let output = watchdog(2 * LIMIT, move || in_child(&name));
    assert!(output.status.success(), "{}", printed(&output));
    // A name that does not fit would run no test, and succeed.
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{}", printed(&output));
}

/// How a forked child ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Code(i32),
    Signal(i32),
}

/// A child that is being waited for.
pub(crate) struct Forked(libc::pid_t);

impl Forked {
    #[allow(unsafe_code)]
    pub(crate) fn wait(self) -> Ended {
        let mut status = 0;
        // SAFETY: the status is there to be written to.
        let waited = unsafe { libc::waitpid(self.0, &mut status, 0) };
        assert_eq!(waited, self.0);
        match libc::WIFEXITED(status) {
            true => Ended::Code(libc::WEXITSTATUS(status)),
            false => Ended::Signal(libc::WTERMSIG(status)),
        }
    }

    pub(crate) fn succeeds(self) {
        assert_eq!(self.wait(), Ended::Code(0));
    }
}

/// Forks. The child runs `body` and ends, with 0 if it has not panicked.
pub(crate) fn forked(body: impl FnOnce()) -> Forked {
    match fork() {
        Some(child) => child,
        None => end(i32::from(catch_unwind(AssertUnwindSafe(body)).is_err())),
    }
}

/// The child, in the parent. A child that hangs is ended by a signal.
#[allow(unsafe_code)]
pub(crate) fn fork() -> Option<Forked> {
    // SAFETY: these tests are about what a child may do; the C library's allocator is usable in it.
    unsafe {
        let pid = libc::fork();
        assert!(pid >= 0);
        if pid == 0 {
            libc::alarm(20);
            return None;
        }
        Some(Forked(pid))
    }
}

#[allow(unsafe_code)]
pub(crate) fn end(code: i32) -> ! {
    // SAFETY: it may be called at any time.
    unsafe { libc::_exit(code) }
}

#[track_caller]
pub(crate) fn is_wrong<T>(result: Result<T, TaskError>) {
    assert!(result.err().expect("it cannot be done here").is_wrong_process());
}

fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Everything that can be asked of a pool.
fn every_verb_fails(pool: &ThreadPoolExecutor) {
    is_wrong(pool.submit(|| 1).result());
    let refused = pool.try_submit(|| 1).unwrap_err();
    assert!(refused.reason().is_wrong_process());
    assert_eq!(refused.into_inner()(), 1);
    let futures = pool.submit_all((0..3).map(|n| move || n));
    assert_eq!(futures.len(), 3);
    futures.into_iter().for_each(|future| is_wrong(future.result()));
    is_wrong(pool.task(|| 1).name("named").priority(Priority::High).submit().result());
    assert!(pool.task(|| 1).try_submit().unwrap_err().reason().is_wrong_process());
    is_wrong(pool.spawn(async { 1 }).result());
    is_wrong(block_on(pool.spawn(async { 1 })));
    let results: Vec<_> = pool.map(|n: u32| n, 0..100).collect();
    assert_eq!(results.len(), 100);
    results.into_iter().for_each(is_wrong);
    for options in [MapOptions::new().buffer(2), MapOptions::new().timeout(LIMIT), MapOptions::new().ordered(false)] {
        let results: Vec<_> = pool.map_with(options, |n: u32| n, 0..10).unwrap().collect();
        assert_eq!(results.len(), 10);
        results.into_iter().for_each(is_wrong);
    }
    drop(pool.map(|n: u32| n, 0..10));
    let ran = AtomicUsize::new(0);
    pool.scope(|scope| is_wrong(scope.submit(|| ran.fetch_add(1, SeqCst)).result()));
    pool.scope(|scope| drop(scope.submit(|| ran.fetch_add(1, SeqCst))));
    assert!(catch_unwind(AssertUnwindSafe(|| pool.join(|| ran.fetch_add(1, SeqCst), || ()))).is_err());
    assert_eq!(ran.load(SeqCst), 0);
    assert_eq!(pool.resize(3), Err(BuildError::WrongProcess));
    let stats = pool.stats();
    assert_eq!((stats.max_workers, stats.workers, stats.busy, stats.queued, stats.completed), (0, 0, 0, 0, 0));
    assert!(format!("{pool:?}").contains("ThreadPoolExecutor"));
    for how in [Shutdown::Wait, Shutdown::NoWait, Shutdown::CancelPending, Shutdown::Within(Duration::ZERO)] {
        assert_eq!(pool.shutdown(how), Err(ShutdownError::WrongProcess));
    }
}

/// Pools in all states that they can be in.
fn pools() -> Vec<ThreadPoolExecutor> {
    let used = pool(4);
    used.submit(|| ()).result().unwrap();
    let bounded = |policy| {
        let pool = ThreadPoolExecutor::builder().max_workers(1).queue_capacity(1, policy).build().unwrap();
        mem::forget(Plug::new(&pool, 1));
        pool.submit(|| ()).detach();
        pool
    };
    let ended = pool(1);
    ended.shutdown(Shutdown::Wait).unwrap();
    vec![
        pool(1),
        pool(4),
        used,
        bounded(QueuePolicy::Block),
        bounded(QueuePolicy::Fail),
        bounded(QueuePolicy::CallerRuns),
        ended,
    ]
}

#[test]
fn every_verb_fails_in_the_child() {
    alone("fork::every_verb_fails_in_the_child", || {
        let pools = pools();
        forked(|| {
            pools.iter().for_each(every_verb_fails);
            let ran = AtomicUsize::new(0);
            let count = || {
                ran.fetch_add(1, SeqCst);
            };
            let on_nobody = |pool: &ThreadPoolExecutor| pool.scope(|scope| drop(scope.submit(count)));
            pools.iter().for_each(on_nobody);
            assert_eq!(ran.load(SeqCst), 0);
        })
        .succeeds();
        assert_eq!(pools[0].submit(|| 1).result().unwrap(), 1);
        assert_eq!(pools[2].map(|n: u32| n, 0..100).map(Result::unwrap).sum::<u32>(), 4950);
        mem::forget(pools);
    });
}

#[test]
fn a_pool_is_dropped_without_waiting_in_the_child() {
    alone("fork::a_pool_is_dropped_without_waiting_in_the_child", || {
        let drops = Drops::new();
        let pool = pool(1);
        let plug = Plug::new(&pool, 1);
        let token = drops.token();
        let queued = pool.submit(move || token.touch());
        // Both sides drop it.
        let Some(child) = fork() else {
            drop(pool);
            let dropped = drops.count();
            drop(queued);
            // It has a lock of the test's own, which the parent's worker may have held.
            mem::forget(plug);
            end(i32::from(dropped != 0 || drops.count() != 0))
        };
        child.succeeds();
        plug.release();
        queued.result().unwrap();
        drop(pool);
        assert_eq!(drops.count(), 1);
    });
}

/// Tasks of a pool that are not done: one that runs, one that is queued, a future that waits, and one that is queued.
fn undone(pool: &ThreadPoolExecutor, gate: &Gate) -> Vec<TaskFuture<u32>> {
    let (started, behind) = (Gate::new(), gate.clone());
    let waiting = Gate::new();
    let (waits, gate_of_future) = (waiting.clone(), gate.clone());
    let waker = std::sync::Mutex::new(None::<Waker>);
    let waker = Arc::new(waker);
    let left = Arc::clone(&waker);
    let future = pool.spawn(std::future::poll_fn(move |context: &mut Context<'_>| {
        if gate_of_future.is_open() {
            return Poll::Ready(7);
        }
        *left.lock().unwrap() = Some(context.waker().clone());
        waits.open();
        Poll::Pending
    }));
    waiting.pass();
    let running = pool.submit({
        let (started, behind) = (started.clone(), behind.clone());
        move || {
            started.open();
            behind.pass();
            if let Some(waker) = waker.lock().unwrap().take() {
                waker.wake();
            }
            7
        }
    });
    started.pass();
    vec![running, pool.submit(|| 7), future, pool.spawn(async { 7 })]
}

/// Forks with tasks that are not done; `in_the_child` gets the futures of such, which are good afterwards in the parent.
fn with_undone(test: &str, in_the_child: impl Fn(Vec<TaskFuture<u32>>) + Send + 'static) {
    alone(test, move || {
        let (pool, gate) = (pool(1), Gate::new());
        let futures = undone(&pool, &gate);
        let child = match fork() {
            Some(child) => child,
            None => end(i32::from(catch_unwind(AssertUnwindSafe(|| in_the_child(futures))).is_err())),
        };
        child.succeeds();
        gate.open();
        for future in futures {
            assert_eq!(future.result().unwrap(), 7);
        }
    });
}

#[test]
fn result_ends_in_the_child() {
    with_undone("fork::result_ends_in_the_child", |futures| {
        futures.into_iter().for_each(|future| is_wrong(future.result()));
    });
}

#[test]
fn result_with_a_time_limit_ends_in_the_child() {
    with_undone("fork::result_with_a_time_limit_ends_in_the_child", |futures| {
        for (future, limit) in futures.into_iter().zip([Duration::ZERO, LIMIT, Duration::MAX, LIMIT]) {
            is_wrong(future.result_timeout(limit).unwrap());
        }
    });
}

#[test]
fn whoever_looks_in_the_child_sees_it() {
    with_undone("fork::whoever_looks_in_the_child_sees_it", |futures| {
        let mut futures = futures.into_iter();
        let mut next = || futures.next().unwrap();
        assert!(next().peek().unwrap().unwrap_err().is_wrong_process());
        is_wrong(next().try_result().unwrap());
        let future = next();
        until(|| future.is_done());
        assert!(!future.is_running() && !future.is_cancelled());
        is_wrong(future.try_result().unwrap());
        assert!(!next().is_running());
    });
}

#[test]
fn awaiting_ends_in_the_child() {
    with_undone("fork::awaiting_ends_in_the_child", |futures| {
        futures.into_iter().for_each(|future| is_wrong(block_on(future)));
    });
}

#[test]
fn a_poll_is_ready_in_the_child() {
    with_undone("fork::a_poll_is_ready_in_the_child", |futures| {
        for mut future in futures {
            match poll(&mut future, Waker::noop()) {
                Poll::Ready(result) => is_wrong(result),
                Poll::Pending => panic!("nobody would wake it"),
            }
        }
    });
}

#[test]
fn waiting_for_several_ends_in_the_child() {
    for when in [ReturnWhen::AllCompleted, ReturnWhen::FirstCompleted, ReturnWhen::FirstException] {
        with_undone("fork::waiting_for_several_ends_in_the_child", move |futures| {
            let waited = wait(futures, None, when);
            assert_eq!((waited.done.len(), waited.not_done.len()), (4, 0));
            waited.done.into_iter().for_each(|future| is_wrong(future.result()));
        });
    }
}

#[test]
fn waiting_asynchronously_for_several_ends_in_the_child() {
    with_undone("fork::waiting_asynchronously_for_several_ends_in_the_child", |futures| {
        let waited = block_on(wait_async(futures, ReturnWhen::AllCompleted));
        assert_eq!((waited.done.len(), waited.not_done.len()), (4, 0));
        waited.done.into_iter().for_each(|future| is_wrong(future.result()));
    });
}

#[test]
fn as_completed_ends_in_the_child() {
    with_undone("fork::as_completed_ends_in_the_child", |mut futures| {
        let others = futures.split_off(2);
        assert_eq!(as_completed(futures).map(|future| is_wrong(future.result())).count(), 2);
        let in_time = as_completed_timeout(others, Duration::ZERO);
        assert_eq!(in_time.map(|future| is_wrong(future.unwrap().result())).count(), 2);
    });
}

#[test]
fn a_shared_future_ends_in_the_child() {
    with_undone("fork::a_shared_future_ends_in_the_child", |futures| {
        let mut shared = futures.into_iter().map(TaskFuture::shared);
        is_wrong(shared.next().unwrap().result());
        is_wrong(shared.next().unwrap().get_timeout(Duration::ZERO).unwrap());
        let future = shared.next().unwrap();
        assert_eq!(as_completed([future.clone(), future.clone()]).count(), 2);
        is_wrong(block_on(future));
        let future = shared.next().unwrap();
        assert!(!future.cancel());
        assert!(future.peek().unwrap().is_err() && future.is_done());
    });
}

#[test]
fn callbacks_are_called_in_the_child() {
    with_undone("fork::callbacks_are_called_in_the_child", |futures| {
        for future in futures {
            let (tx, rx) = mpsc::channel();
            future.add_done_callback(move |outcome| tx.send(outcome.unwrap_err().is_wrong_process()).unwrap());
            assert!(rx.try_recv().unwrap());
        }
    });
}

#[test]
fn nothing_is_cancelled_from_the_child() {
    with_undone("fork::nothing_is_cancelled_from_the_child", |mut futures| {
        futures.drain(..2).for_each(|future| drop(future.cancel_on_drop()));
        for future in futures {
            assert!(!future.cancel() && !future.is_cancelled());
            is_wrong(future.result());
        }
    });
}

// The callbacks that the parent has added are the parent's.
#[test]
fn callbacks_of_the_parent_do_not_run_in_the_child() {
    alone("fork::callbacks_of_the_parent_do_not_run_in_the_child", || {
        let (pool, gate) = (pool(1), Gate::new());
        let called = Arc::new(AtomicUsize::new(0));
        let futures = undone(&pool, &gate);
        for future in &futures {
            let called = Arc::clone(&called);
            future.add_done_callback(move |_| {
                called.fetch_add(1, SeqCst);
            });
        }
        let child = forked(|| {
            for future in &futures {
                assert!(future.is_done());
                future.add_done_callback(|_| ());
            }
            assert_eq!(called.load(SeqCst), 0);
        });
        child.succeeds();
        gate.open();
        futures.into_iter().for_each(|future| assert_eq!(future.result().unwrap(), 7));
        assert_eq!(called.load(SeqCst), 4);
    });
}

// Combinators that wait already when the fork comes.
#[test]
fn half_way_through_a_combinator() {
    alone("fork::half_way_through_a_combinator", || {
        let (pool, gate) = (pool(1), Gate::new());
        let done = pool.submit(|| 7);
        until(|| done.is_done());
        let mut futures = undone(&pool, &gate);
        futures.push(done);
        let shared: Vec<_> = futures.into_iter().map(TaskFuture::shared).collect();
        let mut completed = as_completed(shared.clone());
        assert_eq!(completed.next().unwrap().result().unwrap(), 7);
        let mut waiting = wait_async(shared.clone(), ReturnWhen::AllCompleted);
        assert!(poll(&mut waiting, Waker::noop()).is_pending());
        let mut single = shared[1].clone();
        assert!(poll(&mut single, Waker::noop()).is_pending());
        let child = match fork() {
            Some(child) => child,
            None => {
                let in_the_child = || {
                    assert_eq!(completed.map(|future| is_wrong(future.result())).count(), 4);
                    assert!(poll(&mut waiting, Waker::noop()).is_ready());
                    assert!(poll(&mut single, Waker::noop()).is_ready());
                };
                end(i32::from(catch_unwind(AssertUnwindSafe(in_the_child)).is_err()));
            }
        };
        child.succeeds();
        gate.open();
        assert_eq!(completed.map(|future| future.result().unwrap()).sum::<u32>(), 28);
        assert_eq!(block_on(waiting).done.len(), 5);
        assert_eq!(block_on(single).unwrap(), 7);
    });
}

#[test]
fn half_way_through_a_map() {
    alone("fork::half_way_through_a_map", || {
        for options in [MapOptions::new(), MapOptions::new().buffer(3), MapOptions::new().timeout(LIMIT)] {
            let (pool, gate) = (pool(2), Gate::new());
            let behind = gate.clone();
            let wait_for_it = move |n: usize| {
                if n > 0 {
                    behind.pass();
                }
                n
            };
            let mut map = pool.map_with(options.chunk_size(1), wait_for_it, 0..20usize).unwrap();
            assert_eq!(map.next().unwrap().unwrap(), 0);
            let child = match fork() {
                Some(child) => child,
                None => {
                    let in_the_child = || assert_eq!(map.map(is_wrong).count(), 19);
                    end(i32::from(catch_unwind(AssertUnwindSafe(in_the_child)).is_err()));
                }
            };
            child.succeeds();
            gate.open();
            assert_eq!(map.map(Result::unwrap).sum::<usize>(), 190);
        }
    });
}

#[test]
fn inside_a_scope() {
    alone("fork::inside_a_scope", || {
        let pool = pool(1);
        let plug = Plug::new(&pool, 1);
        let done = AtomicUsize::new(0);
        let count = || {
            done.fetch_add(1, SeqCst);
        };
        let mut child = None;
        let scoped = catch_unwind(AssertUnwindSafe(|| {
            pool.scope(|scope| {
                let (kept, given_up) = (scope.submit(count), scope.submit(count));
                child = fork();
                match child.is_some() {
                    true => plug.gate().open(),
                    false => is_wrong(kept.result()),
                }
                drop(given_up);
            });
        }));
        let Some(child) = child else {
            // It cannot say that all is done.
            end(i32::from(scoped.is_ok() || done.load(SeqCst) != 0))
        };
        child.succeeds();
        scoped.unwrap();
        assert_eq!(done.load(SeqCst), 2);
    });
}

#[test]
fn inside_a_join() {
    alone("fork::inside_a_join", || {
        let pool = Arc::new(pool(2));
        let inner = Arc::clone(&pool);
        let gate = Gate::new();
        let task = move || {
            let (stolen, behind) = (Gate::new(), gate.clone());
            let thief = stolen.clone();
            let mut child = None;
            let joined = catch_unwind(AssertUnwindSafe(|| {
                let first = || {
                    stolen.pass();
                    child = fork();
                    // In the child its lock has a table of threads that are not there.
                    if child.is_some() {
                        gate.open();
                    }
                };
                inner.join(first, move || {
                    thief.open();
                    behind.pass();
                })
            }));
            match child {
                Some(child) => {
                    child.succeeds();
                    joined.is_ok()
                }
                None => end(i32::from(joined.is_ok())),
            }
        };
        assert!(pool.submit(task).result().unwrap());
    });
}

#[test]
fn a_task_that_forks() {
    alone("fork::a_task_that_forks", || {
        let pool = Arc::new(pool(1));
        let inner = Arc::clone(&pool);
        let queued_in = Arc::clone(&pool);
        let task = move || {
            let queued = inner.submit(|| 7);
            forked(|| {
                every_verb_fails(&queued_in);
                // Not even a thread that was a worker of the pool runs a task of it.
                is_wrong(queued.result());
                is_wrong(block_on(queued_in.spawn(async { 1 })));
                drop((inner, queued_in));
            })
            .succeeds();
        };
        pool.submit(task).result().unwrap();
        assert_eq!(pool.submit(|| 7).result().unwrap(), 7);
    });
}

/// What all processes write to this.
struct Pipe(UnixStream, UnixStream);

impl Pipe {
    fn new() -> Self {
        let (reader, writer) = UnixStream::pair().unwrap();
        Self(reader, writer)
    }

    /// Writes a line, with the number of the process that does.
    fn say(&self, what: &'static str) -> impl Fn() + Clone + Send + Sync + 'static {
        use std::io::Write;
        let writer = Arc::new(self.1.try_clone().unwrap());
        move || (&*writer).write_all(format!("{what} {}\n", std::process::id()).as_bytes()).unwrap()
    }

    /// All that was written. Nothing can be written any more.
    fn all(self) -> String {
        self.1.shutdown(std::net::Shutdown::Write).unwrap();
        std::io::read_to_string(self.0).unwrap()
    }

    /// Fails if another process has written, or this one another number of lines.
    #[track_caller]
    fn has_only_own(self, count: usize) {
        let lines = self.all();
        let own = format!(" {}", std::process::id());
        assert!(lines.lines().all(|line| line.ends_with(&own)), "this process is{own}:\n{lines}");
        assert_eq!(lines.lines().count(), count, "{lines}");
    }
}

/// Forks, and gives the child to whoever has the other end.
fn forking() -> (impl Fn() + Clone + Send + Sync + 'static, mpsc::Receiver<Forked>) {
    let (tx, rx) = mpsc::channel();
    let forks = move || {
        if let Some(child) = fork() {
            tx.send(child).unwrap();
        }
    };
    (forks, rx)
}

// A child that comes out of the task must not go on as a worker: every task would be run twice.
#[test]
fn a_task_that_returns_in_the_child_ends_the_child() {
    alone("fork::a_task_that_returns_in_the_child_ends_the_child", || {
        let pipe = Pipe::new();
        let say = |what: &'static str| pipe.say(what);
        let pool = pool(1);
        let plug = Plug::new(&pool, 1);
        let (tx, rx) = mpsc::channel();
        let task = move || {
            let child = fork();
            let is_parent = child.is_some();
            if let Some(child) = child {
                tx.send(child).unwrap();
            }
            is_parent
        };
        let said = say("callback");
        let forks = pool.submit(task.clone());
        forks.add_done_callback(move |_| said());
        // Nobody has the handle of this one.
        pool.submit(task).detach();
        let forking = say("future");
        let spawned = pool.spawn(async move {
            if let Some(child) = fork() {
                child.succeeds();
            }
            forking();
        });
        let after: Vec<_> = (0..10).map(|_| pool.submit(say("task"))).collect();
        plug.release();
        assert!(forks.result().unwrap());
        spawned.result().unwrap();
        after.into_iter().for_each(|future| future.result().unwrap());
        drop(pool);
        rx.iter().for_each(Forked::succeeds);
        let own = format!(" {}", std::process::id());
        let lines = pipe.all();
        let of_parent =
            |what: &str| lines.lines().filter(|line| line.starts_with(what) && line.ends_with(&own)).count();
        assert_eq!((of_parent("task"), of_parent("callback"), of_parent("future")), (10, 1, 1), "{lines}");
        // The future itself is in the child when it writes.
        assert_eq!(lines.lines().count(), 13, "{lines}");
    });
}

/// Calls a function when it is dropped.
struct Calls<F: Fn() + Send + Sync + 'static>(F);

impl<F: Fn() + Send + Sync + 'static> Drop for Calls<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Calls a function when it is woken.
struct Woken<F: Fn() + Send + Sync + 'static>(F);

impl<F: Fn() + Send + Sync + 'static> std::task::Wake for Woken<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

/// All code of the user's that a worker calls besides the task itself, as a task to submit. It forks by the first function and
/// calls the other one later, once. Whether it does is the answer.
fn fork_beside_a_task(
    way: usize,
    pool: &Arc<ThreadPoolExecutor>,
    forks: impl Fn() + Clone + Send + Sync + 'static,
    later: impl Fn() + Clone + Send + Sync + 'static,
) -> Option<bool> {
    let calls_later = match way {
        // The callback of a closure, and another one behind it.
        0 => {
            let future = pool.submit(|| ());
            future.add_done_callback(move |_| forks());
            future.add_done_callback(move |_| later());
            true
        }
        // The same of a future.
        1 => {
            let future = pool.spawn(async {});
            future.add_done_callback(move |_| forks());
            future.add_done_callback(move |_| later());
            true
        }
        // The destructor of a result that nobody wants.
        2 => {
            pool.submit(move || Calls(forks)).detach();
            false
        }
        // The destructor of a future.
        3 => {
            let dropped = Calls(forks);
            let future = pool.spawn(std::future::poll_fn(move |_| {
                let _dropped = &dropped;
                Poll::Ready(())
            }));
            future.add_done_callback(move |_| later());
            true
        }
        // A waker.
        4 => {
            let mut future = pool.submit(|| ());
            assert!(poll(&mut future, &Waker::from(Arc::new(Woken(forks)))).is_pending());
            mem::forget(future);
            false
        }
        // The callback of a task that is run in place by another one.
        5 | 6 => {
            let inner = Arc::clone(pool);
            let outer = pool.submit(move || {
                match way {
                    5 => {
                        let future = inner.submit(|| ());
                        future.add_done_callback(move |_| forks());
                        future.result().unwrap();
                    }
                    _ => {
                        let future = inner.spawn(async {});
                        future.add_done_callback(move |_| forks());
                        future.result().unwrap();
                    }
                }
                later();
            });
            outer.detach();
            true
        }
        // The callback of a task that a spare thread runs.
        7 => {
            let inner = Arc::clone(pool);
            let outer = pool.submit(move || {
                let future = inner.submit(|| ());
                future.add_done_callback(move |_| forks());
                future.result_timeout(LIMIT).unwrap().unwrap();
            });
            outer.detach();
            false
        }
        // One of several wakers.
        8 => {
            let mut first = pool.submit(|| ()).shared();
            let mut second = first.clone();
            assert!(poll(&mut first, &Waker::from(Arc::new(Woken(forks)))).is_pending());
            assert!(poll(&mut second, &Waker::from(Arc::new(Woken(later)))).is_pending());
            mem::forget((first, second));
            true
        }
        _ => return None,
    };
    Some(calls_later)
}

// Not only a task: whatever a worker calls may fork, and return in the child.
#[test]
fn what_a_worker_calls_and_returns_in_the_child_ends_the_child() {
    alone("fork::what_a_worker_calls_and_returns_in_the_child_ends_the_child", || {
        for way in 0.. {
            let (pipe, pool, (forks, children)) = (Pipe::new(), Arc::new(pool(1)), forking());
            let plug = Plug::new(&pool, 1);
            let Some(calls_later) = fork_beside_a_task(way, &pool, forks, pipe.say("later")) else { break };
            let after: Vec<_> = (0..10).map(|_| pool.submit(pipe.say("task"))).collect();
            plug.release();
            after.into_iter().for_each(|future| future.result().unwrap());
            assert_eq!(children.recv().unwrap().wait(), Ended::Code(0), "{way}");
            drop(pool);
            println!("way {way}");
            pipe.has_only_own(10 + usize::from(calls_later));
        }
    });
}

// A thread that is none of the pool's may go on in the child, but not with what is the parent's to do.
#[test]
fn who_cancels_calls_the_callbacks_in_one_process() {
    alone("fork::who_cancels_calls_the_callbacks_in_one_process", || {
        let (pipe, pool) = (Pipe::new(), pool(1));
        let plug = Plug::new(&pool, 1);
        let (tx, rx) = mpsc::channel();
        let futures = [pool.submit(|| ()), pool.spawn(async {}), pool.submit(|| ()), pool.spawn(async {})];
        for (n, future) in futures.iter().enumerate() {
            let tx = tx.clone();
            future.add_done_callback(move |_| tx.send(fork()).unwrap());
            let said = pipe.say("callback");
            future.add_done_callback(move |_| said());
            if n < 2 {
                future.cancel();
                match rx.recv().unwrap() {
                    Some(child) => child.succeeds(),
                    None => end(i32::from(!future.is_done())),
                }
            }
        }
        // Of those that are queued all are cancelled, in this thread.
        let ended = pool.shutdown(Shutdown::Within(Duration::ZERO));
        assert!(ended.is_err());
        let children: Vec<_> = rx.try_iter().collect();
        if children.iter().any(Option::is_none) {
            end(0);
        }
        assert_eq!(children.len(), 2);
        children.into_iter().flatten().for_each(Forked::succeeds);
        plug.release();
        drop(pool);
        pipe.has_only_own(4);
    });
}

#[test]
fn a_map_item_that_returns_in_the_child_ends_the_child() {
    alone("fork::a_map_item_that_returns_in_the_child_ends_the_child", || {
        for (in_task, panics) in [(false, false), (false, true), (true, false), (true, true)] {
            let (pipe, pool, (forks, children)) = (Pipe::new(), Arc::new(pool(1)), forking());
            let (said, parent) = (pipe.say("item"), std::process::id());
            let item = move |n: usize| {
                said();
                if n == 3 {
                    forks();
                    assert!(!panics || std::process::id() == parent, "a child panics, as this test wants it");
                }
                n
            };
            let inner = Arc::clone(&pool);
            let sum = move || {
                let map = inner.map_with(MapOptions::new().chunk_size(10), item, 0..20).unwrap();
                map.map(Result::unwrap).sum::<usize>()
            };
            // Inside a task it is the consumer that works on the map.
            let sum = if in_task { pool.submit(sum).result().unwrap() } else { sum() };
            assert_eq!(sum, 190);
            assert_eq!(children.recv().unwrap().wait(), Ended::Code(if panics { 101 } else { 0 }));
            drop(pool);
            pipe.has_only_own(20);
        }
    });
}

// It is polled again, where it has woken itself, by the parent only.
#[test]
fn a_future_on_a_spare_thread_that_returns_in_the_child_ends_the_child() {
    alone("fork::a_future_on_a_spare_thread_that_returns_in_the_child_ends_the_child", || {
        let (pipe, pool, (forks, children)) = (Pipe::new(), Arc::new(pool(1)), forking());
        let (inner, said) = (Arc::clone(&pool), pipe.say("poll"));
        let task = pool.submit(move || {
            let mut forked = false;
            let future = inner.spawn(std::future::poll_fn(move |context: &mut Context<'_>| {
                said();
                if mem::replace(&mut forked, true) {
                    return Poll::Ready(());
                }
                // Before: in the child it would do nothing.
                context.waker().wake_by_ref();
                forks();
                Poll::Pending
            }));
            future.result_timeout(LIMIT).unwrap().unwrap();
        });
        task.result().unwrap();
        children.recv().unwrap().succeeds();
        drop(pool);
        pipe.has_only_own(2);
    });
}

// The wait of a task that goes on in the child ends there without a word to anybody: it was the parent's.
#[test]
fn a_wait_that_ends_in_the_child_wakes_nobody() {
    alone("fork::a_wait_that_ends_in_the_child_wakes_nobody", || {
        let (pipe, pool, gate) = (Pipe::new(), Arc::new(pool(1)), Gate::new());
        let (inner, said) = (Arc::clone(&pool), pipe.say("woken"));
        let task = pool.submit(move || {
            let behind = gate.clone();
            // A spare thread runs this one, and who polls it is told when that thread has nothing to do.
            let mut awaited = inner.submit(move || behind.pass());
            let child = block_on(std::future::poll_fn(|_| {
                assert!(poll(&mut awaited, &Waker::from(Arc::new(Woken(said.clone())))).is_pending());
                Poll::Ready(fork())
            }));
            match child {
                Some(child) => child.succeeds(),
                None => end(0),
            }
            gate.open();
            awaited.result().unwrap();
        });
        task.result().unwrap();
        drop(pool);
        let lines = pipe.all();
        let own = format!(" {}", std::process::id());
        assert!(lines.lines().all(|line| line.ends_with(&own)), "this process is{own}:\n{lines}");
    });
}

/// Writes over much of the calling thread's stack.
#[inline(never)]
fn use_the_stack() {
    std::hint::black_box(&mut [0x55_u8; 1 << 19]);
}

// The stacks of the parent's threads are the child's to use again.
#[cfg(target_os = "linux")]
#[test]
fn a_shared_future_that_threads_of_the_parent_wait_for() {
    alone("fork::a_shared_future_that_threads_of_the_parent_wait_for", || {
        // In the child only the locks of std are good: those of the tests have entries in the stacks of threads that wait.
        let (pool, (open, gate)) = (pool(1), mpsc::channel());
        let shared = pool.submit(move || gate.recv().unwrap()).shared();
        let (tx, rx) = mpsc::channel();
        let wait = |timeout: Option<Duration>| {
            let (shared, tx) = (shared.clone(), tx.clone());
            thread::spawn(move || {
                tx.send(rustix::thread::gettid()).unwrap();
                match timeout {
                    None => shared.result().unwrap(),
                    Some(timeout) => *shared.get_timeout(timeout).unwrap().unwrap(),
                }
            })
        };
        let waiting: Vec<_> = (0..4).map(|n| wait((n > 1).then_some(LIMIT))).collect();
        rx.iter().take(waiting.len()).for_each(until_asleep);
        forked(|| {
            let (own, all) = (ThreadPoolExecutor::new(8).unwrap(), Arc::new(std::sync::Barrier::new(8)));
            let each = |_| {
                let all = Arc::clone(&all);
                own.submit(move || {
                    use_the_stack();
                    all.wait();
                })
            };
            let on_each: Vec<_> = (0..8).map(each).collect();
            on_each.into_iter().for_each(|future| future.result().unwrap());
            assert!(shared.is_done());
            is_wrong(shared.result());
        })
        .succeeds();
        open.send(7).unwrap();
        waiting.into_iter().for_each(|thread| assert_eq!(thread.join().unwrap(), 7));
    });
}

#[test]
fn whatever_the_child_does_the_parent_goes_on() {
    alone("fork::whatever_the_child_does_the_parent_goes_on", || {
        let pool = pool(2);
        let plug = Plug::new(&pool, 1);
        let queued: Vec<_> = (0..100).map(|n| pool.submit(move || n)).collect();
        let pool = Some(pool);
        let in_the_child = |what: i32| -> i32 {
            let pool = unsafe_copy(&pool);
            match what {
                0 => drop(pool),
                1 => std::process::exit(3),
                2 => {
                    let _pool = pool;
                    panic!("a child panics, as this test wants it");
                }
                3 => std::process::abort(),
                4 => {
                    use std::os::unix::process::CommandExt;
                    let _ = std::process::Command::new("/bin/true").exec();
                }
                5 => {
                    let _ = pool.shutdown(Shutdown::CancelPending);
                }
                _ => {
                    let _ = (pool.submit(|| 1).result(), pool.resize(1), pool.stats());
                }
            }
            0
        };
        let expected = [
            Ended::Code(0),
            Ended::Code(3),
            Ended::Code(101),
            Ended::Signal(libc::SIGABRT),
            Ended::Code(0),
            Ended::Code(0),
            Ended::Code(0),
        ];
        for (what, expected) in (0..).zip(expected) {
            let child = match fork() {
                Some(child) => child,
                None => end(catch_unwind(AssertUnwindSafe(|| in_the_child(what))).unwrap_or(101)),
            };
            assert_eq!(child.wait(), expected, "{what}");
            assert_eq!(pool.as_ref().unwrap().submit(|| 1).result().unwrap(), 1);
        }
        plug.release();
        assert_eq!(queued.into_iter().map(|future| future.result().unwrap()).sum::<i32>(), 4950);
        assert_eq!(pool.as_ref().unwrap().stats().max_workers, 2);
    });
}

/// The pool itself, to be dropped: by a child, whose copy of it is its own.
#[allow(unsafe_code)]
fn unsafe_copy(pool: &Option<ThreadPoolExecutor>) -> ThreadPoolExecutor {
    // SAFETY: the child never drops the original: it ends.
    unsafe { std::ptr::read(pool.as_ref().unwrap()) }
}

#[test]
fn the_default_executor_starts_afresh() {
    alone("fork::the_default_executor_starts_afresh", || {
        for _ in 0..2 {
            let gate = Gate::new();
            let behind = gate.clone();
            let parents = default_executor().submit(move || behind.pass());
            forked(|| {
                let mut threads = default_executor().map(|n: usize| n, 0..100).map(Result::unwrap);
                assert_eq!(threads.by_ref().sum::<usize>(), 4950);
                assert!(default_executor().stats().workers > 0);
                is_wrong(parents.peek().unwrap().map_err(Clone::clone));
                // And in the child of the child.
                forked(|| assert_eq!(default_executor().submit(|| 1).result().unwrap(), 1)).succeeds();
                assert_eq!(default_executor().submit(|| 2).result().unwrap(), 2);
            })
            .succeeds();
            gate.open();
            parents.result().unwrap();
        }
    });
}

#[test]
fn a_child_has_pools_of_its_own() {
    alone("fork::a_child_has_pools_of_its_own", || {
        let parents = pool(2);
        parents.submit(|| ()).result().unwrap();
        forked(|| {
            let own = pool(2);
            assert_eq!(own.submit(|| 1).result().unwrap(), 1);
            assert_eq!(block_on(own.spawn(async { 2 })).unwrap(), 2);
            assert_eq!(own.join(|| 1, || 2), (1, 2));
            assert!(own.submit(|| -> () { panic!("as this test wants it") }).result().unwrap_err().is_panicked());
            every_verb_fails(&parents);
            let later = own.submit(|| 3);
            forked(|| {
                every_verb_fails(&parents);
                every_verb_fails(&own);
                let grandchilds = pool(1);
                assert_eq!(grandchilds.submit(|| 4).result().unwrap(), 4);
                drop(grandchilds);
            })
            .succeeds();
            assert_eq!(later.result().unwrap(), 3);
            drop(own);
        })
        .succeeds();
        assert_eq!(parents.submit(|| 1).result().unwrap(), 1);
    });
}

// A promise is of no pool: both halves may be in the child.
#[test]
fn a_promise_is_kept_in_the_child() {
    alone("fork::a_promise_is_kept_in_the_child", || {
        let _pool = pool(1);
        let (promise, future) = promise::<u32>();
        let mut both = Some((promise, future));
        forked(|| {
            let (promise, future) = both.take().unwrap();
            assert!(!future.is_done());
            let setter = thread::spawn(move || promise.set_result(7).unwrap());
            assert_eq!(future.result().unwrap(), 7);
            setter.join().unwrap();
        })
        .succeeds();
        let (promise, future) = both.unwrap();
        promise.set_result(8).unwrap();
        assert_eq!(future.result().unwrap(), 8);
    });
}

// The parent's future waits for something of the child's: a wake-up there concerns nobody.
#[test]
fn wakers_of_the_parent_do_nothing_in_the_child() {
    alone("fork::wakers_of_the_parent_do_nothing_in_the_child", || {
        let (pool, puppet, drops) = (pool(1), Puppet::new(), Drops::new());
        let future = pool.spawn(puppet.future(drops.token()));
        let waker = puppet.waker();
        let mut waker = Some(waker);
        forked(|| {
            waker.as_ref().unwrap().wake_by_ref();
            waker.take().unwrap().wake();
            drop(puppet.take_waker());
            assert_eq!((puppet.polls(), drops.count()), (1, 0));
        })
        .succeeds();
        drop(waker);
        puppet.finish();
        assert_eq!(future.result().unwrap(), 2);
    });
}

// A future that a `block_on` waits for, which is in the middle of a poll when the fork comes: nobody will wake it.
#[test]
fn block_on_looks_again_in_the_child() {
    alone("fork::block_on_looks_again_in_the_child", || {
        let (pool, gate) = (pool(1), Gate::new());
        let plug = Plug::new(&pool, 1);
        let mut undone = pool.submit(|| 7);
        let mut child = None;
        let mut polls = 0;
        let result = block_on(std::future::poll_fn(|context| {
            let polled = Pin::new(&mut undone).poll(context);
            polls += 1;
            if polls == 1 {
                child = fork();
                if child.is_some() {
                    gate.open();
                    plug.gate().open();
                }
            }
            polled
        }));
        match child {
            Some(child) => child.succeeds(),
            None => end(i32::from(!result.unwrap_err().is_wrong_process())),
        }
        assert_eq!(result.unwrap(), 7);
    });
}

// The first pool of the process is made inside: before, there was nothing by which a child could be told.
#[test]
fn block_on_looks_again_in_the_child_of_its_first_pool() {
    alone("fork::block_on_looks_again_in_the_child_of_its_first_pool", || {
        // Not a gate: see `block_on_polls_no_more_in_a_child_than_it_has_to`.
        let mut undone: Option<(ThreadPoolExecutor, mpsc::Sender<()>, TaskFuture<()>)> = None;
        let (mut depth, mut child) = (0, None);
        block_on(std::future::poll_fn(|context| {
            // In the child, and in its child, it is polled again although nobody has woken it there.
            if depth == 2 {
                return Poll::Ready(());
            }
            let (_, go_on, future) = undone.get_or_insert_with(|| {
                let pool = pool(1);
                let ((go_on, behind), (begun, started)) = (mpsc::channel(), mpsc::channel());
                let future = pool.submit(move || {
                    begun.send(()).unwrap();
                    behind.recv().unwrap();
                });
                started.recv().unwrap();
                (pool, go_on, future)
            });
            let polled = Pin::new(future).poll(context);
            if polled.is_pending() && child.is_none() {
                child = fork();
                match child.is_some() {
                    true => go_on.send(()).unwrap(),
                    false => {
                        depth += 1;
                        mem::forget(undone.take());
                    }
                }
            }
            polled.map(Result::unwrap)
        }));
        if let Some(child) = child {
            child.succeeds();
        }
        if depth > 0 {
            end(0);
        }
    });
}

// A child that has no pools has nothing to look for.
#[test]
fn block_on_polls_no_more_in_a_child_than_it_has_to() {
    alone("fork::block_on_polls_no_more_in_a_child_than_it_has_to", || {
        let _pool = pool(1);
        forked(|| {
            // Not gates: their locks have a table of waiting threads, which this child has inherited.
            let (tx, rx) = mpsc::channel::<Waker>();
            let (go_on, behind) = mpsc::channel::<()>();
            let woken = Arc::new(AtomicBool::new(false));
            let wakes = Arc::clone(&woken);
            let waker = thread::spawn(move || {
                let waker = rx.recv().unwrap();
                let _ = behind.recv();
                wakes.store(true, SeqCst);
                waker.wake();
            });
            let mut polls = 0;
            // The thread wakes it when this one sleeps, or when it has been polled for nothing.
            #[cfg(target_os = "linux")]
            let opener = thread::spawn({
                let tid = rustix::thread::gettid();
                move || {
                    until_asleep(tid);
                    go_on.send(()).unwrap();
                }
            });
            #[cfg(not(target_os = "linux"))]
            drop(go_on);
            block_on(std::future::poll_fn(|context| {
                polls += 1;
                if polls == 1 {
                    tx.send(context.waker().clone()).unwrap();
                    return Poll::Pending;
                }
                assert!(woken.load(SeqCst), "polled for nothing");
                Poll::Ready(())
            }));
            waker.join().unwrap();
            opener.join().unwrap();
        })
        .succeeds();
    });
}

/// Forks again and again while other threads make use of a pool.
fn forks_in_the_middle(pool: ThreadPoolExecutor, traffic: [fn(&ThreadPoolExecutor); 3], in_the_child: impl Fn()) {
    let (pool, over, started) = (Arc::new(pool), Gate::new(), Counter::new());
    let repeat = |traffic: fn(&ThreadPoolExecutor)| {
        let (pool, over, started) = (Arc::clone(&pool), over.clone(), Arc::clone(&started));
        move || {
            started.add();
            while !over.is_open() {
                traffic(&pool);
            }
        }
    };
    // The queue is bounded, and may be full later.
    let before = pool.submit(|| 7);
    let threads: Vec<_> = traffic.into_iter().map(|traffic| thread::spawn(repeat(traffic))).collect();
    started.wait_for(threads.len());
    for _ in rounds(100) {
        forked(|| {
            is_wrong(pool.submit(|| 1).result());
            is_wrong(block_on(pool.spawn(async { 1 })));
            assert!(pool.stats().workers == 0 && pool.resize(1).is_err());
            assert!(before.is_done() && before.peek().is_some());
            in_the_child();
        })
        .succeeds();
    }
    over.open();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(before.result().unwrap(), 7);
}

fn floods(pool: &ThreadPoolExecutor) {
    pool.submit_all((0..10).map(|n| move || n)).into_iter().for_each(TaskFuture::detach);
}

fn awaits(pool: &ThreadPoolExecutor) {
    // The queue may be full.
    let _ = block_on(pool.spawn(yield_now()));
}

fn bounded() -> ThreadPoolExecutor {
    ThreadPoolExecutor::builder().max_workers(2).queue_capacity(64, QueuePolicy::Fail).build().unwrap()
}

// A fork can come while any lock of the pool is held, by threads that the child does not have.
#[test]
fn forks_in_the_middle_of_everything() {
    alone("fork::forks_in_the_middle_of_everything", || {
        let resizes = |pool: &ThreadPoolExecutor| drop((pool.stats(), pool.resize(2), pool.resize(3)));
        forks_in_the_middle(bounded(), [floods, awaits, resizes], || ());
    });
}

// The parent starts no threads meanwhile: std has a lock for that, too, which the child inherits.
#[test]
fn pools_of_children_that_were_forked_in_the_middle() {
    alone("fork::pools_of_children_that_were_forked_in_the_middle", || {
        let pool = bounded();
        on_each_worker(&pool, 2, || ());
        let joins = |pool: &ThreadPoolExecutor| assert_eq!(pool.join(|| 1, || 2), (1, 2));
        forks_in_the_middle(pool, [floods, awaits, joins], || {
            let own = ThreadPoolExecutor::new(2).unwrap();
            assert_eq!(own.submit(|| 7).result().unwrap(), 7);
            assert_eq!(block_on(default_executor().spawn(async { 8 })).unwrap(), 8);
            drop(own);
        });
    });
}

// Not every fork goes through the C library.
#[cfg(target_os = "linux")]
#[test]
#[allow(unsafe_code)]
fn a_fork_that_the_c_library_does_not_know_of() {
    alone("fork::a_fork_that_the_c_library_does_not_know_of", || {
        let pool = pool(1);
        let plug = Plug::new(&pool, 1);
        let queued = pool.submit(|| 7);
        let none = std::ptr::null_mut::<u8>();
        // SAFETY: as `fork`, with no stack of its own for the child.
        let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, none, none, none, none) };
        assert!(pid >= 0);
        if pid == 0 {
            // Before the kernel could wipe pages, nothing tells this child.
            let told = pool.submit(|| 1);
            let wrong = matches!(told.peek(), Some(Err(error)) if error.is_wrong_process()) && queued.is_done();
            mem::forget(told);
            end(i32::from(!wrong));
        }
        Forked(pid.try_into().unwrap()).succeeds();
        plug.release();
        assert_eq!(queued.result().unwrap(), 7);
    });
}

// A command is a child, too, and the parent is not one after it.
#[test]
#[allow(unsafe_code)]
fn commands_do_not_disturb_the_parent() {
    use std::os::unix::process::CommandExt;
    alone("fork::commands_do_not_disturb_the_parent", || {
        let pool = pool(1);
        assert!(std::process::Command::new("/bin/true").status().unwrap().success());
        assert_eq!(pool.submit(|| 1).result().unwrap(), 1);
        let mut command = std::process::Command::new("/bin/true");
        // SAFETY: it does nothing. With it, the command is started by `fork`.
        unsafe { command.pre_exec(|| Ok(())) };
        assert!(command.status().unwrap().success());
        assert_eq!(pool.submit(|| 2).result().unwrap(), 2);
        assert_eq!(poll_once(async { 3 }), Poll::Ready(3));
    });
}
