//! The runtimes, the pools and the handles: what is multiplied with what.

use std::future::Future;
use std::io::Read;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll};

use concurrent_futures::{
    Executor, ProcessPoolExecutor, SharedFuture, Shutdown, Stdio, TaskError, TaskFuture, ThreadPoolExecutor,
};
use futures::channel::oneshot;
use futures::future::{BoxFuture, FutureExt, LocalBoxFuture};
use futures::task::SpawnExt;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Who polls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Runtime {
    /// tokio, where all tasks are polled by the thread that blocks.
    TokioCurrentThread,
    /// tokio, where tasks wander from thread to thread.
    TokioMultiThread,
    /// smol's executor on two threads, beside the one that blocks and drives async-io.
    Smol,
    /// `futures`, where all tasks are polled by the thread that blocks.
    FuturesLocal,
    /// `futures`, with a pool of threads.
    FuturesThreads,
    /// None: `block_on`, and a pool that polls what is spawned.
    Own,
}

pub(super) const RUNTIMES: [Runtime; 6] = [
    Runtime::TokioCurrentThread,
    Runtime::TokioMultiThread,
    Runtime::Smol,
    Runtime::FuturesLocal,
    Runtime::FuturesThreads,
    Runtime::Own,
];

impl Runtime {
    /// Starts the runtime, runs `main` to its end, and shuts the runtime down. Tasks go to the spawner.
    pub(super) fn run<F: Future>(self, main: impl FnOnce(Spawner) -> F) -> F::Output {
        let mut output = None;
        let to = &mut output;
        // Boxed, so that the runtimes are compiled once, and not for every test.
        self.drive(Box::new(move |spawner| {
            let main = main(spawner);
            async move { *to = Some(main.await) }.boxed_local()
        }));
        output.unwrap()
    }

    fn drive<'a>(self, main: Box<dyn FnOnce(Spawner) -> LocalBoxFuture<'a, ()> + 'a>) {
        match self {
            Self::TokioCurrentThread | Self::TokioMultiThread => {
                let runtime = match self {
                    Self::TokioCurrentThread => tokio::runtime::Builder::new_current_thread().enable_time().build(),
                    _ => tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build(),
                };
                let runtime = runtime.unwrap();
                runtime.block_on(main(Spawner::Tokio(runtime.handle().clone())));
            }
            Self::Smol => {
                let executor = Arc::new(smol::Executor::new());
                let (stop, stopped) = smol::channel::bounded::<()>(1);
                let threads = [(); 2].map(|()| {
                    let (executor, stopped) = (Arc::clone(&executor), stopped.clone());
                    std::thread::spawn(move || smol::block_on(executor.run(stopped.recv())))
                });
                smol::block_on(main(Spawner::Smol(executor)));
                drop(stop);
                for thread in threads {
                    thread.join().unwrap().unwrap_err();
                }
            }
            Self::FuturesLocal => {
                let mut executor = futures::executor::LocalPool::new();
                let main = main(Spawner::FuturesLocal(executor.spawner()));
                executor.run_until(main);
            }
            Self::FuturesThreads => {
                let executor = futures::executor::ThreadPool::builder().pool_size(2).create().unwrap();
                futures::executor::block_on(main(Spawner::FuturesThreads(executor)));
            }
            Self::Own => {
                let pool = Arc::new(ThreadPoolExecutor::new(2).unwrap());
                concurrent_futures::block_on(main(Spawner::Own(Arc::clone(&pool))));
                // A runtime that ends drops its tasks.
                pool.shutdown(Shutdown::CancelPending).unwrap();
            }
        }
    }
}

/// Starts tasks of a runtime.
#[derive(Clone)]
pub(super) enum Spawner {
    Tokio(tokio::runtime::Handle),
    Smol(Arc<smol::Executor<'static>>),
    FuturesLocal(futures::executor::LocalSpawner),
    FuturesThreads(futures::executor::ThreadPool),
    Own(Arc<ThreadPoolExecutor>),
}

impl Spawner {
    /// Starts a task. The future that comes back is ready when the task is done.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> BoxFuture<'static, T> {
        let (done, output) = oneshot::channel();
        self.start(async move { drop(done.send(task.await)) }.boxed());
        output.map(|output| output.expect("the task has returned")).boxed()
    }

    fn start(&self, task: BoxFuture<'static, ()>) {
        match self {
            Self::Tokio(tokio) => drop(tokio.spawn(task)),
            Self::Smol(smol) => smol.spawn(task).detach(),
            Self::FuturesLocal(local) => local.spawn(task).unwrap(),
            Self::FuturesThreads(threads) => threads.spawn_ok(task),
            Self::Own(pool) => pool.spawn(task).detach(),
        }
    }
}

