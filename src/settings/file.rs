//! The settings file and the flags that override it.
//!
//! ```toml
//! state  = "/var/lib/manifold"            # state directory
//! socket = "/run/manifold/manifold.sock"  # the API's Unix socket
//! http   = ["127.0.0.1:8080"]             # router; write "0.0.0.0:80" to serve the world
//! api    = ["127.0.0.1:5001"]             # API over TCP, with tokens; none unless set
//! domain = "localhost"                    # apps answer at APP.localhost
//! stack  = "host"                         # stack of new apps
//! router_threads = 2                      # default: one per core
//!
//! https  = []                             # router with TLS; write "0.0.0.0:443" to serve the world
//!
//! [acme]                                  # automatic certificates; defaults are Let's Encrypt's
//! directory = "https://acme-v02.api.letsencrypt.org/directory"
//! contact = ["mailto:you@example.com"]
//! challenges = ["http-01", "tls-alpn-01"]
//! root = "/etc/ssl/my-acme-root.pem"      # trusted beside the machine's own roots
//!
//! [proxies]                               # load balancers in front of the router
//! trusted = ["10.0.0.0/8"]                # X-Forwarded-For, -Proto, -Port: from these only
//! protocol = true                         # each of their connections begins with a PROXY header
//!
//! [timings]                               # seconds; defaults are the platform's
//! boot_timeout = 60
//! stop_grace = 30
//! release_timeout = 3600
//! build = 900
//! session_lifetime = 360
//! attach_timeout = 60
//! request_timeout = 30
//! idle_timeout = 55
//! hold_timeout = 75
//! connect_timeout = 5
//! metrics_period = 20
//!
//! [network]
//! allow = []                              # private blocks that every dyno may reach
//! resolvers = []                          # instead of the host's, for dynos
//! connections = 16384                     # of one dyno at once
//! ```
//!
//! `[disk]`, `[reserve]` and `[sizes.NAME]` are in `limits`.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::acme::{self, AcmeSettings, FileAcme};
use super::proxies::{self, FileProxies, ProxySettings};
use super::{DiskSettings, Paths, ReserveSettings, limits};
use crate::model::{AppName, DynoSize, Hostname, HostnameError, Net, StackName, StackNameError};

/// Where the settings file is looked for when `--config` does not say.
pub const DEFAULT_FILE: &str = "/etc/manifold/manifold.toml";

/// More threads than that only wait for each other.
const ROUTER_THREADS_MAX: usize = 64;

/// Everything `supervise` runs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// State directory. Default `/var/lib/manifold`.
    pub state: PathBuf,
    /// The API's Unix socket. Default `/run/manifold/manifold.sock`.
    pub socket: PathBuf,
    /// The router's listening addresses. Default `127.0.0.1:8080`.
    pub http: Vec<SocketAddr>,
    /// TCP addresses of the API, where callers need a token. Default none.
    pub api: Vec<SocketAddr>,
    /// The router's listening addresses with TLS. Default none.
    pub https: Vec<SocketAddr>,
    /// Apps answer at `APP.DOMAIN`. Default `localhost`.
    pub domain: String,
    /// Stack of new apps. Default `host`.
    pub stack: StackName,
    /// Automatic certificates.
    pub acme: AcmeSettings,
    /// Threads of the router, 1 to 64. Default: one per core.
    pub router_threads: usize,
    /// What stands in front of the router.
    pub proxies: ProxySettings,
    /// How long things may take.
    pub timings: Timings,
    /// Bounds of the disk.
    pub disk: DiskSettings,
    /// What is kept for the host.
    pub reserve: ReserveSettings,
    /// Dyno sizes of this host, beside those of the platform.
    pub sizes: Vec<DynoSize>,
    /// Where dynos get to.
    pub network: NetworkSettings,
}

/// The network of all dynos.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkSettings {
    /// Private blocks that every dyno may reach; never opens this host itself.
    pub allow: Vec<Net>,
    /// Resolvers of the dynos; empty: the host's.
    pub resolvers: Vec<Ipv4Addr>,
    /// Most tracked connections of one dyno; `None`: a sixteenth of the kernel's table.
    pub connections: Option<u32>,
}

