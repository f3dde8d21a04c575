//! Attacks that need both sides: what the host sees of dynos, and what it does to them.
//!
//! The supervisor is started with everything set that must not reach a dyno (`probe/hostile.py`).

use std::collections::BTreeSet;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libtest_mimic::Failed;
use nix::sys::signal::Signal;

use super::{As, Report, control, terminals};
use crate::certain::{groups_of, is_spare};
use crate::host::{Host, app_dir, check, contains};
use crate::support::{self, Leftovers};

/// The name of the test, as the rows have it.
pub(super) const TEST: &str = "attack::around_a_dyno";

const HOSTILE: &str = include_str!("probe/hostile.py");

/// The kinds of namespaces a dyno has of its own.
const NAMESPACES: [&str; 7] = ["user", "mnt", "pid", "net", "uts", "ipc", "cgroup"];

type Check = fn(&Host) -> Result<String, Failed>;

pub(super) fn run() -> Result<(), Failed> {
    let before = Leftovers::count();
    let mut host = Host::unlaunched("[timings]\nattach_timeout = 8\nstop_grace = 2\n")?;
    let script = host.dir.path().join("hostile.py");
    std::fs::write(&script, HOSTILE)?;
    host.wrapper = vec!["python3".to_owned(), script.display().to_string()];
    host.launch()?;
    host.ok(&["create", "tiny"])?;
    host.ok(&["deploy", &app_dir("tiny"), "-a", "tiny"])?;
    host.ok(&["config:set", "SECRET=canary-of-config", "-a", "tiny"])?;
    host.ok(&["ps:scale", "web=1", "worker=1", "-a", "tiny"])?;
    up(&host)?;
    let mut report = Report::new(TEST);
    let checks: [(&str, Check); 22] = [
        ("B-01", namespaces),
        ("B-04", host_ids),
        ("B-09", attributes),
        ("B-11", names),
        ("U-02", capabilities),
        ("U-03", users),
        ("F-07", propagation),
        ("F-12", fresh_layer),
        ("F-13", state_directory),
        ("E-04", stray_descriptors),
        ("E-06", own_secrets),
        ("Y-09", filtered_from_the_start),
        ("C-04", grouped_from_the_start),
        ("C-05", group_names),
        ("U-07", reuse_of_ids),
        ("K-10", super::cores::host_handler),
        ("T-01", terminals::injection),
        ("T-04", control::attach_secrets),
        // These end dynos or spoil the slug: last.
        ("B-10", death_of_the_supervisor),
        ("T-03", terminals::planted),
        ("F-02", super::links::in_the_slug),
        ("F-03", super::links::racing),
    ];
    for (id, act) in checks {
        report.holds(id, As::User, || act(&host));
    }
    host.stop()?;
    Leftovers::none_since(&before)?;
    report.finish(&[As::User])
}

pub(super) fn up(host: &Host) -> Result<(), Failed> {
    host.eventually("both dynos are up", || {
        host.all_up("tiny", &["web.1", "worker.1"])
    })
}

