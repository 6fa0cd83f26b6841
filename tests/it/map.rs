//! `map`: order, failures, chunks, buffers, time-outs, and maps that are dropped half-way.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use concurrent_futures::{MapOptions, Shutdown, ThreadPoolExecutor};

use crate::support::*;

#[test]
fn map_on_a_shut_down_pool_says_so() {
    guarded(|| {
        let pool = pool(1);
        pool.shutdown(Shutdown::Wait).unwrap();
        let results: Vec<_> = pool.map(|n: u8| n, [1, 2]).collect();
        assert_eq!(results.len(), 2);
        for result in results {
            let error = result.unwrap_err();
            assert!(error.is_shut_down(), "{error:?}");
        }
    });
}

#[test]
fn dropped_half_way() {
    guarded(|| {
        for options in [MapOptions::new(), MapOptions::new().chunk_size(1), MapOptions::new().ordered(false)] {
            let (pool, inputs, results) = (pool(1), Drops::new(), Drops::new());
            let (started, gate) = (Gate::new(), Gate::new());
            let f = {
                let (started, gate, results) = (started.clone(), gate.clone(), results.clone());
                move |(n, _input): (usize, Token)| {
                    if n == 3 {
                        started.open();
                        gate.pass();
                    }
                    results.token()
                }
            };
            let source = inputs.clone();
            let items: Vec<_> = (0..100).map(|n| (n, source.token())).collect();
            let map = pool.map_with(options, f, items).unwrap();
            started.pass();
            drop(map);
            gate.open();
            drop(pool);
            assert_eq!(inputs.count(), 100);
            // Items that were in the hands of the worker may still have run: at most a chunk of them.
            assert!((4..100).contains(&results.count()), "{}", results.count());
        }
    });
}

#[test]
fn a_panicking_input_loses_nothing() {
    guarded(|| {
        for buffer in [None, Some(4)] {
            let (pool, drops) = (pool(2), Drops::new());
            let source = drops.clone();
            let input = (0..100).map(move |n| {
                assert!(n < 20, "the input panics, as this test wants it");
                source.token()
            });
            let options = buffer.map_or(MapOptions::new(), |buffer| MapOptions::new().buffer(buffer));
            let collecting = || pool.map_with(options, drop, input).unwrap().map(Result::unwrap).count();
            let panic = catch_unwind(AssertUnwindSafe(collecting)).unwrap_err();
            assert!(message(&*panic).contains("as this test wants it"));
            // The pool is as good as before.
            assert_eq!(pool.map(|n: u32| n, 0..10).map(Result::unwrap).sum::<u32>(), 45);
            drop(pool);
            assert_eq!(drops.count(), 20);
        }
    });
}

#[test]
fn unordered_yields_each_result_once() {
    guarded(|| {
        let pool = pool(2);
        for chunk in [None, Some(1), Some(7)] {
            for buffer in [None, Some(5)] {
                let mut options = MapOptions::new().ordered(false);
                options = chunk.map_or(options, |chunk| options.chunk_size(chunk));
                options = buffer.map_or(options, |buffer| options.buffer(buffer));
                let mut results: Vec<u32> =
                    pool.map_with(options, |n| n, 0..1000).unwrap().map(Result::unwrap).collect();
                results.sort_unstable();
                assert_eq!(results, (0..1000).collect::<Vec<_>>());
            }
        }
    });
}

#[test]
fn unordered_yields_what_is_ready_before_what_is_not() {
    guarded(|| {
        let pool = pool(2);
        let gate = Gate::new();
        let behind = gate.clone();
        let f = move |n: u32| {
            if n == 0 {
                behind.pass();
            }
            n
        };
        let options = MapOptions::new().ordered(false).chunk_size(1);
        let mut results = pool.map_with(options, f, 0..10).unwrap();
        let ready: Vec<_> = results.by_ref().take(9).map(Result::unwrap).collect();
        assert!(!ready.contains(&0));
        gate.open();
        assert_eq!(results.next().unwrap().unwrap(), 0);
        assert!(results.next().is_none());
    });
}

#[test]
fn ordered_is_ordered_whatever_the_items_take() {
    guarded(|| {
        let pool = pool(3);
        let f = |n: u64| {
            // Some items take a thousand times as long as others.
            (0..(n * 7919) % 1000).fold(n, |sum, step| std::hint::black_box(sum ^ step ^ step))
        };
        let results: Vec<_> = pool.map(f, 0..5000).map(Result::unwrap).collect();
        assert_eq!(results, (0..5000).collect::<Vec<_>>());
    });
}

