//! Rolls without a gap: new web dynos start while the old ones serve, then take over in one step.
//!
//! All that fit into memory start at once; the rest follows when the old ones are gone. When not
//! even one fits beside the old one, places are replaced one by one, the old dyno first. A new
//! dyno that does not come up ends the roll: the old ones go on, and places that were replaced
//! before go back. Source: Dev Center, "Preboot".

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::AppSpec;
use super::Part;
use super::backoff::Backoff;
use super::driver::{Alarm, Driver};
use super::formation::wanted;
use super::lifecycle::{Phase, Stop};
use crate::model::{AppId, DynoId, DynoName, DynoState, Feature, ReleaseId, ReleaseVersion};

/// Memory that stays free beside new dynos, in bytes: for the host and the old dynos' growth.
const RESERVE: u64 = 64 << 20;

/// A roll under way.
pub(super) struct Roll {
    target: Arc<AppSpec>,
    todo: VecDeque<DynoName>,
    pub(super) batch: BTreeMap<DynoName, Successor>,
    /// Old dynos of earlier batches that still hold their memory.
    leaving: BTreeSet<DynoId>,
    pub(super) done: Vec<DynoName>,
    /// It takes back another that failed.
    is_return: bool,
    /// See [`super::trial`].
    pub(super) is_trial: bool,
    /// The canary is watched.
    pub(super) is_waiting: bool,
}

/// A new dyno of a roll.
pub(super) struct Successor {
    dyno: DynoId,
    is_up: bool,
    /// It has the place already: the old one had to go first.
    pub(super) is_placed: bool,
}

impl Roll {
    fn new(target: Arc<AppSpec>, names: impl IntoIterator<Item = DynoName>) -> Self {
        Self {
            target,
            todo: names.into_iter().collect(),
            batch: BTreeMap::new(),
            leaving: BTreeSet::new(),
            done: Vec::new(),
            is_return: false,
            is_trial: false,
            is_waiting: false,
        }
    }

    /// One dyno first, and all or nothing.
    pub(super) fn trial(target: Arc<AppSpec>, names: Vec<DynoName>) -> Self {
        Self {
            is_trial: true,
            ..Self::new(target, names)
        }
    }

    /// The way back of one that failed.
    pub(super) fn back(target: Arc<AppSpec>, names: Vec<DynoName>) -> Self {
        Self {
            is_return: true,
            ..Self::new(target, names)
        }
    }

    /// The release that it brings.
    pub(super) fn release(&self) -> Option<ReleaseId> {
        self.target.release_id()
    }

    /// True if this place's old dyno has to go before the new one starts, whatever the memory.
    fn is_swap(&self, name: &DynoName) -> bool {
        let has_preboot = self.target.features.contains(&Feature::Preboot);
        self.is_trial && !(name.process.is_web() && has_preboot)
    }

    /// What the app becomes.
    pub(super) fn target(&self) -> &AppSpec {
        &self.target
    }

    /// The same dynos, with another spec around them.
    pub(super) fn aim(&mut self, target: Arc<AppSpec>) {
        self.target = target;
    }

    fn version(&self) -> Option<ReleaseVersion> {
        self.target.release.as_ref().map(|release| release.version)
    }
}

impl Driver {
    /// True if web dynos of the app serve now, may serve on, and are to be preboot's.
    pub(super) fn serves(&self, id: AppId, target: &AppSpec) -> bool {
        target.features.contains(&Feature::Preboot)
            && self.apps.get(&id).is_some_and(|app| {
                let want = wanted(target);
                app.places.iter().any(|(name, place)| {
                    let dyno = place.dyno.and_then(|dyno| self.dynos.get(&dyno));
                    name.process.is_web()
                        && want.contains_key(name)
                        && dyno.is_some_and(|dyno| dyno.life.phase == Phase::Up)
                })
            })
    }

