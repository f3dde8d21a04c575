//! Attacks that look for a seam between a dyno and what the platform does beside it: writes to
//! /proc, shared mounts, visitors, its logs, its configuration, its state directory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use libtest_mimic::Failed;

use super::around::{as_nobody, command, family, inside, up};
use super::{As, Report};
use crate::host::{Host, app_dir, check, contains};
use crate::support::Leftovers;

/// The name of the test, as the rows have it.
pub(super) const TEST: &str = "attack::beside_a_dyno";

const SECRET: &str = "canary-of-config";
const OLD_SECRET: &str = "canary-of-the-past";
const OTHER_SECRET: &str = "canary-of-another-app";

type Check = fn(&Host) -> Result<String, Failed>;

pub(super) fn run() -> Result<(), Failed> {
    let before = Leftovers::count();
    let mut host = Host::with("[timings]\nstop_grace = 2\n")?;
    for (app, secret) in [("tiny", OLD_SECRET), ("other", OTHER_SECRET)] {
        host.ok(&["create", app])?;
        host.ok(&["config:set", &format!("SECRET={secret}"), "-a", app])?;
        host.ok(&["deploy", &app_dir("tiny"), "-a", app])?;
    }
    host.ok(&["config:set", &format!("SECRET={SECRET}"), "-a", "tiny"])?;
    host.ok(&["ps:scale", "web=1", "worker=1", "-a", "tiny"])?;
    up(&host)?;
    let mut report = Report::new(TEST);
    let checks: [(&str, Check); 7] = [
        ("F-05", shared_mounts),
        ("T-05", visitors),
        ("L-01", forged_lines),
        ("L-02", foreign_config),
        ("L-03", told_config),
        ("L-09", planted_state),
        // This spoils the slug: last.
        ("F-04", planted_proc),
    ];
    for (id, act) in checks {
        report.holds(id, As::User, || act(&host));
    }
    host.stop()?;
    Leftovers::none_since(&before)?;
    report.finish(&[As::User])
}

/// Device numbers of the mounts of a process that can be written to, by place.
fn writable_mounts(pid: u32) -> Result<BTreeMap<String, String>, Failed> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [_, _, device, _, target, options, ..] = fields[..] else {
            return Err(format!("mountinfo: {line}").into());
        };
        if options.split(',').any(|option| option == "rw") {
            found.insert(target.to_owned(), device.to_owned());
        }
    }
    Ok(found)
}

/// No file system that one dyno writes to is another's, so nobody can move a bind target of
/// somebody else while it is made.
fn shared_mounts(host: &Host) -> Result<String, Failed> {
    let (web, worker) = (command(host, "web.1")?, command(host, "worker.1")?);
    let (web, worker) = (writable_mounts(web)?, writable_mounts(worker)?);
    check(web.contains_key("/"), format!("the root: {web:?}"))?;
    let places = |mounts: &BTreeMap<String, String>| mounts.keys().cloned().collect::<Vec<_>>();
    check(
        places(&web) == places(&worker),
        format!("{web:?} {worker:?}"),
    )?;
    let devices: BTreeSet<&String> = web.values().collect();
    let shared: Vec<_> = worker.values().filter(|d| devices.contains(d)).collect();
    check(shared.is_empty(), format!("both write to {shared:?}"))?;
    let own = std::fs::metadata(host.dir.path())?;
    let state = std::os::unix::fs::MetadataExt::dev(&own);
    let state = format!(
        "{}:{}",
        nix::sys::stat::major(state),
        nix::sys::stat::minor(state)
    );
    check(
        !web.values().any(|device| *device == state),
        "a dyno writes to the host's own file system",
    )?;
    Ok(format!(
        "{} writable mounts each, none in common",
        web.len()
    ))
}

/// Processes in the pid namespace of a process.
fn residents(pid: u32) -> Result<BTreeSet<u32>, Failed> {
    let home = std::fs::read_link(format!("/proc/{pid}/ns/pid"))?;
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(other) = name.parse::<u32>() else {
            continue;
        };
        if std::fs::read_link(entry.path().join("ns/pid")).is_ok_and(|link| link == home) {
            found.insert(other);
        }
    }
    Ok(found)
}

