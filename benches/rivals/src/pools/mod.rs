//! The contenders.

mod blocking;
mod naive;
mod ours;
mod rayon;
mod rusty_pool;
mod threadpool;
mod tokio_spawn;
mod tokio_spawn_blocking;

use std::future::Future;

pub(crate) use self::blocking::Blocking;
pub(crate) use self::naive::Naive;
pub(crate) use self::ours::Ours;
pub(crate) use self::rayon::Rayon;
pub(crate) use self::rusty_pool::RustyPool;
pub(crate) use self::threadpool::Threadpool;
pub(crate) use self::tokio_spawn::TokioSpawn;
pub(crate) use self::tokio_spawn_blocking::TokioSpawnBlocking;

/// A pool of threads that runs closures, and gives a handle to each result.
pub(crate) trait Pool: Sized + Send + Sync + 'static {
    const NAME: &'static str;

    /// There is one for the process: it is neither started nor ended.
    const GLOBAL: bool = false;

    type Handle<T: Send + 'static>: Handle<T>;

    fn start(workers: usize) -> Self;

    fn submit<F, T>(&self, f: F) -> Self::Handle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static;

    /// Ends the pool, and waits for its threads if there is a way to.
    fn shutdown(self);

    /// One task submits so many, and waits for each.
    fn flood_from_inside(&'static self, tasks: usize) {
        self.submit(move || flood(self, tasks)).wait();
    }
}

/// The way to one result. All of them are waited for in the same way: in order, by [`wait`](Self::wait).
pub(crate) trait Handle<T>: Send + 'static {
    fn wait(self) -> T;

    fn awaited(self) -> impl Future<Output = T>;
}

/// Submits so many empty tasks, and waits for each.
pub(crate) fn flood(pool: &impl Pool, tasks: usize) {
    let mut handles = Vec::with_capacity(tasks);
    handles.extend((0..tasks).map(|_| pool.submit(|| ())));
    handles.into_iter().for_each(Handle::wait);
}

/// One of each, kept to the end of the program: whoever is not his turn sleeps.
#[derive(Clone, Copy)]
pub(crate) struct Pools {
    pub(crate) ours: &'static Ours,
    pub(crate) rayon: &'static Rayon,
    pub(crate) threadpool: &'static Threadpool,
    pub(crate) rusty_pool: &'static RustyPool,
    pub(crate) naive: &'static Naive,
    pub(crate) tokio_spawn_blocking: &'static TokioSpawnBlocking,
    pub(crate) tokio_spawn: &'static TokioSpawn,
    pub(crate) blocking: &'static Blocking,
}

impl Pools {
    /// To be called before any other thread is started.
    pub(crate) fn start(workers: usize) -> Self {
        fn kept<P: Pool>(workers: usize) -> &'static P {
            Box::leak(Box::new(P::start(workers)))
        }
        Self {
            // First, for the reason that its `start` gives.
            blocking: kept(workers),
            ours: kept(workers),
            rayon: kept(workers),
            threadpool: kept(workers),
            rusty_pool: kept(workers),
            naive: kept(workers),
            tokio_spawn_blocking: kept(workers),
            tokio_spawn: kept(workers),
        }
    }
}

/// Runs a statement once for each pool, under a name for it; each time the name has another type.
macro_rules! for_each_pool {
    ($pools:expr, $pool:ident => $body:expr) => {
        for_each_pool!(@ $pools, $pool => $body;
            ours rayon threadpool rusty_pool naive tokio_spawn_blocking tokio_spawn blocking)
    };
    (@ $pools:expr, $pool:ident => $body:expr; $($field:ident)*) => {
        $({
            let $pool = $pools.$field;
            $body;
        })*
    };
}
pub(crate) use for_each_pool;
