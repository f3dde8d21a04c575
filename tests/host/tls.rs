//! TLS at the router: names, certificates that change under load, redirects.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use manifold::settings::{Settings, Timings};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::host::Host;

/// A connection to the router's TLS address.
pub(crate) type Tls = StreamOwned<ClientConnection, TcpStream>;

pub(crate) fn with_tls(settings: &mut Settings) {
    settings.https = vec![([127, 0, 0, 1], 0).into()];
}

/// A client that trusts these roots (PEM).
pub(crate) fn client(roots: &str, protocols: &[&str]) -> Arc<ClientConfig> {
    let mut store = RootCertStore::empty();
    for der in CertificateDer::pem_slice_iter(roots.as_bytes()) {
        store.add(der.expect("PEM")).expect("a root");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
    // Each handshake shows its certificate.
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

/// Shakes hands for a name.
pub(crate) fn connect(host: &Host, config: &Arc<ClientConfig>, name: &str) -> std::io::Result<Tls> {
    let stream = TcpStream::connect(host.https.expect("TLS is served"))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let server = ServerName::try_from(name.to_owned()).expect("a name");
    let connection = ClientConnection::new(Arc::clone(config), server).expect("a client");
    let mut tls = StreamOwned::new(connection, stream);
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock)?;
    }
    Ok(tls)
}

/// One request on a connection that stays; head and body.
pub(crate) fn request(tls: &mut Tls, name: &str, path: &str) -> (String, String) {
    let head = format!("GET {path} HTTP/1.1\r\nHost: {name}\r\n\r\n");
    tls.write_all(head.as_bytes()).expect("written");
    let mut reply = String::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some((head, body)) = reply.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|l| l.strip_prefix("Content-Length: "));
            let length: usize = length.map_or(0, |l| l.parse().expect("a number"));
            if body.len() >= length {
                return (head.to_owned(), body.to_owned());
            }
        }
        let count = tls.read(&mut buffer).expect("read");
        assert!(count > 0, "closed after {reply:?}");
        reply.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
}

/// What clients do while something changes below them.
pub(crate) struct Load<'a> {
    pub(crate) host: &'a Host,
    pub(crate) config: &'a Arc<ClientConfig>,
    pub(crate) name: &'a str,
    pub(crate) path: &'a str,
    /// Clients that stay on their connections, and as many that come anew for each request.
    pub(crate) clients: usize,
    /// Of each, between two requests.
    pub(crate) pause: Duration,
}

impl Load<'_> {
    /// All get a 200 until `changes` has returned: so many requests. `anew` makes one on a connection
    /// of its own, and gives the answer's head; what `changes` is given waits until 20 more were
    /// answered.
    pub(crate) fn run(
        &self,
        anew: impl Fn() -> String + Sync,
        changes: impl FnOnce(&dyn Fn()),
    ) -> usize {
        let (is_over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for at in 0..2 * self.clients {
                let (is_over, served, anew) = (&is_over, &served, &anew);
                scope.spawn(move || {
                    let _end = End(is_over);
                    let mut stays = (at % 2 == 0)
                        .then(|| connect(self.host, self.config, self.name).expect("served"));
                    while !is_over.load(Ordering::Relaxed) {
                        let head = match &mut stays {
                            Some(tls) => request(tls, self.name, self.path).0,
                            None => anew(),
                        };
                        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
                        served.fetch_add(1, Ordering::Relaxed);
                        std::thread::park_timeout(self.pause);
                    }
                });
            }
            let _end = End(&is_over);
            changes(&|| {
                let goal = served.load(Ordering::Relaxed) + 20;
                let is_over = || is_over.load(Ordering::Relaxed);
                self.host.until("requests go on", || {
                    served.load(Ordering::Relaxed) >= goal || is_over()
                });
                assert!(!is_over(), "a client has failed");
            });
        });
        served.into_inner()
    }

    /// For [`Load::run`], over TLS.
    pub(crate) fn anew(&self) -> String {
        let mut tls = connect(self.host, self.config, self.name).expect("served");
        request(&mut tls, self.name, self.path).0
    }
}

