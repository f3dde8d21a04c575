//! What a supervisor leaves of each dyno to the next one, and how that one reads it.
//!
//! A parcel of the keeper holds a [`Holding`] as JSON, so that a later version may say more, and
//! these descriptors, in order: network namespace, mount of the writable layer, read end of its
//! output, image of the writable layer (not where that is a tmpfs).

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::LinuxMachine;
use super::effects::{Inner, Live};
use super::usage::Eyes;
use crate::keeper::{self, Heir, Mark};
use crate::model::{AppId, DynoId, DynoName, DynoSize, ExitStatus, ReleaseId, ReleaseVersion};
use crate::network::{Block, DynoNetwork, NetworkError, Slot};

/// What the driver knows of a dyno that the next one must know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Whose.
    pub app: AppId,
    /// `web.1`.
    pub name: DynoName,
    /// True: not of the formation.
    pub is_one_off: bool,
    /// The release it runs.
    pub release: (ReleaseId, ReleaseVersion),
    /// When this run was made.
    pub created: Timestamp,
    /// When it was launched, on the host's monotonic clock: see [`monotonic`].
    pub launched: Duration,
    /// How long after that it is stopped.
    pub time_to_live: Option<Duration>,
    /// The command as declared.
    pub command: String,
    /// The same with `$PORT` in it.
    pub shown: String,
    /// Its limits.
    pub size: DynoSize,
    /// `$PORT` of a web dyno.
    pub port: Option<u16>,
}

/// The record, and what the machine must know.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Holding {
    pub(super) slot: u16,
    /// Name of its control group.
    pub(super) group: String,
    /// What lies below its writable layer.
    pub(super) lowers: Vec<PathBuf>,
    pub(super) hostname: String,
    pub(super) record: Record,
}

/// A dyno of the supervisor before.
#[derive(Debug)]
pub struct Adopted {
    /// Which.
    pub id: DynoId,
    /// How far it was.
    pub mark: Mark,
    /// How it ended, if it did meanwhile.
    pub ended: Option<ExitStatus>,
    /// What is known of it.
    pub record: Record,
    /// Where its ports are.
    pub backend: super::Backend,
    /// Read end of its output.
    pub output: OwnedFd,
}

/// All that a supervisor left, opened.
#[derive(Debug, Default)]
pub struct Estate {
    legacies: Vec<Legacy>,
    /// Dynos whose parcel cannot be read: they must end.
    lost: Vec<DynoId>,
    /// What holds the block of addresses and ids.
    block: Option<(u8, OwnedFd)>,
}

/// What is left of one dyno.
#[derive(Debug)]
struct Legacy {
    heir: Heir,
    holding: Holding,
    network: OwnedFd,
    root: OwnedFd,
    output: OwnedFd,
    image: Option<OwnedFd>,
}

impl Estate {
    /// Opens what is left of every dyno; without the block of their addresses all are lost.
    pub fn read(heirs: Vec<Heir>, block: Option<(u8, OwnedFd)>) -> Self {
        let mut estate = Self {
            block,
            ..Self::default()
        };
        for heir in heirs {
            let id = heir.dyno;
            let opened = match estate.block {
                Some(_) => open(heir),
                None => Err(io::Error::other("the block of its address is not known")),
            };
            match opened {
                Ok(legacy) => estate.legacies.push(legacy),
                Err(error) => {
                    tracing::error!(%id, %error, "a dyno of the supervisor before is not understood; it is ended");
                    estate.lost.push(id);
                }
            }
        }
        estate
    }

    /// Groups of dynos that are in use.
    pub fn groups(&self) -> BTreeSet<String> {
        let all = self.legacies.iter();
        all.map(|legacy| legacy.holding.group.clone()).collect()
    }

    /// The block, and the slot of each dyno.
    pub(super) fn claim(&self) -> Result<(Block, Vec<Slot>), NetworkError> {
        let Some((index, claim)) = &self.block else {
            return Ok((Block::claim()?, Vec::new()));
        };
        let claim = claim
            .try_clone()
            .map_err(|source| NetworkError::Namespace {
                act: "share the claim of our addresses",
                slot: 0,
                source,
            })?;
        let numbers = self.legacies.iter().map(|legacy| legacy.holding.slot);
        let block = Block::inherit(*index, claim, &numbers.clone().collect());
        let slots = numbers.map(|number| block.inherited_slot(number)).collect();
        Ok((block, slots))
    }
}

