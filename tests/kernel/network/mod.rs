//! The network as a wall: what gets out, what gets nowhere, what `network:allow` opens, and what
//! happens beside other firewalls.
//!
//! Each case runs a supervisor in a network namespace of its own ([`yard::Yard`]).

mod beside;
mod prober;
mod uninstall;
mod ways;
pub(crate) mod yard;

use libtest_mimic::Trial;

/// The cases of this folder.
pub(crate) fn cases() -> Vec<Trial> {
    vec![
        Trial::test(ways::CLOSED, ways::closed),
        Trial::test(
            "network::allowed_ways_open_at_once_and_close_again",
            ways::allowed,
        ),
        Trial::test(ways::SPOOFED, ways::spoofed),
        Trial::test(ways::FLOOD, ways::flood),
        Trial::test(ways::REUSED, ways::reused),
        Trial::test(beside::FLUSHED, beside::flushed),
        Trial::test(
            "network::beside_docker_and_firewalld_tables",
            beside::foreign,
        ),
        Trial::test(
            "network::uninstall_leaves_the_host_as_it_was",
            uninstall::run,
        ),
    ]
}
