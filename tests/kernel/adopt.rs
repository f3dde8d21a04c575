//! Supervisors that are killed or replaced: dynos, requests, logs and statuses outlive them.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use libtest_mimic::{Failed, Trial};
use nix::sys::signal::Signal;

use crate::attack::{As, Report};
use crate::certain::{firsts, keeper, supervisor};
use crate::host::{Host, check, contains};
use crate::load::{Load, Outcome, told};
use crate::support::{self, Leftovers};

/// The cases of this file.
pub(crate) fn cases() -> Vec<Trial> {
    vec![
        Trial::test(OUTLIVE, outlive),
        Trial::test(
            "adopt::what_cannot_take_over_is_refused_or_restarts_everything",
            strangers,
        ),
    ]
}

const OUTLIVE: &str = "adopt::dynos_requests_and_logs_outlive_a_supervisor";

/// Prints its numbers, fifty a second.
const COUNT: &str = "import itertools, time
for n in itertools.count():
    print(f'number {n}', flush=True)
    time.sleep(0.02)
";

/// Answers. Its backlog has room for those that waited: Python's own has five places.
const ANSWER: &str = "import http.server, os
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1024
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header('Content-Length', '2')
        self.end_headers()
        self.wfile.write(b'ok')
    def log_message(self, *_):
        pass
Server(('0.0.0.0', int(os.environ['PORT'])), Handler).serve_forever()
";

/// Lines that a supervisor may have read and not yet written when it is killed: some hundredths of a
/// second on an idle machine.
const UNWRITTEN: usize = 25;

/// Requests a second.
const RATE: u32 = 100;

/// Requests that may be on their way through a supervisor when it is killed.
const IN_FLIGHT: usize = 10;

/// A host whose program lies at a path of its own, as if installed there.
fn installed() -> Result<(Host, PathBuf), Failed> {
    let mut host = Host::unlaunched("[timings]\nstop_grace = 2\n")?;
    let program = host.dir.path().join("manifold");
    install(&program, &support::manifold())?;
    // The guest names its program for all tests: the keeper would start supervisors from there.
    let become_it = format!(
        "shift; unset MANIFOLD_BIN; exec {} \"$@\"",
        program.display()
    );
    host.wrapper = ["sh", "-c", &become_it, "sh"].map(str::to_owned).to_vec();
    host.launch()?;
    Ok((host, program))
}

/// Puts another file in a program's place, in one step.
fn install(program: &Path, new: &Path) -> Result<(), Failed> {
    let part = program.with_extension("part");
    std::fs::copy(new, &part)?;
    std::fs::set_permissions(&part, std::fs::Permissions::from_mode(0o755))?;
    Ok(std::fs::rename(&part, program)?)
}

/// Puts a script in a program's place.
fn install_script(program: &Path, text: &str) -> Result<(), Failed> {
    let script = program.with_extension("sh");
    std::fs::write(&script, format!("#!/bin/sh\n{text}\n"))?;
    install(program, &script)
}

/// An app with one dyno of this script.
fn deploy(host: &Host, app: &str, process: &str, script: &str) -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("requirements.txt"), "")?;
    let procfile = format!("{process}: python3 main.py\n");
    std::fs::write(dir.path().join("Procfile"), procfile)?;
    std::fs::write(dir.path().join("main.py"), script)?;
    host.ok(&["create", app, "--no-remote"])?;
    host.ok(&["deploy", &dir.path().display().to_string(), "-a", app])?;
    host.ok(&["ps:scale", &format!("{process}=1"), "-a", app])?;
    let dyno = format!("{process}.1");
    host.eventually("its dyno is up", || host.all_up(app, &[&dyno]))
}

/// The numbers in the log.
fn numbers(host: &Host) -> BTreeSet<usize> {
    let logs = host.logs("count");
    let lines = logs.lines().filter(|line| line.contains("app[worker.1]"));
    lines
        .filter_map(|line| line.rsplit_once("number ")?.1.parse().ok())
        .collect()
}

/// How many are missing between the first and the last, once `more` have come.
fn missing(host: &Host, more: usize) -> Result<usize, Failed> {
    let last = |all: &BTreeSet<usize>| all.last().copied().unwrap_or_default();
    let before = last(&numbers(host));
    host.eventually("it counts on", || last(&numbers(host)) > before + more)?;
    let all = numbers(host);
    let first = all.first().copied().unwrap_or_default();
    Ok(last(&all) + 1 - first - all.len())
}

/// How many are missing; more than `most` are a failure.
fn lost(host: &Host, most: usize) -> Result<usize, Failed> {
    let lost = missing(host, 10)?;
    let told = format!("{lost} lines lost: {}", host.logs("count"));
    check(lost <= most, told)?;
    Ok(lost)
}

fn dynos(host: &Host) -> BTreeSet<u32> {
    firsts(host).into_iter().collect()
}

/// Another supervisor than this one answers.
fn succeeded(host: &Host, old: u32) -> Result<(), Failed> {
    host.eventually("another supervisor answers", || {
        supervisor(host).is_some_and(|new| new != old) && host.all_up("tiny", &["web.1"])
    })
}

