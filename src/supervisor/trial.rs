//! A trial: a release that must show on the app's own dynos that it runs before it becomes current.
//!
//! One dyno goes first (the canary), and the others follow when it has stayed up for a while: web
//! dynos beside the old ones, the others one by one in their place. A dyno that does not come up,
//! or ends before all is done, takes everything back to what ran before. Whoever asked for the
//! trial reads its end from the snapshot.

use std::sync::Arc;
use std::time::Duration;

use super::driver::{Alarm, Driver};
use super::formation::wanted;
use super::lifecycle::{Kind, Phase, Stop};
use super::preboot::Roll;
use super::{AppSpec, Trial};
use crate::model::{AppId, DynoId, DynoName, ReleaseId};

/// A canary, or a dyno that binds no port, has to stay up for so long.
pub(super) const STEADY: Duration = Duration::from_secs(3);

impl Driver {
    /// Begins to put an app's dynos on a release that is on trial.
    pub(super) fn begin_trial(&mut self, id: AppId, target: Arc<AppSpec>) {
        let Some(release) = target.release_id() else {
            return;
        };
        let want = wanted(&target);
        let Some(app) = self.apps.get_mut(&id) else {
            return;
        };
        let kept = app.places.keys().filter(|name| want.contains_key(*name));
        let (mut names, others): (Vec<DynoName>, Vec<DynoName>) =
            kept.cloned().partition(|name| name.process.is_web());
        names.extend(others);
        app.trial = Some((release, Trial::Running));
        app.roll = Some(Roll::trial(target, names));
        self.touch(id);
        self.next_batch(id);
    }

    /// True while a trial holds the app's dynos.
    pub(super) fn is_on_trial(&self, id: AppId) -> bool {
        let trial = self.apps.get(&id).and_then(|app| app.trial.as_ref());
        matches!(trial, Some((_, Trial::Running)))
    }

    /// A dyno without a port runs: look again in a while.
    pub(super) fn successor_launched(&mut self, id: DynoId) {
        let Some(dyno) = self.dynos.get(&id) else {
            return;
        };
        let is_worker = dyno.life.kind == Kind::Worker && dyno.life.phase == Phase::Up;
        if is_worker && self.is_on_trial(dyno.app) {
            self.arm(STEADY, Alarm::Steady(id));
        }
    }

    /// The canary stayed up: the others follow.
    pub(super) fn canary_stayed(&mut self, id: AppId, release: ReleaseId) {
        let Some(roll) = self.apps.get_mut(&id).and_then(|app| app.roll.as_mut()) else {
            return;
        };
        if roll.release() == Some(release) && std::mem::take(&mut roll.is_waiting) {
            self.next_batch(id);
        }
    }

    /// Every dyno of a trial runs.
    pub(super) fn pass_trial(&mut self, id: AppId, target: Arc<AppSpec>) {
        let release = target.release_id();
        if let (Some(app), Some(release)) = (self.apps.get_mut(&id), release) {
            app.failed = None;
            app.trial = Some((release, Trial::Passed));
        }
        self.change(id, target, false);
        self.touch(id);
    }

    /// Everything goes back to what the app ran.
    pub(super) fn fail_trial(&mut self, id: AppId, mut roll: Roll, why: String) {
        self.hub.api(id, why.clone());
        let (release, mut done) = (roll.release(), std::mem::take(&mut roll.done));
        let mut batch = std::mem::take(&mut roll.batch);
        // Their old dyno is gone: they go back as those do that are done.
        let placed: Vec<DynoName> = batch
            .iter()
            .filter(|(_, successor)| successor.is_placed)
            .map(|(name, _)| name.clone())
            .collect();
        for name in placed {
            batch.remove(&name);
            done.push(name);
        }
        self.drop_batch(id, batch);
        let (web, others): (Vec<_>, Vec<_>) =
            done.into_iter().partition(|name| name.process.is_web());
        for name in others {
            self.replace(id, &name, Stop::Restart);
        }
        let Some(app) = self.apps.get_mut(&id) else {
            return;
        };
        app.failed = release;
        app.trial = release.map(|release| (release, Trial::Failed(why)));
        if !web.is_empty() {
            app.roll = Some(Roll::back(Arc::clone(&app.applied), web));
            self.next_batch(id);
        }
        self.touch(id);
    }
}
