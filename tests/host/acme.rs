//! Automatic certificates against a real ACME server on loopback (Debian package `pebble`).

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use manifold::settings::{AcmeChallenge, AcmeSettings, Timings};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::host::Host;
use crate::tls::{Load, client, connect, with_tls};

/// An address that nobody has right now, and that no socket without a wish of its own gets before a
/// server is there: below the kernel's range for those. Source: ip(7), `ip_local_port_range`.
fn free() -> SocketAddr {
    let mut ports = std::iter::repeat_with(|| rand::random_range(10_000..30_000_u16));
    let free = ports.find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok());
    let listener = free.expect("there is always another one");
    listener.local_addr().expect("an address")
}

/// A process that ends with the test.
struct Server(Child);

impl Server {
    /// What it says goes to `said`.
    fn start(command: &mut Command, said: Stdio) -> Self {
        let command = command.stdout(said).stderr(Stdio::null());
        let started = command.spawn();
        Self(
            started
                .expect("pebble and pebble-challtestsrv are installed (Debian package `pebble`)"),
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// The ACME server, and a name server that sends every name here.
struct Pebble {
    _names: Server,
    _server: Server,
    own: String,
    management: SocketAddr,
    names: SocketAddr,
    said: PathBuf,
}

/// The life of a certificate, unless a test wants a short one.
const LIFE: u64 = 90 * 24 * 60 * 60;

impl Pebble {
    fn settings(directory: SocketAddr, root: &Path, challenge: AcmeChallenge) -> AcmeSettings {
        AcmeSettings {
            directory: format!("https://localhost:{}/dir", directory.port()),
            contact: vec!["mailto:test@example.test".to_owned()],
            root: Some(root.to_owned()),
            challenges: vec![challenge],
        }
    }

    /// It looks for proofs at the ports of `host`. `life`: of its certificates, in seconds.
    fn start(host: &Host, listen: SocketAddr, dir: &Path, own: String, life: u64) -> Self {
        let (management, dns, names) = (free(), free(), free());
        let mut command = Command::new("pebble-challtestsrv");
        command.args([
            "-http01",
            "",
            "-https01",
            "",
            "-tlsalpn01",
            "",
            "-defaultIPv6",
            "",
        ]);
        command.args([
            "-dns01",
            &dns.to_string(),
            "-management",
            &names.to_string(),
        ]);
        let name_server = Server::start(&mut command, Stdio::null());
        let config = serde_json::json!({ "pebble": {
            "listenAddress": listen.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": dir.join("pebble.crt"),
            "privateKey": dir.join("pebble.key"),
            "httpPort": host.http.port(),
            "tlsPort": host.https.expect("TLS").port(),
            "certificateValidityPeriod": life,
        }});
        let path = dir.join("pebble.json");
        std::fs::write(&path, config.to_string()).expect("written");
        let mut command = Command::new("pebble");
        command.arg("-config").arg(&path);
        command.args(["-dnsserver", &dns.to_string()]);
        command.env("PEBBLE_VA_NOSLEEP", "1");
        let said = dir.join("pebble.log");
        let file = std::fs::File::create(&said).expect("made");
        let server = Server::start(&mut command, file.into());
        for address in [listen, management, names] {
            host.until("pebble listens", || TcpStream::connect(address).is_ok());
        }
        Self {
            _names: name_server,
            _server: server,
            own,
            management,
            names,
            said,
        }
    }

    /// How many it has had, as it says: `orders in the db`, `accounts in memory`.
    fn count(&self, what: &str) -> usize {
        let said = std::fs::read_to_string(&self.said).expect("read");
        let counts = said.lines().filter_map(|line| {
            let (_, count) = line.split_once("There are now ")?;
            count.strip_suffix(what)?.trim().parse().ok()
        });
        counts.max().unwrap_or(0)
    }

    /// The root of this run: it is another one each time.
    fn root(&self) -> String {
        let stream = TcpStream::connect(self.management).expect("connected");
        let name = ServerName::try_from("localhost").expect("a name");
        let connection = ClientConnection::new(client(&self.own, &[]), name).expect("a client");
        let mut tls = StreamOwned::new(connection, stream);
        let request = "GET /roots/0 HTTP/1.0\r\nHost: localhost\r\n\r\n";
        tls.write_all(request.as_bytes()).expect("written");
        let mut reply = String::new();
        // Its end without a close_notify is an error that does not matter here.
        let _ = tls.read_to_string(&mut reply);
        let (_, body) = reply.split_once("\r\n\r\n").expect("a head");
        body.to_owned()
    }

    /// Lets a name lie elsewhere, or here again.
    fn place(&self, name: &str, address: Option<&str>) {
        let (path, body) = match address {
            Some(address) => (
                "/add-a",
                serde_json::json!({ "host": name, "addresses": [address] }),
            ),
            None => ("/clear-a", serde_json::json!({ "host": name })),
        };
        let body = body.to_string();
        let mut stream = TcpStream::connect(self.names).expect("connected");
        let head = format!(
            "POST {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream
            .write_all((head + &body).as_bytes())
            .expect("written");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("read");
        assert!(reply.contains(" 200 "), "{reply}");
    }
}

/// The server's own certificate, in files of that directory.
fn own(dir: &Path) -> String {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("names");
    let pem = params.self_signed(&key).expect("signed").pem();
    std::fs::write(dir.join("pebble.crt"), &pem).expect("written");
    std::fs::write(dir.join("pebble.key"), key.serialize_pem()).expect("written");
    pem
}

fn status(host: &Host, domain: &str) -> String {
    let domain = host.json("GET", &format!("/apps/odd/domains/{domain}"), "");
    let status = domain["acm_status"].as_str().unwrap_or_default().to_owned();
    // In the test's own output, for whoever wonders why it fails.
    eprintln!("{status}: {}", domain["acm_status_reason"]);
    status
}

/// A platform and its ACME server, an app with these domains, and automatic certificates for it.
struct Yard {
    host: Host,
    pebble: Pebble,
    _dir: tempfile::TempDir,
}

impl Yard {
    /// `lost`: domains that lie elsewhere.
    fn start(challenge: AcmeChallenge, life: u64, domains: &[&str], lost: &[&str]) -> Self {
        let (dir, listen) = (tempfile::tempdir().expect("a directory"), free());
        let own = own(dir.path());
        let root = dir.path().join("pebble.crt");
        let host = Host::start_with(Timings::default(), |settings| {
            with_tls(settings);
            settings.acme = Pebble::settings(listen, &root, challenge);
        });
        let pebble = Pebble::start(&host, listen, dir.path(), own, life);
        for name in lost {
            pebble.place(name, Some("127.0.0.9"));
        }
        host.web("odd", "odd", "python3 server.py");
        for domain in domains.iter().chain(lost) {
            host.ok(&["domains:add", domain, "-a", "odd"]);
        }
        host.ok(&["certs:auto:enable", "-a", "odd"]);
        Self {
            host,
            pebble,
            _dir: dir,
        }
    }

    fn until_ok(&self, domain: &str) {
        self.host
            .until("a certificate", || status(&self.host, domain) == "ok");
    }

    /// The certificate that a client gets who trusts this server only.
    fn shown(&self, config: &Arc<ClientConfig>, name: &str) -> Vec<u8> {
        let tls = connect(&self.host, config, name).expect("served and trusted");
        tls.conn.peer_certificates().expect("shown")[0].to_vec()
    }
}

fn automatic(challenge: AcmeChallenge) {
    let lost = "lost.example.test";
    let yard = Yard::start(
        challenge,
        LIFE,
        &["www.example.test", "api.example.test"],
        &[lost],
    );
    let (host, pebble) = (&yard.host, &yard.pebble);
    for domain in ["www.example.test", "api.example.test"] {
        yard.until_ok(domain);
    }
    let config = client(&pebble.root(), &[]);
    let shown = |name: &str| yard.shown(&config, name);
    let first = shown("www.example.test");
    assert_ne!(first, shown("api.example.test"));
    // What cannot be proved says why, is tried later, and harms nobody.
    host.until("the failure", || status(host, lost) == "failing");
    assert!(connect(host, &config, lost).is_err());
    let auto = host.ok(&["certs:auto", "-a", "odd"]);
    assert!(
        auto.contains("lost.example.test") && auto.contains("127.0.0.9"),
        "{auto}"
    );
    let logs = host.logs("odd");
    assert!(
        logs.contains("Certificate for www.example.test issued, valid until"),
        "{logs}"
    );
    assert!(
        logs.contains("Certificate for lost.example.test failed: "),
        "{logs}"
    );
    // Proofs are shown only while the server looks.
    let (status_code, ..) = host.get("www.example.test", "/.well-known/acme-challenge/x");
    assert_eq!(status_code, 200, "the app answers");
    pebble.place(lost, None);
    let account = host.dir.path().join("state/certs/acme-account.json");
    let before = std::fs::read(&account).expect("an account");
    host.ok(&["certs:auto:refresh", "-a", "odd"]);
    yard.until_ok(lost);
    shown(lost);
    host.until("a renewal", || shown("www.example.test") != first);
    assert_eq!(
        before,
        std::fs::read(&account).expect("an account"),
        "one account"
    );
    host.ok(&["domains:remove", "api.example.test", "-a", "odd"]);
    host.until("two certificates", || {
        let all = host.json("GET", "/apps/odd/sni-endpoints", "");
        all.as_array().map(Vec::len) == Some(2)
    });
    host.ok(&["certs:auto:disable", "-a", "odd"]);
    host.until("no certificates", || {
        host.json("GET", "/apps/odd/sni-endpoints", "") == serde_json::json!([])
    });
}

#[test]
fn certificates_come_by_http_01() {
    automatic(AcmeChallenge::Http01);
}

#[test]
fn certificates_come_by_tls_alpn_01() {
    automatic(AcmeChallenge::TlsAlpn01);
}

#[test]
fn a_certificate_is_renewed_by_itself_and_nobody_is_dropped() {
    let name = "www.example.test";
    // A renewal each 10 seconds or a little less.
    let yard = Yard::start(AcmeChallenge::Http01, 15, &[name], &[]);
    let host = &yard.host;
    yard.until_ok(name);
    let config = client(&yard.pebble.root(), &[]);
    let mut seen = vec![yard.shown(&config, name)];
    // Who comes anew refuses what has expired.
    let load = Load {
        host,
        config: &config,
        name,
        path: "/",
        clients: 1,
        pause: Duration::from_millis(5),
    };
    load.run(
        || load.anew(),
        |go_on| {
            for _ in 0..2 {
                host.until("a renewal", || !seen.contains(&yard.shown(&config, name)));
                seen.push(yard.shown(&config, name));
                go_on();
                assert_eq!(status(host, name), "ok");
            }
        },
    );
    assert!(yard.pebble.count("orders in the db") >= 3);
    assert_eq!(yard.pebble.count("accounts in memory"), 1);
}

#[test]
fn another_supervisor_has_the_certificates_and_the_account_of_the_one_before() {
    let (name, next) = ("www.example.test", "next.example.test");
    let mut yard = Yard::start(AcmeChallenge::TlsAlpn01, LIFE, &[name], &[]);
    yard.until_ok(name);
    let config = client(&yard.pebble.root(), &[]);
    let before = yard.shown(&config, name);
    let orders = yard.pebble.count("orders in the db");
    assert!(orders > 0, "it counts");
    yard.host.restart();
    assert_eq!(yard.shown(&config, name), before, "served at once");
    // It has looked at the old one when it has got the new one.
    yard.host.ok(&["domains:add", next, "-a", "odd"]);
    yard.until_ok(next);
    assert_eq!(yard.shown(&config, name), before);
    assert_ne!(yard.shown(&config, next), before);
    assert_eq!(yard.pebble.count("orders in the db"), orders + 1);
    assert_eq!(yard.pebble.count("accounts in memory"), 1);
}

/// Called where long waits are.
pub(crate) fn a_domain_that_failed_is_tried_again() {
    let name = "lost.example.test";
    let yard = Yard::start(AcmeChallenge::Http01, LIFE, &[], &[name]);
    let host = &yard.host;
    let failed = format!("Certificate for {name} failed: ");
    host.until("the failure", || status(host, name) == "failing");
    let begin = Instant::now();
    yard.pebble.place(name, None);
    let patience = begin + Duration::from_secs(90);
    while status(host, name) != "ok" {
        assert!(Instant::now() < patience, "{}", host.logs("odd"));
        std::thread::park_timeout(Duration::from_secs(1));
    }
    // After a minute, and up to a quarter of it.
    let took = begin.elapsed().as_secs_f64();
    assert!((55.0..85.0).contains(&took), "{took} s");
    assert_eq!(host.logs("odd").matches(&failed).count(), 1);
    yard.shown(&client(&yard.pebble.root(), &[]), name);
}
