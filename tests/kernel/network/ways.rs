//! What is closed, and what `network:allow` opens.

use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use libtest_mimic::Failed;

use super::prober::Prober;
use super::yard::{Canary, HOST, HOST_LAN, LAN, METADATA, SHARED, WORLD, Yard};
use crate::attack::{As, Report};
use crate::host::{Host, check, contains};
use crate::support;

const SETTINGS: &str = "[network]\nresolvers = [\"10.9.0.1\"]\n[timings]\nstop_grace = 2\n";

/// The names of the tests, as the attacks' rows have them.
pub(super) const CLOSED: &str = "network::a_dyno_reaches_out_and_nothing_else";
pub(super) const SPOOFED: &str = "network::addresses_cannot_be_borrowed";
pub(super) const FLOOD: &str = "network::one_dyno_cannot_use_up_connections";
pub(super) const REUSED: &str = "network::an_address_comes_back_without_its_flows";

/// Slots of a supervisor whose slots are soon used up (a switch of test builds).
const FEW_SLOTS: (&str, &str) = ("MANIFOLD_TEST_ONLY_SLOTS", "16");

/// How long a dyno listens for what must not come.
const LISTEN: &str = "1.5";

/// The API's TCP address, on every address of the host.
const API_PORT: u16 = 5001;

/// Services that listen wherever a dyno might get to.
struct Services {
    /// On every address of the host, loopback too.
    host: Canary,
    /// On every address of the world.
    world: Canary,
    /// Datagrams, in the world.
    datagrams: Canary,
}

pub(super) fn closed() -> Result<(), Failed> {
    let yard = Yard::new()?;
    let services = Services {
        host: yard.in_host(Canary::tcp)?,
        world: yard.in_world(Canary::tcp)?,
        datagrams: yard.in_world(|| Canary::udp(Ipv4Addr::UNSPECIFIED, 0))?,
    };
    let resolver = yard.in_world(|| Canary::udp(LAN, 53))?;
    let settings = format!("api = [\"0.0.0.0:{API_PORT}\"]\n{SETTINGS}");
    let mut host = Host::within(&yard.netns(), &settings)?;
    host.deploy_tiny("tiny")?;
    host.ok(&["ps:scale", "web=2", "-a", "tiny"])?;
    let mut report = Report::new(CLOSED);
    for attacker in [As::User, As::Root, As::Bare] {
        if attacker != As::User {
            host.weaken(attacker)?;
        }
        host.eventually("both are up", || host.all_up("tiny", &["web.1", "web.2"]))?;
        let mut prober = Prober::start(&host, "tiny")?;
        let prober = &mut prober;
        let reached = services.world.count();
        let out = format!("tcp {WORLD} {}", services.world.port);
        prober.expect(&out, "SUCCEEDED")?;
        report.holds("N-01", attacker, || host_services(prober, &services));
        report.holds("N-02", attacker, || control(&yard, &host, prober));
        report.holds("N-03", attacker, || link_local(prober, &services));
        report.holds("N-04", attacker, || neighbours(&host, prober));
        report.holds("N-06", attacker, || private(prober, &services));
        report.holds("N-12", attacker, || privileges(prober, attacker));
        if attacker == As::User {
            report.holds("N-07", attacker, || names(prober, &resolver));
            report.holds("N-08", attacker, || inbound(&yard, &host, prober));
            report.holds("N-13", attacker, || no_ipv6(prober, &services));
        }
        prober.expect(&out, "SUCCEEDED")?;
        // The kernel tells of a connection before the service's thread counts it.
        let came = || services.world.count() - reached;
        host.eventually("what was allowed came", || came() >= 2)?;
        check(
            came() == 2,
            format!("only what was allowed came: {}", came()),
        )?;
    }
    host.stop()?;
    report.finish(&[As::User, As::Root, As::Bare])
}

/// The host's addresses as a dyno may name them.
fn addresses(prober: &mut Prober) -> Result<[String; 3], Failed> {
    let gateway = prober.ask("gateway")?;
    Ok([gateway, HOST.to_string(), HOST_LAN.to_string()])
}