fn open(heir: Heir) -> io::Result<Legacy> {
    let (bytes, fds) = keeper::look(heir.parcel.as_fd())?;
    let holding: Holding = serde_json::from_slice(&bytes)?;
    let mut fds = VecDeque::from(fds);
    let mut next = || {
        fds.pop_front()
            .ok_or_else(|| io::Error::other("a descriptor is missing"))
    };
    Ok(Legacy {
        network: next()?,
        root: next()?,
        output: next()?,
        image: next().ok(),
        heir,
        holding,
    })
}

impl Inner {
    /// Takes over what is left; each dyno has the slot at its place.
    pub(super) fn adopt(&self, estate: Estate, slots: Vec<Slot>) -> Vec<Adopted> {
        let mut lost = estate.lost;
        let mut adopted = Vec::new();
        for (legacy, slot) in estate.legacies.into_iter().zip(slots) {
            let id = legacy.heir.dyno;
            match self.take_over(legacy, slot) {
                Ok(dyno) => adopted.push(dyno),
                Err(error) => {
                    tracing::error!(%id, %error, "a dyno of the supervisor before cannot be taken over; it is ended");
                    lost.push(id);
                }
            }
        }
        for id in lost {
            self.keeper.signal(id, Signal::SIGKILL as i32);
            self.keeper.forget(id);
        }
        if !adopted.is_empty() {
            tracing::info!("{} dynos of the supervisor before go on", adopted.len());
        }
        adopted
    }

    fn take_over(&self, legacy: Legacy, slot: Slot) -> io::Result<Adopted> {
        let Legacy {
            heir,
            holding:
                Holding {
                    group,
                    lowers,
                    hostname,
                    record,
                    ..
                },
            network,
            root,
            output,
            image,
        } = legacy;
        let id = heir.dyno;
        let image = image.map(std::fs::File::from);
        let volume = self.disks.inherit(id, record.size.disk, root, image)?;
        let group = self.cgroups.inherit(&group);
        let eyes = Eyes::open(&group);
        let netns = Arc::new(network);
        let backend = super::Backend {
            address: Some(slot.subnet().dyno),
            netns: Some(Arc::clone(&netns)),
        };
        let live = Live {
            group,
            eyes,
            quota_bytes: record.size.memory_bytes,
            volume,
            lowers,
            hostname,
            terminal: None,
            network: DynoNetwork { netns, slot },
        };
        self.live().insert(id, live);
        Ok(Adopted {
            id,
            mark: heir.mark,
            ended: heir.ended,
            record,
            backend,
            output,
        })
    }

    /// Leaves a launched dyno to the next supervisor.
    pub(super) fn keep(&self, id: DynoId, record: &Record, mark: Mark, output: BorrowedFd<'_>) {
        let parcel = {
            let live = self.live();
            let Some(live) = live.get(&id) else {
                return;
            };
            let holding = Holding {
                slot: live.network.slot.number,
                group: live.group.name(),
                lowers: live.lowers.clone(),
                hostname: live.hostname.clone(),
                record: record.clone(),
            };
            let (network, volume) = (live.network.netns.as_fd(), &live.volume);
            pack(&holding, network, volume.root(), output, volume.backing())
        };
        match parcel {
            Ok(parcel) => self.keeper.keep(id, mark, parcel),
            Err(error) => {
                tracing::warn!(%id, %error, "a dyno would end with this supervisor");
            }
        }
    }
}

impl LinuxMachine {
    /// What holds our block of addresses and ids, for the next supervisor.
    pub fn block(&self) -> (u8, BorrowedFd<'_>) {
        (self.inner.block.index(), self.inner.block.claimed())
    }

