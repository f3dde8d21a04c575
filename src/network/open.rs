//! The network of all dynos: the table's guard, and a pool of ready namespaces.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::ended::Ended;
use super::guard::{self, Guard};
use super::link::{self, LinkPlan, Maker};
use super::rules::{self, LINKS, Opening, Table};
use super::{Block, NetworkError, Options, Slot, nft};

/// Namespaces kept ready: a new one costs most of a millisecond, taking one microseconds.
const POOL: usize = 8;

/// With more than so many left, new ones are made only in quiet times: making one takes the
/// processor and the kernel's network lock from the launch that took the last.
const LOW: usize = 4;

/// Quiet: no network was taken for so long.
const QUIET: Duration = Duration::from_millis(20);

/// Longest wait for the link of a slot's last holder to go, some time after its namespace, and how
/// often that is tried.
const LINK_END: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);

/// One dyno's network: its namespace and its slot, both let go of when dropped.
#[derive(Debug)]
pub struct DynoNetwork {
    /// The namespace.
    pub netns: Arc<OwnedFd>,
    /// Ids and addresses.
    pub slot: Slot,
}

/// Networks of all dynos of one supervisor.
#[derive(Debug)]
pub struct Network {
    table: Table,
    ready: tokio::sync::Mutex<mpsc::Receiver<Result<DynoNetwork, NetworkError>>>,
    /// When a network was last taken.
    taken: Arc<Mutex<Instant>>,
    openings: watch::Sender<Vec<Opening>>,
    notices: watch::Receiver<Vec<String>>,
    ended: Ended,
    guard: Mutex<Option<JoinHandle<()>>>,
    stop: CancellationToken,
}

impl Network {
    /// Loads the table, sets its guard and starts filling the pool. `instance` is eight hex
    /// digits; `living` are addresses of dynos that run already; `ready` is called for every
    /// network that waits in the pool.
    ///
    /// # Errors
    /// nft is missing or refuses.
    pub async fn open(
        instance: &str,
        block: &Block,
        options: Options,
        living: &std::collections::BTreeSet<std::net::Ipv4Addr>,
        ready: impl Fn(&DynoNetwork) + Send + Sync + 'static,
    ) -> Result<Self, NetworkError> {
        let links = links(instance);
        let table = Table {
            name: table_name(instance),
            links: links.clone(),
            block: block.index(),
            connections_max: Some(options.connections.unwrap_or_else(connections_default)),
            options,
        };
        let (openings, wanted) = watch::channel(Vec::new());
        let (tell, notices) = watch::channel(Vec::new());
        let guard = Guard::load(table.clone(), block.clone(), wanted, tell).await?;
        // What an earlier supervisor's dynos left, of whatever end; those that live on need theirs.
        let (own, living) = (block.clone(), living.clone());
        let is_left = move |address| own.holds(address) && !living.contains(&address);
        guard::forget(move |flow| is_left(flow.source) || is_left(flow.answers)).await;
        guard::forward();
        let (sender, pool) = mpsc::channel(POOL);
        let stop = CancellationToken::new();
        let own = block.clone();
        let taken = Arc::new(Mutex::new(Instant::now()));
        let last = Arc::clone(&taken);
        let ended = Ended::default();
        let spare = ended.clone();
        std::thread::Builder::new()
            .name("networks".to_owned())
            .spawn(move || fill(&sender, &last, &own, &spare, &links, ready))
            .map_err(|source| NetworkError::Namespace {
                act: "start a thread",
                slot: 0,
                source,
            })?;
        tokio::spawn(ended.clone().run(stop.clone()));
        let guard = tokio::spawn(guard.run(stop.clone()));
        Ok(Self {
            table,
            ready: tokio::sync::Mutex::new(pool),
            taken,
            openings,
            notices,
            ended,
            guard: Mutex::new(Some(guard)),
            stop,
        })
    }

    /// A fresh network, usually from the pool.
    ///
    /// # Errors
    /// No slot is free, or the kernel refused.
    pub async fn acquire(&self) -> Result<DynoNetwork, NetworkError> {
        let mut ready = self.ready.lock().await;
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        // Failures of some time ago may lie in the pool; the last is from now.
        for _ in 0..POOL {
            if let Some(Ok(network)) = ready.recv().await {
                return Ok(network);
            }
        }
        ready.recv().await.unwrap_or(Err(NetworkError::NoSlot))
    }

    /// Lets go of the network of a dyno of which no task is left, soon.
    pub fn release(&self, network: DynoNetwork) {
        self.ended.push(network);
    }

    /// Makes these the only holes in the wall, soon; flows through a hole that closes are cut.
    pub fn set_openings(&self, openings: Vec<Opening>) {
        self.openings.send_if_modified(|known| {
            let is_new = *known != openings;
            *known = openings;
            is_new
        });
    }

