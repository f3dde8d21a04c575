//! An open-loop load: requests at their moments, whatever became of the others.
//!
//! One thread with one event loop holds hundreds of requests a second, so that the machine's
//! cores are left to what is tested.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::host::PATIENCE;

/// Most requests that wait for their answers: a descriptor each. More count as failed.
const IN_FLIGHT_MAX: usize = 800;

/// A load that runs. Dropped, it stops.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    told: Arc<Told>,
    thread: Option<std::thread::JoinHandle<Outcome>>,
}

/// What is told while it runs.
#[derive(Default)]
struct Told {
    sent: AtomicUsize,
    waiting: AtomicUsize,
}

/// What became of the requests.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) sent: usize,
    /// What each of those that failed got instead of a 200.
    pub(crate) failed: Vec<String>,
    /// From the first to the last one sent.
    pub(crate) took: Duration,
    /// The longest answer.
    pub(crate) longest: Duration,
}

/// What failed, and how often.
pub(crate) fn told(failed: &[String]) -> String {
    let mut counts = BTreeMap::new();
    for one in failed {
        *counts.entry(one.as_str()).or_insert(0) += 1;
    }
    format!("{counts:?}")
}

impl Load {
    /// Asks `host` for `/`, `per_second` times a second, each over a connection of its own.
    pub(crate) fn start(http: SocketAddr, host: &str, per_second: u32) -> Self {
        Self::of(&[Kind::Plain], http, host, per_second)
    }

    /// The same with requests of every kind.
    pub(crate) fn mixed(http: SocketAddr, host: &str, per_second: u32) -> Self {
        Self::of(&MIX, http, host, per_second)
    }

    fn of(kinds: &'static [Kind], http: SocketAddr, host: &str, per_second: u32) -> Self {
        let (stop, told) = (Arc::<AtomicBool>::default(), Arc::<Told>::default());
        let thread = std::thread::spawn({
            let (stop, told) = (Arc::clone(&stop), Arc::clone(&told));
            let host = host.to_owned();
            move || {
                let kept = RefCell::default();
                let target = Rc::new(Target { http, host, kept });
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("an event loop");
                let local = tokio::task::LocalSet::new();
                let run = run(&target, kinds, per_second, &stop, &told);
                runtime.block_on(local.run_until(run))
            }
        });
        Self {
            stop,
            told,
            thread: Some(thread),
        }
    }

    /// How many were sent so far.
    pub(crate) fn sent(&self) -> usize {
        self.told.sent.load(Ordering::Relaxed)
    }

    /// How many had no answer yet when the last one was sent.
    pub(crate) fn waiting(&self) -> usize {
        self.told.waiting.load(Ordering::Relaxed)
    }

    /// Sends no more, and waits for all answers.
    pub(crate) fn end(mut self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it runs until its end");
        thread.join().expect("no panic")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The test failed for another reason, which is the one to tell.
            let _ = thread.join();
        }
    }
}

async fn run(
    target: &Rc<Target>,
    kinds: &[Kind],
    per_second: u32,
    stop: &AtomicBool,
    told: &Told,
) -> Outcome {
    let begun = Instant::now();
    let mut outcome = Outcome::default();
    let mut asked = JoinSet::new();
    while !stop.load(Ordering::Relaxed) {
        // By the clock, not by the last one: what comes late is made up for at once.
        let due = Duration::from_secs(1) * u32::try_from(outcome.sent).expect("few") / per_second;
        tokio::time::sleep_until((begun + due).into()).await;
        while let Some(done) = asked.try_join_next() {
            outcome.note(done.expect("no panic"));
        }
        outcome.sent += 1;
        told.sent.store(outcome.sent, Ordering::Relaxed);
        told.waiting.store(asked.len(), Ordering::Relaxed);
        outcome.took = begun.elapsed();
        if asked.len() < IN_FLIGHT_MAX {
            let number = outcome.sent;
            let kind = kinds[number % kinds.len()];
            asked.spawn_local(request(Rc::clone(target), kind, number));
        } else {
            outcome.note(Err(format!("{IN_FLIGHT_MAX} requests wait already")));
        }
    }
    while let Some(done) = asked.join_next().await {
        outcome.note(done.expect("no panic"));
    }
    outcome
}

