//! Tasks that borrow: nothing of a scope outlives it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use concurrent_futures::{QueuePolicy, ReturnWhen, Shutdown, ThreadPoolExecutor, as_completed, wait};
use parking_lot::Mutex;

use crate::support::*;

#[test]
fn it_waits_for_every_task() {
    guarded(|| {
        let pool = pool(3);
        let numbers: Vec<u64> = (0..1000).collect();
        for _ in 0..100 {
            let sum = AtomicUsize::new(0);
            pool.scope(|scope| {
                for chunk in numbers.chunks(10) {
                    let sum = &sum;
                    // The handles are dropped at once: the end of the scope waits all the same.
                    drop(scope.submit(move || sum.fetch_add(chunk.iter().sum::<u64>() as usize, SeqCst)));
                }
            });
            assert_eq!(sum.into_inner(), 499_500);
        }
    });
}

#[test]
fn borrowed_mutably() {
    guarded(|| {
        let pool = pool(2);
        let mut parts = vec![vec![0u8; 100]; 50];
        pool.scope(|scope| {
            for (n, part) in parts.iter_mut().enumerate() {
                drop(scope.submit(move || part.fill(n as u8)));
            }
        });
        assert!(parts.iter().enumerate().all(|(n, part)| part.iter().all(|byte| *byte as usize == n)));
    });
}

#[test]
fn results_may_borrow() {
    guarded(|| {
        let pool = pool(2);
        let words = ["some", "longer", "words"].map(str::to_owned);
        let longest = pool.scope(|scope| {
            let futures: Vec<_> = words.iter().map(|word| scope.submit(move || word.as_str())).collect();
            futures.into_iter().map(|future| future.result().unwrap()).max_by_key(|word| word.len())
        });
        assert_eq!(longest, Some("longer"));
    });
}

#[test]
fn tasks_may_submit_to_their_scope() {
    guarded(|| {
        for workers in 1..3 {
            let (pool, leaves) = (pool(workers), AtomicUsize::new(0));
            pool.scope(|scope| {
                let leaves = &leaves;
                for _ in 0..10 {
                    drop(scope.submit(move || {
                        for _ in 0..10 {
                            drop(scope.submit(move || leaves.fetch_add(1, SeqCst)));
                        }
                    }));
                }
            });
            assert_eq!(leaves.into_inner(), 100);
        }
    });
}

#[test]
fn scopes_in_scopes_on_one_thread() {
    guarded(|| {
        fn sum(pool: &ThreadPoolExecutor, numbers: &[u64]) -> u64 {
            if numbers.len() == 1 {
                return numbers[0];
            }
            let (left, right) = numbers.split_at(numbers.len() / 2);
            pool.scope(|scope| {
                let left = scope.submit(|| sum(pool, left));
                sum(pool, right) + left.result().unwrap()
            })
        }
        let numbers: Vec<u64> = (0..300).collect();
        assert_eq!(sum(&pool(1), &numbers), 44_850);
    });
}

#[test]
fn a_dropped_handle_does_not_hide_a_panic() {
    guarded(|| {
        let (pool, others) = (pool(2), AtomicUsize::new(0));
        let scope = || {
            pool.scope(|scope| {
                let others = &others;
                for n in 0..20 {
                    drop(scope.submit(move || {
                        assert_ne!(n, 3, "a task panics, as this test wants it");
                        others.fetch_add(1, SeqCst)
                    }));
                }
            });
        };
        let panic = catch_unwind(AssertUnwindSafe(scope)).unwrap_err();
        assert!(message(&*panic).contains("as this test wants it"));
        assert_eq!(others.load(SeqCst), 19, "the other tasks have ended by then");
    });
}

#[test]
fn a_panic_that_was_seen_is_not_the_scopes() {
    guarded(|| {
        let pool = pool(1);
        let seen = pool.scope(|scope| scope.submit(|| -> () { panic!("as this test wants it") }).result());
        assert!(seen.unwrap_err().is_panicked());
    });
}

