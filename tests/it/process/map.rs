//! `map` over worker processes: order, chunks, bounds, limits, and what becomes of the rest.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use concurrent_futures::{MapError, MapOptions, ProcessPoolExecutor, Shutdown, Stdio, TaskError};

use super::support::*;
use crate::support::guarded;

fn square(n: u64) -> u64 {
    n * n
}

#[test]
fn map() {
    guarded(|| {
        let pool = pool(2);
        let expected: Vec<u64> = (0..1000).map(square).collect();
        assert_eq!(pool.map(square, 0..1000).map(Result::unwrap).collect::<Vec<_>>(), expected);
        let pairs = (0..10).zip(10..20);
        let sums: Vec<i32> = pool.map(|(a, b): (i32, i32)| a + b, pairs).map(Result::unwrap).collect();
        assert_eq!(sums, (0..10).map(|n| 2 * n + 10).collect::<Vec<_>>());
        assert_eq!(pool.map(square, []).count(), 0);
    });
}

#[test]
fn map_chunksize() {
    guarded(|| {
        let pool = pool(3);
        let expected: Vec<u64> = (0..40).map(square).collect();
        for chunk in [1, 6, 39, 40, 41, 50, usize::MAX] {
            let map = pool.map_with(MapOptions::new().chunk_size(chunk), square, 0..40).unwrap();
            assert_eq!(map.map(Result::unwrap).collect::<Vec<_>>(), expected, "{chunk}");
        }
        let zero = MapOptions::new().chunk_size(0);
        assert_eq!(pool.map_with(zero, square, 0..40).unwrap_err(), MapError::ZeroChunk);
        let zero = MapOptions::new().buffer(0);
        assert_eq!(pool.map_with(zero, square, 0..40).unwrap_err(), MapError::ZeroBuffer);
    });
}

#[test]
fn a_hundred_thousand_items() {
    guarded(|| {
        let sum: u64 = pool(2).map(|n: u64| n, 0..100_000).map(Result::unwrap).sum();
        assert_eq!(sum, 4_999_950_000);
    });
}

#[test]
fn map_exception() {
    guarded(|| {
        let pool = pool(2);
        let picky = |n: u32| {
            assert_ne!(n % 7, 3, "no {n}");
            n
        };
        for chunk in [None, Some(1), Some(3), Some(100)] {
            let options = chunk.map_or(MapOptions::new(), |chunk| MapOptions::new().chunk_size(chunk));
            for (n, result) in pool.map_with(options, picky, 0..30).unwrap().enumerate() {
                match n % 7 {
                    3 => assert!(result.unwrap_err().to_string().contains(&format!("no {n}"))),
                    _ => assert_eq!(result.unwrap() as usize, n),
                }
            }
        }
    });
}

#[test]
fn map_buffersize() {
    guarded(|| {
        let pool = pool(2);
        let expected: Vec<u64> = (0..20).map(square).collect();
        for buffer in [1, 2, 20, 40] {
            let map = pool.map_with(MapOptions::new().buffer(buffer), square, 0..20).unwrap();
            assert_eq!(map.map(Result::unwrap).collect::<Vec<_>>(), expected, "{buffer}");
        }
    });
}

#[test]
fn map_buffersize_on_infinite_iterable() {
    guarded(|| {
        let pool = pool(2);
        let map = pool.map_with(MapOptions::new().buffer(4), square, 0..).unwrap();
        assert_eq!(map.take(50).map(Result::unwrap).collect::<Vec<_>>(), (0..50).map(square).collect::<Vec<_>>());
        pool.shutdown(Shutdown::Wait).unwrap();
    });
}

#[test]
fn map_buffersize_when_buffer_is_full() {
    guarded(|| {
        let pool = pool(2);
        let taken = std::cell::Cell::new(0);
        let input = (0..100u64).inspect(|_| taken.set(taken.get() + 1));
        let mut map = pool.map_with(MapOptions::new().buffer(5), square, input).unwrap();
        assert_eq!(taken.get(), 5);
        assert_eq!(map.next().unwrap().unwrap(), 0);
        assert!(taken.get() <= 6, "{}", taken.get());
    });
}

#[test]
fn map_submits_without_iteration() {
    guarded(|| {
        let folder = Folder::new();
        let (pool, ledger) = (pool(2), folder.ledger("ledger"));
        let items = (0..10).map(|n| (ledger.clone(), n));
        let map = pool.map(|(ledger, n): (Ledger, u32)| ledger.write(n), items);
        pool.shutdown(Shutdown::Wait).unwrap();
        assert_eq!(ledger.lines().len(), 10);
        assert_eq!(map.filter(Result::is_ok).count(), 10);
    });
}

