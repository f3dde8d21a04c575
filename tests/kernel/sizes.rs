//! What a size bounds beside memory and disk, and how programs in a dyno see their size.

use std::path::Path;
use std::process::Command;

use libtest_mimic::{Failed, Trial};

use crate::certain::{groups, groups_of, place};
use crate::host::{Host, check};
use crate::limits::{HOG, app, inside, started};
use crate::support::{self, Leftovers};

/// The cases of this file.
pub(crate) fn cases() -> Vec<Trial> {
    vec![
        Trial::test("limits::cpu", cpu),
        Trial::test("limits::reserve", reserve),
        Trial::test("limits::seen", seen),
        // Swap is the whole machine's.
        Trial::test("limits::swap", swap).with_ignored_flag(!support::is_guest()),
        Trial::test("limits::weights", weights),
        Trial::test("limits::retyped", retyped),
    ]
}

/// Where runtimes and buildpacks look for the size of their dyno, and what they find.
const LOOK: &str = r#"
cd /sys/fs/cgroup
for file in memory.max memory/memory.limit_in_bytes cpu.max cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us cpu,cpuacct/cpu.cfs_quota_us pids.max pids/pids.max; do
  echo "$file=$(cat $file)"
done
echo "nproc=$(ulimit -u)"
echo "ram=$DYNO_RAM"
echo "concurrent=$WEB_CONCURRENCY"
echo "elsewhere=$(cut -d: -f3 /proc/self/cgroup | grep -vx / | wc -l)"
for file in memory.max memory/memory.limit_in_bytes cgroup.procs; do
  (echo 99999999999 > $file) 2>/dev/null && echo "written=$file"
done
mkdir x 2>/dev/null && echo made=x
python3 - <<'END'
import os
# As container-aware programs do: the version and group from /proc/self/cgroup, then its files.
for line in open('/proc/self/cgroup'):
    number, controllers, path = line.strip().split(':', 2)
    for file in {'0': ['memory.max'], 'memory': ['memory/memory.limit_in_bytes']}.get(number if number == '0' else controllers, []):
        kind, name = os.path.split(file)
        text = open(os.path.join('/sys/fs/cgroup', kind, path.lstrip('/'), name)).read()
        print('python=' + text.strip())

def go():
    # As the runtime of Go 1.25 and later: a mount of cgroups (v1's of the CPU before v2's), the path of
    # the CPU's group below it, and there the files of the version that this group is of.
    mount = path = None
    for line in open('/proc/self/mountinfo'):
        place, kind = [part.split() for part in line.split(' - ')]
        if kind[0] == 'cgroup2':
            mount = place[4]
        elif kind[0] == 'cgroup' and 'cpu' in kind[2].split(','):
            mount = place[4]
            break
    for line in open('/proc/self/cgroup'):
        number, controllers, group = line.strip().split(':', 2)
        if number == '0':
            path, files = group, ['cpu.max']
        elif 'cpu' in controllers.split(','):
            path, files = group, ['cpu.cfs_quota_us', 'cpu.cfs_period_us']
            break
    if mount is None or path is None:
        return 'no group'
    quota, period = ' '.join(open(mount + path + '/' + file).read() for file in files).split()
    return 'none' if quota in ('max', '-1') else int(quota) / int(period)
print('go=%s' % go())

def ruby():
    # As concurrent-ruby, which Puma asks for WEB_CONCURRENCY=auto.
    quota, period = open('/sys/fs/cgroup/cpu.max').read().split()
    return 'none' if quota == 'max' else int(quota) / int(period)
print('ruby=%s' % ruby())
END
if command -v ruby > /dev/null; then
  ruby -e 'q, p = File.read("/sys/fs/cgroup/cpu.max").split; puts "realruby=#{q == "max" ? "none" : q.to_f / p.to_f}"
    puts "rubymemory=#{File.read("/sys/fs/cgroup/memory.max").to_i}"'
fi
if command -v node > /dev/null; then
  echo "node=$(node -p 'process.constrainedMemory ? process.constrainedMemory() : 0')"
  echo "heap=$(node -p 'require("v8").getHeapStatistics().heap_size_limit >> 20')"
