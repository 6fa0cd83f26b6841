//! Long arguments and results.

use concurrent_futures::as_completed;
use rustix::process::Signal;

use super::support::*;
use crate::support::guarded;

fn same(bytes: Vec<u8>) -> Vec<u8> {
    bytes
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n ^ n >> 8 ^ n >> 16) as u8).collect()
}

// procspawn blocks for ever at 10 MiB.
#[test]
fn a_long_argument_for_a_busy_worker_does_not_block() {
    guarded(|| {
        let pool = pool(1);
        let plug = Plug::new(&pool);
        let futures: Vec<_> =
            [10, 64].map(|megabytes| pool.submit(|bytes: Vec<u8>| bytes.len(), vec![7; megabytes << 20])).into();
        // All of this happens while the worker is busy.
        assert!(futures.iter().all(|future| !future.is_done()));
        plug.release();
        let lengths: Vec<usize> = futures.into_iter().map(|future| future.result().unwrap()).collect();
        assert_eq!(lengths, [10 << 20, 64 << 20]);
    });
}

#[test]
fn an_echo_of_a_hundred_megabytes() {
    guarded(|| {
        let bytes = pattern(100 << 20);
        let result = pool(1).submit(same, bytes.clone()).result().unwrap();
        assert!(result == bytes);
    });
}

#[test]
fn long_results_that_nobody_waits_for_at_first() {
    guarded(|| {
        let pool = pool(2);
        let futures: Vec<_> = (1..9).map(|n| pool.submit(|n: usize| vec![n as u8; n * 700_001], n)).collect();
        poll(|| futures.iter().all(|future| future.is_done()));
        for (n, future) in futures.into_iter().enumerate() {
            let bytes = future.result().unwrap();
            assert!(bytes.len() == (n + 1) * 700_001 && bytes.iter().all(|byte| usize::from(*byte) == n + 1));
        }
    });
}

// Every length from one side to the other of the sizes of rings and pages, odd ones, and with what follows at once.
#[test]
fn odd_lengths_in_a_row() {
    guarded(|| {
        let pool = pool(2);
        let lengths = (0..40).flat_map(|n| [65_530 + n, 262_130 + n, 300_000 + 16_383 * n]);
        let futures = lengths.map(|length| (length, pool.submit(same, pattern(length))));
        for (length, future) in as_completed(futures) {
            assert!(future.result().unwrap() == pattern(length), "{length}");
        }
    });
}

#[test]
fn short_tasks_beside_long_ones() {
    guarded(|| {
        let pool = pool(2);
        let long: Vec<_> = (0..4).map(|_| pool.submit(same, vec![1; 8 << 20])).collect();
        let short: Vec<_> = (0..500u64).map(|n| pool.submit(|n: u64| n, n)).collect();
        for (n, future) in short.into_iter().enumerate() {
            assert_eq!(future.result().unwrap(), n as u64);
        }
        long.into_iter().for_each(|future| assert_eq!(future.result().unwrap().len(), 8 << 20));
    });
}

// Python's pools hung when a worker died while a long argument was being written to it.
#[test]
fn crash_big_data() {
    use serde::{Deserialize, Serialize};
    #[derive(Serialize)]
    struct DeadlyAtDecode(Vec<u8>);
    impl<'de> Deserialize<'de> for DeadlyAtDecode {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            std::process::abort()
        }
    }
    guarded(|| {
        let pool = pool(2);
        let futures: Vec<_> =
            (0..6).map(|_| pool.submit(|_: DeadlyAtDecode| (), DeadlyAtDecode(vec![1; 8 << 20]))).collect();
        for future in futures {
            assert_eq!(exit_of(future.result()).signal_name(), Some("SIGABRT"));
        }
        assert_eq!(pool.submit(|n: u8| n, 1).result().unwrap(), 1);
    });
}

#[test]
fn killed_while_an_argument_is_being_written() {
    if !shares_memory() {
        return;
    }
    guarded(|| {
        let pool = pool(1);
        for _ in 0..5 {
            let worker = pool.submit(|_: ()| std::process::id(), ()).result().unwrap();
            signal(worker, Signal::STOP);
            poll(|| process_state(worker) == Some('T'));
            // No more of it than fits into the ring can be written.
            let future = pool.submit(same, vec![1; 16 << 20]);
            let after = pool.submit(|n: u8| n, 5);
            signal(worker, Signal::KILL);
            // It had not begun, so another worker does it.
            assert_eq!(future.result().unwrap().len(), 16 << 20);
            assert_eq!(after.result().unwrap(), 5);
        }
    });
}

#[test]
fn killed_while_a_result_is_being_read() {
    guarded(|| {
        let folder = Folder::new();
        let pool = pool(1);
        let deadly = |sign: Sign| {
            sign.give();
            let parent = std::process::id();
            std::thread::spawn(move || signal(parent, Signal::KILL));
            vec![1u8; 200 << 20]
        };
        for n in 0..5 {
            let sign = folder.sign(n);
            let outcome = pool.submit(deadly, sign.clone()).result();
            assert!(sign.is_given());
            match outcome {
                Ok(bytes) => assert_eq!(bytes.len(), 200 << 20),
                error => assert_eq!(exit_of(error.map(drop)).signal_name(), Some("SIGKILL")),
            }
        }
        pool.submit(|_: ()| (), ()).result().unwrap();
    });
}

// The reply of a worker that has been stopped half-way comes when it goes on.
#[test]
fn stopped_in_the_middle() {
    guarded(|| {
        let pool = pool(1);
        let worker = pool.submit(|_: ()| std::process::id(), ()).result().unwrap();
        signal(worker, Signal::STOP);
        poll(|| process_state(worker) == Some('T'));
        let future = pool.submit(same, pattern(5 << 20));
        let future = future.result_timeout(std::time::Duration::from_millis(20)).unwrap_err();
        signal(worker, Signal::CONT);
        assert!(future.result().unwrap() == pattern(5 << 20));
    });
}
