//! `cargo xtask demo`: the main job on real input, from nothing, without a question.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::leftovers::Leftovers;
use crate::platform::Platform;
use crate::vm::Binaries;
use crate::{packages, process};

/// Longest wait for dynos to be up.
const UP: Duration = Duration::from_mins(2);

/// Runs the command.
pub(crate) fn run() -> Result<ExitCode> {
    packages::install(packages::DEMO)?;
    println!("building manifold");
    let program = Binaries::program(false)?;
    let before = Leftovers::count();
    let platform = Platform::start(&program, "info")?;
    let shown = show(&platform);
    let stopped = platform.stop();
    let left = Leftovers::since(&before);
    shown?;
    stopped?;
    ensure!(left.is_empty(), "left behind: {left:#?}");
    epilogue(&program);
    Ok(ExitCode::SUCCESS)
}

fn heading(text: &str) {
    println!("\n==> {text}");
}

fn show(platform: &Platform) -> Result<()> {
    heading("a Flask app from PyPI and an Express app from npm, from folder to URL");
    for (app, folder) in [("shop", "tests/apps/flask"), ("blog", "tests/apps/express")] {
        platform.show(&["create", app, "--no-remote"])?;
        platform.show(&["deploy", folder, "--app", app])?;
        platform.await_up(app, &["web.1"], UP)?;
    }
    heading("scaled");
    platform.show(&["ps:scale", "web=2", "worker=1", "--app", "shop"])?;
    platform.show(&["ps:scale", "web=2", "--app", "blog"])?;
    platform.await_up("shop", &["web.1", "web.2", "worker.1"], UP)?;
    platform.await_up("blog", &["web.1", "web.2"], UP)?;
    platform.show(&["ps", "--app", "shop"])?;
    heading("reached over HTTP, by host name");
    for app in ["shop", "blog"] {
        let host = format!("{app}.localhost");
        let mut bodies = std::collections::BTreeMap::new();
        for _ in 0..20 {
            let (status, body) = platform.get(&host, "/")?;
            ensure!(status == 200, "{host} answered {status}: {body}");
            *bodies.entry(body.trim().to_owned()).or_insert(0) += 1;
        }
        println!(
            "$ curl -H 'Host: {host}' http://{}/   (20 times)",
            platform.http
        );
        for (body, count) in &bodies {
            println!("{count:>4} x {body}");
        }
        ensure!(bodies.len() == 2, "both dynos of {app} answer: {bodies:?}");
    }
    heading("a one-off dyno: its own file system, no privileges, the command's exit status");
    platform.show(&[
        "run",
        "--app",
        "shop",
        "--",
        "bash",
        "-c",
        "id; hostname; ls -A /root 2>&1; grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status",
    ])?;
    heading("configuration makes a release");
    platform.show(&["config:set", "GREETING=hello", "--app", "shop"])?;
    platform.await_up("shop", &["web.1", "web.2", "worker.1"], UP)?;
    platform.show(&["releases", "--app", "shop"])?;
    heading("kill -9 of the app's process: seen, logged, restarted");
    crash(platform)?;
    platform.show(&[
        "logs", "--app", "shop", "--dyno", "web.1", "--source", "heroku", "--num", "6",
    ])?;
    platform.show(&["logs", "--app", "blog", "--dyno", "router", "--num", "3"])?;
    for app in ["shop", "blog"] {
        platform.show(&["destroy", "--app", app, "--confirm", app])?;
    }
    Ok(())
}

/// Kills web.1 of the shop from outside and waits until it serves again.
fn crash(platform: &Platform) -> Result<()> {
    // By its config too: the one of the release before may still be shutting down.
    let variables = ["DYNO=web.1", "GREETING=hello"];
    let pid = first_process(platform.dir(), &variables, "gunicorn")
        .context("the process of web.1 was not found")?;
    println!("$ kill -9 {pid}");
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    let lines = [
        "heroku[web.1]: Process exited with status 137",
        "heroku[web.1]: State changed from up to crashed",
        "heroku[web.1]: State changed from crashed to starting",
    ];
    let mut logs = String::new();
    let is_logged = process::wait_for(UP, || {
        logs = platform.logs("shop");
        lines.iter().all(|line| logs.contains(line))
    });
    process::keep_going()?;
    ensure!(is_logged, "the crash is not in the log:\n{logs}");
    platform.await_up("shop", &["web.1", "web.2", "worker.1"], UP)
}

/// The oldest process of this platform with those variables and that word: the launched command.
fn first_process(dir: &Path, variables: &[&str], word: &str) -> Option<i32> {
    let mut found: Vec<i32> = fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let has = |bytes: Vec<u8>, text: &str| {
                String::from_utf8_lossy(&bytes)
                    .split('\0')
                    .any(|part| part.contains(text))
            };
            variables
                .iter()
                .all(|variable| has(read("environ"), variable))
                && has(read("cmdline"), word)
                && is_below(*pid, dir)
        })
        .collect();
    found.sort_unstable();
    found.first().copied()
}

/// True if an ancestor of the process is the keeper of this directory.
fn is_below(mut pid: i32, dir: &Path) -> bool {
    let dir = dir.display().to_string();
    while pid > 1 {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).into_owned();
        if words.contains("__keep") && words.contains(&dir) {
            return true;
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        pid = parent.and_then(|p| p.trim().parse().ok()).unwrap_or(0);
    }
    false
}

fn epilogue(program: &Path) {
    let program = program.display();
    println!(
        "
==> done, and everything is cleaned up

Shown: a Flask app from PyPI and an Express app from npm were uploaded, built in isolated build
dynos, released, launched as isolated dynos, scaled to web=2, reached through the router, given
configuration, killed and restarted, and destroyed.

By hand:
  sudo {program} supervise                    # in one terminal
  sudo {program} create hello                 # in another
  sudo {program} deploy tests/apps/flask --app hello
  curl -H 'Host: hello.localhost' http://127.0.0.1:8080/
  sudo {program} logs --tail --app hello

Apps run on the stack `host` (this machine's own /usr). A stack of its own, Debian 13, is built by
  sudo {program} stacks:build cedar"
    );
}
