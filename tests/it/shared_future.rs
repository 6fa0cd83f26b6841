//! Futures with many readers.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use concurrent_futures::promise;

use crate::support::*;

#[test]
fn every_reader_sees_the_one_result() {
    guarded(|| {
        let pool = pool(1);
        for _ in 0..50 {
            let plug = Plug::new(&pool, 1);
            let future = pool.submit(|| String::from("one")).shared();
            let start = Arc::new(Barrier::new(5));
            let readers: Vec<_> = (0..4)
                .map(|n| {
                    let (future, start) = (future.clone(), Arc::clone(&start));
                    thread::spawn(move || {
                        start.wait();
                        match n % 2 {
                            0 => std::ptr::from_ref(future.get().unwrap()).addr(),
                            _ => {
                                assert_eq!(future.result().unwrap(), "one");
                                std::ptr::from_ref(future.peek().unwrap().unwrap()).addr()
                            }
                        }
                    })
                })
                .collect();
            start.wait();
            plug.release();
            let own = std::ptr::from_ref(future.get().unwrap()).addr();
            assert!(readers.into_iter().all(|reader| reader.join().unwrap() == own));
        }
    });
}

#[test]
fn errors_are_for_all() {
    let (promise, future) = promise::<u32>();
    let one = future.shared();
    let two = one.clone();
    promise.set_error("failed").unwrap();
    for future in [one, two] {
        assert_eq!(future.result().unwrap_err().to_string(), "the task failed: failed");
        assert_eq!(future.get().unwrap_err().to_string(), "the task failed: failed");
        assert!(future.peek().unwrap().is_err());
    }
}

#[test]
fn time_outs_leave_it_as_it_was() {
    guarded(|| {
        let (promise, future) = promise();
        let future = future.shared();
        let readers: Vec<_> = (0..3)
            .map(|_| {
                let future = future.clone();
                thread::spawn(move || {
                    let mut timeouts = 0;
                    loop {
                        match future.get_timeout(Duration::from_micros(20)) {
                            Some(value) => return (timeouts, *value.unwrap()),
                            None => timeouts += 1,
                        }
                    }
                })
            })
            .collect();
        assert!(future.get_timeout(Duration::ZERO).is_none());
        promise.set_result(3).unwrap();
        assert!(readers.into_iter().all(|reader| reader.join().unwrap().1 == 3));
        assert_eq!(*future.get_timeout(Duration::ZERO).unwrap().unwrap(), 3);
        assert_eq!(*future.get_timeout(Duration::MAX).unwrap().unwrap(), 3);
    });
}

#[test]
fn the_result_is_dropped_once_with_the_last_clone() {
    guarded(|| {
        let (pool, drops) = (pool(1), Drops::new());
        let token = drops.token();
        let one = pool.submit(move || token).shared();
        let two = one.clone();
        one.get().unwrap();
        drop(one);
        assert_eq!(drops.count(), 0);
        two.get().unwrap();
        drop(two);
        // Who has woken the reader may hold the result a moment longer.
        drop(pool);
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn dropped_before_it_is_done() {
    guarded(|| {
        let (pool, drops) = (pool(1), Drops::new());
        let plug = Plug::new(&pool, 1);
        let token = drops.token();
        let future = pool.submit(move || token).shared();
        drop((future.clone(), future));
        assert_eq!(drops.count(), 0, "dropping detaches");
        plug.release();
        drop(pool);
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn a_task_may_wait_for_a_queued_one_through_a_clone() {
    guarded(|| {
        let pool = Arc::new(pool(1));
        let inner = Arc::clone(&pool);
        let outer = pool.submit(move || {
            let future = inner.submit(|| 8).shared();
            let clone = future.clone();
            (clone.result().unwrap(), *future.get().unwrap())
        });
        assert_eq!(outer.result().unwrap(), (8, 8));
    });
}

#[test]
fn clones_of_a_done_future() {
    guarded(|| {
        let pool = pool(1);
        let future = pool.submit(|| 1);
        until(|| future.is_done());
        let future = future.shared();
        assert_eq!((future.clone().result().unwrap(), future.id()), (1, future.clone().id()));
        let calls = Counter::new();
        for _ in 0..3 {
            let calls = Arc::clone(&calls);
            future.add_done_callback(move |outcome| {
                assert_eq!(*outcome.unwrap(), 1);
                calls.add();
            });
        }
        assert_eq!(calls.get(), 3);
    });
}
