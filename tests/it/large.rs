//! Futures and closures that are large: they do not overflow the stack of a worker, neither of the one that submits nor of the one
//! that runs.

use std::hint::black_box;

use concurrent_futures::{Shutdown, ThreadPoolExecutor};

use super::support::{Plug, guarded, pool, yield_now};

/// As large as can be passed by value at all on a stack of 2 MiB: without optimisation, once as the caller's argument and
/// once on its way to the heap.
const SIZE: usize = if cfg!(debug_assertions) { 512 << 10 } else { 1 << 20 };

/// It is made where it is passed on, with nothing in it yet.
async fn large_future() -> usize {
    let mut bytes = [0u8; SIZE];
    yield_now().await;
    black_box(&mut bytes)[SIZE / 2] = 1;
    yield_now().await;
    bytes.iter().map(|byte| usize::from(*byte)).sum()
}

/// A closure that owns a large value, which is not initialised so that making it costs no stack.
macro_rules! large_closure {
    () => {{
        let bytes = std::mem::MaybeUninit::<[u8; SIZE]>::uninit();
        move || size_of_val(black_box(&bytes))
    }};
}

/// Runs `f` on a worker with a stack of the default size.
fn on_a_worker<T: Send + 'static>(f: fn(&ThreadPoolExecutor) -> T) -> T {
    guarded(move || pool(1).submit(move || f(&pool(1))).result().unwrap())
}

#[test]
fn a_future_is_spawned_by_a_worker_and_polled_by_another() {
    fn size_of_output<F>(_: fn() -> F) -> usize {
        size_of::<F>()
    }
    assert!(size_of_output(large_future) >= SIZE);
    assert_eq!(on_a_worker(|pool| pool.spawn(large_future()).result().unwrap()), 1);
}

#[test]
fn a_future_is_polled_by_the_worker_that_spawns_it() {
    let spawned = guarded(|| {
        let pool = std::sync::Arc::new(pool(1));
        let inner = std::sync::Arc::clone(&pool);
        pool.submit(move || inner.spawn(large_future()).result().unwrap()).result().unwrap()
    });
    assert_eq!(spawned, 1);
}

#[test]
fn a_closure_is_submitted() {
    assert_eq!(on_a_worker(|pool| pool.submit(large_closure!()).result().unwrap()), SIZE);
}

#[test]
fn a_closure_is_submitted_in_a_scope() {
    assert_eq!(on_a_worker(|pool| pool.scope(|scope| scope.submit(large_closure!()).result().unwrap())), SIZE);
}

#[test]
fn a_closure_that_is_cancelled_or_refused_is_dropped() {
    on_a_worker(|pool| {
        let plug = Plug::new(pool, 1);
        assert!(pool.submit(large_closure!()).cancel());
        plug.release();
    });
    on_a_worker(|pool| {
        pool.shutdown(Shutdown::Wait).unwrap();
        assert!(pool.submit(large_closure!()).result().unwrap_err().is_shut_down());
    });
}
