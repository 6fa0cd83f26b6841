//! Models of the future core: loom runs each of them under every interleaving that the memory model allows.
//! `ci/loom.sh` runs them.

mod futures;
mod tasks;

#[cfg(feature = "process")]
pub(crate) use tasks::Strict;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use loom::sync::Notify;
use loom::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use super::Task;

/// Counts its drops.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// A waker that a loom thread can wait for, and that counts its wake-ups.
pub(crate) struct Alarm {
    pub(crate) notify: Notify,
    pub(crate) wakes: AtomicUsize,
}

impl Alarm {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { notify: Notify::new(), wakes: AtomicUsize::new(0) })
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(1, SeqCst);
        self.notify.notify();
    }
}

pub(crate) fn poll<F: Future + Unpin>(future: &mut F, alarm: &Arc<Alarm>) -> Poll<F::Output> {
    let waker = Waker::from(Arc::clone(alarm));
    Pin::new(future).poll(&mut Context::from_waker(&waker))
}

fn run(task: Task) {
    task.run(&|_| ());
}