/// stdout and stderr of a shell script in a one-off dyno.
pub(super) fn inside(host: &Host, script: &str) -> String {
    let output = host.cli(&["run", "-a", "tiny", "--", "bash", "-c", script]);
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// Direct children of a process.
pub(super) fn children(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

pub(super) fn keeper(host: &Host) -> Result<u32, Failed> {
    Ok(host.process.as_ref().ok_or("no supervisor runs")?.id())
}

pub(super) fn cmdline(pid: u32) -> String {
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words).into_owned()
}

/// The supervisor, and PID 1 of every dyno.
pub(super) fn family(host: &Host) -> Result<(u32, Vec<u32>), Failed> {
    let all = children(keeper(host)?).into_iter();
    // Those that wait for a launch are nobody's yet.
    let all = all.filter(|pid| !is_spare(*pid));
    let (supervisors, dynos): (Vec<_>, Vec<_>) =
        all.partition(|pid| cmdline(*pid).contains("--keeper-fd"));
    let [supervisor] = supervisors[..] else {
        return Err(format!("one supervisor was expected: {supervisors:?}").into());
    };
    Ok((supervisor, dynos))
}

/// Every process of every dyno.
pub(super) fn processes(host: &Host) -> Result<Vec<u32>, Failed> {
    let mut open = family(host)?.1;
    let mut found = Vec::new();
    while let Some(pid) = open.pop() {
        open.extend(children(pid));
        found.push(pid);
    }
    Ok(found)
}

/// The command of a formation dyno.
pub(super) fn command(host: &Host, name: &str) -> Result<u32, Failed> {
    let wanted = format!("DYNO={name}");
    let found = support::find_process(|env| env.contains(&wanted), host.dir.path());
    Ok(found.ok_or_else(|| format!("no process of {name}"))?)
}

pub(super) fn field(pid: u32, name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_default()
        .trim_start_matches(':')
        .trim()
        .to_owned()
}

fn namespaces(host: &Host) -> Result<String, Failed> {
    let (supervisor, _) = family(host)?;
    let (web, worker) = (command(host, "web.1")?, command(host, "worker.1")?);
    for kind in NAMESPACES {
        let of = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/{kind}"));
        let links: BTreeSet<PathBuf> = [of(supervisor)?, of(web)?, of(worker)?]
            .into_iter()
            .collect();
        check(links.len() == 3, format!("{kind}: {links:?}"))?;
    }
    Ok("7 namespaces differ between two dynos and the supervisor".to_owned())
}

fn host_ids(host: &Host) -> Result<String, Failed> {
    let mut bases = BTreeSet::new();
    for name in ["web.1", "worker.1"] {
        let uid: u32 = std::fs::metadata(format!("/proc/{}", command(host, name)?))?.uid();
        check(
            (0x4000_0000..0x8000_0000).contains(&uid) && uid % 65_536 == 1000,
            format!("{name} is {uid} on the host"),
        )?;
        bases.insert(uid / 65_536);
    }
    check(bases.len() == 2, "two dynos have ranges of their own")?;
    Ok("host ids in the reserved range, disjoint".to_owned())
}

fn attributes(host: &Host) -> Result<String, Failed> {
    let text = inside(
        host,
        "umask; nice; for f in oom_score_adj personality timerslack_ns limits; do cat /proc/self/$f; done; env",
    );
    let lines: Vec<_> = text.lines().collect();
    let expected = ["0022", "0", "0", "00000000", "50000"];
    check(
        lines.get(..5) == Some(&expected[..]),
        format!("umask, nice, oom_score_adj, personality, timer slack: {text}"),
    )?;
    for limit in [
        "Max cpu time unlimited unlimited seconds",
        "Max file size unlimited unlimited bytes",
        "Max data size unlimited unlimited bytes",
        "Max stack size 8388608 unlimited bytes",
        "Max core file size 1 1 bytes",
        "Max processes 256 256 processes",
        "Max locked memory 8388608 8388608 bytes",
        "Max pending signals 4096 4096 signals",
        "Max msgqueue size 819200 819200 bytes",
        "Max nice priority 0 0",
        "Max realtime priority 0 0",
    ] {
        let has = |line: &&str| line.split_whitespace().collect::<Vec<_>>().join(" ") == limit;
        check(lines.iter().any(has), format!("no {limit:?}: {text}"))?;
    }
    check(
        !text.contains("HOST_CANARY"),
        "an environment variable leaked",
    )?;
    Ok("umask 0022, nice 0, OOM score 0, no personality, slack 50 us, 11 limits".to_owned())
}

fn names(host: &Host) -> Result<String, Failed> {
    let own = nix::unistd::gethostname()?.to_string_lossy().into_owned();
    let text = inside(
        host,
        "uname -n; cat /proc/sys/kernel/hostname /etc/hostname /proc/sys/kernel/domainname",
    );
    let lines: Vec<_> = text.lines().collect();
    check(lines.len() == 4, text.clone())?;
    check(
        lines[..3]
            .iter()
            .all(|name| name.starts_with("run-") && *name != own),
        text.clone(),
    )?;
    check(lines[3] == "(none)", text)?;
    Ok("the dyno's name, no domain".to_owned())
}

fn capabilities(host: &Host) -> Result<String, Failed> {
    let all = processes(host)?;
    check(all.len() >= 4, "two dynos have at least four processes")?;
    for pid in &all {
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            // One that is being launched right now is the keeper's own code until it has dropped
            // all; one that has ended has none.
            let is_empty = || {
                let seen = field(*pid, set);
                seen.is_empty() || seen == "0000000000000000"
            };
            let what = format!("{set} of {pid} ({}) is empty", cmdline(*pid));
            host.eventually(&what, is_empty)?;
        }
    }
    Ok(format!(
        "all five sets of {} processes are empty",
        all.len()
    ))
}

