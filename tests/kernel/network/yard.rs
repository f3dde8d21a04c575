//! A host of its own for each test: a network namespace for the supervisor, and one for the world
//! behind its uplink. Nothing here touches the machine's own network or firewall.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use libtest_mimic::Failed;
use nix::sched::{CloneFlags, setns};

use crate::host::{PATIENCE, check};
use crate::support;

/// The world's address on the uplink; outside, as seen from dynos.
pub(crate) const WORLD: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The world's address in the host's private network; also its resolver's.
pub(super) const LAN: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
/// The host's addresses in both.
pub(super) const HOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
pub(super) const HOST_LAN: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
/// Shared address space (carrier-grade NAT) and the metadata service of clouds.
pub(super) const SHARED: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
pub(super) const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// Two namespaces, joined by a veth pair; gone when dropped.
pub(crate) struct Yard {
    host: String,
    world: String,
}

impl Yard {
    pub(crate) fn new() -> Result<Self, Failed> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "manifold-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let yard = Self {
            host: format!("{name}-host"),
            world: format!("{name}-world"),
        };
        let (host, world) = (&yard.host, &yard.world);
        ip(&format!("netns add {host}"))?;
        ip(&format!("netns add {world}"))?;
        ip(&format!(
            "-n {host} link add wan0 type veth peer name up0 netns {world}"
        ))?;
        for (name, link) in [(host, "wan0"), (world, "up0")] {
            ip(&format!("-n {name} link set lo up"))?;
            ip(&format!("-n {name} link set {link} up"))?;
        }
        ip(&format!("-n {host} address add {HOST}/24 dev wan0"))?;
        ip(&format!("-n {host} address add {HOST_LAN}/24 dev wan0"))?;
        for address in [WORLD, LAN] {
            ip(&format!("-n {world} address add {address}/24 dev up0"))?;
        }
        for address in [SHARED, METADATA] {
            ip(&format!("-n {world} address add {address}/32 dev up0"))?;
        }
        // Link-local addresses are on the uplink, as in a cloud.
        ip(&format!("-n {host} route add 169.254.0.0/16 dev wan0"))?;
        ip(&format!("-n {host} route add default via {WORLD}"))?;
        Ok(yard)
    }

    /// Where the supervisor runs.
    pub(crate) fn netns(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.host)
    }

    /// Serves a folder by HTTP from the world's port 8000.
    pub(crate) fn serve(&self, dir: &Path) -> Result<Served, Failed> {
        let mut command = Command::new("nsenter");
        // nsenter(1) becomes the program: the pid is the server's.
        command.arg(format!("--net=/run/netns/{}", self.world));
        command
            .args(["--", "python3", "-m", "http.server", "8000", "--bind"])
            .arg(WORLD.to_string())
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let served = Served(command.spawn()?);
        let deadline = Instant::now() + PATIENCE;
        let ask = || TcpStream::connect((WORLD, 8000)).map(drop);
        while self.in_world(ask).is_err() {
            check(
                Instant::now() < deadline,
                "the world's server does not open",
            )?;
            support::pause();
        }
        Ok(served)
    }

    /// Runs a program in the host's namespace; its stdout.
    pub(super) fn run(&self, program: &str, args: &[&str]) -> Result<String, Failed> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.netns().display()));
        let output = command.arg("--").arg(program).args(args).output()?;
        check(
            output.status.success(),
            format!("{program} {args:?}: {output:?}"),
        )?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub(super) fn nft(&self, words: &str) -> Result<String, Failed> {
        let words: Vec<&str> = words.split(' ').collect();
        self.run("nft", &words)
    }

    /// A script of nft's own language, as one transaction.
    pub(super) fn nft_script(&self, text: &str) -> Result<(), Failed> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), text)?;
        let path = file.path().display().to_string();
        self.run("nft", &["-f", &path]).map(drop)
    }

    /// Does something as one of the host.
    pub(super) fn in_host<T: Send>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send,
    ) -> io::Result<T> {
        within(&self.netns(), work)
    }

    /// Does something as one of the world.
    pub(super) fn in_world<T: Send>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send,
    ) -> io::Result<T> {
        within(&PathBuf::from("/run/netns").join(&self.world), work)
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        for name in [&self.host, &self.world] {
            // A namespace that was not made is none that stays.
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

/// A server of the world; ended when dropped.
pub(crate) struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        support::signal(self.0.id(), nix::sys::signal::Signal::SIGKILL);
        // It ends by the signal, if it has not before.
        let _ = self.0.wait();
    }
}

fn ip(words: &str) -> Result<(), Failed> {
    let output = Command::new("ip").args(words.split(' ')).output()?;
    check(output.status.success(), format!("ip {words}: {output:?}"))
}

/// On a thread of its own: a thread does not come back from another network.
pub(super) fn within<T: Send>(
    netns: &std::path::Path,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    let netns = std::fs::File::open(netns)?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(&netns, CloneFlags::CLONE_NEWNET)?;
            work()
        });
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("it panicked")))
    })
}

/// A service that counts who comes. It answers with what it got.
pub(super) struct Canary {
    pub(super) port: u16,
    count: Arc<AtomicU32>,
}

impl Canary {
    /// Over TCP on every address, IPv6 too, of the calling thread's network.
    pub(super) fn tcp() -> io::Result<Self> {
        let listener = TcpListener::bind("[::]:0")?;
        let port = listener.local_addr()?.port();
        let count = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&count);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                seen.fetch_add(1, Ordering::Relaxed);
                std::thread::spawn(move || {
                    let mut back = &stream;
                    // Until the other side ends; an error ends it, too.
                    let _ = io::copy(&mut &stream, &mut back);
                });
            }
        });
        Ok(Self { port, count })
    }

    /// Over UDP; counts the different sources.
    pub(super) fn udp(address: Ipv4Addr, port: u16) -> io::Result<Self> {
        let socket = UdpSocket::bind((address, port))?;
        let port = socket.local_addr()?.port();
        let count = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&count);
        std::thread::spawn(move || {
            let mut known = std::collections::HashSet::<SocketAddr>::new();
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                if known.insert(from) {
                    seen.fetch_add(1, Ordering::Relaxed);
                }
                // Whoever is gone needs no answer.
                let _ = socket.send_to(&answer(&buffer[..length]), from);
            }
        });
        Ok(Self { port, count })
    }

    /// How many came.
    pub(super) fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }
}

/// A DNS question gets the world's address; anything else an echo. Source: RFC 1035, 4.
fn answer(question: &[u8]) -> Vec<u8> {
    let mut reply = question.to_vec();
    let is_query = question.len() > 16 && question[2] & 0x80 == 0 && question[4..6] == [0, 1];
    if !is_query {
        return reply;
    }
    let name_end = 12 + question[12..].iter().position(|b| *b == 0).unwrap_or(0);
    reply.truncate(name_end + 5);
    reply[2..4].copy_from_slice(&[0x81, 0x80]);
    reply[6..12].copy_from_slice(&[0, 0, 0, 0, 0, 0]);
    let asks_for_address = question.get(name_end + 1..name_end + 3) == Some(&[0, 1]);
    if asks_for_address {
        reply[7] = 1;
        reply.extend([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        reply.extend(WORLD.octets());
    }
    reply
}

/// Waits for a condition for a minute.
pub(super) fn eventually(what: &str, check: impl Fn() -> bool) -> Result<(), Failed> {
    let deadline = std::time::Instant::now() + std::time::Duration::from_mins(1);
    while !check() {
        if std::time::Instant::now() > deadline {
            return Err(format!("not in time: {what}").into());
        }
        support::pause();
    }
    Ok(())
}
