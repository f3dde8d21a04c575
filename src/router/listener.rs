//! The router's life: sockets, threads, the table's updates, the end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{LocalOptions, LocalRuntime};
use tokio::sync::{AcquireError, Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::access_log;
use super::introduction;
use super::proxy;
use super::table::Table;
use super::tls::{self, Tls};
use super::wire::{Hearsay, Origin};
use super::worker;
use crate::certs::Certs;
use crate::logs::Hub;
use crate::settings::{ProxySettings, Settings, Timings};
use crate::supervisor::Supervisor;

/// Connections at once, of all clients; more wait in the kernel's backlog.
pub(super) const CONNECTIONS_MAX: usize = 16 * 1024;

/// Descriptors that are not for the router's connections: logs, pipes, the state, the API.
const OTHER_FILES: u64 = 1024;

/// How many connections the descriptors allow: each may need another one, to a dyno. The limit is
/// raised first to what this process may have.
fn connections_max() -> usize {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let limit = Resource::RLIMIT_NOFILE;
    let (soft, hard) = getrlimit(limit).unwrap_or((1024, 1024));
    let soft = match setrlimit(limit, hard, hard) {
        Ok(()) => hard,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files stays at {soft}");
            soft
        }
    };
    let places = soft.saturating_sub(OTHER_FILES.min(soft / 2)) / 2;
    usize::try_from(places).map_or(CONNECTIONS_MAX, |places| places.min(CONNECTIONS_MAX))
}

/// The kernel's backlog.
const BACKLOG: i32 = 4096;

/// Requests under way at the stop get so long.
const LAST_REQUESTS: Duration = Duration::from_secs(5);

/// After a failed accept (no descriptors left), before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address}{}: give the router another address with --http",
    taken(source)
)]
pub struct RouterError {
    address: SocketAddr,
    source: io::Error,
}

fn taken(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => " (another program has it)",
        io::ErrorKind::PermissionDenied => " (not permitted)",
        _ => "",
    }
}

/// Sockets that were taken, before anything is launched.
#[derive(Debug)]
pub struct Listeners {
    plain: Vec<std::net::TcpListener>,
    tls: Vec<std::net::TcpListener>,
}

impl Listeners {
    /// Listens on every address, on those of `https` with TLS.
    ///
    /// # Errors
    /// See [`RouterError`].
    pub fn bind(http: &[SocketAddr], https: &[SocketAddr]) -> Result<Self, RouterError> {
        Self::bind_with(http, https, |_, _| None)
    }

    /// As [`Self::bind`], but sockets that `kept` has for an address (of `http` or `https`) are used
    /// on.
    ///
    /// # Errors
    /// See [`RouterError`].
    pub fn bind_with(
        http: &[SocketAddr],
        https: &[SocketAddr],
        mut kept: impl FnMut(&'static str, SocketAddr) -> Option<std::net::TcpListener>,
    ) -> Result<Self, RouterError> {
        let bind = |address: SocketAddr| -> io::Result<std::net::TcpListener> {
            let domain = socket2::Domain::for_address(address);
            let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.set_nonblocking(true)?;
            if address.is_ipv6() {
                socket.set_only_v6(true)?;
            }
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        };
        let mut all = |kind, addresses: &[SocketAddr]| {
            let bind = |&address| match kept(kind, address) {
                Some(socket) => Ok(socket),
                None => bind(address).map_err(|source| RouterError { address, source }),
            };
            addresses.iter().map(bind).collect::<Result<_, _>>()
        };
        Ok(Self {
            plain: all("http", http)?,
            tls: all("https", https)?,
        })
    }

    /// The sockets without TLS, in the order of their addresses.
    pub fn plain(&self) -> &[std::net::TcpListener] {
        &self.plain
    }

    /// Those with TLS.
    pub fn tls(&self) -> &[std::net::TcpListener] {
        &self.tls
    }

    /// The addresses that were taken (a port 0 is a real one here).
    pub fn addresses(&self) -> Vec<SocketAddr> {
        addresses(&self.plain)
    }

    /// The same of those with TLS.
    pub fn tls_addresses(&self) -> Vec<SocketAddr> {
        addresses(&self.tls)
    }
}

fn addresses(sockets: &[std::net::TcpListener]) -> Vec<SocketAddr> {
    let addresses = sockets.iter().filter_map(|s| s.local_addr().ok());
    addresses.collect()
}

/// What a socket speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    Tls,
}

