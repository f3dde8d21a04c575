//! What stands in front of the router: load balancers with the PROXY protocol, trusted proxies; and
//! browsers that belong to a dyno.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use manifold::settings::{Settings, Timings};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use crate::host::Host;
use crate::tls;

/// An address of this machine that is a trusted proxy in these tests.
const BALANCER: [u8; 4] = [127, 0, 0, 7];

const APP: &str = "odd";

fn start(change: impl FnOnce(&mut Settings)) -> Host {
    let host = Host::start_with(Timings::default(), |settings| {
        settings.proxies.trusted = vec!["127.0.0.7".parse().expect("a block")];
        change(settings);
    });
    host.web(APP, "odd", "python3 server.py");
    host
}

fn connect(from: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    let from = SocketAddr::new(IpAddr::from(from), 0);
    socket.bind(&from.into()).expect("an address of ours");
    socket.connect(&to.into()).expect("the router");
    let stream = TcpStream::from(socket);
    let patience = Some(Duration::from_secs(30));
    stream.set_read_timeout(patience).expect("set");
    stream
}

fn head(lines: &str) -> String {
    format!("GET /head HTTP/1.1\r\nHost: {APP}.localhost\r\nConnection: close\r\n{lines}\r\n")
}

/// Sends all and reads until the router closes.
fn talk(mut stream: impl Read + Write, bytes: &[u8]) -> String {
    stream.write_all(bytes).expect("written");
    let mut reply = Vec::new();
    // A reset is an end too.
    let _ = stream.read_to_end(&mut reply);
    String::from_utf8_lossy(&reply).into_owned()
}

fn line(host: &Host) -> String {
    host.ok(&["logs", "-a", APP, "-d", "router", "-n", "1"])
}

const V1: &[u8] = b"PROXY TCP4 192.0.2.9 198.51.100.1 50000 443\r\n";

/// The same in version 2.
fn v2() -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    bytes.extend([192, 0, 2, 9, 198, 51, 100, 1, 0xc3, 0x50, 0x01, 0xbb]);
    bytes
}

#[test]
fn a_proxy_header_tells_the_client_in_both_versions() {
    let host = start(|settings| settings.proxies.protocol = true);
    for header in [V1.to_vec(), v2()] {
        // The client's own words are not the balancer's.
        let lines = "X-Forwarded-For: 203.0.113.5\r\nX-Forwarded-Proto: https\r\n";
        let stream = connect(BALANCER, host.http);
        let reply = talk(stream, &[&header, head(lines).as_bytes()].concat());
        for wanted in [
            "\r\nX-Forwarded-For: 192.0.2.9\r\n",
            "\r\nX-Forwarded-Port: 443\r\n",
            "\r\nX-Forwarded-Proto: http\r\n",
        ] {
            assert!(reply.contains(wanted), "{wanted} in {reply}");
        }
        assert!(line(&host).contains(" fwd=\"192.0.2.9\" "));
    }
    // It may come in pieces.
    let mut stream = connect(BALANCER, host.http);
    stream.set_nodelay(true).expect("set");
    let bytes = [V1, head("").as_bytes()].concat();
    let (last, others) = bytes.split_last().expect("not empty");
    for byte in others {
        stream.write_all(&[*byte]).expect("written");
    }
    let reply = talk(stream, &[*last]);
    assert!(reply.contains("X-Forwarded-For: 192.0.2.9\r\n"), "{reply}");
    // The balancer's own health check.
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";
    let stream = connect(BALANCER, host.http);
    let reply = talk(stream, &[&local[..], head("").as_bytes()].concat());
    assert!(reply.contains("X-Forwarded-For: 127.0.0.7\r\n"), "{reply}");
}

