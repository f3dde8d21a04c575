//! Numbers of a slot: its addresses and its ids on the host.

use std::net::Ipv4Addr;

use super::SLOTS;

/// First host id of slot 0 of block 0: far above people, services and other tools' ranges.
const UID_FIRST: u32 = 0x4000_0000;

/// Ids per slot.
const UIDS: u32 = 65_536;

/// A slot's /30.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// Our end of the link.
    pub host: Ipv4Addr,
    /// The dyno's address.
    pub dyno: Ipv4Addr,
}

impl Subnet {
    /// Prefix length.
    pub const PREFIX: u8 = 30;

    /// The /30 of a slot within 172.(16+block).0.0/16.
    pub(super) fn of(block: u8, slot: u16) -> Self {
        let base = u32::from(Ipv4Addr::new(172, 16 + block, 0, 0)) + u32::from(slot) * 4;
        Self {
            host: Ipv4Addr::from(base + 1),
            dyno: Ipv4Addr::from(base + 2),
        }
    }
}

/// First host id of a slot; 65,536 ids from there on are the slot's.
pub fn uid_base(block: u8, slot: u16) -> u32 {
    UID_FIRST + (u32::from(block) * u32::from(SLOTS) + u32::from(slot)) * UIDS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_two_slots_share_an_id_or_an_address(
            a in (0_u8..16, 0..SLOTS), b in (0_u8..16, 0..SLOTS),
        ) {
            prop_assume!(a != b);
            let distance = uid_base(a.0, a.1).abs_diff(uid_base(b.0, b.1));
            prop_assert!(distance >= UIDS);
            let (x, y) = (Subnet::of(a.0, a.1), Subnet::of(b.0, b.1));
            prop_assert!(u32::from(x.host) / 4 != u32::from(y.host) / 4);
            prop_assert!(x.dyno.is_private() && y.dyno.is_private());
        }
    }

    #[test]
    fn the_last_slot_fits() {
        assert_eq!(uid_base(15, SLOTS - 1), 0x7FFF_0000);
        assert_eq!(Subnet::of(0, 0).dyno, Ipv4Addr::new(172, 16, 0, 2));
        assert_eq!(Subnet::of(15, 1023).dyno, Ipv4Addr::new(172, 31, 15, 254));
    }
}
