//! In which order queued tasks start. With one worker nothing can be stolen, so the order is exact.

use std::sync::{Arc, Mutex};

use crate::support::*;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<usize>>>);

impl Log {
    fn note(&self, n: usize) {
        self.0.lock().unwrap().push(n);
    }

    fn read(&self) -> Vec<usize> {
        self.0.lock().unwrap().clone()
    }
}

#[test]
fn one_worker_starts_tasks_first_in_first_out() {
    guarded(|| {
        let (pool, log) = (pool(1), Log::default());
        let plug = Plug::new(&pool, 1);
        let submit = |n| {
            let log = log.clone();
            pool.submit(move || log.note(n))
        };
        let futures: Vec<_> = (0..1000).map(submit).collect();
        plug.release();
        futures.into_iter().for_each(|future| future.result().unwrap());
        assert_eq!(log.read(), (0..1000).collect::<Vec<_>>());
    });
}

#[test]
fn a_task_submitted_from_inside_waits_its_turn() {
    guarded(|| {
        let (pool, log) = (Arc::new(pool(1)), Log::default());
        let plug = Plug::new(&pool, 1);
        let outer = {
            let (pool, log) = (Arc::clone(&pool), log.clone());
            move || {
                log.note(0);
                pool.submit(move || log.note(51))
            }
        };
        let outer = pool.submit(outer);
        let submit = |n| {
            let log = log.clone();
            pool.submit(move || log.note(n))
        };
        let futures: Vec<_> = (1..51).map(submit).collect();
        plug.release();
        futures.into_iter().for_each(|future| future.result().unwrap());
        outer.result().unwrap().result().unwrap();
        assert_eq!(log.read(), (0..52).collect::<Vec<_>>());
    });
}
