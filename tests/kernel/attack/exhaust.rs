//! Attacks that use things up: tasks, memory, processor, descriptors, disks. Beside each, another
//! dyno serves requests and the API answers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use libtest_mimic::Failed;

use super::around::{command, family, field, keeper};
use super::control::request;
use super::{As, Report};
use crate::certain::groups_of;
use crate::host::{Host, check, contains};
use crate::support::{self, Leftovers};

/// The name of the test, as the rows have it.
pub(super) const TEST: &str = "attack::exhaustion";

const SCRIPT: &str = include_str!("exhaust.py");

const SETTINGS: &str = "[timings]\nstop_grace = 1\nmetrics_period = 1\n\
    [sizes.Small]\nmemory_mb = 64\ndisk_mb = 128\n";

type Check = fn(&Host) -> Result<String, Failed>;

pub(super) fn run() -> Result<(), Failed> {
    let before = Leftovers::count();
    let mut host = Host::with(SETTINGS)?;
    host.deploy_tiny("tiny")?;
    let source = tempfile::tempdir()?;
    std::fs::write(source.path().join("exhaust.py"), SCRIPT)?;
    std::fs::write(source.path().join("requirements.txt"), "")?;
    std::fs::write(source.path().join("Procfile"), "crash: false\n")?;
    host.ok(&["create", "hog"])?;
    host.ok(&["deploy", &source.path().display().to_string(), "-a", "hog"])?;
    let mut report = Report::new(TEST);
    for attacker in [As::User, As::Bare] {
        if attacker != As::User {
            host.weaken(attacker)?;
            host.eventually("web.1 is up", || host.all_up("tiny", &["web.1"]))?;
        }
        report.holds("X-01", attacker, || beside(&host, tasks));
        report.holds("X-02", attacker, || beside(&host, memory));
        report.holds("X-07", attacker, || beside(&host, objects));
    }
    host.weaken(As::User)?;
    host.eventually("web.1 is up", || host.all_up("tiny", &["web.1"]))?;
    let checks: [(&str, Check); 6] = [
        ("X-03", charges),
        ("X-04", processor),
        ("X-09", storm),
        ("X-10", stubborn),
        ("X-12", crashes),
        ("C-07", counters),
    ];
    for (id, act) in checks {
        report.holds(id, As::User, || act(&host));
    }
    host.stop()?;
    Leftovers::none_since(&before)?;
    report.finish(&[As::User, As::Bare])
}

/// While it happens, the neighbour is the same process, it answers, and so does the API.
fn beside(host: &Host, attack: Check) -> Result<String, Failed> {
    let neighbour = command(host, "web.1")?;
    let mut slowest = Duration::ZERO;
    let said = std::thread::scope(|scope| {
        let attacking = scope.spawn(|| attack(host));
        while !attacking.is_finished() {
            slowest = slowest.max(answers(host)?);
            support::pause();
        }
        attacking
            .join()
            .unwrap_or_else(|_| Err("it panicked".into()))
    })?;
    check(
        command(host, "web.1")? == neighbour,
        "web.1 is another process",
    )?;
    Ok(format!(
        "{said}; the API and a neighbour within {} ms",
        slowest.as_millis()
    ))
}

/// The slower of the API and a neighbour's web dyno.
fn answers(host: &Host) -> Result<Duration, Failed> {
    let start = Instant::now();
    let answer = request(host, "GET", "/apps", "")?;
    check(answer.status() == 200, answer.body())?;
    let api = start.elapsed();
    let start = Instant::now();
    let got = host.get("tiny.localhost", "/");
    check(
        got.is_some_and(|(status, _)| status == 200),
        "the neighbour answers",
    )?;
    let slower = api.max(start.elapsed());
    let most = Duration::from_secs(1) * support::patience();
    check(slower < most, format!("an answer took {slower:?}"))?;
    Ok(slower)
}