/// Whatever is asked of a running dyno, no process of the platform comes into it.
fn visitors(host: &Host) -> Result<String, Failed> {
    let web = command(host, "web.1")?;
    let first = residents(web)?;
    let acts: [&[&str]; 7] = [
        &["run", "-a", "tiny", "--", "true"],
        &["ps", "-a", "tiny"],
        &["logs", "-a", "tiny"],
        &["security", "tiny"],
        &["network", "-a", "tiny"],
        &["disk"],
        &[
            "run",
            "-a",
            "tiny",
            "--",
            "sh",
            "-c",
            "ls /proc | grep -c '^[0-9]'",
        ],
    ];
    let looks = std::thread::scope(|scope| -> Result<usize, Failed> {
        let busy = scope.spawn(|| {
            acts.iter().try_for_each(|act| host.ok(act).map(drop))?;
            for _ in 0..20 {
                host.get("tiny.localhost", "/").ok_or("no answer")?;
            }
            Ok::<_, Failed>(())
        });
        let mut looks = 0;
        while !busy.is_finished() {
            let now = residents(web)?;
            check(now == first, format!("{first:?} became {now:?}"))?;
            looks += 1;
        }
        busy.join().unwrap_or_else(|_| Err("it panicked".into()))?;
        Ok(looks)
    })?;
    check(looks > 3, format!("only {looks} looks"))?;
    Ok(format!(
        "{looks} looks: its {} processes, no other",
        first.len()
    ))
}

const FORGE: &str = r#"
import sys
time = "2026-01-01T00:00:00.000000+00:00"
for line in (
    time + " heroku[router]: at=info forged-router",
    "heroku[web.1]: State changed from up to crashed forged-state",
    "\r" + time + " heroku[web.1]: forged-return",
    "<13>1 " + time + " host heroku web.1 - forged-syslog",
    "x\0" + time + " app[web.1]: forged-nul",
    "1767225600000000 h router forged-record",
    "\x1b[1A\x1b[2K" + time + " heroku[api]: forged-escape",
    "\u2028" + time + " heroku[api]: forged-separator",
):
    sys.stdout.write(line + "\n")
sys.stdout.buffer.write(b"\xff\xfe heroku[web.1]: forged-bytes\n")
sys.stdout.write("heroku[router]: forged-unfinished")
"#;

/// Source, process and time of each line are the platform's.
fn forged_lines(host: &Host) -> Result<String, Failed> {
    let words = ["run:detached", "-a", "tiny", "--", "python3", "-c", FORGE];
    host.ok(&words)?;
    let marks = [
        "forged-router",
        "forged-state",
        "forged-return",
        "forged-syslog",
        "forged-nul",
        "forged-record",
        "forged-escape",
        "forged-separator",
        "forged-bytes",
        "forged-unfinished",
    ];
    host.eventually("all is in the log", || {
        let logs = host.logs("tiny");
        marks.iter().all(|mark| logs.contains(mark))
    })?;
    let text = host.logs("tiny");
    // The platform quotes the command, in one line of its own.
    let quoted = |line: &&str| line.contains("Starting process with command");
    check(
        text.split('\n')
            .filter(quoted)
            .any(|line| line.contains("forged-unfinished")),
        "a quoted command is cut at its newlines",
    )?;
    let forged = text
        .split('\n')
        .filter(|line| line.contains("forged-") && !quoted(line));
    for line in forged {
        let (time, rest) = line.split_once(' ').unwrap_or_default();
        check(
            !time.starts_with("2026-01-01T00:00:00.0") && rest.starts_with("app[run."),
            format!("a forged head: {line:?}"),
        )?;
        let heads = line.matches("forged-").count();
        check(heads == 1, format!("two lines in one: {line:?}"))?;
    }
    let platform = host.ok(&["logs", "-a", "tiny", "-n", "1500", "--source", "heroku"])?;
    let as_ours = platform
        .lines()
        .find(|line| line.contains("forged-") && !quoted(line));
    check(as_ours.is_none(), format!("as ours: {as_ours:?}"))?;
    Ok("10 forged lines, each app[run.N] with the platform's time".to_owned())
}

/// Everything a process may read, for what it must not know.
fn foreign_config(host: &Host) -> Result<String, Failed> {
    // The script itself must not have the words.
    let script = "env | grep -c '^SECRET=canary-o[f]-config$'
         cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' >/tmp/seen
         cp -r /etc /run /var /app /opt /srv /home /root /media /mnt /tmp/copies 2>/dev/null
         mkdir -p /tmp/copies; for d in /etc /run /var /app /tmp; do grep -rlaE 'canary-[o]f-(the|another)' $d 2>/dev/null; done
         grep -aE 'canary-[o]f-(the|another)' /tmp/seen; true";
    let text = inside(host, script);
    check(
        text.trim() == "1",
        format!("its own, and nothing else: {text}"),
    )?;
    let env = host.get("tiny.localhost", "/env").ok_or("no answer")?.1;
    contains(&env, &format!("SECRET={SECRET}"))?;
    for secret in [OLD_SECRET, OTHER_SECRET] {
        check(!env.contains(secret), format!("{secret} in {env}"))?;
    }
    Ok("neither another app's nor an earlier release's".to_owned())
}

