//! What the router counted and what dynos use, in the text format that Prometheus scrapes.
//! Source: Prometheus, "Exposition formats", text format 0.0.4.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

use crate::supervisor::{DynoUsage, Snapshot, Usages};
use crate::traffic::{CLASSES, Distribution, Report, bounds};

/// One kind of metric and its samples.
struct Family {
    name: &'static str,
    help: &'static str,
    kind: &'static str,
    samples: String,
}

impl Family {
    fn new(name: &'static str, kind: &'static str, help: &'static str) -> Self {
        Self {
            name,
            help,
            kind,
            samples: String::new(),
        }
    }

    fn sample(&mut self, suffix: &str, labels: &str, value: impl Display) {
        let _ = writeln!(self.samples, "{}{suffix}{{{labels}}} {value}", self.name);
    }

    fn histogram(&mut self, labels: &str, times: &Distribution) {
        for (bound, bucket) in bounds() {
            let labels = format!("{labels},le=\"{}\"", bound.as_secs_f64());
            self.sample("_bucket", &labels, times.up_to(bucket));
        }
        let every = format!("{labels},le=\"+Inf\"");
        self.sample("_bucket", &every, times.count);
        self.sample("_sum", labels, times.sum.as_secs_f64());
        self.sample("_count", labels, times.count);
    }
}

/// Requests by class and the three histograms, of apps or of dynos.
struct Requests {
    ended: Family,
    queue: Family,
    connect: Family,
    service: Family,
}

impl Requests {
    fn add(&mut self, labels: &str, report: &Report) {
        for (class, count) in CLASSES.iter().zip(report.classes) {
            let labels = format!("{labels},class=\"{class}\"");
            self.ended.sample("", &labels, count);
        }
        self.queue.histogram(labels, &report.queue);
        self.connect.histogram(labels, &report.connect);
        self.service.histogram(labels, &report.service);
    }

    fn families(self) -> [Family; 4] {
        [self.ended, self.queue, self.connect, self.service]
    }
}

/// What a dyno uses, as of the last full look (at most 20 s ago).
struct Use {
    memory: Family,
    quota: Family,
    load: Family,
    tasks: Family,
    disk: Family,
    disk_limit: Family,
}

impl Use {
    fn new() -> Self {
        Self {
            memory: Family::new(
                "manifold_dyno_memory_bytes",
                "gauge",
                "Memory of a dyno, by kind: rss, cache and swap are what R14 adds up.",
            ),
            quota: Family::new(
                "manifold_dyno_memory_quota_bytes",
                "gauge",
                "Memory that the size of a dyno allows.",
            ),
            load: Family::new(
                "manifold_dyno_load",
                "gauge",
                "Tasks of a dyno that run or want to, averaged over so many minutes.",
            ),
            tasks: Family::new(
                "manifold_dyno_tasks",
                "gauge",
                "Processes and threads of a dyno.",
            ),
            disk: Family::new(
                "manifold_dyno_disk_used_bytes",
                "gauge",
                "What a dyno has written to its own files.",
            ),
            disk_limit: Family::new(
                "manifold_dyno_disk_limit_bytes",
                "gauge",
                "What a dyno may write to its own files.",
            ),
        }
    }

    fn add(&mut self, labels: &str, usage: &DynoUsage) {
        let memory = usage.sample.memory;
        for (kind, bytes) in [
            ("rss", memory.rss),
            ("cache", memory.cache),
            ("swap", memory.swap),
        ] {
            let labels = format!("{labels},kind=\"{kind}\"");
            self.memory.sample("", &labels, bytes);
        }
        self.quota.sample("", labels, usage.quota_bytes);
        for (minutes, load) in [1, 5, 15].iter().zip(usage.load) {
            let labels = format!("{labels},minutes=\"{minutes}\"");
            self.load.sample("", &labels, load);
        }
        self.tasks.sample("", labels, usage.sample.tasks);
        if let Some((used, limit)) = usage.sample.disk {
            self.disk.sample("", labels, used.used_bytes);
            self.disk_limit.sample("", labels, limit.bytes);
        }
    }