fi
if command -v java > /dev/null; then
  java -XX:+PrintFlagsFinal -version 2>/dev/null | awk '$2 == "MaxHeapSize" { print "java=" $4 }'
  java -Xlog:os+container=trace -version 2>/dev/null | sed -n 's/.*active_processor_count: /processors=/p' | tail -1
fi
"#;

/// What the Node.js buildpack makes of it at a dyno's start.
const NODE: &str = concat!(
    "unset WEB_CONCURRENCY\n",
    include_str!("../../src/build/buildpacks/nodejs/profile.sh"),
    "echo available=$MEMORY_AVAILABLE; echo workers=$WEB_CONCURRENCY"
);

/// A dyno sees its size where programs look for it, whatever the kernel's own limits and version
/// are; it changes nothing there.
fn seen() -> Result<(), Failed> {
    let before = Leftovers::count();
    let mut host =
        started("[sizes.Half]\nmemory_mb = 768\ncpu_percent = 50\ntasks = 100\ndisk_mb = 64\n")?;
    let cores = std::thread::available_parallelism()?.get() as u64;
    let look = |size: &str| {
        let text = inside(&host, size, &format!("{LOOK}\n{NODE}"));
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        let pairs = pairs.map(|(key, value)| (key.to_owned(), value.trim().to_owned()));
        let seen: std::collections::BTreeMap<String, String> = pairs.collect();
        (seen, text)
    };
    for (size, memory, cpu, quota, tasks, processors) in [
        (
            "standard-1x",
            512_u64 << 20,
            "max 100000",
            "-1",
            "256",
            "none",
        ),
        ("standard-2x", 1 << 30, "max 100000", "-1", "512", "none"),
        ("half", 768 << 20, "50000 100000", "50000", "100", "0.5"),
    ] {
        let (seen, text) = look(size);
        let mib = memory >> 20;
        let bytes = memory.to_string();
        // One for each 256 MiB, at most two for each core and one.
        let concurrency = (memory >> 28).min(cores * 2 + 1).to_string();
        for (key, value) in [
            ("memory.max", bytes.as_str()),
            ("memory/memory.limit_in_bytes", &bytes),
            ("cpu.max", cpu),
            ("cpu/cpu.cfs_quota_us", quota),
            ("cpu/cpu.cfs_period_us", "100000"),
            ("cpu,cpuacct/cpu.cfs_quota_us", quota),
            ("go", processors),
            ("ruby", processors),
            ("pids.max", tasks),
            ("pids/pids.max", tasks),
            ("nproc", tasks),
            ("elsewhere", "0"),
            ("python", &bytes),
            ("ram", &mib.to_string()),
            ("available", &mib.to_string()),
            ("workers", &(mib / 512).max(1).to_string()),
            ("concurrent", &concurrency),
        ] {
            let found = seen.get(key).map(String::as_str);
            check(
                found == Some(value),
                format!("{size}: {key} is {value}: {text}"),
            )?;
        }
        check(
            !seen.contains_key("written") && !seen.contains_key("made"),
            text.clone(),
        )?;
        for (key, value) in [("realruby", processors), ("rubymemory", &bytes)] {
            let found = seen.get(key).map_or(value, String::as_str);
            check(found == value, format!("{size}: {key} is {value}: {text}"))?;
        }
        let number = |key: &str| seen.get(key).and_then(|value| value.parse::<u64>().ok());
        if let Some(node) = number("node").filter(|bytes| *bytes > 0) {
            check(node == memory, format!("{size}: Node sees {node}"))?;
        }
        if let Some(heap) = number("heap") {
            check(
                heap < memory >> 20,
                format!("{size}: V8 would take {heap} MiB"),
            )?;
        }
        if let Some(java) = number("java") {
            // A quarter, rounded to what its collector wants.
            let quarter = memory / 4;
            let range = quarter - (8 << 20)..=quarter + (8 << 20);
            check(
                range.contains(&java),
                format!("{size}: the JVM takes {java}: {text}"),
            )?;
        }
        if let (Some(processors), "half") = (number("processors"), size) {
            check(
                processors == 1,
                format!("the JVM sees {processors} processors"),
            )?;
        }
    }
    host.stop()?;
    Leftovers::none_since(&before)
}

