//! An open-loop load while everything that replaces dynos happens: no request may fail.

use libtest_mimic::{Failed, Trial};

use crate::host::{Host, check, contains, copy_app, deployed};
use crate::load::Load;
use crate::support;

/// Requests a second, and deploys under them, at least; there are as many other events that replace
/// dynos.
const RATE: u32 = 300;
const DEPLOYS: usize = 20;

/// Each ends with one of every other event.
const ROUNDS: usize = 4;

/// The cases of this file.
pub(crate) fn cases() -> Vec<Trial> {
    vec![Trial::test(
        "drops::no_request_fails_while_dynos_are_replaced",
        no_request_fails,
    )]
}

/// Waits until exactly these dynos are up and of the release that is current.
fn settled(host: &Host, names: &[&str]) -> Result<(), Failed> {
    host.eventually("the dynos of the current release serve", || {
        let releases = host.cli(&["releases", "-a", "tiny", "--json", "-n", "1"]);
        let releases: serde_json::Value =
            serde_json::from_slice(&releases.stdout).unwrap_or_default();
        let dynos = host.cli(&["ps", "-a", "tiny", "--json"]);
        let dynos: serde_json::Value = serde_json::from_slice(&dynos.stdout).unwrap_or_default();
        let dynos = dynos.as_array().cloned().unwrap_or_default();
        dynos.len() == names.len()
            && dynos.iter().all(|dyno| {
                dyno["state"] == "up" && dyno["release"]["version"] == releases[0]["version"]
            })
    })
}

/// Commands under load, each awaited until the dynos that it wants serve.
struct Events<'a> {
    host: &'a Host,
    count: usize,
}

impl Events<'_> {
    fn then(&mut self, args: &[&str], names: &[&str]) -> Result<(), Failed> {
        self.host.ok(&[args, &["-a", "tiny"]].concat())?;
        self.count += 1;
        settled(self.host, names)
    }
}

/// A copy of the tiny app whose versions differ.
fn versions() -> Result<tempfile::TempDir, Failed> {
    let dir = tempfile::tempdir()?;
    copy_app("tiny", dir.path())?;
    Ok(dir)
}

fn no_request_fails() -> Result<(), Failed> {
    let host = deployed()?;
    host.ok(&["ps:scale", "web=2", "-a", "tiny"])?;
    let two = ["web.1", "web.2"];
    settled(&host, &two)?;
    let source = versions()?;
    let dir = source.path().display().to_string();
    let load = Load::start(host.http, "tiny.localhost", RATE);
    let mut events = Events {
        host: &host,
        count: 0,
    };
    for round in 0..ROUNDS {
        for number in 0..DEPLOYS / ROUNDS {
            let version = format!("version-{round}-{number}");
            std::fs::write(source.path().join(&version), "")?;
            events.then(&["deploy", &dir], &two)?;
            let files = host.get("tiny.localhost", "/files").ok_or("no answer")?;
            contains(&files.1, &version)?;
        }
        events.then(&["ps:restart"], &two)?;
        events.then(&["ps:scale", "web=3"], &["web.1", "web.2", "web.3"])?;
        events.then(&["ps:scale", "web=1"], &["web.1"])?;
        events.then(&["ps:scale", "web=2"], &two)?;
        events.then(&["config:set", &format!("ROUND={round}")], &two)?;
        events.then(&["rollback"], &two)?;
    }
    // A release whose dynos do not start leaves the old ones alone.
    host.ok(&["config:set", "PYTHONHOME=/nowhere", "-a", "tiny"])?;
    host.eventually("the roll is aborted", || {
        host.logs("tiny").contains("aborted: web.")
    })?;
    events.then(&["config:unset", "PYTHONHOME"], &two)?;
    let count = events.count;
    let outcome = load.end();
    let (sent, failed) = (outcome.sent, outcome.failed);
    let rate = f64::from(u32::try_from(sent)?) / outcome.took.as_secs_f64();
    let sum = format!(
        "{} of {sent} requests failed, at {rate:.0} a second over {DEPLOYS} deploys and {} other events (slowest answer {} ms)",
        failed.len(),
        count - DEPLOYS,
        outcome.longest.as_millis()
    );
    eprintln!("{sum}");
    check(
        failed.is_empty(),
        format!("{sum}: {failed:?}\n{}", host.logs("tiny")),
    )?;
    check(count >= 2 * DEPLOYS, format!("only {count} events"))?;
    // The load kept its time, except in an emulated machine.
    let wanted = if support::is_guest() { 1.0 } else { 299.0 };
    check(rate >= wanted, sum)?;
    shown(&host, sent)
}

/// The same requests, as the operator sees them.
fn shown(host: &Host, sent: usize) -> Result<(), Failed> {
    contains(&host.ok(&["top"])?, "tiny")?;
    contains(&host.ok(&["metrics", "-a", "tiny"])?, "least-in-flight")?;
    let metrics = host.ok(&["metrics", "-a", "tiny", "--json"])?;
    let metrics: serde_json::Value = serde_json::from_str(&metrics)?;
    let served = metrics["total"]["classes"]["2xx"].as_u64().unwrap_or(0);
    check(
        served >= sent as u64,
        format!("{served} of {sent} requests were counted"),
    )?;
    let errors = metrics["total"]["errors"]
        .as_object()
        .map(serde_json::Map::len);
    check(errors == Some(0), format!("no H code: {metrics}"))
}
