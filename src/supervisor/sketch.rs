//! A launch that is only told: the plan, the limits and the network a dyno would get.

use std::path::PathBuf;

use tokio::sync::oneshot;

use super::command::{Command, Reply};
use super::driver::Driver;
use super::{CommandError, LaunchOrder, Supervisor, roll};
use crate::dyno::LaunchPlan;
use crate::model::{AppId, DynoName, DynoSize, ProcessType};
use crate::network::Facts;
use crate::rootfs;

/// What would be applied, made by the same code that launches.
#[derive(Clone, Debug)]
pub struct Sketch {
    /// The plan; directories that are made at launch are named in words.
    pub plan: LaunchPlan,
    /// The dyno's size.
    pub size: DynoSize,
    /// Its network.
    pub network: Facts,
}

/// What covers or closes parts of /proc and /sys, for plans.
pub(super) fn covers() -> (Vec<PathBuf>, Vec<PathBuf>) {
    let paths = |texts: &[&str]| texts.iter().map(PathBuf::from).collect();
    (rootfs::masked().to_vec(), paths(rootfs::READ_ONLY))
}

impl Supervisor {
    /// What a dyno of this type of the app's current release would be given.
    ///
    /// # Errors
    /// Nothing is released, it has no such type, or the stack is gone.
    pub async fn sketch(&self, app: AppId, process: &ProcessType) -> Result<Sketch, CommandError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Sketch(app, process.clone(), reply);
        let sent = self.commands.send(command).await;
        sent.map_err(|_| CommandError::Stopping)?;
        answer.await.map_err(|_| CommandError::Stopping)?
    }
}

impl Driver {
    /// Answers beside the driver's own work: the machine looks at files.
    pub(super) fn sketch(&self, app: AppId, process: ProcessType, reply: Reply<Sketch>) {
        let order = match self.sketched(app, process) {
            Ok(order) => order,
            Err(error) => {
                // Who asked may be gone.
                let _ = reply.send(Err(error));
                return;
            }
        };
        let machine = std::sync::Arc::clone(&self.machine);
        tokio::spawn(async move {
            let sketch = machine.sketch(order).await;
            let _ = reply.send(sketch.map_err(|f| CommandError::Launch(f.to_string())));
        });
    }

    fn sketched(&self, app: AppId, process: ProcessType) -> Result<LaunchOrder, CommandError> {
        let app = self.apps.get(&app).ok_or(CommandError::UnknownApp)?;
        let release = app.spec.release.as_ref().ok_or(CommandError::NoSlug)?;
        if release.slug.is_none() {
            return Err(CommandError::NoSlug);
        }
        let entry = app.spec.formation.get(&process);
        let size = entry.map(|entry| entry.size.clone()).unwrap_or_default();
        let name = DynoName::new(process, 1);
        let dyno = roll::formation_dyno(&app.spec, release, &name, &size, self.timings.stop_grace);
        dyno.map(|dyno| dyno.order)
            .ok_or_else(|| CommandError::UnknownDyno(name.process.to_string()))
    }
}