/// Deadlines of the platform; only tests have a reason to change them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    /// Time a web dyno has to bind `$PORT` (R10). Default 60 s.
    pub boot_timeout: Duration,
    /// Between SIGTERM and SIGKILL (R12). Default 30 s.
    pub stop_grace: Duration,
    /// Longest release phase. Default 1 h. Source: Dev Center, "Release Phase".
    pub release_timeout: Duration,
    /// Longest build. Default 15 min. Source: Dev Center, "Slug Compiler", "Time limit".
    pub build: Duration,
    /// Life of a log session's URL. Default 360 s. Source: logplex.
    pub session_lifetime: Duration,
    /// Time the client of an attached one-off has to come. Default 60 s.
    pub attach_timeout: Duration,
    /// From the end of a request to the first byte of its answer (H12). Default 30 s.
    pub request_timeout: Duration,
    /// Silence of both sides of a request, after that (H15, H28). Default 55 s.
    pub idle_timeout: Duration,
    /// A request waits so long for a starting dyno (H20). Default 75 s.
    pub hold_timeout: Duration,
    /// One connect to a dyno (H19). Default 5 s.
    pub connect_timeout: Duration,
    /// Between two full looks at a dyno (R14, log-runtime-metrics). Default 20 s.
    pub metrics_period: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            boot_timeout: Duration::from_mins(1),
            stop_grace: Duration::from_secs(30),
            release_timeout: Duration::from_hours(1),
            build: Duration::from_mins(15),
            session_lifetime: Duration::from_mins(6),
            attach_timeout: Duration::from_mins(1),
            request_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(55),
            hold_timeout: Duration::from_secs(75),
            connect_timeout: Duration::from_secs(5),
            metrics_period: Duration::from_secs(20),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            state: "/var/lib/manifold".into(),
            socket: "/run/manifold/manifold.sock".into(),
            http: vec![SocketAddr::from(([127, 0, 0, 1], 8080))],
            api: Vec::new(),
            https: Vec::new(),
            domain: "localhost".to_owned(),
            stack: StackName::host(),
            acme: AcmeSettings::default(),
            router_threads: std::thread::available_parallelism()
                .map_or(1, usize::from)
                .min(ROUTER_THREADS_MAX),
            proxies: ProxySettings::default(),
            timings: Timings::default(),
            disk: DiskSettings::default(),
            reserve: ReserveSettings::default(),
            sizes: Vec::new(),
            network: NetworkSettings::default(),
        }
    }
}

/// Which platform of the host: each wins over the settings file.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct PlaceFlags {
    /// Settings file [default: /etc/manifold/manifold.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// State directory [default: /var/lib/manifold]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Unix socket of the API [default: /run/manifold/manifold.sock]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

/// Flags of `manifold supervise`: each wins over the settings file.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Flags {
    /// Which platform.
    #[command(flatten)]
    pub place: PlaceFlags,
    /// Address the router listens on; repeatable [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub http: Vec<SocketAddr>,
    /// TCP address of the API, where callers need a token; repeatable [default: none]
    #[arg(long, value_name = "ADDR")]
    pub api: Vec<SocketAddr>,
    /// Address the router listens on with TLS; repeatable [default: none]
    #[arg(long, value_name = "ADDR")]
    pub https: Vec<SocketAddr>,
    /// Apps answer at APP.DOMAIN [default: localhost]
    #[arg(long, value_name = "NAME")]
    pub domain: Option<String>,
    /// Stack of new apps [default: host]
    #[arg(long, value_name = "NAME")]
    pub stack: Option<String>,
}

/// Flags of `manifold uninstall`.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct UninstallFlags {
    /// Which platform.
    #[command(flatten)]
    pub place: PlaceFlags,
    /// Remove the state directory too: every app, slug, log and certificate
    #[arg(long)]
    pub purge: bool,
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("cannot read settings file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not TOML, an unknown key or a value of the wrong type. The source shows line and key.
    #[error("settings file {path} is not usable")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, column, key and reason.
        source: Box<toml::de::Error>,
    },
    /// A value outside its range.
    #[error("setting `{key}` = {value}: {reason}")]
    Value {
        /// The key or flag.
        key: &'static str,
        /// As written.
        value: String,
        /// What is wrong and what would be right.
        reason: String,
    },
}

