//! What the larger commands take.

use std::path::PathBuf;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::arguments::{App, Json};

/// `create`.
#[derive(Debug, Args)]
pub(super) struct Create {
    /// Name of the app; one like warm-frost-1289 is made up if left out
    pub(super) name: Option<String>,
    /// Stack to build and run it on
    #[arg(short, long, value_name = "STACK")]
    pub(super) stack: Option<String>,
    #[command(flatten)]
    pub(super) json: Json,
    /// Name of the git remote, where this folder is in a repository
    #[arg(short, long, value_name = "NAME", default_value = "manifold")]
    pub(super) remote: String,
    /// Add no git remote
    #[arg(long, conflicts_with = "remote")]
    pub(super) no_remote: bool,
    /// The same as NAME
    #[arg(
        short = 'a',
        long = "app",
        value_name = "NAME",
        conflicts_with = "name",
        hide = true
    )]
    pub(super) app: Option<String>,
}

/// `buildpacks:set` and `buildpacks:add`.
#[derive(Debug, Args)]
pub(super) struct BuildpackPlace {
    /// heroku/NAME, the URL of a git repository or .tgz (with #REF), or a folder here
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(super) buildpack: String,
    /// Its place, from 1
    #[arg(short, long, value_name = "N", value_parser = place)]
    pub(super) index: Option<usize>,
    #[command(flatten)]
    pub(super) app: App,
}

/// A place in a list, from 1.
pub(super) fn place(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(place @ 1..=100) => Ok(place),
        _ => Err("give a number from 1 to 100".to_owned()),
    }
}

/// `deploy`.
#[derive(Debug, Args)]
pub(super) struct Deploy {
    /// Folder (all of it but `.git` is sent) or gzip-compressed tar with the files at its root
    #[arg(default_value = ".", value_name = "DIR|FILE.tgz")]
    pub(super) source: PathBuf,
    #[command(flatten)]
    pub(super) app: App,
    /// What the release is named after, such as a commit id
    #[arg(long, value_name = "TEXT")]
    pub(super) source_version: Option<String>,
}

/// `run` and `run:detached`.
#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    pub(super) app: App,
    /// Size of the dyno
    #[arg(short, long, value_name = "SIZE")]
    pub(super) size: Option<String>,
    /// Name of the dyno before its number
    #[arg(long = "type", value_name = "TYPE")]
    pub(super) process: Option<String>,
    /// More environment variables; repeatable
    #[arg(short, long, value_name = "KEY=VALUE[;KEY=VALUE]")]
    pub(super) env: Vec<String>,
    /// Use pipes even from a terminal: stdout and stderr stay apart
    #[arg(long)]
    pub(super) no_tty: bool,
    /// Seconds after which the dyno is stopped
    #[arg(long, value_name = "SECONDS")]
    pub(super) time_to_live: Option<u64>,
    /// The exit status is always the command's; accepted for the heroku CLI's sake
    #[arg(short = 'x', long, hide = true)]
    pub(super) exit_code: bool,
    /// The command, or a process type and arguments to it. After `--` each word is passed on as it
    /// is; otherwise the dyno's shell reads them
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true)]
    pub(super) words: Vec<String>,
    /// Whether `--` came before the words.
    #[arg(skip)]
    pub(super) is_exact: bool,
}

/// `logs`.
#[derive(Debug, Args)]
pub(super) struct Logs {
    #[command(flatten)]
    pub(super) app: App,
    /// How many lines of the past
    #[arg(short = 'n', long = "num", value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..=1500))]
    pub(super) count: u32,
    /// Go on with new lines as they come
    #[arg(short, long)]
    pub(super) tail: bool,
    /// Only this dyno (web.1), process type (web), `router` or `api`
    #[arg(
        short,
        long,
        visible_short_alias = 'p',
        visible_alias = "ps",
        value_name = "DYNO"
    )]
    pub(super) dyno: Option<String>,
    /// Only this source: app or heroku
    #[arg(short, long, value_name = "SOURCE")]
    pub(super) source: Option<String>,
}