    /// Web places that a spec keeps.
    pub(super) fn web_places(&self, id: AppId, target: &AppSpec) -> Vec<DynoName> {
        let want = wanted(target);
        let places = self.apps.get(&id).into_iter().flat_map(|a| a.places.keys());
        let kept = |name: &&DynoName| name.process.is_web() && want.contains_key(*name);
        places.filter(kept).cloned().collect()
    }

    /// True while a successor for this place starts.
    pub(super) fn is_rolling(&self, id: AppId, name: &DynoName) -> bool {
        let roll = self.apps.get(&id).and_then(|app| app.roll.as_ref());
        roll.is_some_and(|roll| roll.batch.contains_key(name))
    }

    /// Starts to replace web places. A roll to the same spec takes those in that it has not got.
    pub(super) fn begin_roll(&mut self, id: AppId, names: Vec<DynoName>, target: Arc<AppSpec>) {
        for name in &names {
            self.hub.platform(id, &name.to_string(), "Restarting");
        }
        let of = |spec: &AppSpec| (spec.release_id(), wanted(spec));
        let Some(app) = self.apps.get_mut(&id) else {
            return;
        };
        match &mut app.roll {
            Some(roll) if of(&roll.target) == of(&target) => {
                for name in names {
                    if !roll.batch.contains_key(&name) && !roll.todo.contains(&name) {
                        roll.todo.push_back(name);
                    }
                }
                return;
            }
            Some(_) => self.cancel_roll(id),
            None => {}
        }
        if let Some(app) = self.apps.get_mut(&id) {
            app.roll = Some(Roll::new(target, names));
            self.next_batch(id);
        }
    }

    /// Launches as many successors as there is room for; without any left to launch, finishes.
    pub(super) fn next_batch(&mut self, id: AppId) {
        let available = self.machine.memory_available_bytes();
        let Some(roll) = self.apps.get_mut(&id).and_then(|app| app.roll.as_mut()) else {
            return;
        };
        if roll.is_waiting {
            return;
        }
        let target = Arc::clone(&roll.target);
        let want = wanted(&target);
        let is_canary = roll.is_trial && roll.done.is_empty();
        let mut room = available.saturating_sub(RESERVE);
        let mut names = Vec::new();
        while let Some(name) = roll.todo.front() {
            let size = want.get(name).map_or(0, |size| size.memory_bytes);
            if size > room || roll.is_swap(name) || (is_canary && !names.is_empty()) {
                break;
            }
            room -= size;
            names.extend(roll.todo.pop_front());
        }
        if names.is_empty() {
            match roll.todo.pop_front() {
                Some(name) => self.replace_first(id, &target, name),
                None => self.finish_roll(id),
            }
            return;
        }
        for name in names {
            let Some(dyno) = self.start(&target, &name, Part::Successor) else {
                continue;
            };
            self.mark(id, &name, Part::Predecessor);
            self.join_batch(id, name, dyno, false);
        }
    }

    /// No room for two: the old dyno goes, and the new one starts in its place.
    fn replace_first(&mut self, id: AppId, target: &Arc<AppSpec>, name: DynoName) {
        let roll = self.apps.get(&id).and_then(|app| app.roll.as_ref());
        if !roll.is_some_and(|roll| roll.is_swap(&name)) {
            let line = format!("No memory to start {name} beside the old one: stopping that first");
            self.hub.api(id, line);
        }
        let Some(app) = self.apps.get_mut(&id) else {
            return;
        };
        let old = app.places.get_mut(&name).and_then(|p| p.dyno.take());
        if let Some(old) = old {
            self.retire(old, Stop::Replaced);
        }
        let Some(dyno) = self.start(target, &name, Part::Server) else {
            return;
        };
        if let Some(app) = self.apps.get_mut(&id) {
            app.places.entry(name.clone()).or_default().dyno = Some(dyno);
        }
        self.join_batch(id, name, dyno, true);
    }

    fn join_batch(&mut self, id: AppId, name: DynoName, dyno: DynoId, is_placed: bool) {
        if let Some(roll) = self.apps.get_mut(&id).and_then(|app| app.roll.as_mut()) {
            let successor = Successor {
                dyno,
                is_up: false,
                is_placed,
            };
            roll.batch.insert(name, successor);
        }
    }

