//! The web process behind every proxy: `GET /N` is answered with N bytes, as cheaply as can be.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::cpu;
use crate::process;

/// Largest body that may be asked for.
const BODY_MAX: usize = 16 << 20;

/// Longest request head.
const HEAD_MAX: usize = 8 * 1024;

struct Client {
    stream: TcpStream,
    head: Vec<u8>,
    answer: Rc<Vec<u8>>,
    sent: usize,
}

/// Listens on `$PORT` and leaves a file of that name in `dir`. Ends with a signal.
pub(super) fn run(dir: &Path, core: usize) -> Result<()> {
    cpu::pin(0, core)?;
    let port = std::env::var("PORT").context("no PORT")?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.parse()?))?;
    listener.set_nonblocking(true)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
    fs::write(dir.join(&port), "")?;
    let mut clients: HashMap<u64, Client> = HashMap::new();
    let mut answers: HashMap<usize, Rc<Vec<u8>>> = HashMap::new();
    let mut events = [EpollEvent::empty(); 64];
    loop {
        let count = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => {
                process::keep_going()?;
                continue;
            }
            other => other?,
        };
        for event in &events[..count] {
            let id = event.data();
            if id == 0 {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    let id = u64::try_from(stream.as_raw_fd())?;
                    let both = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
                    epoll.add(&stream, EpollEvent::new(both, id))?;
                    let client = Client {
                        stream,
                        head: Vec::new(),
                        answer: Rc::default(),
                        sent: 0,
                    };
                    clients.insert(id, client);
                }
            } else if let Some(client) = clients.get_mut(&id)
                && !client.serve(&mut answers)
            {
                clients.remove(&id);
            }
        }
    }
}

impl Client {
    /// As far as it goes now; false at its end.
    fn serve(&mut self, answers: &mut HashMap<usize, Rc<Vec<u8>>>) -> bool {
        let mut buffer = [0; HEAD_MAX];
        loop {
            while self.sent < self.answer.len() {
                match self.stream.write(&self.answer[self.sent..]) {
                    Ok(count) => self.sent += count,
                    Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
                }
            }
            let count = match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(count) => count,
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            };
            self.head.extend_from_slice(&buffer[..count]);
            if self.head.ends_with(b"\r\n\r\n") {
                let Some(size) = wanted(&self.head) else {
                    return false;
                };
                self.answer = Rc::clone(answers.entry(size).or_insert_with(|| answer(size)));
                self.sent = 0;
                self.head.clear();
            } else if self.head.len() > HEAD_MAX {
                return false;
            } else if count < buffer.len() {
                return true;
            }
        }
    }
}

fn answer(size: usize) -> Rc<Vec<u8>> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {size}\r\nCache-Control: no-cache\r\nDate: Tue, 24 Nov 2026 23:20:00 GMT\r\n\r\n"
    );
    let mut bytes = head.into_bytes();
    bytes.resize(bytes.len() + size, b'x');
    Rc::new(bytes)
}

/// The number in `GET /N HTTP/1.1`.
fn wanted(head: &[u8]) -> Option<usize> {
    let line = head.split(|b| *b == b'\r').next()?;
    let path = line.split(|b| *b == b' ').nth(1)?;
    let size = std::str::from_utf8(path.strip_prefix(b"/")?).ok()?;
    size.parse().ok().filter(|size| *size <= BODY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_says_how_many_bytes() {
        assert_eq!(wanted(b"GET /1024 HTTP/1.1\r\nHost: x\r\n\r\n"), Some(1024));
        assert_eq!(wanted(b"GET /99999999 HTTP/1.1\r\n\r\n"), None);
        assert_eq!(wanted(b"GET /x HTTP/1.1\r\n\r\n"), None);
        assert!(answer(3).ends_with(b"\r\n\r\nxxx"));
    }
}