/// Two processes that compute for a while: their CPU time in per cent of the time that passed. It
/// stays, so that its group can be looked at.
const BURN: &str = r"
import os, time
start = time.monotonic()
children = []
for _ in range(2):
    child = os.fork()
    if child == 0:
        while time.monotonic() < start + 3: pass
        os._exit(0)
    children.append(child)
for child in children: os.waitpid(child, 0)
used = sum(os.times()[2:4])
print('percent', round(used / (time.monotonic() - start) * 100))
time.sleep(10**6)
";

/// `cpu_percent` is a hard limit, also where nobody else wants the CPU; shares are not.
fn cpu() -> Result<(), Failed> {
    let before = Leftovers::count();
    let mut host = started(
        "[sizes.Slow]\nmemory_mb = 64\ndisk_mb = 64\ncpu_percent = 20\n[sizes.Small]\nmemory_mb = 64\ndisk_mb = 64\n",
    )?;
    // How much of a CPU it had, and how often the kernel held it back.
    let burn = |size: &str| -> Result<(u64, u64), Failed> {
        let dyno = detached(&host, size, &["python3", "-u", "-c", BURN])?;
        let line = format!("app[{dyno}]: percent ");
        host.eventually("it has burned", || host.logs("tiny").contains(&line))?;
        let logs = host.logs("tiny");
        let rest = logs
            .split_once(&line)
            .and_then(|(_, rest)| rest.lines().next());
        let percent = rest.unwrap_or_default().trim().parse()?;
        let throttled = throttled(&host, &dyno)?;
        host.ok(&["ps:stop", &dyno, "-a", "tiny"])?;
        Ok((percent, throttled))
    };
    // An emulated processor stands still now and then, which counts as time that was used.
    let most = if support::is_guest() { 60 } else { 28 };
    let (slow, held_back) = burn("slow")?;
    check(
        slow <= most && held_back > 0,
        format!("{slow} % of 20, held back {held_back} times"),
    )?;
    let (free, held_back) = burn("small")?;
    check(
        held_back == 0,
        format!("without a hard limit held back {held_back} times: {free} %"),
    )?;
    host.stop()?;
    Leftovers::none_since(&before)
}

/// A detached one-off of `tiny`; its name.
fn detached(host: &Host, size: &str, command: &[&str]) -> Result<String, Failed> {
    let words = ["run:detached", "-a", "tiny", "-s", size, "--"];
    let words = [words.as_slice(), command].concat();
    Ok(host.ok(&words)?.trim().to_owned())
}

fn throttled(host: &Host, dyno: &str) -> Result<u64, Failed> {
    let own = groups_of(host, dyno)?.into_iter();
    let texts = own.filter_map(|group| std::fs::read_to_string(group.join("cpu.stat")).ok());
    let counts = texts.filter_map(|text| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("nr_throttled "));
        line.and_then(|count| count.trim().parse().ok())
    });
    Ok(counts.max().ok_or("no cpu.stat")?)
}

/// All dynos together leave memory, task numbers and most of the CPU to the supervisor.
fn reserve() -> Result<(), Failed> {
    const RESERVE: u64 = 300 << 20;
    let before = Leftovers::count();
    let mut host = Host::with("[reserve]\nmemory_mb = 300\n")?;
    crate::hostile::has_share(&host)?;
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let meminfo = read(Path::new("/proc/meminfo"));
    let total = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"));
    let total = total.and_then(|text| number(text.trim_end_matches("kB")));
    let total = total.ok_or("no MemTotal")? << 10;
    let numbers = ["pid_max", "threads-max"]
        .map(|file| number(&read(&Path::new("/proc/sys/kernel").join(file))));
    let numbers = numbers.into_iter().flatten().min().ok_or("no pid_max")?;
    let instance = read(&host.dir.path().join("state/instance"));
    let bound = |files: [(&str, &str); 2]| {
        let name = format!("manifold-{}", instance.trim());
        let mut found = files.into_iter().filter_map(|(top, file)| {
            number(&read(
                &Path::new("/sys/fs/cgroup").join(top).join(&name).join(file),
            ))
        });
        found.next().ok_or("no bound of all dynos")
    };
    let memory = bound([("memory", "memory.limit_in_bytes"), ("", "memory.max")])?;
    // The kernel counts in pages.
    check(
        (total - RESERVE).abs_diff(memory) <= 4096,
        format!("{memory} of {total}"),
    )?;
    let tasks = bound([("pids", "pids.max"), ("", "pids.max")])?;
    check(tasks == numbers * 9 / 10, format!("{tasks} of {numbers}"))?;
    host.stop()?;
    Leftovers::none_since(&before)
}

