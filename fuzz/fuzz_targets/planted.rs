//! A fault on purpose, which the fuzzer must find: `planted` of `src/process/fuzzing.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| concurrent_futures::fuzzing::planted(data));
