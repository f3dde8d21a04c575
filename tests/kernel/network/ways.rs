//! What is closed, and what `network:allow` opens.

use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use libtest_mimic::Failed;

use super::prober::Prober;
use super::yard::{Canary, HOST, HOST_LAN, LAN, METADATA, SHARED, WORLD, Yard};
use crate::host::{Host, check, contains};
use crate::support;

const SETTINGS: &str = "[network]\nresolvers = [\"10.9.0.1\"]\n[timings]\nstop_grace = 2\n";

pub(super) fn closed() -> Result<(), Failed> {
    let yard = Yard::new()?;
    let service = yard.in_host(Canary::tcp)?;
    let outside = yard.in_world(Canary::tcp)?;
    let multicast = yard.in_world(|| Canary::udp(Ipv4Addr::UNSPECIFIED, 0))?;
    let _resolver = yard.in_world(|| Canary::udp(LAN, 53))?;
    let host = Host::within(&yard.netns(), SETTINGS)?;
    host.deploy_tiny("tiny")?;
    host.ok(&["ps:scale", "web=2", "-a", "tiny"])?;
    host.eventually("both are up", || host.all_up("tiny", &["web.1", "web.2"]))?;
    let mut prober = Prober::start(&host, "tiny")?;
    let (port, out) = (service.port, outside.port);
    prober.expect(&format!("tcp {WORLD} {out}"), "SUCCEEDED")?;
    prober.expect("dns canary.test", &WORLD.to_string())?;
    let reached = outside.count();
    let gateway = prober.ask("gateway")?;
    for address in [gateway.as_str(), &HOST.to_string(), &HOST_LAN.to_string()] {
        prober.expect(&format!("tcp {address} {port}"), "BLOCKED ECONNREFUSED")?;
        prober.expect(&format!("udp {address} {port}"), "BLOCKED ETIMEDOUT")?;
    }
    prober.expect(&format!("tcp 127.0.0.1 {port}"), "BLOCKED ECONNREFUSED")?;
    prober.expect(&format!("six ::1 {port}"), "BLOCKED ECONNREFUSED")?;
    prober.expect(&format!("tcp {METADATA} {out}"), "BLOCKED ETIMEDOUT")?;
    prober.expect(&format!("tcp {LAN} {out}"), "BLOCKED EHOSTUNREACH")?;
    prober.expect(&format!("tcp {SHARED} {out}"), "BLOCKED EHOSTUNREACH")?;
    prober.expect("tcp 192.168.7.7 80", "BLOCKED EHOSTUNREACH")?;
    prober.expect(
        &format!("udp {LAN} {}", multicast.port),
        "BLOCKED EHOSTUNREACH",
    )?;
    prober.expect(
        &format!("udp 224.0.0.1 {}", multicast.port),
        "BLOCKED ETIMEDOUT",
    )?;
    // IPv6: none on the link, so nothing to attack and nobody to ask.
    for address in ["fd00:ec2::254", "2001:db8::1", "fe80::1"] {
        let got = prober.ask(&format!("six {address} {port}"))?;
        let none = [
            "BLOCKED ENETUNREACH",
            "BLOCKED EINVAL",
            "BLOCKED EADDRNOTAVAIL",
        ];
        check(none.contains(&got.as_str()), format!("{address}: {got}"))?;
    }
    let links = prober.ask("read /proc/net/if_inet6")?;
    check(!links.contains("eth0"), links)?;
    // Neighbours, by their addresses and their ports.
    prober.expect("scan 1 40 22", "nobody")?;
    for dyno in dynos(&host)? {
        prober.expect(&format!("scan 1 40 {dyno}"), "nobody")?;
    }
    privileges(&mut prober)?;
    check(service.count() == 0, "nobody reached the host's service")?;
    check(multicast.count() == 0, "no packet came by multicast")?;
    check(outside.count() == reached, "only what was allowed came")?;
    inbound(&yard, &host, &mut prober)
}

