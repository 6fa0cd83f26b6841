//! Hosts whose effective user or group is not the real one: the system distrusts what they start, so no worker is started.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use concurrent_futures::{
    BuildError, ProcessPoolBuilder, ProcessPoolExecutor, Shutdown, ShutdownError, StartError, Stdio, TaskError,
};

use super::support::*;

/// If `main` runs in a worker, it is this program without any test.
fn builder() -> ProcessPoolBuilder {
    let this = ["/proc/self/exe", "--exact", "process::privileges::no_such_test"];
    ProcessPoolExecutor::builder().max_workers(2).stdio(Stdio::Null).worker_command(this)
}

/// Changes the effective ids, and nothing else.
#[allow(unsafe_code)]
fn be(user: u32, group: u32) {
    // SAFETY: the calls have no conditions.
    unsafe {
        assert_eq!(libc::seteuid(0), 0);
        assert_eq!(libc::setegid(group), 0);
        assert_eq!(libc::seteuid(user), 0);
    }
}

/// A change back and forth, of the user or of the group.
fn with_each_id(test: &str, body: impl Fn() + Send + Sync + Clone + 'static) {
    if may_change_user() {
        alone(test, move || {
            for (user, group) in [(NOBODY, 0), (0, NOBODY), (NOBODY, NOBODY)] {
                be(user, group);
                body();
                be(0, 0);
            }
        });
    }
}

#[test]
fn no_pool_is_built() {
    with_each_id("privileges::no_pool_is_built", || {
        let error = builder().build().unwrap_err();
        let BuildError::DifferentIds(ids) = &error else { panic!("{error:?}") };
        let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        assert_eq!((ids.user(), ids.group()), ((0, user), (0, group)));
        assert!(error.to_string().contains(&format!("{user}")), "{error}");
    });
}

#[test]
fn no_worker_is_started() {
    with_each_id("privileges::no_worker_is_started", || {
        let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        be(0, 0);
        let pool = builder().build().unwrap();
        be(user, group);
        for _ in 0..2 {
            let error = pool.submit(|_: ()| (), ()).result().unwrap_err();
            let TaskError::Spawn(cause) = &error else { panic!("{error:?}") };
            let reason = cause.get_ref().downcast_ref::<StartError>();
            assert!(matches!(reason, Some(StartError::DifferentIds(_))), "{error:?}");
            assert!(pool.worker_pids().is_empty());
        }
        be(0, 0);
        assert_eq!(pool.submit(|n: u32| n + 1, 1).result().unwrap(), 2, "it goes on when the ids are the same again");
    });
}

#[test]
fn workers_that_are_there_go_on() {
    with_each_id("privileges::workers_that_are_there_go_on", || {
        let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        be(0, 0);
        let pool = builder().build().unwrap();
        let worker = pool.submit(|_: ()| std::process::id(), ()).result().unwrap();
        be(user, group);
        let futures: Vec<_> = (0..50).map(|_| pool.submit(|_: ()| std::process::id(), ())).collect();
        assert!(futures.into_iter().all(|future| future.result().unwrap() == worker));
        be(0, 0);
    });
}

// The host may not send them signals any more; they end when they are asked to.
#[test]
fn workers_of_another_user_end_with_the_pool() {
    if may_change_user() {
        alone("privileges::workers_of_another_user_end_with_the_pool", || {
            let pool = builder().build().unwrap();
            let worker = pool.submit(|_: ()| std::process::id(), ()).result().unwrap();
            become_nobody();
            assert_eq!(pool.submit(|_: ()| std::process::id(), ()).result().unwrap(), worker);
            drop(pool);
            assert!(!is_running(worker));
        });
    }
}

// As if the system did not act on SIGKILL: the host may not send it any more. The worker would wait for ever.
#[test]
fn a_worker_that_cannot_be_killed_keeps_nobody_waiting() {
    if may_change_user() {
        alone("privileges::a_worker_that_cannot_be_killed_keeps_nobody_waiting", || {
            let folder = Folder::new();
            std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
            let (ledger, release) = (folder.ledger("ledger"), folder.sign("release"));
            let wait = |(ledger, release): (Ledger, Sign)| {
                ledger.write("begun");
                release.wait();
            };
            let pools = [builder(), builder()].map(|builder| builder.max_workers(1).build().unwrap());
            let futures = pools.each_ref().map(|pool| pool.submit(wait, (ledger.clone(), release.clone())));
            poll(|| ledger.lines().len() == 2);
            let behind = pools.each_ref().map(|pool| pool.submit(|n: u32| n, 1));
            let workers: Vec<_> = pools.iter().flat_map(ProcessPoolExecutor::worker_pids).collect();
            become_nobody();
            pools[0].kill_workers();
            let shut_down = pools[1].shutdown(Shutdown::Within(Duration::from_millis(1)));
            assert!(matches!(shut_down, Err(ShutdownError::TimedOut { .. })), "{shut_down:?}");
            for (future, reason) in
                futures.into_iter().zip(["all workers were killed", "the time for the shutdown was over"])
            {
                let error = future.result().unwrap_err();
                assert!(
                    matches!(&error, TaskError::WorkerDied(exit) if exit.code().is_none() && exit.signal().is_none())
                );
                assert!(error.to_string().contains(reason), "{error}");
            }
            assert!(behind.into_iter().all(|future| future.result().unwrap_err().is_cancelled()));
            drop(pools);
            assert!(workers.iter().all(|worker| is_running(*worker)), "they are left to a thread that reaps them");
            release.give();
            poll(|| !workers.iter().any(|worker| is_running(*worker)));
        });
    }
}

// The real ids are the effective ones again: a service that has dropped its privileges for good.
#[test]
fn after_a_change_for_good_workers_start() {
    if may_change_user() {
        alone("privileges::after_a_change_for_good_workers_start", || {
            become_nobody();
            let pool = builder().build().unwrap();
            let user = |_: ()| rustix::process::getuid().as_raw();
            assert_eq!(pool.submit(user, ()).result().unwrap(), NOBODY);
        });
    }
}
