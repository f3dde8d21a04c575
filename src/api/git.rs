//! What a push means: its commit is built like any other source, and the ref moves if that made a
//! release. A fetch is git's own affair.
//!
//! A client that goes away during its build changes nothing: the build goes on and the ref moves
//! with it (Dev Center, "Deploying with Git": Ctrl-C of the client does not stop a build).

use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::builds;
use super::error::{ApiError, chain};
use super::files;
use super::sessions::secret;
use super::state::Api;
use crate::git::{Exchange, Push, PushError, Repository, Service, Session, Wanted, wanted};
use crate::model::ReleaseStatus;
use crate::store::{AppRecord, BuildStatus};

/// Longest push or fetch, builds in line before it included.
const SESSION_MAX: Duration = Duration::from_hours(3);

/// What git and the hook say last.
const LAST_WORDS: Duration = Duration::from_secs(30);

/// Pushes and fetches at once on this host; beyond, new ones are refused.
const SESSIONS_MAX: usize = 64;

/// Counts running gits.
#[derive(Debug)]
pub(super) struct Gits(std::sync::Arc<tokio::sync::Semaphore>);

impl Default for Gits {
    fn default() -> Self {
        Self(std::sync::Arc::new(tokio::sync::Semaphore::new(
            SESSIONS_MAX,
        )))
    }
}

/// Who does what to which app.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) app: AppRecord,
    pub(super) user: String,
    pub(super) service: Service,
    pub(super) exchange: Exchange,
    /// `Git-Protocol` of the client.
    pub(super) protocol: Option<String>,
}

/// A git that was started for a client.
#[derive(Debug)]
pub(super) struct Started {
    session: Session,
    client: Client,
    _place: tokio::sync::OwnedSemaphorePermit,
}

/// Starts git for a client.
///
/// # Errors
/// Too many run, the app's repository cannot be used, or the supervisor stops.
pub(super) async fn start(api: &Api, client: Client) -> Result<Started, ApiError> {
    if api.stop.is_cancelled() {
        return Err(ApiError::stopping());
    }
    let place = api.gits.0.clone().try_acquire_owned().map_err(|_| {
        ApiError::too_many(format!(
            "{SESSIONS_MAX} pushes and fetches run already. Try again when one of them ended."
        ))
    })?;
    let (paths, app) = (api.paths.clone(), client.app.id);
    let opened = tokio::task::spawn_blocking(move || Repository::open(&paths, app)).await;
    let repository = opened
        .map_err(|error| ApiError::internal("open the app's repository", &error))?
        .map_err(|error| ApiError::internal("open the app's repository", &error))?;
    let protocol = client.protocol.as_deref();
    let session = repository
        .start(client.service, client.exchange, protocol)
        .map_err(|error| ApiError::internal("start git", &error))?;
    Ok(Started {
        session,
        client,
        _place: place,
    })
}

/// Serves the client to the end: bytes both ways, and the build of what was pushed.
pub(super) async fn serve(
    api: &Api,
    started: Started,
    reader: impl AsyncRead + Unpin + Send + 'static,
    writer: impl AsyncWrite + Unpin + Send + 'static,
) {
    let Started {
        session,
        client,
        _place,
    } = started;
    let (stdin, stdout, push, mut child) = session.split();
    let feeding = tokio::spawn(feed(reader, stdin));
    let work = async {
        let draining = drain(stdout, writer);
        let pushing = async {
            if let Some(push) = push {
                receive(api, &client, push).await;
            }
        };
        tokio::join!(draining, pushing);
        tokio::time::timeout(LAST_WORDS, child.wait()).await
    };
    match tokio::time::timeout(SESSION_MAX, work).await {
        Ok(Ok(Ok(status))) => tracing::debug!(app = %client.app.name, %status, "git ended"),
        Ok(Ok(Err(error))) => tracing::warn!(%error, "git was not waited for"),
        Ok(Err(_)) | Err(_) => {
            tracing::warn!(app = %client.app.name, "git did not end in time and was killed");
        }
    }
    feeding.abort();
}

async fn feed(mut reader: impl AsyncRead + Unpin, mut stdin: impl AsyncWrite + Unpin) {
    if let Err(error) = tokio::io::copy(&mut reader, &mut stdin).await {
        tracing::debug!(%error, "a git client broke off, or git did");
    }
}

