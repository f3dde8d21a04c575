//! The main job, end to end: the real binary, a real supervisor, the real CLI, a real app.

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use libtest_mimic::{Failed, Trial};

use crate::host::{Host, PATIENCE, app_dir, check, contains, deployed};
use crate::support::{self, Leftovers};

/// The cases of this file.
pub(crate) fn cases() -> Vec<Trial> {
    vec![
        Trial::test(
            "journey::an_app_goes_from_folder_to_router_and_back",
            main_job,
        ),
        Trial::test("journey::a_killed_app_is_seen_crash_and_restart", crash),
        Trial::test(
            "journey::one_off_dynos_pass_streams_status_and_a_pristine_tree",
            one_off,
        ),
        Trial::test(
            "journey::bad_input_changes_nothing_and_says_what_to_do",
            bad_input,
        ),
        Trial::test(
            "journey::a_supervisor_restart_keeps_state_and_sweeps_the_rest",
            restart,
        ),
        Trial::test(
            "journey::a_service_manager_is_told_of_start_and_stop",
            service_manager,
        ),
    ]
}

fn main_job() -> Result<(), Failed> {
    let before = Leftovers::count();
    let mut host = Host::start()?;
    host.ok(&["create", "tiny"])?;
    let output = host.ok(&["deploy", &app_dir("tiny"), "-a", "tiny"])?;
    contains(&output, "-----> Python app detected")?;
    contains(&output, "Procfile declares types -> stubborn, web, worker")?;
    contains(&output, "Released v3")?;
    host.eventually("web.1 is up", || host.all_up("tiny", &["web.1"]))?;

    host.ok(&["ps:scale", "web=2", "worker=1", "-a", "tiny"])?;
    let names = ["web.1", "web.2", "worker.1"];
    host.eventually("web=2 worker=1", || host.all_up("tiny", &names))?;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..64 {
        let (status, body) = host.get("tiny.localhost", "/").ok_or("no answer")?;
        check(status == 200, format!("{status}: {body}"))?;
        seen.insert(body);
    }
    check(seen.len() == 2, format!("both dynos answer: {seen:?}"))?;

    host.ok(&["config:set", "COLOUR=teal", "-a", "tiny"])?;
    host.eventually("the new config arrives", || {
        host.get("tiny.localhost", "/env")
            .is_some_and(|(_, body)| body.contains("COLOUR=teal"))
    })?;
    contains(
        &host.ok(&["releases", "-a", "tiny"])?,
        "Set COLOUR config vars",
    )?;
    host.ok(&["rollback", "v3", "-a", "tiny"])?;
    host.eventually("the rollback arrives", || {
        host.get("tiny.localhost", "/env")
            .is_some_and(|(_, body)| !body.contains("COLOUR"))
    })?;

    host.ok(&["domains:add", "www.example.com", "-a", "tiny"])?;
    host.eventually("the domain routes", || {
        host.get("www.example.com", "/")
            .is_some_and(|(status, _)| status == 200)
    })?;
    host.ok(&["maintenance:on", "-a", "tiny"])?;
    host.eventually("H80", || {
        host.get("tiny.localhost", "/")
            .is_some_and(|(s, _)| s == 503)
    })?;
    host.ok(&["maintenance:off", "-a", "tiny"])?;
    host.eventually("no H80", || {
        host.get("tiny.localhost", "/")
            .is_some_and(|(s, _)| s == 200)
    })?;
    check(
        host.get("nobody.localhost", "/")
            .is_some_and(|(s, _)| s == 404),
        "unknown host: 404",
    )?;

    let logs = host.logs("tiny");
    contains(&logs, "heroku[web.1]: State changed from starting to up")?;
    contains(&logs, "app[worker.1]: worker works")?;
    contains(
        &logs,
        "heroku[router]: at=info method=GET path=\"/\" host=tiny.localhost",
    )?;
    contains(&logs, "code=H80 desc=\"Maintenance mode\"")?;
    contains(&logs, "app[api]: Scaled to")?;

    host.ok(&["ps:scale", "web=0", "worker=0", "-a", "tiny"])?;
    host.eventually("all are gone", || host.states("tiny").is_empty())?;
    check(
        host.get("tiny.localhost", "/")
            .is_some_and(|(s, _)| s == 503),
        "H14 is a 503",
    )?;
    contains(
        &host.logs("tiny"),
        "code=H14 desc=\"No web processes running\"",
    )?;
    host.ok(&["destroy", "-a", "tiny", "--confirm", "tiny"])?;
    host.stop()?;
    Leftovers::none_since(&before)
}

