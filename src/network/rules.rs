//! The one nft table, as text.
//!
//! All of it goes to `nft -f -`, which is one transaction: the table is never half there.
//! Chains that forbid come before any other table's filters (priority -5); what they let pass,
//! other tables may still drop.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use super::{Options, SLOTS, Subnet};
use crate::model::{APP_ADDRESS_PORT, HostPort};

/// Never reached, and not answered: link-local (cloud metadata), a cloud's own service for its
/// machines, multicast, broadcast, reserved. Source: RFC 6890; Microsoft Learn, "What is IP address
/// 168.63.129.16?".
pub(super) const SILENT: &[&str] = &["168.63.129.16", "169.254.0.0/16", "224.0.0.0/3"];

/// Private and shared address space, benchmarks, "this network", protocols' own: closed unless the
/// settings or `network:allow` open a part. Source: RFC 6890.
pub(super) const PRIVATE: &[&str] = &[
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
];

/// Where apps answer other apps. Source: [`crate::model::app_address`].
const APPS: &str = "198.18.0.0/15";

/// Links of every manifold on this host start so.
pub(super) const LINKS: &str = "mf";

/// A hole in the wall for the dynos of one app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// To the web dynos of another app, which answer at one address.
    App {
        /// Addresses of the dynos that may.
        from: BTreeSet<Ipv4Addr>,
        /// The app's address; its port is [`APP_ADDRESS_PORT`].
        at: Ipv4Addr,
        /// Its web dynos and their ports.
        to: Vec<(Ipv4Addr, u16)>,
    },
    /// To one port of one address, on the host or elsewhere.
    Host {
        /// Addresses of the dynos that may.
        from: BTreeSet<Ipv4Addr>,
        /// What they reach.
        to: HostPort,
    },
}

impl Opening {
    /// Who may pass.
    pub(super) fn from(&self) -> &BTreeSet<Ipv4Addr> {
        match self {
            Self::App { from, .. } | Self::Host { from, .. } => from,
        }
    }

    /// Where to, as those who pass name it.
    pub(super) fn at(&self) -> Ipv4Addr {
        match self {
            Self::App { at, .. } => *at,
            Self::Host { to, .. } => to.address,
        }
    }
}

/// What the table is made from.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// Its name, without the family (inet).
    pub(super) name: String,
    /// Prefix of our host-side links.
    pub(super) links: String,
    /// Our block: 172.(16+N).0.0/16.
    pub(super) block: u8,
    /// What the settings open.
    pub(super) options: Options,
    /// Tracked connections of one dyno; `None` where the kernel cannot count them.
    pub(super) connections_max: Option<u32>,
}

