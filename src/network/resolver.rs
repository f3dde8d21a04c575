//! The resolver configuration a dyno gets.

use std::net::{IpAddr, Ipv4Addr};

/// The host's resolver configuration; when it names only a loopback stub, the upstream servers
/// behind that stub. With `given` ones, those.
pub fn resolv_conf(given: &[Ipv4Addr]) -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    choose(
        &read("/etc/resolv.conf"),
        &read("/run/systemd/resolve/resolv.conf"),
        given,
    )
}

/// The servers that a configuration names.
pub fn resolvers(resolv_conf: &str) -> Vec<Ipv4Addr> {
    resolv_conf
        .lines()
        .filter_map(server)
        .filter_map(|text| text.parse().ok())
        .collect()
}

fn server(line: &str) -> Option<&str> {
    line.trim().strip_prefix("nameserver").map(str::trim)
}

fn choose(host: &str, upstream: &str, given: &[Ipv4Addr]) -> String {
    // A dyno has no IPv6 and a loopback of its own.
    let is_reachable = |text: &str| {
        let parsed = text.parse::<IpAddr>();
        parsed.is_ok_and(|address| address.is_ipv4() && !address.is_loopback())
    };
    let has_any = |text: &str| text.lines().filter_map(server).any(is_reachable);
    let chosen = if has_any(host) || !has_any(upstream) {
        host
    } else {
        upstream
    };
    let keep = |line: &&str| server(line).is_none_or(|s| given.is_empty() && is_reachable(s));
    let kept = chosen.lines().filter(keep);
    let mut lines: Vec<String> = given.iter().map(|s| format!("nameserver {s}")).collect();
    lines.extend(kept.map(str::to_owned));
    // Each line ends: an empty last one ends the one before it.
    lines.push(String::new());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_stub_is_replaced_by_its_upstream() {
        let stub = "nameserver 127.0.0.53\noptions edns0\n";
        let upstream = "nameserver 192.0.2.53\nsearch example.com\n";
        assert_eq!(choose(stub, upstream, &[]), upstream);
        assert_eq!(choose(upstream, "", &[]), upstream);
        assert_eq!(
            choose(
                "nameserver 127.0.0.1\nnameserver ::2\nnameserver 192.0.2.1\n",
                "",
                &[]
            ),
            "nameserver 192.0.2.1\n"
        );
    }

    #[test]
    fn servers_of_the_settings_stand_alone() {
        let given = [Ipv4Addr::new(192, 0, 2, 9)];
        let host = "nameserver 192.0.2.53\nsearch example.com\n";
        let text = choose(host, "", &given);
        assert_eq!(text, "nameserver 192.0.2.9\nsearch example.com\n");
        assert_eq!(resolvers(&text), given);
    }
}
