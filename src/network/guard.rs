//! Keeps the table what it should be: applies openings, and restores it when somebody else
//! flushed or changed it.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::events::Events;
use super::rules::{Opening, PRIVATE, SILENT, Table};
use super::{Block, NetworkError, conntrack, foreign, nft};
use crate::model::Net;

/// Without a word from the kernel the table is looked at this often, and so are other tables.
const LOOK: Duration = Duration::from_secs(30);

/// A table that could not be restored is tried again after this: our own attempts are news, too,
/// and must not drive us in a circle.
const RETRY: Duration = Duration::from_secs(1);

/// So many times in a row the table is written anew because others changed it meanwhile.
const ATTEMPTS: usize = 5;

/// What is being done when the kernel refuses the table.
const LOAD: &str = "load the firewall table";

/// What turns on routing.
pub(super) const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

pub(super) struct Guard {
    pub(super) table: Table,
    pub(super) block: Block,
    pub(super) openings: watch::Receiver<Vec<Opening>>,
    /// What the operator should know.
    pub(super) notices: watch::Sender<Vec<String>>,
    applied: Vec<Opening>,
    /// News of changes; without them the table is looked at every 30 s only.
    events: Option<Events>,
    /// The table as nft printed it after our last change, which nobody else had a hand in.
    seal: String,
    /// The last attempt to restore it failed.
    is_failing: bool,
}

impl Guard {
    /// Loads the table, without counting where the kernel cannot count.
    pub(super) async fn load(
        table: Table,
        block: Block,
        openings: watch::Receiver<Vec<Opening>>,
        notices: watch::Sender<Vec<String>>,
    ) -> Result<Self, NetworkError> {
        let events = Events::open(&table.name)
            .inspect_err(|error| tracing::warn!(%error, "no news of firewall changes: the table is only looked at every 30 s"))
            .ok();
        let mut guard = Self {
            table,
            block,
            openings,
            notices,
            applied: Vec::new(),
            events,
            seal: String::new(),
            is_failing: false,
        };
        if let Err(error) = guard.write(None, &[]).await {
            let is_refused = matches!(error, NetworkError::Rules { act: LOAD, .. });
            if !is_refused || guard.table.connections_max.take().is_none() {
                return Err(error);
            }
            guard.write(None, &[]).await?;
            tracing::warn!(%error, "this kernel does not count connections (nft_connlimit): one dyno can fill its table of tracked connections");
        }
        Ok(guard)
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        let changed = async |events: &mut Option<Events>| match events {
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
                news = changed(&mut self.events), if !self.is_failing => {
                    if let Err(error) = news {
                        tracing::warn!(%error, "lost news of firewall changes");
                    }
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
        let text = self.table.openings(&wanted);
        if let Err(error) = self.write(Some(text), &wanted).await {
            tracing::warn!(%error, "the firewall table is loaded anew");
            self.restore(&wanted).await;
        }
    }

    /// Applies a change (`None`: the whole table), and the whole table whenever somebody else
    /// changed it since the kernel's last word to us: nothing of theirs gets under our seal.
    async fn write(
        &mut self,
        mut change: Option<String>,
        wanted: &[Opening],
    ) -> Result<(), NetworkError> {
        let mut is_untouched = self.committed(0);
        for _ in 0..ATTEMPTS {
            if !is_untouched && change.take().is_some() {
                self.warn();
            }
            let (act, text) = match &change {
                Some(text) => ("change the firewall table", text.clone()),
                None => (LOAD, self.table.text(wanted)),
            };
            nft::apply(act, &text).await?;
            let seal = nft::list(&self.table.name).await?;
            is_untouched = self.committed(1);
            if is_untouched {
                self.seal = seal;
                self.written(wanted, change.is_none()).await;
                return Ok(());
            }
        }
        Err(NetworkError::Rules {
            act: "keep the firewall table",
            reason: format!("somebody changed it during each of {ATTEMPTS} attempts"),
        })
    }

    /// True if so many transactions concerned our table since the last look.
    fn committed(&mut self, count: usize) -> bool {
        match &mut self.events {
            Some(events) => events.commits().is_ok_and(|seen| seen == count),
            None => true,
        }
    }

    /// The table is in place, loaded anew or changed: addresses and flows follow it.
    async fn written(&mut self, wanted: &[Opening], is_new: bool) {
        let before = std::mem::replace(&mut self.applied, wanted.to_vec());
        let closed: BTreeSet<_> = pairs(&before).difference(&pairs(wanted)).copied().collect();
        self.block
            .pin(wanted.iter().flat_map(Opening::from).copied().collect());
        if is_new {
            forget(self.unwanted(wanted)).await;
        } else if !closed.is_empty() {
            forget(move |flow| closed.contains(&(flow.source, flow.destination))).await;
        }
    }

    /// Flows that the table would not let begin, and would let go on: somebody else's let them.
    fn unwanted(&self, wanted: &[Opening]) -> impl Fn(&conntrack::Flow) -> bool + Send + 'static {
        let nets = SILENT.iter().chain(PRIVATE);
        let closed: Vec<Net> = nets.filter_map(|net| net.parse().ok()).collect();
        let options = self.table.options.clone();
        let (open, block) = (pairs(wanted), self.block.clone());
        move |flow| {
            let to = flow.destination;
            let is_open = open.contains(&(flow.source, to))
                || options.resolvers.contains(&to)
                || options.allow.iter().any(|net| net.contains(to));
            block.holds(flow.source) && !is_open && closed.iter().any(|net| net.contains(to))
        }
    }

    /// Restores the table if it is not as we left it.
    async fn check(&mut self) {
        match nft::list(&self.table.name).await {
            Ok(text) if text == self.seal => self.is_failing = false,
            _ => {
                self.warn();
                let wanted = self.openings.borrow().clone();
                self.restore(&wanted).await;
            }
        }
    }

    fn warn(&self) {
        tracing::warn!(table = %self.table.name, "somebody changed or flushed our firewall table; it is restored");
    }

    async fn restore(&mut self, wanted: &[Opening]) {
        let written = self.write(None, wanted).await;
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