fn crash() -> Result<(), Failed> {
    let host = deployed()?;
    // `kill -9` from outside, by a pid found through the process's own environment.
    let pid = support::find_process(
        |environ| environ.iter().any(|v| v == "DYNO=web.1"),
        host.dir.path(),
    )
    .ok_or("the app's process was not found")?;
    support::signal(pid, nix::sys::signal::Signal::SIGKILL);
    host.eventually("the crash is logged", || {
        host.logs("tiny")
            .contains("heroku[web.1]: State changed from up to crashed")
    })?;
    host.eventually("web.1 is up again", || host.all_up("tiny", &["web.1"]))?;
    let logs = host.logs("tiny");
    let lines = [
        "heroku[web.1]: Process exited with status 137",
        "heroku[web.1]: State changed from up to crashed",
        "heroku[web.1]: State changed from crashed to starting",
    ];
    for line in lines {
        contains(&logs, line)?;
    }
    host.eventually("it serves again", || {
        host.get("tiny.localhost", "/")
            .is_some_and(|(status, _)| status == 200)
    })
}

fn one_off() -> Result<(), Failed> {
    let host = deployed()?;
    let run = |command: &str, input: &[u8]| {
        host.cli_with_input(&["run", "-a", "tiny", "--", "bash", "-c", command], input)
    };
    let output = run("cat; echo err >&2; exit 7", b"through stdin");
    check(
        output.status.code() == Some(7),
        format!("status: {output:?}"),
    )?;
    check(
        output.stdout == b"through stdin",
        format!("stdout: {output:?}"),
    )?;
    contains(&String::from_utf8_lossy(&output.stderr), "err")?;

    let output = run("touch /app/mark; ls /app", b"");
    contains(&String::from_utf8_lossy(&output.stdout), "mark")?;
    let output = run("ls /app", b"");
    let listing = String::from_utf8_lossy(&output.stdout).into_owned();
    contains(&listing, "server.py")?;
    check(
        !listing.contains("mark"),
        format!("a pristine tree each time: {listing}"),
    )?;

    let output = run("kill -TERM $$", b"");
    check(
        output.status.code() == Some(143),
        format!("killed by TERM is 143: {output:?}"),
    )?;
    let status = "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; id -u";
    let text = String::from_utf8_lossy(&run(status, b"").stdout).into_owned();
    contains(&text, "CapEff:\t0000000000000000")?;
    contains(&text, "CapBnd:\t0000000000000000")?;
    contains(&text, "NoNewPrivs:\t1")?;
    contains(&text, "Seccomp:\t2")?;
    contains(&text, "1000")?;

    host.ok(&["run:detached", "-a", "tiny", "--", "echo", "from afar"])?;
    host.eventually("the detached run is logged", || {
        host.logs("tiny").contains(": from afar")
    })?;
    host.eventually("only web.1 is left", || host.all_up("tiny", &["web.1"]))
}