/// What git says goes on being read when the client is gone: git would die of a full pipe.
async fn drain(mut stdout: impl AsyncRead + Unpin, mut writer: impl AsyncWrite + Unpin) {
    let mut buffer = vec![0; 64 * 1024];
    let mut is_there = true;
    while let Ok(count @ 1..) = stdout.read(&mut buffer).await {
        if !is_there {
            continue;
        }
        let sent = async {
            writer.write_all(&buffer[..count]).await?;
            writer.flush().await
        };
        is_there = sent.await.is_ok();
    }
    // The end of the stream is the end of git's answer.
    writer.shutdown().await.ok();
}

/// One push, from its refs to its verdict.
async fn receive(api: &Api, client: &Client, push: Push) {
    match attempt(api, client, push).await {
        Ok(()) => {}
        // git told the client itself.
        Err(PushError::Gone) => tracing::debug!(app = %client.app.name, "git refused a push"),
        Err(error) => {
            tracing::warn!(app = %client.app.name, error = %chain(&error), "push failed");
        }
    }
}

async fn attempt(api: &Api, client: &Client, mut push: Push) -> Result<(), PushError> {
    let updates = push.updates().await?;
    let commit = match wanted(&updates) {
        Wanted::Build(commit) => commit,
        Wanted::Nothing => {
            let text = "Pushed to branch other than [main, master], skipping build.\n";
            return end(push, text, true).await;
        }
        Wanted::Delete(branch) => {
            let text = format!(" !     Push rejected, cannot delete {branch} branch.\n");
            return end(push, &text, false).await;
        }
    };
    let archive = api.paths.sources().join(format!("{}.tgz", secret()));
    let submodules = match push.archive(&commit, &archive).await {
        Ok(submodules) => submodules,
        Err(error @ (PushError::Archive(_) | PushError::Io(_))) => {
            files::remove_file(&archive).await;
            let text = format!(
                " !     Push rejected: {}. A source may have 1 GiB.\n",
                chain(&error)
            );
            return end(push, &text, false).await;
        }
        Err(error) => return Err(error),
    };
    build(api, client, push, commit, archive, submodules).await
}

async fn end(push: Push, text: &str, is_accepted: bool) -> Result<(), PushError> {
    let mut answer = push.speak().await?;
    answer.say(text.as_bytes()).await;
    Ok(answer.verdict(is_accepted).await?)
}

async fn build(
    api: &Api,
    client: &Client,
    push: Push,
    commit: String,
    archive: PathBuf,
    submodules: Vec<(String, String)>,
) -> Result<(), PushError> {
    let mut answer = push.speak().await?;
    let request = builds::Request {
        app: client.app.clone(),
        user: client.user.clone(),
        archive: archive.clone(),
        source_url: format!("git:{commit}"),
        checksum: None,
        version: Some(commit),
        buildpacks: Vec::new(),
        submodules,
    };
    answer
        .say(b"Compressing source files... done.\nBuilding source:\n\n")
        .await;
    let name = &client.app.name;
    let started = match builds::start(api, request).await {
        Ok(started) => started,
        Err(error) => {
            files::remove_file(&archive).await;
            answer
                .say(format!(" !     {}\n", error.message()).as_bytes())
                .await;
            answer.say(rejection(name.as_str()).as_bytes()).await;
            return Ok(answer.verdict(false).await?);
        }
    };
    let mut reader = started.output.reader();
    while let Some(bytes) = reader.next().await {
        answer.say(&bytes).await;
    }
    let record = api.store.build(started.record.id).await.ok().flatten();
    let release = record.as_ref().and_then(|record| record.release);
    let succeeded = record.is_some_and(|record| record.status == BuildStatus::Succeeded);
    if !succeeded {
        answer.say(rejection(name.as_str()).as_bytes()).await;
        return Ok(answer.verdict(false).await?);
    }
    answer.say(b"\nVerifying deploy... done.\n").await;
    let releases = api.store.releases(client.app.id).await.unwrap_or_default();
    let found = releases.iter().find(|found| Some(found.id) == release);
    if found.is_some_and(|found| found.status == ReleaseStatus::Pending) {
        let text =
            "Running release command....\nFollow it with: manifold logs --tail --dyno release\n";
        answer.say(text.as_bytes()).await;
    }
    Ok(answer.verdict(true).await?)
}

fn rejection(app: &str) -> String {
    format!("Verifying deploy...\n\n!       Push rejected to {app}.\n")
}
