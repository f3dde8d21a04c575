//! Twenty hostile dynos at once, each at a bound of its own: router, API and neighbours go on.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use libtest_mimic::Failed;

use crate::certain::{api, groups, keeper, supervisor};
use crate::host::{Host, PATIENCE, check};
use crate::support::Leftovers;

/// Process types of `hostile.py` and how many dynos of each.
const EVIL: &[(&str, u32)] = &[
    ("fork", 3),
    ("threads", 1),
    ("eat", 1),
    ("churn", 2),
    ("descriptors", 2),
    ("burn", 3),
    ("fill", 3),
    ("connect", 2),
];

/// Those that print without end; an app of their own, since the log has a bound for each app.
const LOUD: &[(&str, &str)] = &[
    ("short", "yes"),
    ("long", "yes $(head -c 9000 /dev/zero | tr '\\\\0' x)"),
    ("binary", "cat /dev/urandom"),
];

const SETTINGS: &str = "
[timings]
stop_grace = 2
[sizes.Cell]
memory_mb = 64
tasks = 64
disk_mb = 64
";

/// The bound of the 99th percentile.
const BOUND: Duration = Duration::from_millis(100);

/// Requests of each kind while all attack.
const REQUESTS: u32 = 1000;

/// From one request to the next: a request that takes longer delays the next one.
const PERIOD: Duration = Duration::from_millis(10);

pub(crate) fn run() -> Result<(), Failed> {
    let before = Leftovers::count();
    let mut host = Host::with(SETTINGS)?;
    host.deploy_tiny("neighbour")?;
    let script = include_str!("hostile.py");
    let lines = EVIL
        .iter()
        .map(|(kind, _)| format!("{kind}: python3 hostile.py {kind}\n"));
    deploy(&host, "evil", &lines.collect::<String>(), script)?;
    let lines = LOUD
        .iter()
        .map(|(kind, command)| format!("{kind}: {command}\n"));
    deploy(&host, "loud", &lines.collect::<String>(), script)?;
    has_share(&host)?;
    let idle = measure(&host)?;

    let scale = |app: &str, types: Vec<String>| {
        let mut words = vec!["ps:scale".to_owned()];
        words.extend(types);
        words.extend(["-a".to_owned(), app.to_owned()]);
        host.ok(&words.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let evil = |quantity: fn(u32) -> u32| {
        let each = EVIL.iter();
        each.map(|(kind, count)| format!("{kind}={}:cell", quantity(*count)))
            .collect()
    };
    let loud = |quantity: u32| {
        let each = LOUD.iter();
        each.map(|(kind, _)| format!("{kind}={quantity}:cell"))
            .collect()
    };
    let start = Instant::now();
    scale("evil", evil(|count| count))?;
    scale("loud", loud(1))?;
    host.eventually("each is at its bound", || {
        let logs = host.logs("evil");
        let is_hit = |kind: &str, n: u32| logs.contains(&format!("app[{kind}.{n}]: hit {kind} "));
        let all = EVIL
            .iter()
            .flat_map(|(kind, count)| (1..=*count).map(move |n| (*kind, n)));
        let all = all.filter(|(kind, _)| *kind != "eat");
        all.into_iter().all(|(kind, n)| is_hit(kind, n))
            && logs.contains("heroku[eat.1]: Error R15")
            && host.logs("loud").contains("Error L10")
    })?;

    eprintln!("at their bounds after {:?}", start.elapsed());
    let seen = measure(&host)?;
    eprintln!("idle: {idle}");
    eprintln!("under attack: {seen}");
    contained(&host)?;
    check(
        seen.api.p99 < BOUND && seen.router.p99 < BOUND,
        format!(
            "under attack {seen}; before it {idle}; other load on this machine counts too: {}",
            std::fs::read_to_string("/proc/loadavg")?
        ),
    )?;
    check(host.all_up("neighbour", &["web.1"]), "the neighbour runs")?;

    let stop = Instant::now();
    scale("evil", evil(|_| 0))?;
    scale("loud", loud(0))?;
    host.ok(&["ps:scale", "web=0", "-a", "neighbour"])?;
    host.eventually("no cgroup of a dyno", || groups(&host).is_empty())?;
    eprintln!("stopped and torn down in {:?}", stop.elapsed());
    host.stop()?;
    Leftovers::none_since(&before)
}

fn deploy(host: &Host, name: &str, procfile: &str, script: &str) -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("requirements.txt"), "")?;
    std::fs::write(dir.path().join("Procfile"), procfile)?;
    std::fs::write(dir.path().join("hostile.py"), script)?;
    host.ok(&["create", name])?;
    host.ok(&["deploy", &dir.path().display().to_string(), "-a", name])?;
    Ok(())
}

