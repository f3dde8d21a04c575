//! What a dyno's network is, in words: from the same values as the rules.

use std::net::Ipv4Addr;

use super::rules::{PRIVATE, SILENT, Table};

/// The wall around every dyno.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Blocks from which no answer comes at all.
    pub dropped: Vec<String>,
    /// Blocks that are refused.
    pub refused: Vec<String>,
    /// Blocks of those that the settings open.
    pub allowed: Vec<String>,
    /// Where DNS goes.
    pub resolvers: Vec<Ipv4Addr>,
    /// Tracked connections at once; `None`: not counted.
    pub connections_max: Option<u32>,
    /// The table.
    pub table: String,
    /// Host ids: the first of all.
    pub uid_first: u32,
}

impl Table {
    pub(super) fn facts(&self) -> Facts {
        let allowed = self.options.allow.iter();
        Facts {
            dropped: SILENT.iter().map(|net| (*net).to_owned()).collect(),
            refused: PRIVATE.iter().map(|net| (*net).to_owned()).collect(),
            allowed: allowed.map(ToString::to_string).collect(),
            resolvers: self.options.resolvers.clone(),
            connections_max: self.connections_max,
            table: format!("inet {}", self.name),
            uid_first: super::uid_base(self.block, 0),
        }
    }
}
