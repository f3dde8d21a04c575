//! What a dyno may use, and what happens past it: the host and the neighbours go on.

use std::io::{BufRead as _, BufReader};
use std::time::{Duration, Instant, SystemTime};

use libtest_mimic::{Failed, Trial};

use crate::attack::{As, Report};
use crate::host::{Host, PATIENCE, app_dir, check, contains};
use crate::support::{self, Leftovers};

/// The cases of this file.
pub(crate) fn cases() -> Vec<Trial> {
    vec![
        Trial::test(DISK, disk),
        Trial::test("limits::fallback", fallback),
        Trial::test(FLOODS, floods),
        Trial::test("limits::hostile", crate::hostile::run),
        Trial::test("limits::memory", memory),
        Trial::test("limits::room", room),
    ]
}

const DISK: &str = "limits::disk";
const FLOODS: &str = "limits::floods";

/// Small sizes, so that filling them takes no time.
const SIZES: &str = "
[disk]
build_mb = 32
cache_mb = 64
[sizes.Tiny]
memory_mb = 256
disk_mb = 32
inodes = 2000
";

/// Dynos that use memory in every way; `DYNO` ends when it is killed.
pub(crate) const HOG: &str = r"
import os, sys, time
kind = sys.argv[1]
def rss(mib):
    held = []
    for n in range(mib):
        held.append(bytearray(1 << 20))
        for at in range(0, 1 << 20, 4096): held[-1][at] = 1
    return held
if kind == 'held':
    kept = rss(72); print('holds', flush=True); time.sleep(10**6)
if kind == 'cached':
    with open('/app/file', 'wb') as file:
        for n in range(90): file.write(b'x' * (1 << 20))
    while True:
        with open('/app/file', 'rb') as file:
            while file.read(1 << 20): pass
        time.sleep(0.2)
if kind == 'family':
    # The kernel kills the child; the parent would go on.
    if os.fork() == 0:
        time.sleep(2.5)
        kept = rss(10**4)
    print('parent', os.getpid(), flush=True)
    while True: time.sleep(10**6)
";

/// An app of our own: its files, then the app with nothing running but `web`.
pub(crate) fn app(host: &Host, name: &str, files: &[(&str, &str)]) -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    for (file, text) in files {
        std::fs::write(dir.path().join(file), text)?;
    }
    std::fs::write(dir.path().join("requirements.txt"), "")?;
    host.ok(&["create", name])?;
    host.ok(&["deploy", &dir.path().display().to_string(), "-a", name])?;
    Ok(())
}

/// R14 at the quota, page cache or not, at each sample; the whole dyno killed at twice of it, also
/// when the kernel took only one of its processes; figures in the log when they are asked for.
fn memory() -> Result<(), Failed> {
    let before = Leftovers::count();
    let mut host = Host::with(
        "[timings]\nmetrics_period = 1\nstop_grace = 2\n[sizes.Small]\nmemory_mb = 64\ndisk_mb = 128\n",
    )?;
    let procfile =
        "held: python3 hog.py held\ncached: python3 hog.py cached\nfamily: python3 hog.py family\n";
    app(&host, "hog", &[("hog.py", HOG), ("Procfile", procfile)])?;
    host.ok(&["labs:enable", "log-runtime-metrics", "-a", "hog"])?;
    host.ok(&["ps:scale", "held=1:small", "-a", "hog"])?;
    let count = |dyno: &str, text: &str| {
        let wanted = format!("heroku[{dyno}.1]: ");
        let logs = host.logs("hog");
        let lines = logs.lines().filter(|line| line.contains(&wanted));
        lines.filter(|line| line.contains(text)).count()
    };
    let r14 = "Error R14 (Memory quota exceeded)";
    host.eventually("R14 at each sample", || count("held", r14) >= 2)?;
    check(count("held", "Process running mem=") >= 2, host.logs("hog"))?;
    host.eventually("figures", || count("held", "sample#load_avg_1m=") >= 2)?;
    let memory = "sample#memory_quota=64.00MB";
    check(count("held", memory) >= 2, host.logs("hog"))?;
    check(host.all_up("hog", &["held.1"]), "R14 only warns")?;
    let disk = host.ok(&["disk"])?;
    for word in ["bounded by ext4 images", "hog/held.1", "trees"] {
        contains(&disk, word)?;
    }

    host.ok(&["ps:scale", "held=0", "cached=1:small", "-a", "hog"])?;
    host.eventually("R14 for page cache", || count("cached", r14) >= 2)?;
    check(count("cached", "R15") == 0, "page cache is no R15")?;
    check(host.all_up("hog", &["cached.1"]), "and it goes on")?;

    host.ok(&["ps:scale", "cached=0", "family=1:small", "-a", "hog"])?;
    let crashed = "State changed from up to crashed";
    host.eventually("the whole dyno goes", || count("family", crashed) >= 1)?;
    let logs = host.logs("hog");
    let lines: Vec<&str> = logs
        .lines()
        .filter_map(|line| line.split_once("heroku[family.1]: "))
        .map(|(_, text)| text)
        .filter(|text| !text.starts_with("source=") && !text.contains("R14"))
        .collect();
    let at = lines.iter().position(|line| line.contains("Error R15"));
    let at = at.ok_or_else(|| format!("no R15 in {lines:#?}"))?;
    check(
        lines[at] == "Error R15 (Memory quota vastly exceeded)"
            && lines[at - 1].starts_with("Process running mem=")
            && lines[at + 1..].starts_with(&[
                "Stopping process with SIGKILL",
                "Process exited with status 137",
                crashed,
            ]),
        format!("{lines:#?}"),
    )?;
    let told = lines.iter().find(|line| line.starts_with("Out of memory"));
    let told = told.ok_or_else(|| format!("the kernel's kill is told: {lines:#?}"))?;
    check(
        told.contains("the kernel killed python3 (") && told.contains("memory before: "),
        (*told).to_owned(),
    )?;
    host.ok(&["ps:scale", "family=0", "-a", "hog"])?;
    host.eventually("nothing runs", || host.states("hog").is_empty())?;
    host.stop()?;
    Leftovers::none_since(&before)
}

