//! Attacks on the control plane: names and values that reach paths, rules and environments,
//! callers that may not call, and requests that are too many or too large.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;

use super::around::{as_nobody, family, inside, is_exiting};
use super::control::{Answer, request};
use super::{As, Report};
use crate::host::{Host, check, contains};
use crate::support::{self, Leftovers};

/// The name of the test, as the rows have it.
pub(super) const TEST: &str = "attack::control_plane";

/// Longest answer of the API while it is attacked.
const PROMPT: Duration = Duration::from_secs(1);

type Check = fn(&Host) -> Result<String, Failed>;

pub(super) fn run() -> Result<(), Failed> {
    let before = Leftovers::count();
    let mut host = Host::with("[timings]\nattach_timeout = 8\nstop_grace = 2\n")?;
    host.deploy_tiny("tiny")?;
    let mut report = Report::new(TEST);
    let checks: [(&str, Check); 5] = [
        ("L-04", variables),
        ("L-05", names),
        ("L-06", callers),
        ("X-13", sizes),
        ("X-14", sessions),
    ];
    for (id, act) in checks {
        report.holds(id, As::User, || act(&host));
    }
    host.stop()?;
    Leftovers::none_since(&before)?;
    report.finish(&[As::User])
}

fn refused(answer: &Answer, what: &str) -> Result<(), Failed> {
    check(
        [400, 404, 413, 422].contains(&answer.status()),
        format!("{what}: {} {}", answer.status(), answer.body()),
    )
}

fn set(host: &Host, name: &str, value: &str) -> Result<Answer, Failed> {
    let body = serde_json::json!({ name: value }).to_string();
    request(host, "PATCH", "/apps/tiny/config-vars", &body)
}

/// What a loader, a shell or the platform itself would act on.
fn variables(host: &Host) -> Result<String, Failed> {
    for (name, value) in [
        ("A=B", "x"),
        ("A B", "x"),
        ("", "x"),
        ("A\0B", "x"),
        ("A\nB", "x"),
        ("1A", "x"),
        ("HEROKU_X", "x"),
        ("A", "x\0y"),
        ("$(id)", "x"),
    ] {
        refused(&set(host, name, value)?, &format!("{name:?}={value:?}"))?;
    }
    refused(&set(host, "BIG", &"x".repeat(1 << 20))?, "1 MiB")?;
    refused(&set(host, "BIG", &"x".repeat(65_537))?, "65,537 bytes")?;
    // Allowed, and for the app alone: nothing that runs with privileges has them.
    let values = [
        ("LD_PRELOAD", "/app/evil.so"),
        ("LD_LIBRARY_PATH", "/app"),
        ("BASH_ENV", "/app/evil.sh"),
        ("LINES_OF_TEXT", "one\ntwo\t= \"three\" $(id) `id`"),
        ("RUST_LOG", "canary=trace"),
        ("MANIFOLD_TEST_ONLY_WEAKEN_DYNOS", "bare"),
        ("GLIBC_TUNABLES", "glibc.malloc.check=3"),
    ];
    for (name, value) in values {
        let answer = set(host, name, value)?;
        check(answer.status() == 200, format!("{name}: {}", answer.body()))?;
    }
    host.eventually("web.1 is up", || host.all_up("tiny", &["web.1"]))?;
    let text = inside(host, "printf '%s|' \"$LINES_OF_TEXT\" \"$RUST_LOG\"; id -u");
    contains(&text, "one\ntwo\t= \"three\" $(id) `id`|canary=trace|1000")?;
    let (supervisor, first) = family(host)?;
    let keeper = super::around::keeper(host)?;
    let mut seen = 0;
    for pid in first.into_iter().chain([supervisor, keeper]) {
        for file in ["environ", "maps"] {
            // PID 1 of a dyno hides both from all but root.
            let bytes = match std::fs::read(format!("/proc/{pid}/{file}")) {
                // None of web.1's.
                Err(_) if is_exiting(pid) => continue,
                read => read?,
            };
            let text = String::from_utf8_lossy(&bytes).into_owned();
            for word in ["evil", "canary=trace", "malloc.check", "WEAKEN"] {
                check(!text.contains(word), format!("{word} in {file} of {pid}"))?;
            }
            seen += 1;
        }
    }
    check(
        seen >= 6,
        "supervisor, keeper and a dyno's PID 1 were not all seen",
    )?;
    for (name, _) in values {
        host.ok(&["config:unset", name, "-a", "tiny"])?;
    }
    Ok("9 odd names and values and 2 large ones refused; 7 reach the app only".to_owned())
}

const ODD: [&str; 13] = [
    "../x",
    "a/../../b",
    "a;id",
    "$(id)",
    "`id`",
    "-rf",
    "a\nb",
    "a b",
    "A",
    "é",
    "a\0b",
    "..",
    "x'\"",
];

