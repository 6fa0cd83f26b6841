//! Calls, values, reuse of workers, panics, callbacks, nesting: the pool when nothing goes wrong with it.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use concurrent_futures::{
    BuildError, MAX_WORKERS, ProcessPoolExecutor, QueuePolicy, ReturnWhen, Shutdown, Stdio, TaskError,
    ThreadPoolExecutor, as_completed, wait,
};
use serde::{Deserialize, Serialize};

use super::support::*;
use crate::support::{Counter, Gate, guarded};

fn add((a, b): (i64, i64)) -> i64 {
    a + b
}

fn pid(_: ()) -> u32 {
    std::process::id()
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Value {
    Nothing,
    Text(String),
    Pair(Box<Value>, Box<Value>),
    Table(BTreeMap<String, Vec<Option<f64>>>),
}

#[test]
fn submit() {
    guarded(|| {
        let pool = ProcessPoolExecutor::new(2).unwrap();
        assert_eq!(pool.submit(add, (2, 3)).result().unwrap(), 5);
        assert_eq!(pool.submit(|text: String| text + "!", "so".to_owned()).result().unwrap(), "so!");
        assert_eq!(pool.submit(i64::wrapping_neg, 4).result().unwrap(), -4);
    });
}

#[test]
fn values_of_many_types_arrive_as_they_were() {
    fn same<T>(value: T) -> T {
        value
    }
    guarded(|| {
        let pool = pool(1);
        pool.submit(same, ()).result().unwrap();
        assert_eq!(pool.submit(same, u128::MAX).result().unwrap(), u128::MAX);
        assert_eq!(pool.submit(same, String::new()).result().unwrap(), "");
        assert_eq!(pool.submit(same, Vec::<u64>::new()).result().unwrap(), []);
        assert_eq!(pool.submit(same, vec![(); 3]).result().unwrap(), [(); 3]);
        assert!(pool.submit(same, f32::NAN).result().unwrap().is_nan());
        assert_eq!(pool.submit(same, vec![1.5f64, -0.0]).result().unwrap(), [1.5, -0.0]);
        let table = BTreeMap::from([("a".to_owned(), vec![Some(1.0), None]), (String::new(), vec![])]);
        let deep = (0..100).fold(Value::Table(table), |inner, n| {
            Value::Pair(Box::new(inner), Box::new(if n % 2 == 0 { Value::Nothing } else { Value::Text("ü".repeat(n)) }))
        });
        assert_eq!(pool.submit(same, deep.clone()).result().unwrap(), deep);
        // Around the sizes at which values travel in another way.
        for length in [37, 38, 39, 4095, 4096, 65_535, 65_536, 65_537, 262_143, 262_144, 262_145, 1_000_003] {
            let bytes: Vec<u8> = (0..length).map(|n| n as u8).collect();
            assert_eq!(pool.submit(same, bytes.clone()).result().unwrap(), bytes);
            let wrapped = Some(bytes);
            assert_eq!(pool.submit(same, wrapped.clone()).result().unwrap(), wrapped);
        }
    });
}

// An error that a function returns is its value, not a failure of the task.
#[test]
fn swallows_falsey_exceptions() {
    guarded(|| {
        let pool = pool(1);
        let future = pool.submit(|_: ()| Err::<(), String>(String::new()), ());
        assert_eq!(future.result().unwrap(), Err(String::new()));
        assert_eq!(pool.submit(|_: ()| None::<u8>, ()).result().unwrap(), None);
    });
}

#[test]
fn workers_are_other_processes() {
    guarded(|| {
        let pool = pool(1);
        let worker = pool.submit(pid, ()).result().unwrap();
        assert_ne!(worker, std::process::id());
        assert_eq!(pool.worker_pids(), [worker]);
        let parent = pool.submit(|_: ()| std::os::unix::process::parent_id(), ()).result().unwrap();
        assert_eq!(parent, std::process::id());
    });
}

#[test]
fn no_worker_starts_before_the_first_task() {
    guarded(|| {
        let pool = pool(4);
        assert_eq!(pool.worker_pids(), []);
        pool.submit(pid, ()).result().unwrap();
        assert_eq!(pool.worker_pids().len(), 1, "and only as many as are needed");
    });
}

#[test]
fn idle_process_reuse_one() {
    guarded(|| {
        let pool = pool(4);
        let pids: HashSet<u32> = (0..50).map(|_| pool.submit(pid, ()).result().unwrap()).collect();
        assert_eq!(pids.len(), 1);
    });
}

#[test]
fn idle_process_reuse_multiple() {
    guarded(|| {
        let pool = pool(5);
        for _ in 0..5 {
            let plugs = [Plug::new(&pool), Plug::new(&pool)];
            assert_ne!(plugs[0].pid, plugs[1].pid);
            plugs.into_iter().for_each(Plug::release);
        }
        assert_eq!(pool.stats().workers, 2, "there were never three tasks at once");
    });
}

#[test]
fn saturation() {
    guarded(|| {
        let pool = pool(3);
        let plugs: Vec<Plug> = (0..3).map(|_| Plug::new(&pool)).collect();
        let more: Vec<_> = (0..45).map(|_| pool.submit(pid, ())).collect();
        let stats = pool.stats();
        assert_eq!((stats.max_workers, stats.workers, stats.busy, stats.queued), (3, 3, 3, 45));
        let busy: HashSet<u32> = plugs.iter().map(|plug| plug.pid).collect();
        assert_eq!(busy.len(), 3);
        plugs.into_iter().for_each(Plug::release);
        assert!(more.into_iter().all(|future| busy.contains(&future.result().unwrap())));
        poll(|| pool.stats().completed == 48);
        assert_eq!((pool.stats().busy, pool.stats().queued), (0, 0));
    });
}

#[test]
fn max_workers_out_of_range() {
    assert_eq!(ProcessPoolExecutor::new(0).unwrap_err(), BuildError::NoWorkers);
    let (asked, limit) = (MAX_WORKERS + 1, MAX_WORKERS);
    assert_eq!(ProcessPoolExecutor::new(asked).unwrap_err(), BuildError::TooManyWorkers { asked, limit });
    let (asked, limit) = (usize::MAX, MAX_WORKERS);
    assert_eq!(ProcessPoolExecutor::new(asked).unwrap_err(), BuildError::TooManyWorkers { asked, limit });
}

#[test]
fn settings_that_make_no_sense() {
    let builder = ProcessPoolExecutor::builder;
    assert_eq!(builder().max_tasks_per_child(0).build().unwrap_err(), BuildError::Zero("max_tasks_per_child"));
    assert_eq!(builder().max_payload(0).build().unwrap_err(), BuildError::Zero("max_payload"));
    assert_eq!(builder().restart_limit(0).build().unwrap_err(), BuildError::Zero("restart_limit"));
    assert_eq!(builder().threads_per_worker(0).build().unwrap_err(), BuildError::Zero("threads_per_worker"));
    let too_many = BuildError::TooManyThreads { asked: 40_000, limit: MAX_WORKERS };
    assert_eq!(builder().threads_per_worker(40_000).build().unwrap_err(), too_many);
    assert!(too_many.to_string().contains("40000 threads"), "{too_many}");
    assert_eq!(builder().queue_capacity(0, QueuePolicy::Fail).build().unwrap_err(), BuildError::NoQueueCapacity);
    assert_eq!(builder().worker_command([""; 0]).build().unwrap_err(), BuildError::NoCommand);
    assert_eq!(builder().name("a\0b").build().unwrap_err(), BuildError::BadThreadName);
}

#[test]
fn a_panic_says_what_where_and_who() {
    guarded(|| {
        let pool = pool(1);
        let worker = pool.submit(pid, ()).result().unwrap();
        let line = line!() + 1;
        let future = pool.task(|n: u32| -> u32 { panic!("no {n}") }, 7).name("the seventh").submit();
        let error = future.result().unwrap_err();
        let text = error.to_string();
        let TaskError::Panicked(panic) = error else { panic!("{error:?}") };
        assert_eq!(panic.message(), "no 7");
        assert_eq!((panic.location().unwrap().file(), panic.location().unwrap().line()), (file!(), line));
        assert_eq!((panic.pid(), panic.task_name()), (worker, Some("the seventh")));
        assert!(panic.thread_name().unwrap().starts_with("ProcessPoolExecutor-"), "{:?}", panic.thread_name());
        assert!(text.contains("no 7") && text.contains("the seventh"), "{text}");
        assert!(panic.into_payload().is_none());
    });
}

#[test]
fn a_panic_with_a_payload_that_is_no_text() {
    guarded(|| {
        let pool = pool(1);
        let future = pool.submit(|_: ()| -> () { std::panic::resume_unwind(Box::new(5u32)) }, ());
        let Err(TaskError::Panicked(panic)) = future.result() else { unreachable!() };
        assert_eq!(panic.message(), "non-string payload");
    });
}

// procspawn loses a process per panic.
#[test]
fn a_thousand_panics_cost_no_worker() {
    guarded(|| {
        let pool = pool(1);
        let worker = pool.submit(pid, ()).result().unwrap();
        let futures: Vec<_> = (0..1000).map(|n: u32| pool.submit(|n: u32| -> u32 { panic!("{n}") }, n)).collect();
        for (n, future) in futures.into_iter().enumerate() {
            let Err(TaskError::Panicked(panic)) = future.result() else { panic!("{n} did not panic") };
            assert_eq!((panic.message(), panic.pid()), (n.to_string().as_str(), worker));
        }
        assert_eq!(pool.submit(pid, ()).result().unwrap(), worker);
    });
}

// A destructor in the worker that panics is no crash.
#[test]
fn destructors_that_panic_cost_no_worker() {
    #[derive(Serialize, Deserialize)]
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            if !thread::panicking() {
                panic!("a destructor panics, as this test wants it");
            }
        }
    }
    guarded(|| {
        let pool = pool(1);
        let worker = pool.submit(pid, ()).result().unwrap();
        // In the parent the destructor panics too, after the argument has been encoded.
        let _ = pool.submit(drop, Bomb).result();
        let _ = pool.submit(|bomb: Bomb| bomb, Bomb).result().map(std::mem::forget);
        // If the result is there by now, its destructor panics in this thread, which is the one that drops it.
        let dropped = pool.submit(|_: ()| Bomb, ());
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(dropped)));
        let payload = |_: ()| -> () { std::panic::panic_any(Bomb) };
        assert!(pool.submit(payload, ()).result().unwrap_err().is_panicked());
        assert_eq!(pool.submit(pid, ()).result().unwrap(), worker);
    });
}

