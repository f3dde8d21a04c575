//! The router before a real dyno: its network, its limits, its figures.

#[path = "../http/judge.rs"]
mod judge;
#[path = "../http/mix.rs"]
mod mix;

use std::path::Path;

use libtest_mimic::{Failed, Trial};

use crate::certain;
use crate::host::{Host, app_dir, check, contains};
use crate::support::Leftovers;

/// The cases of this file.
pub(crate) fn cases() -> Vec<Trial> {
    vec![
        Trial::test("http::every_case_is_read_in_one_way", every_case),
        Trial::test("http::an_answer_never_reaches_another_app", never_mix),
    ]
}

/// An app whose web process is `tests/apps/odd`, with its name in `NAME`.
fn odd(host: &Host, name: &str) -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let server = Path::new(&app_dir("odd")).join("server.py");
    std::fs::copy(server, dir.path().join("server.py"))?;
    std::fs::write(dir.path().join("requirements.txt"), "")?;
    let procfile = format!("web: NAME={name} exec python3 server.py\n");
    std::fs::write(dir.path().join("Procfile"), procfile)?;
    host.ok(&["create", name])?;
    host.ok(&["deploy", &dir.path().display().to_string(), "-a", name])?;
    host.eventually("web.1 is up", || host.all_up(name, &["web.1"]))
}

fn every_case() -> Result<(), Failed> {
    let before = Leftovers::count();
    let mut host = Host::with("[timings]\nmetrics_period = 1\nstop_grace = 2\n")?;
    odd(&host, "odd")?;
    let faults = judge::faults(host.http, || {
        let answer = certain::api(&host.socket(), "GET", "/apps/odd/traffic", "");
        let answer = answer.expect("an answer");
        let body = answer.split_once("\r\n\r\n").expect("a head").1;
        let traffic: serde_json::Value = serde_json::from_str(body).expect("JSON");
        let reached = traffic["dynos"][0]["total"]["requests"].as_u64();
        reached.expect("a number")
    });
    check(faults.is_empty(), faults.join("\n\n"))?;
    // Memory and load of the dyno that served all this.
    host.eventually("figures in top", || {
        let output = host.cli(&["top"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().find(|line| line.contains(" web.1 "));
        line.is_some_and(|line| {
            let figures = line.split_once(" MB of 512.0 MB");
            figures.is_some_and(|(_, load)| load.trim().parse::<f64>().is_ok())
        })
    })?;
    let page = certain::api(&host.socket(), "GET", "/metrics", "")?;
    for family in [
        "memory_bytes",
        "memory_quota_bytes",
        "load",
        "tasks",
        "disk_used_bytes",
        "disk_limit_bytes",
    ] {
        let start = format!("\nmanifold_dyno_{family}{{app=\"odd\",dyno=\"web.1\",");
        contains(&page, &start)?;
    }
    host.stop()?;
    Leftovers::none_since(&before)
}

/// The addresses of dynos that have gone are given to others, of other apps.
fn never_mix() -> Result<(), Failed> {
    let before = Leftovers::count();
    let mut host = Host::with("[timings]\nstop_grace = 2\n")?;
    for app in mix::APPS {
        odd(&host, app)?;
        host.ok(&["ps:scale", "web=2", "-a", app])?;
        host.eventually("two are up", || host.all_up(app, &["web.1", "web.2"]))?;
    }
    mix::never_mix(host.http, |app| {
        let restarted = host.ok(&["ps:restart", "-a", app]);
        let is_up = || host.all_up(app, &["web.1", "web.2"]);
        restarted
            .and_then(|_| host.eventually("both are up again", is_up))
            .expect("a restart");
    });
    host.stop()?;
    Leftovers::none_since(&before)
}
