//! A network for every dyno: outbound through NAT, inbound only from the router.
//!
//! Inbound needs no link at all: a thread enters the dyno's namespace for the length of
//! `socket()`. Outbound is a veth pair and one nft table of our own, which is replaced as a
//! whole and never touches anybody else's rules. Namespaces are owned by the host's user
//! namespace and never used twice; dropping the last descriptor ends one, link included, which
//! `ended` does for many at once.
//!
//! Everything is closed but the way out: other dynos, this host, link-local and private
//! addresses. [`Opening`]s are the only holes; `guard` alone writes the table and restores it
//! when somebody flushed it. An address goes to another dyno only after the kernel has forgotten
//! the flows of the last one. IPv6 is off on the links.

mod addresses;
mod block;
mod connect;
mod conntrack;
mod ended;
mod error;
mod events;
mod facts;
mod foreign;
mod guard;
mod link;
mod netlink;
mod nft;
mod open;
mod resolver;
mod rules;
mod uninstall;

pub use addresses::{Subnet, uid_base};
pub use block::{Block, SLOTS, Slot};
pub use connect::{connect, socket_in};
pub use error::NetworkError;
pub use facts::Facts;
pub use guard::is_forwarding;
pub use open::{DynoNetwork, Network};
pub use resolver::{resolv_conf, resolvers};
pub use rules::Opening;
pub use uninstall::{stop_forwarding, uninstall};

/// What the settings say, with the resolvers that are really used.
pub type Options = crate::settings::NetworkSettings;