fn users(host: &Host) -> Result<String, Failed> {
    // No interface takes a user. What looks like one must change nothing.
    for user in ["0", "-1", "4294967296", "0:0", "root", "a:b"] {
        let body = format!(
            "{{\"command\":\"id -u; id -g\",\"user\":\"{user}\",\"uid\":\"{user}\",\"env\":{{\"UID\":\"{user}\",\"USER\":\"{user}\"}}}}"
        );
        let answer = control::request(host, "POST", "/apps/tiny/dynos", &body)?;
        let dyno: serde_json::Value = serde_json::from_str(answer.body())?;
        let name = dyno["name"]
            .as_str()
            .ok_or_else(|| answer.body().to_owned())?;
        let line = format!("app[{name}]: 1000");
        host.eventually("it says who it is", || {
            host.logs("tiny").matches(&line).count() == 2
        })?;
    }
    let output = host.cli(&["run", "-a", "tiny", "--user", "0", "--", "id"]);
    check(!output.status.success(), "`run --user` is refused")?;
    Ok("six odd users: always 1000".to_owned())
}

fn propagation(host: &Host) -> Result<String, Failed> {
    let pid = command(host, "web.1")?;
    let mounts = || std::fs::read_to_string(format!("/proc/{pid}/mountinfo"));
    let before = mounts()?;
    let point = host.dir.path().join("state/stacks/host/root/var");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "canary"])
        .arg(&point)
        .status()?;
    let after = mounts()?;
    let unmounted = Command::new("umount").arg(&point).status()?;
    check(mounted.success() && unmounted.success(), "the canary mount")?;
    check(before == after, "a mount of the host appeared in a dyno")?;
    let host_mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    check(
        !host_mounts.contains(" - overlay overlay rw,lowerdir=0:"),
        "a dyno's root is mounted on the host",
    )?;
    Ok("neither side sees the other's mounts".to_owned())
}

fn fresh_layer(host: &Host) -> Result<String, Failed> {
    let pid = command(host, "web.1")?;
    for name in ["tmp/mark", "app/mark"] {
        std::fs::write(format!("/proc/{pid}/root/{name}"), "left behind")?;
    }
    support::signal(pid, Signal::SIGKILL);
    host.eventually("web.1 is another process", || {
        host.all_up("tiny", &["web.1", "worker.1"])
            && command(host, "web.1").is_ok_and(|now| now != pid)
    })?;
    let now = command(host, "web.1")?;
    for name in ["tmp/mark", "app/mark"] {
        check(
            !Path::new(&format!("/proc/{now}/root/{name}")).exists(),
            format!("{name} outlived the crash"),
        )?;
    }
    check(
        Path::new(&format!("/proc/{now}/root/app/server.py")).exists(),
        "the slug is there",
    )?;
    Ok("marks are gone after a crash".to_owned())
}

/// Runs a program as an ordinary user of the host.
pub(super) fn as_nobody(program: &str, path: &Path) -> Result<bool, Failed> {
    let ids = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let status = Command::new("setpriv")
        .args(ids)
        .arg(program)
        .arg(path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    Ok(status.success())
}

fn state_directory(host: &Host) -> Result<String, Failed> {
    // The test's own directory is private too: that must not be what holds here.
    std::fs::set_permissions(host.dir.path(), std::fs::Permissions::from_mode(0o755))?;
    let state = host.dir.path().join("state");
    check(
        as_nobody("ls", host.dir.path())?,
        "nobody may list the way to it",
    )?;
    for name in ["", "trees", "dynos", "stacks", "slugs", "logs", "builds"] {
        let path = state.join(name);
        check(path.is_dir(), format!("{} is there", path.display()))?;
        check(
            !as_nobody("ls", &path)?,
            format!("nobody lists {}", path.display()),
        )?;
    }
    let mode = std::fs::metadata(&state)?.mode() & 0o7777;
    check(mode == 0o700, format!("{mode:o}"))?;
    Ok("mode 0700; an ordinary user lists none of 7 directories".to_owned())
}

fn stray_descriptors(host: &Host) -> Result<String, Failed> {
    // Launches beside each other, while requests and API calls open and close files.
    let texts: Vec<String> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| inside(host, "ls /proc/$$/fd >/tmp/fds; tr '\\n' ' ' </tmp/fds"))
            })
            .collect();
        for _ in 0..8 {
            host.get("tiny.localhost", "/");
            host.logs("tiny");
        }
        runs.into_iter().filter_map(|run| run.join().ok()).collect()
    });
    check(texts.len() == 8, "all ran")?;
    for text in &texts {
        check(text.trim() == "0 1 2", format!("descriptors: {text}"))?;
    }
    Ok("8 dynos at once: 0, 1, 2 and nothing else".to_owned())
}

