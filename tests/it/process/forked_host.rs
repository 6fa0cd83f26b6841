//! What a child sees, and what its parent does not, when a program forks that has process pools. As in `fork`, each test runs in a
//! copy of this program.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, mpsc};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use concurrent_futures::{
    BuildError, Executor, MapOptions, Priority, ProcessPoolExecutor, QueuePolicy, ReturnWhen, Shutdown, ShutdownError,
    Stdio, TaskFuture, ThreadPoolExecutor, as_completed, block_on, wait, wait_async,
};

use super::support::*;
use crate::fork::{Ended, Forked, alone, end, fork, forked, is_wrong};
use crate::support::{Counter, Gate, rounds, until};

/// Everything that can be asked of a pool.
fn every_verb_fails(pool: &ProcessPoolExecutor) {
    let double = |n: u32| 2 * n;
    is_wrong(pool.submit(double, 1).result());
    let refused = pool.try_submit(double, 1).unwrap_err();
    assert!(refused.reason().is_wrong_process());
    assert_eq!(refused.into_inner(), 1);
    let task =
        || pool.task(double, 1).name("named").timeout(Duration::from_secs(1)).retries(2).priority(Priority::High);
    is_wrong(task().submit().result());
    assert!(task().try_submit().unwrap_err().reason().is_wrong_process());
    is_wrong(block_on(Executor::submit_call(pool, double, 1)));
    for results in [pool.map(double, 0..100), Executor::map(pool, double, 0..100)] {
        assert_eq!(results.map(is_wrong).count(), 100);
    }
    let options = [MapOptions::new().buffer(2), MapOptions::new().chunk_size(7), MapOptions::new().ordered(false)];
    for options in options {
        assert_eq!(pool.map_with(options, double, 0..10).unwrap().map(is_wrong).count(), 10);
    }
    drop(pool.map(double, 0..10));
    assert_eq!(pool.resize(3), Err(BuildError::WrongProcess));
    assert_eq!(pool.worker_pids(), []);
    let stats = pool.stats();
    assert_eq!((stats.max_workers, stats.workers, stats.busy, stats.queued, stats.completed), (0, 0, 0, 0, 0));
    assert!(format!("{pool:?}").contains("ProcessPoolExecutor"));
    pool.terminate_workers();
    pool.kill_workers();
    for how in [Shutdown::Wait, Shutdown::NoWait, Shutdown::CancelPending, Shutdown::Within(Duration::ZERO)] {
        assert_eq!(pool.shutdown(how), Err(ShutdownError::WrongProcess));
    }
    assert_eq!(Executor::shutdown(pool, Shutdown::Wait), Err(ShutdownError::WrongProcess));
}

#[test]
fn every_verb_fails_in_the_child() {
    alone("process::forked_host::every_verb_fails_in_the_child", || {
        let used = pool(2);
        used.submit(|_: ()| (), ()).result().unwrap();
        let bounded = |policy| {
            let builder = ProcessPoolExecutor::builder().max_workers(1).stdio(Stdio::Null).queue_capacity(1, policy);
            let pool = builder.build().unwrap();
            let plug = Plug::new(&pool);
            pool.submit(|_: ()| (), ()).detach();
            (pool, Some(plug))
        };
        let ended = pool(1);
        ended.shutdown(Shutdown::Wait).unwrap();
        let pools = [
            (pool(1), None),
            (used, None),
            bounded(QueuePolicy::Block),
            bounded(QueuePolicy::Fail),
            bounded(QueuePolicy::CallerRuns),
            (ended, None),
        ];
        forked(|| pools.iter().for_each(|(pool, _)| every_verb_fails(pool))).succeeds();
        for (n, (pool, plug)) in pools.into_iter().enumerate() {
            plug.into_iter().for_each(Plug::release);
            let result = pool.submit(|n: u32| n, 7).result();
            match n {
                5 => assert!(result.unwrap_err().is_shut_down()),
                _ => assert_eq!(result.unwrap(), 7),
            }
        }
    });
}

// The epoll of the pool is one for both sides: the child must not take what is the parent's.
#[test]
fn a_pool_that_was_forked_before_it_was_used() {
    alone("process::forked_host::a_pool_that_was_forked_before_it_was_used", || {
        let pool = pool(1);
        let child = forked(|| {
            is_wrong(pool.submit(|n: u32| n, 7).result());
            // It stays until the parent is done.
            thread::park_timeout(Duration::from_millis(200));
        });
        for _ in 0..10 {
            assert_eq!(pool.submit(|n: u32| n, 7).result().unwrap(), 7);
        }
        child.succeeds();
        assert_eq!(pool.submit(|n: u32| n, 8).result().unwrap(), 8);
    });
}