/// The file as written. Unknown keys are refused: a typo must not become a default.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    state: Option<PathBuf>,
    socket: Option<PathBuf>,
    http: Option<Vec<SocketAddr>>,
    api: Option<Vec<SocketAddr>>,
    https: Option<Vec<SocketAddr>>,
    domain: Option<String>,
    stack: Option<String>,
    router_threads: Option<usize>,
    #[serde(default)]
    acme: FileAcme,
    #[serde(default)]
    proxies: FileProxies,
    #[serde(default)]
    timings: FileTimings,
    #[serde(default)]
    disk: limits::FileDisk,
    #[serde(default)]
    reserve: limits::FileReserve,
    #[serde(default)]
    sizes: BTreeMap<String, limits::FileSize>,
    #[serde(default)]
    network: FileNetwork,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileNetwork {
    #[serde(default)]
    allow: Vec<String>,
    #[serde(default)]
    resolvers: Vec<Ipv4Addr>,
    connections: Option<u32>,
}

/// Seconds, fractions allowed.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileTimings {
    boot_timeout: Option<f64>,
    stop_grace: Option<f64>,
    release_timeout: Option<f64>,
    build: Option<f64>,
    session_lifetime: Option<f64>,
    attach_timeout: Option<f64>,
    request_timeout: Option<f64>,
    idle_timeout: Option<f64>,
    hold_timeout: Option<f64>,
    connect_timeout: Option<f64>,
    metrics_period: Option<f64>,
}

impl Settings {
    /// Reads the settings file (`--config`, or [`DEFAULT_FILE`] if it exists) and lays the flags
    /// over it.
    ///
    /// # Errors
    /// The file cannot be read or parsed, or a value is out of range.
    pub fn load(flags: &Flags) -> Result<Self, SettingsError> {
        let file = match &flags.place.config {
            Some(path) => read(path)?,
            None => match read(Path::new(DEFAULT_FILE)) {
                Err(SettingsError::Read { source, .. })
                    if source.kind() == std::io::ErrorKind::NotFound =>
                {
                    File::default()
                }
                other => other?,
            },
        };
        merge(file, flags)
    }

    /// The layout of the state directory.
    pub fn paths(&self) -> Paths {
        Paths::new(&self.state)
    }

    /// `http://APP.DOMAIN[:PORT]/`: where the router answers for an app.
    pub fn web_url(&self, app: &AppName) -> String {
        let port = self.http.first().map_or(80, SocketAddr::port);
        if port == 80 {
            format!("http://{app}.{}/", self.domain)
        } else {
            format!("http://{app}.{}:{port}/", self.domain)
        }
    }

    /// `APP.DOMAIN`: the name every app answers at.
    ///
    /// # Panics
    /// Never: both parts were checked when they were made.
    pub fn default_hostname(&self, app: &AppName) -> Hostname {
        format!("{app}.{}", self.domain)
            .parse()
            .expect("an app name and a checked domain make a host name")
    }
}

fn read(path: &Path) -> Result<File, SettingsError> {
    let text = std::fs::read_to_string(path).map_err(|source| SettingsError::Read {
        path: path.to_owned(),
        source,
    })?;
    toml::from_str(&text).map_err(|source| SettingsError::Parse {
        path: path.to_owned(),
        source: Box::new(source),
    })
}

fn merge(file: File, flags: &Flags) -> Result<Settings, SettingsError> {
    let default = Settings::default();
    let state = flags
        .place
        .state
        .clone()
        .or(file.state)
        .unwrap_or(default.state);
    let http = match (flags.http.is_empty(), file.http) {
        (false, _) => flags.http.clone(),
        (true, Some(http)) => http,
        (true, None) => default.http,
    };
    if http.is_empty() {
        return Err(SettingsError::Value {
            key: "http",
            value: "[]".to_owned(),
            reason: "the router needs at least one address, such as \"127.0.0.1:8080\"".to_owned(),
        });
    }
    let https = match (flags.https.is_empty(), file.https) {
        (false, _) => flags.https.clone(),
        (true, https) => https.unwrap_or_default(),
    };
    let domain = flags.domain.clone().or(file.domain);
    let stack = flags.stack.clone().or(file.stack);
    Ok(Settings {
        state: absolute("state", &state)?,
        socket: absolute(
            "socket",
            flags
                .place
                .socket
                .as_ref()
                .or(file.socket.as_ref())
                .unwrap_or(&default.socket),
        )?,
        http,
        api: if flags.api.is_empty() {
            file.api.unwrap_or_default()
        } else {
            flags.api.clone()
        },
        https,
        domain: domain.map_or(Ok(default.domain), |name| check_domain(&name))?,
        stack: stack.map_or(Ok(default.stack), |name| check_stack(&name))?,
        acme: acme::merge(file.acme)?,
        router_threads: file
            .router_threads
            .map_or(Ok(default.router_threads), check_threads)?,
        proxies: proxies::merge(file.proxies)?,
        timings: timings(&file.timings)?,
        disk: limits::disk(&file.disk)?,
        reserve: limits::reserve(&file.reserve)?,
        sizes: limits::sizes(&file.sizes)?,
        network: network(&file.network)?,
    })
}

