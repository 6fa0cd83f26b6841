//! Faults on purpose. The scripts that look for faults of such kinds run these as well, and fail if they are not found
//! (`ci/tsan.sh`, `ci/asan.sh`); everywhere else they are ignored.

#![allow(unsafe_code)]

use std::hint::black_box;
use std::thread;

use crate::support::*;

static mut SHARED: u64 = 0;

fn touch() {
    for _ in 0..100 {
        // SAFETY: it is not safe, and that is its purpose: threads do this at the same time.
        unsafe { SHARED = black_box(SHARED) + 1 };
    }
}

fn race() {
    let other = thread::spawn(touch);
    touch();
    other.join().unwrap();
}

fn use_after_free() -> u64 {
    let freed = Box::into_raw(Box::new(black_box(7)));
    // SAFETY: it was a box.
    drop(unsafe { Box::from_raw(freed) });
    // SAFETY: it is not safe, and that is its purpose.
    unsafe { black_box(freed).read_volatile() }
}

/// On a thread of its own, so that no stack and no register has the address in the end.
fn leak() {
    thread::spawn(|| std::mem::forget(black_box(Box::new([1u8; 1234])))).join().unwrap();
}

#[test]
#[ignore = "a fault on purpose: ci/tsan.sh"]
fn a_race_between_threads() {
    guarded(race);
}

#[test]
#[ignore = "a fault on purpose: ci/tsan.sh"]
fn a_race_in_a_pool() {
    guarded(|| {
        let (pool, gate) = (pool(2), Gate::new());
        let inner = gate.clone();
        let futures = on_workers(&pool, 2, move |started| {
            started.open();
            inner.pass();
            touch();
        });
        gate.open();
        futures.into_iter().for_each(|future| future.result().unwrap());
    });
}

#[test]
#[ignore = "a fault on purpose: ci/asan.sh"]
fn a_use_after_free() {
    guarded(|| pool(1).submit(use_after_free).result().unwrap());
}

#[test]
#[ignore = "a fault on purpose: ci/asan.sh"]
fn a_leak() {
    guarded(|| pool(1).submit(leak).result().unwrap());
}

#[cfg(all(feature = "process", target_os = "linux"))]
mod in_a_worker {
    use concurrent_futures::{ProcessPoolExecutor, Stdio};

    use super::*;

    fn run<R>(f: impl Fn(()) -> R + Copy + Send + Sync + 'static)
    where
        R: serde::Serialize + serde::de::DeserializeOwned + Send + 'static,
    {
        let pool = ProcessPoolExecutor::builder().max_workers(1).stdio(Stdio::Null).build().unwrap();
        let _ = pool.submit(f, ()).result();
    }

    #[test]
    #[ignore = "a fault on purpose: ci/tsan.sh"]
    fn a_race() {
        guarded(|| run(|()| race()));
    }

    #[test]
    #[ignore = "a fault on purpose: ci/asan.sh"]
    fn a_use_after_free() {
        guarded(|| run(|()| use_after_free()));
    }

    #[test]
    #[ignore = "a fault on purpose: ci/asan.sh"]
    fn a_leak() {
        guarded(|| run(|()| leak()));
    }
}