#[test]
fn a_balancer_without_its_header_and_a_liar_with_one_get_nothing() {
    let host = start(|settings| settings.proxies.protocol = true);
    let reply = talk(connect(BALANCER, host.http), head("").as_bytes());
    assert_eq!(reply, "");
    // From anybody else it is no HTTP.
    for header in [V1.to_vec(), v2()] {
        let stream = connect([127, 0, 0, 1], host.http);
        let reply = talk(stream, &[&header, head("").as_bytes()].concat());
        assert!(reply.starts_with("HTTP/1.1 400 "), "{reply}");
        assert_eq!(reply.matches("HTTP/1.1").count(), 1, "{reply}");
    }
    // Who comes straight is served as ever.
    let reply = talk(connect([127, 0, 0, 1], host.http), head("").as_bytes());
    assert!(reply.contains("X-Forwarded-For: 127.0.0.1\r\n"), "{reply}");
}

#[test]
fn a_proxy_header_comes_before_the_handshake() {
    let host = start(|settings| {
        settings.proxies.protocol = true;
        tls::with_tls(settings);
    });
    let config = tls::client(&host.ok(&["certs:ca"]), &[]);
    let ask = |header: &[u8], in_pieces: bool| {
        let mut stream = connect(BALANCER, host.https.expect("TLS is served"));
        stream.set_nodelay(true).expect("set");
        for piece in header.chunks(if in_pieces { 1 } else { 4096 }) {
            stream.write_all(piece).expect("written");
        }
        let name = ServerName::try_from(format!("{APP}.localhost")).expect("a name");
        let client = ClientConnection::new(Arc::clone(&config), name).expect("a client");
        talk(StreamOwned::new(client, stream), head("").as_bytes())
    };
    for header in [V1.to_vec(), v2()] {
        for in_pieces in [false, true] {
            let reply = ask(&header, in_pieces);
            for wanted in [
                "\r\nX-Forwarded-For: 192.0.2.9\r\n",
                "\r\nX-Forwarded-Proto: https\r\n",
                "\r\nX-Forwarded-Port: 443\r\n",
            ] {
                assert!(reply.contains(wanted), "{wanted} in {reply}");
            }
        }
    }
    // A handshake without one is not even answered.
    let mut stream = connect(BALANCER, host.https.expect("TLS is served"));
    let name = ServerName::try_from(format!("{APP}.localhost")).expect("a name");
    let mut client = ClientConnection::new(config, name).expect("a client");
    assert!(client.complete_io(&mut stream).is_err());
}

/// Version 2: command, family, addresses and what follows them.
fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
    let start = b"\r\n\r\n\0\r\nQUIT\n";
    [&start[..], &[command, family], &length, rest].concat()
}

