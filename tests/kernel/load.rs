//! An open-loop load: requests at their moments, whatever became of the others.
//!
//! One thread with one event loop holds hundreds of requests a second, so that the machine's
//! cores are left to what is tested.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
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

impl Load {
    /// Asks `host` for `/`, `per_second` times a second, each over a connection of its own.
    pub(crate) fn start(http: SocketAddr, host: &str, per_second: u32) -> Self {
        let (stop, told) = (Arc::<AtomicBool>::default(), Arc::<Told>::default());
        let thread = std::thread::spawn({
            let (stop, told) = (Arc::clone(&stop), Arc::clone(&told));
            let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("an event loop");
                runtime.block_on(run(http, head.into(), per_second, &stop, &told))
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
    http: SocketAddr,
    head: Arc<str>,
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
            asked.spawn(request(http, Arc::clone(&head)));
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

async fn request(http: SocketAddr, head: Arc<str>) -> Result<Duration, String> {
    let begun = Instant::now();
    let ask = async {
        let mut stream = tokio::net::TcpStream::connect(http).await?;
        stream.write_all(head.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    match tokio::time::timeout(PATIENCE, ask).await {
        Ok(Ok(answer)) if answer.starts_with("HTTP/1.1 200 ") => Ok(begun.elapsed()),
        Ok(Ok(answer)) => Err(answer.lines().next().unwrap_or("nothing").to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer".to_owned()),
    }
}
