//! Arguments and results whose way between the processes goes wrong: they cannot be encoded or decoded, or what encodes
//! and decodes them panics, exits or crashes, in the parent or in the worker. Each ends with an error, and never hangs.

use concurrent_futures::{MapOptions, ProcessPoolExecutor, Shutdown, TaskError};
use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::support::*;
use crate::support::guarded;

/// What happens when this value is encoded, or decoded, in one of the two processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum How {
    Fine,
    Error,
    Panic,
    Exit,
    Crash,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum At {
    EncodeInParent,
    DecodeInWorker,
    EncodeInWorker,
    DecodeInParent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Trap {
    parent: u32,
    at: At,
    how: How,
}

fn trap(at: At, how: How) -> Trap {
    Trap { parent: std::process::id(), at, how }
}

impl Trap {
    fn spring(self, encoding: bool) -> Result<(), &'static str> {
        let in_parent = self.parent == std::process::id();
        let here = match (encoding, in_parent) {
            (true, true) => At::EncodeInParent,
            (false, false) => At::DecodeInWorker,
            (true, false) => At::EncodeInWorker,
            (false, true) => At::DecodeInParent,
        };
        match self.how {
            _ if here != self.at => Ok(()),
            How::Fine => Ok(()),
            How::Error => Err("this value refuses"),
            How::Panic => panic!("this value panics, as the test wants it"),
            How::Exit => std::process::exit(33),
            How::Crash => std::process::abort(),
        }
    }
}

impl Serialize for Trap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.spring(true).map_err(S::Error::custom)?;
        (self.parent, self.at, self.how).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Trap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (parent, at, how) = Deserialize::deserialize(deserializer)?;
        let trap = Trap { parent, at, how };
        trap.spring(false).map_err(D::Error::custom)?;
        Ok(trap)
    }
}

