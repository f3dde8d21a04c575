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
        let logs = host.logs("odd");
        logs.lines().filter(|l| l.contains(" dyno=web.1 ")).count()
    });
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}
