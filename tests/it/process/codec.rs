//! Arguments and results whose way between the processes goes wrong: they cannot be encoded or decoded, or what encodes
//! and decodes them panics, exits or crashes, in the parent or in the worker. Each ends with an error, and never hangs.

use concurrent_futures::{MapOptions, ProcessPoolExecutor, SharedBytes, Shutdown, TaskError};
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
            let promise = parking_lot::Mutex::new(Some(promise));
            let future = pool.submit(same, trap(At::DecodeInParent, how));
            future.add_done_callback(move |result| {
                let is_decode = result.is_err_and(|error| error.is_decode());
                promise.lock().take().unwrap().set_result(is_decode).unwrap();
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

fn is_false(value: &bool) -> bool {
    !value
}

fn is_empty(text: &str) -> bool {
    text.is_empty()
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Order {
    #[serde(skip_serializing_if = "is_false", default)]
    urgent: bool,
    level: Option<u8>,
}

const RUSHED: Order = Order { urgent: true, level: Some(0) };
const CALM: Order = Order { urgent: false, level: Some(0) };

/// What the text says of a field that was skipped.
#[track_caller]
fn names_the_field(codec: &str, field: &str, owner: &str) {
    for part in [field, owner, "skip_serializing_if"] {
        assert!(codec.contains(part), "`{part}` is not in: {codec}");
    }
}

// Without its name in the bytes, the fields behind a skipped one would be read in its place.
#[test]
fn a_skipped_field_is_an_error_that_names_it() {
    guarded(|| {
        let pool = pool(1);
        assert_eq!(pool.submit(|order: Order| order, RUSHED).result().unwrap(), RUSHED);
        let TaskError::Encode(codec) = pool.submit(|order: Order| order, CALM).result().unwrap_err() else { panic!() };
        assert!(codec.type_name().ends_with("Order"), "{codec}");
        names_the_field(codec.reason(), "`urgent`", "`Order`");
        let TaskError::Encode(codec) = pool.submit(|_: ()| CALM, ()).result().unwrap_err() else { panic!() };
        names_the_field(codec.reason(), "`urgent`", "`Order`");
    });
}

#[test]
fn a_skipped_field_is_found_wherever_it_is() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Parcel {
        Letter {
            #[serde(skip_serializing_if = "is_empty", default)]
            note: String,
            weight: u8,
        },
        Box(Vec<Option<Order>>),
    }
    type Shelf = std::collections::BTreeMap<u8, (Parcel, [Parcel; 1])>;
    guarded(|| {
        let pool = pool(1);
        let letter = |note: &str| Parcel::Letter { note: note.to_owned(), weight: 1 };
        let same = |shelf: Shelf| shelf;
        let shelf = |parcel: Parcel, note: &str| Shelf::from([(1, (parcel, [letter(note)]))]);
        let whole = shelf(Parcel::Box(vec![None, Some(RUSHED)]), "fragile");
        assert_eq!(pool.submit(same, whole).result().unwrap(), shelf(Parcel::Box(vec![None, Some(RUSHED)]), "fragile"));
        let error = pool.submit(same, shelf(Parcel::Box(vec![None, Some(CALM)]), "fragile")).result().unwrap_err();
        assert!(error.is_encode());
        names_the_field(&error.to_string(), "`urgent`", "`Order`");
        let error = pool.submit(same, shelf(letter("x"), "")).result().unwrap_err();
        assert!(error.is_encode());
        names_the_field(&error.to_string(), "`note`", "`Parcel::Letter`");
        // Long values are encoded in another way.
        let error = pool.submit(|_: (String, Order)| (), ("x".repeat(10_000), CALM)).result().unwrap_err();
        names_the_field(&error.to_string(), "`urgent`", "`Order`");
        // Every way in.
        let mut builder = ProcessPoolExecutor::builder().max_workers(1);
        builder = builder.initializer(|_: Order| (), CALM);
        names_the_field(&builder.build().unwrap_err().to_string(), "`urgent`", "`Order`");
        let error = pool.task(|_: Order| (), CALM).submit().result().unwrap_err();
        names_the_field(&error.to_string(), "`urgent`", "`Order`");
        let items = || (0..10).map(|n| if n == 7 { CALM } else { RUSHED });
        let map = pool.map_with(MapOptions::new().chunk_size(5), |order: Order| order.urgent, items()).unwrap();
        let failed: Vec<_> = map.enumerate().filter_map(|(n, result)| Some((n, result.err()?))).collect();
        assert_eq!(failed.len(), 1);
        assert_eq!(failed[0].0, 7);
        names_the_field(&failed[0].1.to_string(), "`urgent`", "`Order`");
    });
}

// serde does not say that a field of a tuple was skipped; what tells is that there are fewer.
#[test]
fn a_skipped_field_of_a_tuple_is_found() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Pair(
        #[serde(skip_serializing_if = "is_false", default)] bool,
        #[serde(default)] Option<u8>,
        #[serde(default)] bool,
    );
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Either {
        Pair(
            #[serde(skip_serializing_if = "is_false", default)] bool,
            #[serde(default)] Option<u8>,
            #[serde(default)] bool,
        ),
        Nothing,
    }
    guarded(|| {
        let pool = pool(1);
        let (pair, either) = (|pair: Pair| pair, |either: Either| either);
        assert_eq!(pool.submit(pair, Pair(true, None, false)).result().unwrap(), Pair(true, None, false));
        assert_eq!(pool.submit(either, Either::Nothing).result().unwrap(), Either::Nothing);
        for error in [
            pool.submit(pair, Pair(false, Some(0), true)).result().unwrap_err(),
            pool.submit(|_: ()| Pair(false, Some(0), true), ()).result().unwrap_err(),
            pool.submit(either, Either::Pair(false, Some(0), true)).result().unwrap_err(),
            pool.submit(|_: ()| Either::Pair(false, Some(0), true), ()).result().unwrap_err(),
        ] {
            let TaskError::Decode(codec) = error else { panic!("{error:?}") };
            let text = codec.to_string();
            assert!(text.contains("Pair") && text.contains('2') && text.contains('3'), "{text}");
            assert!(text.contains("skip"), "{text}");
        }
        // The worker has read all of it, and goes on.
        assert_eq!(pool.submit(pair, Pair(true, Some(1), true)).result().unwrap(), Pair(true, Some(1), true));
    });
}

#[test]
fn a_field_that_is_skipped_in_one_direction_is_found() {
    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Sent {
        #[serde(skip_serializing, default)]
        secret: u8,
        level: u8,
        more: Vec<u8>,
    }
    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Read {
        level: u8,
        #[serde(skip_deserializing)]
        more: Vec<u8>,
    }
    // serde has aliases among the names of the fields: so their number says little.
    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    struct AliasedAndSent {
        #[serde(skip_serializing, default)]
        secret: u8,
        #[serde(alias = "height")]
        level: u8,
        #[serde(default)]
        less: u8,
    }
    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    struct AliasedAndRead {
        #[serde(alias = "height")]
        level: u8,
        #[serde(skip_deserializing)]
        more: u8,
    }
    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Neither {
        #[serde(skip)]
        secret: u8,
        level: u8,
    }
    guarded(|| {
        let pool = pool(1);
        let error = pool.submit(|_: Sent| (), Sent { secret: 1, level: 2, more: vec![3, 4] }).result().unwrap_err();
        assert!(error.is_decode() && error.to_string().contains("`Sent`"), "{error}");
        let error = pool.submit(|_: ()| Sent { secret: 1, level: 2, more: vec![3] }, ()).result().unwrap_err();
        assert!(error.is_decode() && error.to_string().contains("`Sent`"), "{error}");
        let error = pool.submit(|_: Read| (), Read { level: 1, more: vec![] }).result().unwrap_err();
        assert!(error.is_decode() && error.to_string().contains("`Read`"), "{error}");
        let value = AliasedAndSent { secret: 1, level: 2, less: 3 };
        let error = pool.submit(|_: AliasedAndSent| (), value).result().unwrap_err();
        assert!(error.is_decode() && error.to_string().contains("`AliasedAndSent`"), "{error}");
        let error = pool.submit(|_: AliasedAndRead| (), AliasedAndRead { level: 1, more: 2 }).result().unwrap_err();
        assert!(error.is_decode() && error.to_string().contains("`AliasedAndRead`"), "{error}");
        let neither = pool.submit(|value: Neither| value, Neither { secret: 1, level: 2 }).result().unwrap();
        assert_eq!(neither, Neither { secret: 0, level: 2 }, "skipped in both directions, it is what serde says");
    });
}

// serde counts skipped variants when it writes, and does not when it reads.
#[test]
fn variants_beside_a_skipped_one_arrive_as_they_were() {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    enum Command {
        Connect,
        #[serde(skip)]
        Internal,
        Data(u8),
        #[serde(skip_deserializing)]
        Trace(u8),
        Close(u8),
        Quit(u8),
    }
    // Nor does it count aliases when it writes; and here the two mistakes add up to a number that another variant has.
    #[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
    enum Aliased {
        #[serde(alias = "Zero", alias = "Alpha")]
        First,
        #[serde(skip)]
        Hidden,
        #[serde(alias = "Another")]
        Second,
        Third,
        Fourth,
    }
    #[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all(serialize = "camelCase", deserialize = "SCREAMING_SNAKE_CASE"))]
    enum Case {
        FirstOfAll,
        SecondOfAll,
    }
    guarded(|| {
        let pool = pool(1);
        let same = |command: Command| command;
        for command in [Command::Connect, Command::Data(1), Command::Close(2), Command::Quit(3)] {
            assert_eq!(pool.submit(same, command.clone()).result().unwrap(), command);
        }
        let error = pool.submit(same, Command::Trace(1)).result().unwrap_err();
        assert!(error.is_decode() && error.to_string().contains("`Command`"), "{error}");
        assert!(pool.submit(same, Command::Internal).result().unwrap_err().is_encode());
        assert!(pool.submit(|_: ()| Command::Internal, ()).result().unwrap_err().is_encode());
        assert!(pool.submit(|_: Aliased| (), Aliased::Hidden).result().unwrap_err().is_encode());
        for aliased in [Aliased::First, Aliased::Second, Aliased::Third, Aliased::Fourth] {
            assert_eq!(pool.submit(|aliased: Aliased| aliased, aliased).result().unwrap(), aliased);
        }
        for case in [Case::FirstOfAll, Case::SecondOfAll] {
            assert_eq!(pool.submit(|case: Case| case, case).result().unwrap(), case);
        }
    });
}

/// Says that it has so many fields or items, and has others.
struct Miscounted {
    says: usize,
    has: usize,
    list: bool,
}

impl Serialize for Miscounted {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::{SerializeSeq, SerializeTuple};
        if self.list {
            let mut list = serializer.serialize_seq(Some(self.says))?;
            (0..self.has).try_for_each(|n| list.serialize_element(&(n as u8)))?;
            return list.end();
        }
        let mut tuple = serializer.serialize_tuple(self.says)?;
        (0..self.has).try_for_each(|n| tuple.serialize_element(&(n as u8)))?;
        tuple.end()
    }
}

