//! Blocks: what keeps several supervisors on one host apart.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::{Arc, Mutex, PoisonError};

use super::{NetworkError, Subnet, uid_base};

/// Slots of one block: most dynos at once of one supervisor.
pub const SLOTS: u16 = 1024;

/// Blocks on one host.
const BLOCKS: u8 = 16;

/// A claimed block: addresses 172.(16+N).0.0/16 and a range of ids. Held by a bound abstract
/// socket, which the kernel lets go of when we end, however that is.
#[derive(Clone, Debug)]
pub struct Block {
    index: u8,
    free: Arc<Mutex<VecDeque<u16>>>,
    _claim: Arc<UnixListener>,
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
                let free = Arc::new(Mutex::new((0..SLOTS).collect()));
                return Ok(Self {
                    index,
                    free,
                    _claim: Arc::new(claim),
                });
            }
        }
        Err(NetworkError::NoBlock)
    }

    /// 0 to 15.
    pub fn index(&self) -> u8 {
        self.index
    }

    /// Takes a slot.
    ///
    /// # Errors
    /// [`NetworkError::NoSlot`].
    pub fn slot(&self) -> Result<Slot, NetworkError> {
        let number = self.lock().pop_front().ok_or(NetworkError::NoSlot)?;
        Ok(Slot {
            number,
            block: self.clone(),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<u16>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.block.lock().push_back(self.number);
    }
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
}
