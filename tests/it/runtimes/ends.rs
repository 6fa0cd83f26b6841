//! Every end of a task wakes those who await it: not only a result.

use std::sync::Arc;
use std::task::Poll;
use std::thread;

use concurrent_futures::{Shutdown, TaskError, promise};
use futures::channel::oneshot;

use super::support::*;
use crate::support::guarded;

/// What becomes of a task while somebody awaits it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It panics.
    Panic,
    /// It takes its process along.
    Crash,
    /// Its process is killed from outside.
    Kill,
    /// Somebody cancels it before it has begun.
    Cancel,
    /// Its pool is shut down before it has begun.
    ShutDown,
    /// It was submitted to a pool that had been shut down.
    TooLate,
    /// A promise is not kept.
    Abandon,
}

const ENDS: [End; 7] = [End::Panic, End::Crash, End::Kill, End::Cancel, End::ShutDown, End::TooLate, End::Abandon];

impl End {
    /// Whether the pool is of no use afterwards.
    fn ends_the_pool(self) -> bool {
        matches!(self, Self::Kill | Self::ShutDown | Self::TooLate)
    }

    /// Threads cannot crash alone.
    fn happens_in(self, pool: &Pool) -> bool {
        !matches!((self, pool), (Self::Crash | Self::Kill, Pool::Threads(_)))
    }

    fn is(self, error: &TaskError) -> bool {
        match self {
            Self::Panic => error.is_panicked(),
            Self::Crash | Self::Kill => error.is_worker_died(),
            Self::Cancel | Self::ShutDown => error.is_cancelled(),
            Self::TooLate => error.is_shut_down(),
            Self::Abandon => error.is_abandoned(),
        }
    }
}

fn returns(name: String) -> u64 {
    pass(&name);
    1
}

fn panics(name: String) -> u64 {
    pass(&name);
    panic!("as this test wants it")
}

fn aborts(name: String) -> u64 {
    pass(&name);
    std::process::abort()
}

#[test]
fn whoever_awaits_is_told() {
    guarded(|| {
        let lasting = Pool::both(1).map(Arc::new);
        for end in ENDS {
            for runtime in RUNTIMES {
                for kind in KINDS {
                    let pools = match end.ends_the_pool() {
                        true => Pool::both(1).map(Arc::new),
                        false => lasting.clone(),
                    };
                    for pool in pools.into_iter().filter(|pool| end.happens_in(pool)) {
                        let error = runtime.run(|spawner| told(spawner, pool, end, kind));
                        assert!(end.is(&error), "{runtime:?}, {end:?}, {kind:?}: {error:?}");
                    }
                }
            }
        }
    });
}

/// The error that comes to whoever awaits a task that ends so.
async fn told(spawner: Spawner, pool: Arc<Pool>, end: End, kind: Kind) -> TaskError {
    let (gate, name) = Gate::new();
    // Keeps the one worker from beginning what is to be cancelled.
    let plug = matches!(end, End::Cancel | End::ShutDown).then(|| Gate::guards(&pool, 0));
    let (promise, promised) = promise();
    let future = match end {
        End::Panic => pool.submit(panics, name),
        End::Crash => pool.submit(aborts, name),
        End::Kill | End::Cancel | End::ShutDown => pool.submit(returns, name),
        End::TooLate => {
            pool.shutdown(Shutdown::Wait);
            pool.submit(returns, name)
        }
        End::Abandon => promised,
    };

    let mut handle = kind.of(future);
    let other = handle.other();
    let (polled, was_polled) = oneshot::channel();
    let task = spawner.spawn(async move {
        let first = poll_once(&mut handle).await;
        polled.send(()).unwrap();
        match first {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => {
                if end == End::Cancel && handle.other().is_none() {
                    // Nobody else can.
                    assert!(handle.cancel());
                }
                handle.await
            }
        }
    });
    was_polled.await.unwrap();

    match (end, &*pool) {
        (End::Panic | End::Crash, _) => gate.open(),
        (End::Kill, Pool::Processes(processes)) => {
            let _visitor = gate.visitor();
            processes.kill_workers();
        }
        (End::Cancel, _) => assert!(other.is_none_or(|other| other.cancel())),
        (End::ShutDown, _) => {
            // It waits for the task that runs.
            let pool = Arc::clone(&pool);
            thread::spawn(move || pool.shutdown(Shutdown::CancelPending));
        }
        _ => drop(promise),
    }
    let error = task.await.unwrap_err();
    drop(plug);
    error
}
