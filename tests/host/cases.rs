//! Raw HTTP cases against the real router, with a plain process behind it: those of `tests/http`,
//! and those of `tests/apps/cases`, in which the dyno plays its part, too.

#[path = "../http/judge.rs"]
mod judge;

use std::process::{Command, Stdio};

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

/// In so many parts, each with an app of its own: most of a case's time is silence.
const PARTS: usize = 14;

/// All of `tests/apps/cases/cases.json`.
const CASES: usize = 112;

#[test]
fn every_case_holds_at_both_ends() {
    let host = Host::start(Timings::default());
    let app = |part: usize| format!("part-{part}");
    for part in 0..PARTS {
        let app = app(part);
        host.ok(&["create", &app]);
        host.release(&app, "cases", &[("web", "exec python3 cases.py backend")]);
    }
    let start = |part: usize| {
        host.until_up(&app(part), &["web.1"]);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/apps/cases/cases.py");
        let name = format!("{}.localhost", app(part));
        let of = [part.to_string(), PARTS.to_string()];
        let mut command = Command::new("python3");
        command.args([script, "run", &host.http.to_string(), &name]);
        let child = command.args(of).stdout(Stdio::piped()).spawn();
        child.expect("python3 runs")
    };
    let parts: Vec<_> = (0..PARTS).map(start).collect();
    let mut said = String::new();
    for part in parts {
        let output = part.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{output:?}");
        said.push_str(&String::from_utf8_lossy(&output.stdout));
    }
    let passed = said
        .lines()
        .filter(|line| line.starts_with("pass "))
        .count();
    assert!(!said.contains("FAIL "), "{said}");
    assert_eq!(passed, CASES, "{said}");
}
