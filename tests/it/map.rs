//! `map`: order, failures, chunks, buffers, time-outs, and maps that are dropped half-way.

use concurrent_futures::Shutdown;

use crate::support::*;

#[test]
fn map_on_a_shut_down_pool_says_so() {
    guarded(|| {
        let pool = pool(1);
        pool.shutdown(Shutdown::Wait).unwrap();
        let results: Vec<_> = pool.map(|n: u8| n, [1, 2]).collect();
        assert_eq!(results.len(), 2);
        for result in results {
            let error = result.unwrap_err();
            assert!(error.is_shut_down(), "{error:?}");
        }
    });
}
