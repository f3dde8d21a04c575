//! The grammar: every command and what it takes.

use std::path::PathBuf;
use std::sync::OnceLock;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand};

use super::exit::{Done, Fault};
use super::git;
use super::orders::place;
pub(super) use super::orders::{BuildpackPlace, Create, Deploy, Logs, Run};
use crate::model::{Feature, ScaleRequest};
use crate::settings;

/// Your own Heroku on one Linux machine.
#[derive(Debug, Parser)]
#[command(
    name = "manifold",
    bin_name = "manifold",
    version,
    subcommand_required = true,
    after_help = "Exit status: 0 done, 1 other failure, 2 usage, 3 not found, 4 conflict, 5 refused value, \
                  6 no permission, 7 no supervisor runs, 8 supervisor fault, 9 build failed, \
                  10 connection lost, 11 release command failed; `run` ends as its command does."
)]
pub(super) struct Cli {
    /// The supervisor's Unix socket [default: as in /etc/manifold/manifold.toml, else
    /// /run/manifold/manifold.sock]
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "MANIFOLD_SOCKET",
        hide_env_values = true
    )]
    pub(super) socket: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Which app.
#[derive(Clone, Debug, Args)]
pub(super) struct App {
    /// App to act on
    #[arg(
        short = 'a',
        long = "app",
        value_name = "APP",
        env = "MANIFOLD_APP",
        hide_env_values = true
    )]
    app: Option<String>,
    /// What the folder's git remote says, asked once.
    #[arg(skip)]
    of_folder: OnceLock<Option<String>>,
}

impl App {
    /// The app, if one is given.
    pub(super) fn given(&self) -> Option<&str> {
        self.app.as_deref().filter(|name| !name.is_empty())
    }

    /// The app that must be given: by name, or by the git remote `manifold` of this folder.
    pub(super) fn required(&self) -> Done<&str> {
        self.given()
            .or_else(|| self.of_folder.get_or_init(git::app_of_folder).as_deref())
            .ok_or_else(|| {
                Fault::usage("no app was named").hint(
                    "name one with --app APP (-a APP), set MANIFOLD_APP, or add a git remote with `manifold git:remote`",
                )
            })
    }
}