/// A disk that is scheduled by weights, in the place of the state directory.
const ON_BFQ: &str = r#"
set -e
state=$1; shift
instance=$(cat "$state/instance")
image=$state.image
truncate -s 1G "$image"
mkfs.ext4 -q "$image"
device=$(losetup -f --show "$image")
echo bfq > "/sys/block/${device#/dev/}/queue/scheduler"
mount "$device" "$state"
# It goes with its mount.
losetup -d "$device"
rm "$image"
chmod 700 "$state"
echo "$instance" > "$state/instance"
exec "$@"
"#;

/// `io_weight` where the disk's scheduler knows weights; elsewhere it is said that it has no effect.
fn weights() -> Result<(), Failed> {
    let before = Leftovers::count();
    let unheard = "io_weight of sizes has no effect";
    let settings = "[sizes.Heavy]\nmemory_mb = 64\ndisk_mb = 64\nio_weight = 500\n";
    let mut host = Host::unlaunched(settings)?;
    let state = host.dir.path().join("state").display().to_string();
    let words = ["unshare", "--mount", "--", "sh", "-c", ON_BFQ, "sh", &state];
    host.wrapper = words.map(str::to_owned).into();
    host.launch()?;
    let told = std::fs::read_to_string(host.journal())?;
    check(!told.contains(unheard), told)?;
    host.deploy_tiny("tiny")?;
    let weight = |size: &str| -> Result<String, Failed> {
        let dyno = detached(&host, size, &["sleep", "1000"])?;
        host.eventually("it is in its group", || weighed(&host, &dyno).is_ok())?;
        let found = weighed(&host, &dyno)?;
        host.ok(&["ps:stop", &dyno, "-a", "tiny"])?;
        Ok(found)
    };
    let (heavy, other) = (weight("heavy")?, weight("standard-1x")?);
    check(
        heavy == "500" && other == "100",
        format!("{heavy} and {other}"),
    )?;
    host.ok(&["ps:scale", "web=0", "-a", "tiny"])?;
    host.eventually("no group is left", || groups(&host).is_empty())?;
    host.stop()?;
    Leftovers::none_since(&before)
}