    /// Sets the part of whoever has a place.
    fn mark(&mut self, id: AppId, name: &DynoName, part: Part) {
        let place = self.apps.get(&id).and_then(|app| app.places.get(name));
        let dyno = place.and_then(|place| place.dyno);
        if let Some(dyno) = dyno.and_then(|dyno| self.dynos.get_mut(&dyno)) {
            dyno.part = part;
            self.touch(id);
        }
    }

    /// A dyno bound its port: if all of its batch have, they take over.
    pub(super) fn successor_up(&mut self, dyno: DynoId) {
        let Some((id, name)) = self.dynos.get(&dyno).map(|d| (d.app, d.name.clone())) else {
            return;
        };
        let is_up = self.dynos.get(&dyno).map(|d| d.life.phase) == Some(Phase::Up);
        let Some(roll) = self.apps.get_mut(&id).and_then(|app| app.roll.as_mut()) else {
            return;
        };
        if let Some(successor) = roll.batch.get_mut(&name).filter(|s| s.dyno == dyno) {
            successor.is_up = is_up;
            if roll.batch.values().all(|successor| successor.is_up) {
                self.switch(id);
            }
        }
    }

    /// The batch takes over, in one snapshot; then the old dynos drain.
    fn switch(&mut self, id: AppId) {
        let Some(app) = self.apps.get_mut(&id) else {
            return;
        };
        let Some(roll) = &mut app.roll else {
            return;
        };
        let mut old = Vec::new();
        for (name, successor) in std::mem::take(&mut roll.batch) {
            if !successor.is_placed {
                let place = app.places.entry(name.clone()).or_default();
                old.extend(place.dyno.replace(successor.dyno));
                place.backoff = Backoff::default();
                if let Some(dyno) = self.dynos.get_mut(&successor.dyno) {
                    dyno.part = Part::Server;
                }
            }
            roll.done.push(name);
        }
        for dyno in &old {
            self.retire(*dyno, Stop::Replaced);
        }
        self.touch(id);
        let Some(roll) = self.apps.get_mut(&id).and_then(|app| app.roll.as_mut()) else {
            return;
        };
        let holds = |dyno: &DynoId| self.dynos.contains_key(dyno);
        roll.leaving.extend(old.into_iter().filter(holds));
        if roll.is_trial && roll.done.len() == 1 {
            // The canary serves now: that is what the others wait for.
            roll.is_waiting = true;
            if let Some(release) = roll.release() {
                self.arm(super::trial::STEADY, Alarm::Canary(id, release));
            }
            return;
        }
        // The rest needs the memory of those that leave.
        if roll.todo.is_empty() || roll.leaving.is_empty() {
            self.next_batch(id);
        }
    }

    /// An old dyno is gone, with its memory.
    pub(super) fn predecessor_gone(&mut self, id: AppId, dyno: DynoId) {
        let Some(roll) = self.apps.get_mut(&id).and_then(|app| app.roll.as_mut()) else {
            return;
        };
        if roll.leaving.remove(&dyno) && roll.leaving.is_empty() && roll.batch.is_empty() {
            self.next_batch(id);
        }
    }

    /// Every web place has its new dyno: the rest of the spec follows.
    fn finish_roll(&mut self, id: AppId) {
        let Some(app) = self.apps.get_mut(&id) else {
            return;
        };
        let Some(roll) = app.roll.take() else {
            return;
        };
        if roll.is_trial {
            self.pass_trial(id, roll.target);
            return;
        }
        let is_new = app.applied.release_id() != roll.release();
        if !is_new {
            return;
        }
        app.failed = None;
        let workers: Vec<DynoName> = app
            .places
            .keys()
            .filter(|name| !name.process.is_web())
            .cloned()
            .collect();
        // Ups and downs first, so that only what stays is restarted.
        self.change(id, Arc::clone(&roll.target), false);
        let want = wanted(&roll.target);
        for name in workers.iter().filter(|name| want.contains_key(*name)) {
            self.replace(id, name, Stop::Restart);
        }
    }

