//! Many dynos: how fast they come and go, and what each costs.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::ours::Ours;
use super::table::Report;

/// Launches run to exit, for the rate.
const RATE_LAUNCHES: usize = 300;

/// Clients that order them.
const CLIENTS: usize = 2;

/// Launches run to exit per second: ordered by a few clients, until the last is torn down.
pub(super) fn rate(ours: &Ours) -> Result<f64> {
    let start = Instant::now();
    std::thread::scope(|scope| {
        let client =
            || -> Result<()> { (0..RATE_LAUNCHES / CLIENTS).try_for_each(|_| ours.order("true")) };
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        for client in clients {
            client.join().expect("a client does not panic")?;
        }
        anyhow::Ok(())
    })?;
    ours.await_gone()?;
    #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
    let count = RATE_LAUNCHES as f64;
    Ok(count / start.elapsed().as_secs_f64())
}

/// From none to `count` up and back, again and again for each count.
pub(super) fn scale(ours: &Ours, counts: &[usize], report: &mut Report) -> Result<()> {
    let mut each = Vec::new();
    for &count in counts {
        let before = available_kb()?;
        let start = Instant::now();
        ours.scale(count)?;
        ours.await_up(count)?;
        let up = start.elapsed();
        let memory = memory(ours, before, count)?;
        let start = Instant::now();
        ours.scale(0)?;
        ours.await_gone()?;
        let gone = start.elapsed();
        #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
        let one = up.as_secs_f64() * 1000.0 / count as f64;
        each.push(one);
        report.figure(
            format!("ps:scale web={count}"),
            format!(
                "all up {:.0} ms ({one:.1} each), all gone {:.0} ms; {memory}",
                up.as_secs_f64() * 1000.0,
                gone.as_secs_f64() * 1000.0
            ),
        );
        if count == 200 {
            report.at_most(
                "200 dynos stopped and torn down, s",
                gone.as_secs_f64(),
                1.0,
            );
            report.at_most("overhead of a dyno (of 200), MB", memory.each_mb(), 0.5);
            report.at_most(
                "supervisor's memory with 200 dynos, MB",
                memory.supervisor,
                25.0,
            );
        }
    }
    if let (Some(last), Some(ten)) = (each.last(), each.get(1)) {
        report.at_most(
            "time per dyno at the most dynos, of that at 10",
            last / ten,
            1.25,
        );
    }
    // The first few come out of what was made ahead: what each further one takes shows the growth.
    let further = |from: usize, to: usize| -> Option<f64> {
        let time = |count: usize| {
            let at = counts.iter().position(|one| *one == count)?;
            #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
            let count = count as f64;
            Some((count, each[at] * count))
        };
        let ((from, start), (to, end)) = (time(from)?, time(to)?);
        Some((end - start) / (to - from))
    };
    if let (Some(few), Some(many)) = (further(10, 100), further(100, 500)) {
        report.figure(
            "each further dyno",
            format!("{few:.1} ms from 10 to 100, {many:.1} ms from 100 to 500"),
        );
        report.at_most("the second, of the first", many / few, 1.25);
    }
    Ok(())
}

/// In MB.
struct Memory {
    supervisor: f64,
    keeper_side: f64,
    kernel: f64,
}

impl Memory {
    fn each_mb(&self) -> f64 {
        self.keeper_side.max(self.kernel)
    }
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "per dyno {:.3} MB PSS of PID 1, {:.3} MB less available beside the app; supervisor {:.1} MB",
            self.keeper_side, self.kernel, self.supervisor
        )
    }
}

fn memory(ours: &Ours, before_kb: f64, count: usize) -> Result<Memory> {
    let after_kb = available_kb()?;
    let (supervisor, firsts) = ours.processes()?;
    let (mut ours_kb, mut apps_kb) = (0.0, 0.0);
    for first in &firsts {
        ours_kb += pss_kb(*first);
        let children = fs::read_to_string(format!("/proc/{first}/task/{first}/children"));
        for app in children.unwrap_or_default().split_whitespace() {
            apps_kb += app.parse().map_or(0.0, pss_kb);
        }
    }
    let resident = field_kb(&format!("/proc/{supervisor}/status"), "VmRSS:");
    #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
    let count = count as f64;
    Ok(Memory {
        supervisor: resident.context("no VmRSS")? / 1024.0,
        keeper_side: ours_kb / count / 1024.0,
        kernel: (before_kb - after_kb - apps_kb) / count / 1024.0,
    })
}

fn available_kb() -> Result<f64> {
    field_kb("/proc/meminfo", "MemAvailable:").context("no MemAvailable")
}

fn pss_kb(pid: u32) -> f64 {
    // A process that is gone has none.
    field_kb(&format!("/proc/{pid}/smaps_rollup"), "Pss:").unwrap_or(0.0)
}

fn field_kb(file: &str, name: &str) -> Option<f64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

/// Stops a dyno whose layer has many megabytes that never reached the disk; beside one without.
pub(super) fn dirty(ours: &Ours, report: &mut Report) -> Result<()> {
    let clean = stopping(ours, "clean", "")?;
    let dirty = stopping(ours, "dirty", "head -c 64M /dev/zero >/app/dirty; ")?;
    report.figure(
        "run to the end of a stopped one-off",
        format!(
            "{:.1} ms, with 64 MB of dirty files {:.1} ms",
            ms(clean),
            ms(dirty)
        ),
    );
    // Freeing the pages takes some milliseconds; writing them out would take many more.
    report.at_most(
        "64 MB of dirty files at a stop, ms more",
        ms(dirty) - ms(clean),
        40.0,
    );
    Ok(())
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn stopping(ours: &Ours, name: &str, before: &str) -> Result<Duration> {
    let mut times = Vec::new();
    for round in 0..5 {
        let line = format!("ready {name} {round}");
        ours.order(&format!("{before}echo {line}; exec sleep 1000"))?;
        ours.await_line(&line)?;
        let start = Instant::now();
        ours.stop_one_offs()?;
        ours.await_gone()?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(times[2])
}
