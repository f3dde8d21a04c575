//! `cargo xtask bench routing`: Rap Genius' story, replayed.
//!
//! Real dynos that serve one request at a time stand behind the real router under each policy in
//! turn. The same requests come each time, at the same moments: a Poisson stream of short requests
//! and a few long ones. The queue time of a request is its answer time without the time that its
//! work takes, wherever it waited: at the router, or in a dyno's backlog.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use clap::Args;

use crate::platform::Platform;
use crate::process;
use crate::vm::Binaries;

const APP: &str = "single";

/// The published times of Rap Genius' requests: median and mean. The distribution is taken for
/// log-normal. Source: "Heroku's Ugly Secret", February 2013.
const MEDIAN: Duration = Duration::from_millis(46);
const MEAN: Duration = Duration::from_millis(306);

/// The platform ends longer ones. Source: Dev Center, "Request Timeout".
const LONGEST: Duration = Duration::from_secs(30);

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_mins(2);

/// Each policy, and what is set for it.
const POLICIES: [(&str, &[&str]); 4] = [
    ("random", &["random"]),
    ("round-robin", &["round-robin"]),
    ("global-queue", &["global-queue"]),
    (
        "least-in-flight",
        &["least-in-flight", "--concurrency", "1"],
    ),
];

/// Dynos and utilisation.
const CASES: [(u32, f64); 5] = [(2, 0.7), (10, 0.5), (10, 0.7), (10, 0.9), (20, 0.7)];

/// What a simulation of 10 dynos said (Poisson arrivals, the times above): the p99 queue time of one
/// exact line per app in parts of random's, at a load of 0.7 and of 0.9.
const SIMULATED: [(f64, f64); 2] = [(0.7, 0.052), (0.9, 0.089)];

/// How far a short run with its few long requests may be from it.
const SLACK: f64 = 2.0;

/// Most that the default's p99 may be of random's at 0.7, whatever the slack.
const TARGET: f64 = 0.1;

/// One line per app and the global queue are the same to dynos that serve one at a time: their p99s
/// differ by at most this factor, or by so many milliseconds (of times divided by `--scale`).
const ALIKE: (f64, f64) = (2.0, 20.0);

/// The policies that are blind to load wait at least so many times as long as the default. Which of
/// the two is worse is chance in runs of seconds: a few long requests make the p99 of both.
const BLIND: f64 = 4.0;

/// Options of `cargo xtask bench routing`.
#[derive(Args, Clone, Debug)]
pub(super) struct Options {
    /// Times are divided by this
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    scale: u32,
    /// Length of each run
    #[arg(long, value_name = "SECONDS", default_value_t = 20,
          value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// First number of the stream of requests
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Only the case of the target
    #[arg(long)]
    quick: bool,
    /// Measure a build without optimisation
    #[arg(long)]
    debug: bool,
}

/// One request to come.
#[derive(Clone, Copy)]
struct Arrival {
    at: Duration,
    work: Duration,
}

pub(super) fn run(options: &Options) -> Result<()> {
    println!("building manifold");
    let program = Binaries::program(!options.debug)?;
    let platform = Platform::start(&program, "warn")?;
    platform.read(&["create", APP])?;
    platform.show(&["deploy", "tests/apps/single", "--app", APP])?;
    let mut wrong = Vec::new();
    println!(
        "\nqueue times in ms of Rap Genius' requests, times divided by {}\n",
        options.scale
    );
    println!(
        "{:<10} {:<16} {:>8} {:>7} {:>8} {:>8} {:>8} {:>8} {:>9}",
        "dynos×load", "policy", "served", "refused", "mean", "p50", "p95", "p99", "of random"
    );
    for (dynos, load) in CASES {
        let is_target = dynos == 10 && (load - 0.7).abs() < 0.01;
        if options.quick && !is_target {
            continue;
        }
        let p99s = case(&platform, options, dynos, load)?;
        // Few dynos, or little to do: chance has its say.
        if dynos == 10 && load > 0.6 {
            wrong.extend(faults(load, p99s));
        }
    }
    platform.stop()?;
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    println!("\nthe policies come in their order, as far apart as the simulation has them");
    Ok(())
}

