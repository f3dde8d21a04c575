//! What the system-call filter of a dyno costs, for `cargo xtask bench launch` to print.
//!
//! Argument: rounds. Prints two columns: nanoseconds that the filter adds to a system call that
//! programs make all the time, and microseconds to load it.
#![expect(clippy::print_stdout, reason = "the times are what it is started for")]

use std::sync::mpsc;
use std::time::Instant;

/// System calls between two looks at the clock, and how many such pieces one measurement has: the
/// fastest counts, in which nobody else had the processor.
const CALLS: u32 = 1_000;
const PIECES: u32 = 200;

fn main() {
    let Some(rounds) = std::env::args().nth(1).and_then(|word| word.parse().ok()) else {
        // `cargo test --benches` and `cargo bench` start it, too.
        println!("run: cargo xtask bench launch");
        return;
    };
    let filter = manifold::keeper::compile_filter();
    for _ in 0..rounds {
        let (added, load) = round(&filter);
        println!("{added:.2} {load:.2}");
    }
}

/// A filter is its thread's: one without it and one with it take turns, so that what else the
/// machine does is the same for both.
fn round(filter: &[libc::sock_filter]) -> (f64, f64) {
    let (ask, asked) = mpsc::channel();
    let (tell, told) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            manifold::sys::no_new_privileges().expect("no_new_privs");
            let begun = Instant::now();
            manifold::sys::install_filter(filter).expect("the filter");
            tell.send(begun.elapsed().as_secs_f64() * 1e6)
                .expect("heard");
            for () in asked {
                tell.send(piece()).expect("heard");
            }
        });
        let load = told.recv().expect("it is loaded");
        let (mut without, mut with) = (f64::INFINITY, f64::INFINITY);
        for _ in 0..PIECES {
            without = without.min(piece());
            ask.send(()).expect("heard");
            with = with.min(told.recv().expect("a piece"));
        }
        drop(ask);
        (with - without, load)
    })
}

/// Nanoseconds of a call of a kind that does next to nothing itself.
fn piece() -> f64 {
    let begun = Instant::now();
    for _ in 0..CALLS {
        std::hint::black_box(nix::unistd::getppid());
    }
    begun.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
}
