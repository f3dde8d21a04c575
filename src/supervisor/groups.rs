//! Control groups of launches to come: made with the network that a dyno will have, so that the
//! keeper can have a process wait in both.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::cgroup::{CgroupError, Group, Limits, Manager};
use crate::dyno::UserRange;
use crate::keeper::Client;
use crate::network::DynoNetwork;
use crate::sys;

/// The groups of the pool's networks, by slot; bounded by the pool. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Groups {
    made: Arc<Mutex<HashMap<u16, Group>>>,
}

impl Groups {
    /// To be called with every network that waits in the pool.
    pub(super) fn warmer(
        &self,
        cgroups: Manager,
        keeper: Client,
    ) -> impl Fn(&DynoNetwork) + Send + Sync + use<> {
        let groups = self.clone();
        move |network| {
            // A launch that finds none makes its own, and says what failed.
            if let Err(error) = groups.warm(network, &cgroups, &keeper) {
                tracing::debug!(%error, "no group was made ahead");
            }
        }
    }

    fn warm(
        &self,
        network: &DynoNetwork,
        cgroups: &Manager,
        keeper: &Client,
    ) -> Result<(), CgroupError> {
        let group = cgroups.make(network.slot.number)?;
        let entry = group.entry();
        let before = self.lock().insert(network.slot.number, group);
        if let Some(group) = before {
            // Of a launch that failed before it came to it.
            group.remove()?;
        }
        let entry = entry?;
        let base = network.slot.uid_base();
        if let Ok(netns) = network.netns.try_clone() {
            keeper.warm(UserRange { base }, netns, entry);
        }
        Ok(())
    }

    /// The group of a slot, made ahead or now, with these limits.
    ///
    /// # Errors
    /// See [`CgroupError`]; nothing is left then.
    pub(super) fn take(
        &self,
        slot: u16,
        cgroups: &Manager,
        limits: &Limits,
    ) -> Result<Group, CgroupError> {
        let made = self.lock().remove(&slot);
        let group = match made {
            Some(group) => group,
            None => cgroups.make(slot)?,
        };
        let limited = sys::fault("make the cgroup")
            .map_err(|source| CgroupError::Make {
                path: group.dirs().first().cloned().unwrap_or_default(),
                source,
            })
            .and_then(|()| cgroups.limit(&group, limits));
        match limited {
            Ok(()) => Ok(group),
            Err(error) => {
                take_away(&group);
                Err(error)
            }
        }
    }

    /// Ends what waits in them.
    pub(super) fn remove_all(&self) {
        let all = std::mem::take(&mut *self.lock());
        all.values().for_each(take_away);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u16, Group>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes a group without a dyno.
pub(super) fn take_away(group: &Group) {
    if let Err(error) = group.remove() {
        tracing::warn!(%error, "a cgroup stays until the next start");
    }
}