/// Asks for so many fields, or a list, and reads two.
struct ReadsTwo<const FIELDS: usize>;

impl<'de, const FIELDS: usize> Deserialize<'de> for ReadsTwo<FIELDS> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Two;
        impl<'de> serde::de::Visitor<'de> for Two {
            type Value = ();
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("two numbers")
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
                (0..2).try_for_each(|_| list.next_element::<u8>().map(drop))
            }
        }
        match FIELDS {
            0 => deserializer.deserialize_seq(Two)?,
            _ => deserializer.deserialize_tuple(FIELDS, Two)?,
        }
        Ok(Self)
    }
}

impl<const FIELDS: usize> Serialize for ReadsTwo<FIELDS> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match FIELDS {
            0 => vec![1u8; 3].serialize(serializer),
            _ => Miscounted { says: FIELDS, has: FIELDS, list: false }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Miscounted {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(D::Error::custom("nothing like it can have arrived"))
    }
}

#[test]
fn who_counts_wrongly_is_found() {
    guarded(|| {
        let pool = pool(1);
        for (says, has) in [(2, 3), (3, 2), (0, 1), (1, 0)] {
            for list in [false, true] {
                let error = pool.submit(|_: Miscounted| (), Miscounted { says, has, list }).result().unwrap_err();
                let TaskError::Encode(codec) = error else { panic!("{says} {has} {list}: {error:?}") };
                let text = codec.reason();
                assert!(text.contains(&says.to_string()), "{text}");
            }
        }
        assert!(pool.submit(|_: ReadsTwo<2>| (), ReadsTwo).result().is_ok());
        let error = pool.submit(|_: (ReadsTwo<3>, u8)| (), (ReadsTwo, 1)).result().unwrap_err();
        assert!(error.is_decode(), "{error:?}");
        let error = pool.submit(|_: (ReadsTwo<0>, u8)| (), (ReadsTwo, 1)).result().unwrap_err();
        assert!(error.is_decode(), "{error:?}");
    });
}

