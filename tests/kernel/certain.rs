//! Whatever fails or is killed, at whatever point: nothing is left, and the platform goes on.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use nix::sys::signal::Signal;

use crate::attack::{As, Report};
use crate::host::{Host, PATIENCE, app_dir, check, contains};
use crate::support::{self, Leftovers};

/// The cases of this file.
pub(crate) fn cases() -> Vec<Trial> {
    vec![
        Trial::test(FAULTS, faults),
        Trial::test("certain::a_launch_prepared_ahead_is_like_any_other", ahead),
        Trial::test(
            "certain::a_firewall_that_fails_stops_the_start_and_leaves_nothing",
            firewall,
        ),
        Trial::test(KILLS, kills),
        Trial::test(CRASHES, crashes),
        Trial::test(FIRST, first),
    ]
}

const FAULTS: &str = "certain::every_step_that_fails_leaves_nothing";
const KILLS: &str = "certain::kills_at_random_points_leak_nothing";
const CRASHES: &str = "certain::a_killed_supervisor_leaves_no_orphan";
const FIRST: &str = "certain::the_first_process_reaps_signals_and_ends_as_the_app";

/// Where the supervisor and the keeper look for what is to fail.
fn switch(host: &mut Host) -> PathBuf {
    let file = host.dir.path().join("faults");
    let value = file.display().to_string();
    host.env
        .push(("MANIFOLD_TEST_ONLY_FAULTS".to_owned(), value));
    file
}

/// Restarts with the fault switch and a deployed app; the VM's program may be one without it.
fn faulty() -> Result<(Host, PathBuf), Failed> {
    let mut host = Host::start()?;
    host.ok(&["create", "tiny", "--no-remote"])?;
    host.ok(&["deploy", &app_dir("tiny"), "-a", "tiny"])?;
    host.ok(&["ps:scale", "web=0", "worker=1", "-a", "tiny"])?;
    host.eventually("worker.1 is up", || host.all_up("tiny", &["worker.1"]))?;
    host.stop()?;
    let file = switch(&mut host);
    std::fs::write(seen(&file), "")?;
    host.launch()?;
    host.eventually("worker.1 is up", || host.all_up("tiny", &["worker.1"]))?;
    Ok((host, file))
}

fn seen(file: &Path) -> PathBuf {
    file.with_extension("seen")
}

/// Every point that one launch passes, in the order of the first time.
fn points(file: &Path) -> Result<Vec<String>, Failed> {
    let mut points: Vec<String> = Vec::new();
    for point in std::fs::read_to_string(seen(file))?.lines() {
        // These belong to the start and to the pool.
        let is_ahead = [
            "load the",
            "remove the",
            "make a network",
            "make a veth",
            // On cgroup v2, for our own group.
            "write memory.min",
        ];
        if !is_ahead.iter().any(|start| point.starts_with(start))
            && !points.iter().any(|known| known == point)
        {
            points.push(point.to_owned());
        }
    }
    std::fs::remove_file(seen(file))?;
    Ok(points)
}

/// One after the other each point of a launch fails, with an errno of its own: the dyno is
/// `crashed` and waits, one line names the step, and nothing of it is left.
fn faults() -> Result<(), Failed> {
    let mut report = Report::new(FAULTS);
    report.holds("R-01", As::User, || {
        let before = Leftovers::count();
        let (mut host, file) = faulty()?;
        let points = points(&file)?;
        let errnos = [libc::EPERM, libc::ENOSYS, libc::ENOMEM, libc::EINTR];
        check(points.len() > 40, format!("few points: {points:?}"))?;
        let points = if is_emulated() { few(points) } else { points };
        let held = holdings(&host)?;
        for (at, point) in points.iter().enumerate() {
            let errno = errnos[at % errnos.len()];
            fail_at(&host, &file, point, errno)?;
        }
        // Each failed three times: what leaks at one of them only is three more. The pool is full
        // again in a moment.
        let is_held = |now: BTreeMap<&str, usize>| now.iter().all(|(what, n)| *n <= held[what] + 2);
        host.eventually(&format!("no more is held than {held:?}"), || {
            holdings(&host).is_ok_and(is_held)
        })?;
        pool_fails(&host, &file)?;
        host.stop()?;
        Leftovers::none_since(&before)?;
        Ok(format!("each of {} steps failed in turn", points.len()))
    });
    report.finish(&[As::User])
}