#[test]
fn a_panic_of_the_caller_waits_too() {
    guarded(|| {
        let (pool, ran) = (pool(2), AtomicUsize::new(0));
        let scope = || {
            pool.scope(|scope| {
                for _ in 0..50 {
                    drop(scope.submit(|| ran.fetch_add(1, SeqCst)));
                }
                panic!("the caller panics, as this test wants it");
            })
        };
        let panic = catch_unwind(AssertUnwindSafe(scope)).unwrap_err();
        assert!(message(&*panic).contains("the caller panics"));
        assert_eq!(ran.load(SeqCst), 50);
    });
}

#[test]
fn cancelled_tasks_do_not_hold_it_up() {
    guarded(|| {
        let pool = pool(1);
        let _plug = Plug::new(&pool, 1);
        let drops = Drops::new();
        let borrowed = 5;
        // The only worker is busy to the end.
        pool.scope(|scope| {
            for _ in 0..10 {
                let (token, borrowed) = (drops.token(), &borrowed);
                let future = scope.submit(move || {
                    drop(token);
                    *borrowed
                });
                assert!(future.cancel());
                assert!(future.result().unwrap_err().is_cancelled());
            }
        });
        assert_eq!(drops.count(), 10);
    });
}

#[test]
fn a_pool_that_cancels_meanwhile() {
    guarded(|| {
        let pool = Arc::new(pool(1));
        let plug = Plug::new(&pool, 1);
        let inner = Arc::clone(&pool);
        let ender = std::thread::spawn(move || inner.shutdown(Shutdown::CancelPending));
        let value = String::from("borrowed");
        let outcome = pool.scope(|scope| scope.submit(|| value.len()).result());
        assert!(matches!(&outcome, Err(error) if error.is_cancelled() || error.is_shut_down()), "{outcome:?}");
        plug.release();
        ender.join().unwrap().unwrap();
    });
}

#[test]
fn its_futures_can_be_waited_for_like_others() {
    guarded(|| {
        let (pool, base) = (pool(2), 10);
        pool.scope(|scope| {
            let futures: Vec<_> = (0..20).map(|n| scope.submit(move || n + base)).collect();
            let sum: i32 = as_completed(futures).map(|future| future.result().unwrap()).sum();
            assert_eq!(sum, 390);
            let futures: Vec<_> = (0..20).map(|n| scope.submit(move || n + base)).collect();
            assert_eq!(wait(futures, None, ReturnWhen::AllCompleted).done.len(), 20);
        });
    });
}

#[test]
fn the_bound_of_a_queue_is_not_for_it() {
    guarded(|| {
        let pool = ThreadPoolExecutor::builder().max_workers(1).queue_capacity(1, QueuePolicy::Fail).build().unwrap();
        let one = 1;
        let sum: i32 = pool.scope(|scope| {
            let futures: Vec<_> = (0..50).map(|_| scope.submit(|| one)).collect();
            futures.into_iter().map(|future| future.result().unwrap()).sum()
        });
        assert_eq!(sum, 50);
    });
}

#[test]
fn closures_and_results_are_dropped_before_it_ends() {
    guarded(|| {
        let pool = pool(2);
        for _ in 0..200 {
            let (captured, results) = (Drops::new(), Drops::new());
            pool.scope(|scope| {
                for n in 0..20 {
                    let (token, result) = (captured.token(), results.token());
                    let future = scope.submit(move || {
                        drop(token);
                        result
                    });
                    match n % 3 {
                        0 => drop(future),
                        1 => drop(future.result()),
                        _ => drop(future.cancel()),
                    }
                }
            });
            assert_eq!((captured.count(), results.count()), (20, 20));
        }
    });
}

/// Runs `f` on the one worker of a pool.
fn on_the_worker<R: Send + 'static>(f: impl FnOnce(&ThreadPoolExecutor) -> R + Send + 'static) -> R {
    let pool = Arc::new(pool(1));
    let inner = Arc::clone(&pool);
    pool.submit(move || f(&inner)).result().unwrap()
}