const PRINTED: usize = 200_000;

/// MiB of a line that does not end: few in CI, since such a dyno is read slowly; the whole 1024 by
/// hand.
fn line_mib() -> usize {
    let text = std::env::var("MANIFOLD_TEST_LINE_MIB").unwrap_or_default();
    text.parse()
        .unwrap_or(if support::is_guest() { 16 } else { 128 })
}

/// What the supervisor may grow by while all of them print.
const GROWTH_MIB: u64 = 64;

/// Tells the time, so that a reader sees how late its lines are.
const CLOCK: &str = r"
import time
for n in range(300):
    print('at', time.time(), flush=True)
    time.sleep(0.02)
time.sleep(10**6)
";

/// Prints so many MiB without a newline, then a line.
const WALL: &str = r"
import os, sys, time
chunk = b'x' * (1 << 20)
def put(data):
    while data: data = data[os.write(1, data):]
for n in range(int(sys.argv[1])): put(chunk)
put(b'\nthe wall is done\n')
time.sleep(10**6)
";

/// Prints its lines as fast as it can, or one every few milliseconds.
const PRINTER: &str = r"
import sys, time
lines, pause = int(sys.argv[1]), float(sys.argv[2])
for n in range(lines):
    print('line', n, flush=pause > 0)
    if pause: time.sleep(pause)
sys.stdout.flush()
time.sleep(10**6)
";

/// L10: of a flood every line is in the log or counted there, a dyno that prints without end
/// goes on, and the log of another app is whole, on the disk too.
fn floods() -> Result<(), Failed> {
    let mut report = Report::new(FLOODS);
    report.holds("X-08", As::User, flooded);
    report.finish(&[As::User])
}

