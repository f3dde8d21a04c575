//! A network for every dyno: outbound through NAT, inbound only from the router.
//!
//! Inbound needs no link at all: a thread enters the dyno's namespace for the length of
//! `socket()`. Outbound is a veth pair and one nft table of our own, which is replaced as a
//! whole and never touches anybody else's rules. Namespaces are owned by the host's user
//! namespace and never used twice; dropping the last descriptor ends one, link included.

mod addresses;
mod block;
mod connect;
mod error;
mod link;
mod netlink;
mod open;
mod resolver;
mod rules;

pub use addresses::{Subnet, uid_base};
pub use block::{Block, SLOTS, Slot};
pub use connect::{connect, socket_in};
pub use error::NetworkError;
pub use open::{DynoNetwork, Network};
pub use resolver::resolv_conf;
