//! The resolver configuration a dyno gets.

use std::net::IpAddr;

/// The host's resolver configuration; when it names only a loopback stub, the upstream servers
/// behind that stub.
pub fn resolv_conf() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    choose(
        &read("/etc/resolv.conf"),
        &read("/run/systemd/resolve/resolv.conf"),
    )
}

fn choose(host: &str, upstream: &str) -> String {
    let reachable = |text: &str| {
        let mut servers = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("nameserver"))
            .map(str::trim);
        servers.any(|s| {
            s.parse::<IpAddr>()
                .is_ok_and(|address| !address.is_loopback())
        })
    };
    let chosen = if reachable(host) || !reachable(upstream) {
        host
    } else {
        upstream
    };
    let keep = |line: &&str| {
        let server = line.trim().strip_prefix("nameserver").map(str::trim);
        server.is_none_or(|s| {
            s.parse::<IpAddr>()
                .is_ok_and(|address| !address.is_loopback())
        })
    };
    let kept = chosen.lines().filter(keep);
    kept.flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_stub_is_replaced_by_its_upstream() {
        let stub = "nameserver 127.0.0.53\noptions edns0\n";
        let upstream = "nameserver 192.0.2.53\nsearch example.com\n";
        assert_eq!(choose(stub, upstream), upstream);
        assert_eq!(choose(upstream, ""), upstream);
        assert_eq!(
            choose("nameserver 127.0.0.1\nnameserver 192.0.2.1\n", ""),
            "nameserver 192.0.2.1\n"
        );
    }
}
