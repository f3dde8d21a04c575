//! What `manifold security` tells, held against a dyno that runs.

use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use crate::host::{Host, check, contains, deployed};

/// The cases of this file.
pub(crate) fn cases() -> Vec<Trial> {
    vec![Trial::test(
        "security::what_is_told_is_what_a_dyno_has",
        told_and_seen,
    )]
}

fn inside(host: &Host, script: &str) -> String {
    let output = host.cli(&["run", "-a", "tiny", "--", "bash", "-c", script]);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn told_and_seen() -> Result<(), Failed> {
    let host = deployed()?;
    host.ok(&["network:allow", "10.9.9.9:5432", "-a", "tiny"])?;
    let told: Value = serde_json::from_str(&host.ok(&["security", "tiny", "--json"])?)?;
    let seen = inside(
        &host,
        "cat /proc/self/status; echo ---; cat /proc/self/mountinfo; echo ---
         for n in user mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done; echo ---
         cat /proc/self/uid_map; ulimit -Sn; ulimit -Hn; ulimit -u; ulimit -c",
    );
    let parts: Vec<&str> = seen.split("---\n").collect();
    let [status, mounts, namespaces, numbers] = parts.as_slice() else {
        return Err(format!("four parts: {seen}").into());
    };
    identity(&told, status, numbers)?;
    apart(&told, namespaces)?;
    mounted(&told, mounts)?;
    let rule = &told["network"]["rules"][0];
    check(rule["target"] == "10.9.9.9:5432", format!("{told}"))?;
    let text = host.ok(&["security", "tiny"])?;
    contains(&text, "  10.9.9.9:5432 (network:allow)")?;
    denied(&host, &told)?;
    let missing = host.cli(&["security", "tiny", "--type", "nosuch"]);
    check(missing.status.code() == Some(3), format!("{missing:?}"))
}

fn texts(value: &Value) -> Vec<String> {
    let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter()
        .filter_map(|v| v.as_str().map(str::to_owned))
        .collect()
}

fn identity(told: &Value, status: &str, numbers: &str) -> Result<(), Failed> {
    let (uid, gid) = (&told["user"]["uid"], &told["user"]["gid"]);
    contains(status, &format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}"))?;
    contains(status, &format!("Gid:\t{gid}\t{gid}\t{gid}\t{gid}"))?;
    let kept = texts(&told["capabilities"]["kept"]);
    check(kept.is_empty(), format!("{kept:?}"))?;
    for set in ["Inh", "Prm", "Eff", "Bnd", "Amb"] {
        contains(status, &format!("Cap{set}:\t0000000000000000"))?;
    }
    let sure =
        told["capabilities"]["no_new_privileges"] == true && told["seccomp"]["is_on"] == true;
    check(sure, format!("{told}"))?;
    contains(status, "NoNewPrivs:\t1")?;
    contains(status, "Seccomp:\t2")?;
    let mut lines = numbers.lines();
    let map: Vec<u32> = lines
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let number = |key: &str| {
        told["user"][key]
            .as_u64()
            .and_then(|n| u32::try_from(n).ok())
    };
    let (first, ids) = (
        number("host_first").ok_or("first")?,
        number("ids").ok_or("ids")?,
    );
    check(
        map.len() == 3 && map[0] == 0 && map[2] == ids && (map[1] - first).is_multiple_of(ids),
        format!("{map:?} of {first} and {ids}"),
    )?;
    let limit = |name: &str| {
        let limits = told["limits"].as_array().cloned().unwrap_or_default();
        let found = limits.into_iter().find(|l| l["name"] == name);
        found
            .and_then(|l| l["value"].as_str().map(str::to_owned))
            .unwrap_or_default()
    };
    let (soft, hard) = (
        lines.next().unwrap_or_default(),
        lines.next().unwrap_or_default(),
    );
    let files = limit("open files of a process");
    let highest = files.split(' ').filter_map(|w| w.parse::<u64>().ok()).max();
    // A host that cannot raise limits gives what it has.
    let is_hard = hard.parse::<u64>().is_ok_and(|hard| Some(hard) <= highest);
    check(
        files.starts_with(&format!("{soft}, ")) && is_hard,
        format!("{files}: {soft} {hard}"),
    )?;
    let tasks = limit("processes and threads");
    check(
        lines.next() == Some(tasks.as_str()),
        format!("{tasks}: {numbers}"),
    )
}

/// Every namespace that is told differs from this process's, and no other does.
fn apart(told: &Value, seen: &str) -> Result<(), Failed> {
    let list = told["namespaces"].as_array().cloned().unwrap_or_default();
    check(list.len() == 7, format!("{list:?}"))?;
    for namespace in list {
        let name = namespace["name"].as_str().unwrap_or_default();
        let own = std::fs::read_link(format!("/proc/self/ns/{name}"))?;
        let line = seen.lines().find(|l| l.starts_with(&format!("{name}:")));
        let line = line.ok_or_else(|| format!("no {name} in {seen}"))?;
        check(own.to_string_lossy() != line, format!("{name} is its own"))?;
    }
    Ok(())
}

/// The dyno's mounts are those that are told, each with its flags and no others.
fn mounted(told: &Value, seen: &str) -> Result<(), Failed> {
    let mut expected = std::collections::BTreeMap::new();
    for mount in told["mounts"].as_array().cloned().unwrap_or_default() {
        let target = mount["target"].as_str().unwrap_or_default().to_owned();
        expected.insert(target, texts(&mount["flags"]));
    }
    let mut found = std::collections::BTreeSet::new();
    let covered: Vec<String> = [texts(&told["masked"]), texts(&told["read_only"])].concat();
    for line in seen.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let (Some(target), Some(options)) = (fields.get(4), fields.get(5)) else {
            return Err(format!("mountinfo: {line}").into());
        };
        let options: Vec<&str> = options.split(',').collect();
        if covered.iter().any(|path| path == target) {
            check(options.contains(&"ro"), line)?;
            continue;
        }
        let flags = expected.get(*target);
        let flags = flags.ok_or_else(|| format!("not told: {line}"))?;
        found.insert((*target).to_owned());
        for flag in ["ro", "rw", "nosuid", "nodev", "noexec"] {
            check(
                options.contains(&flag) == flags.iter().any(|f| f == flag),
                format!("{flag} of {line}, told {flags:?}"),
            )?;
        }
    }
    expected.retain(|target, _| !found.contains(target));
    check(
        expected.is_empty(),
        format!("told but not there: {expected:?}"),
    )
}

/// Calls that are told as denied answer EPERM in a dyno.
fn denied(host: &Host, told: &Value) -> Result<(), Failed> {
    let groups = told["seccomp"]["denied"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let calls: Vec<String> = groups
        .iter()
        .flat_map(|group| texts(&group["calls"]))
        .collect();
    check(calls.len() > 50, format!("{calls:?}"))?;
    // Two of each list: all numbers are tried by the attacks on the filter.
    let seen = inside(
        host,
        "python3 - <<'E'
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
for name, number in (('mount', 165), ('bpf', 321), ('keyctl', 250), ('setns', 308), ('swapon', 167)):
    libc.syscall(number, 0, 0, 0, 0, 0)
    print(name, errno.errorcode[ctypes.get_errno()])
E",
    );
    for line in seen.lines() {
        let (name, outcome) = line.split_once(' ').unwrap_or_default();
        check(
            outcome == "EPERM" && calls.iter().any(|c| c == name),
            seen.clone(),
        )?;
    }
    check(seen.lines().count() == 5, seen.clone())
}