fn flooded() -> Result<String, Failed> {
    let before = Leftovers::count();
    let mut host = Host::with("[timings]\nstop_grace = 2\n")?;
    let wall = line_mib();
    let procfile = format!(
        "counted: python3 print.py {PRINTED} 0\nendless: yes\nquiet: python3 print.py 600 0.01\n\
         wall: python3 wall.py {wall}\nclock: python3 clock.py\n\
         nuls: printf 'before\\0after\\n'; sleep 1000\n"
    );
    let files = [
        ("print.py", PRINTER),
        ("wall.py", WALL),
        ("clock.py", CLOCK),
        ("Procfile", &procfile),
    ];
    for name in APPS {
        app(&host, name, &files)?;
    }
    let supervisor = crate::certain::supervisor(&host).ok_or("no supervisor")?;
    let before_all = peak_mib(supervisor)?;
    let late = Lateness::begin(&host)?;
    let started_at = Instant::now();
    let follow = host.dir.path().join("follow");
    let mut tail = host
        .command(&["logs", "--tail", "-a", "counted"])
        .stdin(std::process::Stdio::null())
        .stdout(std::fs::File::create(&follow)?)
        .spawn()?;
    for name in ["endless", "quiet", "counted"] {
        host.ok(&["ps:scale", &format!("{name}=1"), "-a", name])?;
    }
    host.ok(&["ps:scale", "clock=1", "nuls=1", "-a", "quiet"])?;
    let followed = || {
        let text = std::fs::read_to_string(&follow).unwrap_or_default();
        let shown = text.matches("app[counted.1]: line ").count();
        (shown, dropped(&text))
    };
    let all = host.eventually("each line is shown or counted", || {
        let (shown, dropped) = followed();
        shown + dropped >= PRINTED
    });
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(tail.id())?),
        nix::sys::signal::Signal::SIGTERM,
    )?;
    tail.wait()?;
    let (shown, dropped_of_counted) = followed();
    all.map_err(|error| format!("{shown} shown, {dropped_of_counted} dropped: {error:?}"))?;
    check(
        shown + dropped_of_counted == PRINTED && dropped_of_counted > PRINTED / 2,
        format!("{shown} shown and {dropped_of_counted} dropped of {PRINTED}"),
    )?;

    host.eventually("the endless one is told of it", || {
        host.logs("endless").contains("Error L10")
    })?;
    check(host.all_up("endless", &["endless.1"]), "and it goes on")?;
    let whole: Vec<String> = (0..600).map(|n| format!("line {n}")).collect();
    let quiet = |host: &Host| -> Vec<String> {
        let logs = host.logs("quiet");
        let lines = logs
            .lines()
            .filter_map(|line| line.split_once("app[quiet.1]: "));
        lines.map(|(_, text)| text.to_owned()).collect()
    };
    host.eventually("the quiet one has said all", || quiet(&host).len() >= 600)?;
    check(quiet(&host) == whole, host.logs("quiet"))?;
    check(
        !host.logs("quiet").contains("Error L10"),
        host.logs("quiet"),
    )?;
    let slowest = late.end()?;
    host.eventually("NULs are kept", || {
        let logs = host.logs("quiet");
        let lines = logs.lines();
        let mut texts = lines.filter_map(|line| line.split_once("app[nuls.1]: "));
        texts.any(|(_, text)| text.starts_with("before") && text.ends_with("after"))
    })?;
    // By itself: reading a flood of short lines takes what time there is.
    host.ok(&["ps:scale", "endless=0", "-a", "endless"])?;
    host.ok(&["ps:scale", "wall=1", "-a", "wall"])?;
    host.eventually("the line without end is over", || {
        host.logs("wall").contains("the wall is done")
    })?;
    check(host.all_up("wall", &["wall.1"]), "and its dyno goes on")?;
    contains(&host.logs("wall"), "Error L10")?;
    let grown = peak_mib(supervisor)?.saturating_sub(before_all);
    check(
        grown < GROWTH_MIB,
        format!("the supervisor grew by {grown} MiB"),
    )?;
    let journal = std::fs::read_to_string(host.journal())?;
    let warnings = journal.matches("prints faster than its log takes").count();
    let minutes = started_at.elapsed().as_secs() / 60 + 1;
    check(
        warnings >= 3 && warnings as u64 <= 3 * minutes,
        format!("{warnings} warnings for three apps: {}", host.story()),
    )?;
    host.ok(&["ps:scale", "clock=0", "nuls=0", "-a", "quiet"])?;
    for name in APPS {
        host.ok(&["ps:scale", &format!("{name}=0"), "-a", name])?;
    }
    host.eventually("nothing runs", || {
        APPS.iter().all(|name| host.states(name).is_empty())
    })?;
    host.stop()?;
    host.launch()?;
    check(quiet(&host) == whole, "another start finds the whole log")?;
    host.stop()?;
    Leftovers::none_since(&before)?;
    Ok(format!(
        "a line of {wall} MiB is cut, counted (L10) and costs the supervisor {grown} MiB; each line is shown or counted; a quiet app's log is whole and at most {} ms late",
        slowest.as_millis()
    ))
}

const APPS: [&str; 4] = ["counted", "endless", "quiet", "wall"];

/// The most memory that a process ever had.
fn peak_mib(pid: u32) -> Result<u64, Failed> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or("no VmHWM")?.parse::<u64>()? >> 10)
}

