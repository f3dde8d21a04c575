//! The wall clock jumps by days, there and back: what waits goes by the clock that nobody sets.
//!
//! In the virtual machine the clock itself is set; in place, where others need it, only the
//! supervisor's is shifted, by a library that is preloaded.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};

use crate::attack::{As, Report};
use crate::host::{Host, PATIENCE, check, contains, copy_app};
use crate::support::{self, Leftovers};

/// The cases of this file.
pub(crate) fn cases() -> Vec<Trial> {
    vec![Trial::test(TEST, run)]
}

const TEST: &str = "clock::waits_do_not_follow_the_wall_clock";

const SHIFTED: &str = include_str!("clock.c");

/// Longer than every wait of the platform but one, and than the ten minutes of a back-off.
const DAYS: i64 = 3 * 24 * 3600;

const SETTINGS: &str = "[timings]
stop_grace = 3
metrics_period = 1
";

/// `boot_timeout`, `stop_grace`.
const BOOT: Duration = Duration::from_secs(4);
const GRACE: Duration = Duration::from_secs(3);

/// A request that takes two seconds.
const SLOW: &str = "import http.server, os, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(2)
        self.send_response(200)
        self.send_header('Content-Length', '2')
        self.end_headers()
        self.wfile.write(b'ok')
http.server.HTTPServer(('0.0.0.0', int(os.environ['PORT'])), Handler).serve_forever()
";

/// The clock that is shifted.
enum Clock {
    /// The supervisor's, by what this file holds.
    Shifted(PathBuf),
    /// The virtual machine's own, and by how much it is off.
    Own(i64),
}

impl Clock {
    fn of(host: &mut Host) -> Result<Self, Failed> {
        if support::is_guest() {
            return Ok(Self::Own(0));
        }
        let dir = host.dir.path().to_owned();
        let (source, library, file) =
            (dir.join("clock.c"), dir.join("clock.so"), dir.join("shift"));
        std::fs::write(&source, SHIFTED)?;
        let mut compile = Command::new("cc");
        compile
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&library)
            .arg(&source);
        check(compile.status()?.success(), "cc")?;
        std::fs::write(&file, "0")?;
        let words = [("LD_PRELOAD", &library), ("MANIFOLD_TEST_CLOCK", &file)];
        let words = words.map(|(name, path)| (name.to_owned(), path.display().to_string()));
        host.env.extend(words);
        Ok(Self::Shifted(file))
    }

    /// From now on it is off by so many seconds.
    fn set(&mut self, seconds: i64) -> Result<(), Failed> {
        match self {
            Self::Shifted(file) => {
                let part = file.with_extension("part");
                std::fs::write(&part, seconds.to_string())?;
                std::fs::rename(&part, file)?;
            }
            Self::Own(now) => {
                let step = seconds - *now;
                let mut date = Command::new("date");
                date.args(["-s", &format!("{step} seconds")]);
                check(date.output()?.status.success(), "date -s")?;
                *now = seconds;
            }
        }
        Ok(())
    }
}

fn run() -> Result<(), Failed> {
    let mut report = Report::new(TEST);
    report.holds("R-05", As::User, || {
        let before = Leftovers::count();
        let boot = if support::is_guest() {
            String::new()
        } else {
            format!("boot_timeout = {}\n", BOOT.as_secs())
        };
        let settings = format!("{SETTINGS}{boot}");
        let mut host = Host::unlaunched(&settings)?;
        let mut clock = Clock::of(&mut host)?;
        host.launch()?;
        let told = jumps(&host, &mut clock);
        clock.set(0)?;
        let told = told?;
        host.stop()?;
        Leftovers::none_since(&before)?;
        Ok(told)
    });
    report.finish(&[As::User])
}

fn deploy(host: &Host, name: &str, procfile: &str) -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    copy_app("tiny", dir.path())?;
    std::fs::write(dir.path().join("slow.py"), SLOW)?;
    std::fs::write(dir.path().join("Procfile"), procfile)?;
    host.ok(&["create", name])?;
    host.ok(&["deploy", &dir.path().display().to_string(), "-a", name])?;
    Ok(())
}