#[test]
fn ressources_gced_in_workers() {
    static LIVING: AtomicUsize = AtomicUsize::new(0);
    #[derive(Serialize)]
    struct Counted;
    impl<'de> Deserialize<'de> for Counted {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            LIVING.fetch_add(1, SeqCst);
            <()>::deserialize(deserializer).map(|()| Counted)
        }
    }
    impl Drop for Counted {
        fn drop(&mut self) {
            LIVING.fetch_sub(1, SeqCst);
        }
    }
    guarded(|| {
        let pool = pool(1);
        let living = |_: ()| LIVING.load(SeqCst);
        assert_eq!(pool.submit(|_: Counted| LIVING.load(SeqCst), Counted).result().unwrap(), 1, "it is in use");
        assert_eq!(pool.submit(living, ()).result().unwrap(), 0, "it went when the task ended");
        assert!(pool.submit(|_: Counted| -> () { panic!() }, Counted).result().unwrap_err().is_panicked());
        assert_eq!(pool.submit(living, ()).result().unwrap(), 0);
    });
}

// In the parent, the argument goes when it has been encoded, and the result belongs to the caller alone.
#[test]
fn no_stale_references() {
    static IN_PARENT: AtomicUsize = AtomicUsize::new(0);
    #[derive(Serialize, Deserialize)]
    struct Witness(u32);
    impl Drop for Witness {
        fn drop(&mut self) {
            if self.0 == std::process::id() {
                IN_PARENT.fetch_add(1, SeqCst);
            }
        }
    }
    guarded(|| {
        let pool = pool(1);
        let future = pool.submit(|witness: Witness| drop(witness), Witness(std::process::id()));
        assert_eq!(IN_PARENT.load(SeqCst), 1, "encoded, and gone before the task has run");
        future.result().unwrap();
        assert_eq!(IN_PARENT.load(SeqCst), 1);
        drop(pool.submit(|parent: u32| Witness(parent), std::process::id()).result().unwrap());
        assert_eq!(IN_PARENT.load(SeqCst), 2, "it is the caller's");
        drop(pool.submit(|parent: u32| Witness(parent), std::process::id()));
        drop(pool);
        assert_eq!(IN_PARENT.load(SeqCst), 2, "a result that nobody wants is never made");
    });
}