/// `ps:type` gives a process type another size, and its dynos start anew with that: what they are told,
/// what they may use, and what the table and the API say. A size that is not there changes nothing.
fn retyped() -> Result<(), Failed> {
    let before = Leftovers::count();
    let mut host = Host::with("[sizes.Small]\nmemory_mb = 64\ndisk_mb = 64\ntasks = 77\n")?;
    let line = "echo size ram=$DYNO_RAM max=$(cat /sys/fs/cgroup/memory.max); exec sleep 100000";
    let procfile = format!("worker: {line}\nclock: {line}\n");
    app(&host, "tiny", &[("Procfile", &procfile)])?;
    host.ok(&["ps:scale", "worker=2:standard-1x", "clock=1", "-a", "tiny"])?;
    let told = |dyno: &str, mib: u64| {
        let line = format!("app[{dyno}]: size ram={mib} max={}", mib << 20);
        host.logs("tiny").matches(&line).count()
    };
    host.eventually("three of 512 MB", || {
        ["worker.1", "worker.2", "clock.1"]
            .iter()
            .all(|dyno| told(dyno, 512) == 1)
    })?;
    let is_small = |table: String| {
        let row = table.lines().find(|line| line.contains("worker"));
        check(row.is_some_and(|row| row.contains("Small")), table.clone())
    };
    is_small(host.ok(&["ps:type", "worker=small", "-a", "tiny"])?)?;
    host.eventually("both workers of 64 MB", || {
        ["worker.1", "worker.2"]
            .iter()
            .all(|dyno| told(dyno, 64) == 1)
            && host.all_up("tiny", &["clock.1", "worker.1", "worker.2"])
    })?;
    // The kernel's own bounds, on either version of cgroups.
    let bound = |dyno: &str| -> Result<u64, Failed> {
        let own = groups_of(&host, dyno)?.into_iter();
        let mut texts =
            own.filter_map(|group| std::fs::read_to_string(group.join("pids.max")).ok());
        Ok(texts.next().ok_or("no pids.max")?.trim().parse()?)
    };
    let bounds = (bound("worker.1")?, bound("worker.2")?, bound("clock.1")?);
    check(bounds == (77, 77, 256), format!("{bounds:?}"))?;
    let refused = host.cli(&["ps:type", "worker=huge", "-a", "tiny"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    check(!refused.status.success() && text.contains("huge"), text)?;
    is_small(host.ok(&["ps:type", "-a", "tiny"])?)?;
    // A type that was not named has not been restarted; nor is any by what was refused.
    let starts = (told("clock.1", 512), told("worker.1", 64));
    check(starts == (1, 1), format!("{starts:?} starts"))?;
    host.stop()?;
    Leftovers::none_since(&before)
}

/// The weight of a dyno's group, which its processes are in.
fn weighed(host: &Host, dyno: &str) -> Result<String, Failed> {
    // That of disk I/O has a directory of the same name.
    let groups = groups_of(host, dyno)?;
    let place = place(groups.first().ok_or("no group")?);
    for (top, file) in [("blkio", "blkio.bfq.weight"), ("", "io.bfq.weight")] {
        let group = Path::new("/sys/fs/cgroup").join(top).join(&place);
        if let Ok(text) = std::fs::read_to_string(group.join(file)) {
            let members = std::fs::read_to_string(group.join("cgroup.procs"))?;
            check(!members.is_empty(), "its processes are in the group")?;
            // v2: `default 500`.
            return Ok(text.trim().trim_start_matches("default ").to_owned());
        }
    }
    Err(format!("no weight of {dyno}").into())
}

/// A file to swap to, as long as this lives.
struct Swap(std::path::PathBuf);

impl Swap {
    fn on(mib: u32) -> Result<Self, Failed> {
        let swap = Self("/var/tmp/swap".into());
        let file = swap.0.display();
        let script = format!(
            "set -e; dd if=/dev/zero of={file} bs=1M count={mib} 2>/dev/null; chmod 600 {file}; mkswap {file} >/dev/null; swapon {file}"
        );
        let status = Command::new("sh").args(["-c", &script]).status()?;
        check(status.success(), "no swap")?;
        Ok(swap)
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        // The machine ends with its tests.
        let _ = Command::new("swapoff").arg(&self.0).status();
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Where the host has swap, a dyno above its quota goes on in it (R14), and ends at twice (R15).
fn swap() -> Result<(), Failed> {
    let before = Leftovers::count();
    let _swap = Swap::on(256)?;
    let mut host = Host::with(
        "[timings]\nmetrics_period = 1\nstop_grace = 2\n[sizes.Small]\nmemory_mb = 64\ndisk_mb = 128\n",
    )?;
    let procfile = "held: python3 hog.py held\nfamily: python3 hog.py family\n";
    app(&host, "hog", &[("hog.py", HOG), ("Procfile", procfile)])?;
    host.ok(&["ps:scale", "held=1:small", "-a", "hog"])?;
    host.eventually("R14 at each sample", || {
        let logs = host.logs("hog");
        logs.matches("Error R14 (Memory quota exceeded)").count() >= 2
    })?;
    check(host.all_up("hog", &["held.1"]), "R14 only warns")?;
    let group = groups(&host).into_iter().next().ok_or("no group")?;
    let number = |file: &str| -> Result<u64, Failed> {
        Ok(std::fs::read_to_string(group.join(file))?.trim().parse()?)
    };
    let quota = 64 << 20;
    let bounds = (number("memory.max")?, number("memory.swap.max")?);
    check(bounds == (quota, quota), format!("{bounds:?}"))?;
    let swapped = number("memory.swap.current")?;
    check(swapped > 0, "it goes on in swap")?;
    host.ok(&["ps:scale", "held=0", "family=1:small", "-a", "hog"])?;
    host.eventually("R15 at twice the quota", || {
        let logs = host.logs("hog");
        logs.contains("heroku[family.1]: Error R15 (Memory quota vastly exceeded)")
            && logs.contains("heroku[family.1]: State changed from up to crashed")
    })?;
    host.stop()?;
    Leftovers::none_since(&before)
}
