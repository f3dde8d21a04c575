//! What the system-call filter of a dyno costs, for `cargo xtask bench launch` to print.
//!
//! Argument: rounds. Prints two columns: nanoseconds that the filter adds to a system call that
//! programs make all the time, and microseconds to load it.
#![expect(clippy::print_stdout, reason = "the times are what it is started for")]

use std::time::{Duration, Instant};

/// System calls between two looks at the clock, and how many such pieces one measurement has: the
/// fastest counts, in which nobody else had the processor.
const CALLS: u32 = 2_000;
const PIECES: u32 = 200;

fn main() {
    let Some(rounds) = std::env::args().nth(1).and_then(|word| word.parse().ok()) else {
        // `cargo test --benches` and `cargo bench` start it, too.
        println!("run: cargo xtask bench launch");
        return;
    };
    let filter = manifold::keeper::compile_filter();
    for _ in 0..rounds {
        // A filter is its thread's, and cannot be taken off: each round has a thread of its own.
        let filter = &filter;
        let measured = std::thread::scope(|scope| scope.spawn(|| round(filter)).join());
        let (added, load) = measured.expect("no panic");
        println!("{added:.2} {:.2}", load.as_secs_f64() * 1e6);
    }
}

/// Before the filter and after it, on the same thread.
fn round(filter: &[libc::sock_filter]) -> (f64, Duration) {
    manifold::sys::no_new_privileges().expect("no_new_privs");
    // Warm.
    calls();
    let without = calls();
    let begun = Instant::now();
    manifold::sys::install_filter(filter).expect("the filter");
    let load = begun.elapsed();
    let with = calls();
    (with - without, load)
}

/// Nanoseconds of a call of a kind that does next to nothing itself.
fn calls() -> f64 {
    let piece = |_| {
        let begun = Instant::now();
        for _ in 0..CALLS {
            std::hint::black_box(nix::unistd::getppid());
        }
        begun.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
    };
    (0..PIECES).map(piece).fold(f64::INFINITY, f64::min)
}