fn host_services(prober: &mut Prober, services: &Services) -> Result<String, Failed> {
    let port = services.host.port;
    for address in addresses(prober)? {
        prober.expect(&format!("tcp {address} {port}"), "BLOCKED ECONNREFUSED")?;
        prober.expect(&format!("udp {address} {port}"), "BLOCKED ETIMEDOUT")?;
    }
    prober.expect(&format!("tcp 127.0.0.1 {port}"), "BLOCKED ECONNREFUSED")?;
    prober.expect(&format!("six ::1 {port}"), "BLOCKED ECONNREFUSED")?;
    check(services.host.count() == 0, "somebody reached the service")?;
    Ok("ECONNREFUSED at 5 addresses of the host, no packet arrived".to_owned())
}

fn control(yard: &Yard, host: &Host, prober: &mut Prober) -> Result<String, Failed> {
    for address in addresses(prober)? {
        for port in [API_PORT, host.http.port()] {
            prober.expect(&format!("tcp {address} {port}"), "BLOCKED ECONNREFUSED")?;
        }
    }
    let socket = host.socket().display().to_string();
    prober.expect(&format!("unix {socket}"), "BLOCKED ENOENT")?;
    let api = (HOST, API_PORT).into();
    yard.in_host(|| TcpStream::connect_timeout(&api, Duration::from_secs(5)))?;
    Ok("the API's port and the router's: ECONNREFUSED; its socket: ENOENT".to_owned())
}

fn link_local(prober: &mut Prober, services: &Services) -> Result<String, Failed> {
    let port = services.world.port;
    prober.expect(&format!("tcp {METADATA} {port}"), "BLOCKED ETIMEDOUT")?;
    let datagrams = services.datagrams.port;
    prober.expect(&format!("udp {METADATA} {datagrams}"), "BLOCKED ETIMEDOUT")?;
    for address in ["fe80::1", "fd00:ec2::254"] {
        unreachable(prober, address, port)?;
    }
    Ok("169.254.169.254 answers nothing, IPv6 ones are not there".to_owned())
}

/// IPv6: none on the link, so nothing to attack and nobody to ask.
fn unreachable(prober: &mut Prober, address: &str, port: u16) -> Result<(), Failed> {
    let got = prober.ask(&format!("six {address} {port}"))?;
    let none = [
        "BLOCKED ENETUNREACH",
        "BLOCKED EINVAL",
        "BLOCKED EADDRNOTAVAIL",
    ];
    check(none.contains(&got.as_str()), format!("{address}: {got}"))
}

/// By their addresses and their ports.
fn neighbours(host: &Host, prober: &mut Prober) -> Result<String, Failed> {
    let ports = dynos(host)?;
    for port in [vec![22], ports.clone()].concat() {
        prober.expect(&format!("scan 1 40 {port}"), "nobody")?;
    }
    Ok(format!("40 addresses, ports 22 and {ports:?}: nobody"))
}

fn private(prober: &mut Prober, services: &Services) -> Result<String, Failed> {
    let (port, datagrams) = (services.world.port, services.datagrams.port);
    prober.expect(&format!("tcp {LAN} {port}"), "BLOCKED EHOSTUNREACH")?;
    prober.expect(&format!("tcp {SHARED} {port}"), "BLOCKED EHOSTUNREACH")?;
    prober.expect("tcp 192.168.7.7 80", "BLOCKED EHOSTUNREACH")?;
    prober.expect("tcp 172.31.255.1 80", "BLOCKED EHOSTUNREACH")?;
    // The kernel tells at most one refusal a second to each address; the rest is silence.
    let got = prober.ask(&format!("udp {LAN} {datagrams}"))?;
    check(
        ["BLOCKED EHOSTUNREACH", "BLOCKED ETIMEDOUT"].contains(&&*got),
        format!("udp {LAN}: {got}"),
    )?;
    prober.expect(&format!("udp 224.0.0.1 {datagrams}"), "BLOCKED ETIMEDOUT")?;
    check(services.datagrams.count() == 0, "a packet came through")?;
    Ok("RFC 1918 and CGNAT: EHOSTUNREACH; multicast: silence".to_owned())
}