#[test]
fn every_kind_of_proxy_header_is_read_and_every_bad_one_is_the_end() {
    let host = start(|settings| settings.proxies.protocol = true);
    let v4 = [192, 0, 2, 9, 198, 51, 100, 1, 0xc3, 0x50, 1, 0xbb];
    let mut v6 = [0; 36];
    v6[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
    (v6[15], v6[34], v6[35]) = (9, 1, 0xbb);
    // The client's address, mapped: it is told as what it is.
    let mut mapped = [0; 36];
    (mapped[10], mapped[11], mapped[34], mapped[35]) = (0xff, 0xff, 1, 0xbb);
    mapped[12..16].copy_from_slice(&[192, 0, 2, 9]);
    // No operation, ALPN, the name of the handshake, and one that nobody knows.
    let more = b"\x04\0\x03abc\x01\0\x02h2\x02\0\x01x\xee\0\0";
    let long = [&v4[..], b"\x04\x0f\xe1", &[0; 4065]].concat();
    let balancer = "127.0.0.7";
    let line = |words: &str| format!("PROXY {words}\r\n").into_bytes();
    let most = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    for (what, header, client) in [
        ("v1, TCP4", V1.to_vec(), "192.0.2.9"),
        (
            "v1, TCP6",
            line("TCP6 2001:db8::9 2001:db8::1 50000 443"),
            "2001:db8::9",
        ),
        ("v1, unknown", line("UNKNOWN"), balancer),
        (
            "v1, unknown, of the greatest length",
            line(&format!("UNKNOWN {most} {most} 65535 65535")),
            balancer,
        ),
        ("v2, TCP4", v2(), "192.0.2.9"),
        ("v2, TCP6", binary(0x21, 0x21, &v6), "2001:db8::9"),
        ("v2, mapped", binary(0x21, 0x21, &mapped), "192.0.2.9"),
        (
            "v2, TCP4 and more",
            binary(0x21, 0x11, &[&v4[..], more].concat()),
            "192.0.2.9",
        ),
        (
            "v2, TCP6 and more",
            binary(0x21, 0x21, &[&v6[..], more].concat()),
            "2001:db8::9",
        ),
        (
            "v2, of the greatest length",
            binary(0x21, 0x11, &long),
            "192.0.2.9",
        ),
        ("v2, local", binary(0x20, 0, &[]), balancer),
        (
            "v2, local with addresses",
            binary(0x20, 0x11, &v4),
            balancer,
        ),
        ("v2, unspecified", binary(0x21, 0, b"abc"), balancer),
        ("v2, Unix sockets", binary(0x21, 0x31, &[0; 216]), balancer),
    ] {
        let bytes = [&header[..], head("").as_bytes()].concat();
        let reply = talk(connect(BALANCER, host.http), &bytes);
        let wanted = format!("\r\nX-Forwarded-For: {client}\r\n");
        assert!(reply.contains(&wanted), "{what}: {reply}");
    }
    for (what, header) in [
        ("v1, too long", line(&format!("UNKNOWN {}", "x".repeat(92)))),
        (
            "v1, without end",
            [b"PROXY UNKNOWN ", &[b'x'; 200][..]].concat(),
        ),
        (
            "v1, a line end that is none",
            b"PROXY TCP4 192.0.2.9 198.51.100.1 50000 443\n".to_vec(),
        ),
        ("v1, in small letters", b"proxy UNKNOWN\r\n".to_vec()),
        ("v1, no family", line("")),
        (
            "v1, a family that is not the addresses'",
            line("TCP6 192.0.2.9 198.51.100.1 50000 443"),
        ),
        (
            "v1, no address",
            line("TCP4 localhost 198.51.100.1 50000 443"),
        ),
        (
            "v1, a port past the last",
            line("TCP4 192.0.2.9 198.51.100.1 50000 65536"),
        ),
        ("v2, too long", binary(0x21, 0x11, &[0; 4081])),
        (
            "v2, too short for its family",
            binary(0x21, 0x11, &v4[..11]),
        ),
        ("v2, another version", binary(0x31, 0x11, &v4)),
        ("v2, another command", binary(0x22, 0x11, &v4)),
        ("two of them", [V1, V1].concat()),
    ] {
        let bytes = [&header[..], head("").as_bytes()].concat();
        let reply = talk(connect(BALANCER, host.http), &bytes);
        // Behind a good one the second is no HTTP.
        let is_refused = if what == "two of them" {
            reply.starts_with("HTTP/1.1 400 ")
        } else {
            reply.is_empty()
        };
        assert!(is_refused, "{what}: {reply}");
    }
    // One that ends in the middle, and one that does not come: neither is waited for for long.
    let stream = connect(BALANCER, host.http);
    stream.shutdown(Shutdown::Write).expect("half closed");
    assert_eq!(talk(stream, b""), "");
    let begin = Instant::now();
    assert_eq!(talk(connect(BALANCER, host.http), &V1[..20]), "");
    assert!(begin.elapsed() < Duration::from_secs(10));
    // The client's own port is in it, too, for apps that want it.
    host.ok(&["features:enable", "http-peer-port", "-a", APP]);
    let port = "\r\nX-Forwarded-Peer-Port: 50000";
    let ask = || {
        let bytes = [V1, head("X-Forwarded-Peer-Port: 1\r\n").as_bytes()].concat();
        talk(connect(BALANCER, host.http), &bytes)
    };
    host.until("the router knows", || ask().contains(port));
    assert_eq!(ask().matches("Peer-Port").count(), 1);
    // What it says holds for each request of its connection.
    let mut stream = connect(BALANCER, host.http);
    let first = head("").replace("Connection: close\r\n", "");
    let bytes = [V1, first.as_bytes()].concat();
    stream.write_all(&bytes).expect("written");
    let reply = talk(stream, head("").as_bytes());
    let count = reply.matches("\r\nX-Forwarded-For: 192.0.2.9\r\n").count();
    assert_eq!(count, 2, "{reply}");
}

#[test]
fn only_a_trusted_proxy_speaks_for_its_clients() {
    let host = start(|_| {});
    let lines = "X-Forwarded-For: 203.0.113.5\r\nX-Forwarded-Proto: https\r\n";
    let reply = talk(connect(BALANCER, host.http), head(lines).as_bytes());
    for wanted in [
        "\r\nX-Forwarded-For: 203.0.113.5, 127.0.0.7\r\n",
        "\r\nX-Forwarded-Proto: https\r\n",
        "\r\nX-Forwarded-Port: 443\r\n",
    ] {
        assert!(reply.contains(wanted), "{wanted} in {reply}");
    }
    let seen = line(&host);
    assert!(seen.contains(" fwd=\"203.0.113.5, 127.0.0.7\" "), "{seen}");
    assert!(seen.contains(" protocol=https "), "{seen}");
    let reply = talk(connect([127, 0, 0, 1], host.http), head(lines).as_bytes());
    for wanted in [
        "\r\nX-Forwarded-For: 127.0.0.1\r\n",
        "\r\nX-Forwarded-Proto: http\r\n",
    ] {
        assert!(reply.contains(wanted), "{wanted} in {reply}");
    }
}

/// The port of the dyno that answered (each process has its own), and the cookie that was set.
fn visit(host: &Host, cookie: &str) -> (String, Option<String>) {
    let lines = if cookie.is_empty() {
        String::new()
    } else {
        format!("Cookie: a=b; {cookie}\r\n")
    };
    let request = head(&lines).replace("/head", "/port");
    let reply = host.raw(&request);
    let (head, body) = reply.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let set = head
        .lines()
        .find_map(|line| line.strip_prefix("Set-Cookie: "));
    let pair = set.map(|set| {
        let (pair, rest) = set.split_once(';').expect("attributes");
        assert!(pair.starts_with("heroku-session-affinity="), "{set}");
        assert_eq!(rest, " Path=/; HttpOnly");
        pair.to_owned()
    });
    (body.to_owned(), pair)
}

#[test]
fn a_browser_stays_with_its_dyno_as_long_as_that_lives() {
    let host = start(|_| {});
    assert_eq!(visit(&host, "").1, None, "not asked for");
    host.ok(&["features:enable", "http-session-affinity", "-a", APP]);
    host.ok(&["ps:scale", "web=3", "-a", APP]);
    host.until_up(APP, &["web.1", "web.2", "web.3"]);
    host.until("the router knows", || visit(&host, "").1.is_some());
    let ports = RefCell::new(BTreeSet::new());
    host.until("all three have answered", || {
        let (port, cookie) = visit(&host, "");
        let cookie = cookie.expect("a new browser gets one");
        for _ in 0..5 {
            assert_eq!(visit(&host, &cookie), (port.clone(), None));
        }
        // A cookie that is not ours is replaced.
        assert!(visit(&host, &format!("{cookie}0")).1.is_some());
        ports.borrow_mut().insert(port);
        ports.borrow().len() == 3
    });
    // An upgrade sets it, too.
    let mut stream = host.connect();
    let upgrade = format!(
        "GET /ws HTTP/1.1\r\nHost: {APP}.localhost\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
    );
    stream.write_all(upgrade.as_bytes()).expect("written");
    let mut reply = [0; 1024];
    let count = stream.read(&mut reply).expect("read");
    let reply = String::from_utf8_lossy(&reply[..count]).into_owned();
    assert!(
        reply.starts_with("HTTP/1.1 101 ") && reply.contains("\r\nSet-Cookie: heroku-session-"),
        "{reply}"
    );
    drop(stream);
    let (_, cookie) = visit(&host, "");
    let cookie = cookie.expect("a cookie");
    host.ok(&["ps:restart", "-a", APP]);
    host.until("its dyno is gone, and it gets a new one", || {
        visit(&host, &cookie).1.is_some_and(|new| new != cookie)
    });
}
