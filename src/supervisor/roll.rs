//! The formation: what was asked for, kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::driver::{Alarm, App, Driver, Event, Place};
use super::dyno::{Dyno, Recipe};
use super::formation::{changes, wanted};
use super::lifecycle::{Input, Kind, Phase, Stop};
use super::{AppSpec, CommandError, Part, ReleaseSpec, Selector, StdioOrder, Trial};
use crate::model::{AppId, DynoId, DynoName, DynoSize, DynoState, ReleaseId, StackImage};

impl Driver {
    /// Makes a spec the desired state. A release whose slug is not the running one's is unpacked
    /// first, so that the old dynos serve meanwhile.
    pub(super) fn apply(&mut self, spec: AppSpec) {
        let id = spec.id;
        let spec = Arc::new(spec);
        if !self.apps.contains_key(&id) && self.adopted.iter().any(|d| d.record.app == id) {
            return self.inherit(&spec);
        }
        let app = self.apps.entry(id).or_insert_with(|| App {
            spec: Arc::clone(&spec),
            applied: Arc::clone(&spec),
            places: BTreeMap::new(),
            traffic: Arc::default(),
            roll: None,
            failed: None,
            trial: None,
            forgetting: Vec::new(),
        });
        app.spec = Arc::clone(&spec);
        let slug_of = |spec: &AppSpec| {
            let slug = spec.release.as_ref().and_then(|r| r.slug.as_ref());
            slug.map(|slug| slug.digest)
        };
        let has_work = !app.places.is_empty();
        let is_new_slug = slug_of(&app.applied) != slug_of(&spec);
        self.touch(id);
        match &spec.release {
            Some(release) if has_work && is_new_slug => {
                let (machine, events) = (Arc::clone(&self.machine), self.events.clone());
                let (stack, slug) = (release.stack.clone(), slug_of(&spec));
                let release = release.id;
                tokio::spawn(async move {
                    if let Err(failure) = machine.prepare(&stack, slug).await {
                        // The launch will fail in the same way, and say so in the app's log.
                        tracing::error!(%failure, "slug not prepared");
                    }
                    let _ = events.send(Event::Prepared(id, release));
                });
            }
            _ => self.reconcile(id),
        }
    }

    /// The first state of an app of which dynos run already.
    fn inherit(&mut self, spec: &Arc<AppSpec>) {
        let id = spec.id;
        let app = App {
            spec: Arc::clone(spec),
            applied: Arc::clone(spec),
            places: self.take_in(id),
            traffic: Arc::default(),
            roll: None,
            failed: None,
            trial: None,
            forgetting: Vec::new(),
        };
        self.apps.insert(id, app);
        self.touch(id);
        self.reconcile(id);
        let misfits = self.misfits(id, spec.release_id());
        self.renew(id, spec, misfits);
    }

    /// The slug of a release lies ready: roll, unless a newer release came meanwhile.
    pub(super) fn prepared(&mut self, app: AppId, release: ReleaseId) {
        let is_current = self
            .apps
            .get(&app)
            .is_some_and(|app| app.spec.release_id() == Some(release));
        if is_current {
            self.reconcile(app);
        }
    }