fn outlive() -> Result<(), Failed> {
    let mut report = Report::new(OUTLIVE);
    report.holds("R-03", As::User, || {
        let before = Leftovers::count();
        let (mut host, program) = installed()?;
        deploy(&host, "tiny", "web", ANSWER)?;
        deploy(&host, "count", "worker", COUNT)?;
        let pids = dynos(&host);
        check(pids.len() == 2, format!("{pids:?}"))?;
        let upgraded = upgrades(&host, &program)?;
        check(dynos(&host) == pids, "the same dynos after upgrades")?;
        let killed = kills(&host)?;
        check(dynos(&host) == pids, "the same dynos after kills")?;
        let starts = host.logs("count").matches("Starting process").count();
        check(starts <= 1, format!("{starts} starts"))?;
        host.stop()?;
        Leftovers::none_since(&before)?;
        Ok(format!("{upgraded}; {killed}"))
    });
    report.finish(&[As::User])
}

/// New versions under load: nothing fails, no line is lost.
fn upgrades(host: &Host, program: &Path) -> Result<String, Failed> {
    missing(host, 10)?;
    let load = Load::start(host.http, "tiny.localhost", RATE);
    for _ in 0..2 {
        let old = supervisor(host).ok_or("no supervisor")?;
        install(program, &support::manifold())?;
        contains(&host.ok(&["upgrade"])?, "runs")?;
        succeeded(host, old)?;
        let new = supervisor(host).ok_or("no supervisor")?;
        let exe = std::fs::read_link(format!("/proc/{new}/exe"))?;
        check(exe == program, format!("it runs {}", exe.display()))?;
    }
    let Outcome {
        sent,
        failed,
        longest,
        ..
    } = load.end();
    let count = failed.len();
    check(
        failed.is_empty(),
        format!("{count} of {sent}: {}\n{}", told(&failed), host.story()),
    )?;
    lost(host, 0)?;
    Ok(format!(
        "2 upgrades: 0 of {sent} requests failed, the longest took {longest:.1?}, no line lost"
    ))
}

/// The same with `kill -9`: only what was on its way is lost.
fn kills(host: &Host) -> Result<String, Failed> {
    const KILLS: usize = 3;
    let load = Load::start(host.http, "tiny.localhost", RATE);
    for _ in 0..KILLS {
        // Those that waited for the supervisor before are on their way all at once.
        host.eventually("they are served", || {
            load.sent() > IN_FLIGHT && load.waiting() <= IN_FLIGHT / 2
        })?;
        let old = supervisor(host).ok_or("no supervisor")?;
        support::signal(old, Signal::SIGKILL);
        succeeded(host, old)?;
    }
    let Outcome {
        sent,
        failed,
        longest,
        ..
    } = load.end();
    let count = failed.len();
    let bounded = format!(
        "{count} of {sent} requests failed in {KILLS} kills, the longest took {longest:.1?}"
    );
    check(
        count <= KILLS * IN_FLIGHT,
        format!("{bounded}: {}", told(&failed)),
    )?;
    let lost = lost(host, KILLS * UNWRITTEN)?;
    Ok(format!("{bounded}, {lost} lines lost"))
}

/// A program that does not run is refused; one that speaks otherwise takes the place of everything.
fn strangers() -> Result<(), Failed> {
    let before = Leftovers::count();
    let (mut host, program) = installed()?;
    let real = host.dir.path().join("real");
    install(&real, &support::manifold())?;
    let real = real.display();
    host.deploy_tiny("tiny")?;
    let (pids, first, parent) = (dynos(&host), supervisor(&host), keeper(&host));

    install_script(&program, "echo 'no such library' >&2; exit 3")?;
    let refused = host.cli(&["upgrade"]);
    check(!refused.status.success(), format!("{refused:?}"))?;
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    contains(&why, "does not start: no such library")?;
    std::fs::remove_file(&program)?;
    check(!host.cli(&["upgrade"]).status.success(), "there is none")?;
    check(host.all_up("tiny", &["web.1"]), "the old one goes on")?;
    check(
        (dynos(&host), supervisor(&host)) == (pids.clone(), first),
        "with its dynos",
    )?;

    // It says so when asked.
    install_script(
        &program,
        &format!("[ $1 = __check ] && echo 9.9.9 999 || exec {real} \"$@\""),
    )?;
    let renewed = host.cli(&["upgrade"]);
    check(renewed.status.success(), format!("{renewed:?}"))?;
    let told = String::from_utf8_lossy(&renewed.stderr).into_owned();
    contains(&told, "everything restarts, dynos included")?;
    succeeded(&host, first.unwrap_or_default())?;
    check(dynos(&host).is_disjoint(&pids), "new dynos")?;
    check(
        keeper(&host) == parent,
        "the service manager sees the same process",
    )?;
    contains(&host.logs("tiny"), "Stopping all processes with SIGTERM")?;
    host.stop()?;

    // It says so only to the keeper.
    let script = format!(
        "[ $1 = supervise ] && [ $2 = --keeper-fd ] && export MANIFOLD_TEST_ONLY_PROTOCOL=999; exec {real} \"$@\""
    );
    install(&program, &support::manifold())?;
    host.launch()?;
    host.eventually("web.1 is up", || host.all_up("tiny", &["web.1"]))?;
    let (pids, first) = (dynos(&host), supervisor(&host).unwrap_or_default());
    install_script(&program, &script)?;
    host.ok(&["upgrade"])?;
    succeeded(&host, first)?;
    check(dynos(&host).is_disjoint(&pids), "new dynos")?;
    contains(&host.story(), "everything starts anew, dynos included")?;
    host.stop()?;
    Leftovers::none_since(&before)
}