/// Supervisor and keeper have a group of their own, with ten times the weight of all dynos.
pub(crate) fn has_share(host: &Host) -> Result<(), Failed> {
    let supervisor = supervisor(host).ok_or("no supervisor")?;
    for pid in [keeper(host), supervisor] {
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let mut own = text.lines().filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let controllers = parts.next()?;
            let is_cpu = controllers.is_empty() || controllers.split(',').any(|c| c == "cpu");
            let path = Path::new(parts.next()?);
            let is_own = path.extension().is_some_and(|end| end == "own");
            (is_cpu && is_own).then(|| (controllers.to_owned(), path.to_owned()))
        });
        let own = own.next().ok_or_else(|| format!("{pid} is in {text}"))?;
        let (controllers, path) = own;
        let top = Path::new("/sys/fs/cgroup").join(controllers);
        let group = top.join(path.strip_prefix("/").unwrap_or(&path));
        let weight = ["cpu.shares", "cpu.weight"]
            .into_iter()
            .find_map(|file| std::fs::read_to_string(group.join(file)).ok());
        let weight = weight.unwrap_or_default();
        check(
            ["10240", "1000"].contains(&weight.trim()),
            format!("{}: {weight:?}", group.display()),
        )?;
    }
    Ok(())
}

/// No group has more than it may.
fn contained(host: &Host) -> Result<(), Failed> {
    let mut looked = 0;
    for group in groups(host) {
        for (used, most) in [
            ("pids.current", "pids.max"),
            ("memory.current", "memory.max"),
            ("memory.usage_in_bytes", "memory.limit_in_bytes"),
        ] {
            let number = |file: &str| -> Option<u64> {
                std::fs::read_to_string(group.join(file))
                    .ok()?
                    .trim()
                    .parse()
                    .ok()
            };
            if let (Some(used), Some(most)) = (number(used), number(most)) {
                looked += 1;
                check(
                    used <= most,
                    format!("{}: {used} of {most}", group.display()),
                )?;
            }
        }
    }
    check(
        looked >= 20,
        format!("{looked} figures of 20 dynos and more"),
    )
}

#[derive(Debug)]
struct Times {
    p50: Duration,
    p99: Duration,
    most: Duration,
}

impl Times {
    fn of(mut all: Vec<Duration>) -> Self {
        all.sort();
        Self {
            p50: all[all.len() / 2],
            p99: all[all.len() * 99 / 100],
            most: all[all.len() - 1],
        }
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { p50, p99, most } = self;
        write!(f, "p50 {p50:.1?}, p99 {p99:.1?}, longest {most:.1?}")
    }
}

struct Seen {
    api: Times,
    router: Times,
    neighbour: Times,
}

impl std::fmt::Display for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            api,
            router,
            neighbour,
        } = self;
        write!(
            f,
            "API {api}; router {router}; neighbour's dyno {neighbour}"
        )
    }
}

/// Answers of the API (from its database and from the driver), of the router alone (a name it
/// does not know), and of another app's dyno.
fn measure(host: &Host) -> Result<Seen, Failed> {
    let (socket, http) = (host.socket(), host.http);
    let timed = |requests: u32, ask: Box<dyn Fn(u32) -> Result<(), Failed> + Send>| {
        std::thread::spawn(move || {
            let mut times = Vec::new();
            for n in 0..requests {
                let start = Instant::now();
                ask(n).map_err(|error| format!("request {n}: {error:?}"))?;
                times.push(start.elapsed());
                std::thread::park_timeout(PERIOD.saturating_sub(start.elapsed()));
            }
            Ok::<_, String>(Times::of(times))
        })
    };
    let paths = [
        "/apps",
        "/apps/neighbour/dynos",
        "/apps/neighbour/config-vars",
    ];
    let ours = timed(
        REQUESTS,
        Box::new(move |n| {
            let answer = api(&socket, "GET", paths[n as usize % paths.len()], "")?;
            check(answer.starts_with("HTTP/1.1 200"), answer)
        }),
    );
    let get = move |host: &str, wanted: &str| {
        let mut stream = TcpStream::connect(http)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        check(answer.starts_with(wanted), answer)
    };
    let router = timed(
        REQUESTS,
        Box::new(move |_| get("nobody.localhost", "HTTP/1.1 404")),
    );
    let neighbour = timed(
        REQUESTS / 4,
        Box::new(move |_| get("neighbour.localhost", "HTTP/1.1 200")),
    );
    let wait = |thread: std::thread::JoinHandle<Result<Times, String>>| {
        thread
            .join()
            .map_err(|_| Failed::from("a panic"))?
            .map_err(Failed::from)
    };
    Ok(Seen {
        api: wait(ours)?,
        router: wait(router)?,
        neighbour: wait(neighbour)?,
    })
}