/// However it ends, it is over for the others, too.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn shown(tls: &Tls) -> Vec<u8> {
    let certificates = tls.conn.peer_certificates().expect("shown");
    certificates[0].to_vec()
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

fn authority() -> Authority {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "test root");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).expect("signed").pem();
    Authority {
        issuer: Issuer::new(params, key),
        pem,
    }
}

impl Authority {
    /// Writes a chain and a key; their paths.
    fn issue(&self, dir: &Path, file: &str, names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(names).expect("names");
        let cert = params.signed_by(&key, &self.issuer).expect("signed");
        let (chain_path, key_path) = (
            dir.join(format!("{file}.crt")),
            dir.join(format!("{file}.key")),
        );
        std::fs::write(&chain_path, cert.pem() + &self.pem).expect("written");
        std::fs::write(&key_path, key.serialize_pem()).expect("written");
        let text = |path: &Path| path.to_str().expect("text").to_owned();
        (text(&chain_path), text(&key_path))
    }
}

fn line(host: &Host, app: &str) -> String {
    let logs = host.ok(&["logs", "-a", app, "-d", "router", "-n", "1"]);
    logs.trim_end().to_owned()
}

#[test]
fn every_app_has_https_by_the_local_authority() {
    let host = Host::start_with(Timings::default(), with_tls);
    host.web("odd", "odd", "python3 server.py");
    let ca = host.ok(&["certs:ca"]);
    let config = client(&ca, &["http/1.1"]);
    let mut tls = connect(&host, &config, "odd.localhost").expect("trusted");
    let port = host.https.expect("TLS").port();
    for _ in 0..2 {
        let (head, body) = request(&mut tls, &format!("ODD.localhost:{port}"), "/head");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(body.contains("X-Forwarded-Proto: https"), "{body}");
        assert!(
            body.contains(&format!("X-Forwarded-Port: {port}")),
            "{body}"
        );
    }
    assert!(
        line(&host, "odd").contains(" protocol=https"),
        "{}",
        line(&host, "odd")
    );
    // Names that no app has get no certificate.
    for name in ["nobody.localhost", "odd.example"] {
        assert!(connect(&host, &config, name).is_err(), "{name}");
    }
    // The authority is the same after a look at its files, which are root's alone.
    let dir = host.dir.path().join("state/certs");
    for entry in std::fs::read_dir(&dir).expect("there").flatten() {
        let mode = entry.metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{:?}", entry.path());
    }
}

#[test]
fn a_request_for_another_name_than_the_handshakes_is_h31() {
    let host = Host::start_with(Timings::default(), with_tls);
    host.web("odd", "odd", "python3 server.py");
    host.web("other", "odd", "python3 server.py");
    let config = client(&host.ok(&["certs:ca"]), &[]);
    let mut tls = connect(&host, &config, "odd.localhost").expect("trusted");
    let (head, _) = request(&mut tls, "other.localhost", "/");
    assert!(
        head.starts_with("HTTP/1.1 421 Misdirected Request"),
        "{head}"
    );
    let line = line(&host, "other");
    assert!(
        line.contains("at=error code=H31 desc=\"Misdirected Request\""),
        "{line}"
    );
    assert!(
        line.contains(" dyno= connect= service= status=421 bytes= "),
        "{line}"
    );
    // The connection is as good as before.
    assert!(
        request(&mut tls, "odd.localhost", "/")
            .0
            .starts_with("HTTP/1.1 200 ")
    );
}