/// A one-off of `hog`: its status and output.
fn hog(host: &Host, words: &[&str]) -> (Option<i32>, String) {
    sized(host, "small", words)
}

fn sized(host: &Host, size: &str, words: &[&str]) -> (Option<i32>, String) {
    let all = words_of("run", size, words);
    let output = host.cli(&all);
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

fn words_of<'a>(run: &'a str, size: &'a str, words: &[&'a str]) -> Vec<&'a str> {
    let before = [
        run,
        "-a",
        "hog",
        "-s",
        size,
        "--",
        "python3",
        "-u",
        "exhaust.py",
    ];
    [before.as_slice(), words].concat()
}

/// The same, detached; its name.
fn detached(host: &Host, words: &[&str]) -> Result<String, Failed> {
    let all = words_of("run:detached", "small", words);
    Ok(host.ok(&all)?.trim().to_owned())
}

fn says(host: &Host, dyno: &str, words: &str) -> Result<(), Failed> {
    let line = format!("app[{dyno}]: {words}");
    host.eventually(&line, || host.logs("hog").contains(&line))
}

/// Stops a dyno; how long until none of its tasks is left.
fn stop(host: &Host, dyno: &str, group: &Path) -> Result<Duration, Failed> {
    let start = Instant::now();
    host.ok(&["ps:stop", dyno, "-a", "hog"])?;
    host.eventually("its group is gone", || !group.exists())?;
    Ok(start.elapsed())
}

/// The directory of a dyno's group: of its memory controller where there are several.
fn group_of(host: &Host, dyno: &str) -> Result<PathBuf, Failed> {
    host.eventually(&format!("{dyno} runs"), || groups_of(host, dyno).is_ok())?;
    let all = groups_of(host, dyno)?;
    Ok(all.into_iter().next().ok_or("no group")?)
}

/// Bytes that are charged to a group.
fn charged(group: &Path) -> u64 {
    let read = |name: &str| std::fs::read_to_string(group.join(name)).ok();
    let text = read("memory.usage_in_bytes").or_else(|| read("memory.current"));
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn tasks(host: &Host) -> Result<String, Failed> {
    let mut told = BTreeMap::new();
    for kind in ["fork", "thread", "zombie", "daemon"] {
        // A size whose memory is enough for them all.
        let (_, text) = sized(host, "standard-1x", &[kind]);
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&*format!("ends {kind} ")));
        let line = line.ok_or_else(|| format!("{kind}: {text}"))?;
        let count: u32 = line.strip_prefix("EAGAIN ").unwrap_or("0").parse()?;
        check((1..=256).contains(&count), format!("{kind}: {line}"))?;
        told.insert(kind, count);
    }
    // The classic one never says that it is done.
    let bomb = [
        "run:detached",
        "-a",
        "hog",
        "-s",
        "standard-1x",
        "--",
        "bash",
        "-c",
        ":(){ :|:& };: & wait; sleep 1000",
    ];
    let name = host.ok(&bomb)?.trim().to_owned();
    let group = group_of(host, &name)?;
    host.eventually("it has exploded", || charged(&group) > (4 << 20))?;
    answers(host)?;
    let took = stop(host, &name, &group)?;
    let most = Duration::from_secs(1) + Duration::from_secs(1) * support::patience();
    check(took < most, format!("a fork bomb was gone after {took:?}"))?;
    Ok(format!(
        "EAGAIN at {told:?}, a bomb is gone {} ms after its stop",
        took.as_millis()
    ))
}

