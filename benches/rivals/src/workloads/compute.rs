//! Work that is worth more threads: a map over many cheap items, and a few dear ones.

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use rayon::prelude::*;

use crate::measure::{Bench, Role, millis};
use crate::pools::{Handle, Pool, Pools, for_each_pool};

const ITEMS: u64 = 1_000_000;
const CHUNKS: u64 = 16;
pub(super) const PRIMES: [u64; 6] = [
    112_272_535_095_293,
    112_582_705_942_171,
    112_272_535_095_293,
    115_280_095_190_773,
    115_797_848_077_099,
    1_099_726_899_285_419,
];

pub(super) fn map(pools: &Pools, workers: usize) -> Bench {
    let Pools { ours, rayon, .. } = *pools;
    let mut bench = Bench::new("T5", format!("a hash of each of {ITEMS} numbers into a Vec, in order"), &["ms"]);
    bench.add_as("ours map", Role::Ours, move || {
        millis(|| ours.0.map(hash, 0..ITEMS).collect::<Result<Vec<_>, _>>().expect("no item fails"))
    });
    bench.add_as("rayon par_iter", Role::Rival, move || {
        millis(|| rayon.pool.install(|| (0..ITEMS).into_par_iter().map(hash).collect::<Vec<_>>()))
    });
    bench.add_as("bare threads", Role::Reference, move || millis(|| map_on_threads(workers)));
    bench.add_as("sequential", Role::Reference, || millis(|| (0..ITEMS).map(hash).collect::<Vec<_>>()));
    for_each_pool!(pools, pool => bench.add_as(chunked_name(pool), Role::Reference, move || millis(|| map_in_chunks(pool))));
    bench
}

pub(super) fn primes(pools: &Pools, workers: usize) -> Bench {
    let mut bench = Bench::new("T7", "is it a prime? for six large numbers, one task each", &["ms"]);
    for_each_pool!(pools, pool => bench.add(pool, move || millis(|| primes_on_pool(pool))));
    let Pools { ours, rayon, .. } = *pools;
    bench.add_as("ours map", Role::Reference, move || {
        millis(|| {
            ours.0.map(is_prime, PRIMES).map(|prime| prime.expect("no item fails")).filter(|prime| *prime).count()
        })
    });
    bench.add_as("rayon par_iter", Role::Rival, move || {
        millis(|| rayon.pool.install(|| PRIMES.par_iter().filter(|n| is_prime(**n)).count()))
    });
    bench.add_as("bare threads", Role::Reference, move || millis(|| primes_on_threads(workers)));
    bench.add_as("sequential", Role::Reference, || {
        millis(|| black_box(PRIMES).into_iter().filter(|n| is_prime(*n)).count())
    });
    bench
}

/// Some nanoseconds of arithmetic.
fn hash(n: u64) -> u64 {
    (0..3).fold(n, |x, _| {
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    })
}

fn chunked_name<P: Pool>(_: &P) -> &'static str {
    match P::NAME {
        "ours" => "ours, 16 chunks",
        "rayon" => "rayon, 16 chunks",
        "threadpool" => "threadpool, 16 chunks",
        "rusty_pool" => "rusty_pool, 16 chunks",
        "naive" => "naive, 16 chunks",
        "spawn_blocking" => "spawn_blocking, 16 chunks",
        "tokio spawn" => "tokio spawn, 16 chunks",
        _ => "blocking, 16 chunks",
    }
}

fn map_in_chunks<P: Pool>(pool: &P) -> Vec<u64> {
    let chunk = |n: u64| (n * ITEMS / CHUNKS)..((n + 1) * ITEMS / CHUNKS);
    let handles: Vec<_> = (0..CHUNKS).map(|n| pool.submit(move || chunk(n).map(hash).collect::<Vec<_>>())).collect();
    let mut all = Vec::with_capacity(ITEMS as usize);
    handles.into_iter().for_each(|handle| all.extend(handle.wait()));
    all
}

fn map_on_threads(threads: usize) -> Vec<u64> {
    let mut all = vec![0; ITEMS as usize];
    let part = all.len().div_ceil(threads);
    thread::scope(|scope| {
        for (n, part_of_all) in all.chunks_mut(part).enumerate() {
            scope.spawn(move || {
                let first = (n * part) as u64;
                part_of_all.iter_mut().zip(first..).for_each(|(slot, n)| *slot = hash(n));
            });
        }
    });
    all
}

pub(super) fn is_prime(n: u64) -> bool {
    n == 2 || n > 2 && n % 2 == 1 && (3..=n.isqrt()).step_by(2).all(|divisor| n % divisor != 0)
}

fn primes_on_pool<P: Pool>(pool: &P) -> usize {
    let handles = PRIMES.map(|n| pool.submit(move || is_prime(n)));
    handles.into_iter().map(Handle::wait).filter(|prime| *prime).count()
}

pub(super) fn primes_on_threads(threads: usize) -> usize {
    // Relaxed: each number is handed out once, whatever the order.
    let (next, found) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(n) = PRIMES.get(next.fetch_add(1, Relaxed)) {
                    found.fetch_add(usize::from(is_prime(*n)), Relaxed);
                }
            });
        }
    });
    found.into_inner()
}