/// Reads what `clock` of the quiet app prints, and how late it comes.
struct Lateness {
    tail: std::process::Child,
    reader: std::thread::JoinHandle<(usize, Duration)>,
}

impl Lateness {
    fn begin(host: &Host) -> Result<Self, Failed> {
        let mut tail = host
            .command(&["logs", "--tail", "-a", "quiet"])
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(tail.stdout.take().ok_or("no stdout")?);
        let reader = std::thread::spawn(move || {
            let (mut count, mut slowest) = (0, Duration::ZERO);
            for line in lines.split(b'\n').map_while(Result::ok) {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                let line = String::from_utf8_lossy(&line).into_owned();
                let printed = line.split_once("app[clock.1]: at ");
                let printed = printed.and_then(|(_, at)| at.parse().ok());
                if let (Ok(now), Some(printed)) = (now, printed) {
                    count += 1;
                    slowest = slowest.max(now.saturating_sub(Duration::from_secs_f64(printed)));
                }
                if count == 300 {
                    break;
                }
            }
            (count, slowest)
        });
        Ok(Self { tail, reader })
    }

    /// The latest of its lines; none may be later than a second.
    fn end(mut self) -> Result<Duration, Failed> {
        let deadline = Instant::now() + PATIENCE;
        while !self.reader.is_finished() && Instant::now() < deadline {
            support::pause();
        }
        support::signal(self.tail.id(), nix::sys::signal::Signal::SIGTERM);
        self.tail.wait()?;
        let (count, slowest) = self.reader.join().map_err(|_| "the reader panicked")?;
        check(count == 300, format!("{count} lines of 300 came"))?;
        let most = Duration::from_secs(1) * support::patience();
        check(slowest < most, format!("a line was {slowest:?} late"))?;
        Ok(slowest)
    }
}

/// The sum of what the lines of L10 and L11 count.
fn dropped(logs: &str) -> usize {
    let lines = logs
        .lines()
        .filter(|line| line.contains("heroku[logplex]: Error L1"));
    lines
        .filter_map(|line| line.split_once(" messages "))
        .filter_map(|(told, _)| told.rsplit(' ').next()?.parse::<usize>().ok())
        .sum()
}

pub(crate) fn started(settings: &str) -> Result<Host, Failed> {
    let host = Host::with(settings)?;
    host.ok(&["create", "tiny"])?;
    host.ok(&["deploy", &app_dir("tiny"), "-a", "tiny"])?;
    host.eventually("web.1 is up", || host.all_up("tiny", &["web.1"]))?;
    Ok(host)
}

