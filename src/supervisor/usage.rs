//! What dynos use, as the machine sees it: looked at by `metrics`, which publishes it here.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::memory::megabytes;
use super::{Failure, Supervisor};
use crate::cgroup::{Glance, Group, Memory, Sampler};
use crate::disk::{Changes, Usage};
use crate::model::{DiskLimit, DynoId};

/// One full look at a dyno.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Memory by kind.
    pub memory: Memory,
    /// Processes and threads.
    pub tasks: u64,
    /// Those of them that run or want to.
    pub running: u64,
    /// Its writable layer: what is used and the bound.
    pub disk: Option<(Usage, DiskLimit)>,
}

/// How a living dyno is looked at.
#[derive(Debug)]
pub(super) struct Eyes {
    pub(super) sampler: Arc<Sampler>,
    pub(super) curve: Curve,
}

impl Eyes {
    /// Without them a dyno runs all the same.
    pub(super) fn open(group: &Group) -> Option<Self> {
        match group.sampler() {
            Ok(sampler) => Some(Self {
                sampler: Arc::new(sampler),
                curve: Curve::default(),
            }),
            // It may have ended already.
            Err(error) => {
                tracing::debug!(%error, "a dyno is not looked at");
                None
            }
        }
    }
}

/// What was last known of a dyno.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DynoUsage {
    /// The last full look, at most 20 s old.
    pub sample: Sample,
    /// The size's quota.
    pub quota_bytes: u64,
    /// Averages over 1, 5 and 15 minutes.
    pub load: [f64; 3],
}

/// The disk below the state directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskRoom {
    /// How writable layers are bounded, in words.
    pub mechanism: String,
    /// Free on the host.
    pub free_bytes: u64,
    /// Of that kept for the host.
    pub reserve_bytes: u64,
    /// Taken by layers that lie ready.
    pub idle_bytes: u64,
}

/// What was last known of every dyno that lives.
pub type Usages = BTreeMap<DynoId, DynoUsage>;

/// The last seconds of a dyno's memory, for the one who asks why it was killed.
#[derive(Clone, Debug, Default)]
pub(super) struct Curve {
    points: std::collections::VecDeque<u64>,
}

impl Curve {
    /// Seconds that are remembered.
    const LENGTH: usize = 60;

    pub(super) fn push(&mut self, bytes: u64) {
        if self.points.len() == Self::LENGTH {
            self.points.pop_front();
        }
        self.points.push_back(bytes);
    }

    /// `310M, 512M, 1024M (the last 3 s)`; at most eight points, the last one always.
    pub(super) fn shown(&self) -> String {
        let count = self.points.len();
        let stride = count.div_ceil(8).max(1);
        let first = (count + stride - 1) % stride;
        let points = self.points.iter().skip(first).step_by(stride);
        let points: Vec<String> = points.map(|bytes| megabytes(*bytes)).collect();
        format!("{} (the last {count} s)", points.join(", "))
    }

    pub(super) fn last(&self) -> Option<u64> {
        self.points.back().copied()
    }
}

impl Supervisor {
    /// What is cheap to know of a dyno; call it once a second, it is remembered for an autopsy.
    pub fn glance(&self, id: DynoId) -> Option<Glance> {
        self.machine.0.glance(id)
    }

    /// A full look at a dyno.
    pub fn sample(&self, id: DynoId) -> Option<Sample> {
        self.machine.0.sample(id)
    }

    /// The files that a dyno changed since it started; `None` for one that does not run.
    ///
    /// # Errors
    /// Its files cannot be read.
    pub async fn changes(&self, id: DynoId) -> Result<Option<Changes>, Failure> {
        self.machine.0.changes(id).await
    }

    /// What there is to say about a dyno in which the kernel killed for memory.
    pub async fn autopsy(&self, id: DynoId) -> Vec<String> {
        self.machine.0.autopsy(id).await
    }

    /// What this host cannot enforce or what stands in the way, in sentences for its operator.
    pub fn notices(&self) -> Vec<String> {
        self.machine.0.notices()
    }

    /// The disk below the state directory.
    pub fn disk_room(&self) -> Option<DiskRoom> {
        self.machine.0.disk_room()
    }

    /// What was last known of every dyno.
    pub fn usages(&self) -> Arc<Usages> {
        self.usages.load_full()
    }

    /// Makes this known.
    pub fn publish_usages(&self, usages: Usages) {
        self.usages.store(Arc::new(usages));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_shows_few_points_and_always_the_last() {
        let mut curve = Curve::default();
        assert_eq!(curve.last(), None);
        for n in 1..=3 {
            curve.push(n << 20);
        }
        assert_eq!(curve.shown(), "1M, 2M, 3M (the last 3 s)");
        for n in 4..=70 {
            curve.push(n << 20);
        }
        assert_eq!(
            curve.shown(),
            "14M, 22M, 30M, 38M, 46M, 54M, 62M, 70M (the last 60 s)"
        );
    }
}