    /// Brings the places of an app to what its spec wants.
    fn reconcile(&mut self, id: AppId) {
        let Some(app) = self.apps.get_mut(&id) else {
            return;
        };
        if !app.forgetting.is_empty() {
            return;
        }
        let target = Arc::clone(&app.spec);
        if let Some(roll) = &mut app.roll
            && roll.release() == target.release_id()
            && wanted(roll.target()) == wanted(&target)
        {
            // The roll under way brings all of it.
            roll.aim(target);
            return;
        }
        self.cancel_roll(id);
        let Some(app) = self.apps.get_mut(&id) else {
            return;
        };
        let is_roll = app.applied.release_id() != target.release_id();
        // A release that did not start is not tried again by a change of something else.
        let is_failed = is_roll && app.failed.is_some() && app.failed == target.release_id();
        let is_trial = target.release.as_ref().is_some_and(|r| r.is_trial);
        if is_failed || (is_roll && (is_trial || self.serves(id, &target))) {
            // First all but the release, on the dynos that serve; then the release.
            let Some(app) = self.apps.get_mut(&id) else {
                return;
            };
            let mut interim = AppSpec::clone(&target);
            interim.release.clone_from(&app.applied.release);
            self.change(id, Arc::new(interim), false);
            if is_trial && !is_failed {
                self.begin_trial(id, target);
            } else if !is_failed {
                let names = self.web_places(id, &target);
                self.begin_roll(id, names, target);
            }
        } else {
            self.change(id, target, is_roll);
        }
    }

    /// Applies a spec place by place; `is_roll` restarts those that stay. Web dynos that serve are
    /// restarted by a roll.
    pub(super) fn change(&mut self, id: AppId, spec: Arc<AppSpec>, is_roll: bool) {
        let want = wanted(&spec);
        let has_preboot = self.serves(id, &spec);
        let Some(app) = self.apps.get_mut(&id) else {
            return;
        };
        app.applied = Arc::clone(&spec);
        if is_roll {
            app.failed = None;
        }
        let have: BTreeMap<DynoName, DynoSize> = app
            .places
            .iter()
            .filter_map(|(name, place)| {
                let dyno = self.dynos.get(&place.dyno?)?;
                Some((name.clone(), dyno.order.size.clone()))
            })
            .collect();
        let changes = changes(&have, &want, is_roll);
        for name in &changes.down {
            self.remove_place(id, name);
        }
        let (rolled, restart): (Vec<_>, Vec<_>) = changes
            .restart
            .into_iter()
            .partition(|name| has_preboot && name.process.is_web());
        for name in &restart {
            self.replace(id, name, Stop::Restart);
        }
        for name in &changes.up {
            self.fill(id, name);
        }
        if !rolled.is_empty() {
            self.begin_roll(id, rolled, spec);
        }
    }

    /// Starts a dyno in a place.
    fn fill(&mut self, id: AppId, name: &DynoName) {
        let spec = self.apps.get(&id).map(|app| Arc::clone(&app.applied));
        let dyno = spec.and_then(|spec| self.start(&spec, name, Part::Server));
        let app = self.apps.get_mut(&id);
        if let (Some(dyno), Some(app)) = (dyno, app) {
            app.places.entry(name.clone()).or_default().dyno = Some(dyno);
        }
    }

    /// Makes and launches a dyno as a spec has it for this place; none any more once everything is
    /// being stopped, whatever is still on its way (an unpacked slug, a retry, a roll's next step).
    pub(super) fn start(&mut self, spec: &AppSpec, name: &DynoName, part: Part) -> Option<DynoId> {
        if self.stopping.is_some() || self.leaving.is_some() {
            return None;
        }
        let release = spec.release.as_ref()?;
        let size = wanted(spec).remove(name)?;
        let mut dyno = formation_dyno(spec, release, name, &size, self.timings.stop_grace)?;
        dyno.part = part;
        let id = dyno.id;
        self.dynos.insert(id, dyno);
        self.touch(spec.id);
        self.launch(id);
        Some(id)
    }

    /// A new dyno for a place; the old one, if it runs, is told to go.
    pub(super) fn replace(&mut self, id: AppId, name: &DynoName, stop: Stop) {
        let Some(place) = self.apps.get_mut(&id).and_then(|a| a.places.get_mut(name)) else {
            return;
        };
        if stop == Stop::Restart {
            place.backoff = super::backoff::Backoff::default();
        }
        let old = place.dyno.take();
        if let Some(old) = old {
            self.retire(old, stop);
        }
        self.fill(id, name);
    }