/// What every connection shares.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) table: Arc<ArcSwap<Table>>,
    /// Told after every new table.
    pub(super) news: Notify,
    pub(super) hub: Hub,
    pub(super) timings: Timings,
    pub(super) proxies: ProxySettings,
    pub(super) certs: Certs,
    pub(super) tls: Tls,
    /// Where plain requests are redirected to; `None`: TLS is not served.
    pub(super) https_port: Option<u16>,
    /// No more requests on any connection.
    pub(super) stop: CancellationToken,
    /// Part from those whose protocol has a word for it.
    end: CancellationToken,
    /// Cut what still runs.
    pub(super) cut: CancellationToken,
    connections: Arc<Semaphore>,
    tasks: TaskTracker,
}

/// The running router.
#[derive(Debug)]
pub struct Router {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Router {
    /// Serves on the taken sockets: single-threaded runtimes, each accepting from all.
    ///
    /// # Errors
    /// A thread or its runtime cannot be made.
    pub fn start(
        listeners: &Listeners,
        supervisor: &Supervisor,
        hub: Hub,
        settings: &Settings,
        certs: Certs,
    ) -> io::Result<Self> {
        let table = Table::default().build(&supervisor.snapshot());
        let table = Arc::new(ArcSwap::from_pointee(table));
        let shared = Arc::new(Shared {
            tls: Tls::new(&certs, &table).map_err(io::Error::other)?,
            certs,
            https_port: listeners.tls_addresses().first().map(SocketAddr::port),
            table,
            news: Notify::new(),
            hub,
            timings: settings.timings,
            proxies: settings.proxies.clone(),
            stop: CancellationToken::new(),
            end: CancellationToken::new(),
            cut: CancellationToken::new(),
            connections: Arc::new(Semaphore::new(connections_max())),
            tasks: TaskTracker::new(),
        });
        tokio::spawn(follow(Arc::clone(&shared), supervisor.clone()));
        tokio::spawn(sweep(Arc::clone(&shared)));
        let count = settings.router_threads;
        let mut threads = Vec::with_capacity(count);
        for number in 0..count {
            let plain = listeners.plain.iter().map(|s| (s, Kind::Plain));
            let tls = listeners.tls.iter().map(|s| (s, Kind::Tls));
            let sockets = plain.chain(tls).map(|(s, kind)| Ok((s.try_clone()?, kind)));
            let sockets = sockets.collect::<io::Result<Vec<_>>>()?;
            let shared = Arc::clone(&shared);
            let (started, outcome) = sync_channel(1);
            let thread = std::thread::Builder::new().name(format!("router-{number}"));
            let life = move || match runtime(&shared.hub) {
                Ok(runtime) => {
                    // The receiver waits.
                    let _ = started.send(Ok(()));
                    runtime.block_on(serve(Arc::clone(&shared), sockets));
                    // What is cut ends with the runtime, and writes its line.
                    drop(runtime);
                    worker::flush(&shared.hub);
                }
                Err(error) => drop(started.send(Err(error))),
            };
            threads.push(thread.spawn(life)?);
            outcome
                .recv()
                .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))?;
        }
        Ok(Self { shared, threads })
    }

    /// Takes no new connection; every connection ends after its request.
    pub fn close(&self) {
        self.shared.stop.cancel();
    }

    /// Tells every client that has a `WebSocket`, waits for the requests under way, at most five
    /// seconds, then cuts them.
    pub async fn stop(self) {
        self.close();
        self.shared.end.cancel();
        self.shared.tasks.close();
        let join = move || {
            for thread in self.threads {
                if thread.join().is_err() {
                    tracing::error!("a router thread panicked");
                }
            }
        };
        // The threads end as soon as their connections do. Not earlier: one that has not seen the
        // stop yet may be letting somebody in, while there is no connection at all.
        let mut join = tokio::task::spawn_blocking(join);
        let mut joined = tokio::time::timeout(LAST_REQUESTS, &mut join).await;
        if joined.is_err() {
            tracing::warn!("cutting {} connections", self.shared.tasks.len());
            self.shared.cut.cancel();
            joined = Ok(join.await);
        }
        // Who follows the supervisor ends, too.
        self.shared.cut.cancel();
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("waiting for the router's threads failed");
        }
    }
}