    fn families(self) -> [Family; 6] {
        [
            self.memory,
            self.quota,
            self.load,
            self.tasks,
            self.disk,
            self.disk_limit,
        ]
    }
}

/// The whole page.
pub(super) fn text(snapshot: &Snapshot, usages: &Usages) -> String {
    let mut apps = Requests {
        ended: Family::new(
            "manifold_app_requests_total",
            "counter",
            "Requests that ended, by class of status.",
        ),
        queue: Family::new(
            "manifold_app_queue_seconds",
            "histogram",
            "Time that requests waited at the router for a dyno.",
        ),
        connect: Family::new(
            "manifold_app_connect_seconds",
            "histogram",
            "Time to connect to a dyno.",
        ),
        service: Family::new(
            "manifold_app_service_seconds",
            "histogram",
            "Time from the connection to the end of the answer.",
        ),
    };
    let mut dynos = Requests {
        ended: Family::new(
            "manifold_dyno_requests_total",
            "counter",
            "Requests that reached a dyno and ended, by class of status.",
        ),
        queue: Family::new(
            "manifold_dyno_queue_seconds",
            "histogram",
            "Time that the requests of a dyno had waited for it.",
        ),
        connect: Family::new(
            "manifold_dyno_connect_seconds",
            "histogram",
            "Time to connect to a dyno.",
        ),
        service: Family::new(
            "manifold_dyno_service_seconds",
            "histogram",
            "Time from the connection to the end of the answer.",
        ),
    };
    let mut errors = Family::new(
        "manifold_app_errors_total",
        "counter",
        "Requests that ended with an H code.",
    );
    let mut waiting = Family::new(
        "manifold_app_requests_waiting",
        "gauge",
        "Requests that wait at the router for a dyno.",
    );
    let mut in_flight = Family::new(
        "manifold_dyno_requests_in_flight",
        "gauge",
        "Requests that a dyno serves.",
    );
    let mut states = Family::new("manifold_app_dynos", "gauge", "Dynos, by state.");
    // A name that starts anew is another run: its starts are how often this changes.
    let mut started = Family::new(
        "manifold_dyno_start_time_seconds",
        "gauge",
        "When a run of a dyno was made, in unix time.",
    );
    let mut uses = Use::new();
    for view in snapshot.apps.values() {
        // Names of apps and dynos need no escaping: see `model`.
        let app = format!("app=\"{}\"", view.spec.name);
        let report = view.traffic.counters.report();
        apps.add(&app, &report);
        for (code, count) in &report.codes {
            errors.sample("", &format!("{app},code=\"{code}\""), count);
        }
        waiting.sample("", &app, view.traffic.waiting());
        let mut count: BTreeMap<String, u32> = BTreeMap::new();
        for dyno in view.dynos.iter().filter(|dyno| !dyno.is_build) {
            *count.entry(dyno.state.to_string()).or_default() += 1;
            // Two runs of one name overlap while one replaces the other.
            let labels = format!("{app},dyno=\"{}\",id=\"{}\"", dyno.name, dyno.id);
            started.sample("", &labels, dyno.created.as_second());
            if let Some(usage) = usages.get(&dyno.id) {
                uses.add(&labels, usage);
            }
            if dyno.port.is_some() {
                dynos.add(&labels, &dyno.traffic.counters.report());
                in_flight.sample("", &labels, dyno.traffic.gate.in_flight());
            }
        }
        for (state, count) in count {
            states.sample("", &format!("{app},state=\"{state}\""), count);
        }
    }
    let mut page = String::new();
    let families = apps.families().into_iter().chain(dynos.families());
    let families = families.chain([errors, waiting, in_flight, states, started]);
    for family in families.chain(uses.families()) {
        if !family.samples.is_empty() {
            let Family {
                name,
                help,
                kind,
                samples,
            } = family;
            let _ = write!(
                page,
                "# HELP {name} {help}\n# TYPE {name} {kind}\n{samples}"
            );
        }
    }
    page
}
