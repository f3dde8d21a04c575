//! The three that are measured, each with one worker thread on core [`PROXY_CORE`].

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::cpu::{self, Used};
use crate::process;

/// Where the proxies run.
pub(super) const PROXY_CORE: usize = 0;

/// Where everything else of the bench runs.
pub(super) const REST_CORE: usize = 1;

const START: Duration = Duration::from_mins(1);

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Manifold,
    Nginx,
    Haproxy,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Manifold => "manifold",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
        }
    }
}

/// A running proxy; ends when dropped.
pub(super) struct Proxy {
    pub(super) kind: Kind,
    pub(super) address: SocketAddr,
    /// The same with TLS.
    pub(super) tls: SocketAddr,
    child: Child,
    /// Open as long as our router is to run.
    stdin: Option<ChildStdin>,
}

impl Proxy {
    /// What its worker thread used so far.
    pub(super) fn worker(&self) -> Result<Used> {
        let threads = match self.kind {
            Kind::Manifold => "router-",
            Kind::Nginx | Kind::Haproxy => "",
        };
        cpu::used(self.child.id(), threads)
    }

    /// What all its threads used so far.
    pub(super) fn whole(&self) -> Result<Used> {
        cpu::used(self.child.id(), "")
    }

    pub(super) fn resident(&self) -> Result<u64> {
        cpu::resident(self.child.id())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Ours ends by itself when its stdin does, and takes its dynos with it.
        if self.stdin.take().is_some() {
            process::settle(START, || self.child.try_wait().is_ok_and(|s| s.is_some()));
        }
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Everything for one number of backends: the three, the backends, a place for their files.
pub(super) struct Field {
    pub(super) proxies: Vec<Proxy>,
    /// The first backend itself.
    pub(super) direct: SocketAddr,
    _dir: tempfile::TempDir,
}

impl Field {
    /// Starts our router, which starts the backends as its dynos, then the others on the same.
    pub(super) fn start(router: &Path, backends: usize) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("manifold-bench-")
            .tempdir()?;
        let ports = dir.path().join("ports");
        fs::create_dir(&ports)?;
        certificate(dir.path())?;
        let ours = manifold(router, backends, dir.path())?;
        let mut found = Vec::new();
        for entry in fs::read_dir(&ports)? {
            found.push(entry?.file_name().to_string_lossy().parse::<u16>()?);
        }
        ensure!(found.len() == backends, "{} backends came up", found.len());
        let proxies = vec![
            ours,
            nginx(dir.path(), &found)?,
            haproxy(dir.path(), &found)?,
        ];
        let direct = SocketAddr::from((Ipv4Addr::LOCALHOST, found[0]));
        Ok(Self {
            proxies,
            direct,
            _dir: dir,
        })
    }
}

/// One certificate for all: `bench.crt`, `bench.key`, and both in `bench.pem`.
fn certificate(dir: &Path) -> Result<()> {
    let path = |name: &str| dir.join(name);
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-nodes", "-days", "2", "-newkey", "ec"]);
    command.args(["-pkeyopt", "ec_paramgen_curve:P-256"]);
    command.args(["-subj", "/CN=bench.localhost"]);
    command.args(["-addext", "subjectAltName=DNS:bench.localhost"]);
    command.arg("-out").arg(path("bench.crt"));
    command.arg("-keyout").arg(path("bench.key"));
    process::read(&mut command)?;
    let both = fs::read_to_string(path("bench.crt"))? + &fs::read_to_string(path("bench.key"))?;
    fs::write(path("bench.pem"), both)?;
    Ok(())
}

fn manifold(router: &Path, backends: usize, dir: &Path) -> Result<Proxy> {
    let ports = dir.join("ports");
    let program = std::env::current_exe().context("cannot find ourselves")?;
    let command = format!(
        "exec {} bench backend {} {REST_CORE}",
        program.display(),
        ports.display()
    );
    let mut child = Command::new(router)
        .args(["1", &backends.to_string(), &command])
        .args([dir.join("bench.crt"), dir.join("bench.key")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", router.display()))?;
    let stdin = child.stdin.take();
    let stdout = child.stdout.take().context("stdout is piped")?;
    let mut stdout = BufReader::new(stdout);
    let mut address = || -> Result<SocketAddr> {
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let address = line.trim().parse();
        address.with_context(|| format!("our router did not start: {line:?}"))
    };
    let (address, tls) = (address()?, address()?);
    for thread in cpu::threads(child.id(), "")? {
        cpu::pin(thread, REST_CORE)?;
    }
    for thread in cpu::threads(child.id(), "router-")? {
        cpu::pin(thread, PROXY_CORE)?;
    }
    Ok(Proxy {
        kind: Kind::Manifold,
        address,
        tls,
        child,
        stdin,
    })
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

fn nginx(dir: &Path, backends: &[u16]) -> Result<Proxy> {
    let (port, tls) = (free_port()?, free_port()?);
    let servers: Vec<_> = backends
        .iter()
        .map(|port| format!("server 127.0.0.1:{port};"))
        .collect();
    let file = dir.join("nginx.conf");
    let text = include_str!("nginx.conf")
        .replace("{dir}", &dir.display().to_string())
        .replace("{port}", &port.to_string())
        .replace("{tls}", &tls.to_string())
        .replace("{servers}", &servers.join("\n"));
    fs::write(&file, text)?;
    let mut command = pinned("nginx");
    command.arg("-c").arg(&file).arg("-p").arg(dir);
    start(Kind::Nginx, command, port, tls)
}

fn haproxy(dir: &Path, backends: &[u16]) -> Result<Proxy> {
    let (port, tls) = (free_port()?, free_port()?);
    let servers: Vec<_> = backends
        .iter()
        .enumerate()
        .map(|(number, port)| format!("    server s{number} 127.0.0.1:{port}"))
        .collect();
    let socket = dir.join("log.sock");
    drain(&socket)?;
    let file = dir.join("haproxy.cfg");
    let text = include_str!("haproxy.cfg")
        .replace("{log}", &socket.display().to_string())
        .replace("{dir}", &dir.display().to_string())
        .replace("{port}", &port.to_string())
        .replace("{tls}", &tls.to_string())
        .replace("{servers}", &servers.join("\n"));
    fs::write(&file, text)?;
    let mut command = pinned("haproxy");
    command.arg("-db").arg("-f").arg(&file);
    start(Kind::Haproxy, command, port, tls)
}

fn pinned(program: &str) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &PROXY_CORE.to_string(), program]);
    command.stdin(Stdio::null());
    command
}

/// Receives log lines, as a syslog daemon would.
fn drain(path: &PathBuf) -> Result<()> {
    let socket = UnixDatagram::bind(path).context("cannot bind the log socket")?;
    std::thread::spawn(move || {
        let mut line = [0; 4096];
        // It ends with the process.
        while socket.recv(&mut line).is_ok() {}
    });
    Ok(())
}

fn start(kind: Kind, mut command: Command, port: u16, tls: u16) -> Result<Proxy> {
    let child = command
        .spawn()
        .with_context(|| format!("cannot start {}", kind.name()))?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut proxy = Proxy {
        kind,
        address,
        tls: SocketAddr::from((Ipv4Addr::LOCALHOST, tls)),
        child,
        stdin: None,
    };
    let deadline = Instant::now() + START;
    while TcpStream::connect(address).is_err() {
        process::keep_going()?;
        let status = proxy.child.try_wait()?;
        ensure!(status.is_none(), "{} ended: {status:?}", kind.name());
        ensure!(Instant::now() < deadline, "{} does not listen", kind.name());
        std::thread::park_timeout(Duration::from_millis(20));
    }
    Ok(proxy)
}
