//! Dynos of the supervisor before: they take the places that they had.
//!
//! A dyno is taken in when its app's state is first applied. The best of a name (alive before ended,
//! up before starting, younger before older) has the place; others of that name leave. From there on
//! the ordinary reconciliation decides: places that are not wanted any more, that lack a dyno, or
//! whose dyno runs another release. Who ended while no supervisor ran is logged with its status and
//! started again as after any crash. Absent on purpose: the crash back-off before, which starts over.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::driver::{Alarm, Driver, Place};
use super::dyno::Dyno;
use super::heritage::Adopted;
use super::lifecycle::{Effect, Kind, Life, Phase, Stop, Timer};
use super::{Exited, Supervisor};
use crate::keeper::Mark;
use crate::logs::{Hub, pump};
use crate::model::{AppId, DynoId, DynoName, DynoState, ReleaseId};

impl Supervisor {
    /// Every stored app was applied: what is left of the supervisor before belongs to none, and
    /// leaves.
    pub async fn settle(&self) {
        // A driver that is gone has none.
        let _ = self.commands.send(super::command::Command::Settle).await;
    }

    /// Lets go of every dyno without stopping it, for the next supervisor; nothing is launched or
    /// logged any more when this returns.
    pub async fn leave(&self) {
        let (done, wait) = tokio::sync::oneshot::channel();
        let sent = self
            .commands
            .send(super::command::Command::Leave(done))
            .await;
        if sent.is_ok() {
            // An error means the driver ended already: what was asked for.
            let _ = wait.await;
        }
    }
}

impl Driver {
    /// Takes in the dynos of an app that is new to us; returns the places they have.
    pub(super) fn take_in(&mut self, app: AppId) -> BTreeMap<DynoName, Place> {
        let mut places: BTreeMap<DynoName, Place> = BTreeMap::new();
        let mut best: BTreeMap<DynoName, ((bool, bool, jiff::Timestamp), DynoId)> = BTreeMap::new();
        let (own, others) = std::mem::take(&mut self.adopted)
            .into_iter()
            .partition(|adopted| adopted.record.app == app);
        self.adopted = others;
        let (mut ended, mut leaving) = (Vec::new(), Vec::new());
        for adopted in own {
            let (id, record) = (adopted.id, &adopted.record);
            let rank = (
                adopted.ended.is_none(),
                adopted.mark == Mark::Up,
                record.created,
            );
            if !record.is_one_off && adopted.mark != Mark::Leaving {
                let known = best.entry(record.name.clone()).or_insert((rank, id));
                if rank > known.0 {
                    *known = (rank, id);
                }
            }
            leaving.push((id, adopted.mark, rank.0 && !record.is_one_off));
            ended.extend(adopted.ended.map(|status| (id, status)));
            self.adopt(adopted);
        }
        for (name, (_, id)) in &best {
            places.entry(name.clone()).or_default().dyno = Some(*id);
        }
        for (id, mark, needs_place) in leaving {
            let is_placed = best.values().any(|(_, placed)| *placed == id);
            if mark == Mark::Leaving || (needs_place && !is_placed) {
                self.retire(id, Stop::Replaced);
            }
        }
        for (id, status) in ended {
            let at = std::time::Instant::now();
            self.exited(Exited { id, status, at });
        }
        places
    }

    /// One dyno, as if it had been ours from the start.
    fn adopt(&mut self, adopted: Adopted) {
        let id = adopted.id;
        let record = adopted.record;
        let kind = match (record.is_one_off, record.name.process.is_web()) {
            (true, _) => Kind::OneOff,
            (false, true) => Kind::Web,
            (false, false) => Kind::Worker,
        };
        let is_up = kind != Kind::Web || adopted.mark == Mark::Up;
        let rest = record
            .time_to_live
            .map(|all| all.saturating_sub(record.age()));
        let mut life = Life::new(kind, false);
        (life.phase, life.state) = if is_up {
            (Phase::Up, DynoState::Up)
        } else {
            (Phase::Booting, DynoState::Starting)
        };
        let mut dyno = Dyno::adopted(id, record, life, self.timings.stop_grace);
        dyno.backend = adopted.backend;
        dyno.pump(&self.hub, adopted.output, &self.reading);
        self.touch(dyno.app);
        self.dynos.insert(id, dyno);
        if let Some(rest) = rest {
            self.arm(rest, Alarm::TimeToLive(id));
        }
        if !is_up && adopted.ended.is_none() {
            self.carry_out(id, Effect::Probe);
            let deadline = Effect::Arm(Timer::Boot, self.timings.boot_timeout);
            self.carry_out(id, deadline);
        }
    }

    /// Places whose dyno runs another release than the app's.
    pub(super) fn misfits(&self, app: AppId, release: Option<ReleaseId>) -> Vec<DynoName> {
        let places = self.apps.get(&app).into_iter().flat_map(|app| &app.places);
        places
            .filter(|(_, place)| {
                let dyno = place.dyno.and_then(|dyno| self.dynos.get(&dyno));
                dyno.is_some_and(|dyno| Some(dyno.release.0) != release)
            })
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// What no app took in ends.
    pub(super) fn settle_adopted(&mut self) {
        let apps: Vec<AppId> = self.adopted.iter().map(|dyno| dyno.record.app).collect();
        for app in apps {
            let places = self.take_in(app);
            for id in places.into_values().filter_map(|place| place.dyno) {
                self.retire(id, Stop::Down);
            }
            let others: Vec<DynoId> = self
                .dynos
                .values()
                .filter(|dyno| dyno.app == app && dyno.life.kind == Kind::OneOff)
                .map(|dyno| dyno.id)
                .collect();
            for id in others {
                self.retire(id, Stop::Plain);
            }
        }
    }

    /// Stops reading every output where a line ends; the rest is the next supervisor's.
    pub(super) async fn stop_pumps(&mut self) {
        self.reading.cancel();
        let pumps = self.dynos.values_mut().filter_map(|dyno| dyno.pump.take());
        let mut pumps: Vec<_> = pumps.collect();
        let all = futures_util::future::join_all(&mut pumps);
        if tokio::time::timeout(LAST_LINE, all).await.is_err() {
            tracing::warn!("a line of an app may be torn: its output did not pause");
            for pump in pumps {
                pump.abort();
            }
        }
    }
}

/// Past it an unfinished line is cut.
const LAST_LINE: Duration = Duration::from_secs(2);

impl Dyno {
    /// Starts reading its output into the log.
    pub(super) fn pump(&mut self, hub: &Hub, output: OwnedFd, reading: &CancellationToken) {
        let (hub, name, end) = (hub.clone(), self.name.to_string(), reading.clone());
        self.pump = Some(tokio::spawn(pump(hub, self.app, name, output, end)));
    }
}