    fn remove_place(&mut self, id: AppId, name: &DynoName) {
        let place = self.apps.get_mut(&id).and_then(|a| a.places.remove(name));
        if let Some(old) = place.and_then(|place| place.dyno) {
            self.retire(old, Stop::Down);
        }
    }

    /// Ends a dyno that holds no place any more.
    pub(super) fn retire(&mut self, id: DynoId, stop: Stop) {
        let Some(dyno) = self.dynos.get_mut(&id) else {
            return;
        };
        if dyno.life.phase == Phase::Ended {
            // Crashed: only its entry is left.
            let to = if stop == Stop::Down {
                DynoState::Down
            } else {
                DynoState::Starting
            };
            let line = format!("State changed from {} to {to}", dyno.life.state);
            let (app, name) = (dyno.app, dyno.name.to_string());
            self.hub.platform(app, &name, line);
            self.dynos.remove(&id);
            self.touch(app);
        } else {
            self.step(id, &Input::Stop(stop));
        }
    }

    /// A crashed place tries again, unless somebody was faster.
    pub(super) fn retry(&mut self, id: AppId, name: &DynoName) {
        let place = self.apps.get(&id).and_then(|app| app.places.get(name));
        let crashed = place
            .and_then(|place| place.dyno)
            .and_then(|dyno| self.dynos.get(&dyno))
            .is_some_and(|dyno| dyno.life.state == DynoState::Crashed);
        if crashed && !self.is_rolling(id, name) {
            self.replace(id, name, Stop::Plain);
        }
    }

    pub(super) fn restart(&mut self, id: AppId, which: &Selector) -> Result<(), CommandError> {
        let names = self.select(id, which)?;
        if self.is_on_trial(id) {
            return Err(CommandError::OnTrial);
        }
        let Some(app) = self.apps.get_mut(&id) else {
            return Ok(());
        };
        if app.failed.take().is_some() {
            // The release that did not start has another try.
            self.reconcile(id);
            return Ok(());
        }
        let spec = Arc::clone(&app.applied);
        self.renew(id, &spec, names);
        Ok(())
    }

    /// New dynos as `spec` has them in these places, without a gap where the app has preboot.
    fn renew(&mut self, id: AppId, spec: &Arc<AppSpec>, names: Vec<DynoName>) {
        let has_preboot = self.serves(id, spec);
        let (rolled, others): (Vec<_>, Vec<_>) = names
            .into_iter()
            .partition(|name| has_preboot && name.process.is_web());
        for name in others {
            self.replace(id, &name, Stop::Restart);
        }
        if !rolled.is_empty() {
            self.begin_roll(id, rolled, Arc::clone(spec));
        }
    }

    /// One-offs end; formation dynos are replaced.
    pub(super) fn stop(&mut self, id: AppId, which: &Selector) -> Result<(), CommandError> {
        if let Selector::Dyno(name) = which {
            let one_off = self.dynos.values().find(|dyno| {
                dyno.app == id && dyno.name == *name && dyno.life.kind == Kind::OneOff
            });
            if let Some(one_off) = one_off.map(|dyno| dyno.id) {
                self.step(one_off, &Input::Stop(Stop::Plain));
                return Ok(());
            }
        }
        if let Selector::Process(process) = which {
            let one_offs: Vec<DynoId> = self
                .dynos
                .values()
                .filter(|d| d.app == id && d.name.process == *process)
                .filter(|d| d.life.kind == Kind::OneOff && !d.is_build)
                .map(|d| d.id)
                .collect();
            if !one_offs.is_empty() {
                for one_off in one_offs {
                    self.step(one_off, &Input::Stop(Stop::Plain));
                }
                return Ok(());
            }
        }
        if self.is_on_trial(id) {
            return Err(CommandError::OnTrial);
        }
        for name in self.select(id, which)? {
            self.replace(id, &name, Stop::Plain);
        }
        Ok(())
    }