#[test]
fn tasks_have_the_stack_that_was_asked_for() {
    fn deep(n: usize) -> usize {
        let frame = std::hint::black_box([n; 2048]);
        if n == 0 { 0 } else { 1 + deep(frame[2047] - 1) }
    }
    guarded(|| {
        let builder = || ProcessPoolExecutor::builder().max_workers(1).stdio(Stdio::Null);
        let least = builder().stack_size(0).build().unwrap();
        assert_eq!(least.submit(|n: u32| n, 5).result().unwrap(), 5);
        // 16 MiB and more.
        let large = builder().threads_per_worker(2).stack_size(64 << 20).build().unwrap();
        assert_eq!(large.submit(deep, 1024).result().unwrap(), 1024);
    });
}

#[test]
fn callbacks_run_in_the_parent_and_in_order() {
    guarded(|| {
        let pool = pool(1);
        let (counter, order) = (Counter::new(), Arc::new(parking_lot::Mutex::new(Vec::new())));
        let plug = Plug::new(&pool);
        let future = pool.submit(pid, ());
        for n in 0..3 {
            let (order, counter) = (Arc::clone(&order), Arc::clone(&counter));
            future.add_done_callback(move |done| {
                order.lock().push((n, std::process::id(), done.is_ok()));
                counter.add();
                assert_ne!(n, 1, "a callback panics, as this test wants it");
            });
        }
        plug.release();
        counter.wait_for(3);
        let here = std::process::id();
        assert_eq!(*order.lock(), [(0, here, true), (1, here, true), (2, here, true)]);
        assert_ne!(future.result().unwrap(), here);
        assert_eq!(pool.submit(add, (1, 1)).result().unwrap(), 2, "the thread of the callbacks lives");
    });
}