#[test]
fn dropped_half_way_the_rest_does_not_begin() {
    guarded(|| {
        let folder = Folder::new();
        let (pool, ledger) = (pool(1), folder.ledger("ledger"));
        let plug = Plug::new(&pool);
        let items = (0..100).map(|n| (ledger.clone(), n));
        let map = pool.map_with(MapOptions::new().chunk_size(1), |(ledger, n): (Ledger, u32)| ledger.write(n), items);
        drop(map.unwrap());
        plug.release();
        assert_eq!(pool.submit(square, 3).result().unwrap(), 9);
        pool.shutdown(Shutdown::Wait).unwrap();
        assert_eq!(ledger.lines(), [""; 0]);
    });
}

#[test]
fn map_timeout() {
    guarded(|| {
        let folder = Folder::new();
        let (pool, never) = (pool(1), folder.sign("never"));
        let task = |(n, sign): (u32, Sign)| {
            if n == 1 {
                sign.wait();
            }
            n
        };
        let first = pool.submit(|_: ()| (), ());
        first.result().unwrap();
        let options = MapOptions::new().chunk_size(1).timeout(Duration::from_millis(300));
        let map = pool.map_with(options, task, (0..4).map(|n| (n, never.clone()))).unwrap();
        let results: Vec<_> = map.collect();
        never.give();
        assert_eq!(results.len(), 2, "the map ends with its time");
        assert!(results[0].is_ok() && results[1].as_ref().is_err_and(|error| error.is_timed_out()));
        pool.shutdown(Shutdown::Wait).unwrap();
    });
}

#[test]
fn unordered_yields_each_result_once() {
    guarded(|| {
        let pool = pool(2);
        for options in [MapOptions::new(), MapOptions::new().chunk_size(7), MapOptions::new().buffer(5)] {
            let map = pool.map_with(options.ordered(false), |n: u32| n, 0..500).unwrap();
            let seen: HashSet<u32> = map.map(Result::unwrap).collect();
            assert_eq!(seen.len(), 500);
        }
    });
}

#[test]
fn unordered_yields_what_is_ready_before_what_is_not() {
    guarded(|| {
        let folder = Folder::new();
        let (pool, sign) = (pool(2), folder.sign("sign"));
        let task = |(n, sign): (u32, Sign)| {
            if n == 0 {
                sign.wait();
            }
            n
        };
        let options = MapOptions::new().chunk_size(1).ordered(false);
        let mut map = pool.map_with(options, task, (0..5).map(|n| (n, sign.clone()))).unwrap();
        let mut first: Vec<u32> = map.by_ref().take(4).map(Result::unwrap).collect();
        first.sort_unstable();
        assert_eq!(first, [1, 2, 3, 4]);
        sign.give();
        assert_eq!(map.next().unwrap().unwrap(), 0);
        assert!(map.next().is_none());
    });
}

#[test]
fn the_input_panics_half_way() {
    guarded(|| {
        let pool = pool(2);
        let input = (0..100u64).inspect(|n| assert_ne!(*n, 50, "the input panics, as this test wants it"));
        assert!(catch_unwind(AssertUnwindSafe(|| pool.map(square, input).count())).is_err());
        assert_eq!(pool.map(square, 0..10).map(Result::unwrap).sum::<u64>(), 285);
        pool.shutdown(Shutdown::Wait).unwrap();
    });
}

#[test]
fn after_the_shutdown_every_item_says_so() {
    guarded(|| {
        let pool = pool(1);
        pool.shutdown(Shutdown::Wait).unwrap();
        let results: Vec<_> = pool.map(square, 0..10).collect();
        assert_eq!(results.len(), 10);
        assert!(results.into_iter().all(|result| result.unwrap_err().is_shut_down()));
    });
}

// A bounded map that outlives its pool: as many results as inputs, or an error each, and no hang.
#[test]
fn the_pool_is_shut_down_while_a_bounded_map_goes_on() {
    guarded(|| {
        for how in [Shutdown::NoWait, Shutdown::CancelPending] {
            let pool = pool(2);
            let mut map = pool.map_with(MapOptions::new().buffer(4).chunk_size(1), square, 0..100).unwrap();
            assert_eq!(map.next().unwrap().unwrap(), 0);
            pool.shutdown(how).unwrap();
            assert_eq!(map.count(), 99, "{how:?}");
        }
    });
}

