//! Automatic certificates against a real ACME server on loopback (Debian package `pebble`).

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use manifold::settings::{AcmeChallenge, AcmeSettings, Timings};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use crate::host::Host;
use crate::tls::{client, connect, with_tls};

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
    fn start(command: &mut Command) -> Self {
        let command = command.stdout(Stdio::null()).stderr(Stdio::null());
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
}

impl Pebble {
    fn settings(directory: SocketAddr, root: &Path, challenge: AcmeChallenge) -> AcmeSettings {
        AcmeSettings {
            directory: format!("https://localhost:{}/dir", directory.port()),
            contact: vec!["mailto:test@example.test".to_owned()],
            root: Some(root.to_owned()),
            challenges: vec![challenge],
        }
    }

    /// It looks for proofs at the ports of `host`.
    fn start(host: &Host, listen: SocketAddr, dir: &Path, own: String) -> Self {
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
        let name_server = Server::start(&mut command);
        let config = serde_json::json!({ "pebble": {
            "listenAddress": listen.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": dir.join("pebble.crt"),
            "privateKey": dir.join("pebble.key"),
            "httpPort": host.http.port(),
            "tlsPort": host.https.expect("TLS").port(),
        }});
        let path = dir.join("pebble.json");
        std::fs::write(&path, config.to_string()).expect("written");
        let mut command = Command::new("pebble");
        command.arg("-config").arg(&path);
        command.args(["-dnsserver", &dns.to_string()]);
        command.env("PEBBLE_VA_NOSLEEP", "1");
        let server = Server::start(&mut command);
        for address in [listen, management, names] {
            host.until("pebble listens", || TcpStream::connect(address).is_ok());
        }
        Self {
            _names: name_server,
            _server: server,
            own,
            management,
            names,
        }
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

fn automatic(challenge: AcmeChallenge) {
    let (dir, listen) = (tempfile::tempdir().expect("a directory"), free());
    let own = own(dir.path());
    let root = dir.path().join("pebble.crt");
    let host = Host::start_with(Timings::default(), |settings| {
        with_tls(settings);
        settings.acme = Pebble::settings(listen, &root, challenge);
    });
    let pebble = Pebble::start(&host, listen, dir.path(), own);
    pebble.place("lost.example.test", Some("127.0.0.9"));
    host.web("odd", "odd", "python3 server.py");
    for domain in ["www.example.test", "api.example.test", "lost.example.test"] {
        host.ok(&["domains:add", domain, "-a", "odd"]);
    }
    host.ok(&["certs:auto:enable", "-a", "odd"]);
    for domain in ["www.example.test", "api.example.test"] {
        host.until("a certificate", || status(&host, domain) == "ok");
    }
    let config = client(&pebble.root(), &[]);
    let shown = |name: &str| {
        let tls = connect(&host, &config, name).expect("served and trusted");
        tls.conn.peer_certificates().expect("shown")[0].to_vec()
    };
    let first = shown("www.example.test");
    assert_ne!(first, shown("api.example.test"));
    // What cannot be proved says why, is tried later, and harms nobody.
    host.until("the failure", || {
        status(&host, "lost.example.test") == "failing"
    });
    assert!(connect(&host, &config, "lost.example.test").is_err());
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
    pebble.place("lost.example.test", None);
    let account = host.dir.path().join("state/certs/acme-account.json");
    let before = std::fs::read(&account).expect("an account");
    host.ok(&["certs:auto:refresh", "-a", "odd"]);
    host.until("the third certificate", || {
        status(&host, "lost.example.test") == "ok"
    });
    shown("lost.example.test");
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