/// Forks with tasks that are not done: one that runs, one that was handed over, and those that are queued. `in_the_child` gets
/// their futures, which are good afterwards in the parent.
fn with_undone(test: &str, in_the_child: impl Fn(Vec<TaskFuture<u32>>) + Send + 'static) {
    let test = format!("process::forked_host::{test}");
    alone(&test, move || {
        let (pool, folder) = (pool(1), Folder::new());
        let (begun, go_on) = (folder.sign("begun"), folder.sign("go_on"));
        let running = |(begun, go_on): (Sign, Sign)| {
            begun.give();
            go_on.wait();
            7u32
        };
        let mut futures = vec![pool.submit(running, (begun.clone(), go_on.clone()))];
        begun.wait();
        futures.extend((0..5).map(|_| pool.submit(|n: u32| n, 7)));
        let workers = pool.worker_pids();
        let child = match fork() {
            Some(child) => child,
            None => {
                let done = catch_unwind(AssertUnwindSafe(|| {
                    in_the_child(futures);
                    every_verb_fails(&pool);
                    drop(pool);
                }));
                end(i32::from(done.is_err()))
            }
        };
        child.succeeds();
        go_on.give();
        for future in futures {
            assert_eq!(future.result().unwrap(), 7);
        }
        assert_eq!(pool.worker_pids(), workers, "nothing has happened to the worker");
    });
}

#[test]
fn blocking_waits_end_in_the_child() {
    with_undone("blocking_waits_end_in_the_child", |mut futures| {
        is_wrong(futures.pop().unwrap().result_timeout(Duration::ZERO).unwrap());
        is_wrong(futures.pop().unwrap().result_timeout(Duration::MAX).unwrap());
        assert!(futures.pop().unwrap().peek().unwrap().is_err());
        let future = futures.pop().unwrap();
        until(|| future.is_done());
        assert!(!future.is_running());
        futures.into_iter().for_each(|future| is_wrong(future.result()));
    });
}

#[test]
fn awaiting_ends_in_the_child() {
    with_undone("awaiting_ends_in_the_child", |mut futures| {
        match crate::support::poll(&mut futures.pop().unwrap(), Waker::noop()) {
            Poll::Ready(result) => is_wrong(result),
            Poll::Pending => panic!("nobody would wake it"),
        }
        let shared = futures.pop().unwrap().shared();
        is_wrong(block_on(shared.clone()));
        is_wrong(shared.result());
        futures.into_iter().for_each(|future| is_wrong(block_on(future)));
    });
}

#[test]
fn waiting_for_several_ends_in_the_child() {
    with_undone("waiting_for_several_ends_in_the_child", |mut futures| {
        let others = futures.split_off(2);
        let waited = wait(futures, None, ReturnWhen::AllCompleted);
        assert_eq!(waited.done.len(), 2);
        let waited = block_on(wait_async(waited.done.into_iter().chain(others), ReturnWhen::AllCompleted));
        assert_eq!(as_completed(waited.done).map(|future| is_wrong(future.result())).count(), 6);
    });
}

#[test]
fn nothing_is_cancelled_or_called_back_from_the_child() {
    with_undone("nothing_is_cancelled_or_called_back_from_the_child", |futures| {
        for future in futures {
            let (tx, rx) = mpsc::channel();
            assert!(!future.cancel());
            future.add_done_callback(move |outcome| tx.send(outcome.unwrap_err().is_wrong_process()).unwrap());
            assert!(rx.try_recv().unwrap());
            drop(future.cancel_on_drop());
        }
    });
}

#[test]
fn half_way_through_a_map() {
    alone("process::forked_host::half_way_through_a_map", || {
        for options in [MapOptions::new(), MapOptions::new().buffer(3), MapOptions::new().timeout(Duration::MAX)] {
            let (pool, folder) = (pool(2), Folder::new());
            let go_on = folder.sign("go_on");
            let wait_for_it = |(n, go_on): (u32, Sign)| {
                if n > 0 {
                    go_on.wait();
                }
                n
            };
            let items = (0..20).map(|n| (n, go_on.clone())).collect::<Vec<_>>();
            let mut map = pool.map_with(options.chunk_size(1), wait_for_it, items).unwrap();
            assert_eq!(map.next().unwrap().unwrap(), 0);
            let child = match fork() {
                Some(child) => child,
                None => {
                    let in_the_child = || assert_eq!(map.map(is_wrong).count(), 19);
                    end(i32::from(catch_unwind(AssertUnwindSafe(in_the_child)).is_err()));
                }
            };
            child.succeeds();
            go_on.give();
            assert_eq!(map.map(Result::unwrap).sum::<u32>(), 190);
        }
    });
}

