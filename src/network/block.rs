//! Blocks: what keeps several supervisors on one host apart.

use std::collections::{BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::{Arc, Mutex, PoisonError};

use super::{NetworkError, Subnet, uid_base};

/// Slots of one block: most dynos at once of one supervisor.
pub const SLOTS: u16 = 1024;

/// Blocks on one host.
const BLOCKS: u8 = 16;

/// An inherited block starts so many slots behind the last living dyno's.
const AHEAD: u16 = 64;

/// A claimed block: addresses 172.(16+N).0.0/16 and a range of ids. Held by a bound abstract
/// socket, which the kernel lets go of when we end, however that is.
#[derive(Clone, Debug)]
pub struct Block {
    index: u8,
    slots: Arc<Mutex<Slots>>,
    claim: Arc<UnixListener>,
}

#[derive(Debug)]
struct Slots {
    /// Nobody had them, or nothing of who had them is left.
    clean: VecDeque<u16>,
    /// Freed, but the kernel may still track flows of their addresses.
    used: VecDeque<u16>,
    /// Addresses that rules of the firewall name: they stay used.
    pinned: BTreeSet<Ipv4Addr>,
}

/// One slot, free again when dropped. Slots are reused in the order they were freed, so that a
/// range of ids rests as long as can be.
#[derive(Debug)]
pub struct Slot {
    /// Its number.
    pub number: u16,
    block: Block,
}

impl Block {
    /// Claims the first block that no other supervisor holds and no route of the host covers.
    ///
    /// # Errors
    /// [`NetworkError::NoBlock`].
    pub fn claim() -> Result<Self, NetworkError> {
        let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
        for index in 0..BLOCKS {
            if is_routed(&routes, index) {
                continue;
            }
            let Ok(address) = SocketAddr::from_abstract_name(format!("manifold-block-{index}"))
            else {
                continue;
            };
            if let Ok(claim) = UnixListener::bind_addr(&address) {
                let slots = Slots {
                    clean: (0..count()).collect(),
                    used: VecDeque::new(),
                    pinned: BTreeSet::new(),
                };
                return Ok(Self {
                    index,
                    slots: Arc::new(Mutex::new(slots)),
                    claim: Arc::new(claim),
                });
            }
        }
        Err(NetworkError::NoBlock)
    }

    /// The block of the supervisor before us, by its claim: its living dynos have slots of it.
    pub fn inherit(index: u8, claim: OwnedFd, living: &BTreeSet<u16>) -> Self {
        // Those behind the last may be links that lay ready and still go with their namespaces:
        // others come first.
        let next = living.last().map_or(0, |last| last + AHEAD);
        let free = |slot: &u16| !living.contains(slot);
        let all = count();
        let slots = Slots {
            clean: (next..all).chain(0..next.min(all)).filter(free).collect(),
            used: VecDeque::new(),
            pinned: BTreeSet::new(),
        };
        Self {
            index,
            slots: Arc::new(Mutex::new(slots)),
            claim: Arc::new(claim.into()),
        }
    }

    /// The slot of a living dyno of an inherited block: one that `living` had.
    pub fn inherited_slot(&self, number: u16) -> Slot {
        Slot {
            number,
            block: self.clone(),
        }
    }

    /// What holds the block, for the next supervisor.
    pub fn claimed(&self) -> BorrowedFd<'_> {
        self.claim.as_fd()
    }

    /// 0 to 15.
    pub fn index(&self) -> u8 {
        self.index
    }

    /// Takes a clean slot.
    ///
    /// # Errors
    /// [`NetworkError::NoSlot`].
    pub fn slot(&self) -> Result<Slot, NetworkError> {
        let number = self.lock().clean.pop_front().ok_or(NetworkError::NoSlot)?;
        Ok(Slot {
            number,
            block: self.clone(),
        })
    }

    /// The addresses of a slot.
    pub(super) fn subnet(&self, slot: u16) -> Subnet {
        Subnet::of(self.index, slot)
    }

    /// True for an address of this block.
    pub(super) fn holds(&self, address: Ipv4Addr) -> bool {
        address.octets()[..2] == [172, 16 + self.index]
    }

    /// Free slots that may become clean, in the order they were freed.
    pub(super) fn used(&self) -> Vec<u16> {
        let slots = self.lock();
        let is_pinned = |slot: &u16| slots.pinned.contains(&self.subnet(*slot).dyno);
        let free = slots.used.iter().copied();
        free.filter(|slot| !is_pinned(slot)).collect()
    }

    /// These of the used ones are clean now.
    pub(super) fn clean(&self, numbers: &[u16]) {
        let mut slots = self.lock();
        slots.used.retain(|slot| !numbers.contains(slot));
        slots.clean.extend(numbers);
    }

    /// Keeps these addresses, and no others, from being used again.
    pub(super) fn pin(&self, addresses: BTreeSet<Ipv4Addr>) {
        self.lock().pinned = addresses;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Its first host id.
    pub fn uid_base(&self) -> u32 {
        uid_base(self.block.index, self.number)
    }

    /// Its addresses.
    pub fn subnet(&self) -> Subnet {
        Subnet::of(self.block.index, self.number)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.block.lock().used.push_back(self.number);
    }
}

/// How many slots there are: fewer where a test of debug builds wants them soon used up.
fn count() -> u16 {
    #[cfg(debug_assertions)]
    if let Some(few) = std::env::var("MANIFOLD_TEST_ONLY_SLOTS")
        .ok()
        .and_then(|n| n.parse().ok())
    {
        return SLOTS.min(few);
    }
    SLOTS
}

/// True if a route other than the default one overlaps the block's /16.
fn is_routed(routes: &str, index: u8) -> bool {
    let hex = |text: &str| u32::from_str_radix(text, 16).ok().map(u32::swap_bytes);
    let block = u32::from(Ipv4Addr::new(172, 16 + index, 0, 0));
    routes.lines().skip(1).any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (Some(name), Some(to), Some(mask)) = (fields.first(), fields.get(1), fields.get(7))
        else {
            return false;
        };
        let (Some(to), Some(mask)) = (hex(to), hex(mask)) else {
            return false;
        };
        // Links of other supervisors are told apart by their claim.
        let shared = mask & 0xFFFF_0000;
        mask != 0 && !name.starts_with("mf") && (to & shared) == (block & shared)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_the_host_routes_is_skipped() {
        let routes = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\n\
                      eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\n\
                      docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\n\
                      mf12340001\t000012AC\t00000000\t0001\t0\t0\t0\tFCFFFFFF\t0\n\
                      vpn0\t000014AC\t00000000\t0001\t0\t0\t0\t0000FCFF\t0\n";
        let skipped: Vec<u8> = (0..BLOCKS).filter(|n| is_routed(routes, *n)).collect();
        assert_eq!(skipped, [1, 4, 5, 6, 7]);
    }

    #[test]
    fn slots_are_reused_last_and_blocks_are_not_shared() {
        let (a, b) = (
            Block::claim().expect("a block"),
            Block::claim().expect("another"),
        );
        assert_ne!(a.index(), b.index());
        let first = a.slot().expect("a slot").number;
        let second = a.slot().expect("a slot").number;
        assert_ne!(first, second, "a freed slot goes to the end of the line");
    }

    #[test]
    fn an_inherited_block_stays_claimed_and_its_living_slots_are_taken() {
        let before = Block::claim().expect("a block");
        let claim = before.claimed().try_clone_to_owned().expect("a copy");
        let (index, living) = (before.index(), BTreeSet::from([3, 1000]));
        drop(before);
        let block = Block::inherit(index, claim, &living);
        assert_ne!(Block::claim().expect("another").index(), index);
        let survivor = block.inherited_slot(3);
        assert_eq!(survivor.uid_base(), uid_base(index, 3));
        let taken: Vec<Slot> = std::iter::from_fn(|| block.slot().ok()).collect();
        assert_eq!(taken.len(), usize::from(SLOTS) - 2);
        assert!(taken.iter().all(|slot| !living.contains(&slot.number)));
        drop(survivor);
        assert_eq!(block.used(), [3], "free again after its dyno");
    }

    #[test]
    fn a_used_slot_is_clean_only_when_told_and_never_while_a_rule_names_it() {
        let block = Block::claim().expect("a block");
        let all: Vec<Slot> = std::iter::from_fn(|| block.slot().ok()).collect();
        assert_eq!(all.len(), usize::from(SLOTS));
        let (first, second) = (all[0].number, all[1].number);
        drop(all);
        assert!(block.slot().is_err(), "used is not clean");
        block.pin(BTreeSet::from([block.subnet(first).dyno]));
        let used = block.used();
        assert!(!used.contains(&first) && used.contains(&second));
        block.clean(&used);
        let taken = std::iter::from_fn(|| block.slot().ok());
        let taken: Vec<u16> = taken.map(|slot| slot.number).collect();
        assert_eq!(taken.len(), usize::from(SLOTS) - 1);
        assert!(!taken.contains(&first), "pinned");
        assert!(block.holds(block.subnet(second).dyno));
        assert!(!block.holds(Ipv4Addr::new(198, 18, 0, 1)));
    }
}