/// The configured resolver answers; no other port of its address, no other address does, and a
/// name that points to the host leads nowhere.
fn names(prober: &mut Prober, resolver: &Canary) -> Result<String, Failed> {
    prober.expect("dns canary.test", &WORLD.to_string())?;
    check(resolver.count() > 0, "the resolver was asked")?;
    for address in addresses(prober)? {
        prober.expect(&format!("udp {address} 53"), "BLOCKED ETIMEDOUT")?;
    }
    prober.expect(&format!("tcp {LAN} 54"), "BLOCKED EHOSTUNREACH")?;
    // Rules see addresses: whatever name was asked for, the host's are closed.
    prober.expect(&format!("tcp {HOST} 53"), "BLOCKED ECONNREFUSED")?;
    Ok("port 53 of the configured resolver and nothing beside it".to_owned())
}

fn no_ipv6(prober: &mut Prober, services: &Services) -> Result<String, Failed> {
    for address in ["2001:db8::1", "fd00:ec2::254", "fe80::1", "ff02::1"] {
        unreachable(prober, address, services.world.port)?;
    }
    let links = prober.ask("read /proc/net/if_inet6")?;
    check(!links.contains("eth0"), links)?;
    let port = services.host.port;
    prober.expect(&format!("six ::ffff:{HOST} {port}"), "BLOCKED ECONNREFUSED")?;
    prober.expect(&format!("six ::1 {port}"), "BLOCKED ECONNREFUSED")?;
    Ok("off on the link; mapped addresses meet the same rules".to_owned())
}

/// `$PORT` of the two web dynos that run, from their own last words about it.
fn dynos(host: &Host) -> Result<Vec<u16>, Failed> {
    let logs = host.logs("tiny");
    let ports: Vec<u16> = logs
        .lines()
        .filter_map(|line| line.split_once("tiny listens on ")?.1.trim().parse().ok())
        .collect();
    check(ports.len() >= 2, format!("two ports: {logs}"))?;
    Ok(ports[ports.len() - 2..].to_vec())
}

fn privileges(prober: &mut Prober, attacker: As) -> Result<String, Failed> {
    let packet = if attacker == As::Bare {
        "BLOCKED EPERM"
    } else {
        "BLOCKED EAFNOSUPPORT"
    };
    for (attempt, expected) in [
        // SO_MARK, IP_TRANSPARENT (IP_FREEBIND is no privilege), ports below 1024.
        ("option SOL_SOCKET 36 1", "BLOCKED EPERM"),
        ("option SOL_IP 19 1", "BLOCKED EPERM"),
        // To a link of its own anybody may: there is one.
        ("device wan0", "BLOCKED ENODEV"),
        ("device eth0", "SUCCEEDED"),
        ("low 80", "BLOCKED EACCES"),
        ("make AF_INET SOCK_RAW 1", "BLOCKED EPERM"),
        ("make AF_INET SOCK_DGRAM 1", "BLOCKED EACCES"),
        ("make AF_PACKET SOCK_RAW 3", packet),
        ("low 8080", "SUCCEEDED"),
    ] {
        prober.expect(attempt, expected)?;
    }
    Ok("EPERM for marks, transparency, raw and packet sockets; EACCES for port 80".to_owned())
}

