//! Room on the host's disk: who must go when running dynos eat into what is kept for the host.
//!
//! Below the reserve nothing new starts (`disk`); what runs goes on. Layers are sparse, so running
//! dynos together can still want more than there is: below half of the reserve the one that has
//! most of the host's disk goes, with all it wrote.
//! One look a second: a reserve that can be written in less is too small to hold.

use std::time::{Duration, Instant};

use crate::model::DynoId;

/// A dyno with less than this on the host's disk is not the one to blame.
const LEAST_BYTES: u64 = 16 << 20;

/// The room of one that goes is waited for so long before another one goes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who was told to go, and when.
#[derive(Debug, Default)]
pub(super) struct Eviction(Option<(DynoId, Instant)>);

impl Eviction {
    /// The dyno that must go, and what it has of the host's disk. `usages` is asked only when the
    /// room is short.
    pub(super) fn next(
        &mut self,
        free_bytes: u64,
        reserve_bytes: u64,
        now: Instant,
        usages: impl FnOnce() -> Vec<(DynoId, u64)>,
    ) -> Option<(DynoId, u64)> {
        if free_bytes >= reserve_bytes / 2 {
            self.0 = None;
            return None;
        }
        let usages = usages();
        if let Some((dyno, since)) = self.0
            && now.duration_since(since) < PATIENCE
            && usages.iter().any(|(id, _)| *id == dyno)
        {
            return None;
        }
        let most = usages.into_iter().max_by_key(|(_, bytes)| *bytes);
        let (dyno, bytes) = most.filter(|(_, bytes)| *bytes >= LEAST_BYTES)?;
        self.0 = Some((dyno, now));
        Some((dyno, bytes))
    }
}

/// What its log says.
pub(super) fn told(host_bytes: u64, free_bytes: u64) -> String {
    format!(
        "The host's disk is full ({} MB left): this dyno has most of it ({} MB)",
        free_bytes >> 20,
        host_bytes >> 20
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_biggest_goes_and_its_room_is_waited_for() {
        let (small, big) = (DynoId::new(), DynoId::new());
        let both = || vec![(small, 20 * MIB), (big, 900 * MIB)];
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut eviction = Eviction::default();
        let mut next = |free, now, usages: Vec<(DynoId, u64)>| {
            eviction.next(free * MIB, 1000 * MIB, now, || usages)
        };
        assert_eq!(next(500, at(0), both()), None, "half is left");
        assert_eq!(next(499, at(1), both()), Some((big, 900 * MIB)));
        assert_eq!(next(400, at(2), both()), None, "it is on its way");
        assert_eq!(
            next(400, at(3), vec![(small, 20 * MIB)]),
            Some((small, 20 * MIB))
        );
        assert_eq!(next(400, at(4), vec![]), None);
        assert_eq!(next(400, at(5), vec![(big, MIB)]), None, "not to blame");
    }

    #[test]
    fn one_that_does_not_go_is_not_waited_for_for_ever() {
        let dyno = DynoId::new();
        let start = Instant::now();
        let mut eviction = Eviction::default();
        let mut next = |seconds| {
            let now = start + Duration::from_secs(seconds);
            eviction.next(0, 100, now, || vec![(dyno, 99 * MIB)])
        };
        assert!(next(0).is_some());
        assert!(next(9).is_none());
        assert!(next(10).is_some());
    }
}