fn jumps(host: &Host, clock: &mut Clock) -> Result<String, Failed> {
    let procfile =
        "worker: false\nstubborn: python3 stubborn.py\nslow: true\nweb: python3 slow.py\n";
    deploy(host, "shop", procfile)?;
    host.eventually("web.1 is up", || host.all_up("shop", &["web.1"]))?;
    seen(host, clock)?;
    let mut told = Vec::new();
    for days in [DAYS, -DAYS] {
        backoff(host, clock, days)?;
        let grace = grace(host, clock, days)?;
        let life = life(host, clock, days)?;
        // A web process that starts at all takes longer than that when it is emulated.
        let boot = if support::is_guest() {
            "not tried here".to_owned()
        } else {
            format!("after {:.1?}", boot(host, clock, days)?)
        };
        let service = request(host, clock, days)?;
        figures(host, clock, days)?;
        told.push(format!(
            "{:+} days: R10 {boot}, SIGKILL after {grace:.1?}, end of a one-off's life after {life:.1?}, service={service}ms",
            days / 24 / 3600
        ));
    }
    Ok(format!(
        "{}; back-off and figures as before",
        told.join("; ")
    ))
}

/// The clock of the supervisor is the one that is shifted: its log lines say so.
fn seen(host: &Host, clock: &mut Clock) -> Result<(), Failed> {
    let day = |logs: &str| {
        logs.lines()
            .last()
            .and_then(|line| line.get(..10).map(str::to_owned))
    };
    let before = day(&host.logs("shop")).ok_or("no line")?;
    clock.set(DAYS)?;
    host.ok(&["config:set", "SHIFTED=1", "-a", "shop"])?;
    host.eventually("another day in the log", || {
        day(&host.logs("shop")).is_some_and(|after| after != before)
    })?;
    clock.set(0)?;
    host.eventually("web.1 is up", || host.all_up("shop", &["web.1"]))
}

/// How long something takes from the jump on: not less than `least`, and not much more.
fn takes(least: Duration, start: Instant, what: &str) -> Result<Duration, Failed> {
    let took = start.elapsed();
    let most = least + Duration::from_secs(3) * support::patience();
    check(
        took + Duration::from_millis(200) > least && took < most,
        format!("{what} after {took:?}, not {least:?}"),
    )?;
    Ok(took)
}

fn count(host: &Host, text: &str) -> usize {
    host.logs("shop").matches(text).count()
}

/// A dyno that waits for ten minutes waits, whatever the day is.
fn backoff(host: &Host, clock: &mut Clock, days: i64) -> Result<(), Failed> {
    let starts = |host: &Host| count(host, "heroku[worker.1]: Starting process");
    let before = starts(host);
    host.ok(&["ps:scale", "worker=1", "-a", "shop"])?;
    host.eventually("it waits", || {
        let waits = ("worker.1".to_owned(), "crashed".to_owned());
        starts(host) == before + 3 && host.states("shop").contains(&waits)
    })?;
    clock.set(days)?;
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        check(starts(host) == before + 3, "it does not wait any more")?;
        support::pause();
    }
    clock.set(0)?;
    host.ok(&["ps:scale", "worker=0", "-a", "shop"])?;
    Ok(())
}

/// SIGKILL comes after the grace time, not at once and not never.
fn grace(host: &Host, clock: &mut Clock, days: i64) -> Result<Duration, Failed> {
    let before = count(host, "stubborn stays");
    host.ok(&["ps:scale", "stubborn=1", "-a", "shop"])?;
    host.eventually("it ignores signals", || {
        count(host, "stubborn stays") > before
    })?;
    let killed = "heroku[stubborn.1]: Process exited with status 137";
    let before = count(host, killed);
    let start = Instant::now();
    host.ok(&["ps:scale", "stubborn=0", "-a", "shop"])?;
    clock.set(days)?;
    host.eventually("it is killed", || count(host, killed) > before)?;
    let took = takes(GRACE, start, "SIGKILL")?;
    clock.set(0)?;
    Ok(took)
}