#[test]
fn a_callback_may_submit() {
    guarded(|| {
        let pool = Arc::new(pool(1));
        let (inner, (promise, second)) = (Arc::clone(&pool), concurrent_futures::promise());
        let promise = parking_lot::Mutex::new(Some(promise));
        let first = pool.submit(add, (1, 2));
        first.add_done_callback(move |_| {
            let future = inner.submit(add, (10, 20));
            promise.lock().take().unwrap().set_result(future).unwrap();
        });
        assert_eq!(first.result().unwrap(), 3);
        assert_eq!(second.result().unwrap().result().unwrap(), 30);
    });
}

#[test]
fn awaited() {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Wake};
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    guarded(|| {
        let pool = pool(2);
        for n in 0..100 {
            let mut future = pin!(pool.submit(|n: u32| n + 1, n));
            let waker = Arc::new(Unpark(thread::current())).into();
            let result = loop {
                match future.as_mut().poll(&mut Context::from_waker(&waker)) {
                    Poll::Ready(result) => break result,
                    Poll::Pending => thread::park(),
                }
            };
            assert_eq!(result.unwrap(), n + 1);
        }
    });
}

#[test]
fn wait_and_as_completed_mix_pools() {
    guarded(|| {
        let (processes, threads) = (pool(2), ThreadPoolExecutor::new(2).unwrap());
        let mixed = |n: u32| match n % 2 {
            0 => processes.submit(|n: u32| n, n),
            _ => threads.submit(move || n),
        };
        let waited = wait((0..100).map(mixed), None, ReturnWhen::AllCompleted);
        assert_eq!((waited.done.len(), waited.not_done.len()), (100, 0));
        let sum: u32 = as_completed((0..100).map(mixed)).map(|future| future.result().unwrap()).sum();
        assert_eq!(sum, 4950);
    });
}

#[test]
fn first_completed() {
    guarded(|| {
        let pool = pool(2);
        let mut plug = Plug::new(&pool);
        let quick = pool.submit(|_: ()| (), ());
        let quick_id = quick.id();
        let waited = wait([plug.take(), quick], None, ReturnWhen::FirstCompleted);
        assert_eq!((waited.done.len(), waited.not_done.len()), (1, 1));
        assert_eq!(waited.done[0].id(), quick_id);
    });
}