    /// The places a selector names.
    fn select(&self, id: AppId, which: &Selector) -> Result<Vec<DynoName>, CommandError> {
        let app = self.apps.get(&id).ok_or(CommandError::UnknownApp)?;
        let places = app.places.keys();
        let names: Vec<DynoName> = match which {
            Selector::All => places.cloned().collect(),
            Selector::Process(process) => {
                places.filter(|n| n.process == *process).cloned().collect()
            }
            Selector::Dyno(name) => {
                let found: Vec<_> = places.filter(|n| *n == name).cloned().collect();
                if found.is_empty() {
                    return Err(CommandError::UnknownDyno(name.to_string()));
                }
                found
            }
        };
        Ok(names)
    }

    /// Stops all of an app; the answer comes when the last dyno is gone.
    pub(super) fn forget(&mut self, id: AppId, reply: super::command::Reply<()>) {
        let Some(app) = self.apps.get_mut(&id) else {
            self.answer(reply, Err(CommandError::UnknownApp));
            return;
        };
        app.forgetting.push(reply);
        // Out of routing at once.
        let mut spec = AppSpec::clone(&app.spec);
        spec.hostnames.clear();
        app.spec = Arc::new(spec);
        self.clear(id);
        let ids: Vec<DynoId> = self
            .dynos
            .values()
            .filter(|dyno| dyno.app == id)
            .map(|dyno| dyno.id)
            .collect();
        for dyno in ids {
            self.step(dyno, &Input::Stop(Stop::Down));
        }
        self.touch(id);
    }

    /// Empties every place of an app.
    pub(super) fn clear(&mut self, id: AppId) {
        let places = self.apps.get_mut(&id).map(|app| {
            app.roll = None;
            if let Some((_, trial)) = app.trial.as_mut().filter(|(_, t)| *t == Trial::Running) {
                *trial = Trial::Failed("the app was stopped meanwhile".to_owned());
            }
            std::mem::take(&mut app.places)
        });
        let dynos = places
            .unwrap_or_default()
            .into_values()
            .filter_map(|p: Place| p.dyno);
        for dyno in dynos.collect::<Vec<_>>() {
            self.retire(dyno, Stop::Down);
        }
    }

    /// Removes the apps that were to be forgotten and have no dyno left.
    pub(super) fn forgotten(&mut self) {
        let gone: Vec<AppId> = self
            .apps
            .iter()
            .filter(|(_, app)| !app.forgetting.is_empty())
            .map(|(id, _)| *id)
            .filter(|id| self.dynos.values().all(|dyno| dyno.app != *id))
            .collect();
        for id in gone {
            let app = self.apps.remove(&id);
            self.touch(id);
            for reply in app.into_iter().flat_map(|app| app.forgetting) {
                self.answer(reply, Ok(()));
            }
            self.alarms
                .retain(|_, alarm| !matches!(alarm, Alarm::Retry(app, _) if *app == id));
        }
    }
}

pub(super) fn formation_dyno(
    spec: &AppSpec,
    release: &ReleaseSpec,
    name: &DynoName,
    size: &DynoSize,
    stop_grace: std::time::Duration,
) -> Option<Dyno> {
    let slug = release.slug.as_ref()?;
    let command = slug.process_types.get(&name.process)?;
    let kind = if name.process.is_web() {
        Kind::Web
    } else {
        Kind::Worker
    };
    Some(Dyno::new(Recipe {
        app: spec.id,
        name: name.clone(),
        kind,
        is_awaiting: false,
        release: (release.id, release.version),
        stack: &release.stack,
        image: StackImage::Run,
        slug: Some(slug.digest),
        size,
        command,
        config: Some(&release.config),
        extra: &BTreeMap::new(),
        stdio: StdioOrder::Logged,
        binds: Vec::new(),
        stop_grace,
        is_build: false,
        is_kept: true,
        time_to_live: None,
    }))
}
