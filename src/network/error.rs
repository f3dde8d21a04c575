//! What can go wrong with a network.

use std::io;

/// The attempted act and its object.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// All blocks are claimed by other supervisors, or collide with the host's routes.
    #[error(
        "no block of addresses is free: each of 172.16.0.0/16 to 172.31.0.0/16 is routed or used by another supervisor"
    )]
    NoBlock,
    /// More dynos than slots.
    #[error("all 1024 dyno slots are in use")]
    NoSlot,
    /// A namespace or a link in it.
    #[error("cannot {act} for slot {slot}")]
    Namespace {
        /// In words.
        act: &'static str,
        /// Which slot.
        slot: u16,
        /// Why.
        source: io::Error,
    },
    /// The nft program.
    #[error("cannot {act}: {reason}")]
    Rules {
        /// In words.
        act: &'static str,
        /// What nft said.
        reason: String,
    },
}

impl NetworkError {
    /// True when a link of that name is there: its namespace is gone, and it follows.
    pub(super) fn is_taken(&self) -> bool {
        let Self::Namespace { source, .. } = self else {
            return false;
        };
        source.raw_os_error() == Some(libc::EEXIST)
    }
}
