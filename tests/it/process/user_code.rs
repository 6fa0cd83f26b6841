//! In which thread of the host the user's code runs: serde implementations, destructors, wakers.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, mpsc};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use concurrent_futures::{ProcessPoolExecutor, ReturnWhen, SharedFuture, Shutdown, ShutdownError, Stdio, wait};
use parking_lot::Mutex;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::support::*;
use crate::support::guarded;

/// A number; where its code runs in the host is noted.
#[derive(Debug, PartialEq, Clone)]
struct Noted(u32);

static HOST: AtomicUsize = AtomicUsize::new(0);
static NOTES: Mutex<Vec<(&str, thread::ThreadId, Option<String>)>> = Mutex::new(Vec::new());

fn note(what: &'static str) {
    if HOST.load(SeqCst) == std::process::id() as usize {
        let here = thread::current();
        NOTES.lock().push((what, here.id(), here.name().map(str::to_owned)));
    }
}

impl Serialize for Noted {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        note("serialize");
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Noted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        note("deserialize");
        u32::deserialize(deserializer).map(Self)
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        note("drop");
    }
}

// The supervisor collects all replies here, for nobody waits before all is done.
#[test]
fn it_runs_in_no_thread_of_the_pool() {
    alone("user_code::it_runs_in_no_thread_of_the_pool", || {
        HOST.store(std::process::id() as usize, SeqCst);
        let pool = pool(2);
        let double = |n: Noted| Noted(2 * n.0);
        let futures: Vec<_> = (0..100).map(|n| pool.submit(double, Noted(n))).collect();
        poll(|| futures.iter().all(|future| future.is_done()));
        for (n, future) in (0..).zip(futures) {
            assert_eq!(future.result().unwrap(), Noted(2 * n));
        }

        drop(pool.submit(double, Noted(1)));
        let plugs = [Plug::new(&pool), Plug::new(&pool)];
        let queued: Vec<_> = (0..100).map(|n| pool.submit(double, Noted(n))).collect();
        assert!(queued.iter().all(|future| future.cancel()));
        plugs.into_iter().for_each(Plug::release);

        // With it go the results of the items before it that are in the same chunk; those behind it are sent once more.
        let die_of_500 = |n: Noted| match n.0 {
            500 => std::process::abort(),
            _ => Noted(n.0 + 1),
        };
        let mut map = pool.map(die_of_500, (0..1000).map(Noted));
        // All of it comes back, and goes out, without the consumer.
        poll(|| pool.stats().completed >= 10 && pool.stats().queued == 0 && pool.stats().busy == 0);
        for n in 0..1000 {
            match map.next().unwrap() {
                Ok(result) => assert_eq!(result, Noted(n + 1)),
                Err(error) => assert!((n <= 500 || !shares_memory()) && error.is_worker_died(), "{n}: {error:?}"),
            }
        }
        let half = pool.map(double, (0..1000).map(Noted));
        drop(half);
        drop(pool);

        let here = thread::current().id();
        let notes = NOTES.lock();
        for what in ["serialize", "deserialize", "drop"] {
            assert!(notes.iter().any(|note| note.0 == what), "{what}");
        }
        let elsewhere: Vec<_> = notes.iter().filter(|note| note.1 != here).collect();
        assert!(elsewhere.is_empty(), "{elsewhere:?}");
    });
}

/// A result whose `Deserialize` waits, in the host, until the test has let it go on.
struct Held;

static GATE: Mutex<Option<(Arc<Barrier>, mpsc::Receiver<()>)>> = Mutex::new(None);

impl Serialize for Held {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(1)
    }
}

impl<'de> Deserialize<'de> for Held {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let gate = GATE.lock().take();
        if let Some((begun, go_on)) = gate {
            begun.wait();
            go_on.recv().unwrap();
        }
        u8::deserialize(deserializer).map(|_| Self)
    }
}

