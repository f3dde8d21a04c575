//! See `src/router/h2/fuzz.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| manifold_fuzz::router::h2::fuzz::frames(bytes));
