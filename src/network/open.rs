//! The table, and a pool of ready namespaces.

use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

use super::link::{self, LinkPlan, Maker};
use super::{Block, NetworkError, Slot, rules};

/// Namespaces kept ready: a new one costs most of a millisecond, taking one microseconds.
const POOL: usize = 8;

/// Longest wait for the nft program.
const NFT_DEADLINE: Duration = Duration::from_secs(30);

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
    table: String,
    ready: tokio::sync::Mutex<mpsc::Receiver<Result<DynoNetwork, NetworkError>>>,
}

impl Network {
    /// Loads the table and starts filling the pool. `instance` is eight hex digits; `ready` is
    /// called for every network that joins the pool.
    ///
    /// # Errors
    /// nft is missing or refuses.
    pub async fn open(
        instance: &str,
        block: &Block,
        ready: impl Fn(&Slot) + Send + Sync + 'static,
    ) -> Result<Self, NetworkError> {
        let table = format!("manifold_{instance}");
        let links = format!("mf{}", instance.get(..4).unwrap_or(instance));
        let subnet = format!("172.{}.0.0/16", 16 + block.index());
        nft(
            "load the firewall table",
            &rules::table(&table, &links, &subnet),
        )
        .await?;
        forward();
        let (sender, pool) = mpsc::channel(POOL);
        let block = block.clone();
        std::thread::Builder::new()
            .name("networks".to_owned())
            .spawn(move || fill(&sender, &block, &links, ready))
            .map_err(|source| NetworkError::Namespace {
                act: "start a thread",
                slot: 0,
                source,
            })?;
        Ok(Self {
            table,
            ready: tokio::sync::Mutex::new(pool),
        })
    }

    /// A fresh network, usually from the pool.
    ///
    /// # Errors
    /// No slot is free, or the kernel refused.
    pub async fn acquire(&self) -> Result<DynoNetwork, NetworkError> {
        let mut ready = self.ready.lock().await;
        // Failures of some time ago may lie in the pool; the last is from now.
        for _ in 0..POOL {
            if let Some(Ok(network)) = ready.recv().await {
                return Ok(network);
            }
        }
        ready.recv().await.unwrap_or(Err(NetworkError::NoSlot))
    }

    /// Ends the pool and removes the table.
    ///
    /// # Errors
    /// nft refuses.
    pub async fn close(&self) -> Result<(), NetworkError> {
        let mut ready = self.ready.lock().await;
        ready.close();
        while ready.recv().await.is_some() {}
        drop(ready);
        nft("remove the firewall table", &rules::no_table(&self.table)).await
    }
}

/// Fills the pool until it is closed. A thread of its own: it enters the namespaces it makes.
fn fill(
    pool: &mpsc::Sender<Result<DynoNetwork, NetworkError>>,
    block: &Block,
    links: &str,
    ready: impl Fn(&Slot),
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
        let made = one(&maker, block, links, mtu);
        if let Ok(network) = &made {
            ready(&network.slot);
        }
        if pool.blocking_send(made).is_err() {
            return;
        }
    }
}

fn one(maker: &Maker, block: &Block, links: &str, mtu: u32) -> Result<DynoNetwork, NetworkError> {
    let slot = block.slot()?;
    let name = format!("{links}{:04x}", slot.number);
    let plan = LinkPlan {
        slot: slot.number,
        name,
        subnet: slot.subnet(),
        mtu,
    };
    let netns = maker.make(&plan)?;
    Ok(DynoNetwork {
        netns: Arc::new(netns),
        slot,
    })
}

/// Routing between the links and the uplink must be on.
fn forward() {
    const FILE: &str = "/proc/sys/net/ipv4/ip_forward";
    if std::fs::read_to_string(FILE).is_ok_and(|v| v.trim() == "1") {
        return;
    }
    match std::fs::write(FILE, "1") {
        Ok(()) => tracing::info!("turned on {FILE}, for the dynos' outbound traffic"),
        Err(error) => {
            tracing::warn!("dynos have no outbound network: cannot write {FILE}: {error}");
        }
    }
}

async fn nft(act: &'static str, text: &str) -> Result<(), NetworkError> {
    let failed = |reason: String| NetworkError::Rules { act, reason };
    crate::sys::fault(act).map_err(|error| failed(error.to_string()))?;
    let mut child = tokio::process::Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| {
            failed(format!(
                "nft does not start ({e}); install the package nftables"
            ))
        })?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin
            .write_all(text.as_bytes())
            .await
            .map_err(|e| failed(e.to_string()))?;
    }
    match tokio::time::timeout(NFT_DEADLINE, child.wait_with_output()).await {
        Err(_) => Err(failed("nft did not answer within 30 s".to_owned())),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => Err(failed(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        )),
    }
}
