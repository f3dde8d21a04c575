//! The one nft table, as text.

use std::fmt::Write as _;

/// Destinations no dyno reaches: link-local (cloud metadata), multicast, other dynos.
const REFUSED: &str = "169.254.0.0/16, 224.0.0.0/4, 255.255.255.255";

/// The table that replaces whatever stood under its name before, in one transaction.
///
/// `links` is the prefix of our host-side links, `subnet` the block's /16.
pub(super) fn table(name: &str, links: &str, subnet: &str) -> String {
    let mut text = String::new();
    // Adding first makes the delete succeed whether or not the table was there.
    let _ = writeln!(text, "add table inet {name}\ndelete table inet {name}");
    let _ = write!(
        text,
        r#"table inet {name} {{
  chain input {{
    type filter hook input priority filter - 5; policy accept;
    iifname "{links}*" ct state established,related accept
    iifname "{links}*" drop
  }}
  chain forward {{
    type filter hook forward priority filter - 5; policy accept;
    iifname "{links}*" meta nfproto ipv6 drop
    iifname "{links}*" ip saddr != {subnet} drop
    iifname "{links}*" ip daddr {{ {REFUSED} }} drop
    iifname "{links}*" ip daddr 172.16.0.0/12 oifname "mf*" drop
    oifname "{links}*" ct state established,related accept
    oifname "{links}*" drop
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {subnet} oifname != "{links}*" masquerade
  }}
}}
"#
    );
    text
}

/// Removes the table, whether or not it is there.
pub(super) fn no_table(name: &str) -> String {
    format!("add table inet {name}\ndelete table inet {name}\n")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_table_of_a_block() {
        insta::assert_snapshot!(super::table("manifold_1a2b3c4d", "mf1a2b", "172.16.0.0/16"));
    }
}
