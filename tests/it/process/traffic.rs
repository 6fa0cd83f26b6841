//! Replies come thick and fast, and nobody waits for them: what else there is to do is done all the same.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::thread::{self, JoinHandle};

use concurrent_futures::ProcessPoolExecutor;

use super::support::*;
use crate::support::guarded;

/// Some thousands of tiny tasks, at all times until it is dropped.
struct Traffic {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Traffic {
    /// Returns when it is flowing.
    fn on(pool: &Arc<ProcessPoolExecutor>) -> Self {
        let (pool, is_over) = (Arc::clone(pool), Arc::new(AtomicBool::new(false)));
        let completed = pool.stats().completed;
        let (from, until) = (Arc::clone(&pool), Arc::clone(&is_over));
        let keep_full = move || {
            while !until.load(Relaxed) {
                match from.stats().queued < 10_000 {
                    true => (0..1000u32).for_each(|n| from.submit(|n: u32| n, n).detach()),
                    false => thread::yield_now(),
                }
            }
        };
        let thread = Some(thread::spawn(keep_full));
        poll(|| pool.stats().completed > completed + 10_000);
        Self { is_over, thread }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

#[test]
fn a_death_is_noticed() {
    guarded(|| {
        let pool = Arc::new(pool(4));
        let mut plug = Plug::new(&pool);
        let (tx, rx) = mpsc::channel();
        plug.take().add_done_callback(move |result| tx.send(result.is_err()).unwrap());
        let traffic = Traffic::on(&pool);
        signal(plug.pid, rustix::process::Signal::KILL);
        assert!(rx.recv().unwrap());
        drop(traffic);
    });
}

#[test]
fn a_poll_that_finds_nothing_returns() {
    guarded(|| {
        let pool = Arc::new(pool(4));
        let mut plug = Plug::new(&pool);
        let traffic = Traffic::on(&pool);
        let mut future = pin!(plug.take());
        let polled = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Pending));
        drop(traffic);
        drop(plug);
        concurrent_futures::block_on(future).unwrap();
    });
}
