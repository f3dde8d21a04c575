//! The network as a wall: what gets out, what gets nowhere, what `network:allow` opens, and what
//! happens beside other firewalls.
//!
//! Each case runs a supervisor in a network namespace of its own ([`yard::Yard`]).

mod beside;
mod prober;
mod ways;
mod yard;

use libtest_mimic::Trial;

/// The cases of this folder.
pub(crate) fn cases() -> Vec<Trial> {
    vec![
        Trial::test("network::a_dyno_reaches_out_and_nothing_else", ways::closed),
        Trial::test(
            "network::allowed_ways_open_at_once_and_close_again",
            ways::allowed,
        ),
        Trial::test("network::addresses_cannot_be_borrowed", ways::spoofed),
        Trial::test("network::one_dyno_cannot_use_up_connections", ways::flood),
        Trial::test(
            "network::a_flushed_table_comes_back_and_nothing_was_open",
            beside::flushed,
        ),
        Trial::test(
            "network::beside_docker_and_firewalld_tables",
            beside::foreign,
        ),
    ]
}