#[test]
fn first_exception() {
    guarded(|| {
        let pool = pool(2);
        let mut plug = Plug::new(&pool);
        let crash = pool.submit(|_: ()| -> () { std::process::exit(1) }, ());
        let waited = wait([plug.take(), crash], None, ReturnWhen::FirstException);
        assert!(waited.done.iter().any(|future| future.is_done()) && waited.not_done.len() == 1);
    });
}

#[test]
fn a_wait_with_a_limit_gives_the_handle_back() {
    guarded(|| {
        let pool = pool(1);
        let mut plug = Plug::new(&pool);
        let future = plug.take().result_timeout(Duration::from_millis(5)).unwrap_err();
        assert!(!future.is_done() && future.is_running());
        drop(plug);
        future.result().unwrap();
    });
}

#[test]
fn running_means_that_a_worker_has_begun_it() {
    guarded(|| {
        let pool = pool(1);
        let mut plug = Plug::new(&pool);
        let queued: Vec<_> = (0..5).map(|_| pool.submit(pid, ())).collect();
        assert!(plug.future.as_ref().unwrap().is_running());
        // The worker may have been handed one of them in advance: that is not running.
        assert!(queued.iter().all(|future| !future.is_running() && !future.is_done()));
        let future = plug.take();
        drop(plug);
        future.result().unwrap();
        queued.into_iter().for_each(|future| assert!(future.result().is_ok()));
    });
}