/// `--json`.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Json {
    /// Print the API's objects as JSON
    #[arg(long = "json")]
    pub(super) is_on: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    // Apps.
    /// Create an app
    #[command(name = "create", visible_alias = "apps:create")]
    Create(Create),
    /// List the apps
    #[command(name = "apps", visible_alias = "list")]
    Apps(Json),
    /// Show an app
    #[command(name = "info", visible_alias = "apps:info")]
    Info {
        #[command(flatten)]
        app: App,
        #[command(flatten)]
        json: Json,
    },
    /// Destroy an app with its dynos, releases and logs
    #[command(name = "destroy", visible_alias = "apps:destroy")]
    Destroy {
        #[command(flatten)]
        app: App,
        /// Do not ask: the app's name once more
        #[arg(short, long, value_name = "APP")]
        confirm: Option<String>,
    },
    /// Give an app another name
    #[command(name = "rename", visible_alias = "apps:rename")]
    Rename {
        /// The new name
        name: String,
        #[command(flatten)]
        app: App,
    },
    /// Print the URL of an app
    #[command(name = "open", visible_alias = "apps:open")]
    Open {
        #[command(flatten)]
        app: App,
    },
    /// Build a folder or archive and release it
    #[command(name = "deploy")]
    Deploy(Deploy),

    // Dynos.
    /// List the dynos of an app
    #[command(name = "ps")]
    Ps {
        /// Only dynos of these process types
        #[arg(value_name = "TYPE")]
        types: Vec<String>,
        #[command(flatten)]
        app: App,
        #[command(flatten)]
        json: Json,
    },
    /// Change how many dynos run and how large they are, or show it
    #[command(name = "ps:scale", visible_alias = "scale")]
    PsScale {
        /// TYPE=N, TYPE+N or TYPE-N, with :SIZE if you like; none: show what is set
        #[arg(value_name = "TYPE=N[:SIZE]")]
        changes: Vec<ScaleRequest>,
        #[command(flatten)]
        app: App,
        #[command(flatten)]
        json: Json,
    },
    /// Change the size of process types, or show it
    #[command(name = "ps:type", visible_aliases = ["ps:resize", "dyno:resize"])]
    PsType {
        /// TYPE=SIZE, or one SIZE for all types; none: show what is set
        #[arg(value_name = "TYPE=SIZE")]
        sizes: Vec<String>,
        #[command(flatten)]
        app: App,
        #[command(flatten)]
        json: Json,
    },
    /// Show what takes the disk, and how dynos are bounded
    #[command(name = "disk")]
    Disk {
        /// Remove what no release of the last few (`keep_releases` in the settings) needs
        #[arg(long)]
        prune: bool,
        #[command(flatten)]
        json: Json,
    },
    /// Show the files that a dyno changed since it started
    #[command(name = "diff", visible_alias = "ps:diff")]
    Diff {
        /// Dyno (web.1)
        dyno: String,
        #[command(flatten)]
        app: App,
        #[command(flatten)]
        json: Json,
    },
    /// Put the installed version of this program in charge; dynos go on, and no request is refused
    #[command(name = "upgrade")]
    Upgrade,
    /// Restart all dynos, those of a type, or one
    #[command(name = "ps:restart", visible_aliases = ["restart", "dyno:restart"])]
    PsRestart {
        /// Dyno (web.1) or process type (web); all if left out
        name: Option<String>,
        #[command(flatten)]
        app: App,
    },
    /// Stop a dyno (formation dynos start again, one-offs do not)
    #[command(name = "ps:stop", visible_aliases = ["ps:kill", "dyno:stop"])]
    PsStop {
        /// Dyno (run.1234) or process type
        name: String,
        #[command(flatten)]
        app: App,
    },
    /// Run a command in a one-off dyno, attached to this terminal
    #[command(name = "run")]
    Run(Run),
    /// Run a command in a one-off dyno; its output goes to the logs
    #[command(name = "run:detached")]
    RunDetached(Run),
    /// Show the logs of an app
    #[command(name = "logs")]
    Logs(Logs),

    // Config.
    /// List the config vars of an app
    #[command(name = "config")]
    Config {
        #[command(flatten)]
        app: App,
        /// Print KEY=VALUE lines a shell can read
        #[arg(short, long, conflicts_with = "is_on")]
        shell: bool,
        #[command(flatten)]
        json: Json,
    },
    /// Print the value of config vars
    #[command(name = "config:get")]
    ConfigGet {
        /// Names
        #[arg(value_name = "KEY", required = true)]
        keys: Vec<String>,
        #[command(flatten)]
        app: App,
    },
    /// Set config vars; one new release, one restart
    #[command(name = "config:set")]
    ConfigSet {
        /// Names and values
        #[arg(value_name = "KEY=VALUE", required = true, allow_hyphen_values = false)]
        vars: Vec<String>,
        #[command(flatten)]
        app: App,
    },
    /// Remove config vars; one new release, one restart
    #[command(name = "config:unset", visible_alias = "config:remove")]
    ConfigUnset {
        /// Names
        #[arg(value_name = "KEY", required = true)]
        keys: Vec<String>,
        #[command(flatten)]
        app: App,
    },

    // Releases.
    /// List the releases of an app, newest first
    #[command(name = "releases")]
    Releases {
        /// How many
        #[arg(short = 'n', long = "num", value_name = "N", default_value_t = 15,
              value_parser = clap::value_parser!(u32).range(1..=1000))]
        count: u32,
        #[command(flatten)]
        app: App,
        #[command(flatten)]
        json: Json,
    },
    /// Show a release
    #[command(name = "releases:info")]
    ReleasesInfo {
        /// Version (v12) or id; the current one if left out
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        release: Option<String>,
        #[command(flatten)]
        app: App,
        #[command(flatten)]
        json: Json,
    },
    /// Release the code and config vars of an earlier release again
    #[command(name = "rollback", visible_alias = "releases:rollback")]
    Rollback {
        /// Version (v12) or id; the one before the current if left out
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        release: Option<String>,
        #[command(flatten)]
        app: App,
    },

    // Domains, maintenance, stacks.
    /// List the domains of an app
    #[command(name = "domains")]
    Domains {
        #[command(flatten)]
        app: App,
        #[command(flatten)]
        json: Json,
    },
    /// Let an app answer at a domain
    #[command(name = "domains:add")]
    DomainsAdd {
        /// Host name, or *.example.com
        hostname: String,
        #[command(flatten)]
        app: App,
    },
    /// Take a domain from an app
    #[command(name = "domains:remove")]
    DomainsRemove {
        /// Host name
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        hostname: String,
        #[command(flatten)]
        app: App,
    },
    /// List the certificates of an app
    #[command(name = "certs")]
    Certs {
        #[command(flatten)]
        app: App,
        #[command(flatten)]
        json: Json,
    },
    /// Show a certificate
    #[command(name = "certs:info")]
    CertsInfo {
        /// The certificate, where there are several
        #[arg(short, long, value_name = "NAME")]
        name: Option<String>,
        #[command(flatten)]
        app: App,
        #[command(flatten)]
        json: Json,
    },
    /// Give an app a certificate
    #[command(name = "certs:add")]
    CertsAdd {
        /// PEM file: the server's certificate, then its issuers
        #[arg(value_name = "CRT")]
        chain: PathBuf,
        /// PEM file: the private key
        #[arg(value_name = "KEY")]
        key: PathBuf,
        #[command(flatten)]
        app: App,
    },
    /// Put another certificate in the place of one
    #[command(name = "certs:update")]
    CertsUpdate {
        /// PEM file: the server's certificate, then its issuers
        #[arg(value_name = "CRT")]
        chain: PathBuf,
        /// PEM file: the private key
        #[arg(value_name = "KEY")]
        key: PathBuf,
        /// The certificate, where there are several
        #[arg(short, long, value_name = "NAME")]
        name: Option<String>,
        #[command(flatten)]
        app: App,
    },
    /// Take a certificate from an app
    #[command(name = "certs:remove")]
    CertsRemove {
        /// The certificate, where there are several
        #[arg(short, long, value_name = "NAME")]
        name: Option<String>,
        #[command(flatten)]
        app: App,
    },
    /// Print the certificate of the local authority, which signs for names below the platform's domain
    #[command(name = "certs:ca")]
    CertsAuthority,
    /// Show how automatic certificates fare
    #[command(name = "certs:auto")]
    CertsAuto {
        #[command(flatten)]
        app: App,
        #[command(flatten)]
        json: Json,
    },
    /// Get certificates for the custom domains of an app by ACME
    #[command(name = "certs:auto:enable")]
    CertsAutoEnable {
        #[command(flatten)]
        app: App,
    },
    /// Give automatic certificates up
    #[command(name = "certs:auto:disable")]
    CertsAutoDisable {
        #[command(flatten)]
        app: App,
    },
    /// Get automatic certificates anew, or try again at once
    #[command(name = "certs:auto:refresh")]
    CertsAutoRefresh {
        #[command(flatten)]
        app: App,
    },
    /// Show how many requests an app served, and how long they waited and took
    #[command(name = "metrics")]
    Metrics {
        #[command(flatten)]
        app: App,
        #[command(flatten)]
        json: Json,
    },
    /// Watch the requests of all apps, or of one (q quits)
    #[command(name = "top")]
    Top {
        #[command(flatten)]
        app: App,
    },
    /// Show how requests are spread over an app's web dynos
    #[command(name = "routing")]
    Routing {
        #[command(flatten)]
        app: App,
        #[command(flatten)]
        json: Json,
    },
    /// Choose how requests are spread over an app's web dynos
    #[command(name = "routing:set")]
    RoutingSet(super::routing::Set),
    /// List what can be switched on for an app
    #[command(name = "features", visible_alias = "labs")]
    Features {
        #[command(flatten)]
        app: App,
        #[command(flatten)]
        json: Json,
    },
    /// Switch a feature of an app on
    #[command(name = "features:enable", visible_alias = "labs:enable")]
    FeaturesEnable {
        /// One of those `manifold features` lists
        feature: Feature,
        #[command(flatten)]
        app: App,
    },
    /// Switch a feature of an app off
    #[command(name = "features:disable", visible_alias = "labs:disable")]
    FeaturesDisable {
        /// One of those `manifold features` lists
        feature: Feature,
        #[command(flatten)]
        app: App,
    },
    /// List what the dynos of an app reach beside the outside world
    #[command(name = "network", visible_alias = "network:list")]
    Network {
        #[command(flatten)]
        app: App,
        #[command(flatten)]
        json: Json,
    },
    /// Let the dynos of an app reach another app, or a port of this host or its network
    #[command(name = "network:allow")]
    NetworkAllow {
        /// An app's name, or ADDRESS:PORT (ADDRESS:PORT/udp)
        #[arg(value_name = "APP|ADDRESS:PORT")]
        target: String,
        #[command(flatten)]
        app: App,
        #[command(flatten)]
        json: Json,
    },
    /// Close what network:allow opened; open connections are cut
    #[command(name = "network:deny", visible_alias = "network:remove")]
    NetworkDeny {
        /// As given to network:allow, or the rule's id
        #[arg(value_name = "APP|ADDRESS:PORT", value_parser = NonEmptyStringValueParser::new())]
        target: String,
        #[command(flatten)]
        app: App,
    },
    /// Show what a dyno of an app can and cannot do, from its launch plan
    #[command(name = "security")]
    Security {
        /// The app, as with --app
        #[arg(value_name = "APP")]
        name: Option<String>,
        #[command(flatten)]
        app: App,
        /// Of which process type
        #[arg(long = "type", value_name = "TYPE", default_value = "web")]
        process: String,
        #[command(flatten)]
        json: Json,
    },
    /// Tell whether maintenance mode is on
    #[command(name = "maintenance")]
    Maintenance {
        #[command(flatten)]
        app: App,
    },
    /// Answer all requests with the maintenance page
    #[command(name = "maintenance:on")]
    MaintenanceOn {
        #[command(flatten)]
        app: App,
    },
    /// Serve requests again
    #[command(name = "maintenance:off")]
    MaintenanceOff {
        #[command(flatten)]
        app: App,
    },
    /// List the stacks, the app's own (or the default) marked
    #[command(name = "stack", visible_alias = "apps:stacks")]
    Stack {
        #[command(flatten)]
        app: App,
        #[command(flatten)]
        json: Json,
    },
    /// Choose the stack of the next build
    #[command(name = "stack:set", visible_alias = "apps:stacks:set")]
    StackSet {
        /// One of those `manifold stack` lists
        stack: String,
        #[command(flatten)]
        app: App,
    },
    /// Move an app, or all of them, to the newest build of its stack without building its code
    #[command(name = "stack:upgrade")]
    StackUpgrade {
        /// The app; all if left out
        #[arg(value_name = "APP")]
        name: Option<String>,
        #[command(flatten)]
        app: App,
    },
    /// List the builds of the stacks on this machine
    #[command(name = "stacks")]
    Stacks {
        /// Only this stack
        name: Option<String>,
        /// Print the Debian packages of its newest build
        #[arg(long, requires = "name")]
        packages: bool,
        #[command(flatten)]
        json: Json,
    },
    /// Build a stack from Debian's packages (needs root)
    #[command(name = "stacks:build")]
    StacksBuild(settings::StackBuildFlags),
    /// Import a stack that was made elsewhere (needs root)
    #[command(name = "stacks:import")]
    StacksImport(settings::StackImportFlags),

    /// Release an app's slug to another app, which keeps its own config
    #[command(name = "promote", visible_alias = "pipelines:promote")]
    Promote {
        #[command(flatten)]
        app: App,
        /// The app that gets it
        #[arg(short, long, value_name = "APP")]
        to: String,
    },

    // Builds.
    /// List the buildpacks that build an app
    #[command(name = "buildpacks")]
    Buildpacks {
        #[command(flatten)]
        app: App,
        #[command(flatten)]
        json: Json,
    },
    /// Choose the buildpack: heroku/NAME, a git or .tgz URL, or a folder here
    #[command(name = "buildpacks:set")]
    BuildpacksSet(BuildpackPlace),
    /// Add a buildpack to those that are set
    #[command(name = "buildpacks:add")]
    BuildpacksAdd(BuildpackPlace),
    /// Take a buildpack out of the list
    #[command(name = "buildpacks:remove")]
    BuildpacksRemove {
        /// Which
        buildpack: Option<String>,
        /// Its place, from 1
        #[arg(short, long, value_name = "N", value_parser = place)]
        index: Option<usize>,
        #[command(flatten)]
        app: App,
    },
    /// Let the source decide again
    #[command(name = "buildpacks:clear")]
    BuildpacksClear {
        #[command(flatten)]
        app: App,
    },
    /// List the builds of an app, newest first
    #[command(name = "builds")]
    Builds {
        #[command(flatten)]
        app: App,
        #[command(flatten)]
        json: Json,
    },
    /// Show a build
    #[command(name = "builds:info")]
    BuildsInfo {
        /// Its id; the newest if left out
        id: Option<String>,
        #[command(flatten)]
        app: App,
        #[command(flatten)]
        json: Json,
    },
    /// Print the whole output of a build, following it while it runs
    #[command(name = "builds:output")]
    BuildsOutput {
        /// Its id; the newest if left out
        id: Option<String>,
        #[command(flatten)]
        app: App,
    },
    /// Begin the next build without what earlier ones kept
    #[command(name = "builds:cache:purge", visible_alias = "builds:cache:clear")]
    BuildsCachePurge {
        #[command(flatten)]
        app: App,
    },

    // Git and tokens.
    /// Add the git remote that deploys to an app
    #[command(name = "git:remote")]
    GitRemote {
        #[command(flatten)]
        app: App,
        /// Name of the remote
        #[arg(short, long, value_name = "NAME", default_value = "manifold")]
        remote: String,
    },
    /// Serve git over ssh: the forced command of a key in `authorized_keys`
    #[command(name = "git-shell")]
    GitShell {
        /// The only app that this key may push to and fetch from
        app: String,
    },
    /// List the tokens of the API over TCP
    #[command(name = "authorizations")]
    Authorizations(Json),
    /// Make a token for the API over TCP: `HEROKU_API_KEY`, or the password of git over HTTP
    #[command(name = "authorizations:create")]
    AuthorizationsCreate {
        /// What it is for
        #[arg(short, long, value_name = "TEXT")]
        description: Option<String>,
        /// Seconds until it ends
        #[arg(short, long, value_name = "SECONDS")]
        expires_in: Option<i64>,
        /// Print only the token
        #[arg(short = 'S', long)]
        short: bool,
        #[command(flatten)]
        json: Json,
    },
    /// Revoke a token
    #[command(
        name = "authorizations:revoke",
        visible_alias = "authorizations:destroy"
    )]
    AuthorizationsRevoke {
        /// Its id
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        id: String,
    },

    // The program itself.
    /// Run the platform in the foreground (needs root)
    #[command(name = "supervise")]
    Supervise(settings::Flags),
    /// Remove what manifold made on this host (needs root; stop it first)
    #[command(name = "uninstall")]
    Uninstall(settings::UninstallFlags),
    /// Write man pages into a folder
    #[command(name = "man", hide = true)]
    Man {
        /// The folder
        dir: PathBuf,
    },
    /// Print a completion script for a shell
    #[command(name = "completions")]
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}