    /// Leaves listening sockets and the like to the next supervisor.
    ///
    /// # Errors
    /// Too many, or no descriptors left.
    pub fn keep_doors(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.inner.keeper.keep_doors(keeper::pack(bytes, fds)?);
        Ok(())
    }

    /// Waits until the keeper has been told everything; false if that takes too long.
    pub async fn flush(&self) -> bool {
        self.inner.keeper.flush(FLUSH).await
    }
}

/// The keeper takes what it is told in no time, or is stuck.
const FLUSH: Duration = Duration::from_secs(5);

pub(super) fn pack(
    holding: &Holding,
    network: BorrowedFd<'_>,
    root: BorrowedFd<'_>,
    output: BorrowedFd<'_>,
    image: Option<BorrowedFd<'_>>,
) -> io::Result<OwnedFd> {
    let bytes = serde_json::to_vec(holding)?;
    let fds: Vec<_> = [network, root, output].into_iter().chain(image).collect();
    keeper::pack(&bytes, &fds)
}

/// The host's clock that no one sets, the same for all processes.
pub(super) fn monotonic() -> Duration {
    let clock = nix::time::ClockId::CLOCK_MONOTONIC;
    // It is on every Linux.
    clock.now().map(Duration::from).unwrap_or_default()
}

impl Record {
    /// Since its launch.
    pub(super) fn age(&self) -> Duration {
        monotonic().saturating_sub(self.launched)
    }

    /// Its launch as this process tells time; now, for one before the clock's start.
    pub(super) fn launched_at(&self) -> Instant {
        let now = Instant::now();
        now.checked_sub(self.age()).unwrap_or(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding() -> Holding {
        Holding {
            slot: 7,
            group: "0007-0badcafe".to_owned(),
            lowers: vec!["/slug".into()],
            hostname: "web-1".to_owned(),
            record: Record {
                app: AppId::new(),
                name: "web.1".parse().expect("a name"),
                is_one_off: false,
                release: (ReleaseId::new(), ReleaseVersion(3)),
                created: Timestamp::now(),
                launched: monotonic(),
                time_to_live: None,
                command: "serve $PORT".to_owned(),
                shown: "serve 1234".to_owned(),
                size: DynoSize::default(),
                port: Some(1234),
            },
        }
    }

    fn heir(parcel: OwnedFd) -> Heir {
        Heir {
            dyno: DynoId::new(),
            pid: 1,
            mark: Mark::Up,
            ended: None,
            parcel,
        }
    }

    #[test]
    fn what_was_left_is_read_again_and_what_is_broken_is_named() {
        let null = std::fs::File::open("/dev/null").expect("opened");
        let null = null.as_fd();
        let left = holding();
        let whole = pack(&left, null, null, null, Some(null)).expect("packed");
        let tmpfs = pack(&left, null, null, null, None).expect("packed");
        let bytes = serde_json::to_vec(&left).expect("json");
        let few = keeper::pack(&bytes, &[null, null]).expect("packed");
        let junk = keeper::pack(b"{}", &[null, null, null]).expect("packed");
        let heirs: Vec<Heir> = [whole, tmpfs, few, junk].into_iter().map(heir).collect();
        let broken: Vec<DynoId> = heirs[2..].iter().map(|heir| heir.dyno).collect();
        let claim = null.try_clone_to_owned().expect("a copy");
        let estate = Estate::read(heirs, Some((0, claim)));
        assert_eq!(estate.lost, broken);
        assert_eq!(estate.groups(), BTreeSet::from([left.group.clone()]));
        let read = &estate.legacies;
        assert!(read[0].image.is_some() && read[1].image.is_none());
        assert_eq!(read[0].holding.record, left.record);
        assert!(read[0].holding.record.age() < Duration::from_mins(1));
        let whole = pack(&left, null, null, null, None).expect("packed");
        let estate = Estate::read(vec![heir(whole)], None);
        assert_eq!(estate.lost.len(), 1, "whose address is it?");
    }

    #[test]
    fn a_later_version_may_say_more() {
        let mut value = serde_json::to_value(holding()).expect("json");
        value["record"]["later"] = 1.into();
        serde_json::from_value::<Holding>(value).expect("understood");
    }
}
