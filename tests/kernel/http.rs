//! The router before a real dyno: its network, its limits, its figures.

#[path = "../http/judge.rs"]
mod judge;

use libtest_mimic::{Failed, Trial};

use crate::host::{Host, app_dir, check};
use crate::support::Leftovers;

/// The cases of this file.
pub(crate) fn cases() -> Vec<Trial> {
    vec![Trial::test(
        "http::every_case_is_read_in_one_way",
        every_case,
    )]
}

fn every_case() -> Result<(), Failed> {
    let before = Leftovers::count();
    let mut host = Host::with("[timings]\nmetrics_period = 1\nstop_grace = 2\n")?;
    let dir = tempfile::tempdir()?;
    let server = std::path::Path::new(&app_dir("odd")).join("server.py");
    std::fs::copy(server, dir.path().join("server.py"))?;
    std::fs::write(dir.path().join("requirements.txt"), "")?;
    std::fs::write(dir.path().join("Procfile"), "web: python3 server.py\n")?;
    host.ok(&["create", "odd"])?;
    host.ok(&["deploy", &dir.path().display().to_string(), "-a", "odd"])?;
    host.eventually("web.1 is up", || host.all_up("odd", &["web.1"]))?;
    let faults = judge::faults(host.http, || {
        let logs = host.logs("odd");
        logs.lines().filter(|l| l.contains(" dyno=web.1 ")).count()
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
    host.stop()?;
    Leftovers::none_since(&before)
}
