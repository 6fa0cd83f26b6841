//! High before normal before low, and first in, first out within each.

use std::sync::Arc;

use concurrent_futures::{Priority, Shutdown};
use parking_lot::Mutex;

use crate::support::*;

#[test]
fn high_normal_low() {
    guarded(|| {
        let pool = pool(1);
        let plug = Plug::new(&pool, 1);
        let log = Arc::new(Mutex::new(Vec::new()));
        let order = [Priority::Low, Priority::Normal, Priority::High];
        let futures: Vec<_> = (0..300)
            .map(|n| {
                let (log, priority) = (Arc::clone(&log), order[n % 3]);
                pool.task(move || log.lock().push((priority, n))).priority(priority).submit()
            })
            .collect();
        plug.release();
        futures.into_iter().for_each(|future| future.result().unwrap());
        let log = log.lock();
        let mut expected: Vec<_> = (0..300).map(|n| (order[n % 3], n)).collect();
        expected.sort_by_key(|(priority, n)| (std::cmp::Reverse(*priority), *n));
        assert_eq!(*log, expected);
    });
}

#[test]
fn a_map_lets_urgent_tasks_through() {
    guarded(|| {
        let pool = pool(1);
        let (started, gate) = (Gate::new(), Gate::new());
        let last = Arc::new(Mutex::new(0));
        let f = {
            let (started, gate, last) = (started.clone(), gate.clone(), Arc::clone(&last));
            move |n: u32| {
                if n == 0 {
                    started.open();
                    gate.pass();
                }
                *last.lock() = n;
            }
        };
        let map = pool.map_with(concurrent_futures::MapOptions::new().chunk_size(1), f, 0..1000).unwrap();
        started.pass();
        let seen = Arc::clone(&last);
        let urgent = pool.task(move || *seen.lock()).priority(Priority::High).submit();
        gate.open();
        assert_eq!(urgent.result().unwrap(), 0, "it ran between the first item and the second");
        assert_eq!(map.count(), 1000);
    });
}

#[test]
fn from_inside_a_task() {
    guarded(|| {
        let pool = Arc::new(pool(1));
        let log = Arc::new(Mutex::new(Vec::new()));
        let (inner, noted) = (Arc::clone(&pool), Arc::clone(&log));
        let outer = pool.submit(move || {
            [Priority::Low, Priority::Normal, Priority::High].map(|priority| {
                let noted = Arc::clone(&noted);
                inner.task(move || noted.lock().push(priority)).priority(priority).submit()
            })
        });
        let [low, normal, high] = outer.result().unwrap();
        low.result().unwrap();
        assert!(normal.is_done() && high.is_done());
        assert_eq!(*log.lock(), [Priority::High, Priority::Normal, Priority::Low]);
    });
}

#[test]
fn a_queued_task_of_any_priority_can_be_cancelled_or_claimed() {
    guarded(|| {
        for priority in [Priority::Low, Priority::Normal, Priority::High] {
            let pool = Arc::new(pool(1));
            let inner = Arc::clone(&pool);
            let outer = pool.submit(move || {
                let cancelled = inner.task(|| 1).priority(priority).submit();
                assert!(cancelled.cancel());
                inner.task(|| 2).priority(priority).submit().result().unwrap()
            });
            assert_eq!(outer.result().unwrap(), 2);
            let plug = Plug::new(&pool, 1);
            let queued = pool.task(|| 3).priority(priority).submit();
            drop(plug);
            pool.shutdown(Shutdown::Wait).unwrap();
            assert_eq!(queued.try_result().unwrap().unwrap(), 3);
        }
    });
}