/// `$PORT` of the web dynos, from their own words.
fn dynos(host: &Host) -> Result<Vec<u16>, Failed> {
    let logs = host.logs("tiny");
    let ports: Vec<u16> = logs
        .lines()
        .filter_map(|line| line.split_once("tiny listens on ")?.1.trim().parse().ok())
        .collect();
    check(ports.len() >= 2, format!("two ports: {logs}"))?;
    Ok(ports)
}

fn privileges(prober: &mut Prober) -> Result<(), Failed> {
    for (attempt, expected) in [
        // SO_MARK, IP_TRANSPARENT, IP_FREEBIND is no privilege; ports below 1024.
        ("option SOL_SOCKET 36 1", "BLOCKED EPERM"),
        ("option SOL_IP 19 1", "BLOCKED EPERM"),
        ("low 80", "BLOCKED EACCES"),
        ("make AF_INET SOCK_RAW 1", "BLOCKED EPERM"),
        ("make AF_INET SOCK_DGRAM 1", "BLOCKED EACCES"),
        ("make AF_PACKET SOCK_RAW 3", "BLOCKED EAFNOSUPPORT"),
        ("low 8080", "SUCCEEDED"),
    ] {
        prober.expect(attempt, expected)?;
    }
    Ok(())
}

/// From the host and from its network only the router leads in.
fn inbound(yard: &Yard, host: &Host, prober: &mut Prober) -> Result<(), Failed> {
    let own: Ipv4Addr = prober.ask("own")?.parse()?;
    let wait = Duration::from_secs(1);
    let ports = dynos(host)?;
    for last in (2..40).step_by(4) {
        let octets = own.octets();
        let address = Ipv4Addr::new(octets[0], octets[1], 0, last);
        for port in &ports {
            let to = (address, *port).into();
            let from_host = yard.in_host(|| TcpStream::connect_timeout(&to, wait));
            check(from_host.is_err(), format!("the host reached {to}"))?;
        }
    }
    for port in &ports {
        let to = (HOST, *port).into();
        let from_world = yard.in_world(|| TcpStream::connect_timeout(&to, wait));
        check(from_world.is_err(), format!("the world reached {to}"))?;
    }
    let http = host.http;
    yard.in_host(|| TcpStream::connect_timeout(&http, wait))
        .map(drop)
        .map_err(|error| format!("the router: {error}").into())
}

pub(super) fn allowed() -> Result<(), Failed> {
    let yard = Yard::new()?;
    let service = yard.in_host(Canary::tcp)?;
    let lan = yard.in_world(Canary::tcp)?;
    let datagrams = yard.in_world(|| Canary::udp(LAN, 0))?;
    let host = Host::within(&yard.netns(), SETTINGS)?;
    host.deploy_tiny("back")?;
    host.ok(&["create", "front"])?;
    host.ok(&["deploy", &crate::host::app_dir("tiny"), "-a", "front"])?;
    let mut front = Prober::start(&host, "front")?;
    let mut back = Prober::start(&host, "back")?;
    // One app to another, whatever its dynos are at the moment.
    let said = host.cli(&["network:allow", "back", "-a", "front"]);
    check(said.status.success(), format!("{said:?}"))?;
    contains(&String::from_utf8_lossy(&said.stderr), "http://198.18.0.1/")?;
    front.until("get 198.18.0.1 80", "hello from web.1")?;
    back.expect("tcp 198.18.0.1 80", "BLOCKED EHOSTUNREACH")?;
    back.expect("tcp 198.18.0.2 80", "BLOCKED EHOSTUNREACH")?;
    front.expect("tcp 198.18.0.1 81", "BLOCKED EHOSTUNREACH")?;
    host.ok(&["ps:scale", "web=2", "-a", "back"])?;
    host.eventually("two", || {
        let web_2 = ("web.2".to_owned(), "up".to_owned());
        host.states("back").contains(&web_2)
    })?;
    front.until("get 198.18.0.1 80", "hello from web.2")?;
    front.until("get 198.18.0.1 80", "hello from web.1")?;
    host.ok(&["ps:scale", "web=0", "-a", "back"])?;
    front.until("tcp 198.18.0.1 80", "BLOCKED EHOSTUNREACH")?;
    host.ok(&["ps:scale", "web=1", "-a", "back"])?;
    front.until("get 198.18.0.1 80", "hello from web.1")?;
    ports(
        &host,
        &mut front,
        &mut back,
        (service.port, lan.port, datagrams.port),
    )?;
    // A restart of the supervisor forgets nothing.
    drop((front, back));
    listed(&host)?;
    let mut host = host;
    host.stop()?;
    host.launch()?;
    host.eventually("up again", || host.all_up("back", &["web.1"]))?;
    let mut front = Prober::start(&host, "front")?;
    front.until("get 198.18.0.1 80", "hello from web.1")?;
    // With the app goes the way to it.
    host.ok(&["destroy", "-a", "back", "--confirm", "back"])?;
    front.until("tcp 198.18.0.1 80", "BLOCKED EHOSTUNREACH")?;
    let rules = host.ok(&["network", "-a", "front", "--json"])?;
    check(!rules.contains("back"), rules)
}