#[test]
fn a_deserialize_that_waits_holds_up_nobody_else() {
    guarded(|| {
        let pool = ProcessPoolExecutor::builder()
            .max_workers(2)
            .stdio(Stdio::Null)
            .task_timeout(Duration::from_secs(20))
            .build()
            .unwrap();
        let begun = Arc::new(Barrier::new(2));
        let (go_on, gate) = mpsc::channel();
        *GATE.lock() = Some((Arc::clone(&begun), gate));
        let held = pool.submit(|()| Held, ());
        poll(|| held.is_done());
        let waits = thread::spawn(move || held.result().is_ok());
        begun.wait();

        assert_eq!(pool.submit(|n: Vec<(u32, u32)>| n, vec![(1, 2)]).result().unwrap(), [(1, 2)]);
        assert!(pool.submit(|()| -> () { std::process::abort() }, ()).result().unwrap_err().is_worker_died());
        let late =
            pool.task(|()| thread::sleep(Duration::from_secs(60)), ()).timeout(Duration::from_millis(20)).submit();
        assert!(late.result().unwrap_err().is_timed_out());
        assert_eq!(pool.map(|n: (u32, u32)| n.0, vec![(7, 8); 100]).filter(|n| *n.as_ref().unwrap() == 7).count(), 100);
        go_on.send(()).unwrap();
        assert!(waits.join().unwrap());
    });
}

// While a thread waits for one task, it collects what comes back of others, and must not make their values.
#[test]
fn a_waiter_may_hold_a_lock_that_another_result_needs() {
    static LOCK: Mutex<()> = Mutex::new(());
    struct Locks;
    impl Serialize for Locks {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_u8(1)
        }
    }
    impl<'de> Deserialize<'de> for Locks {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let _held = LOCK.lock();
            u8::deserialize(deserializer).map(|_| Self)
        }
    }
    guarded(|| {
        let pool = pool(1);
        let held = LOCK.lock();
        let locks: Vec<_> = (0..10).map(|_| pool.submit(|()| Locks, ())).collect();
        let mut map = pool.map(|()| Locks, vec![(); 10]);
        assert_eq!(pool.submit(|n: (u32, u32)| n, (1, 2)).result().unwrap(), (1, 2));
        drop(held);
        assert!(locks.into_iter().all(|locks| locks.result().is_ok()));
        assert!(map.all(|locks| locks.is_ok()));
    });
}

// However many look at it, a value is made once; callbacks see it.
#[test]
fn a_value_is_made_once() {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    #[derive(Debug, Clone, PartialEq)]
    struct Counted(u32);
    impl Serialize for Counted {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            self.0.serialize(serializer)
        }
    }
    impl<'de> Deserialize<'de> for Counted {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            MADE.fetch_add(1, SeqCst);
            u32::deserialize(deserializer).map(Self)
        }
    }
    guarded(|| {
        let pool = pool(1);
        let plug = Plug::new(&pool);
        let shared = pool.submit(|()| Counted(5), ()).shared();
        let (sender, called) = mpsc::channel();
        shared.add_done_callback(move |outcome| sender.send(outcome.unwrap().0).unwrap());
        let other = pool.submit(|()| Counted(6), ()).shared();
        plug.release();
        assert_eq!(called.recv().unwrap(), 5);
        assert_eq!(shared.get().unwrap(), &Counted(5));
        assert_eq!(MADE.load(SeqCst), 1);
        poll(|| other.is_done());
        assert_eq!(MADE.load(SeqCst), 1, "nobody has asked for the other one");
        let barrier = Arc::new(Barrier::new(4));
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let (other, barrier) = (other.clone(), Arc::clone(&barrier));
                thread::spawn(move || {
                    barrier.wait();
                    other.result().unwrap()
                })
            })
            .collect();
        assert!(readers.into_iter().all(|reader| reader.join().unwrap() == Counted(6)));
        assert_eq!(other.peek().unwrap().unwrap(), &Counted(6));
        assert_eq!(MADE.load(SeqCst), 2);
    });
}

/// A result that cannot be decoded if it is an odd number.
#[derive(Debug)]
struct Even;

impl Serialize for Even {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(std::env::var("EVEN").map_or(1, |text| text.parse().unwrap()))
    }
}

impl<'de> Deserialize<'de> for Even {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? % 2 {
            0 => Ok(Self),
            _ => Err(D::Error::custom("it is odd")),
        }
    }
}

