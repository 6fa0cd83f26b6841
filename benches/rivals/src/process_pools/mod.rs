//! The contenders that run tasks in processes.

mod floor;
mod ours;
mod procspawn;
mod python;

use std::sync::OnceLock;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use self::floor::Floor;
pub(crate) use self::ours::Ours;
pub(crate) use self::procspawn::Procspawn;
pub(crate) use self::python::{Python, PythonPool};

/// What is run in a worker. As it is a type, each contender can name it in its own way.
pub(crate) trait Task: 'static {
    type Argument: Serialize + DeserializeOwned + Send + 'static;
    type Result: Serialize + DeserializeOwned + Send + 'static;

    fn run(argument: Self::Argument) -> Self::Result;
}

/// A pool of processes that run functions, and gives a handle to each result.
pub(crate) trait ProcessPool: Sized + Send + Sync + 'static {
    const NAME: &'static str;

    /// How many handles there may be at a time.
    const WINDOW: usize;

    type Handle<R: Serialize + DeserializeOwned + Send + 'static>;

    fn start(workers: usize) -> Self;

    fn submit<T: Task>(&self, argument: T::Argument) -> Self::Handle<T::Result>;

    fn wait<R: Serialize + DeserializeOwned + Send + 'static>(handle: Self::Handle<R>) -> R;

    /// Ends the pool, and waits for its processes.
    fn shutdown(self);
}

/// A pool that is started when it is needed first, and then kept to the end of the program.
pub(crate) struct Kept<P> {
    workers: usize,
    pool: OnceLock<P>,
}

impl<P: ProcessPool> Kept<P> {
    pub(crate) fn get(&self) -> &P {
        self.pool.get_or_init(|| P::start(self.workers))
    }
}

/// One of each.
#[derive(Clone, Copy)]
pub(crate) struct ProcessPools {
    pub(crate) workers: usize,
    pub(crate) ours: &'static Kept<Ours>,
    pub(crate) procspawn: &'static Kept<Procspawn>,
    pub(crate) python: Option<Python>,
}

impl ProcessPools {
    pub(crate) fn new(workers: usize, python: Option<Python>) -> Self {
        fn kept<P>(workers: usize) -> &'static Kept<P> {
            Box::leak(Box::new(Kept { workers, pool: OnceLock::new() }))
        }
        Self { workers, ours: kept(workers), procspawn: kept(workers), python }
    }
}

/// Runs a statement once for each pool that is written in Rust, under a name for it; each time the name has another type.
macro_rules! for_each_process_pool {
    ($pools:expr, $pool:ident => $body:expr) => {{
        let $pool = $pools.ours;
        $body;
        let $pool = $pools.procspawn;
        $body;
    }};
}
pub(crate) use for_each_process_pool;

/// Serves, and does not return, in a process that a contender has started. Ours needs no such call.
pub(crate) fn serve_if_started_by_one() {
    ::procspawn::init();
    floor::serve_if_asked();
}