/// Paths are made absolute once: the keeper and the supervisor need not share a directory.
fn absolute(key: &'static str, path: &Path) -> Result<PathBuf, SettingsError> {
    std::path::absolute(path).map_err(|error| SettingsError::Value {
        key,
        value: path.display().to_string(),
        reason: error.to_string(),
    })
}

fn check_domain(name: &str) -> Result<String, SettingsError> {
    let value = |reason: String| SettingsError::Value {
        key: "domain",
        value: name.to_owned(),
        reason,
    };
    let hostname: Hostname = name
        .parse()
        .map_err(|error: HostnameError| value(error.to_string()))?;
    if hostname.wildcard_base().is_some() {
        return Err(value(
            "write the name below which apps answer, without `*.`".to_owned(),
        ));
    }
    // An app name has up to 30 bytes and a dot.
    if hostname.as_str().len() > 253 - 31 {
        return Err(value("too long to put an app name in front".to_owned()));
    }
    Ok(hostname.into())
}

fn check_threads(count: usize) -> Result<usize, SettingsError> {
    if (1..=ROUTER_THREADS_MAX).contains(&count) {
        return Ok(count);
    }
    Err(SettingsError::Value {
        key: "router_threads",
        value: count.to_string(),
        reason: format!("write a number from 1 to {ROUTER_THREADS_MAX}"),
    })
}

fn check_stack(name: &str) -> Result<StackName, SettingsError> {
    name.parse()
        .map_err(|error: StackNameError| SettingsError::Value {
            key: "stack",
            value: name.to_owned(),
            reason: error.to_string(),
        })
}

fn network(file: &FileNetwork) -> Result<NetworkSettings, SettingsError> {
    let value = |key, value: String, reason: String| SettingsError::Value { key, value, reason };
    let mut allow = Vec::with_capacity(file.allow.len());
    for text in &file.allow {
        let net = text.parse::<Net>();
        allow.push(net.map_err(|error| value("network.allow", text.clone(), error.to_string()))?);
    }
    if let Some(address) = file.resolvers.iter().find(|a| a.is_loopback()) {
        let reason = "a dyno has a loopback of its own: name a resolver's other address";
        let reason = reason.to_owned();
        return Err(value("network.resolvers", address.to_string(), reason));
    }
    if let Some(most) = file.connections.filter(|most| *most == 0) {
        let reason = "give at least 1".to_owned();
        return Err(value("network.connections", most.to_string(), reason));
    }
    Ok(NetworkSettings {
        allow,
        resolvers: file.resolvers.clone(),
        connections: file.connections,
    })
}

fn timings(file: &FileTimings) -> Result<Timings, SettingsError> {
    let default = Timings::default();
    Ok(Timings {
        boot_timeout: seconds("boot_timeout", file.boot_timeout, default.boot_timeout)?,
        request_timeout: seconds(
            "request_timeout",
            file.request_timeout,
            default.request_timeout,
        )?,
        idle_timeout: seconds("idle_timeout", file.idle_timeout, default.idle_timeout)?,
        hold_timeout: seconds("hold_timeout", file.hold_timeout, default.hold_timeout)?,
        connect_timeout: seconds(
            "connect_timeout",
            file.connect_timeout,
            default.connect_timeout,
        )?,
        metrics_period: seconds(
            "metrics_period",
            file.metrics_period,
            default.metrics_period,
        )?,
        stop_grace: seconds("stop_grace", file.stop_grace, default.stop_grace)?,
        release_timeout: seconds(
            "release_timeout",
            file.release_timeout,
            default.release_timeout,
        )?,
        build: seconds("build", file.build, default.build)?,
        session_lifetime: seconds(
            "session_lifetime",
            file.session_lifetime,
            default.session_lifetime,
        )?,
        attach_timeout: seconds(
            "attach_timeout",
            file.attach_timeout,
            default.attach_timeout,
        )?,
    })
}