/// Who computes.
#[derive(Debug)]
pub(super) enum Pool {
    Threads(ThreadPoolExecutor),
    Processes(ProcessPoolExecutor),
}

impl Pool {
    pub(super) fn threads(max_workers: usize) -> Self {
        Self::Threads(ThreadPoolExecutor::new(max_workers).unwrap())
    }

    pub(super) fn processes(max_workers: usize) -> Self {
        Self::Processes(ProcessPoolExecutor::builder().max_workers(max_workers).stdio(Stdio::Null).build().unwrap())
    }

    /// Both, with so many workers.
    pub(super) fn both(max_workers: usize) -> [Self; 2] {
        [Self::threads(max_workers), Self::processes(max_workers)]
    }

    pub(super) fn submit<F, A, R>(&self, f: F, argument: A) -> TaskFuture<R>
    where
        F: Fn(A) -> R + Copy + Send + Sync + 'static,
        A: Serialize + DeserializeOwned + Send + 'static,
        R: Serialize + DeserializeOwned + Send + 'static,
    {
        match self {
            Self::Threads(pool) => pool.submit_call(f, argument),
            Self::Processes(pool) => pool.submit_call(f, argument),
        }
    }

    pub(super) fn shutdown(&self, how: Shutdown) {
        match self {
            Self::Threads(pool) => Executor::shutdown(pool, how),
            Self::Processes(pool) => Executor::shutdown(pool, how),
        }
        .unwrap();
    }
}

/// What is awaited.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Task,
    Shared,
    /// Shared, and somebody else has a clone that is polled by nobody.
    SharedTwice,
}

pub(super) const KINDS: [Kind; 3] = [Kind::Task, Kind::Shared, Kind::SharedTwice];

impl Kind {
    pub(super) fn of<T: Clone + Send + Sync + 'static>(self, future: TaskFuture<T>) -> Handle<T> {
        match self {
            Self::Task => Handle::Task(future),
            Self::Shared => Handle::Shared(future.shared(), None),
            Self::SharedTwice => {
                let future = future.shared();
                Handle::Shared(future.clone(), Some(future))
            }
        }
    }
}

/// One of the handles, as one type.
#[derive(Debug)]
pub(super) enum Handle<T> {
    Task(TaskFuture<T>),
    Shared(SharedFuture<T>, Option<SharedFuture<T>>),
}

impl<T: Clone + Send + Sync + 'static> Handle<T> {
    pub(super) fn result(self) -> Result<T, TaskError> {
        match self {
            Self::Task(future) => future.result(),
            Self::Shared(future, _other) => future.result(),
        }
    }

    /// A clone, if there can be one.
    pub(super) fn other(&self) -> Option<SharedFuture<T>> {
        match self {
            Self::Task(_) => None,
            Self::Shared(future, _) => Some(future.clone()),
        }
    }

    pub(super) fn cancel(&self) -> bool {
        match self {
            Self::Task(future) => future.cancel(),
            Self::Shared(future, _) => future.cancel(),
        }
    }
}

impl<T: Clone> Future for Handle<T> {
    type Output = Result<T, TaskError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Task(future) => Pin::new(future).poll(context),
            Self::Shared(future, _) => Pin::new(future).poll(context),
        }
    }
}

/// A door that is shut until this is dropped, for whoever knows its name, in whichever process. (Connections are not accepted:
/// they last until there is no listener any more.)
#[derive(Debug)]
pub(super) struct Gate(UnixListener);

impl Gate {
    /// A door, and its name.
    pub(super) fn new() -> (Self, String) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("concurrent-futures-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        (Self(listener), name)
    }

    /// Submits a task that returns the number once the door is open.
    pub(super) fn guards(pool: &Pool, number: u64) -> (Self, TaskFuture<u64>) {
        let (gate, name) = Self::new();
        let task = |(name, number): (String, u64)| {
            pass(&name);
            number
        };
        (gate, pool.submit(task, (name, number)))
    }

    /// Blocks until somebody stands before the door. That one waits for the connection that this returns, too.
    pub(super) fn visitor(&self) -> UnixStream {
        self.0.accept().unwrap().0
    }

    pub(super) fn open(self) {}
}

/// Blocks until the door of this name is open.
pub(super) fn pass(name: &str) {
    if let Ok(mut connection) = UnixStream::connect_addr(&SocketAddr::from_abstract_name(name).unwrap()) {
        // The end, or the error that says that there is nobody on the other side.
        let _ = connection.read(&mut [0]);
    }
}

/// Polls a future once, in whatever task this is awaited.
pub(super) async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::future::poll_fn(|context| Poll::Ready(Pin::new(&mut *future).poll(context))).await
}