#[test]
fn certificates_are_given_refused_replaced_and_removed() {
    let host = Host::start_with(Timings::default(), with_tls);
    host.web("odd", "odd", "python3 server.py");
    host.ok(&["domains:add", "www.example.test", "-a", "odd"]);
    let ca = authority();
    let config = client(&ca.pem, &[]);
    assert!(
        connect(&host, &config, "www.example.test").is_err(),
        "none yet"
    );
    let dir = host.dir.path();
    let (wrong, wrong_key) = ca.issue(dir, "wrong", &["other.test"]);
    let (status, said) = host.fails(&["certs:add", &wrong, &wrong_key, "-a", "odd"]);
    assert_eq!(status, 5, "{said}");
    assert!(
        said.contains("other.test") && said.contains("www.example.test"),
        "{said}"
    );
    let (crt, key) = ca.issue(dir, "good", &["www.example.test"]);
    let (status, said) = host.fails(&["certs:add", &crt, &wrong_key, "-a", "odd"]);
    assert_eq!(status, 5, "{said}");
    assert!(
        said.contains("key does not belong to the certificate"),
        "{said}"
    );
    host.ok(&["certs:add", &crt, &key, "-a", "odd"]);
    let first = shown(&connect(&host, &config, "www.example.test").expect("served"));
    let info = host.ok(&["certs:info", "-a", "odd"]);
    assert!(
        info.contains("www.example.test") && info.contains("CN=test root"),
        "{info}"
    );
    let list = host.json("GET", "/apps/odd/sni-endpoints", "");
    assert!(!list.to_string().contains("PRIVATE KEY"), "{list}");
    let (crt, key) = ca.issue(dir, "next", &["www.example.test"]);
    host.ok(&["certs:update", &crt, &key, "-a", "odd"]);
    let second = shown(&connect(&host, &config, "www.example.test").expect("served"));
    assert_ne!(first, second);
    // Another app does not get at it.
    host.ok(&["create", "thief"]);
    let (_, said) = host.fails(&["certs:add", &crt, &key, "-a", "thief"]);
    assert!(said.contains("thief.localhost"), "{said}");
    host.ok(&["certs:remove", "-a", "odd"]);
    assert!(
        connect(&host, &config, "www.example.test").is_err(),
        "removed"
    );
    let left = std::fs::read_dir(dir.join("state/certs"))
        .expect("there")
        .flatten();
    let left: Vec<_> = left
        .map(|e| e.file_name().into_string().expect("text"))
        .collect();
    assert!(left.iter().all(|name| name.starts_with("ca-")), "{left:?}");
}

#[test]
fn certificate_changes_under_load_drop_nothing() {
    let host = Host::start_with(Timings::default(), with_tls);
    host.web("odd", "odd", "python3 server.py");
    host.ok(&["domains:add", "www.example.test", "-a", "odd"]);
    let ca = authority();
    let (crt, key) = ca.issue(host.dir.path(), "0", &["www.example.test"]);
    host.ok(&["certs:add", &crt, &key, "-a", "odd"]);
    let config = client(&ca.pem, &[]);
    let load = Load {
        host: &host,
        config: &config,
        name: "www.example.test",
        path: "/",
        clients: 2,
        pause: Duration::ZERO,
    };
    load.run(
        || load.anew(),
        |go_on| {
            let mut seen = Vec::new();
            for round in 1..=5 {
                let (crt, key) =
                    ca.issue(host.dir.path(), &round.to_string(), &["www.example.test"]);
                host.ok(&["certs:update", &crt, &key, "-a", "odd"]);
                let now = shown(&connect(&host, &config, "www.example.test").expect("served"));
                assert!(!seen.contains(&now), "round {round} shows an old one");
                seen.push(now);
                go_on();
            }
        },
    );
}

