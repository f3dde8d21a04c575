//! `cargo xtask bench router`: what our router costs beside nginx and `HAProxy`.
//!
//! Each has one worker thread on the same core; backends and clients share the other. Rounds are
//! interleaved and the medians compared, so that what else the machine does hits all alike. Only
//! the ratios mean something elsewhere.

mod backend;
mod cpu;
mod load;
mod proxies;
mod report;

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use self::cpu::Used;
use self::load::Clients;
use self::proxies::{Field, Kind, PROXY_CORE, Proxy, REST_CORE};
use self::report::{Cost, Report, Size};
use crate::{packages, process};

/// Beside [`packages::ALL`].
const PACKAGES: &[&str] = &["haproxy", "nginx-light", "openssl", "util-linux"];

/// Kept client connections.
const CONNECTIONS: usize = 32;

/// Idle connections whose memory is measured.
const IDLE: usize = 4000;

/// Options of `cargo xtask bench router`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Rounds
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Two rounds of fewer requests: shows that all works, not how fast
    #[arg(long)]
    quick: bool,
    /// Measure only what contains this: small-1, small-4, tls, 100k, 10m, latency, idle
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Requests per second of the latency measurement
    #[arg(long, default_value_t = 2000)]
    rate: u32,
}

impl Options {
    fn rounds(&self) -> u16 {
        if self.quick { 2 } else { self.rounds }
    }
}

/// Options of the backends, which the bench starts itself.
#[derive(Args, Clone, Debug)]
pub(crate) struct Backend {
    dir: PathBuf,
    core: usize,
}

/// Runs a backend until a signal.
pub(crate) fn backend(options: &Backend) -> Result<()> {
    backend::run(&options.dir, options.core)
}

/// Runs the bench.
pub(crate) fn run(options: &Options) -> Result<()> {
    if cfg!(debug_assertions) {
        // Clients that are slow themselves measure themselves.
        let mut again = process::cargo();
        again.args(["run", "--quiet", "--release", "--package", "xtask", "--"]);
        again.args(std::env::args_os().skip(1));
        bail!("cannot run the release build: {}", again.exec());
    }
    let wanted: Vec<&str> = packages::ALL.iter().chain(PACKAGES).copied().collect();
    packages::install(&wanted)?;
    let cores = std::thread::available_parallelism()?.get();
    ensure!(cores > REST_CORE, "this bench needs two cores");
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    println!("building the router");
    let router = super::built("router")?;
    cpu::pin(0, REST_CORE)?;
    let mut report = Report::default();
    let measured = measure(&router, options, &mut report);
    report.print();
    measured
}

/// One kind of closed-loop work.
struct Work {
    name: &'static str,
    title: &'static str,
    bytes: usize,
    connections: usize,
    requests: usize,
    is_tls: bool,
}

impl Work {
    fn size(&self) -> Size {
        match () {
            () if self.is_tls => Size::Tls(self.bytes),
            () if self.bytes > 10_000 => Size::Large(self.bytes),
            () => Size::Small(self.bytes),
        }
    }
}

const SMALL: usize = 30_000;

const ONE: [Work; 4] = [
    Work {
        name: "small-1",
        title: "1 KB, one backend",
        bytes: 1024,
        connections: CONNECTIONS,
        requests: SMALL,
        is_tls: false,
    },
    Work {
        name: "tls",
        title: "1 KB, TLS 1.3",
        bytes: 1024,
        connections: CONNECTIONS,
        requests: SMALL,
        is_tls: true,
    },
    Work {
        name: "100k",
        title: "100 KB",
        bytes: 100 << 10,
        connections: 8,
        requests: 3000,
        is_tls: false,
    },
    Work {
        name: "10m",
        title: "10 MB",
        bytes: 10 << 20,
        connections: 4,
        requests: 60,
        is_tls: false,
    },
];