/// The virtual machine is emulated and twenty times slower.
pub(crate) fn is_emulated() -> bool {
    std::env::var_os("MANIFOLD_BIN").is_some()
}

/// What differs with the version of cgroups, and a few of the rest.
fn few(mut points: Vec<String>) -> Vec<String> {
    let mut at = 0;
    points.retain(|point| {
        at += 1;
        let is_cgroup = point.contains("cgroup") || point.starts_with("write");
        is_cgroup || at % 15 == 0
    });
    points
}

fn fail_at(host: &Host, file: &Path, point: &str, errno: i32) -> Result<(), Failed> {
    let from = journal(host).len();
    std::fs::write(file, format!("{errno} {point}"))?;
    host.ok(&["ps:restart", "-a", "tiny"])?;
    let told = || {
        let journal = journal(host);
        let new = journal.get(from..).unwrap_or_default();
        new.lines()
            .filter(|line| line.contains("dyno not launched"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let crashed = [("worker.1".to_owned(), "crashed".to_owned())];
    // Two restarts at once, then the back-off of ten minutes.
    host.eventually(&format!("crashed by {point}"), || {
        host.states("tiny") == crashed && told().len() == 3
    })?;
    let why = nix::errno::Errno::from_raw(errno).desc();
    let number = format!("(os error {errno})");
    for line in told() {
        let step = point.strip_prefix("write ").unwrap_or(point);
        let is_named = line.contains(step) || step == "make the cgroup";
        // The keeper and the standard library word ENOMEM differently.
        let is_told = is_named && (line.contains(why) || line.contains(&number));
        check(is_told, format!("{point} ({why}) is not named in {line}"))?;
    }
    host.eventually(&format!("nothing left after {point}"), || {
        firsts(host).is_empty() && groups(host).is_empty()
    })?;
    std::fs::remove_file(file)?;
    host.ok(&["ps:restart", "-a", "tiny"])?;
    host.eventually(&format!("up again after {point}"), || {
        host.all_up("tiny", &["worker.1"])
    })
}

/// Networks are made ahead: the fault shows once the pool is empty, and is gone with its cause.
fn pool_fails(host: &Host, file: &Path) -> Result<(), Failed> {
    for point in ["make a network namespace", "make a veth pair"] {
        std::fs::write(file, format!("{} {point}", libc::ENOMEM))?;
        host.ok(&["ps:scale", "worker=12", "-a", "tiny"])?;
        host.eventually("some are up, the rest crashed", || {
            let states = host.states("tiny");
            let crashed = states
                .iter()
                .filter(|(_, state)| state == "crashed")
                .count();
            let up = states.iter().filter(|(_, state)| state == "up").count();
            crashed > 0 && crashed + up == 12
        })?;
        std::fs::remove_file(file)?;
        host.ok(&["ps:scale", "worker=1", "-a", "tiny"])?;
        host.ok(&["ps:restart", "-a", "tiny"])?;
        host.eventually("up again", || host.all_up("tiny", &["worker.1"]))?;
    }
    Ok(())
}

/// All that differs by how a launch was made: its mounts, whom they hear of, devices, names.
const LOOK: &str = "cut -d' ' -f4- /proc/self/mountinfo | sed 's/gid=[0-9]*/gid=/' | sort
    stat -c '%n %A %u %g %t %T' /dev /dev/* /dev/pts/* /proc/cgroups /sys/fs/cgroup /
    stat -f -c '%n %T %s %b' / /dev/shm /dev/mqueue /dev/pts /proc /sys
    hostname | tr -d 0-9; cat /proc/sys/kernel/domainname; ls -A /dev/shm /dev/mqueue; pwd
    touch /dev/shm/a /dev/mqueue/a /app/a /tmp/a && echo written
    grep -E 'Cap|Seccomp|NoNew|Groups' /proc/self/status; tail -n +2 /proc/self/limits";

/// Some launches find their PID 1 waiting; the others, which make their own, look the same.
fn ahead() -> Result<(), Failed> {
    let before = Leftovers::count();
    let mut host = Host::start()?;
    host.ok(&["create", "tiny", "--no-remote"])?;
    host.ok(&["deploy", &app_dir("tiny"), "-a", "tiny"])?;
    host.ok(&["ps:scale", "web=0", "-a", "tiny"])?;
    host.stop()?;
    let file = switch(&mut host);
    let level = "info,manifold::keeper=debug";
    host.env.push(("MANIFOLD_LOG".to_owned(), level.to_owned()));
    host.launch()?;
    let look = || host.ok(&["run", "-a", "tiny", "--", "bash", "-c", LOOK]);
    let count = |is_ahead: bool| {
        journal(&host)
            .matches(&format!("is_ahead={is_ahead}"))
            .count()
    };
    let found = RefCell::new(String::new());
    host.eventually("a launch finds its PID 1 made", || {
        *found.borrow_mut() = look().unwrap_or_default();
        count(true) > 0
    })?;
    std::fs::write(&file, format!("{} make a process ahead", libc::ENOSPC))?;
    // Those that are made are used up.
    let made = RefCell::new(String::new());
    host.eventually("a launch makes its own", || {
        let before = count(false);
        *made.borrow_mut() = look().unwrap_or_default();
        count(false) > before
    })?;
    let (found, made) = (found.into_inner(), made.into_inner());
    contains(&found, "written")?;
    contains(&found, " /dev/shm rw,nosuid,nodev,noexec")?;
    check(found == made, format!("ahead:\n{found}\nat once:\n{made}"))?;
    for word in ["shared:", "master:"] {
        check(
            !found.contains(word),
            format!("the host is heard:\n{found}"),
        )?;
    }
    host.stop()?;
    Leftovers::none_since(&before)
}

fn firewall() -> Result<(), Failed> {
    let before = Leftovers::count();
    let mut host = Host::start()?;
    host.stop()?;
    let file = switch(&mut host);
    let point = "load the firewall table";
    std::fs::write(&file, format!("{} {point}", libc::EPERM))?;
    let refused = host.launch();
    check(refused.is_err(), "it must not start without its rules")?;
    contains(&journal(&host), &format!("cannot {point}"))?;
    Leftovers::none_since(&before)?;
    std::fs::remove_file(&file)?;
    host.launch()?;
    host.stop()
}

fn journal(host: &Host) -> String {
    std::fs::read_to_string(host.journal()).unwrap_or_default()
}

pub(crate) fn keeper(host: &Host) -> u32 {
    host.process.as_ref().map_or(0, std::process::Child::id)
}

pub(crate) fn children(pid: u32) -> Vec<u32> {
    let file = format!("/proc/{pid}/task/{pid}/children");
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.split_whitespace().flat_map(str::parse).collect()
}

fn is_supervisor(pid: u32) -> bool {
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let is_ours = words.split(|b| *b == 0).any(|word| word == b"--keeper-fd");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let levels = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    is_ours && levels.is_some_and(|pids| pids.split_whitespace().count() == 1)
}

pub(crate) fn supervisor(host: &Host) -> Option<u32> {
    let mut all = children(keeper(host)).into_iter();
    all.find(|pid| is_supervisor(*pid))
}

/// A PID 1 that waits for its launch.
pub(crate) fn is_spare(pid: u32) -> bool {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
    name.is_ok_and(|name| name.trim() == "manifold-spare")
}

/// PID 1 of every dyno, whatever became of it.
pub(crate) fn firsts(host: &Host) -> Vec<u32> {
    let mut all = children(keeper(host));
    all.retain(|pid| !is_supervisor(*pid) && !is_spare(*pid));
    all
}

/// The cgroups of the dyno of this name; apps with dynos of the same name are not told apart.
pub(crate) fn groups_of(host: &Host, dyno: &str) -> Result<Vec<PathBuf>, Failed> {
    let hostname = dyno.replace('.', "-");
    let is_its = |first: &u32| {
        let name = std::fs::read_to_string(format!("/proc/{first}/root/etc/hostname"));
        name.is_ok_and(|name| name.trim() == hostname)
    };
    let first = firsts(host).into_iter().find(is_its);
    let first = first.ok_or_else(|| format!("no process of {dyno}"))?;
    let text = std::fs::read_to_string(format!("/proc/{first}/cgroup"))?;
    let paths: Vec<&str> = text
        .lines()
        .filter_map(|line| line.splitn(3, ':').nth(2))
        .collect();
    let mut all = groups(host);
    all.retain(|group| {
        let place = place(group);
        paths.iter().any(|path| Path::new(path).ends_with(&place))
    });
    check(!all.is_empty(), format!("{dyno} has no group: {text}"))?;
    Ok(all)
}

/// Where a dyno's group is in each hierarchy: its parent's name and its own.
pub(crate) fn place(group: &Path) -> PathBuf {
    let parts: Vec<_> = group.components().collect();
    parts[parts.len().saturating_sub(2)..].iter().collect()
}

/// Cgroups of dynos. Those that were made ahead for launches to come have no limits yet.
pub(crate) fn groups(host: &Host) -> Vec<PathBuf> {
    let mut all = all_groups(host);
    let is_limited = |dir: &PathBuf| {
        ["memory.max", "memory.limit_in_bytes"].iter().any(|file| {
            let text = std::fs::read_to_string(dir.join(file)).unwrap_or_default();
            text.trim().parse().is_ok_and(|bytes: u64| bytes < 1 << 60)
        })
    };
    let limited = all.iter().filter(|dir| is_limited(dir));
    let names = limited.filter_map(|dir| Some(dir.file_name()?.to_owned()));
    let names: BTreeSet<_> = names.collect();
    all.retain(|dir| dir.file_name().is_some_and(|name| names.contains(name)));
    all
}

/// Those of dynos, and those for launches to come.
fn all_groups(host: &Host) -> Vec<PathBuf> {
    let instance = std::fs::read_to_string(host.dir.path().join("state/instance"));
    let name = format!("manifold-{}", instance.unwrap_or_default().trim());
    let mut found = Vec::new();
    for top in ["", "memory", "cpu", "pids"] {
        let parent = Path::new("/sys/fs/cgroup").join(top).join(&name);
        for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
            // The slot, and a number that is used once.
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let is_ours = name.len() == 13 && name.as_bytes()[4] == b'-';
            if is_ours && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                found.push(entry.path());
            }
        }
    }
    found
}

/// Random numbers (xorshift), from a seed that a failure tells.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let seed = now.map_or(1, |time| time.as_secs() * 1_000_003 + 7);
        eprintln!("seed {seed}");
        Self(seed)
    }

    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    /// A place in a list of so many.
    pub(crate) fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.roll(length as u64)).unwrap_or_default()
    }
}

/// One request over the API's socket: faster than a CLI, so that kills can hit a launch.
pub(crate) fn api(socket: &Path, method: &str, path: &str, body: &str) -> Result<String, Failed> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/vnd.heroku+json; version=3\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(format!("{head}{body}").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn order(socket: &Path, command: &str) -> Result<(), Failed> {
    let body = serde_json::json!({ "command": command, "attach": false }).to_string();
    let answer = api(socket, "POST", "/apps/tiny/dynos", &body)?;
    check(answer.starts_with("HTTP/1.1 201"), answer)
}

/// Processes that wait for launches to come at most: see `keeper::ahead`.
const SPARES_MAX: usize = 16;

/// What a supervisor and its keeper hold. Namespaces of users are kept, one per slot, for reuse; what
/// is made for launches to come is as much as there was time for, up to a bound.
fn holdings(host: &Host) -> Result<BTreeMap<&'static str, usize>, Failed> {
    let supervisor = supervisor(host).ok_or("no supervisor")?;
    let links = |pid: u32| {
        let entries = std::fs::read_dir(format!("/proc/{pid}/fd"));
        let links = entries.into_iter().flatten().flatten();
        let links = links.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        links.map(|link| link.to_string_lossy().into_owned())
    };
    let spares = children(keeper(host))
        .into_iter()
        .filter(|pid| is_spare(*pid))
        .count();
    check(spares <= SPARES_MAX, format!("{spares} processes ahead"))?;
    let groups_ahead = all_groups(host).len() - groups(host).len();
    let bound = SPARES_MAX * groups_per_dyno();
    check(
        groups_ahead <= bound,
        format!("{groups_ahead} groups ahead"),
    )?;
    // Of a launch that is near: its network, and the ways into its groups.
    let is_near = |link: &String| link.starts_with("net:[") || link.starts_with("/sys/fs/cgroup/");
    let kept = links(keeper(host)).filter(|link| !link.starts_with("user:[") && !is_near(link));
    // The channel to each that waits, and what holds it.
    let kept = kept.count().saturating_sub(2 * spares);
    let others = links(supervisor).filter(|link| !link.starts_with("user:["));
    let mounts = |pid: u32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/mountinfo"));
        text.unwrap_or_default().lines().count()
    };
    let dirs = std::fs::read_dir(host.dir.path().join("state/dynos"))?.count();
    Ok(BTreeMap::from([
        ("keeper's descriptors", kept),
        ("supervisor's descriptors", others.count()),
        ("keeper's mounts", mounts(keeper(host))),
        ("links", host_links(host)?),
        ("processes", firsts(host).len()),
        ("cgroups", groups(host).len()),
        ("directories", dirs),
    ]))
}

/// Ends of dynos' links on the host's side.
fn host_links(host: &Host) -> Result<usize, Failed> {
    let instance = std::fs::read_to_string(host.dir.path().join("state/instance"))?;
    let ours = format!("mf{}", instance.get(..8).unwrap_or_default());
    Ok(support::links(&ours).len())
}

/// Waits until no dyno is left.
fn settle(host: &Host) -> Result<(), Failed> {
    let answer = api(
        &host.socket(),
        "POST",
        "/apps/tiny/formations/run/actions/stop",
        "",
    )?;
    let is_known = answer.starts_with("HTTP/1.1 202") || answer.starts_with("HTTP/1.1 404");
    check(is_known, answer)?;
    host.eventually("no dyno left", || {
        firsts(host).is_empty() && groups(host).is_empty()
    })
}

/// How many cycles: few in CI; the whole 10,000 by hand.
pub(crate) fn cycles() -> u64 {
    let text = std::env::var("MANIFOLD_TEST_CYCLES").unwrap_or_default();
    text.parse().unwrap_or(if is_emulated() { 20 } else { 200 })
}

/// Pools may be fuller by so many; what leaks leaks once per cycle.
const SLACK: usize = 12;

/// Launches whose PID 1, app, or nothing is killed at a random moment; several at once.
fn kills() -> Result<(), Failed> {
    let mut report = Report::new(KILLS);
    let run = || -> Result<String, Failed> {
        let leftovers = Leftovers::count();
        let mut host = Host::start()?;
        host.ok(&["create", "tiny", "--no-remote"])?;
        host.ok(&["deploy", &app_dir("tiny"), "-a", "tiny"])?;
        host.ok(&["ps:scale", "web=0", "-a", "tiny"])?;
        let mut dice = Dice::new();
        let cycles = cycles();
        // What is made once (pools, caches) is there after a few.
        rounds(&host, &mut dice, cycles.min(40))?;
        let before = holdings(&host)?;
        rounds(&host, &mut dice, cycles)?;
        let is_held = |now: &BTreeMap<&str, usize>| {
            now.iter()
                .all(|(what, count)| *count <= before[what] + SLACK)
        };
        let deadline = Instant::now() + PATIENCE;
        let mut now = holdings(&host)?;
        while !is_held(&now) {
            let grown = format!("grown in {cycles} cycles: {before:?} to {now:?}");
            check(Instant::now() < deadline, grown)?;
            support::pause();
            now = holdings(&host)?;
        }
        host.stop()?;
        Leftovers::none_since(&leftovers)?;
        Ok(format!(
            "{cycles} cycles with kills, none hung, nothing leaked: before {before:?}, after {now:?}"
        ))
    };
    let outcome = run().map_err(|failed| failed.message().unwrap_or("?").to_owned());
    for row in ["R-06", "X-11"] {
        report.holds(row, As::User, || outcome.clone().map_err(Failed::from));
    }
    report.finish(&[As::User])
}

fn rounds(host: &Host, dice: &mut Dice, cycles: u64) -> Result<(), Failed> {
    for cycle in 0..cycles {
        order(&host.socket(), "sleep 1000")?;
        // Between before the clone and well after the exec.
        let moment = Duration::from_micros(dice.roll(12_000));
        std::thread::park_timeout(moment);
        let dynos = firsts(host);
        let victim = dynos.last().copied().and_then(|first| match dice.roll(4) {
            0 => Some(first),
            1 => children(first).first().copied(),
            // One that waits for a launch: it makes its own then.
            2 => children(keeper(host))
                .into_iter()
                .rev()
                .find(|pid| is_spare(*pid)),
            _ => None,
        });
        if let Some(victim) = victim {
            support::signal(victim, Signal::SIGKILL);
        }
        if cycle % 20 == 19 || cycle + 1 == cycles {
            settle(host)?;
        }
    }
    Ok(())
}

/// The supervisor, then the keeper are killed at random moments of launches, stops and restarts: the
/// next supervisor takes over what runs, and brings the rest; with a keeper every dyno is gone, and
/// what it left is swept at the next start.
fn crashes() -> Result<(), Failed> {
    let mut report = Report::new(CRASHES);
    report.holds("R-02", As::User, || {
        let before = Leftovers::count();
        let mut host = Host::start()?;
        host.ok(&["create", "tiny", "--no-remote"])?;
        host.ok(&["deploy", &app_dir("tiny"), "-a", "tiny"])?;
        let mut dice = Dice::new();
        let kills = (cycles() / 50).max(4);
        for round in 0..kills {
            let quantity = 1 + dice.roll(4);
            let scale = format!(r#"{{"quantity":{quantity}}}"#);
            let socket = host.socket();
            api(&socket, "PATCH", "/apps/tiny/formation/worker", &scale)?;
            if dice.roll(2) == 0 {
                api(&socket, "DELETE", "/apps/tiny/dynos", "")?;
            }
            std::thread::park_timeout(Duration::from_micros(dice.roll(60_000)));
            let keeper = keeper(&host);
            if round % 2 == 0 {
                let victim = supervisor(&host).ok_or("no supervisor")?;
                support::signal(victim, Signal::SIGKILL);
            } else {
                let orphans = children(keeper);
                support::signal(keeper, Signal::SIGKILL);
                host.process.take().map(|mut process| process.wait());
                host.eventually("the supervisor ends without its keeper", || {
                    orphans.iter().all(|pid| !is_supervisor(*pid))
                })?;
                host.launch()?;
            }
            let quantity = usize::try_from(quantity).unwrap_or_default();
            host.eventually("as ordered, and nothing else", || settled(&host, quantity))?;
        }
        host.stop()?;
        Leftovers::none_since(&before)?;
        Ok(format!("{kills} kills: as ordered again, nothing else"))
    });
    report.holds("R-04", As::User, || {
        let mut host = Host::start()?;
        host.ok(&["create", "tiny", "--no-remote"])?;
        host.ok(&["deploy", &app_dir("tiny"), "-a", "tiny"])?;
        host.ok(&["ps:scale", "web=0", "worker=1", "-a", "tiny"])?;
        host.eventually("worker.1 is up", || settled_worker(&host))?;
        let starts = |host: &Host| {
            let logs = host.logs("tiny");
            let wanted = "heroku[worker.1]: Starting process";
            logs.lines().filter(|line| line.contains(wanted)).count()
        };
        let before = starts(&host);
        let (dyno, supervisor) = (firsts(&host), supervisor(&host).ok_or("no supervisor")?);
        support::signal(supervisor, Signal::SIGSTOP);
        let app = dyno
            .first()
            .and_then(|first| children(*first).first().copied());
        support::signal(app.ok_or("no app")?, Signal::SIGUSR1);
        host.eventually("it ended", || firsts(&host).is_empty())?;
        support::signal(supervisor, Signal::SIGKILL);
        host.eventually("worker.1 is another", || {
            settled_worker(&host) && firsts(&host).iter().all(|first| !dyno.contains(first))
        })?;
        check(starts(&host) == before + 1, host.logs("tiny"))?;
        let logs = host.logs("tiny");
        let told = logs.matches("Process exited with status 138").count();
        check(told == 1, format!("told {told} times in {logs}"))?;
        host.stop()?;
        Ok("status 138 told by the next supervisor, one restart".to_owned())
    });
    report.finish(&[As::User])
}

fn settled_worker(host: &Host) -> bool {
    host.all_up("tiny", &["worker.1"]) && firsts(host).len() == 1
}

/// The API's dynos are up, and there are exactly their processes and groups.
fn settled(host: &Host, workers: usize) -> bool {
    let states = host.states("tiny");
    let count = states.len();
    count == workers + 1
        && states.iter().all(|(_, state)| state == "up")
        && firsts(host).len() == count
        && groups(host).len() == count * groups_per_dyno()
}

/// Of those that [`groups`] finds.
pub(crate) fn groups_per_dyno() -> usize {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        1
    } else {
        3
    }
}

/// Orphans, zombies, and a child that ignores SIGTERM.
fn first() -> Result<(), Failed> {
    let mut report = Report::new(FIRST);
    report.holds("R-07", As::User, || {
        let mut host = Host::with("[timings]\nstop_grace = 2\n")?;
        host.ok(&["create", "tiny", "--no-remote"])?;
        host.ok(&["deploy", &app_dir("tiny"), "-a", "tiny"])?;
        host.ok(&["ps:scale", "web=0", "-a", "tiny"])?;
        let script = "trap 'echo told >&2' TERM
            (setsid bash -c 'trap \"\" TERM; sleep 1000; sleep 1000' >/dev/null 2>&1 &)
            for i in $(seq 50); do (true &); done
            for i in $(seq 100); do
              zombies=$(grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l)
              [ $zombies = 0 ] && break; sleep 0.05
            done
            echo zombies $zombies; exit 7";
        let start = Instant::now();
        let output = host.cli(&["run", "-a", "tiny", "--", "bash", "-c", script]);
        let took = start.elapsed();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        contains(&said, "zombies 0")?;
        let status = output.status.code();
        check(status == Some(7), format!("{status:?}: {output:?}"))?;
        let grace = Duration::from_secs(2);
        check(took >= grace, format!("the rest had its grace: {took:?}"))?;
        host.eventually("the whole tree is gone", || {
            firsts(&host).is_empty() && groups(&host).is_empty()
        })?;
        host.stop()?;
        Ok("orphans reaped, status 7 kept, the stubborn one killed after the grace".to_owned())
    });
    report.finish(&[As::User])
}