/// Files of the state directory that hold a text, but for the store and the volumes of dynos.
fn holders(dir: &Path, text: &str) -> Result<String, Failed> {
    let output = std::process::Command::new("grep")
        .args(["-rlaF", "--exclude=manifold.db*"])
        // File systems of dynos: holes, in what grep takes for one line.
        .args(["--exclude=*.img", "--exclude-dir=volumes", text])
        .arg(dir)
        .output()?;
    let searched = output.status.code().is_some_and(|code| code < 2);
    check(searched, format!("{output:?}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn told_config(host: &Host) -> Result<String, Failed> {
    // Errors that have to do with config vars and launches.
    let long = format!("SECRET={SECRET}{}", "x".repeat(70_000));
    let refused = host.cli(&["config:set", &long, "-a", "tiny"]);
    check(!refused.status.success(), "70 kB are too much")?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    check(!said.contains(SECRET), said)?;
    host.cli(&["run", "-a", "tiny", "--", "/nowhere"]);
    for place in [host.journal(), host.dir.path().join("manifold.toml")] {
        let text = std::fs::read_to_string(&place)?;
        check(!text.contains(SECRET), format!("in {}", place.display()))?;
    }
    check(!host.logs("tiny").contains(SECRET), "in the app's log")?;
    let held = holders(&host.dir.path().join("state"), SECRET)?;
    check(held.is_empty(), format!("on disk: {held}"))?;
    // What an ordinary user sees of all processes: their arguments.
    let listed = std::process::Command::new("ps")
        .args(["-eo", "args"])
        .output()?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let (supervisor, _) = family(host)?;
    let own = std::fs::read_to_string(format!("/proc/{supervisor}/cmdline"))?;
    contains(&own, "--keeper-fd")?;
    check(!listed.contains(SECRET), "in the arguments of a process")?;
    Ok("not in the journal, errors, logs, files beside the store, arguments".to_owned())
}

/// An ordinary user cannot plant anything below the state directory.
fn planted_state(host: &Host) -> Result<String, Failed> {
    let state = host.dir.path().join("state");
    let mode: std::fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(host.dir.path(), mode)?;
    for name in [
        "", "trees", "dynos", "slugs", "sources", "builds", "logs", "cache",
    ] {
        let path = state.join(name);
        check(path.is_dir(), format!("{} is there", path.display()))?;
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path)?.permissions());
        check(mode & 0o777 == 0o700, format!("{name}: {mode:o}"))?;
        check(
            !as_nobody("touch", &path.join("planted"))?,
            format!("nobody writes to {}", path.display()),
        )?;
    }
    check(
        as_nobody("ls", host.dir.path())?,
        "nobody may look at the way to it",
    )?;
    Ok("8 directories are 0700; an ordinary user makes nothing in them".to_owned())
}

/// A slug with a /proc of its own, made of links to a canary.
fn planted_proc(host: &Host) -> Result<String, Failed> {
    let canary = host.dir.path().join("canary-of-proc");
    std::fs::write(&canary, "untouched")?;
    let files = [
        "self/uid_map",
        "self/gid_map",
        "self/setgroups",
        "self/oom_score_adj",
        "self/timerslack_ns",
        "self/attr/exec",
        "thread-self/attr/exec",
        "sys/user/max_user_namespaces",
        "sys/kernel/hostname",
        "sys/net/ipv4/ip_forward",
        "1/uid_map",
        "1/oom_score_adj",
    ];
    let trees = std::fs::read_dir(host.dir.path().join("state/trees"))?.flatten();
    let planted: Vec<_> = trees.map(|tree| tree.path().join("proc")).collect();
    for path in planted
        .iter()
        .flat_map(|proc| files.map(|file| proc.join(file)))
    {
        std::fs::create_dir_all(path.parent().ok_or("no parent")?)?;
        std::os::unix::fs::symlink(&canary, &path)?;
    }
    let text = inside(
        host,
        "stat -f -c %T /proc /proc/self/; cat /proc/self/oom_score_adj; \
         awk '{ print $1, $3 }' /proc/self/uid_map; stat -c %F /proc/self/uid_map",
    );
    for proc in planted {
        std::fs::remove_dir_all(proc)?;
    }
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    check(
        lines == ["proc", "proc", "0", "0 65536", "regular empty file"],
        format!("{lines:?}"),
    )?;
    check(
        std::fs::read_to_string(&canary)? == "untouched",
        "a write was redirected",
    )?;
    Ok(format!(
        "{} links under /proc: the host's own was written",
        files.len()
    ))
}