/// Ports of the host and of its network, over TCP and UDP.
fn ports(
    host: &Host,
    front: &mut Prober,
    back: &mut Prober,
    (service, lan, datagrams): (u16, u16, u16),
) -> Result<(), Failed> {
    let on_host = format!("{HOST}:{service}");
    let on_lan = format!("{LAN}:{lan}");
    let over_udp = format!("{LAN}:{datagrams}/udp");
    for target in [&on_host, &on_lan, &over_udp] {
        host.ok(&["network:allow", target, "-a", "front"])?;
    }
    front.until(&format!("hold {HOST} {service}"), "SUCCEEDED")?;
    front.until(&format!("hold {LAN} {lan}"), "SUCCEEDED")?;
    front.until(&format!("udp {LAN} {datagrams}"), "SUCCEEDED")?;
    // Nothing but that: not the next address, port or protocol, and not for another app.
    front.expect(&format!("tcp {HOST_LAN} {service}"), "BLOCKED ECONNREFUSED")?;
    front.expect(
        &format!("tcp {HOST} {}", service - 1),
        "BLOCKED ECONNREFUSED",
    )?;
    front.expect(&format!("tcp {LAN} {datagrams}"), "BLOCKED EHOSTUNREACH")?;
    back.expect(&format!("tcp {HOST} {service}"), "BLOCKED ECONNREFUSED")?;
    back.expect(&format!("tcp {LAN} {lan}"), "BLOCKED EHOSTUNREACH")?;
    // Closing cuts what is open.
    for target in [&on_host, &on_lan, &over_udp] {
        host.ok(&["network:deny", target, "-a", "front"])?;
    }
    front.until(&format!("tcp {HOST} {service}"), "BLOCKED ECONNREFUSED")?;
    front.until(&format!("tcp {LAN} {lan}"), "BLOCKED EHOSTUNREACH")?;
    for address in [HOST, LAN] {
        // Flows are forgotten right after the rule is gone: with the next packet at the latest.
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while !front
            .ask(&format!("echo {address}"))?
            .starts_with("BLOCKED")
        {
            check(
                std::time::Instant::now() < deadline,
                format!("{address} still answers"),
            )?;
        }
    }
    let again = host.cli(&["network:deny", &on_lan, "-a", "front"]);
    check(again.status.code() == Some(3), format!("{again:?}"))?;
    let own = host.cli(&["network:allow", "front", "-a", "front"]);
    check(own.status.code() == Some(5), format!("{own:?}"))
}

fn listed(host: &Host) -> Result<(), Failed> {
    let text = host.ok(&["network", "-a", "front"])?;
    contains(&text, "back     app   http://198.18.0.1/")?;
    let rules: serde_json::Value =
        serde_json::from_str(&host.ok(&["network", "-a", "front", "--json"])?)?;
    check(rules[0]["target"] == "back", format!("{rules}"))?;
    contains(&host.logs("front"), "Allow network to back by user")
}