fn memory(host: &Host) -> Result<String, Failed> {
    let neighbours = memory_of_nobody_mb()?;
    let mut told = Vec::new();
    for (kind, expected) in [
        ("anon", &["killed"][..]),
        ("memfd", &["killed"]),
        ("tables", &["killed"]),
        ("shm", &["ENOSPC", "killed"]),
        ("cache", &["ENOSPC"]),
        ("pipe", &["EPERM", "EMFILE", "killed"]),
        ("sockets", &["EMFILE", "ENOBUFS", "killed"]),
        ("tcp", &["EMFILE", "ENOBUFS", "killed", "done"]),
        ("dentries", &["done"]),
        ("inotify", &["EMFILE", "killed"]),
        ("epoll", &["ENOSPC", "EMFILE", "killed"]),
    ] {
        let (status, text) = hog(host, &[kind]);
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&*format!("ends {kind} ")));
        let ends = match (line, status) {
            (Some(line), _) => line.split(' ').next().unwrap_or_default().to_owned(),
            (None, Some(137)) => "killed".to_owned(),
            (None, _) => return Err(format!("{kind}: {status:?} {text}").into()),
        };
        check(expected.contains(&&*ends), format!("{kind}: {ends} {text}"))?;
        let of_tcp = line.filter(|_| kind == "tcp");
        let of_tcp = of_tcp.and_then(|line| line.rsplit(' ').next()?.parse().ok());
        // The quota, and beyond it the least that each connection is left (70 KB on v1); without a
        // limit it would be 900.
        check(
            of_tcp.is_none_or(|mib: i64| mib < 200),
            format!("{kind}: TCP holds {of_tcp:?} MiB: {text}"),
        )?;
        told.push(format!("{kind} {ends}"));
    }
    let logs = host.logs("hog");
    contains(&logs, "Error R15 (Memory quota vastly exceeded)")?;
    contains(&logs, "Out of memory: the kernel killed")?;
    host.eventually("the host has its memory again", || {
        memory_of_nobody_mb().is_ok_and(|now| now + 256 > neighbours)
    })?;
    Ok(told.join(", "))
}

/// What is free, and what living processes have mapped of their own: others on this host (compilers)
/// take and give the latter as they like. The dynos' processes are gone by then.
fn memory_of_nobody_mb() -> Result<u64, Failed> {
    use procfs::Current as _;
    let memory = procfs::Meminfo::current()?;
    let available = memory.mem_available.ok_or("no MemAvailable")?;
    let mapped = memory.anon_pages.ok_or("no AnonPages")?;
    Ok((available + mapped) >> 20)
}

fn objects(host: &Host) -> Result<String, Failed> {
    let mut told = Vec::new();
    for (kind, expected) in [
        ("descriptors", &["EMFILE"][..]),
        ("inotify", &["EMFILE"]),
        ("timers", &["EAGAIN"]),
        ("signals", &["EAGAIN"]),
        ("queues", &["EMFILE", "ENOSPC"]),
        // Without the filter a keyring is the user namespace's own.
        ("keys", &["EPERM", "EDQUOT", "EACCES"]),
    ] {
        // It holds what it has while another does the same.
        let name = detached(host, &[kind, "1000"])?;
        let line = format!("app[{name}]: ends {kind} ");
        host.eventually(&line, || host.logs("hog").contains(&line))?;
        let logs = host.logs("hog");
        let said = logs
            .split(&line)
            .nth(1)
            .and_then(|rest| rest.lines().next());
        let said = said.unwrap_or_default().to_owned();
        let ends = said.split(' ').next().unwrap_or_default().to_owned();
        check(expected.contains(&&*ends), format!("{kind}: {said}"))?;
        let (_, second) = hog(host, &[kind]);
        contains(&second, &format!("ends {kind} {said}"))?;
        let group = group_of(host, &name)?;
        stop(host, &name, &group)?;
        told.push(format!("{kind} {said}"));
    }
    Ok(format!("{}; another dyno gets as many", told.join(", ")))
}