fn names(host: &Host) -> Result<String, Failed> {
    let listed = |host: &Host| -> Result<usize, Failed> {
        let apps: serde_json::Value = serde_json::from_str(&host.ok(&["apps", "--json"])?)?;
        Ok(apps.as_array().map_or(0, Vec::len))
    };
    let before = listed(host)?;
    let long = "x".repeat(300);
    for name in ODD.into_iter().chain([long.as_str()]) {
        let body = serde_json::json!({ "name": name }).to_string();
        refused(&request(host, "POST", "/apps", &body)?, name)?;
        refused(&request(host, "PATCH", "/apps/tiny", &body)?, name)?;
    }
    check(listed(host)? == before, "an app with an odd name was made")?;
    let long = "x".repeat(64);
    let odd_types = [
        "../x", "a;id", "$(id)", "a\nb", "a b", "é", "a\0b", "a.b", "", &long,
    ];
    for name in odd_types {
        let body = serde_json::json!({ "updates": [{ "type": name, "quantity": 1 }] }).to_string();
        refused(
            &request(host, "PATCH", "/apps/tiny/formation", &body)?,
            name,
        )?;
        let body = serde_json::json!({ "process_types": { name: "true" } }).to_string();
        refused(&request(host, "POST", "/apps/tiny/slugs", &body)?, name)?;
        let body = serde_json::json!({ "command": "true", "type": name }).to_string();
        let answer = request(host, "POST", "/apps/tiny/dynos", &body)?;
        // Clients send a type, which names nothing: it must not be taken for a name.
        let dyno: serde_json::Value = serde_json::from_str(answer.body())?;
        let made = dyno["name"].as_str().unwrap_or_default();
        check(
            made.starts_with("run.") || answer.status() >= 400,
            format!("{name:?}: {}", answer.body()),
        )?;
    }
    for key in ["..%2f..%2fetc", "%2e%2e", "web.1%00", "a;id", "$(id)"] {
        for path in ["dynos", "slugs", "releases", "builds"] {
            let answer = request(host, "GET", &format!("/apps/tiny/{path}/{key}"), "")?;
            refused(&answer, &format!("{path}/{key}"))?;
        }
    }
    for target in [
        "../x",
        "a;id",
        "$(id)",
        "10.0.0.1:80; accept",
        "-x",
        "10.0.0.1:99999",
    ] {
        let output = host.cli(&["network:allow", "-a", "tiny", "--", target]);
        check(!output.status.success(), format!("{target}: {output:?}"))?;
    }
    for domain in [
        "../x",
        "a b.example",
        "$(id).example",
        "x;id",
        "*",
        "a\nb.example",
    ] {
        let body = serde_json::json!({ "hostname": domain }).to_string();
        refused(&request(host, "POST", "/apps/tiny/domains", &body)?, domain)?;
    }
    Ok("14 app names, 10 types, 5 keys, 6 targets, 6 domains: none is taken".to_owned())
}

/// The socket's mode opened for all: what holds then is that the kernel tells who calls.
fn callers(host: &Host) -> Result<String, Failed> {
    let everybody = |mode| -> std::io::Result<()> {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(host.socket(), mode)
    };
    let open: std::fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(host.dir.path(), open)?;
    let program = host.dir.path().join("manifold");
    std::fs::copy(support::manifold(), &program)?;
    let ask = || -> Result<(Option<i32>, String), Failed> {
        let output = std::process::Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&program)
            .args(["config", "-a", "tiny"])
            .env("MANIFOLD_SOCKET", host.socket())
            .output()?;
        let text = [output.stdout, output.stderr].concat();
        Ok((
            output.status.code(),
            String::from_utf8_lossy(&text).into_owned(),
        ))
    };
    let (status, text) = ask()?;
    check(status == Some(6), format!("by its mode: {status:?} {text}"))?;
    everybody(0o666)?;
    let answer = ask();
    everybody(0o660)?;
    let (status, text) = answer?;
    check(status == Some(6), format!("by its uid: {status:?} {text}"))?;
    contains(&text, "may not use this supervisor")?;
    check(
        !as_nobody("cat", &host.dir.path().join("state/manifold.db"))?,
        "nobody reads the store",
    )?;
    check(
        host.cli(&["config", "-a", "tiny"]).status.success(),
        "root may",
    )?;
    Ok("an ordinary user is refused by the socket's mode and by the kernel's word".to_owned())
}