impl Outcome {
    fn note(&mut self, done: Result<Duration, String>) {
        match done {
            Ok(took) => self.longest = self.longest.max(took),
            Err(why) => self.failed.push(why),
        }
    }
}

/// Whom the load asks.
struct Target {
    http: SocketAddr,
    host: String,
    /// Connections that wait for their next request.
    kept: RefCell<Vec<TcpStream>>,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `GET /` on a connection of its own.
    Plain,
    /// The same on one that is kept.
    Kept,
    /// A body that comes back, on a kept one.
    Body,
    /// An answer that takes from one to three seconds.
    Slow,
}

/// Of twenty requests.
const MIX: [Kind; 20] = {
    let mut mix = [Kind::Plain; 20];
    let mut at = 0;
    while at < 20 {
        mix[at] = match at {
            19 => Kind::Slow,
            at if at % 3 == 1 => Kind::Kept,
            at if at % 3 == 2 => Kind::Body,
            _ => Kind::Plain,
        };
        at += 1;
    }
    mix
};

impl Target {
    /// Asks, and checks the answer.
    async fn ask(&self, kind: Kind, number: usize) -> io::Result<Result<(), String>> {
        let host = &self.host;
        let close = "Connection: close\r\n";
        // From nothing to more than one read takes.
        let body = "x".repeat(number % 7 * 20_000);
        let (line, lines) = match kind {
            Kind::Plain => ("GET /".to_owned(), close.to_owned()),
            Kind::Kept => ("GET /".to_owned(), String::new()),
            Kind::Body => (
                "POST /".to_owned(),
                format!("Content-Length: {}\r\n", body.len()),
            ),
            Kind::Slow => (
                format!("GET /slow/{}", 1000 + number % 2001),
                close.to_owned(),
            ),
        };
        let mut bytes = format!("{line} HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n");
        let is_kept = matches!(kind, Kind::Kept | Kind::Body);
        let kept = is_kept.then(|| self.kept.borrow_mut().pop()).flatten();
        let mut stream = match kept {
            Some(stream) => stream,
            None => TcpStream::connect(self.http).await?,
        };
        if kind == Kind::Body {
            bytes.push_str(&body);
        }
        stream.write_all(bytes.as_bytes()).await?;
        let answer = read(&mut stream).await?;
        let (head, got) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        if !head.starts_with("HTTP/1.1 200 ") {
            let told = head.lines().next().unwrap_or("nothing");
            return Ok(Err(format!("{kind:?}: {told}")));
        }
        let is_whole = match kind {
            // Other tests' servers say other things.
            Kind::Plain => !got.is_empty(),
            Kind::Kept => got.starts_with("hello from web."),
            Kind::Body => got == body,
            Kind::Slow => got == "at last\n",
        };
        if !is_whole {
            return Ok(Err(format!("{kind:?}: {} other bytes", got.len())));
        }
        if is_kept && head.contains("\r\nConnection: keep-alive") {
            self.kept.borrow_mut().push(stream);
        }
        Ok(Ok(()))
    }
}

/// One answer with a length.
async fn read(stream: &mut TcpStream) -> io::Result<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("Content-Length: "))
                .and_then(|length| length.parse().ok());
            if length.is_some_and(|length: usize| body.len() >= length) {
                return Ok(text.into_owned());
            }
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(String::from_utf8_lossy(&bytes).into_owned());
        }
    }
}

async fn request(target: Rc<Target>, kind: Kind, number: usize) -> Result<Duration, String> {
    let begun = Instant::now();
    match tokio::time::timeout(PATIENCE, target.ask(kind, number)).await {
        Ok(Ok(answered)) => answered.map(|()| begun.elapsed()),
        Ok(Err(error)) => Err(format!("{kind:?}: {error}")),
        Err(_) => Err(format!("{kind:?}: no answer")),
    }
}
