//! `join` of two closures.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier};

use concurrent_futures::{Shutdown, ThreadPoolExecutor};
use parking_lot::Mutex;

use crate::support::*;

fn fib(pool: &ThreadPoolExecutor, n: u64) -> u64 {
    if n < 2 {
        return n;
    }
    let (a, b) = pool.join(|| fib(pool, n - 1), || fib(pool, n - 2));
    a + b
}

#[test]
fn divide_and_conquer() {
    guarded(|| {
        for workers in 1..4 {
            let pool = pool(workers);
            for _ in 0..5 {
                assert_eq!(fib(&pool, 16), 987);
            }
        }
    });
}

#[test]
fn both_at_the_same_time() {
    guarded(|| {
        let (pool, both) = (pool(2), Barrier::new(2));
        for _ in 0..200 {
            let (a, b) = pool.join(|| both.wait().is_leader(), || both.wait().is_leader());
            assert_ne!(a, b);
        }
    });
}

#[test]
fn one_after_the_other_on_one_thread() {
    guarded(|| {
        let (pool, order) = (pool(1), Mutex::new(Vec::new()));
        pool.join(|| order.lock().push('a'), || order.lock().push('b'));
        assert_eq!(*order.lock(), ['a', 'b']);
    });
}

#[test]
fn panics() {
    guarded(|| {
        for workers in 1..3 {
            let (pool, ran) = (pool(workers), AtomicUsize::new(0));
            let count = || ran.fetch_add(1, SeqCst);
            let fail = |text: &'static str| move || -> usize { panic!("{text}, as this test wants it") };
            let first = catch_unwind(AssertUnwindSafe(|| pool.join(fail("first"), count))).unwrap_err();
            assert!(message(&*first).starts_with("first"));
            let second = catch_unwind(AssertUnwindSafe(|| pool.join(count, fail("second")))).unwrap_err();
            assert!(message(&*second).starts_with("second"));
            let both = catch_unwind(AssertUnwindSafe(|| pool.join(fail("first"), fail("second")))).unwrap_err();
            assert!(message(&*both).starts_with("first"));
            assert_eq!(ran.load(SeqCst), 2);
            assert_eq!(pool.join(|| 1, || 2), (1, 2));
        }
    });
}

#[test]
fn both_run_although_the_first_panics() {
    guarded(|| {
        for workers in [1, 2, 4] {
            let (pool, ran) = (Arc::new(pool(workers)), AtomicUsize::new(0));
            let count = || ran.fetch_add(1, SeqCst);
            // From outside, and on a worker.
            for _ in 0..20 {
                let joined = || pool.join(|| panic!("as this test wants it"), count);
                assert!(catch_unwind(AssertUnwindSafe(joined)).is_err());
            }
            let nested = || pool.join(|| pool.join(|| panic!("as this test wants it"), count), count);
            assert!(catch_unwind(AssertUnwindSafe(nested)).is_err());
            assert_eq!(ran.load(SeqCst), 22);
        }
    });
}

/// The second closure is run by a thief here, for the first one waits for it.
#[test]
fn both_run_although_the_first_panics_and_the_second_was_stolen() {
    guarded(|| {
        let (pool, began) = (pool(2), Gate::new());
        let first = || {
            began.pass();
            panic!("first, as this test wants it")
        };
        let joined = || -> ((), Token) {
            pool.join(first, || {
                began.open();
                Drops::new().token()
            })
        };
        let panic = catch_unwind(AssertUnwindSafe(joined)).unwrap_err();
        assert!(message(&*panic).starts_with("first"));
    });
}

/// Panics when it is dropped, also while its thread unwinds.
struct Explosive;

impl Drop for Explosive {
    fn drop(&mut self) {
        std::panic::resume_unwind(Box::new("a destructor panics, as this test wants it"));
    }
}

/// A panic out of a destructor that runs during unwinding would abort the process, so this runs in a child.
#[test]
fn a_panic_goes_on_although_what_the_other_closure_left_panics_when_dropped() {
    if is_child() {
        return guarded(|| {
            for workers in [1, 2] {
                let pool = pool(workers);
                let fail = |text: &'static str| panic!("{text}, as this test wants it");
                let explode = || std::panic::resume_unwind(Box::new(Explosive));
                let caught = |joined: &dyn Fn()| {
                    let panic = catch_unwind(AssertUnwindSafe(joined)).unwrap_err();
                    let first = message(&*panic);
                    // A payload of this kind must not be dropped here either.
                    if panic.is::<Explosive>() {
                        std::mem::forget(panic)
                    }
                    first
                };
                // What is left: a result or a payload, of the second closure or of the first.
                assert!(caught(&|| drop(pool.join(|| -> () { fail("first") }, || Explosive))).starts_with("first"));
                assert!(caught(&|| ((), ()) = pool.join(|| fail("first"), explode)).starts_with("first"));
                assert!(caught(&|| drop(pool.join(|| Explosive, || -> () { fail("second") }))).starts_with("second"));
                assert_eq!(caught(&|| ((), ()) = pool.join(explode, explode)), "no text");
                assert_eq!(pool.join(|| 1, || 2), (1, 2));
            }
        });
    }
    let output = in_child("join::a_panic_goes_on_although_what_the_other_closure_left_panics_when_dropped");
    assert!(output.status.success(), "{}", printed(&output));
}

#[test]
fn borrowed_data_outlives_both() {
    guarded(|| {
        let pool = pool(2);
        for _ in 0..500 {
            let mut halves = ([0u32; 8], [0u32; 8]);
            let (left, right) = (&mut halves.0, &mut halves.1);
            let failing = AssertUnwindSafe(|| {
                pool.join(
                    || {
                        left.fill(1);
                        std::panic::resume_unwind(Box::new(()));
                    },
                    || right.fill(2),
                )
            });
            assert!(catch_unwind(failing).is_err());
            // Both have run and ended: nothing writes here any more.
            assert_eq!(halves, ([1; 8], [2; 8]));
        }
    });
}

#[test]
fn of_a_closed_pool() {
    guarded(|| {
        let pool = pool(1);
        pool.shutdown(Shutdown::Wait).unwrap();
        let ran = AtomicUsize::new(0);
        let count = || ran.fetch_add(1, SeqCst);
        let panic = catch_unwind(AssertUnwindSafe(|| pool.join(count, count))).unwrap_err();
        assert!(message(&*panic).contains("shut down"), "{}", message(&*panic));
        assert_eq!(ran.load(SeqCst), 0);
    });
}

#[test]
fn beside_ordinary_tasks() {
    guarded(|| {
        let pool = Arc::new(pool(2));
        let futures: Vec<_> = (0..20)
            .map(|n| {
                let inner = Arc::clone(&pool);
                pool.submit(move || {
                    let future = inner.submit(move || n);
                    let (a, b) = inner.join(|| fib(&inner, 8), || fib(&inner, 7));
                    a + b + future.result().unwrap()
                })
            })
            .collect();
        let sum: u64 = futures.into_iter().map(|future| future.result().unwrap()).sum();
        assert_eq!(sum, 20 * 34 + 190);
    });
}

#[test]
fn across_two_pools() {
    guarded(|| {
        let (one, two) = (pool(1), pool(1));
        let (a, (b, c)) = one.join(|| 1, || two.join(|| 2, || one.submit(|| 3)));
        assert_eq!((a, b, c.result().unwrap()), (1, 2, 3));
    });
}