#[test]
fn tasks_start_in_order_where_it_ends_on_a_worker() {
    guarded(|| {
        let order = on_the_worker(|pool| {
            let order = Mutex::new(Vec::new());
            pool.scope(|scope| {
                for n in 0..100 {
                    let order = &order;
                    drop(scope.submit(move || order.lock().push(n)));
                }
            });
            order.into_inner()
        });
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    });
}

/// Local variables are dropped last in, first out; the tasks start first in, first out all the same.
#[test]
fn tasks_start_in_order_however_their_handles_are_dropped() {
    guarded(|| {
        let order = on_the_worker(|pool| {
            let order = Mutex::new(Vec::new());
            pool.scope(|scope| {
                let note = |n| {
                    let order = &order;
                    move || order.lock().push(n)
                };
                let _first = scope.submit(note(0));
                let _second = scope.submit(note(1));
                drop(scope.submit(note(2)));
                let third = scope.submit(note(3));
                drop(scope.submit(note(4)));
                drop(third);
            });
            order.into_inner()
        });
        assert_eq!(order, [0, 1, 2, 3, 4]);
    });
}

#[test]
fn a_task_may_wait_for_what_an_earlier_one_sends() {
    guarded(|| {
        let received = on_the_worker(|pool| {
            let (sender, receiver) = std::sync::mpsc::channel();
            let received = Mutex::new(None);
            let receiver = Mutex::new(receiver);
            pool.scope(|scope| {
                drop(scope.submit(|| sender.send(1).unwrap()));
                drop(scope.submit(|| *received.lock() = Some(receiver.lock().recv_timeout(LIMIT / 10))));
            });
            received.into_inner()
        });
        assert_eq!(received, Some(Ok(1)));
    });
}

/// A payload whose destructor waits.
struct Waits {
    begun: Gate,
    behind: Gate,
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.begun.open();
        self.behind.pass();
    }
}

// The first panic is the scope's. The payload of another one is dropped, which is the user's code, under no lock.
#[test]
fn the_payload_of_a_second_panic_is_dropped_under_no_lock() {
    guarded(|| {
        let pool = pool(1);
        let (begun, behind) = (Gate::new(), Gate::new());
        let panic = catch_unwind(AssertUnwindSafe(|| {
            pool.scope(|scope| {
                let first = scope.submit(|| -> () { panic!("the first one, as this test wants it") });
                let payload = Waits { begun: begun.clone(), behind: behind.clone() };
                let second = scope.submit(move || -> () { std::panic::panic_any(payload) });
                let third = scope.submit(|| -> () { panic!("the third one, as this test wants it") });
                until(|| third.is_done());
                drop(first);
                std::thread::scope(|threads| {
                    threads.spawn(|| drop(second));
                    begun.pass();
                    drop(third);
                    behind.open();
                });
            });
        }));
        assert_eq!(message(&*panic.unwrap_err()), "the first one, as this test wants it");
    });
}

// A task of the scope drops a handle when the scope's thread, a worker, sleeps at its end already.
#[cfg(target_os = "linux")]
#[test]
fn the_end_of_a_scope_runs_what_is_detached_while_it_waits() {
    guarded(|| {
        let pool = Arc::new(pool(2));
        let inner = Arc::clone(&pool);
        let task = pool.submit(move || {
            let thread = rustix::thread::gettid();
            let (started, ran) = (Gate::new(), Gate::new());
            inner.scope(|scope| {
                let (tx, rx) = std::sync::mpsc::channel();
                let (begun, behind) = (&started, &ran);
                let drops = scope.submit(move || {
                    begun.open();
                    let handle = rx.recv().unwrap();
                    until_asleep(thread);
                    drop(handle);
                    behind.pass();
                });
                started.pass();
                tx.send(scope.submit(|| ran.open())).unwrap();
                // The end of the scope is not to wait for this very task.
                std::mem::forget(drops);
            });
        });
        task.result().unwrap();
    });
}
