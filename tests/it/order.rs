//! In which order queued tasks start. With one worker it is exact; with several, a task is overtaken so many times at most.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier};

use concurrent_futures::ThreadPoolExecutor;
use parking_lot::Mutex;

use crate::support::*;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<usize>>>);

impl Log {
    fn note(&self, n: usize) {
        self.0.lock().push(n);
    }

    fn read(&self) -> Vec<usize> {
        self.0.lock().clone()
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

/// Tasks of a pool, each of which notes that it has started, and goes on when the others of its round have started: so no worker
/// is ever ahead of another by more than one task, however the system schedules them.
struct Rounds {
    pool: ThreadPoolExecutor,
    /// How many workers take part.
    width: usize,
    clock: AtomicUsize,
    started: Mutex<Vec<Started>>,
    changed: Arc<Counter>,
    over: Arc<Counter>,
    /// Nobody waits for the others any more.
    ended: Gate,
}

#[derive(Clone, Copy)]
struct Started {
    /// The clock before its `submit`.
    submitted: usize,
    /// Which of the measured tasks it is.
    measured: Option<usize>,
}

impl Rounds {
    fn new(workers: usize, width: usize) -> Arc<Self> {
        let (clock, started) = (AtomicUsize::new(0), Mutex::default());
        let (changed, over, ended) = (Counter::new(), Counter::new(), Gate::new());
        Arc::new(Self { pool: pool(workers), width, clock, started, changed, over, ended })
    }

    /// Submits a task; `then` is what it does when its round is over. Gives the clock after the `submit`.
    fn submit(self: &Arc<Self>, measured: Option<usize>, then: impl FnOnce(&Arc<Self>) + Send + 'static) -> usize {
        let (this, submitted) = (Arc::clone(self), self.clock.fetch_add(1, SeqCst));
        let task = move || {
            let round = {
                let mut started = this.started.lock();
                started.push(Started { submitted, measured });
                (started.len() - 1) / this.width
            };
            this.changed.add();
            if !this.ended.is_open() {
                this.over.wait_for(round + 1);
            }
            then(&this);
        };
        self.pool.submit(task).detach();
        self.clock.fetch_add(1, SeqCst)
    }

    /// Lets round after round pass, until so many measured tasks have started. There are always enough others to fill a round.
    fn pass_measured(&self, tasks: usize) {
        let measured = || self.started.lock().iter().filter(|started| started.measured.is_some()).count();
        let mut round = 0;
        while measured() < tasks {
            round += 1;
            self.changed.wait_for(round * self.width);
            self.over.add();
        }
        self.ended.open();
        // Those that had seen the gate shut.
        (0..2 * self.width).for_each(|_| self.over.add());
    }

    /// Lets round after round pass, until so many tasks have started.
    fn pass(&self, tasks: usize) {
        for round in 1..=tasks.div_ceil(self.width) {
            self.changed.wait_for(tasks.min(round * self.width));
            self.over.add();
        }
    }

    /// How often the measured task that was overtaken most was overtaken: by tasks that were submitted when its own `submit`
    /// had returned. `returned` says when that was.
    fn most_overtaken(&self, returned: &[usize]) -> usize {
        let started = self.started.lock();
        let overtaken = started.iter().enumerate().filter_map(|(at, task)| {
            let returned = returned[task.measured?];
            Some(started[..at].iter().filter(|other| other.submitted >= returned).count())
        });
        overtaken.max().expect("some are measured")
    }
}

#[test]
fn behind_a_long_task_others_are_overtaken_so_many_times_at_most() {
    guarded(|| {
        for workers in [2, 4, 8] {
            const TASKS: usize = 3000;
            let rounds = Rounds::new(workers, workers - 1);
            let plug = Plug::new(&rounds.pool, workers);
            let (long, gate) = (Gate::new(), Gate::new());
            let (begun, opened) = (long.clone(), gate.clone());
            let first = rounds.pool.submit(move || {
                begun.open();
                opened.pass();
            });
            let returned: Vec<_> = (0..TASKS).map(|n| rounds.submit(Some(n), |_| ())).collect();
            plug.release();
            long.pass();
            rounds.pass(TASKS);
            gate.open();
            first.result().unwrap();
            let most = rounds.most_overtaken(&returned);
            let limit = ThreadPoolExecutor::OVERTAKES_PER_WORKER * workers;
            assert!(most <= limit, "{most} times with {workers} workers");
        }
    });
}

/// As many long tasks as there are workers but one, all of them in one batch if batches were long enough.
#[test]
fn behind_several_long_tasks_others_are_overtaken_so_many_times_at_most() {
    guarded(|| {
        for workers in [2, 4, 8] {
            const TASKS: usize = 3000;
            let rounds = Rounds::new(workers, 1);
            let plug = Plug::new(&rounds.pool, workers);
            let gate = Gate::new();
            let long: Vec<_> = (1..workers)
                .map(|_| {
                    let gate = gate.clone();
                    rounds.pool.submit(move || gate.pass())
                })
                .collect();
            let returned: Vec<_> = (0..TASKS).map(|n| rounds.submit(Some(n), |_| ())).collect();
            plug.release();
            rounds.pass(TASKS);
            gate.open();
            long.into_iter().for_each(|long| long.result().unwrap());
            let most = rounds.most_overtaken(&returned);
            let limit = ThreadPoolExecutor::OVERTAKES_PER_WORKER * workers;
            assert!(most <= limit, "{most} times with {workers} workers");
        }
    });
}

#[test]
fn tasks_that_submit_tasks_overtake_so_many_times_at_most() {
    fn go_on(rounds: &Arc<Rounds>) {
        if !rounds.ended.is_open() {
            rounds.submit(None, go_on);
        }
    }
    guarded(|| {
        for workers in [2, 4, 8] {
            const TASKS: usize = 1000;
            let rounds = Rounds::new(workers, workers);
            let plug = Plug::new(&rounds.pool, workers);
            for _ in 0..64 * workers {
                rounds.submit(None, go_on);
            }
            let returned: Vec<_> = (0..TASKS).map(|n| rounds.submit(Some(n), |_| ())).collect();
            plug.release();
            rounds.pass_measured(TASKS);
            let most = rounds.most_overtaken(&returned);
            let limit = ThreadPoolExecutor::OVERTAKES_PER_WORKER * workers;
            assert!(most <= limit, "{most} times with {workers} workers");
        }
    });
}

#[test]
fn what_a_worker_leaves_when_it_ends_is_not_put_last() {
    guarded(|| {
        let (pool, log) = (Arc::new(pool(2)), Log::default());
        let plug = Plug::new(&pool, 2);
        let both = Arc::new(Barrier::new(2));
        let resize = {
            let pool = Arc::clone(&pool);
            Arc::new(move || pool.resize(1).unwrap())
        };
        let submit = |n| {
            let (log, both, resize) = (log.clone(), Arc::clone(&both), Arc::clone(&resize));
            pool.submit(move || {
                let mut started = log.0.lock();
                started.push(n);
                let at = started.len();
                drop(started);
                // The first two run on both workers, of which the first to go on ends.
                if at <= 2 {
                    both.wait();
                }
                if at == 1 {
                    resize();
                }
            })
        };
        let futures: Vec<_> = (0..1000).map(submit).collect();
        plug.release();
        futures.into_iter().for_each(|future| future.result().unwrap());
        let order = log.read();
        let overtaken = |at: usize| order[..at].iter().filter(|other| **other > order[at]).count();
        let most = (0..order.len()).map(overtaken).max().unwrap();
        assert!(most <= 2 * ThreadPoolExecutor::OVERTAKES_PER_WORKER, "{most} times");
    });
}