/// What a dyno fills is charged to it, wherever it lies.
fn charges(host: &Host) -> Result<String, Failed> {
    let (supervisor, _) = family(host)?;
    let of = |pid| {
        let text = field(pid, "VmRSS");
        let number = text
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned();
        number.parse::<u64>().unwrap_or_default()
    };
    let ours = of(supervisor) + of(keeper(host)?);
    let script = "dd if=/dev/zero of=/dev/shm/a bs=1M count=20 2>/dev/null; \
        dd if=/dev/zero of=/tmp/a bs=1M count=20 2>/dev/null; echo filled; sleep 1000";
    let words = [
        "run:detached",
        "-a",
        "hog",
        "-s",
        "small",
        "--",
        "bash",
        "-c",
        script,
    ];
    let name = host.ok(&words)?.trim().to_owned();
    says(host, &name, "filled")?;
    let group = group_of(host, &name)?;
    let charged = charged(&group) >> 20;
    check(charged >= 36, format!("{charged} MiB of 40 are charged"))?;
    stop(host, &name, &group)?;
    let grown = (of(supervisor) + of(keeper(host)?)).saturating_sub(ours) >> 10;
    check(grown < 16, format!("our processes grew by {grown} MiB"))?;
    Ok(format!(
        "{charged} MiB of 40 in /dev/shm and /tmp are the dyno's, {grown} ours"
    ))
}

fn processor(host: &Host) -> Result<String, Failed> {
    let (_, text) = hog(host, &["scheduling"]);
    for line in [
        "fifo EPERM 0",
        "rr EPERM 0",
        "deadline EPERM 0",
        "nice EACCES 0",
        "rtprio EPERM 0",
    ] {
        let other = line.replace("EACCES", "EPERM");
        let holds = text.contains(line) || text.contains(&other);
        check(holds, format!("{line} in {text}"))?;
    }
    // Many burning tasks against few: the groups share, not the tasks.
    let many = detached(host, &["burn", "16"])?;
    let few = detached(host, &["burn", "2"])?;
    let seconds = |name: &str| -> Result<f64, Failed> {
        let text = std::fs::read_to_string(group_of(host, name)?.join("cgroup.procs"))?;
        let used: u64 = text.split_whitespace().map(used_ticks).sum();
        Ok(f64::from(u32::try_from(used)?) / 100.0)
    };
    let enough = || seconds(&many).is_ok_and(|used| used > 2.0);
    host.eventually("they burn", enough)?;
    let (of_many, of_few) = (seconds(&many)?, seconds(&few)?);
    for name in [&many, &few] {
        stop(host, name, &group_of(host, name)?)?;
    }
    let share = of_few / (of_many + of_few);
    check(
        share > 0.3,
        format!("2 tasks got {share:.2} beside 16: {of_few} s, {of_many} s"),
    )?;
    Ok(format!(
        "EPERM for priorities; 2 burning tasks get {:.0} % beside 16",
        share * 100.0
    ))
}

fn storm(host: &Host) -> Result<String, Failed> {
    let name = detached(host, &["storm"])?;
    says(host, &name, "storm E")?;
    let logs = host.logs("hog");
    let refused = ["storm EACCES 0", "storm EROFS 0", "storm EPERM 0"];
    check(
        refused.iter().any(|line| logs.contains(line)),
        "drop_caches is refused",
    )?;
    let group = group_of(host, &name)?;
    let start = Instant::now();
    host.ok(&["run", "-a", "tiny", "--", "true"])?;
    host.ok(&["ps:restart", "-a", "tiny"])?;
    host.eventually("web.1 is up again", || host.all_up("tiny", &["web.1"]))?;
    let took = start.elapsed();
    answers(host)?;
    let most = Duration::from_secs(6) * support::patience();
    check(
        took < most,
        format!("another's start and stop took {took:?}"),
    )?;
    stop(host, &name, &group)?;
    Ok(format!(
        "drop_caches is refused; a one-off and a restart beside sync and fsync: {took:.1?}"
    ))
}