#[test]
fn whatever_the_child_does_the_parent_goes_on() {
    alone("process::forked_host::whatever_the_child_does_the_parent_goes_on", || {
        let pool = pool(1);
        let plug = Plug::new(&pool);
        let queued: Vec<_> = (0..100u32).map(|n| pool.submit(|n: u32| n, n)).collect();
        let workers = pool.worker_pids();
        let expected = [
            Ended::Code(0),
            Ended::Code(3),
            Ended::Code(101),
            Ended::Signal(libc::SIGABRT),
            Ended::Code(0),
            Ended::Code(0),
        ];
        let mut pool = Some(pool);
        for (what, expected) in (0..).zip(expected) {
            let child = match fork() {
                Some(child) => child,
                None => {
                    let pool = pool.take().unwrap();
                    let done = catch_unwind(AssertUnwindSafe(|| match what {
                        0 => drop(pool),
                        1 => std::process::exit(3),
                        2 => {
                            let _pool = pool;
                            panic!("a child panics, as this test wants it");
                        }
                        3 => std::process::abort(),
                        4 => drop(Command::new("/bin/true").exec()),
                        _ => pool.kill_workers(),
                    }));
                    end(if done.is_ok() { 0 } else { 101 })
                }
            };
            assert_eq!(child.wait(), expected, "{what}");
        }
        plug.release();
        for (n, future) in (0..).zip(queued) {
            assert_eq!(future.result().unwrap(), n);
        }
        assert_eq!(pool.unwrap().worker_pids(), workers);
    });
}

// The host of a pool that becomes a daemon: its pool is that of a process that has ended.
#[test]
fn a_host_that_becomes_a_daemon() {
    alone("process::forked_host::a_host_that_becomes_a_daemon", || {
        let (reader, mut writer) = UnixStream::pair().unwrap();
        let host = forked(move || {
            let pool = pool(2);
            assert_eq!(pool.submit(|n: u32| n, 7).result().unwrap(), 7);
            let pending = pool.submit(|_: ()| thread::park(), ());
            if fork().is_some() {
                // The parent of a daemon goes without a word.
                end(0);
            }
            rustix::process::setsid().unwrap();
            let done = catch_unwind(AssertUnwindSafe(|| {
                every_verb_fails(&pool);
                is_wrong(pending.result());
                drop(pool);
                let own = self::pool(2);
                assert_eq!(own.submit(|n: u32| n, 8).result().unwrap(), 8);
                drop(own);
            }));
            writer.write_all(if done.is_ok() { b"good" } else { b"bad" }).unwrap();
            end(0);
        });
        host.succeeds();
        assert_eq!(std::io::read_to_string(reader).unwrap(), "good");
    });
}

#[test]
fn a_child_has_pools_of_its_own() {
    alone("process::forked_host::a_child_has_pools_of_its_own", || {
        let parents = pool(1);
        let plug = Plug::new(&parents);
        let in_child = || {
            let own = pool(2);
            assert_eq!(own.map(|n: u32| n, 0..100).map(Result::unwrap).sum::<u32>(), 4950);
            every_verb_fails(&parents);
            let future = own.submit(|n: u32| n, 7);
            let (tx, rx) = mpsc::channel();
            future.add_done_callback(move |outcome| tx.send(*outcome.unwrap()).unwrap());
            assert_eq!((rx.recv().unwrap(), future.result().unwrap()), (7, 7));
            forked(|| {
                every_verb_fails(&own);
                every_verb_fails(&parents);
                let threads = ThreadPoolExecutor::new(1).unwrap();
                assert_eq!(threads.submit(|| 7).result().unwrap(), 7);
            })
            .succeeds();
            assert_eq!(own.submit(|n: u32| n, 7).result().unwrap(), 7);
        };
        forked(in_child).succeeds();
        plug.release();
    });
}

// A fork can come while any lock of the pool is held, by threads that the child does not have.
#[test]
fn forks_in_the_middle_of_everything() {
    alone("process::forked_host::forks_in_the_middle_of_everything", || {
        let (pool, over, done) = (Arc::new(pool(2)), Gate::new(), Arc::new(AtomicUsize::new(0)));
        let started = Counter::new();
        let traffic = |n: usize| {
            let (pool, over, done, started) =
                (Arc::clone(&pool), over.clone(), Arc::clone(&done), Arc::clone(&started));
            move || {
                started.add();
                while !over.is_open() {
                    match n {
                        0 => assert_eq!(pool.map(|n: u32| n, 0..50).map(Result::unwrap).sum::<u32>(), 1225),
                        1 => drop((pool.stats(), pool.worker_pids(), pool.resize(2))),
                        _ => assert_eq!(block_on(pool.submit(|n: u32| n, 7)).unwrap(), 7),
                    }
                    done.fetch_add(1, SeqCst);
                }
            }
        };
        // What the children do needs locks of std that are held while a thread is started.
        [Plug::new(&pool), Plug::new(&pool)].into_iter().for_each(Plug::release);
        let threads: Vec<_> = (0..3).map(|n| thread::spawn(traffic(n))).collect();
        started.wait_for(threads.len());
        for round in rounds(50) {
            let child: Forked = forked(|| {
                is_wrong(pool.submit(|n: u32| n, 7).result());
                assert_eq!(pool.map(|n: u32| n, 0..5).map(is_wrong).count(), 5);
                assert!(pool.worker_pids().is_empty());
                if round % 10 == 0 {
                    let own = self::pool(1);
                    assert_eq!(own.submit(|n: u32| n, 7).result().unwrap(), 7);
                }
            });
            child.succeeds();
        }
        over.open();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(done.load(SeqCst) > 0);
    });
}