fn seconds(
    key: &'static str,
    given: Option<f64>,
    default: Duration,
) -> Result<Duration, SettingsError> {
    match given {
        None => Ok(default),
        Some(value) if (0.01..=86_400.0).contains(&value) => Ok(Duration::from_secs_f64(value)),
        Some(value) => Err(SettingsError::Value {
            key,
            value: value.to_string(),
            reason: "give seconds between 0.01 and 86400".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, flags: &Flags) -> Result<Settings, String> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("manifold.toml");
        std::fs::write(&path, text).expect("a file");
        let flags = Flags {
            place: PlaceFlags {
                config: Some(path),
                ..PlaceFlags::default()
            },
            ..flags.clone()
        };
        Settings::load(&flags).map_err(|error| {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            format!("{error}\n{}", source.unwrap_or_default())
        })
    }

    #[test]
    fn an_empty_file_gives_the_defaults_and_stays_off_port_80() {
        let settings = parse("", &Flags::default()).expect("settings");
        assert_eq!(settings, Settings::default());
        assert_eq!(
            settings.http,
            ["127.0.0.1:8080".parse().expect("an address")]
        );
    }

    #[test]
    fn the_routers_limits_are_the_platforms() {
        let timings = Timings::default();
        let seconds = [
            (timings.connect_timeout, 5),
            (timings.request_timeout, 30),
            (timings.idle_timeout, 55),
            (timings.hold_timeout, 75),
        ];
        for (limit, wanted) in seconds {
            assert_eq!(limit, Duration::from_secs(wanted));
        }
    }

    #[test]
    fn flags_win_over_the_file() {
        let flags = Flags {
            http: vec!["127.0.0.1:0".parse().expect("an address")],
            domain: Some("apps.test".to_owned()),
            ..Flags::default()
        };
        let text = "http = [\"0.0.0.0:80\"]\ndomain = \"x.test\"\nstate = \"/srv/m\"\n[timings]\nboot_timeout = 0.5\nbuild = 90\n";
        let settings = parse(text, &flags).expect("settings");
        assert_eq!(settings.http, flags.http);
        assert_eq!(settings.domain, "apps.test");
        assert_eq!(settings.state, Path::new("/srv/m"));
        assert_eq!(settings.timings.boot_timeout, Duration::from_millis(500));
        assert_eq!(settings.timings.build, Duration::from_secs(90));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let error = parse("domain = \"a.test\"\nsokcet = \"/x\"\n", &Flags::default())
            .expect_err("an error");
        assert!(
            error.contains("sokcet") && error.contains("line 2"),
            "{error}"
        );
    }

    #[test]
    fn bad_values_are_named() {
        for (text, key) in [
            ("http = []", "http"),
            ("domain = \"*.a\"", "domain"),
            ("stack = \"Host\"", "stack"),
            ("router_threads = 0", "router_threads"),
            ("[timings]\nstop_grace = 0", "stop_grace"),
            ("[timings]\nstop_grace = nan", "stop_grace"),
            ("[timings]\nbuild = 0", "build"),
            ("http = [\"localhost\"]", "http"),
            ("[network]\nallow = [\"10.0.0.1/8\"]", "network.allow"),
            (
                "[network]\nresolvers = [\"127.0.0.53\"]",
                "network.resolvers",
            ),
            ("[network]\nconnections = 0", "network.connections"),
        ] {
            let error = parse(text, &Flags::default()).expect_err(text);
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn a_missing_file_that_was_asked_for_is_an_error() {
        let flags = Flags {
            place: PlaceFlags {
                config: Some("/nonexistent/manifold.toml".into()),
                ..PlaceFlags::default()
            },
            ..Flags::default()
        };
        let error = Settings::load(&flags).expect_err("an error");
        assert!(error.to_string().contains("/nonexistent/manifold.toml"));
    }
}