fn own_secrets(host: &Host) -> Result<String, Failed> {
    let (supervisor, _) = family(host)?;
    for pid in [supervisor, keeper(host)?] {
        let shown = cmdline(pid);
        check(!shown.contains("canary-of-config"), shown)?;
        let environ = std::fs::read(format!("/proc/{pid}/environ"))?;
        let environ = String::from_utf8_lossy(&environ).into_owned();
        check(!environ.contains("canary-of-config"), "a secret in environ")?;
        for file in ["environ", "mem", "maps"] {
            let path = format!("/proc/{pid}/{file}");
            check(
                !as_nobody("head", Path::new(&path))?,
                format!("nobody reads {path}"),
            )?;
        }
    }
    // A dyno's PID 1 begins as a copy of the keeper, which has handled others' config vars.
    host.ok(&["create", "other"])?;
    host.ok(&["deploy", &app_dir("tiny"), "-a", "other"])?;
    host.eventually("the other app is up", || host.all_up("other", &["web.1"]))?;
    let holds = |first: u32| in_memory(first, b"canary-of-config");
    let mut counts = [0, 0];
    for first in family(host)?.1 {
        counts[usize::from(holds(first)?)] += 1;
    }
    check(
        counts == [1, 2],
        format!("with others' config vars: {counts:?}"),
    )?;
    check(!holds(keeper(host)?)?, "the keeper keeps config vars")?;
    host.ok(&["destroy", "-a", "other", "--confirm", "other"])?;
    Ok("nothing in argv or environment, in the keeper or another app's PID 1; unreadable for ordinary users".to_owned())
}

/// True if the bytes stand anywhere in the memory of a process.
fn in_memory(pid: u32, needle: &[u8]) -> Result<bool, Failed> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = std::fs::File::open(format!("/proc/{pid}/mem"))?;
    let mut seen = 0;
    let mut found = false;
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let range = line
            .split(' ')
            .next()
            .and_then(|range| range.split_once('-'));
        let (from, to) = range.ok_or("no range")?;
        let (from, to) = (u64::from_str_radix(from, 16)?, u64::from_str_radix(to, 16)?);
        let mut bytes = vec![0; usize::try_from(to - from)?];
        // Some mappings cannot be read.
        if memory.read_exact_at(&mut bytes, from).is_ok() {
            seen += bytes.len();
            found |= bytes.windows(needle.len()).any(|window| window == needle);
        }
    }
    check(
        seen > 100_000,
        format!("only {seen} bytes of {pid} were seen"),
    )?;
    Ok(found)
}

/// Samples all processes of dynos while some are launched; those that still run our own program
/// are on their way to exec.
fn sample(host: &Host, check_one: impl Fn(u32) -> Result<(), Failed>) -> Result<usize, Failed> {
    let mut seen = BTreeSet::new();
    std::thread::scope(|scope| -> Result<(), Failed> {
        let runs =
            scope.spawn(|| (0..6).for_each(|_| drop(inside(host, "true; sleep 0.05 & wait"))));
        while !runs.is_finished() {
            for pid in processes(host)? {
                let Ok(program) = std::fs::read_link(format!("/proc/{pid}/exe")) else {
                    continue;
                };
                if program == support::manifold() {
                    continue;
                }
                let result = check_one(pid);
                // One that ended meanwhile is in no group any more, and says nothing.
                if !is_exiting(pid) {
                    result?;
                    seen.insert(pid);
                }
            }
        }
        Ok(())
    })?;
    check(seen.len() > 6, format!("too few processes seen: {seen:?}"))?;
    Ok(seen.len())
}

/// True for a process that is on its way out or gone: v1 shows it in the root group while its
/// program is still there to see. Source: `proc_pid_stat(5)`, `PF_EXITING` of `linux/sched.h`.
pub(super) fn is_exiting(pid: u32) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // After the name: state, parent, group, session, terminal, its group, flags.
    let flags = text.rsplit_once(')').and_then(|(_, rest)| {
        let word = rest.split_whitespace().nth(6)?;
        word.parse::<u32>().ok()
    });
    flags.is_none_or(|flags| flags & 4 != 0)
}