/// Someone who owns the dyno's network namespace borrows an address: the host drops it.
pub(super) fn spoofed() -> Result<(), Failed> {
    let yard = Yard::new()?;
    let outside = yard.in_world(Canary::tcp)?;
    let host = Host::within(&yard.netns(), SETTINGS)?;
    host.deploy_tiny("tiny")?;
    let state = host.dir.path().join("state");
    let is_web = |env: &[String]| env.iter().any(|v| v == "DYNO=web.1");
    let pid = support::find_process(is_web, &state).ok_or("no process of web.1")?;
    let netns = std::path::PathBuf::from(format!("/proc/{pid}/ns/net"));
    let to = (WORLD, outside.port).into();
    let connect = |from: Option<Ipv4Addr>| {
        super::yard::within(&netns, || {
            let socket = std::net::SocketAddr::from((from.unwrap_or(Ipv4Addr::UNSPECIFIED), 0));
            bound(socket, to)
        })
    };
    connect(None)?;
    // Connected is not yet counted: that takes the other side's thread.
    host.eventually("from its own address it gets out", || outside.count() == 1)?;
    let foreign = Ipv4Addr::new(172, 16, 0, 250);
    let enter = |args: &[&str]| -> Result<(), Failed> {
        let mut command = std::process::Command::new("nsenter");
        command.arg(format!("--net={}", netns.display())).arg("--");
        let output = command.args(args).output()?;
        check(output.status.success(), format!("{args:?}: {output:?}"))
    };
    for address in [foreign, WORLD.octets().map(|b| b ^ 1).into()] {
        enter(&[
            "ip",
            "address",
            "add",
            &format!("{address}/32"),
            "dev",
            "eth0",
        ])?;
        let error = connect(Some(address)).err().map(|error| error.kind());
        check(
            error == Some(std::io::ErrorKind::TimedOut),
            format!("{address}: {error:?}"),
        )?;
    }
    check(outside.count() == 1, "no spoofed packet came out")
}

fn bound(from: std::net::SocketAddr, to: std::net::SocketAddr) -> std::io::Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
    use nix::sys::socket::{setsockopt, sockopt};
    use std::os::fd::AsRawFd as _;
    let own = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let wait = nix::sys::time::TimeVal::new(2, 0);
    setsockopt(&own, sockopt::SendTimeout, &wait)?;
    let address = |at: std::net::SocketAddr| match at {
        std::net::SocketAddr::V4(at) => SockaddrIn::from(at),
        std::net::SocketAddr::V6(_) => SockaddrIn::new(0, 0, 0, 0, 0),
    };
    bind(own.as_raw_fd(), &address(from))?;
    match connect(own.as_raw_fd(), &address(to)) {
        // What a send timeout makes of a connect that nobody answers.
        Err(nix::errno::Errno::EINPROGRESS) => Err(std::io::ErrorKind::TimedOut.into()),
        other => Ok(other?),
    }
}

pub(super) fn flood() -> Result<(), Failed> {
    let yard = Yard::new()?;
    let outside = yard.in_world(|| Canary::udp(WORLD, 0))?;
    let settings = SETTINGS.replace("[network]\n", "[network]\nconnections = 50\n");
    let host = Host::within(&yard.netns(), &settings)?;
    host.deploy_tiny("tiny")?;
    let mut greedy = Prober::start(&host, "tiny")?;
    let mut modest = Prober::start(&host, "tiny")?;
    let answered: u32 = greedy
        .ask(&format!("flows {WORLD} {} 300", outside.port))?
        .parse()?;
    check(
        (40..=50).contains(&answered),
        format!("{answered} of 300 flows with a limit of 50"),
    )?;
    greedy.expect(
        &format!("udp {WORLD} {}", outside.port),
        "BLOCKED ETIMEDOUT",
    )?;
    modest.expect(&format!("flows {WORLD} {} 20", outside.port), "20")?;
    check(outside.count() <= 71, format!("{} came", outside.count()))
}
