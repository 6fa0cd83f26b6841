//! A task forks, and the child returns from it, or panics, as if it were the worker: it ends, and the worker answers.

use concurrent_futures::{MapOptions, ProcessPoolExecutor, Stdio, TaskError};
use serde::{Deserialize, Serialize};

use super::support::*;
use crate::support::guarded;

/// How the child leaves the task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Way {
    Return,
    Panic,
}

/// Forks. The child leaves the task; the worker waits for its end, and says which process it is and how the child exited.
#[allow(unsafe_code)]
fn fork(way: Way) -> (u32, i32) {
    // SAFETY: the child calls nothing that another thread could have locked: what the worker does is what is tried here.
    let child = unsafe { libc::fork() };
    if child == 0 {
        match way {
            Way::Return => return (std::process::id(), -1),
            Way::Panic => std::panic::resume_unwind(Box::new("in the child")),
        }
    }
    let mut status = 0;
    // SAFETY: waits for a child of this process.
    let waited = unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!(waited, child);
    assert!(libc::WIFEXITED(status), "{status:x}");
    (std::process::id(), libc::WEXITSTATUS(status))
}

fn builder() -> concurrent_futures::ProcessPoolBuilder {
    ProcessPoolExecutor::builder().max_workers(1).stdio(Stdio::Null)
}

const WAYS: [(Way, i32); 2] = [(Way::Return, 0), (Way::Panic, 101)];

#[test]
fn the_child_of_a_task_does_not_answer_for_it() {
    guarded(|| {
        for threads in [1, 2] {
            let pool = builder().threads_per_worker(threads).build().unwrap();
            let worker = pool.submit(|()| std::process::id(), ()).result().unwrap();
            for (way, code) in WAYS.repeat(3) {
                assert_eq!(pool.submit(fork, way).result().unwrap(), (worker, code), "{way:?}");
            }
            assert_eq!(pool.submit(|()| std::process::id(), ()).result().unwrap(), worker);
            assert_eq!(pool.worker_pids(), [worker]);
        }
    });
}

// What comes after the fork in a chunk is done by the worker alone.
#[test]
fn the_child_of_an_item_leaves_the_rest_of_the_chunk() {
    guarded(|| {
        let folder = Folder::new();
        let ledger = folder.ledger("ledger");
        let pool = builder().build().unwrap();
        let item = |(ledger, n, way): (Ledger, u32, Way)| {
            let exited = if n == 3 { fork(way).1 } else { 0 };
            // The child has left when it comes back from `fork`: only the worker goes on to the end of the item.
            if exited >= 0 {
                ledger.write(n);
            }
            exited
        };
        for (way, code) in WAYS {
            let items = (0..8).map(|n| (ledger.clone(), n, way));
            let map = pool.map_with(MapOptions::new().chunk_size(8), item, items).unwrap();
            let exited: Vec<i32> = map.map(Result::unwrap).collect();
            assert_eq!(exited, [0, 0, 0, code, 0, 0, 0, 0], "{way:?}");
        }
        let lines = ledger.lines();
        assert_eq!(lines, ["0", "1", "2", "3", "4", "5", "6", "7"].repeat(2));
    });
}

#[test]
fn the_child_of_an_initializer_does_not_answer_for_it() {
    guarded(|| {
        let returns = |way| assert!([-1, 0].contains(&fork(way).1));
        let pool = builder().initializer(returns, Way::Return).build().unwrap();
        let worker = pool.submit(|()| std::process::id(), ()).result().unwrap();
        assert_eq!(pool.worker_pids(), [worker]);
        let pool = builder().initializer(|way| assert_eq!(fork(way).1, 101), Way::Panic).build().unwrap();
        pool.submit(|()| (), ()).result().unwrap();
    });
}

/// Forks while it is decoded, or encoded, in the worker.
struct Forks(u32);

impl Serialize for Forks {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if std::process::id() != self.0 {
            fork(Way::Return);
        }
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Forks {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parent = u32::deserialize(deserializer)?;
        if std::process::id() != parent {
            // The error is the child's only.
            if fork(Way::Return).1 == -1 {
                return Err(serde::de::Error::custom("in the child"));
            }
        }
        Ok(Self(parent))
    }
}

#[test]
fn the_child_of_a_serde_implementation_does_not_answer() {
    guarded(|| {
        let pool = builder().build().unwrap();
        let parent = std::process::id();
        assert_eq!(pool.submit(|forks: Forks| forks, Forks(parent)).result().unwrap().0, parent);
        assert_eq!(pool.submit(|n: u32| n, 5).result().unwrap(), 5);
    });
}

// The panic is the child's, and the note of the last panic is about the worker.
#[test]
fn a_panic_of_the_child_is_not_the_workers() {
    #[allow(unsafe_code)]
    fn fork_and_abort(_: ()) {
        // SAFETY: as in `fork`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            panic!("the child panics");
        }
        // SAFETY: waits for a child of this process.
        unsafe { libc::waitpid(child, &mut 0, 0) };
        std::process::abort();
    }
    guarded(|| {
        let TaskError::WorkerDied(exit) = builder().build().unwrap().submit(fork_and_abort, ()).result().unwrap_err()
        else {
            panic!()
        };
        assert_eq!((exit.signal_name(), exit.last_panic()), (Some("SIGABRT"), None));
    });
}