#[test]
fn nested_maps_on_one_thread() {
    guarded(|| {
        fn tree(pool: &Arc<ThreadPoolExecutor>, depth: u32) -> u32 {
            if depth == 0 {
                return 1;
            }
            let inner = Arc::clone(pool);
            pool.map(move |_| tree(&inner, depth - 1), 0..3).map(Result::unwrap).sum()
        }
        let pool = Arc::new(pool(1));
        let inner = Arc::clone(&pool);
        assert_eq!(pool.submit(move || tree(&inner, 5)).result().unwrap(), 243);
    });
}

#[test]
fn nested_buffered_and_unordered_maps_on_one_thread() {
    guarded(|| {
        let pool = Arc::new(pool(1));
        let inner = Arc::clone(&pool);
        let outer = pool.map(
            move |n: u32| {
                let options = MapOptions::new().buffer(2).ordered(n % 2 == 0);
                inner.map_with(options, |m| m, 0..n).unwrap().map(Result::unwrap).sum::<u32>()
            },
            0..20,
        );
        let expected: Vec<u32> = (0..20).map(|n| (0..n).sum()).collect();
        assert_eq!(outer.map(Result::unwrap).collect::<Vec<_>>(), expected);
    });
}

#[test]
fn items_that_wait_for_each_other_get_a_thread_each() {
    guarded(|| {
        let pool = pool(2);
        let both = std::sync::Barrier::new(2);
        let options = MapOptions::new().chunk_size(1);
        let met = pool.map_with(options, move |_| both.wait().is_leader(), 0..20).unwrap();
        assert_eq!(met.filter(|leads| *leads.as_ref().unwrap()).count(), 10);
    });
}

#[test]
fn a_map_of_a_pool_that_cancels() {
    guarded(|| {
        let pool = Arc::new(pool(1));
        let plug = Plug::new(&pool, 1);
        let mut results = pool.map(|n: u8| n, 0..10);
        let inner = Arc::clone(&pool);
        let ender = std::thread::spawn(move || inner.shutdown(Shutdown::CancelPending));
        // The worker is busy: it is the shutdown that resolves the items.
        assert!(results.next().unwrap().unwrap_err().is_cancelled());
        plug.release();
        ender.join().unwrap().unwrap();
        assert_eq!(results.filter(|result| result.as_ref().unwrap_err().is_cancelled()).count(), 9);
    });
}

#[test]
fn a_buffered_map_outlives_its_pool() {
    guarded(|| {
        let pool = pool(1);
        let mut results = pool.map_with(MapOptions::new().buffer(3), |n: u8| n, 0..10).unwrap();
        drop(pool);
        // What was in flight was run; what was not taken by then is refused, and not lost without a word.
        let (done, refused): (Vec<_>, Vec<_>) = results.by_ref().partition(Result::is_ok);
        assert_eq!((done.len(), refused.len()), (3, 7));
        assert!(refused.iter().all(|result| result.as_ref().unwrap_err().is_shut_down()), "{refused:?}");
        assert!(results.next().is_none());
    });
}

#[test]
fn it_says_how_long_it_is() {
    guarded(|| {
        let pool = pool(2);
        for options in [MapOptions::new(), MapOptions::new().buffer(3)] {
            let mut results = pool.map_with(options, |n: u8| n, 0..10).unwrap();
            for left in (1..=10).rev() {
                assert_eq!((results.len(), results.size_hint()), (left, (left, Some(left))));
                results.next().unwrap().unwrap();
            }
            assert_eq!(results.len(), 0);
            assert!(results.next().is_none() && results.next().is_none());
        }
    });
}

#[test]
fn a_zero_timeout_on_a_busy_pool() {
    guarded(|| {
        let pool = pool(1);
        let plug = Plug::new(&pool, 1);
        let drops = Drops::new();
        let tokens: Vec<_> = (0..10).map(|_| drops.token()).collect();
        let mut results = pool.map_with(MapOptions::new().timeout(Duration::ZERO), drop, tokens).unwrap();
        assert!(results.next().unwrap().unwrap_err().is_timed_out());
        assert_eq!(drops.count(), 10, "what has not started is cancelled");
        assert_eq!((results.size_hint(), results.next().is_none()), ((0, Some(0)), true));
        plug.release();
    });
}