const FOUR: Work = Work {
    name: "small-4",
    title: "1 KB, four backends",
    bytes: 1024,
    connections: CONNECTIONS,
    requests: SMALL,
    is_tls: false,
};

fn measure(router: &Path, options: &Options, report: &mut Report) -> Result<()> {
    let is_wanted = |name: &str| name.contains(&options.only);
    let field = Field::start(router, 1)?;
    println!("proxies on core {PROXY_CORE}, clients and backends on core {REST_CORE}");
    for work in ONE.iter().filter(|work| is_wanted(work.name)) {
        cost(&field, work, options, report)?;
    }
    if is_wanted("latency") {
        latency(&field, options, report)?;
    }
    if is_wanted("idle") {
        for proxy in &field.proxies {
            report.idle(proxy.kind, idle(proxy)?);
        }
    }
    drop(field);
    if is_wanted(FOUR.name) {
        let field = Field::start(router, 4)?;
        cost(&field, &FOUR, options, report)?;
    }
    Ok(())
}

fn cost(field: &Field, work: &Work, options: &Options, report: &mut Report) -> Result<()> {
    let rounds = options.rounds();
    let requests = if options.quick {
        work.requests / 10
    } else {
        work.requests
    };
    let path = format!("/{}", work.bytes);
    for round in 0..=rounds {
        for proxy in &field.proxies {
            process::keep_going()?;
            let mut clients = Clients::connect(proxy.address, work.connections, &path)?;
            let mut run = |count| {
                if work.is_tls {
                    load::closed_tls(proxy.tls, work.connections, count, &path)
                } else {
                    clients.closed(count)
                }
            };
            // Connections to the backends are there, buffers have their size.
            run(work.connections * 4)?;
            let (worker, whole) = (proxy.worker()?, proxy.whole()?);
            run(requests)
                .with_context(|| format!("{} through {}", work.title, proxy.kind.name()))?;
            let (worker, whole) = (proxy.worker()? - worker, proxy.whole()? - whole);
            if round > 0 {
                let cost = Cost {
                    worker,
                    whole,
                    requests,
                };
                report.cost(work.title, work.size(), proxy.kind, cost);
            }
        }
        println!("{}: round {round} of {rounds}", work.title);
    }
    Ok(())
}

fn latency(field: &Field, options: &Options, report: &mut Report) -> Result<()> {
    let count = usize::try_from(options.rate)? * 2;
    for round in 0..=options.rounds() {
        let mut one = |kind: Option<Kind>, address, proxy: Option<&Proxy>| -> Result<()> {
            process::keep_going()?;
            let mut clients = Clients::connect(address, CONNECTIONS, "/1024")?;
            clients.closed(CONNECTIONS * 4)?;
            let before = proxy.map_or(Ok(Used::default()), Proxy::whole)?;
            let times = clients.open(options.rate, count)?;
            let after = proxy.map_or(Ok(Used::default()), Proxy::whole)?;
            if round > 0 {
                report.latency(kind, &times, after - before);
            }
            Ok(())
        };
        one(None, field.direct, None)?;
        for proxy in &field.proxies {
            one(Some(proxy.kind), proxy.address, Some(proxy))?;
        }
        println!("latency: round {round} of {}", options.rounds());
    }
    Ok(())
}

/// Bytes of resident memory per connection that had a request and now waits.
fn idle(proxy: &Proxy) -> Result<f64> {
    let mut warm = Clients::connect(proxy.address, CONNECTIONS, "/1024")?;
    warm.closed(SMALL)?;
    let before = proxy.resident()?;
    let mut all = Vec::new();
    for _ in 0..IDLE / CONNECTIONS {
        let mut clients = Clients::connect(proxy.address, CONNECTIONS, "/1024")?;
        clients.closed(CONNECTIONS)?;
        all.push(clients);
    }
    // Timers of a second or two may free something.
    std::thread::park_timeout(Duration::from_secs(3));
    let after = proxy.resident()?;
    Ok(report::per(after.saturating_sub(before), IDLE))
}