#[test]
fn many_threads_submit_and_wait() {
    guarded(|| {
        let pool = Arc::new(pool(3));
        let start = Arc::new(Barrier::new(8));
        let threads: Vec<_> = (0..8u64)
            .map(|thread| {
                let (pool, start) = (Arc::clone(&pool), Arc::clone(&start));
                thread::spawn(move || {
                    start.wait();
                    for n in 0..250 {
                        assert_eq!(
                            pool.submit(|n: u64| n * n, thread * 1000 + n).result().unwrap(),
                            (thread * 1000 + n).pow(2)
                        );
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        poll(|| pool.stats().completed == 2000);
    });
}

// The signal that ends a worker with its parent really follows the thread that started it: no such thread may end.
#[test]
fn the_thread_that_submitted_first_may_end() {
    guarded(|| {
        let pool = Arc::new(pool(1));
        let inner = Arc::clone(&pool);
        let worker = thread::spawn(move || inner.submit(pid, ()).result().unwrap()).join().unwrap();
        for _ in 0..20 {
            assert_eq!(pool.submit(pid, ()).result().unwrap(), worker);
        }
    });
}

#[test]
fn what_the_workers_find() {
    guarded(|| {
        let folder = Folder::new();
        let pool = ProcessPoolExecutor::builder()
            .max_workers(1)
            .name("tailor")
            .env("CONCURRENT_FUTURES_TEST_SHOE", "size 43")
            .env_remove("PATH")
            .current_dir(folder.path())
            .build()
            .unwrap();
        let look = |_: ()| {
            let variable = |name: &str| std::env::var(name).ok();
            let thread = thread::current().name().map(str::to_owned);
            (variable("CONCURRENT_FUTURES_TEST_SHOE"), variable("PATH"), std::env::current_dir().unwrap(), thread)
        };
        let (shoe, path, directory, thread) = pool.submit(look, ()).result().unwrap();
        assert_eq!((shoe.as_deref(), path), (Some("size 43"), None));
        assert_eq!(directory.canonicalize().unwrap(), folder.path().canonicalize().unwrap());
        assert_eq!(thread.as_deref(), Some("tailor_1"));
        let own = pool.submit(|_: ()| std::env::var_os("CONCURRENT_FUTURES_WORKER").is_some(), ()).result().unwrap();
        assert!(!own, "what made it a worker is gone: its own children are none");
    });
}

fn descend(depth: u32) -> Result<u32, String> {
    match ProcessPoolExecutor::new(1) {
        Ok(pool) => pool.submit(descend, depth + 1).result().unwrap(),
        Err(BuildError::TooDeep { limit }) => {
            assert_eq!(limit, depth);
            Ok(depth)
        }
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn workers_may_have_workers_but_not_for_ever() {
    guarded(|| assert_eq!(descend(0), Ok(8)));
}

#[test]
fn a_function_may_use_its_own_pools() {
    fn inner(n: u64) -> u64 {
        let threads = ThreadPoolExecutor::new(2).unwrap();
        threads.map(|n| n * 2, 0..n).map(Result::unwrap).sum()
    }
    guarded(|| assert_eq!(pool(2).map(inner, [3, 4]).map(Result::unwrap).collect::<Vec<_>>(), [6, 12]));
}

// Python's process pools hung beside a busy thread pool, which held locks when the workers were forked.
#[test]
fn hang_global_shutdown_lock() {
    guarded(|| {
        let threads = ThreadPoolExecutor::new(4).unwrap();
        let (gate, noise) = (Gate::new(), Counter::new());
        for _ in 0..4 {
            let (gate, noise) = (gate.clone(), Arc::clone(&noise));
            drop(threads.submit(move || {
                while !gate.is_open() {
                    noise.add();
                    drop(vec![0u8; 5000]);
                }
            }));
        }
        noise.wait_for(4);
        for n in 0..10 {
            assert_eq!(pool(2).submit(add, (n, 1)).result().unwrap(), n + 1);
        }
        gate.open();
    });
}

#[test]
fn a_full_queue_fails_blocks_or_lets_the_caller_run() {
    guarded(|| {
        let bounded = |policy| {
            let pool = ProcessPoolExecutor::builder().max_workers(1).queue_capacity(2, policy).build().unwrap();
            let plug = Plug::new(&pool);
            // One may have gone to the worker in advance, so it takes two or three.
            let mut queued = Vec::new();
            while let Ok(future) = pool.try_submit(pid, ()) {
                queued.push(future);
            }
            assert!((2..=3).contains(&queued.len()), "{}", queued.len());
            (pool, plug, queued)
        };
        let (pool, plug, queued) = bounded(QueuePolicy::Fail);
        let error = pool.try_submit(|text: String| text, "kept".to_owned()).unwrap_err();
        assert!(error.is_queue_full());
        assert_eq!(error.into_inner(), "kept");
        assert!(pool.submit(pid, ()).result().unwrap_err().is_queue_full());
        plug.release();
        queued.into_iter().for_each(|future| assert!(future.result().is_ok()));
        pool.submit(pid, ()).result().unwrap();

        let (pool, plug, _queued) = bounded(QueuePolicy::CallerRuns);
        assert_eq!(pool.submit(pid, ()).result().unwrap(), std::process::id());
        plug.release();

        let (pool, plug, _queued) = bounded(QueuePolicy::Block);
        let (pool, entered) = (Arc::new(pool), Gate::new());
        let (inner, gate) = (Arc::clone(&pool), entered.clone());
        let submitter = thread::spawn(move || {
            gate.open();
            inner.submit(pid, ()).result().unwrap()
        });
        entered.pass();
        assert!(!submitter.is_finished());
        plug.release();
        submitter.join().unwrap();
    });
}

#[test]
fn a_shutdown_wakes_those_who_wait_for_room() {
    guarded(|| {
        let pool = ProcessPoolExecutor::builder().max_workers(1).queue_capacity(1, QueuePolicy::Block);
        let pool = Arc::new(pool.build().unwrap());
        let plug = Plug::new(&pool);
        while pool.try_submit(pid, ()).map(drop).is_ok() {}
        let inner = Arc::clone(&pool);
        let submitter = thread::spawn(move || inner.submit(pid, ()).result());
        pool.shutdown(Shutdown::NoWait).unwrap();
        assert!(submitter.join().unwrap().unwrap_err().is_shut_down());
        plug.release();
    });
}

#[test]
fn its_debug_form_says_how_it_is_doing() {
    guarded(|| {
        let pool = ProcessPoolExecutor::builder().max_workers(3).name("shop").build().unwrap();
        let plug = Plug::new(&pool);
        let text = format!("{pool:?}");
        assert!(text.contains("shop") && text.contains("1/3"), "{text}");
        assert!(format!("{:?}", pool.task(pid, ()).name("boots")).contains("boots"));
        plug.release();
    });
}