fn stubborn(host: &Host) -> Result<String, Failed> {
    let mut slowest = Duration::ZERO;
    for kind in ["deaf", "stopped", "first", "forking"] {
        let name = detached(host, &["stubborn", kind])?;
        says(host, &name, "ready")?;
        let took = stop(host, &name, &group_of(host, &name)?)?;
        let most = Duration::from_secs(1) + Duration::from_secs(2) * support::patience();
        check(took < most, format!("{kind} was gone after {took:?}"))?;
        let told = format!("heroku[{name}]: Process exited with status ");
        host.eventually("its end is told", || host.logs("hog").contains(&told))?;
        slowest = slowest.max(took);
    }
    Ok(format!(
        "deaf, stopped, forking, killing PID 1: gone within {slowest:.1?}, grace 1 s"
    ))
}

/// Processor time of a process, in the kernel's hundredths of a second.
fn used_ticks(pid: &str) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let (_, rest) = stat.rsplit_once(") ").unwrap_or_default();
    let fields = rest.split(' ').skip(11).take(2);
    fields.filter_map(|word| word.parse::<u64>().ok()).sum()
}

/// Processor time of the supervisor and the keeper.
fn ticks(host: &Host) -> Result<u64, Failed> {
    let (supervisor, _) = family(host)?;
    let both = [supervisor, keeper(host)?];
    Ok(both.iter().map(|pid| used_ticks(&pid.to_string())).sum())
}

fn crashes(host: &Host) -> Result<String, Failed> {
    host.ok(&["ps:scale", "crash=1", "-a", "hog"])?;
    let starts = |host: &Host| {
        let logs = host.logs("hog");
        logs.matches("heroku[crash.1]: Starting process").count()
    };
    host.eventually("it waits", || {
        let waits = ("crash.1".to_owned(), "crashed".to_owned());
        starts(host) >= 3 && host.states("hog").contains(&waits)
    })?;
    let (before, begun) = (ticks(host)?, Instant::now());
    std::thread::park_timeout(Duration::from_secs(5));
    let used = ticks(host)? - before;
    let share = f64::from(u32::try_from(used)?) / 100.0 / begun.elapsed().as_secs_f64();
    let count = starts(host);
    host.ok(&["ps:scale", "crash=0", "-a", "hog"])?;
    check(count <= 4, format!("{count} starts"))?;
    check(
        share < 0.05 || support::is_guest(),
        format!("{share:.3} of a processor"),
    )?;
    Ok(format!(
        "{count} starts, then back-off; {:.1} % of a processor",
        share * 100.0
    ))
}

/// Figures of one dyno beside another that comes and goes.
fn counters(host: &Host) -> Result<String, Failed> {
    host.ok(&["labs:enable", "log-runtime-metrics", "-a", "tiny"])?;
    let figures = |host: &Host| -> Vec<f64> {
        let logs = host.logs("tiny");
        let parts = logs.split("source=web.1 ").skip(1);
        let words = parts.filter_map(|part| part.split("sample#memory_total=").nth(1));
        let numbers = words.filter_map(|word| word.split("MB").next());
        numbers.filter_map(|number| number.parse().ok()).collect()
    };
    host.eventually("figures of web.1", || figures(host).len() >= 2)?;
    let journal = std::fs::read_to_string(host.journal())?.len();
    // Some end between two looks, some in the middle of one.
    for _ in 0..4 {
        hog(host, &["fork"]);
    }
    let name = detached(host, &["shm", "1000"])?;
    says(host, &name, "ends shm")?;
    let known = figures(host).len();
    host.eventually("more figures", || figures(host).len() >= known + 2)?;
    stop(host, &name, &group_of(host, &name)?)?;
    let all = figures(host);
    let highest = all.iter().copied().fold(0.0, f64::max);
    check(highest < 40.0, format!("web.1 is told to use {all:?} MB"))?;
    let journal = std::fs::read_to_string(host.journal())?.split_off(journal);
    let faults: Vec<&str> = journal
        .lines()
        .filter(|line| line.contains("ERROR"))
        .collect();
    check(faults.is_empty(), format!("{faults:?}"))?;
    Ok(format!(
        "web.1 stays at {highest} MB beside one of 64 MB that came and went"
    ))
}