// Types of serde itself, and attributes that leave nothing out.
#[test]
fn what_skips_nothing_arrives() {
    use std::net::{IpAddr, SocketAddr};
    use std::ops::{Bound, Range};
    use std::time::{Duration, SystemTime};
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Everything {
        unit: (),
        nothing: Nothing,
        empty: Empty,
        wrapped: Wrapped,
        #[serde(rename = "other")]
        times: (Duration, SystemTime, Range<i8>, Bound<u8>),
        #[serde(alias = "where")]
        places: [SocketAddr; 2],
        #[serde(with = "as_text")]
        number: u64,
        results: Vec<Result<IpAddr, String>>,
        text: char,
        nested: Option<Option<Box<(u8, i128, f32)>>>,
        array: [(u8, u8); 32],
    }
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Nothing;
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Empty {}
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(transparent)]
    struct Wrapped(u16);
    mod as_text {
        use super::*;
        pub(super) fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_str(number)
        }
        pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
            String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
        }
    }
    guarded(|| {
        let everything = Everything {
            unit: (),
            nothing: Nothing,
            empty: Empty {},
            wrapped: Wrapped(3),
            times: (Duration::from_millis(1), SystemTime::UNIX_EPOCH, -1..5, Bound::Excluded(4)),
            places: ["1.2.3.4:5".parse().unwrap(), "[::1]:80".parse().unwrap()],
            number: 7,
            results: vec![Ok("::1".parse().unwrap()), Err("no".to_owned())],
            text: 'ß',
            nested: Some(Some(Box::new((1, i128::MIN, 0.5)))),
            array: std::array::from_fn(|n| (n as u8, 1)),
        };
        let pool = pool(1);
        let same = |everything: Everything| everything;
        assert_eq!(pool.submit(same, everything.clone()).result().unwrap(), everything);
    });
}

