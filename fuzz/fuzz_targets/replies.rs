//! Bytes from a worker that has gone mad: `replies` of `src/process/fuzzing.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| concurrent_futures::fuzzing::replies(data));
