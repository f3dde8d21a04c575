//! The cases of `cases.json`: exact bytes in, judged answers out. A case is refused whole or read in
//! one way only; what it pipelines behind an error never runs.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde::Deserialize;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_mins(1);

#[derive(Deserialize)]
struct Case {
    name: String,
    send: String,
    /// Statuses of all answers, in order, interim ones too.
    status: Vec<u16>,
    #[serde(default)]
    has: Vec<String>,
    #[serde(default)]
    lacks: Vec<String>,
    #[serde(default)]
    once: Vec<String>,
    /// Requests that got to the dyno.
    reached: Option<u64>,
}

/// Sends everything, says that no more comes, reads to the end: a client that closes its half gets
/// its answers all the same.
fn exchange(router: SocketAddr, send: &str) -> String {
    let mut stream = TcpStream::connect(router).expect("the router");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    let bytes: Vec<u8> = send
        .chars()
        .map(|c| u8::try_from(u32::from(c)).expect("a byte"))
        .collect();
    stream.write_all(&bytes).expect("written");
    let half_closed = stream.shutdown(Shutdown::Write);
    // A cut is an end too, also when it comes first.
    let is_cut = |error: &io::Error| error.kind() == io::ErrorKind::NotConnected;
    assert!(
        half_closed.as_ref().err().is_none_or(is_cut),
        "{half_closed:?}"
    );
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply);
    reply.into_iter().map(char::from).collect()
}

fn judge(case: &Case, reply: &str) -> Result<(), String> {
    let status = |rest: &str| rest.get(..3).and_then(|s| s.parse::<u16>().ok());
    let got: Vec<u16> = reply
        .split("HTTP/1.1 ")
        .skip(1)
        .filter_map(status)
        .collect();
    if got != case.status {
        return Err(format!("{got:?}, not {:?}", case.status));
    }
    let count = |part: &String| reply.matches(part.as_str()).count();
    for (parts, is_right) in [
        (&case.has, (|n| n > 0) as fn(usize) -> bool),
        (&case.lacks, |n| n == 0),
        (&case.once, |n| n == 1),
    ] {
        if let Some(part) = parts.iter().find(|part| !is_right(count(part))) {
            return Err(format!("{part:?} {} times", count(part)));
        }
    }
    Ok(())
}

/// Longest wait for the router to have counted a request whose connection the client saw end.
const COUNTED: Duration = Duration::from_secs(10);

/// Runs all of them against the app `odd`; what is wrong with those that fail. `reached`: how many
/// requests got to its dyno so far, of those whose connections have ended.
pub(crate) fn faults(router: SocketAddr, reached: impl Fn() -> u64) -> Vec<String> {
    let cases: Vec<Case> = serde_json::from_str(include_str!("cases.json")).expect("cases");
    assert!(cases.len() > 150, "{} cases", cases.len());
    let mut faults = Vec::new();
    for case in &cases {
        let before = case.reached.map(|_| reached());
        let reply = exchange(router, &case.send);
        let mut judged = judge(case, &reply);
        // And whoever comes next gets their own answer.
        let next = "GET / HTTP/1.1\r\nHost: odd.localhost\r\nConnection: close\r\n\r\n";
        if !exchange(router, next).ends_with("\r\n\r\nhello") {
            judged = Err("the next request got something else".to_owned());
        }
        if let (Some(expected), Some(before)) = (case.reached, before) {
            let deadline = Instant::now() + COUNTED;
            // That one got there, too.
            let count = || (reached() - before).saturating_sub(1);
            while count() < expected && Instant::now() < deadline {
                std::thread::yield_now();
            }
            let count = count();
            if count != expected {
                judged = Err(format!("{count} reached the dyno, not {expected}"));
            }
        }
        if let Err(fault) = judged {
            faults.push(format!("{}: {fault}\n{reply}", case.name));
        }
    }
    faults
}