// What serde does only in formats that describe themselves: `flatten`, `untagged`, a tag inside.
#[test]
fn attributes_that_need_another_format_are_errors() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Outer {
        id: u8,
        #[serde(flatten)]
        inner: Inner,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Inner {
        level: u8,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "kind")]
    enum Tagged {
        A { level: u8 },
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "kind")]
    struct Alone {
        level: u8,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "kind", content = "content")]
    enum Beside {
        A(u8),
        B,
    }
    guarded(|| {
        let pool = pool(1);
        let error = pool.submit(|_: Outer| (), Outer { id: 1, inner: Inner { level: 2 } }).result().unwrap_err();
        assert!(error.is_encode(), "{error:?}");
        assert!(pool.submit(|_: Tagged| (), Tagged::A { level: 2 }).result().unwrap_err().is_decode());
        assert!(pool.submit(|_: Alone| (), Alone { level: 2 }).result().unwrap_err().is_decode());
        assert!(pool.submit(|_: Beside| (), Beside::A(1)).result().unwrap_err().is_decode());
        assert!(pool.submit(|_: Beside| (), Beside::B).result().unwrap_err().is_decode());
    });
}

/// Its serde implementation submits to a pool, with shared bytes of its own; in the program only, for a worker would have to
/// start a pool for it.
struct Submits {
    parent: u32,
    first: SharedBytes,
    second: SharedBytes,
}

impl Submits {
    fn submit(&self) {
        if std::process::id() == self.parent {
            let other = SharedBytes::copy_from(b"of its own").unwrap();
            let back = pool(1).submit(|other: SharedBytes| other, other.clone()).result().unwrap();
            assert_eq!(back, other);
        }
    }
}

