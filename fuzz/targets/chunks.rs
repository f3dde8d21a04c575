//! See `src/router/fuzz.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| manifold_fuzz::router::fuzz::chunks(bytes));