fn filtered_from_the_start(host: &Host) -> Result<String, Failed> {
    let count = sample(host, |pid| {
        let filter = field(pid, "Seccomp");
        // Empty: it ended between two looks.
        check(
            ["2", ""].contains(&filter.as_str()),
            format!("Seccomp of {}: {filter}", cmdline(pid)),
        )
    })?;
    for pid in family(host)?.1 {
        check(field(pid, "Seccomp") == "2", "PID 1 runs under the filter")?;
    }
    Ok(format!(
        "{count} processes seen, PID 1 of each dyno too: mode 2"
    ))
}

fn grouped_from_the_start(host: &Host) -> Result<String, Failed> {
    let count = sample(host, |pid| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let limited = text.lines().filter(|line| {
            let controllers = line.split(':').nth(1).unwrap_or_default();
            let is = |name: &str| controllers.split(',').any(|one| one == name);
            is("memory") || is("pids") || is("cpu") || line.starts_with("0::/manifold-")
        });
        let outside: Vec<_> = limited
            .filter(|line| !line.contains("/manifold-"))
            .collect();
        check(
            outside.is_empty(),
            format!("{} is outside: {outside:?}", cmdline(pid)),
        )
    })?;
    Ok(format!("{count} processes seen, all in their dyno's group"))
}

/// Ids of the running dynos.
fn ids(host: &Host) -> Result<BTreeSet<String>, Failed> {
    let list: serde_json::Value = serde_json::from_str(&host.ok(&["ps", "-a", "tiny", "--json"])?)?;
    let list = list.as_array().cloned().unwrap_or_default();
    let id = |dyno: &serde_json::Value| dyno["id"].as_str().unwrap_or_default().to_owned();
    Ok(list.iter().map(id).collect())
}

fn group_names(host: &Host) -> Result<String, Failed> {
    let before = ids(host)?;
    let names = |host: &Host| -> Result<BTreeSet<String>, Failed> {
        let all = groups_of(host, "worker.1")?.into_iter();
        Ok(all
            .filter_map(|dir| Some(dir.file_name()?.to_string_lossy().into_owned()))
            .collect())
    };
    let old = names(host)?;
    check(old.len() == 1, format!("one name: {old:?}"))?;
    host.ok(&["ps:restart", "-a", "tiny"])?;
    host.eventually("other dynos are up", || {
        host.all_up("tiny", &["web.1", "worker.1"])
            && ids(host).is_ok_and(|now| now.is_disjoint(&before))
    })?;
    let new = names(host)?;
    check(old.is_disjoint(&new), format!("{new:?} was used before"))?;
    // The slot in front may come again, the number behind it not.
    let number = |names: &BTreeSet<String>| {
        let first = names.first().and_then(|name| name.split_once('-'));
        first.map(|(_, number)| number.to_owned())
    };
    let numbers = (number(&old), number(&new));
    check(
        numbers.0.is_some() && numbers.0 != numbers.1,
        format!("{numbers:?}"),
    )?;
    Ok("a new name each time".to_owned())
}

fn reuse_of_ids(host: &Host) -> Result<String, Failed> {
    let range = |host: &Host| -> Result<u32, Failed> {
        let pid = command(host, "worker.1")?;
        Ok(std::fs::metadata(format!("/proc/{pid}"))?.uid() / 65_536)
    };
    let mut seen = vec![range(host)?];
    for _ in 0..2 {
        let before = ids(host)?;
        host.ok(&["ps:restart", "worker", "-a", "tiny"])?;
        host.eventually("another worker is up", || {
            host.all_up("tiny", &["web.1", "worker.1"]) && ids(host).is_ok_and(|now| now != before)
        })?;
        let now = range(host)?;
        check(
            !seen.contains(&now),
            format!("{now} of {seen:?} is used again"),
        )?;
        seen.push(now);
    }
    Ok("a freed range goes to the end of the line".to_owned())
}

fn death_of_the_supervisor(host: &Host) -> Result<String, Failed> {
    let old: BTreeSet<u32> = processes(host)?.into_iter().collect();
    let (supervisor, _) = family(host)?;
    support::signal(supervisor, Signal::SIGKILL);
    host.eventually("another supervisor has taken the dynos over", || {
        family(host).is_ok_and(|(now, _)| now != supervisor)
            && host.all_up("tiny", &["web.1", "worker.1"])
    })?;
    // What a new supervisor asks of its keeper takes short-lived children.
    host.eventually("the dynos have the same processes", || {
        processes(host).is_ok_and(|now| now.into_iter().collect::<BTreeSet<u32>>() == old)
    })?;
    contains(&host.ok(&["ps", "-a", "tiny"])?, "web.1")?;
    Ok("all of them outlived it, and none is new".to_owned())
}