/// A thread's own runtime. Connections stay on their thread, so what they share there needs no
/// lock, and waking one is cheap.
fn runtime(hub: &Hub) -> io::Result<LocalRuntime> {
    let hub = hub.clone();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_park(move || worker::flush(&hub))
        .build_local(LocalOptions::default())
}

/// Keeps the table up to date with the supervisor's snapshots.
async fn follow(shared: Arc<Shared>, supervisor: Supervisor) {
    let mut snapshots = supervisor.watch();
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        let next = shared.table.load().build(&snapshot);
        shared.table.store(Arc::new(next));
        shared.news.notify_waiters();
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() { return },
            () = shared.cut.cancelled() => return,
        }
    }
}

/// Closes idle connections to dynos in time; keeps the counters' past and warns of long queues.
async fn sweep(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shared.cut.cancelled() => return,
        }
        let table = shared.table.load_full();
        for dyno in table.dynos() {
            dyno.pool.sweep();
        }
        for app in table.apps() {
            if let Some(recent) = app.traffic.tick(std::time::Instant::now()) {
                let line = access_log::queue_warning(&recent);
                shared.hub.platform(app.id, "router", line);
            }
        }
    }
}

/// One thread's life.
async fn serve(shared: Arc<Shared>, sockets: Vec<(std::net::TcpListener, Kind)>) {
    let own = TaskTracker::new();
    for (socket, kind) in sockets {
        match TcpListener::from_std(socket) {
            Ok(listener) => {
                own.spawn_local(accept(Arc::clone(&shared), listener, kind));
            }
            Err(error) => tracing::error!(%error, "a router thread cannot use its socket"),
        }
    }
    shared.stop.cancelled().await;
    worker::stop();
    own.close();
    own.wait().await;
    // Connections live on this thread: it goes last.
    shared.tasks.close();
    let parting = async {
        shared.end.cancelled().await;
        worker::part();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = shared.tasks.wait() => {}
        () = parting => {}
        () = shared.cut.cancelled() => {}
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, kind: Kind) {
    let port = listener.local_addr().map_or(0, |address| address.port());
    // How often it failed since it last went well.
    let mut failures = 0_u64;
    loop {
        let place = tokio::select! {
            place = place(&shared) => place,
            () = shared.stop.cancelled() => return,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                if failures > 0 {
                    tracing::warn!("connections are accepted again, after {failures} failures");
                    failures = 0;
                }
                let task = connection(Arc::clone(&shared), stream, (peer, port), kind, place);
                shared.tasks.spawn_local(task);
            }
            // Of one connection, which left meanwhile.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                if failures == 0 {
                    tracing::warn!(%error, "no connection is accepted: trying on");
                }
                failures += 1;
                // An idle one has a descriptor to spare.
                worker::make_room();
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A place for one more connection. When there is none, idle ones have to go.
async fn place(shared: &Shared) -> Result<OwnedSemaphorePermit, AcquireError> {
    let place = Arc::clone(&shared.connections).acquire_owned();
    tokio::pin!(place);
    loop {
        if shared.connections.available_permits() == 0 {
            worker::make_room();
        }
        tokio::select! {
            biased;
            place = &mut place => return place,
            // Another thread got the one that was made free, or this one had nothing idle.
            () = tokio::time::sleep(ACCEPT_PAUSE) => {}
        }
    }
}

async fn connection(
    shared: Arc<Shared>,
    mut stream: TcpStream,
    (mut peer, mut port): (SocketAddr, u16),
    kind: Kind,
    _place: Result<OwnedSemaphorePermit, AcquireError>,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "client gone before its first byte");
        return;
    }
    let trusted = &shared.proxies.trusted;
    let mut hearsay = Hearsay::of(peer.ip(), trusted);
    if shared.proxies.protocol && hearsay == Hearsay::Believed {
        // Boxed, as below.
        match Box::pin(introduction::read(&mut stream)).await {
            Ok(Some(ends)) => {
                (peer, port) = (ends.client, ends.port);
                // Behind it may stand another proxy that is trusted.
                hearsay = Hearsay::of(peer.ip(), trusted);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::debug!(%peer, %error, "no PROXY header");
                return;
            }
        }
    }
    let origin = Origin::plain(peer, port, hearsay);
    match kind {
        Kind::Plain => proxy::serve(shared, stream, origin).await,
        // Boxed: a plain connection must not carry the room that TLS and HTTP/2 need.
        Kind::Tls => Box::pin(tls::serve(shared, stream, origin)).await,
    }
}
