//! Keeps the table what it should be: applies openings, and restores it when somebody else
//! flushed or changed it.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::events::Events;
use super::rules::{Opening, Table};
use super::{Block, NetworkError, conntrack, foreign, nft};

/// Without a word from the kernel the table is looked at this often, and so are other tables.
const LOOK: Duration = Duration::from_secs(30);

/// A table that could not be restored is tried again after this: our own attempts are news, too,
/// and must not drive us in a circle.
const RETRY: Duration = Duration::from_secs(1);

/// The one that writes the table.
pub(super) const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

pub(super) struct Guard {
    pub(super) table: Table,
    pub(super) block: Block,
    pub(super) openings: watch::Receiver<Vec<Opening>>,
    /// What the operator should know.
    pub(super) notices: watch::Sender<Vec<String>>,
    applied: Vec<Opening>,
    /// The table as nft printed it after our last change.
    seal: String,
    /// The last attempt to restore it failed.
    is_failing: bool,
}

impl Guard {
    /// Loads the table, without counting where the kernel cannot count.
    pub(super) async fn load(
        mut table: Table,
        block: Block,
        openings: watch::Receiver<Vec<Opening>>,
        notices: watch::Sender<Vec<String>>,
    ) -> Result<Self, NetworkError> {
        let act = "load the firewall table";
        if let Err(error) = nft::apply(act, &table.text(&[])).await {
            if table.connections_max.take().is_none() {
                return Err(error);
            }
            nft::apply(act, &table.text(&[])).await?;
            tracing::warn!(%error, "this kernel does not count connections (nft_connlimit): one dyno can fill its table of tracked connections");
        }
        let seal = nft::list(&table.name).await?;
        Ok(Self {
            table,
            block,
            openings,
            notices,
            applied: Vec::new(),
            seal,
            is_failing: false,
        })
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        let events = Events::open(&self.table.name);
        if let Err(error) = &events {
            tracing::warn!(%error, "no news of firewall changes: the table is only looked at every 30 s");
        }
        let events = events.ok();
        let changed = async |events: &Option<Events>| match events {
            Some(events) => events.changed().await,
            None => std::future::pending().await,
        };
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                open = self.openings.changed() => {
                    if open.is_err() {
                        return;
                    }
                    self.apply().await;
                }
                () = tokio::time::sleep(RETRY), if self.is_failing => self.check().await,
                news = changed(&events), if !self.is_failing => {
                    if let Err(error) = news {
                        tracing::warn!(%error, "lost news of firewall changes");
                    }
                    // Of our own changes, too: news are never skipped, lest one of somebody else
                    // be among them.
                    self.check().await;
                }
                _ = look.tick() => {
                    self.check().await;
                    forward();
                    self.look_around().await;
                }
            }
        }
    }

    /// Brings the table to the latest openings.
    async fn apply(&mut self) {
        let wanted = self.openings.borrow_and_update().clone();
        let addresses = |openings: &[Opening]| -> BTreeSet<Ipv4Addr> {
            openings.iter().flat_map(Opening::from).copied().collect()
        };
        let (old, new) = (addresses(&self.applied), addresses(&wanted));
        // No address that a rule names goes to another dyno.
        self.block.pin(old.union(&new).copied().collect());
        if let Err(error) = self.write(&self.table.openings(&wanted), &wanted).await {
            tracing::warn!(%error, "the firewall table is loaded anew");
            self.restore(&wanted).await;
        }
    }

    async fn write(&mut self, text: &str, wanted: &[Opening]) -> Result<(), NetworkError> {
        nft::apply("change the firewall table", text).await?;
        self.seal = nft::list(&self.table.name).await?;
        let before = std::mem::replace(&mut self.applied, wanted.to_vec());
        let closed: BTreeSet<_> = pairs(&before).difference(&pairs(wanted)).copied().collect();
        self.block
            .pin(wanted.iter().flat_map(Opening::from).copied().collect());
        if !closed.is_empty() {
            forget(move |flow| closed.contains(&(flow.source, flow.destination))).await;
        }
        Ok(())
    }

    /// Restores the table if it is not as we left it.
    async fn check(&mut self) {
        match nft::list(&self.table.name).await {
            Ok(text) if text == self.seal => self.is_failing = false,
            _ => {
                tracing::warn!(table = %self.table.name, "somebody changed or flushed our firewall table; it is restored");
                let wanted = self.openings.borrow().clone();
                self.restore(&wanted).await;
            }
        }
    }

    async fn restore(&mut self, wanted: &[Opening]) {
        let text = self.table.text(wanted);
        let written = self.write(&text, wanted).await;
        self.is_failing = written.is_err();
        if let Err(error) = written {
            tracing::error!(%error, "the firewall table is NOT in place: dynos may reach what they should not; trying again every second");
        }
    }

    /// Tells once about tables of others that stand in the way.
    async fn look_around(&self) {
        match foreign::blockers(&self.table.name).await {
            Ok(found) => {
                self.notices.send_if_modified(|known| {
                    for notice in found.iter().filter(|n| !known.contains(n)) {
                        tracing::warn!("{notice}");
                    }
                    let is_new = *known != found;
                    *known = found;
                    is_new
                });
            }
            Err(error) => tracing::debug!(%error, "other tables not looked at"),
        }
    }
}

fn pairs(openings: &[Opening]) -> BTreeSet<(Ipv4Addr, Ipv4Addr)> {
    let of = |opening: &Opening| {
        let at = opening.at();
        let from: Vec<_> = opening.from().iter().map(move |from| (*from, at)).collect();
        from
    };
    openings.iter().flat_map(of).collect()
}

/// Forgets tracked flows, beside the runtime.
pub(super) async fn forget(doomed: impl Fn(&conntrack::Flow) -> bool + Send + 'static) {
    if let Err(panic) = tokio::task::spawn_blocking(move || forget_now(doomed)).await {
        tracing::error!(%panic, "tracked connections are not forgotten");
    }
}

/// Forgets tracked flows; a kernel that cannot is told about once.
pub(super) fn forget_now(doomed: impl Fn(&conntrack::Flow) -> bool) {
    static TOLD: std::sync::Once = std::sync::Once::new();
    if let Err(error) = conntrack::forget(doomed) {
        TOLD.call_once(|| {
            tracing::warn!(%error, "tracked connections are not forgotten (nf_conntrack_netlink): late answers to a dyno that ended may reach the next one with its address");
        });
    }
}

/// Routing between the links and the uplink must be on.
pub(super) fn forward() {
    if is_forwarding() {
        return;
    }
    match std::fs::write(FORWARDING, "1") {
        Ok(()) => tracing::info!("turned on {FORWARDING}, for the dynos' outbound traffic"),
        Err(error) => {
            tracing::warn!("dynos have no outbound network: cannot write {FORWARDING}: {error}");
        }
    }
}

/// True if this host forwards packets.
pub fn is_forwarding() -> bool {
    std::fs::read_to_string(FORWARDING).is_ok_and(|v| v.trim() == "1")
}