impl Table {
    /// The table that replaces whatever stood under its name before.
    pub(super) fn text(&self, openings: &[Opening]) -> String {
        let Self { name, links, .. } = self;
        let mut text = remove(name);
        let _ = write!(text, "table inet {name} {{\n{}", self.sets());
        let limit = if self.connections_max.is_some() {
            "    ct state new jump count\n"
        } else {
            ""
        };
        let allowed = if self.options.allow.is_empty() {
            String::new()
        } else {
            let nets: Vec<String> = self.options.allow.iter().map(ToString::to_string).collect();
            format!("    ip daddr {{ {} }} accept\n", nets.join(", "))
        };
        let block = self.block_net();
        let private = PRIVATE.join(", ");
        let silent = SILENT.join(", ");
        let _ = write!(
            text,
            r#"  chain spoofed {{
    type filter hook prerouting priority raw; policy accept;
    iifname "{links}*" meta nfproto != ipv4 drop
    iifname "{links}*" iifname . ip saddr != @sources drop
  }}
  chain doors {{
    type nat hook prerouting priority dstnat - 5; policy accept;
    iifname "{links}*" ip daddr {APPS} jump apps
  }}
  chain apps {{
  }}
  chain open {{
  }}
  chain count {{
{count}  }}
  chain input {{
    type filter hook input priority filter - 5; policy accept;
    iifname "{links}*" jump host
  }}
  chain host {{
{limit}    jump open
    ip daddr @resolvers meta l4proto {{ tcp, udp }} th dport 53 accept
    ip daddr {{ {silent} }} drop
    meta l4proto tcp reject with tcp reset
    drop
  }}
  chain forward {{
    type filter hook forward priority filter - 5; policy accept;
    iifname "{links}*" jump outbound
    oifname "{links}*" ct state established,related accept
    oifname "{links}*" drop
  }}
  chain outbound {{
{limit}    oifname "{LINKS}*" ct status dnat ct original ip daddr {APPS} accept
    oifname "{LINKS}*" drop
    ct state established,related accept
    ct state invalid drop
    ip daddr @resolvers meta l4proto {{ tcp, udp }} th dport 53 accept
    ip daddr {{ {silent} }} drop
    jump open
{allowed}    ip daddr {{ {private} }} reject with icmp admin-prohibited
    accept
  }}
  chain output {{
    type filter hook output priority filter - 5; policy accept;
    oifname "{links}*" ct state established,related accept
    oifname "{links}*" drop
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {block} oifname != "{LINKS}*" masquerade
  }}
}}
"#,
            count = self.count_rule(),
        );
        text.push_str(&self.openings(openings));
        text
    }

    /// Replaces the openings alone, in one transaction.
    pub(super) fn openings(&self, openings: &[Opening]) -> String {
        let name = &self.name;
        let mut text = format!("flush chain inet {name} apps\nflush chain inet {name} open\n");
        for opening in openings.iter().filter(|o| !o.from().is_empty()) {
            let from: Vec<String> = opening.from().iter().map(ToString::to_string).collect();
            let from = from.join(", ");
            let _ = match opening {
                // Nobody answers there: refused like every other private address.
                Opening::App { to, .. } if to.is_empty() => continue,
                Opening::App { at, to, .. } => {
                    let to: Vec<String> = to
                        .iter()
                        .enumerate()
                        .map(|(n, (address, port))| format!("{n} : {address} . {port}"))
                        .collect();
                    writeln!(
                        text,
                        "add rule inet {name} apps ip saddr {{ {from} }} ip daddr {at} tcp dport {APP_ADDRESS_PORT} dnat ip to numgen random mod {} map {{ {} }}",
                        to.len(),
                        to.join(", ")
                    )
                }
                // As they name it: a port that another table publishes is translated by now.
                Opening::Host { to, .. } => writeln!(
                    text,
                    "add rule inet {name} open ip saddr {{ {from} }} ct original ip daddr {} meta l4proto {} ct original proto-dst {} accept",
                    to.address, to.protocol, to.port
                ),
            };
        }
        text
    }

    fn block_net(&self) -> String {
        format!("172.{}.0.0/16", 16 + self.block)
    }

    /// Which address may come out of which link: all of them at once, since links that are not
    /// there harm nobody and no launch has to wait for nft.
    fn sets(&self) -> String {
        let sources: Vec<String> = (0..SLOTS)
            .map(|slot| {
                let dyno = Subnet::of(self.block, slot).dyno;
                format!("\"{}{slot:04x}\" . {dyno}", self.links)
            })
            .collect();
        let sources = sources.join(", ");
        let resolvers: Vec<String> = self
            .options
            .resolvers
            .iter()
            .map(ToString::to_string)
            .collect();
        let elements = if resolvers.is_empty() {
            String::new()
        } else {
            format!("elements = {{ {} }}; ", resolvers.join(", "))
        };
        let mut text = format!(
            "  set sources {{ typeof iifname . ip saddr; elements = {{ {sources} }} }}\n  set resolvers {{ type ipv4_addr; {elements}}}\n"
        );
        if self.connections_max.is_some() {
            text.push_str("  set connections { type ipv4_addr; size 2048; flags dynamic; }\n");
        }
        text
    }

    fn count_rule(&self) -> String {
        self.connections_max.map_or_else(String::new, |most| {
            format!("    add @connections {{ ip saddr ct count over {most} }} drop\n")
        })
    }
}

/// Removes a table, whether or not it is there.
pub(super) fn remove(name: &str) -> String {
    // Adding first makes the delete succeed in either case.
    format!("add table inet {name}\ndelete table inet {name}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table {
            name: "manifold_1a2b3c4d".to_owned(),
            links: "mf1a2b".to_owned(),
            block: 0,
            options: Options {
                allow: vec!["10.1.0.0/16".parse().expect("a net")],
                resolvers: vec![Ipv4Addr::new(192, 0, 2, 53)],
                connections: None,
            },
            connections_max: Some(4096),
        }
    }

    #[test]
    fn the_table_of_a_block() {
        let from = BTreeSet::from([Ipv4Addr::new(172, 16, 0, 2), Ipv4Addr::new(172, 16, 0, 6)]);
        let openings = [
            Opening::App {
                from: from.clone(),
                at: Ipv4Addr::new(198, 18, 0, 1),
                to: vec![
                    (Ipv4Addr::new(172, 16, 0, 10), 5000),
                    (Ipv4Addr::new(172, 16, 0, 14), 6000),
                ],
            },
            Opening::Host {
                from: from.clone(),
                to: "10.0.0.5:5432".parse().expect("a port"),
            },
            Opening::App {
                from,
                at: Ipv4Addr::new(198, 18, 0, 2),
                to: Vec::new(),
            },
        ];
        let text = table().text(&openings);
        // Of the thousand sources two are enough to see.
        let (head, rest) = text.split_once(", \"mf1a2b0002\"").expect("sources");
        let (_, tail) = rest.split_once("\"mf1a2b03ff\"").expect("the last source");
        insta::assert_snapshot!(format!("{head}, … \"mf1a2b03ff\"{tail}"));
    }

    #[test]
    fn a_kernel_that_cannot_count_gets_no_counting_rule() {
        let text = Table {
            connections_max: None,
            ..table()
        }
        .text(&[]);
        assert!(!text.contains("connections"), "{text}");
        assert!(!text.contains("jump count"), "{text}");
    }
}
