//! An open-loop load while everything that replaces dynos happens: no request may fail.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};

use crate::host::{Host, PATIENCE, app_dir, check, contains, deployed};

/// The cases of this file.
pub(crate) fn cases() -> Vec<Trial> {
    vec![Trial::test(
        "drops::no_request_fails_while_dynos_are_replaced",
        no_request_fails,
    )]
}

/// Requests at their moments, whatever became of the others.
struct Load {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
    sent: Arc<AtomicUsize>,
    failed: Arc<Mutex<Vec<String>>>,
}

impl Load {
    fn start(http: SocketAddr, gap: Duration) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let failed: Arc<Mutex<Vec<String>>> = Arc::default();
        let thread = std::thread::spawn({
            let (stop, sent, failed) = (
                Arc::clone(&stop),
                Arc::<AtomicUsize>::clone(&sent),
                Arc::clone(&failed),
            );
            move || {
                let mut due = Instant::now();
                let mut threads = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    due += gap;
                    sent.fetch_add(1, Ordering::Relaxed);
                    let failed = Arc::clone(&failed);
                    threads.push(std::thread::spawn(move || {
                        if let Err(why) = request(http) {
                            let mut all = failed.lock().unwrap_or_else(PoisonError::into_inner);
                            all.push(why);
                        }
                    }));
                    threads.retain(|thread| !thread.is_finished());
                }
                for thread in threads {
                    thread.join().expect("no panic");
                }
            }
        });
        Self {
            stop,
            thread,
            sent,
            failed,
        }
    }

    /// How many were sent, and what became of those that failed.
    fn end(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic");
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        (self.sent.load(Ordering::Relaxed), failed.clone())
    }
}

fn request(http: SocketAddr) -> Result<(), String> {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(http)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: tiny.localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    match ask() {
        Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => Ok(()),
        Ok(answer) => Err(answer.lines().next().unwrap_or("nothing").to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Waits until exactly these dynos are up and of the release that is current.
fn settled(host: &Host, names: &[&str]) -> Result<(), Failed> {
    host.eventually("the dynos of the current release serve", || {
        let releases = host.cli(&["releases", "-a", "tiny", "--json", "-n", "1"]);
        let releases: serde_json::Value =
            serde_json::from_slice(&releases.stdout).unwrap_or_default();
        let dynos = host.cli(&["ps", "-a", "tiny", "--json"]);
        let dynos: serde_json::Value = serde_json::from_slice(&dynos.stdout).unwrap_or_default();
        let dynos = dynos.as_array().cloned().unwrap_or_default();
        dynos.len() == names.len()
            && dynos.iter().all(|dyno| {
                dyno["state"] == "up" && dyno["release"]["version"] == releases[0]["version"]
            })
    })
}

fn no_request_fails() -> Result<(), Failed> {
    let host = deployed()?;
    host.ok(&["ps:scale", "web=2", "-a", "tiny"])?;
    let two = ["web.1", "web.2"];
    settled(&host, &two)?;
    // As much as an emulated machine can take, at most 100 a second.
    let start = Instant::now();
    for _ in 0..5 {
        request(host.http)?;
    }
    let gap = (start.elapsed() / 5).max(Duration::from_millis(10));
    let load = Load::start(host.http, gap);
    for round in 0..2 {
        host.ok(&["config:set", &format!("ROUND={round}"), "-a", "tiny"])?;
        settled(&host, &two)?;
        host.ok(&["ps:restart", "-a", "tiny"])?;
        host.ok(&["ps:scale", "web=3", "-a", "tiny"])?;
        settled(&host, &["web.1", "web.2", "web.3"])?;
        host.ok(&["ps:scale", "web=1", "-a", "tiny"])?;
        settled(&host, &["web.1"])?;
        host.ok(&["ps:scale", "web=2", "-a", "tiny"])?;
        host.ok(&["rollback", "v3", "-a", "tiny"])?;
        settled(&host, &two)?;
    }
    host.ok(&["deploy", &app_dir("tiny"), "-a", "tiny"])?;
    settled(&host, &two)?;
    // A release whose dynos do not start leaves the old ones alone.
    host.ok(&["config:set", "PYTHONHOME=/nowhere", "-a", "tiny"])?;
    host.eventually("the roll is aborted", || {
        host.logs("tiny").contains("aborted: web.")
    })?;
    host.ok(&["config:unset", "PYTHONHOME", "-a", "tiny"])?;
    settled(&host, &two)?;
    let (sent, failed) = load.end();
    eprintln!("{} of {sent} failed", failed.len());
    check(
        failed.is_empty(),
        format!(
            "{} of {sent} failed: {failed:?}\n{}",
            failed.len(),
            host.logs("tiny")
        ),
    )?;
    check(sent > 20, format!("only {sent} requests were sent"))?;
    shown(&host, sent)
}

/// The same requests, as the operator sees them.
fn shown(host: &Host, sent: usize) -> Result<(), Failed> {
    contains(&host.ok(&["top"])?, "tiny")?;
    contains(&host.ok(&["metrics", "-a", "tiny"])?, "least-in-flight")?;
    let metrics = host.ok(&["metrics", "-a", "tiny", "--json"])?;
    let metrics: serde_json::Value = serde_json::from_str(&metrics)?;
    let served = metrics["total"]["classes"]["2xx"].as_u64().unwrap_or(0);
    check(
        served >= sent as u64,
        format!("{served} of {sent} requests were counted"),
    )?;
    let errors = metrics["total"]["errors"]
        .as_object()
        .map(serde_json::Map::len);
    check(errors == Some(0), format!("no H code: {metrics}"))
}