/// What a script in a one-off dyno of that size prints.
pub(crate) fn inside(host: &Host, size: &str, script: &str) -> String {
    let words = ["run", "-a", "tiny", "-s", size, "--", "bash", "-c", script];
    let output = host.cli(&words);
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Before the supervisor, in a mount namespace of its own: its state directory on a tmpfs.
const ON_TMPFS: &str = r#"
state=$1; size=$2; shift 2
instance=$(cat "$state/instance")
mount -t tmpfs -o mode=700,size=$size state "$state"
echo "$instance" > "$state/instance"
"#;

pub(crate) fn on_tmpfs(settings: &str, size: &str, more: &str) -> Result<Host, Failed> {
    let mut host = Host::unlaunched(settings)?;
    let script = format!("set -e\n{ON_TMPFS}\n{more}\nexec \"$@\"");
    let state = host.dir.path().join("state").display().to_string();
    let words = [
        "unshare", "--mount", "--", "sh", "-c", &script, "sh", &state, size,
    ];
    host.wrapper = words.map(str::to_owned).into();
    host.launch()?;
    host.ok(&["create", "tiny"])?;
    host.ok(&["deploy", &app_dir("tiny"), "-a", "tiny"])?;
    host.eventually("web.1 is up", || host.all_up("tiny", &["web.1"]))?;
    Ok(host)
}

/// Layers are bounded with the state directory on a tmpfs, and without loop devices; what the
/// host cannot enforce is said once at start and whenever somebody asks.
fn fallback() -> Result<(), Failed> {
    let before = Leftovers::count();
    let is_bounded = |host: &Host| {
        let fill =
            "dd if=/dev/zero of=/tmp/big bs=1M count=100 2>&1; df -m --output=size / | tail -1";
        let text = inside(host, "tiny", fill);
        contains(&text, "No space left on device")?;
        let mut size = text
            .lines()
            .filter_map(|line| line.trim().parse::<u64>().ok());
        let is_small = size.next_back().is_some_and(|mib| (24..=32).contains(&mib));
        check(is_small, format!("df: {text}"))
    };
    let mut host = on_tmpfs(SIZES, "1g", "")?;
    contains(
        &host.ok(&["disk"])?,
        "bounded by ext4 images over loop devices",
    )?;
    is_bounded(&host)?;
    host.stop()?;

    let mut host = on_tmpfs(SIZES, "1g", "mount --bind /dev/null /dev/loop-control")?;
    contains(
        &host.ok(&["disk"])?,
        "bounded by tmpfs in the dyno's memory",
    )?;
    is_bounded(&host)?;
    let answer = crate::certain::api(&host.socket(), "GET", "/host", "")?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let told: serde_json::Value = serde_json::from_str(body)?;
    let notices = told["notices"].as_array().into_iter().flatten();
    let notices: Vec<&str> = notices.filter_map(serde_json::Value::as_str).collect();
    let has = |start: &str| notices.iter().any(|notice| notice.starts_with(start));
    check(
        has("writable layers lie in memory, charged to their dynos"),
        body,
    )?;
    let has_v1 = std::path::Path::new("/sys/fs/cgroup/memory").is_dir();
    check(!has_v1 || has("io_weight of sizes has no effect"), body)?;
    let journal = std::fs::read_to_string(host.journal())?;
    for words in [vec!["disk"], vec!["info", "-a", "tiny"]] {
        let output = host.cli(&words);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        for notice in &notices {
            let said = journal.matches(notice).count();
            check(said == 1, format!("{said} times {notice}: {journal}"))?;
            contains(&text, &format!("note: {notice}"))?;
        }
    }
    host.stop()?;
    Leftovers::none_since(&before)
}

/// Writes more and more, each byte to the host's disk, no faster than one look a second can see.
const HOARD: &str = r"
import os, time
with open('/tmp/hoard', 'wb', buffering=0) as file:
    while True:
        file.write(os.urandom(1 << 20))
        os.fdatasync(file.fileno())
        time.sleep(0.01)
";

/// Running dynos do not fill the host's disk: the one that has most of it goes, is told why, and
/// what it had is free again; the others go on.
fn room() -> Result<(), Failed> {
    let before = Leftovers::count();
    let settings = "
[timings]
stop_grace = 2
[disk]
reserve_mb = 512
build_mb = 64
cache_mb = 64
[sizes.Wide]
memory_mb = 64
disk_mb = 4096
";
    let mut host = on_tmpfs(settings, "1g", "")?;
    app(
        &host,
        "hoard",
        &[
            ("hoard.py", HOARD),
            ("Procfile", "hoard: python3 hoard.py\n"),
        ],
    )?;
    host.ok(&["ps:scale", "hoard=1:wide", "-a", "hoard"])?;
    let told = "heroku[hoard.1]: The host's disk is full (";
    host.eventually("the hoarder is stopped", || {
        host.logs("hoard")
            .contains("State changed from up to crashed")
    })?;
    let logs = host.logs("hoard");
    contains(&logs, told)?;
    let line = logs.lines().find_map(|line| line.split_once(told));
    let left = line.and_then(|(_, rest)| rest.split_once(" MB left"));
    let left: u64 = left.map_or("none", |(number, _)| number).parse()?;
    check(
        (1..256).contains(&left),
        format!("before it was full: {logs}"),
    )?;
    check(host.all_up("tiny", &["web.1"]), "the neighbour goes on")?;
    host.ok(&["ps:scale", "hoard=0", "-a", "hoard"])?;
    host.eventually("its room is free again", || {
        inside(&host, "wide", "echo started").contains("started")
    })?;
    host.stop()?;
    Leftovers::none_since(&before)
}

const FILL: &str = r"
import errno, os
def until_full(step):
    try:
        for n in range(10**6):
            step(n)
    except OSError as error:
        return errno.errorcode[error.errno]
chunk = b'x' * (1 << 20)
stat = os.statvfs('/tmp')
print('df', stat.f_blocks * stat.f_frsize >> 20, 'MiB')
big = open('/tmp/big', 'wb', buffering=0)
print('bytes in /tmp', until_full(lambda n: big.write(chunk)), big.tell() >> 20)
print('elsewhere', until_full(lambda n: open('/app/more', 'ab', buffering=0).write(chunk)))
os.unlink('/tmp/big')
print('deleted but open', until_full(lambda n: open('/var/tmp/x', 'ab', buffering=0).write(chunk)))
big.close()
print('freed', open('/app/again', 'wb', buffering=0).write(chunk))
for name in ('/app/more', '/var/tmp/x', '/app/again'):
    if os.path.exists(name): os.unlink(name)
try:
    fd = os.open('/tmp/sparse', os.O_CREAT | os.O_RDWR)
    os.ftruncate(fd, 1 << 40)
    print('sparse', until_full(lambda n: os.pwrite(fd, chunk, n << 30)))
except OSError as error:
    print('sparse', errno.errorcode[error.errno])
os.close(fd)
os.unlink('/tmp/sparse')
fd = os.open('/tmp/ahead', os.O_CREAT | os.O_RDWR)
try:
    os.posix_fallocate(fd, 0, 1 << 30)
    print('fallocate done')
except OSError as error:
    print('fallocate', errno.errorcode[error.errno])
os.close(fd)
os.unlink('/tmp/ahead')
os.mkdir('/tmp/many')
made = []
def make(n):
    os.close(os.open('/tmp/many/%d' % n, os.O_CREAT)); made.append(n)
print('inodes', until_full(make), len(made) < 2000)
";

/// X-05, X-06: bytes and inodes end at the size's bound, also for a build; the host keeps its
/// room, what was used is given back, and nothing stays mounted.
fn disk() -> Result<(), Failed> {
    let before = Leftovers::count();
    let mut report = Report::new(DISK);
    let mut host = started(SIZES)?;
    for attacker in [As::User, As::Root, As::Bare] {
        if attacker != As::User {
            host.weaken(attacker)?;
        }
        let room = free_mb(&host)?;
        let words = [
            "run", "-a", "tiny", "-s", "tiny", "--", "python3", "-c", FILL,
        ];
        let output = host.cli(&words);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = |lines: &[&str]| {
            let missing = lines.iter().find(|line| !text.contains(*line));
            let story = || format!("{missing:?} in {text}\n{output:?}");
            check(missing.is_none(), story())
        };
        report.holds("X-05", attacker, || {
            said(&[
                "bytes in /tmp ENOSPC",
                "elsewhere ENOSPC",
                "deleted but open ENOSPC",
                "freed 1048576",
                "sparse ENOSPC",
                "fallocate ENOSPC",
            ])?;
            empty_again(&host)?;
            let taken = room.saturating_sub(free_mb(&host)?);
            check(taken < 256, format!("{taken} MiB of the host stay taken"))?;
            Ok("ENOSPC at 32 MiB in 6 ways; the next layer is empty".to_owned())
        });
        report.holds("X-06", attacker, || {
            said(&["inodes ENOSPC True"])?;
            empty_again(&host)?;
            Ok("ENOSPC at 2000 inodes; the next layer is empty".to_owned())
        });
    }
    host.weaken(As::User)?;
    host.eventually("web.1 is up", || host.all_up("tiny", &["web.1"]))?;
    // 40 MiB of zeros are a small upload and more than a build may write here.
    let source = tempfile::tempdir()?;
    std::fs::write(source.path().join("requirements.txt"), "")?;
    std::fs::File::create(source.path().join("zeros"))?.set_len(40 << 20)?;
    let source = source.path().display().to_string();
    let output = host.cli(&["deploy", &source, "-a", "tiny"]);
    check(!output.status.success(), format!("refused: {output:?}"))?;
    contains(
        &String::from_utf8_lossy(&output.stdout),
        "No space left on device",
    )?;
    host.eventually("web.1 still runs", || host.all_up("tiny", &["web.1"]))?;
    host.stop()?;
    Leftovers::none_since(&before)?;
    report.finish(&[As::User, As::Root, As::Bare])
}

/// The next dyno of that size starts empty, though the volume is used again.
fn empty_again(host: &Host) -> Result<(), Failed> {
    let text = inside(
        host,
        "tiny",
        "ls -A /tmp /app; df --output=used -m /tmp | tail -1",
    );
    check(!text.contains("many"), format!("a fresh layer: {text}"))?;
    contains(&text, "server.py")
}

/// Free on the file system of the state directory, in MiB.
fn free_mb(host: &Host) -> Result<u64, Failed> {
    let stat = nix::sys::statvfs::statvfs(host.dir.path())?;
    Ok((stat.blocks_available() * stat.fragment_size()) >> 20)
}