/// From the host and from its network only the router leads in.
fn inbound(yard: &Yard, host: &Host, prober: &mut Prober) -> Result<String, Failed> {
    let own: Ipv4Addr = prober.ask("own")?.parse()?;
    let wait = Duration::from_secs(1);
    let ports = dynos(host)?;
    let [first, second, ..] = own.octets();
    let addresses = (2..40)
        .step_by(4)
        .map(|last| Ipv4Addr::new(first, second, 0, last));
    let all: Vec<std::net::SocketAddr> = addresses
        .flat_map(|address| ports.iter().map(move |port| (address, *port).into()))
        .collect();
    let reached = yard.in_host(|| {
        std::thread::scope(|scope| {
            let tries: Vec<_> = all
                .iter()
                .map(|to| scope.spawn(move || TcpStream::connect_timeout(to, wait).is_ok()))
                .collect();
            let reached = tries.into_iter().map(|one| one.join().unwrap_or(true));
            Ok(all
                .iter()
                .copied()
                .zip(reached)
                .filter(|(_, is_reached)| *is_reached)
                .collect::<Vec<_>>())
        })
    })?;
    check(reached.is_empty(), format!("the host reached {reached:?}"))?;
    for port in &ports {
        let to = (HOST, *port).into();
        let from_world = yard.in_world(|| TcpStream::connect_timeout(&to, wait));
        check(from_world.is_err(), format!("the world reached {to}"))?;
    }
    let http = host.http;
    yard.in_host(|| TcpStream::connect_timeout(&http, wait))
        .map_err(|error| format!("the router: {error}"))?;
    Ok(format!(
        "ports {ports:?}: neither from the host nor from the world"
    ))
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

/// A dyno cannot take another address; what someone sends who can, the host drops.
pub(super) fn spoofed() -> Result<(), Failed> {
    let yard = Yard::new()?;
    let mut host = Host::within(&yard.netns(), SETTINGS)?;
    host.deploy_tiny("tiny")?;
    let mut report = Report::new(SPOOFED);
    for attacker in [As::User, As::Root, As::Bare] {
        if attacker != As::User {
            host.weaken(attacker)?;
            host.eventually("web.1 is up", || host.all_up("tiny", &["web.1"]))?;
        }
        report.holds("N-05", attacker, || {
            let mut prober = Prober::start(&host, "tiny")?;
            for (attempt, expected) in [
                ("address 172.16.0.250", "BLOCKED EPERM"),
                ("mac 02:00:00:00:00:01", "BLOCKED EPERM"),
                ("make AF_INET SOCK_RAW 255", "BLOCKED EPERM"),
                ("bind 172.16.0.250", "BLOCKED EADDRNOTAVAIL"),
            ] {
                prober.expect(attempt, expected)?;
            }
            borrowed(&yard, &host)
        });
    }
    host.stop()?;
    report.finish(&[As::User, As::Root, As::Bare])
}

fn borrowed(yard: &Yard, host: &Host) -> Result<String, Failed> {
    let outside = yard.in_world(Canary::tcp)?;
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
    check(outside.count() == 1, "a spoofed packet came out")?;
    Ok("EPERM inside; the host drops what comes from foreign addresses".to_owned())
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
    let settings = SETTINGS.replace("[network]\n", "[network]\nconnections = 50\n");
    let mut host = Host::within(&yard.netns(), &settings)?;
    host.deploy_tiny("tiny")?;
    let mut report = Report::new(FLOOD);
    for attacker in [As::User, As::Root, As::Bare] {
        if attacker != As::User {
            host.weaken(attacker)?;
        }
        report.holds("N-09", attacker, || flows(&yard, &host));
        if attacker == As::User {
            report.holds("N-10", attacker, || poured(&yard, &host));
        }
    }
    host.stop()?;
    report.finish(&[As::User, As::Root, As::Bare])
}

fn flows(yard: &Yard, host: &Host) -> Result<String, Failed> {
    let outside = yard.in_world(|| Canary::udp(WORLD, 0))?;
    let mut greedy = Prober::start(host, "tiny")?;
    let mut modest = Prober::start(host, "tiny")?;
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
    check(outside.count() <= 71, format!("{} came", outside.count()))?;
    Ok(format!(
        "{answered} of 300 flows with a limit of 50; all 20 of another dyno"
    ))
}

/// What one dyno pours out takes neither the router nor another dyno's network away. Bandwidth is
/// not shaped: that is documented.
fn poured(yard: &Yard, host: &Host) -> Result<String, Failed> {
    let outside = yard.in_world(|| Canary::udp(WORLD, 0))?;
    // Another service: what the flood leaves in the first one's queue is not the platform's.
    let other = yard.in_world(|| Canary::udp(WORLD, 0))?;
    let mut greedy = Prober::start(host, "tiny")?;
    let mut modest = Prober::start(host, "tiny")?;
    let sent = std::thread::scope(|scope| {
        let pour = format!("pour {WORLD} {} 3", outside.port);
        let flood = scope.spawn(move || greedy.ask(&pour));
        let mut served = 0;
        while !flood.is_finished() {
            let answer = yard.in_host(|| Ok(host.get("tiny.localhost", "/")))?;
            let (status, _) = answer.ok_or("no answer through the router")?;
            check(status == 200, format!("status {status}"))?;
            served += 1;
        }
        modest.expect(&format!("flows {WORLD} {} 20", other.port), "20")?;
        let sent = flood.join().map_err(|_| "it panicked")??;
        check(served > 0, "nothing was asked meanwhile")?;
        Ok::<String, Failed>(sent)
    })?;
    check(sent.parse::<u32>()? > 0, format!("{sent} datagrams sent"))?;
    Ok("not shaped; router and another dyno go on".to_owned())
}

/// An address is not given to another dyno before its flows are forgotten.
pub(super) fn reused() -> Result<(), Failed> {
    let yard = Yard::new()?;
    let mut host = Host::unlaunched(SETTINGS)?;
    let netns = format!("--net={}", yard.netns().display());
    host.wrapper = vec!["nsenter".to_owned(), netns, "--".to_owned()];
    host.env
        .push((FEW_SLOTS.0.to_owned(), FEW_SLOTS.1.to_owned()));
    host.launch()?;
    host.deploy_tiny("tiny")?;
    let mut report = Report::new(REUSED);
    report.holds("N-11", As::User, || flows_are_forgotten(&yard, &host));
    host.stop()?;
    report.finish(&[As::User])
}

fn flows_are_forgotten(yard: &Yard, host: &Host) -> Result<String, Failed> {
    let world = yard.in_world(|| std::net::UdpSocket::bind((WORLD, 0)))?;
    world.set_read_timeout(Some(Duration::from_secs(10)))?;
    let port = world.local_addr()?.port();
    let mut old = Prober::start(host, "tiny")?;
    let address = old.ask("own")?;
    let open = format!("open_flow 4000 {WORLD} {port}");
    let peer = std::thread::scope(|scope| {
        let opened = scope.spawn(|| old.expect(&open, "SUCCEEDED"));
        let mut buffer = [0; 100];
        let (_, peer) = world.recv_from(&mut buffer)?;
        world.send_to(b"welcome", peer)?;
        opened.join().map_err(|_| "it panicked")??;
        Ok::<_, Failed>(peer)
    })?;
    // The way back is open as long as its dyno is there.
    world.send_to(b"for the old one", peer)?;
    old.expect(&format!("listen 4000 {LISTEN}"), "for the old one")?;
    drop(old);
    let mut dynos = 0;
    loop {
        let mut new = Prober::start(host, "tiny")?;
        dynos += 1;
        if new.ask("own")? == address {
            let heard = std::thread::scope(|scope| {
                let listen = format!("listen 4000 {LISTEN}");
                let heard = scope.spawn(move || new.ask(&listen));
                while !heard.is_finished() {
                    world.send_to(b"for the old one", peer)?;
                    support::pause();
                }
                heard.join().map_err(|_| "it panicked")?
            })?;
            check(heard == "nothing", format!("the new dyno got {heard:?}"))?;
            return Ok("nothing of the old dyno's flow".to_owned());
        }
        check(
            dynos < 100,
            format!("{address} did not come back in {dynos} dynos"),
        )?;
    }
}