/// What is wrong with the p99 queue times of 10 dynos, in ms and in the order of [`POLICIES`]: random
/// and round-robin far behind the default, and the default like the global queue.
fn faults(load: f64, [random, turns, global, default]: [f64; 4]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut check = |is_right: bool, fault: String| {
        if !is_right {
            faults.push(format!("10 dynos at {load}: {fault}"));
        }
    };
    for (policy, p99) in [("random", random), ("round-robin", turns)] {
        check(
            p99 >= default * BLIND,
            format!("{policy} ({p99:.0} ms) is not far behind least-in-flight ({default:.0} ms)"),
        );
    }
    let (factor, least) = ALIKE;
    let (less, more) = (default.min(global), default.max(global));
    check(
        more <= less * factor || more - less <= least,
        format!("least-in-flight ({default:.0} ms) is not like global-queue ({global:.0} ms)"),
    );
    for (_, part) in SIMULATED.iter().filter(|(at, _)| (at - load).abs() < 0.01) {
        let most = part * SLACK;
        let most = if load < 0.8 { most.min(TARGET) } else { most };
        check(
            default <= random * most,
            format!(
                "least-in-flight is {:.3} of random: at most {most:.3} is wanted",
                default / random
            ),
        );
    }
    faults
}

/// One table of policies; returns their p99 queue times in milliseconds.
fn case(platform: &Platform, options: &Options, dynos: u32, load: f64) -> Result<[f64; 4]> {
    platform.read(&["ps:scale", &format!("web={dynos}"), "--app", APP])?;
    let names: Vec<String> = (1..=dynos).map(|n| format!("web.{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    platform.await_up(APP, &names, PATIENCE)?;
    let arrivals = arrivals(options, dynos, load);
    let mut random = f64::NAN;
    let mut p99s = [f64::NAN; 4];
    for ((policy, words), kept) in POLICIES.into_iter().zip(&mut p99s) {
        let set = [&["routing:set"], words, &["--app", APP]].concat();
        platform.read(&set)?;
        let (mut queues, refused) = replay(platform.http, &arrivals)?;
        ensure!(!queues.is_empty(), "no request was served");
        queues.sort_unstable();
        let p99 = quantile(&queues, 0.99);
        if policy == "random" {
            random = p99;
        }
        *kept = p99;
        let ratio = p99 / random;
        #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
        let mean = queues.iter().sum::<Duration>().as_secs_f64() * 1000.0 / queues.len() as f64;
        println!(
            "{:<10} {policy:<16} {:>8} {refused:>7} {mean:>8.1} {:>8.1} {:>8.1} {p99:>8.1} {ratio:>9.3}",
            format!("{dynos} × {load}"),
            queues.len(),
            quantile(&queues, 0.5),
            quantile(&queues, 0.95),
        );
    }
    Ok(p99s)
}

/// The stream of requests: the same for every policy.
fn arrivals(options: &Options, dynos: u32, load: f64) -> Vec<Arrival> {
    let mut random = Random(options.seed);
    let scale = f64::from(options.scale);
    // mean / median = exp(sigma² / 2).
    let sigma = (2.0 * (MEAN.as_secs_f64() / MEDIAN.as_secs_f64()).ln()).sqrt();
    let end = Duration::from_secs(options.seconds.into());
    // The works first, so that the load is what it says whatever long ones are among them.
    let mut works = Vec::new();
    let capacity = f64::from(dynos) * load * end.as_secs_f64();
    let mut sum = 0.0;
    while sum < capacity {
        let work = MEDIAN.as_secs_f64() * (sigma * random.normal()).exp();
        let work = work.min(LONGEST.as_secs_f64()) / scale;
        sum += work;
        works.push(Duration::from_secs_f64(work));
    }
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    let gap = end.as_secs_f64() / works.len() as f64;
    let mut at = 0.0;
    let stream = works.into_iter().map(|work| {
        at += -gap * random.uniform().ln();
        Arrival {
            at: Duration::from_secs_f64(at),
            work,
        }
    });
    stream.collect()
}

/// Sends each request at its moment, whatever became of the others; returns the queue times, and
/// how many found the line full.
fn replay(http: SocketAddr, arrivals: &[Arrival]) -> Result<(Vec<Duration>, usize)> {
    let (sender, answers) = mpsc::channel();
    let start = Instant::now() + Duration::from_millis(200);
    let mut threads = Vec::with_capacity(arrivals.len());
    for arrival in arrivals {
        process::keep_going()?;
        let due = start + arrival.at;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let (sender, work) = (sender.clone(), arrival.work);
        // Small stacks: hundreds wait under `random`.
        let thread = std::thread::Builder::new().stack_size(64 << 10);
        threads.push(thread.spawn(move || {
            let served = request(http, work);
            let took = due.elapsed().saturating_sub(work);
            // The receiver outlives all senders.
            let _ = sender.send(served.map(|is_served| is_served.then_some(took)));
        })?);
    }
    drop(sender);
    for thread in threads {
        if thread.join().is_err() {
            bail!("a client thread panicked");
        }
    }
    let answers = answers.into_iter().collect::<Result<Vec<_>>>()?;
    let refused = answers.iter().filter(|answer| answer.is_none()).count();
    Ok((answers.into_iter().flatten().collect(), refused))
}

/// False: refused, as the platform does when the line is full.
fn request(http: SocketAddr, work: Duration) -> Result<bool> {
    let mut stream = TcpStream::connect(http)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut head = String::new();
    write!(
        head,
        "GET /work/{} HTTP/1.1\r\nHost: {APP}.localhost\r\nConnection: close\r\n\r\n",
        work.as_micros()
    )?;
    stream.write_all(head.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let is_served = answer.starts_with("HTTP/1.1 200 ");
    let told = answer.lines().next().unwrap_or("");
    let is_known = is_served || told.starts_with("HTTP/1.1 503 ");
    ensure!(is_known, "not served: {told}");
    Ok(is_served)
}

/// In milliseconds, of sorted times, by the nearest rank.
fn quantile(sorted: &[Duration], part: f64) -> f64 {
    super::table::quantile(sorted, part)
}

/// A stream of numbers that only depends on its first (`SplitMix64`).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Above 0, at most 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// Mean 0, deviation 1 (Box and Muller).
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_that_is_wrong_is_told() {
        let check = |load, p99s, expected: &[&str]| {
            let faults = faults(load, p99s);
            assert_eq!(faults.len(), expected.len(), "{faults:?}");
            for (fault, words) in faults.iter().zip(expected) {
                assert!(fault.contains(words), "{fault}");
            }
        };
        // As simulated, and as measured once.
        check(0.9, [39_005.0, 30_000.0, 4_415.0, 3_462.0], &[]);
        check(0.7, [5_345.0, 2_000.0, 70.0, 59.0], &[]);
        let not_random = "random (100 ms) is not far behind least-in-flight (59 ms)";
        let too_much = "least-in-flight is 0.590 of random: at most 0.100 is wanted";
        check(0.7, [100.0, 2_000.0, 70.0, 59.0], &[not_random, too_much]);
        let not_turns = "round-robin (60 ms) is not far behind least-in-flight (59 ms)";
        check(0.7, [5_345.0, 60.0, 70.0, 59.0], &[not_turns]);
        let not_alike = "least-in-flight (59 ms) is not like global-queue (400 ms)";
        check(0.7, [5_345.0, 2_000.0, 400.0, 59.0], &[not_alike]);
        let too_much = "least-in-flight is 0.200 of random: at most 0.100 is wanted";
        check(0.7, [5_000.0, 4_000.0, 900.0, 1_000.0], &[too_much]);
    }

    #[test]
    fn the_stream_has_the_published_times_and_the_load() {
        let options = Options {
            scale: 10,
            seconds: 2000,
            seed: 7,
            quick: false,
            debug: false,
        };
        let all = arrivals(&options, 10, 0.7);
        let mut works: Vec<Duration> = all.iter().map(|a| a.work * 10).collect();
        works.sort_unstable();
        let median = works[works.len() / 2].as_secs_f64();
        assert!(
            (median / MEDIAN.as_secs_f64() - 1.0).abs() < 0.05,
            "{median}"
        );
        let sum = all.iter().map(|a| a.work).sum::<Duration>().as_secs_f64();
        assert!((sum / (10.0 * 0.7 * 2000.0) - 1.0).abs() < 0.01, "{sum}");
        let last = all.last().expect("many").at.as_secs_f64();
        assert!((last / 2000.0 - 1.0).abs() < 0.05, "{last}");
        assert!(all.windows(2).all(|pair| pair[0].at <= pair[1].at));
    }
}