    /// A dyno crashed: if it was to take over, nothing of its roll does.
    pub(super) fn successor_failed(&mut self, id: AppId, dyno: DynoId) {
        let Some(app) = self.apps.get_mut(&id) else {
            return;
        };
        let found = app.roll.as_ref().and_then(|roll| {
            let mut batch = roll.batch.iter();
            let found = batch.find(|(_, s)| s.dyno == dyno).map(|(name, _)| name);
            // On trial it has to stay up, too.
            let is_it = |name: &&DynoName| {
                roll.is_trial && app.places.get(*name).and_then(|place| place.dyno) == Some(dyno)
            };
            found.or_else(|| roll.done.iter().find(is_it))
        });
        let Some(name) = found.cloned() else {
            return;
        };
        let Some(roll) = app.roll.take() else {
            return;
        };
        let is_new = app.applied.release_id() != roll.release();
        if is_new {
            app.failed = roll.release();
        }
        let before = app.applied.release.as_ref().map(|release| release.version);
        if roll.is_trial {
            let version = roll.version().unwrap_or(ReleaseVersion(0));
            let before = before.unwrap_or(ReleaseVersion(0));
            let why = format!(
                "Release {version} failed: {name} did not stay up on it; every dyno goes back to {before}"
            );
            self.fail_trial(id, roll, why);
            return;
        }
        let line = match (roll.version(), before) {
            (Some(new), Some(old)) if is_new => format!(
                "Roll to {new} aborted: {name} did not start; the dynos of {old} keep running. Deploy again, roll back, or try {new} again with `manifold ps:restart`"
            ),
            _ => {
                format!("Restart aborted: the new {name} did not start; the old dynos keep running")
            }
        };
        self.hub.api(id, line);
        self.drop_batch(id, roll.batch);
        if is_new && !roll.done.is_empty() && !roll.is_return {
            let Some(app) = self.apps.get_mut(&id) else {
                return;
            };
            let mut back = Roll::new(Arc::clone(&app.applied), roll.done);
            back.is_return = true;
            app.roll = Some(back);
            self.next_batch(id);
        }
    }

    /// Another spec comes: what has not taken over yet goes.
    pub(super) fn cancel_roll(&mut self, id: AppId) {
        let roll = self.apps.get_mut(&id).and_then(|app| app.roll.take());
        match roll {
            Some(roll) if roll.is_trial => {
                let why = "The trial of a release was given up: another change came".to_owned();
                self.fail_trial(id, roll, why);
            }
            Some(roll) => self.drop_batch(id, roll.batch),
            None => {}
        }
    }

    /// Stops successors; the old dynos are what they were before.
    pub(super) fn drop_batch(&mut self, id: AppId, batch: BTreeMap<DynoName, Successor>) {
        for (name, successor) in batch {
            let is_crashed = |driver: &Self, dyno: Option<DynoId>| {
                let dyno = dyno.and_then(|dyno| driver.dynos.get(&dyno));
                dyno.is_some_and(|dyno| dyno.life.state == DynoState::Crashed)
            };
            if successor.is_placed {
                // The old one is gone: the place starts over with what the app ran.
                if is_crashed(self, Some(successor.dyno)) {
                    self.replace(id, &name, Stop::Plain);
                }
                continue;
            }
            let failed = self.dynos.get(&successor.dyno);
            if failed.is_some_and(|dyno| dyno.life.phase != Phase::Ended) {
                self.retire(successor.dyno, Stop::Down);
            }
            self.mark(id, &name, Part::Server);
            let place = self.apps.get(&id).and_then(|app| app.places.get(&name));
            if is_crashed(self, place.and_then(|place| place.dyno)) {
                // Its own retry was left to the successor.
                self.arm(std::time::Duration::ZERO, Alarm::Retry(id, name));
            }
        }
    }
}