impl Serialize for Submits {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeTuple;
        let mut tuple = serializer.serialize_tuple(3)?;
        tuple.serialize_element(&self.parent)?;
        tuple.serialize_element(&self.first)?;
        self.submit();
        tuple.serialize_element(&self.second)?;
        tuple.end()
    }
}

impl<'de> Deserialize<'de> for Submits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Submits;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("three elements")
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Submits, A::Error> {
                let short = || A::Error::custom("too short");
                let parent = list.next_element()?.ok_or_else(short)?;
                let first: SharedBytes = list.next_element()?.ok_or_else(short)?;
                Submits { parent, first: first.clone(), second: first.clone() }.submit();
                let second = list.next_element()?.ok_or_else(short)?;
                Ok(Submits { parent, first, second })
            }
        }
        deserializer.deserialize_tuple(3, Visitor)
    }
}

#[test]
fn shared_bytes_beside_a_serde_implementation_that_uses_a_pool() {
    alone("codec::shared_bytes_beside_a_serde_implementation_that_uses_a_pool", || {
        let [first, second] = [b"first", b"other"].map(|bytes| SharedBytes::copy_from(bytes).unwrap());
        let value = Submits { parent: std::process::id(), first: first.clone(), second: second.clone() };
        let back = pool(1).submit(|value: Submits| value, value).result().unwrap();
        assert_eq!((back.first, back.second), (first, second));
    });
}

/// A list of so many values, each inside the one before.
#[derive(Debug, Serialize, Deserialize)]
struct Chain {
    next: Option<Box<Chain>>,
}

impl Chain {
    fn new(length: u32) -> Self {
        (0..length).fold(Self { next: None }, |chain, _| Self { next: Some(Box::new(chain)) })
    }
}

// Such a value overflowed the stack of whoever decoded it, which ended the host.
#[test]
fn a_value_that_is_nested_too_deeply_costs_one_task() {
    guarded(|| {
        let pool = pool(1);
        let worker = pool.submit(|_: ()| std::process::id(), ()).result().unwrap();
        // A chain of 20,000 is dropped link by link, on the stack: in the worker it is never made whole.
        let error = pool.submit(|length: u32| Chain::new(length), 2000).result().unwrap_err();
        assert!(matches!(error, TaskError::Encode(_)) && error.to_string().contains("512 levels"), "{error}");
        let error = pool.submit(|chain: Chain| chain.next.is_some(), Chain::new(2000)).result().unwrap_err();
        assert!(matches!(error, TaskError::Encode(_)) && error.to_string().contains("512 levels"), "{error}");
        let items = [1, 2000, 2].map(|length| pool.map(Chain::new, [length]).next().unwrap().is_ok());
        assert_eq!(items, [true, false, true]);
        // Each link is two levels, the struct and the option; the last link is one.
        assert!(pool.submit(|chain: Chain| chain, Chain::new(255)).result().is_ok());
        assert_eq!(pool.submit(|_: ()| std::process::id(), ()).result().unwrap(), worker, "it is still there");
    });
}

#[test]
fn a_value_may_be_nested_as_deeply_as_the_pool_says() {
    guarded(|| {
        let builder = || ProcessPoolExecutor::builder().max_workers(1);
        let deep = builder().max_nesting(2001).build().unwrap();
        assert!(deep.submit(|chain: Chain| chain, Chain::new(1000)).result().is_ok());
        assert!(deep.map(|chain: Chain| chain, [Chain::new(1000)]).all(|result| result.is_ok()));
        let flat = builder().max_nesting(1).build().unwrap();
        assert_eq!(flat.submit(|pair: (u8, u8)| pair, (1, 2)).result().unwrap(), (1, 2));
        assert!(flat.submit(|pair: ((u8, u8), u8)| pair, ((1, 2), 3)).result().is_err());
        assert!(flat.map(|pair: (u8, u8)| pair, [(1, 2); 100]).all(|result| result.unwrap() == (1, 2)));
        let error = flat.map(|_: u8| -> u8 { panic!("as it is meant to") }, [1]).next().unwrap().unwrap_err();
        assert!(error.is_panicked(), "{error}");
    });
}