#[test]
fn cancelling_ends_a_map() {
    guarded(|| {
        let pool = pool(1);
        let plug = Plug::new(&pool);
        let map = pool.map(square, 0..1000);
        std::thread::scope(|scope| {
            let shutdown = scope.spawn(|| pool.shutdown(Shutdown::CancelPending));
            assert!(map.into_iter().all(|result| result.is_err_and(|error| error.is_cancelled())));
            plug.release();
            shutdown.join().unwrap().unwrap();
        });
    });
}

#[test]
fn large_items() {
    guarded(|| {
        let pool = pool(2);
        let items = (0..20).map(|n| vec![n as u8; 1_000_000]);
        for (n, result) in pool.map(|bytes: Vec<u8>| bytes, items).enumerate() {
            let bytes = result.unwrap();
            assert!(bytes.len() == 1_000_000 && bytes.iter().all(|byte| usize::from(*byte) == n));
        }
    });
}

/// Writes the item down; 7 hangs.
fn hang_at_seven((ledger, n): (Ledger, u32)) -> u32 {
    ledger.write(n);
    if n == 7 {
        loop {
            std::thread::park();
        }
    }
    n
}

#[test]
fn a_time_limit_of_the_pool_is_for_each_item() {
    guarded(|| {
        let folder = Folder::new();
        let ledger = folder.ledger("begun");
        let builder = ProcessPoolExecutor::builder().max_workers(2).stdio(Stdio::Null);
        let pool = builder.task_timeout(Duration::from_millis(100)).build().unwrap();
        for options in [MapOptions::new(), MapOptions::new().chunk_size(10), MapOptions::new().ordered(false)] {
            let before = ledger.lines().len();
            let items = (0..20).map(|n| (ledger.clone(), n));
            let results: Vec<_> = pool.map_with(options, hang_at_seven, items).unwrap().collect();
            let (late, done): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_err);
            assert!(late.len() == 1 && late[0].as_ref().unwrap_err().is_timed_out(), "{late:?}");
            assert_eq!(done.into_iter().map(Result::unwrap).sum::<u32>(), 190 - 7);
            assert_eq!(ledger.lines().len() - before, 20, "each has begun once");
        }
    });
}

#[test]
fn retries_of_the_pool_are_for_each_item() {
    guarded(|| {
        let folder = Folder::new();
        let ledger = folder.ledger("begun");
        let builder = ProcessPoolExecutor::builder().max_workers(2).stdio(Stdio::Null);
        let pool = builder.retries(1).build().unwrap();
        let die_once = |(ledger, n): (Ledger, u32)| {
            ledger.write(n);
            let times = ledger.lines().iter().filter(|line| **line == n.to_string()).count();
            if n == 7 && times == 1 || n == 8 {
                std::process::abort();
            }
            n
        };
        let options = MapOptions::new().chunk_size(10);
        let results: Vec<_> = pool.map_with(options, die_once, (0..20).map(|n| (ledger.clone(), n))).unwrap().collect();
        for (n, result) in results.into_iter().enumerate() {
            match result {
                Ok(value) => assert_eq!(value as usize, n),
                Err(TaskError::WorkerDied(exit)) => assert_eq!((n, exit.attempts()), (8, 2)),
                Err(other) => panic!("{n}: {other}"),
            }
        }
        assert_eq!(ledger.lines().len(), 22);
    });
}

#[test]
fn a_map_that_ends_early_ends_the_items_that_run() {
    guarded(|| {
        let folder = Folder::new();
        let ledger = folder.ledger("begun");
        let pool = pool(1);
        let hang = |n| [(ledger.clone(), n)];
        // Dropped ...
        let map = pool.map(hang_at_seven, hang(7));
        poll(|| ledger.lines().len() == 1);
        drop(map);
        assert_eq!(pool.submit(hang_at_seven, hang(1)[0].clone()).result().unwrap(), 1);
        // ... or over its time.
        let mut map =
            pool.map_with(MapOptions::new().timeout(Duration::from_millis(50)), hang_at_seven, hang(7)).unwrap();
        assert!(map.next().unwrap().unwrap_err().is_timed_out());
        assert!(map.next().is_none());
        assert_eq!(pool.submit(hang_at_seven, hang(2)[0].clone()).result().unwrap(), 2);
        drop(map);
        // Also the pool can end.
        let map = pool.map(hang_at_seven, hang(7));
        poll(|| ledger.lines().iter().filter(|line| *line == "7").count() == 3);
        drop(map);
        drop(pool);
    });
}