    /// The wall, in words.
    pub fn facts(&self) -> super::Facts {
        self.table.facts()
    }

    /// What the operator should know: tables of others that stand in the way.
    pub fn notices(&self) -> watch::Receiver<Vec<String>> {
        self.notices.clone()
    }

    /// Ends the pool and the guard and removes the table.
    ///
    /// # Errors
    /// nft refuses.
    pub async fn close(&self) -> Result<(), NetworkError> {
        self.stop.cancel();
        let mut ready = self.ready.lock().await;
        ready.close();
        while ready.recv().await.is_some() {}
        drop(ready);
        let guard = self
            .guard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(guard) = guard {
            // A guard that panicked restores nothing either.
            let _ = guard.await;
        }
        self.ended.flush();
        remove(&self.table.name).await
    }
}

async fn remove(table: &str) -> Result<(), NetworkError> {
    nft::apply("remove the firewall table", &rules::remove(table)).await
}

pub(super) fn table_name(instance: &str) -> String {
    format!("manifold_{instance}")
}

/// With four digits of a slot behind it, a link's name has 14 bytes; `IFNAMSIZ` has room for 15.
fn links(instance: &str) -> String {
    format!("{LINKS}{}", instance.get(..8).unwrap_or(instance))
}

/// A sixteenth of what the kernel tracks: no dyno can fill the table for the others.
fn connections_default() -> u32 {
    let text = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max");
    let most: u32 = text
        .ok()
        .and_then(|t| t.trim().parse().ok())
        .unwrap_or(65_536);
    (most / 16).clamp(1024, 16_384)
}

/// Fills the pool until it is closed. A thread of its own: it enters the namespaces it makes.
fn fill(
    pool: &mpsc::Sender<Result<DynoNetwork, NetworkError>>,
    taken: &Mutex<Instant>,
    block: &Block,
    ended: &Ended,
    links: &str,
    ready: impl Fn(&DynoNetwork),
) {
    let mtu = link::uplink_mtu();
    let maker = match Maker::open() {
        Ok(maker) => maker,
        Err(source) => {
            let act = "open our own namespace";
            let failed = NetworkError::Namespace {
                act,
                slot: 0,
                source,
            };
            // Without anybody to ask for one, nobody misses it.
            let _ = pool.blocking_send(Err(failed));
            return;
        }
    };
    loop {
        await_need(pool, taken);
        let made = one(&maker, block, ended, links, mtu);
        // With an empty pool in a burst, a launch waits for this one: there is no time ahead.
        let is_awaited = pool.capacity() == POOL && since(taken) < QUIET;
        if let Ok(network) = &made
            && !is_awaited
        {
            ready(network);
        }
        if pool.blocking_send(made).is_err() {
            return;
        }
    }
}

/// How long nobody has taken one.
fn since(taken: &Mutex<Instant>) -> Duration {
    let last = *taken.lock().unwrap_or_else(PoisonError::into_inner);
    last.elapsed()
}

/// Returns when the pool runs low, or after a quiet time.
fn await_need(pool: &mpsc::Sender<Result<DynoNetwork, NetworkError>>, taken: &Mutex<Instant>) {
    while POOL - pool.capacity() > LOW && !pool.is_closed() {
        let Some(left) = QUIET.checked_sub(since(taken)) else {
            return;
        };
        std::thread::park_timeout(left);
    }
}

fn one(
    maker: &Maker,
    block: &Block,
    ended: &Ended,
    links: &str,
    mtu: u32,
) -> Result<DynoNetwork, NetworkError> {
    let slot = slot(block, ended)?;
    let name = format!("{links}{:04x}", slot.number);
    let plan = LinkPlan {
        slot: slot.number,
        name,
        subnet: slot.subnet(),
        mtu,
    };
    let deadline = Instant::now() + LINK_END;
    let netns = loop {
        match maker.make(&plan) {
            Err(error) if error.is_taken() && Instant::now() < deadline => {
                std::thread::sleep(LOOK);
            }
            made => break made?,
        }
    };
    Ok(DynoNetwork {
        netns: Arc::new(netns),
        slot,
    })
}

/// A slot that nobody had, or whose last holder the kernel has forgotten. Used ones are cleaned
/// all at once, when no other is left: once in about a thousand launches.
fn slot(block: &Block, ended: &Ended) -> Result<Slot, NetworkError> {
    if let Ok(slot) = block.slot() {
        return Ok(slot);
    }
    ended.flush();
    let used = block.used();
    let addresses: std::collections::BTreeSet<_> = used
        .iter()
        .map(|number| block.subnet(*number).dyno)
        .collect();
    guard::forget_now(|flow| addresses.contains(&flow.source) || addresses.contains(&flow.answers));
    block.clean(&used);
    block.slot()
}
