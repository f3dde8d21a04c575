//! The clients: one thread, many kept connections, requests as fast as answers come (closed loop) or
//! at a fixed rate whatever the answers do (open loop).

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::process;

/// No answer takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// One read of an answer.
const READ: usize = 256 * 1024;

const TIMER: u64 = u64::MAX;

/// The same in a closed loop with TLS 1.3, by `h2load`, which inherits our core.
pub(super) fn closed_tls(
    address: SocketAddr,
    connections: usize,
    count: usize,
    path: &str,
) -> Result<()> {
    let mut command = Command::new("h2load");
    command.args(["--h1", "--threads=1"]);
    command.args(["--tls13-ciphers=TLS_AES_128_GCM_SHA256"]);
    command.arg(format!("--clients={connections}"));
    command.arg(format!("--requests={count}"));
    command.arg(format!("--connect-to={address}"));
    command.arg(format!("https://bench.localhost:{}{path}", address.port()));
    let text = process::read(&mut command)?;
    ensure!(
        text.contains(&format!("{count} succeeded")) && text.contains(&format!("{count} 2xx")),
        "h2load: {text}"
    );
    Ok(())
}

struct Connection {
    stream: TcpStream,
    /// Bytes of the head so far; empty while a body comes.
    head: Vec<u8>,
    /// Of the body.
    left: usize,
    /// When the request under way was due.
    due: Option<Instant>,
}

/// Connections to one address that ask for one path.
pub(super) struct Clients {
    epoll: Epoll,
    connections: Vec<Connection>,
    request: Vec<u8>,
    buffer: Vec<u8>,
}

impl Clients {
    /// Connects so many times.
    pub(super) fn connect(address: SocketAddr, count: usize, path: &str) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut connections = Vec::with_capacity(count);
        for number in 0..count {
            let stream = TcpStream::connect(address)
                .with_context(|| format!("cannot connect to {address}"))?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
            epoll.add(&stream, EpollEvent::new(flags, u64::try_from(number)?))?;
            connections.push(Connection {
                stream,
                head: Vec::new(),
                left: 0,
                due: None,
            });
        }
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: bench.localhost\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\nAccept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate\r\nCookie: session=0123456789abcdef0123456789abcdef\r\n\r\n"
        );
        Ok(Self {
            epoll,
            connections,
            request: request.into_bytes(),
            buffer: vec![0; READ],
        })
    }

    /// `count` requests, each connection sending the next one as soon as it has its answer.
    pub(super) fn closed(&mut self, count: usize) -> Result<()> {
        let (mut started, mut done) = (0, 0);
        for number in 0..self.connections.len().min(count) {
            self.send(number, Instant::now())?;
            started += 1;
        }
        let mut events = vec![EpollEvent::empty(); 256];
        while done < count {
            let ready = self.wait(&mut events)?;
            for event in &events[..ready] {
                let number = usize::try_from(event.data())?;
                if self.receive(number)?.is_none() {
                    continue;
                }
                done += 1;
                if started < count {
                    self.send(number, Instant::now())?;
                    started += 1;
                }
            }
        }
        Ok(())
    }

    /// `count` requests at `rate` per second. A request that is due while every connection is busy
    /// waits, and that time is part of its latency.
    pub(super) fn open(&mut self, rate: u32, count: usize) -> Result<Vec<Duration>> {
        let interval = Duration::from_secs(1) / rate;
        let timer = TimerFd::new(
            ClockId::CLOCK_MONOTONIC,
            TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC,
        )?;
        self.epoll
            .add(timer.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, TIMER))?;
        let start = Instant::now();
        let spec = TimeSpec::from_duration(interval);
        timer.set(Expiration::Interval(spec), TimerSetTimeFlags::empty())?;
        let mut idle: Vec<usize> = (0..self.connections.len()).collect();
        let mut waiting = VecDeque::new();
        let mut latencies = Vec::with_capacity(count);
        let mut due = 0;
        let mut events = vec![EpollEvent::empty(); 256];
        while latencies.len() < count {
            let ready = self.wait(&mut events)?;
            for event in &events[..ready] {
                if event.data() == TIMER {
                    match timer.wait() {
                        Ok(()) | Err(nix::errno::Errno::EAGAIN) => {}
                        Err(error) => bail!("the timer failed: {error}"),
                    }
                    continue;
                }
                let number = usize::try_from(event.data())?;
                if let Some(since) = self.receive(number)? {
                    latencies.push(since.elapsed());
                    idle.push(number);
                }
            }
            // What fell due while we were busy, too: the schedule does not wait for us.
            while due < count && start + interval * u32::try_from(due)? <= Instant::now() {
                waiting.push_back(start + interval * u32::try_from(due)?);
                due += 1;
            }
            while !waiting.is_empty()
                && let Some(number) = idle.pop()
                && let Some(since) = waiting.pop_front()
            {
                self.send(number, since)?;
            }
        }
        self.epoll.delete(timer.as_fd())?;
        Ok(latencies)
    }

    fn wait(&self, events: &mut [EpollEvent]) -> Result<usize> {
        loop {
            process::keep_going()?;
            let limit = EpollTimeout::try_from(PATIENCE).context("a timeout fits")?;
            match self.epoll.wait(events, limit) {
                Ok(0) => bail!("no answer within {PATIENCE:?}"),
                Err(nix::errno::Errno::EINTR) => {}
                other => return other.context("epoll failed"),
            }
        }
    }

    fn send(&mut self, number: usize, due: Instant) -> Result<()> {
        let connection = &mut self.connections[number];
        let sent = connection.stream.write(&self.request)?;
        ensure!(sent == self.request.len(), "a request did not fit");
        connection.due = Some(due);
        Ok(())
    }

    /// Reads what is there; when the answer is whole, since when it was due.
    fn receive(&mut self, number: usize) -> Result<Option<Instant>> {
        let connection = &mut self.connections[number];
        loop {
            let count = match connection.stream.read(&mut self.buffer) {
                Ok(0) => bail!("the proxy closed a connection"),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error).context("cannot read an answer"),
            };
            let mut bytes = &self.buffer[..count];
            if connection.left == 0 {
                connection.head.extend_from_slice(bytes);
                let Some(end) = find(&connection.head, b"\r\n\r\n") else {
                    continue;
                };
                let body = connection.head.len() - end;
                connection.left = length(&connection.head[..end])?;
                connection.head.clear();
                bytes = &bytes[count - body..];
            }
            ensure!(bytes.len() <= connection.left, "more bytes than announced");
            connection.left -= bytes.len();
            if connection.left == 0 {
                return connection.due.take().map(Some).context("unasked answer");
            }
            if count < self.buffer.len() {
                return Ok(None);
            }
        }
    }
}

/// The position behind the first `what`.
fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    let at = bytes.windows(what.len()).position(|part| part == what)?;
    Some(at + what.len())
}

/// The length that the head of a good answer states.
fn length(head: &[u8]) -> Result<usize> {
    let text = std::str::from_utf8(head)?;
    ensure!(text.starts_with("HTTP/1.1 200 "), "not a 200: {text}");
    let name = "content-length: ";
    let line = text
        .lines()
        .find(|line| {
            line.get(..name.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(name))
        })
        .context("no length")?;
    Ok(line[name.len()..].parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_good_answers_count() {
        let good = b"HTTP/1.1 200 OK\r\ncontent-Length: 17\r\n\r\n";
        assert_eq!(length(good).expect("a length"), 17);
        assert!(length(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").is_err());
        assert_eq!(find(b"ab\r\n\r\ncd", b"\r\n\r\n"), Some(6));
    }
}
