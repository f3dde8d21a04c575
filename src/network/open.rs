//! The table, and a pool of ready namespaces.

use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::link::{self, LinkPlan};
use super::{Block, NetworkError, Slot, rules};

/// Namespaces kept ready: a new one costs most of a millisecond, taking one microseconds.
const POOL: usize = 4;

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
    stop: CancellationToken,
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
        let stop = CancellationToken::new();
        tokio::spawn(fill(sender, block.clone(), links, stop.clone(), ready));
        Ok(Self {
            table,
            ready: tokio::sync::Mutex::new(pool),
            stop,
        })
    }

    /// A fresh network, usually from the pool.
    ///
    /// # Errors
    /// No slot is free, or the kernel refused.
    pub async fn acquire(&self) -> Result<DynoNetwork, NetworkError> {
        let next = self.ready.lock().await.recv().await;
        next.unwrap_or(Err(NetworkError::NoSlot))
    }

    /// Ends the pool and removes the table.
    ///
    /// # Errors
    /// nft refuses.
    pub async fn close(&self) -> Result<(), NetworkError> {
        self.stop.cancel();
        let mut ready = self.ready.lock().await;
        ready.close();
        while ready.recv().await.is_some() {}
        drop(ready);
        nft("remove the firewall table", &rules::no_table(&self.table)).await
    }
}

async fn fill(
    sender: mpsc::Sender<Result<DynoNetwork, NetworkError>>,
    block: Block,
    links: String,
    stop: CancellationToken,
    ready: impl Fn(&Slot),
) {
    let mtu = link::uplink_mtu();
    loop {
        let place = tokio::select! {
            () = stop.cancelled() => return,
            place = sender.reserve() => place,
        };
        let Ok(place) = place else { return };
        let made = one(&block, &links, mtu).await;
        if let Ok(network) = &made {
            ready(&network.slot);
        }
        place.send(made);
    }
}

async fn one(block: &Block, links: &str, mtu: u32) -> Result<DynoNetwork, NetworkError> {
    let slot = block.slot()?;
    let name = format!("{links}{:04x}", slot.number);
    let plan = LinkPlan {
        slot: slot.number,
        name,
        subnet: slot.subnet(),
        mtu,
    };
    let netns = link::make(plan).await?;
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