#[test]
fn plain_requests_are_redirected_and_strictness_is_told() {
    let host = Host::start_with(Timings::default(), with_tls);
    host.web("odd", "odd", "python3 server.py");
    let config = client(&host.ok(&["certs:ca"]), &[]);
    let port = host.https.expect("TLS").port();
    host.ok(&["features:enable", "http-force-ssl", "-a", "odd"]);
    host.ok(&["features:enable", "http-hsts", "-a", "odd"]);
    host.until("the redirect", || host.get("odd.localhost", "/").0 == 301);
    let (_, head, _) = host.get("odd.localhost:80", "/a?b=c");
    assert!(
        head.contains(&format!(
            "\r\nLocation: https://odd.localhost:{port}/a?b=c\r\n"
        )),
        "{head}"
    );
    assert!(
        !head.contains("Strict-Transport"),
        "not over plain HTTP: {head}"
    );
    let line = line(&host, "odd");
    assert!(
        line.contains("at=info method=GET path=\"/a?b=c\"") && line.contains("dyno= "),
        "{line}"
    );
    assert!(line.contains("status=301 bytes= protocol=http"), "{line}");
    let reply = host.raw(
        "POST /x HTTP/1.1\r\nHost: odd.localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    );
    assert!(reply.starts_with("HTTP/1.1 308 "), "{reply}");
    // The app's answers, and the router's own: an error, a refusal, an answer in the app's place.
    let ask = |bytes: &str| {
        let mut tls = connect(&host, &config, "odd.localhost").expect("trusted");
        tls.write_all(bytes.as_bytes()).expect("written");
        let mut reply = Vec::new();
        // An end without its word is one, too.
        let _ = tls.read_to_end(&mut reply);
        String::from_utf8_lossy(&reply).into_owned()
    };
    for (line, lines, status) in [
        ("GET /", "", 200),
        ("GET /close", "", 503),
        ("GET /", "X : bad\r\n", 400),
        ("GET /", "Expect: x\r\n", 417),
        ("OPTIONS /", "Max-Forwards: 0\r\n", 200),
    ] {
        let end = "Host: odd.localhost\r\nConnection: close";
        let reply = ask(&format!("{line} HTTP/1.1\r\n{end}\r\n{lines}\r\n"));
        assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{reply}");
        let strict = "\r\nStrict-Transport-Security: max-age=31536000\r\n";
        assert_eq!(reply.matches(strict).count(), 1, "{line}: {reply}");
    }
    host.ok(&["features:disable", "http-force-ssl", "-a", "odd"]);
    host.until("no redirect", || host.get("odd.localhost", "/").0 == 200);
}

#[test]
fn https_that_is_not_served_cannot_be_forced() {
    let host = Host::start(Timings::default());
    host.ok(&["create", "odd"]);
    for words in [
        &["features:enable", "http-force-ssl", "-a", "odd"][..],
        &["certs:auto:enable", "-a", "odd"],
    ] {
        let (status, said) = host.fails(words);
        assert_eq!(status, 5, "{said}");
        assert!(said.contains("--https"), "{said}");
    }
}

/// The first message of a handshake by somebody who speaks no newer version than this.
fn client_hello(version: u16) -> Vec<u8> {
    let mut hello = version.to_be_bytes().to_vec();
    hello.extend([7; 32]); // random
    hello.push(0); // no session
    // TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_RSA_WITH_AES_128_CBC_SHA; no compression.
    hello.extend([0, 4, 0xc0, 0x2f, 0, 0x2f, 1, 0]);
    // supported_groups: x25519; signature_algorithms: ecdsa_secp256r1_sha256.
    let extensions = [0, 10, 0, 4, 0, 2, 0, 29, 0, 13, 0, 4, 0, 2, 4, 3];
    hello.extend(u16::try_from(extensions.len()).expect("few").to_be_bytes());
    hello.extend(extensions);
    let length = u16::try_from(hello.len()).expect("short");
    // A record of the first version, as all begin; a handshake message of type 1.
    let mut bytes = vec![22, 3, 1];
    bytes.extend((length + 4).to_be_bytes());
    bytes.extend([1, 0]);
    bytes.extend(length.to_be_bytes());
    bytes.extend(hello);
    bytes
}

/// Source: RFC 8996 (older versions must not be spoken), RFC 5246 section 7.2 (alert 70).
#[test]
fn versions_before_tls_1_2_are_refused() {
    let host = Host::start_with(Timings::default(), with_tls);
    for version in [0x0300, 0x0301, 0x0302] {
        let mut stream = TcpStream::connect(host.https.expect("TLS is served")).expect("connected");
        let patience = Some(Duration::from_secs(30));
        stream.set_read_timeout(patience).expect("set");
        stream.write_all(&client_hello(version)).expect("written");
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).expect("closed in order");
        // One record: a fatal alert, protocol_version.
        assert_eq!(reply[0], 21, "{version:x}: {reply:?}");
        assert_eq!(reply[3..], [0, 2, 2, 70], "{version:x}: {reply:?}");
    }
}