#[test]
fn what_cannot_be_decoded_is_a_failure_to_those_who_wait_for_one() {
    guarded(|| {
        let good = ProcessPoolExecutor::builder().max_workers(1).stdio(Stdio::Null).env("EVEN", "2").build().unwrap();
        let bad = pool(1);
        // Good ones do not end the wait, whether they are there before or come during it.
        let waited = wait([good.submit(|()| Even, ()), good.submit(|()| Even, ())], None, ReturnWhen::FirstException);
        assert_eq!((waited.done.len(), waited.not_done.len()), (2, 0));
        let before = bad.submit(|()| Even, ());
        poll(|| before.is_done());
        let never = Plug::new(&good);
        for bad in [before, bad.submit(|()| Even, ())] {
            let queued = [good.submit(|()| Even, ()), bad, good.submit(|()| Even, ())];
            let waited = wait(queued, None, ReturnWhen::FirstException);
            assert_eq!((waited.done.len(), waited.not_done.len()), (1, 2));
            assert!(waited.done.into_iter().next().unwrap().result().unwrap_err().is_decode());
            assert!(waited.not_done.iter().all(|future| future.cancel()));
        }
        never.release();

        let mut queued: Vec<_> = (0..10).map(|_| good.submit(|()| Even, ())).collect();
        queued.push(bad.submit(|()| Even, ()));
        let waited = concurrent_futures::block_on(concurrent_futures::wait_async(queued, ReturnWhen::FirstException));
        assert!(waited.done.into_iter().any(|future| future.result().is_err()));
    });
}

/// The number of a stage. In the host, stage 0 is decoded until stage 1 has completed, and stage 1 lets stage 2 complete.
struct Stage(u32);

static STAGE_1: Mutex<Option<(ProcessPoolExecutor, Plug, SharedFuture<Stage>)>> = Mutex::new(None);
static STAGE_2: Mutex<Option<Plug>> = Mutex::new(None);

impl Serialize for Stage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Stage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stage = u32::deserialize(deserializer)?;
        if stage == 0 {
            let (pool, plug, next) = STAGE_1.lock().take().unwrap();
            plug.release();
            poll(|| next.is_done());
            // So that those who wait for it have been told.
            pool.submit(|()| (), ()).result().unwrap();
        } else if stage == 1 {
            STAGE_2.lock().take().unwrap().release();
        }
        Ok(Self(stage))
    }
}

// The second one completes while the first is looked at, and both might have been failures.
#[test]
fn a_result_that_comes_while_another_is_looked_at_does_not_end_the_wait() {
    guarded(|| {
        let (zero, one, two) = (pool(1), pool(1), pool(1));
        let (plug_1, plug_2) = (Plug::new(&one), Plug::new(&two));
        let [first, second, third] = [(&zero, 0), (&one, 1), (&two, 2)]
            .map(|(pool, stage)| pool.submit(|stage: u32| Stage(stage), stage).shared());
        *STAGE_2.lock() = Some(plug_2);
        *STAGE_1.lock() = Some((one, plug_1, second.clone()));
        let waited = wait([first, second, third], None, ReturnWhen::FirstException);
        assert_eq!((waited.done.len(), waited.not_done.len()), (3, 0));
        assert!(waited.done.iter().zip(0..).all(|(future, stage)| future.get().is_ok_and(|value| value.0 == stage)));
    });
}

// The end of the pool waits until all its wakers have returned, and this one would wait for that.
#[test]
fn a_waker_that_ends_the_pool_is_told_that_it_would_wait_for_itself() {
    struct Ends(Mutex<Option<ProcessPoolExecutor>>, mpsc::Sender<Result<(), ShutdownError>>);
    impl Wake for Ends {
        fn wake(self: Arc<Self>) {
            let Some(pool) = self.0.lock().take() else { return };
            self.1.send(pool.shutdown(Shutdown::Wait)).unwrap();
            drop(pool);
        }
    }
    guarded(|| {
        let pool = pool(1);
        let plug = Plug::new(&pool);
        let mut future = pool.submit(|n: u32| n, 5);
        let (sender, ended) = mpsc::channel();
        let waker = Waker::from(Arc::new(Ends(Mutex::new(Some(pool)), sender)));
        let mut context = Context::from_waker(&waker);
        assert!(std::pin::Pin::new(&mut future).poll(&mut context).is_pending());
        plug.release();
        assert!(matches!(ended.recv().unwrap(), Err(ShutdownError::WouldDeadlock)));
        assert_eq!(future.result().unwrap(), 5);
    });
}
