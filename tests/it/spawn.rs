//! Futures on the pool: polled when they are woken, and only then.

use std::future::{Future, pending, poll_fn};

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;

use concurrent_futures::promise;

use crate::support::*;

/// A future that a test holds by strings: it is pending until it is told to be ready, and counts its polls.
#[derive(Clone, Default)]
pub(crate) struct Puppet(Arc<Strings>);

#[derive(Default)]
struct Strings {
    polls: AtomicUsize,
    ready: Mutex<bool>,
    waker: Mutex<Option<Waker>>,
}

impl Puppet {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// What the pool is to poll. It owns the token until it is dropped.
    pub(crate) fn future(&self, token: Token) -> impl Future<Output = usize> + Send + 'static {
        let strings = Arc::clone(&self.0);
        poll_fn(move |context| {
            token.touch();
            let mut waker = strings.waker.lock().unwrap();
            let polls = strings.polls.fetch_add(1, SeqCst) + 1;
            if *strings.ready.lock().unwrap() {
                return Poll::Ready(polls);
            }
            *waker = Some(context.waker().clone());
            Poll::Pending
        })
    }

    pub(crate) fn polls(&self) -> usize {
        self.0.polls.load(SeqCst)
    }

    /// The waker of the last poll, which keeps its own.
    pub(crate) fn waker(&self) -> Waker {
        until(|| self.0.waker.lock().unwrap().is_some());
        self.0.waker.lock().unwrap().clone().unwrap()
    }

    /// Takes the waker of the last poll away.
    pub(crate) fn take_waker(&self) -> Waker {
        until(|| self.0.waker.lock().unwrap().is_some());
        self.0.waker.lock().unwrap().take().unwrap()
    }

    pub(crate) fn finish(&self) {
        *self.0.ready.lock().unwrap() = true;
        self.take_waker().wake();
    }
}

/// Pending once, and woken at once.
pub(crate) async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| match std::mem::replace(&mut yielded, true) {
        true => Poll::Ready(()),
        false => {
            context.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}

#[test]
fn ready_at_the_first_poll() {
    guarded(|| {
        let pool = pool(2);
        assert_eq!(pool.spawn(async { 42 }).result().unwrap(), 42);
        let futures: Vec<_> = (0..1000).map(|n| pool.spawn(async move { n })).collect();
        for (n, future) in futures.into_iter().enumerate() {
            assert_eq!(future.result().unwrap(), n);
        }
    });
}

#[test]
fn woken_from_another_thread() {
    guarded(|| {
        let pool = pool(1);
        let (puppet, drops) = (Puppet::new(), Drops::new());
        let future = pool.spawn(puppet.future(drops.token()));
        puppet.waker();
        assert!(future.is_running() && !future.is_done());
        let other = puppet.clone();
        thread::spawn(move || other.finish()).join().unwrap();
        assert_eq!(future.result().unwrap(), 2);
        assert_eq!((puppet.polls(), drops.count()), (2, 1));
    });
}

#[test]
fn awaiting_tasks_promises_and_each_other() {
    guarded(|| {
        let pool = Arc::new(pool(1));
        let (promise, told) = promise::<u32>();
        let inner = Arc::clone(&pool);
        let future = pool.spawn(async move {
            let task = inner.submit(|| 1);
            let other = inner.spawn(async { 2 });
            told.await.unwrap() + task.await.unwrap() + other.await.unwrap()
        });
        promise.set_result(10).unwrap();
        assert_eq!(future.result().unwrap(), 13);
    });
}

#[test]
fn a_panic_in_a_poll_is_the_tasks() {
    guarded(|| {
        let pool = pool(1);
        let drops = Drops::new();
        let token = drops.token();
        let future = pool.spawn(async move {
            yield_now().await;
            token.touch();
            panic!("as this test wants it");
        });
        let error: concurrent_futures::TaskError = future.result().map(|(): ()| ()).unwrap_err();
        assert!(error.is_panicked());
        assert!(error.to_string().contains("as this test wants it"));
        assert_eq!(drops.count(), 1);
        assert_eq!(pool.spawn(async { 1 }).result().unwrap(), 1);
        assert_eq!(pool.stats().workers, 1);
    });
}

#[test]
fn cancelled_while_suspended_it_is_dropped_at_once_and_here() {
    guarded(|| {
        struct WhereDropped(Arc<Mutex<Option<thread::ThreadId>>>);
        impl Drop for WhereDropped {
            fn drop(&mut self) {
                *self.0.lock().unwrap() = Some(thread::current().id());
            }
        }
        let pool = pool(1);
        let place = Arc::new(Mutex::new(None));
        let (guard, (promise, never)) = (WhereDropped(Arc::clone(&place)), promise::<()>());
        let suspended = Gate::new();
        let begun = suspended.clone();
        let future = pool.spawn(async move {
            let _guard = guard;
            begun.open();
            never.await
        });
        suspended.pass();
        assert!(future.cancel());
        until(|| future.is_done());
        assert!(future.is_cancelled() && !future.is_running());
        assert!(place.lock().unwrap().is_some());
        assert!(future.result().unwrap_err().is_cancelled());
        drop(promise);
    });
}

#[test]
fn nobody_can_wake_it() {
    guarded(|| {
        let pool = pool(1);
        // It keeps no waker: known at once.
        assert!(pool.spawn(pending::<()>()).result().unwrap_err().is_abandoned());
        // Its waker is dropped later.
        let (puppet, drops) = (Puppet::new(), Drops::new());
        let future = pool.spawn(puppet.future(drops.token()));
        let (one, two) = (puppet.waker(), puppet.take_waker());
        drop(one);
        assert!(!future.is_done());
        drop(two);
        assert!(future.result().unwrap_err().is_abandoned());
        assert_eq!((drops.count(), puppet.polls()), (1, 1));
    });
}
