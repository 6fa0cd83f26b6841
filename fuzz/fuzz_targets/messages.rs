//! Bytes from a worker that has gone mad: `messages` of `src/process/fuzzing.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| concurrent_futures::fuzzing::messages(data));