fn sizes(host: &Host) -> Result<String, Failed> {
    let command = |length: usize| serde_json::json!({ "command": "x".repeat(length) }).to_string();
    for length in [2 << 20, 900_000] {
        let answer = request(host, "POST", "/apps/tiny/dynos", &command(length))?;
        refused(&answer, &format!("a command of {length} bytes"))?;
    }
    let env = serde_json::json!({ "command": "true", "env": { "A": "x".repeat(900_000) } });
    let answer = request(host, "POST", "/apps/tiny/dynos", &env.to_string())?;
    refused(&answer, "an environment of 900 kB")?;
    let types: serde_json::Map<String, serde_json::Value> = (0..40_000)
        .map(|n| (format!("t{n}"), "true".into()))
        .collect();
    let body = serde_json::json!({ "process_types": types }).to_string();
    refused(
        &request(host, "POST", "/apps/tiny/slugs", &body)?,
        "40,000 types",
    )?;
    host.ok(&["create", "odd"])?;
    let source = tempfile::tempdir()?;
    std::fs::write(source.path().join("requirements.txt"), "")?;
    let line = |n: usize| format!("t{n}: true\n");
    let many: String = (0..100_000).map(line).collect();
    std::fs::write(source.path().join("Procfile"), &many)?;
    let told = host.cli(&["deploy", &source.path().display().to_string(), "-a", "odd"]);
    contains(
        &String::from_utf8_lossy(&told.stdout),
        "Procfile is too large: it is not used",
    )?;
    let large = "x".repeat(10 << 20);
    std::fs::write(source.path().join("Procfile"), format!("web: {large}\n"))?;
    let told = host.cli(&["deploy", &source.path().display().to_string(), "-a", "odd"]);
    contains(
        &String::from_utf8_lossy(&told.stdout),
        "Procfile is too large: it is not used",
    )?;
    // Small enough to be read, and still too many.
    let many: String = (0..10_000).map(line).collect();
    std::fs::write(source.path().join("Procfile"), &many)?;
    let told = host.cli(&["deploy", &source.path().display().to_string(), "-a", "odd"]);
    contains(
        &String::from_utf8_lossy(&told.stdout),
        "too many process types",
    )?;
    prompt(host)?;
    Ok("commands, environments, Procfiles and 10,000 types are refused".to_owned())
}

/// The API answers at once.
fn prompt(host: &Host) -> Result<Duration, Failed> {
    let start = Instant::now();
    let answer = request(host, "GET", "/apps", "")?;
    let took = start.elapsed();
    check(answer.status() == 200, answer.body())?;
    check(
        took < PROMPT * support::patience(),
        format!("it took {took:?}"),
    )?;
    Ok(took)
}

const ATTACH: &str = "{\"command\":\"cat /dev/zero\",\"attach\":true,\"force_no_tty\":true}";

/// Resident memory of a process in MiB.
fn resident_mb(pid: u32) -> u64 {
    let text = super::around::field(pid, "VmRSS");
    let number = text.split_whitespace().next().unwrap_or_default();
    number.parse::<u64>().unwrap_or_default() >> 10
}

fn sessions(host: &Host) -> Result<String, Failed> {
    let (supervisor, _) = family(host)?;
    let before = resident_mb(supervisor);
    // Connections that say nothing, or half of something.
    let mut silent = Vec::new();
    for at in 0..300 {
        let mut stream = UnixStream::connect(host.socket())?;
        if at % 2 == 0 {
            stream.write_all(b"GET /apps HTTP/1.1\r\nHost: ")?;
        }
        silent.push(stream);
    }
    prompt(host)?;
    // A client that never reads what its dyno writes without end.
    let answer = request(host, "POST", "/apps/tiny/dynos", ATTACH)?;
    let dyno: serde_json::Value = serde_json::from_str(answer.body())?;
    let url = dyno["attach_url"].as_str().unwrap_or_default().to_owned();
    let path = url.find("/attach/").map(|at| url[at..].to_owned());
    let path = path.ok_or_else(|| answer.body().to_owned())?;
    let mut reader = UnixStream::connect(host.socket())?;
    reader.write_all(
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: manifold-attach\r\n\r\n")
            .as_bytes(),
    )?;
    let mut head = [0; 64];
    reader.read_exact(&mut head)?;
    contains(&String::from_utf8_lossy(&head), "101")?;
    // More that wait for their client than may.
    let mut taken = 0;
    let status = loop {
        let answer = request(host, "POST", "/apps/tiny/dynos", ATTACH)?;
        if answer.status() != 201 || taken > 400 {
            break answer.status();
        }
        taken += 1;
    };
    check(status == 429, format!("{taken} wait, then {status}"))?;
    prompt(host)?;
    let grown = resident_mb(supervisor).saturating_sub(before);
    check(grown < 64, format!("the supervisor grew by {grown} MiB"))?;
    drop((reader, silent));
    host.eventually("nobody came: all are gone", || {
        host.all_up("tiny", &["web.1"])
    })?;
    let path = Path::new("/proc").join(supervisor.to_string()).join("fd");
    host.eventually("descriptors are given back", || {
        std::fs::read_dir(&path).is_ok_and(|fds| fds.count() < 200)
    })?;
    Ok(format!(
        "{taken} one-offs wait, then 429; all time out; {grown} MiB more"
    ))
}