/// A one-off lives as long as it was given.
fn life(host: &Host, clock: &mut Clock, days: i64) -> Result<Duration, Failed> {
    const LIFE: Duration = Duration::from_secs(3);
    let start = Instant::now();
    let body = serde_json::json!({ "command": "sleep 1000", "attach": false, "time_to_live": LIFE.as_secs() });
    let answer = crate::certain::api(
        &host.socket(),
        "POST",
        "/apps/shop/dynos",
        &body.to_string(),
    )?;
    check(answer.starts_with("HTTP/1.1 201"), answer)?;
    clock.set(days)?;
    host.eventually("its life is over", || host.all_up("shop", &["web.1"]))?;
    let took = takes(LIFE, start, "the end of its life")?;
    clock.set(0)?;
    Ok(took)
}

/// R10 comes at its time.
fn boot(host: &Host, clock: &mut Clock, days: i64) -> Result<Duration, Failed> {
    let name = if days > 0 { "later" } else { "earlier" };
    deploy(host, name, "web: sleep 1000\n")?;
    host.ok(&["ps:scale", "web=0", "-a", name])?;
    host.eventually("none is left", || host.states(name).is_empty())?;
    let timeouts = |host: &Host| host.logs(name).matches("Error R10").count();
    let before = timeouts(host);
    let start = Instant::now();
    host.ok(&["ps:scale", "web=1", "-a", name])?;
    clock.set(days)?;
    host.eventually("R10", || timeouts(host) > before)?;
    let took = takes(BOOT, start, "R10")?;
    clock.set(0)?;
    host.ok(&["ps:scale", "web=0", "-a", name])?;
    Ok(took)
}

/// What the router measures is not off.
fn request(host: &Host, clock: &mut Clock, days: i64) -> Result<u64, Failed> {
    let answered = std::thread::scope(|scope| {
        let asking = scope.spawn(|| host.get("shop.localhost", "/"));
        let set = clock.set(days);
        (asking.join(), set)
    });
    answered.1?;
    let answer = answered.0.map_err(|_| "a panic")?.ok_or("no answer")?;
    check(answer.0 == 200, format!("{answer:?}"))?;
    clock.set(0)?;
    let line = |host: &Host| {
        let logs = host.logs("shop");
        let line = logs.lines().rfind(|line| line.contains("heroku[router]: "));
        line.map(str::to_owned)
    };
    host.eventually("the request's line", || line(host).is_some())?;
    let line = line(host).ok_or("no line")?;
    let figure = |key: &str| -> Result<u64, Failed> {
        let (_, rest) = line.split_once(key).ok_or_else(|| line.clone())?;
        let digits = rest.split("ms").next().unwrap_or_default();
        Ok(digits.parse()?)
    };
    let service = figure("service=")?;
    let most = 2_000 + 3_000 * u64::from(support::patience());
    check((1_990..most).contains(&service), line.clone())?;
    check(figure("connect=")? < most, line.clone())?;
    Ok(service)
}

/// Figures of memory and load go on at their period.
fn figures(host: &Host, clock: &mut Clock, days: i64) -> Result<(), Failed> {
    host.ok(&["labs:enable", "log-runtime-metrics", "-a", "shop"])?;
    let before = count(host, "sample#memory_total=");
    let start = Instant::now();
    clock.set(days)?;
    host.eventually("figures go on", || {
        count(host, "sample#memory_total=") >= before + 3
    })?;
    let took = start.elapsed();
    check(took < PATIENCE / 2, format!("three figures took {took:?}"))?;
    clock.set(0)?;
    host.ok(&["labs:disable", "log-runtime-metrics", "-a", "shop"])?;
    contains(&host.logs("shop"), "sample#load_avg_1m=")
}
