//! One-off dynos: `run`, release phases, builds.

use std::sync::Arc;
use std::time::Duration;

use super::command::Reply;
use super::driver::Driver;
use super::dyno::{Dyno, Recipe};
use super::lifecycle::{Input, Kind, Phase};
use super::{Attachment, CommandError, ReleaseSpec, RunKind, RunOrder, RunStarted, StdioOrder};
use crate::model::{
    AppId, DynoId, DynoName, ProcessType, ReleaseId, ReleaseVersion, StackImage, StackName,
    StackRef,
};

/// Longest life of a one-off that says nothing else: the cycling limit of the platform.
/// Source: Dev Center, "One-Off Dynos".
const LIFE: Duration = Duration::from_hours(24);

/// Numbers of one-offs. Source: contract, "Dyno names".
const NUMBERS: std::ops::RangeInclusive<u32> = 1000..=9999;

impl Driver {
    pub(super) fn run_one_off(&mut self, order: RunOrder, user: &str, reply: Reply<RunStarted>) {
        match self.make_one_off(order, user) {
            Err(error) => self.answer(reply, Err(error)),
            Ok(mut dyno) => {
                let id = dyno.id;
                let is_awaiting = dyno.life.phase == Phase::Awaiting;
                self.touch(dyno.app);
                if is_awaiting {
                    let name = dyno.name.to_string();
                    self.hub.platform(dyno.app, &name, "Awaiting client");
                }
                if dyno.is_build {
                    // Answered with its output, when it was launched.
                    dyno.starting = Some(reply);
                } else {
                    let started = dyno.begun(None);
                    self.answer(reply, Ok(started));
                }
                self.dynos.insert(id, dyno);
                if !is_awaiting {
                    self.launch(id);
                }
            }
        }
    }

    fn make_one_off(&mut self, order: RunOrder, user: &str) -> Result<Dyno, CommandError> {
        let app = self.apps.get(&order.app).ok_or(CommandError::UnknownApp)?;
        if !app.forgetting.is_empty() {
            return Err(CommandError::UnknownApp);
        }
        let current = app.spec.release.clone();
        let name = self.free_name(order.app, &order.process)?;
        let stop_grace = self.timings.stop_grace;
        let host = StackRef::newest(StackName::host());
        let mut recipe = Recipe {
            app: order.app,
            name,
            kind: Kind::OneOff,
            is_awaiting: false,
            release: (ReleaseId(uuid::Uuid::nil()), ReleaseVersion(0)),
            stack: &host,
            image: StackImage::Run,
            slug: None,
            size: &order.size,
            command: &order.command,
            config: None,
            extra: &order.env,
            stdio: StdioOrder::Logged,
            binds: Vec::new(),
            stop_grace,
            is_build: false,
            is_kept: false,
            time_to_live: Some(order.time_to_live.unwrap_or(LIFE)),
        };
        let release: Option<Arc<ReleaseSpec>>;
        match order.kind {
            RunKind::Build {
                stack,
                binds,
                image,
            } => {
                recipe.stack = &stack;
                recipe.binds = binds;
                recipe.image = image;
                recipe.is_build = true;
                return Ok(Dyno::new(recipe));
            }
            RunKind::Attached { stdio } => {
                if stdio == StdioOrder::Logged {
                    let why = "an attached one-off needs a terminal or pipes".to_owned();
                    return Err(CommandError::Launch(why));
                }
                recipe.is_awaiting = true;
                recipe.stdio = stdio;
                release = current;
            }
            RunKind::Detached { release: given } => {
                // Somebody waits for the end of a release phase.
                recipe.is_kept = given.is_none();
                release = given.or(current);
            }
        }
        let release = release.ok_or(CommandError::NoSlug)?;
        let slug = release.slug.as_ref().ok_or(CommandError::NoSlug)?;
        recipe.release = (release.id, release.version);
        recipe.stack = &release.stack;
        recipe.slug = Some(slug.digest);
        recipe.config = Some(&release.config);
        if order.process != ProcessType::release() {
            let line = format!(
                "Starting process with command `{}` by user {user}",
                order.command
            );
            self.hub.api(order.app, line);
        }
        Ok(Dyno::new(recipe))
    }

    /// A random number that no living dyno of the app has.
    fn free_name(&self, app: AppId, process: &ProcessType) -> Result<DynoName, CommandError> {
        let taken: std::collections::HashSet<u32> = self
            .dynos
            .values()
            .filter(|dyno| dyno.app == app && dyno.name.process == *process)
            .map(|dyno| dyno.name.number)
            .collect();
        let all = NUMBERS.end() - NUMBERS.start() + 1;
        let start = rand::random_range(0..all);
        (0..all)
            .map(|n| NUMBERS.start() + (start + n) % all)
            .find(|number| !taken.contains(number))
            .map(|number| DynoName::new(process.clone(), number))
            .ok_or_else(|| CommandError::Launch(format!("all {all} names {process}.N are taken")))
    }

    pub(super) fn attach(&mut self, id: DynoId, reply: Reply<Attachment>) {
        match self.dynos.get_mut(&id) {
            Some(dyno) if dyno.life.phase == Phase::Awaiting => {
                dyno.attaching = Some(reply);
                self.step(id, &Input::ClientCame);
            }
            _ => self.answer(reply, Err(CommandError::UnknownDyno(id.to_string()))),
        }
    }
}
