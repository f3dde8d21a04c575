//! What needs root and a real kernel: run in place, or inside a VM (`cargo xtask vm`).
//!
//! Without root nothing can be shown, so every case is skipped and says so.

mod adopt;
mod attack;
mod build;
mod certain;
mod changes;
mod clock;
mod drops;
mod dyno;
mod errors;
mod git;
mod host;
mod hostile;
mod http;
mod installers;
mod journey;
mod languages;
mod limits;
mod load;
mod network;
mod rolls;
mod security;
mod sizes;
mod stacks;
mod support;

use libtest_mimic::{Arguments, Trial};

/// Rooms and tests that are not run in the virtual machine: too slow when emulated.
/// `cargo xtask security` reads the same list.
const HERE_ONLY: &str = include_str!("here-only.txt");

/// Set where there is time for those, too.
const ALL: &str = "MANIFOLD_TEST_ALL";

/// `NUMBER/COUNT`: of each COUNT cases the one of that number, from 0 on.
const PART: &str = "MANIFOLD_TEST_PART";

/// The share of this machine, where several have the tests among them.
fn part(cases: Vec<Trial>) -> Vec<Trial> {
    let Ok(text) = std::env::var(PART) else {
        return cases;
    };
    let numbers = text.split_once('/').and_then(|(number, count)| {
        Some((number.parse::<usize>().ok()?, count.parse::<usize>().ok()?))
    });
    let (number, count) = numbers.expect("NUMBER/COUNT");
    let (ignored, run): (Vec<Trial>, Vec<Trial>) =
        cases.into_iter().partition(Trial::has_ignored_flag);
    // Those that run and those that do not are shared out apart: the first are what takes time.
    let share = |cases: Vec<Trial>| cases.into_iter().skip(number).step_by(count);
    share(run).chain(share(ignored)).collect()
}

fn main() {
    let arguments = Arguments::from_args();
    let mut cases: Vec<Trial> = [
        journey::cases(),
        dyno::cases(),
        drops::cases(),
        http::cases(),
        build::cases(),
        errors::cases(),
        attack::cases(),
        limits::cases(),
        git::cases(),
        installers::cases(),
        languages::cases(),
        stacks::cases(),
        certain::cases(),
        changes::cases(),
        adopt::cases(),
        network::cases(),
        security::cases(),
        sizes::cases(),
        clock::cases(),
        rolls::cases(),
    ]
    .into_iter()
    .flatten()
    .collect();
    if support::is_guest() && std::env::var_os(ALL).is_none() {
        cases = cases
            .into_iter()
            .map(|case| {
                let is_here_only = HERE_ONLY.lines().any(|room| case.name().starts_with(room));
                if is_here_only {
                    case.with_ignored_flag(true)
                } else {
                    case
                }
            })
            .collect();
    }
    cases = part(cases);
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not root: the kernel tests are skipped. Run: sudo -E cargo test --test kernel");
        cases = cases
            .into_iter()
            .map(|case| case.with_ignored_flag(true))
            .collect();
    }
    let conclusion = libtest_mimic::run(&arguments, cases);
    let left = support::count_not_stopped();
    if left > 0 {
        eprintln!("{left} supervisors did not stop in an orderly way after their tests: see above");
        std::process::exit(101);
    }
    conclusion.exit();
}
