//! The cases of `tests/http` against the real router, with a plain process behind it.

#[path = "../http/judge.rs"]
mod judge;

use manifold::settings::Timings;

use crate::host::Host;

#[test]
fn every_case_is_read_in_one_way() {
    let host = Host::start(Timings::default());
    host.web("odd", "odd", "python3 server.py");
    let faults = judge::faults(host.http, || {
        let traffic = host.json("GET", "/apps/odd/traffic", "");
        let reached = traffic["dynos"][0]["total"]["requests"].as_u64();
        reached.expect("a number")
    });
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}