/// Of what this is an error, and that the pool, and if so its worker, is as good as before.
fn error_of<A, R>(f: impl Fn(A) -> R + Copy + Send + Sync + 'static, argument: A, worker_survives: bool) -> TaskError
where
    A: Serialize + DeserializeOwned + Send + 'static,
    R: Serialize + DeserializeOwned + Send + std::fmt::Debug + 'static,
{
    let pool = pool(1);
    let pid = |_: ()| std::process::id();
    let worker = pool.submit(pid, ()).result().unwrap();
    let error = pool.submit(f, argument).result().unwrap_err();
    let after = pool.submit(pid, ()).result().unwrap();
    assert_eq!(after == worker, worker_survives);
    pool.shutdown(Shutdown::Wait).unwrap();
    error
}

fn take(_: Trap) {}

fn same(trap: Trap) -> Trap {
    trap
}

#[test]
fn a_trap_that_is_not_sprung_is_a_value() {
    guarded(|| {
        let pool = pool(1);
        let fine = trap(At::EncodeInParent, How::Fine);
        assert_eq!(pool.submit(same, fine).result().unwrap(), fine);
    });
}

#[test]
fn error_at_task_pickle() {
    guarded(|| {
        let error = error_of(take, trap(At::EncodeInParent, How::Error), true);
        let TaskError::Encode(codec) = error else { panic!("{error:?}") };
        assert!(codec.type_name().ends_with("Trap"), "{codec}");
    });
}

#[test]
fn panic_at_task_pickle() {
    guarded(|| {
        let error = error_of(take, trap(At::EncodeInParent, How::Panic), true);
        let TaskError::Encode(codec) = error else { panic!("{error:?}") };
        assert!(codec.reason().contains("this value panics"), "{codec}");
    });
}

#[test]
fn error_at_task_unpickle() {
    guarded(|| {
        let error = error_of(take, trap(At::DecodeInWorker, How::Error), true);
        let TaskError::Decode(codec) = error else { panic!("{error:?}") };
        assert!(codec.type_name().ends_with("Trap"), "{codec}");
    });
}

#[test]
fn panic_at_task_unpickle() {
    guarded(|| {
        let error = error_of(take, trap(At::DecodeInWorker, How::Panic), true);
        let TaskError::Decode(codec) = error else { panic!("{error:?}") };
        assert!(codec.reason().contains("this value panics"), "{codec}");
    });
}

#[test]
fn exit_at_task_unpickle() {
    guarded(|| {
        let error = error_of(take, trap(At::DecodeInWorker, How::Exit), false);
        assert_eq!(exit_of(Err::<(), _>(error)).code(), Some(33));
    });
}

#[test]
fn crash_at_task_unpickle() {
    guarded(|| {
        let error = error_of(take, trap(At::DecodeInWorker, How::Crash), false);
        assert_eq!(exit_of(Err::<(), _>(error)).signal_name(), Some("SIGABRT"));
    });
}

#[test]
fn crash_during_func_exec_on_worker() {
    guarded(|| {
        let error = error_of(|_: ()| -> () { std::process::abort() }, (), false);
        assert_eq!(exit_of(Err::<(), _>(error)).signal_name(), Some("SIGABRT"));
    });
}

#[test]
fn exit_during_func_exec_on_worker() {
    guarded(|| {
        let error = error_of(|code: i32| -> () { std::process::exit(code) }, 1, false);
        assert_eq!(exit_of(Err::<(), _>(error)).code(), Some(1));
    });
}

#[test]
fn error_during_func_exec_on_worker() {
    guarded(|| {
        let pool = pool(1);
        let value = pool.submit(|n: u32| Err::<(), u32>(n), 5).result().unwrap();
        assert_eq!(value, Err(5));
        assert!(error_of(|_: ()| -> () { panic!("no") }, (), true).is_panicked());
    });
}

#[test]
fn error_during_result_pickle_on_worker() {
    guarded(|| {
        let error = error_of(same, trap(At::EncodeInWorker, How::Error), true);
        let TaskError::Encode(codec) = error else { panic!("{error:?}") };
        assert!(codec.type_name().ends_with("Trap"), "{codec}");
    });
}

#[test]
fn panic_during_result_pickle_on_worker() {
    guarded(|| {
        let error = error_of(same, trap(At::EncodeInWorker, How::Panic), true);
        let TaskError::Encode(codec) = error else { panic!("{error:?}") };
        assert!(codec.reason().contains("this value panics"), "{codec}");
    });
}

#[test]
fn exit_during_result_pickle_on_worker() {
    guarded(|| {
        let error = error_of(same, trap(At::EncodeInWorker, How::Exit), false);
        assert_eq!(exit_of(Err::<(), _>(error)).code(), Some(33));
    });
}

#[test]
fn crash_during_result_pickle_on_worker() {
    guarded(|| {
        let error = error_of(same, trap(At::EncodeInWorker, How::Crash), false);
        assert_eq!(exit_of(Err::<(), _>(error)).signal_name(), Some("SIGABRT"));
    });
}

// Python's pool is broken afterwards; here the worker does not even notice.
#[test]
fn error_during_result_unpickle_in_result_handler() {
    guarded(|| {
        let error = error_of(same, trap(At::DecodeInParent, How::Error), true);
        let TaskError::Decode(codec) = error else { panic!("{error:?}") };
        assert!(codec.type_name().ends_with("Trap"), "{codec}");
    });
}

#[test]
fn panic_during_result_unpickle_in_result_handler() {
    guarded(|| {
        let error = error_of(same, trap(At::DecodeInParent, How::Panic), true);
        let TaskError::Decode(codec) = error else { panic!("{error:?}") };
        assert!(codec.reason().contains("this value panics"), "{codec}");
    });
}

// The same where a thread of the pool decodes, because nobody waits and there is a callback.
#[test]
fn a_result_that_panics_in_the_supervisor() {
    guarded(|| {
        let pool = pool(1);
        for how in [How::Error, How::Panic] {
            let (promise, seen) = concurrent_futures::promise();
            let promise = std::sync::Mutex::new(Some(promise));
            let future = pool.submit(same, trap(At::DecodeInParent, how));
            future.add_done_callback(move |result| {
                let is_decode = result.is_err_and(|error| error.is_decode());
                promise.lock().unwrap().take().unwrap().set_result(is_decode).unwrap();
            });
            assert!(seen.result().unwrap(), "{how:?}");
        }
        assert_eq!(pool.submit(|n: u32| n, 1).result().unwrap(), 1);
    });
}

#[test]
fn shutdown_deadlock() {
    guarded(|| {
        let pool = pool(2);
        let plug = Plug::new(&pool);
        let crash = pool.submit(take, trap(At::DecodeInWorker, How::Crash));
        pool.shutdown(Shutdown::NoWait).unwrap();
        exit_of(crash.result());
        plug.release();
        pool.shutdown(Shutdown::Wait).unwrap();
        assert_eq!(pool.worker_pids(), []);
    });
}

#[test]
fn shutdown_deadlock_pickle() {
    guarded(|| {
        let pool = pool(2);
        pool.submit(|_: ()| (), ()).result().unwrap();
        let bad = pool.submit(take, trap(At::EncodeInParent, How::Error));
        let worse = pool.submit(same, trap(At::EncodeInWorker, How::Error));
        pool.shutdown(Shutdown::NoWait).unwrap();
        assert!(bad.result().unwrap_err().is_encode());
        assert!(worse.result().unwrap_err().is_encode());
        pool.shutdown(Shutdown::Wait).unwrap();
    });
}

#[test]
fn an_argument_that_cannot_be_encoded_leaves_no_trace() {
    guarded(|| {
        let builder = ProcessPoolExecutor::builder().max_workers(1).stdio(concurrent_futures::Stdio::Null);
        let pool = builder.queue_capacity(1, concurrent_futures::QueuePolicy::Fail).build().unwrap();
        for _ in 0..10 {
            // With the place in the queue not given back, the second would be refused as one too many.
            assert!(pool.submit(take, trap(At::EncodeInParent, How::Error)).result().unwrap_err().is_encode());
        }
        assert_eq!(pool.worker_pids(), [], "nothing has been sent");
        pool.submit(take, trap(At::EncodeInParent, How::Fine)).result().unwrap();
    });
}

// One bad item in a chunk is one bad result.
#[test]
fn one_item_spoils_no_chunk() {
    guarded(|| {
        let pool = pool(2);
        for (at, how) in [
            (At::EncodeInParent, How::Error),
            (At::EncodeInParent, How::Panic),
            (At::DecodeInWorker, How::Error),
            (At::DecodeInWorker, How::Panic),
        ] {
            let items = (0..40).map(|n| trap(at, if n == 17 { how } else { How::Fine }));
            let map = pool.map_with(MapOptions::new().chunk_size(10), same, items).unwrap();
            let failed: Vec<usize> = map.enumerate().filter(|(_, result)| result.is_err()).map(|(n, _)| n).collect();
            assert_eq!(failed, [17], "{at:?} {how:?}");
        }
    });
}

// Of results that are on their way back together only those of the same chunk are lost, and with one an item none.
#[test]
fn one_result_spoils_no_other_chunk() {
    guarded(|| {
        let pool = pool(2);
        for at in [At::EncodeInWorker, At::DecodeInParent] {
            for how in [How::Error, How::Panic] {
                let items = || (0..40).map(move |n| trap(at, if n == 17 { how } else { How::Fine }));
                let failed = |chunk| -> Vec<usize> {
                    let map = pool.map_with(MapOptions::new().chunk_size(chunk), same, items()).unwrap();
                    map.enumerate().filter(|(_, result)| result.is_err()).map(|(n, _)| n).collect()
                };
                assert_eq!(failed(1), [17], "{at:?} {how:?}");
                let lost = failed(10);
                assert!(lost.contains(&17) && lost.iter().all(|n| (10..20).contains(n)), "{at:?} {how:?}: {lost:?}");
            }
        }
    });
}

#[test]
fn too_large_either_way() {
    guarded(|| {
        let builder = ProcessPoolExecutor::builder().max_workers(1).max_payload(1 << 20);
        let pool = builder.build().unwrap();
        let size = |result: Result<Vec<u8>, TaskError>| match result {
            Err(TaskError::TooLarge(limit)) => (limit.size(), limit.limit()),
            other => panic!("{:?}", other.map(|bytes| bytes.len())),
        };
        let make = |length: usize| vec![1u8; length];
        let same = |bytes: Vec<u8>| bytes;
        let (limit, more) = (1 << 20, (1 << 20) + 1);
        assert_eq!(size(pool.submit(same, make(more)).result()), (more as u64, limit as u64));
        assert_eq!(size(pool.submit(make, more).result()), (more as u64, limit as u64));
        assert_eq!(pool.submit(same, make(limit)).result().unwrap().len(), limit);
        assert_eq!(pool.submit(make, limit).result().unwrap().len(), limit);
    });
}

// A type that needs a format which describes itself: an error that says so, and not garbage.
#[test]
fn a_type_that_no_compact_format_can_carry() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u32),
        Text(String),
    }
    guarded(|| {
        let pool = pool(1);
        let error = pool.submit(|_: Either| (), Either::Number(5)).result().unwrap_err();
        let TaskError::Decode(codec) = error else { panic!("{error:?}") };
        assert!(codec.type_name().ends_with("Either") && codec.reason().contains("describes itself"), "{codec}");
        assert!(pool.submit(|_: ()| Either::Text("a".to_owned()), ()).result().unwrap_err().is_decode());
    });
}