fn bad_input() -> Result<(), Failed> {
    let host = deployed()?;
    let refused = |args: &[&str], needle: &str| -> Result<i32, Failed> {
        let output = host.cli(args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        check(
            !output.status.success(),
            format!("{args:?} must fail: {text}"),
        )?;
        contains(&text, needle)?;
        Ok(output.status.code().unwrap_or(-1))
    };
    let unknown = refused(&["ps", "-a", "nobody"], "find that app")?;
    let usage = refused(&["ps:scale", "web=x", "-a", "tiny"], "web=x")?;
    check(
        unknown != usage,
        "an unknown app and a bad word end with different statuses",
    )?;
    refused(&["ps:scale", "nosuch=1", "-a", "tiny"], "nosuch")?;
    refused(&["create", "Bad_Name"], "Name must")?;
    refused(&["create", "tiny"], "taken")?;
    refused(&["destroy", "-a", "tiny", "--confirm", "other"], "tiny")?;
    let empty = tempfile::tempdir()?;
    std::fs::write(empty.path().join("README"), "nothing to run")?;
    let dir = empty.path().display().to_string();
    let output = host.cli(&["deploy", &dir, "-a", "tiny"]);
    check(
        !output.status.success(),
        "a folder that no buildpack detects is refused",
    )?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    contains(&text, "No default language could be detected for this app.")?;
    host.ok(&["releases", "-a", "tiny"]).and_then(|text| {
        check(
            !text.contains("v4"),
            format!("nothing was released: {text}"),
        )
    })?;

    let nowhere = Command::new(support::manifold())
        .args(["apps"])
        .env("MANIFOLD_SOCKET", host.dir.path().join("nowhere.sock"))
        .output()?;
    contains(
        &String::from_utf8_lossy(&nowhere.stderr),
        "manifold supervise",
    )?;

    let second = Command::new(support::manifold())
        .args(["supervise", "--http", "127.0.0.1:0", "--state"])
        .arg(host.dir.path().join("state"))
        .arg("--socket")
        .arg(host.dir.path().join("second.sock"))
        .output()?;
    check(
        !second.status.success(),
        "the second supervisor of a state directory refuses",
    )?;
    contains(
        &String::from_utf8_lossy(&second.stderr),
        "another supervisor",
    )?;
    check(
        host.all_up("tiny", &["web.1"]),
        "nothing of the first was touched",
    )
}

fn restart() -> Result<(), Failed> {
    let before = Leftovers::count();
    let mut host = deployed()?;
    host.ok(&["config:set", "KEPT=yes", "-a", "tiny"])?;
    // The worst case: the keeper is killed, nothing is said to anybody.
    let keeper = host.process.take().ok_or("no process")?;
    support::signal(keeper.id(), nix::sys::signal::Signal::SIGKILL);
    let mut keeper = keeper;
    keeper.wait()?;
    host.eventually("the supervisor notices", || {
        !host.cli(&["apps"]).status.success()
    })?;
    host.launch()?;
    host.eventually("web.1 is up again", || host.all_up("tiny", &["web.1"]))?;
    contains(&host.ok(&["config:get", "KEPT", "-a", "tiny"])?, "yes")?;
    contains(&host.logs("tiny"), "Set KEPT config vars")?;
    host.stop()?;
    Leftovers::none_since(&before)
}

fn service_manager() -> Result<(), Failed> {
    let before = Leftovers::count();
    let dir = tempfile::Builder::new()
        .prefix(&support::dir_prefix())
        .tempdir_in("/var/tmp")?;
    support::prepare_state(&dir.path().join("state"))?;
    let socket = UnixDatagram::bind(dir.path().join("notify"))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut child = Command::new(support::manifold())
        .args(["supervise", "--http", "127.0.0.1:0", "--state"])
        .arg(dir.path().join("state"))
        .arg("--socket")
        .arg(dir.path().join("manifold.sock"))
        .env("NOTIFY_SOCKET", dir.path().join("notify"))
        .stderr(Stdio::null())
        .spawn()?;
    let told = || -> Result<String, Failed> {
        let mut buffer = [0; 256];
        let count = socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..count]).into_owned())
    };
    let first = told();
    support::signal(child.id(), nix::sys::signal::Signal::SIGTERM);
    let status = child.wait()?;
    contains(&first?, "READY=1")?;
    contains(&told()?, "STOPPING=1")?;
    check(
        status.success(),
        format!("SIGTERM is an orderly stop: {status}"),
    )?;
    Leftovers::none_since(&before)
}
