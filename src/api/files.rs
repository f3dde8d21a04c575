//! Bytes in and out: uploads to disk, files to clients.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use futures_util::StreamExt as _;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;

use super::error::ApiError;
use super::sessions::secret;
use crate::model::Digest;

/// Largest upload in bytes. Source: Dev Center, "Build and Release Using the API" (limits differ).
pub(super) const UPLOAD_MAX: u64 = 1 << 30;

/// The rest of a refused upload is read and thrown away for so long.
const DRAIN: Duration = Duration::from_secs(10);

/// Life of an upload URL.
const LIFETIME: Duration = Duration::from_hours(1);

/// Upload URLs open at once; beyond, new ones are refused.
const OPEN_MAX: usize = 64;

/// Uploaded sources that wait for their build.
#[derive(Debug)]
pub(super) struct Uploads {
    directory: PathBuf,
    by_secret: Mutex<HashMap<String, Upload>>,
}

#[derive(Debug)]
struct Upload {
    made: Instant,
    digest: Option<Digest>,
}

impl Uploads {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            by_secret: Mutex::default(),
        }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, HashMap<String, Upload>> {
        self.by_secret
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens an upload URL; returns its secret.
    pub(super) async fn open(&self) -> Result<String, ApiError> {
        for secret in self.take_expired() {
            remove_file(&self.path(&secret)).await;
        }
        let secret = secret();
        let mut uploads = self.locked();
        if uploads.len() >= OPEN_MAX {
            return Err(ApiError::too_many(format!(
                "{OPEN_MAX} uploads wait for their build already. Build them, or try again in an hour."
            )));
        }
        let upload = Upload {
            made: Instant::now(),
            digest: None,
        };
        uploads.insert(secret.clone(), upload);
        Ok(secret)
    }

    fn take_expired(&self) -> Vec<String> {
        let mut uploads = self.locked();
        let old = |upload: &Upload| upload.made.elapsed() >= LIFETIME;
        let gone = uploads.iter().filter(|(_, upload)| old(upload));
        let gone: Vec<String> = gone.map(|(secret, _)| secret.clone()).collect();
        uploads.retain(|secret, _| !gone.contains(secret));
        gone
    }

    /// Receives the bytes of an upload.
    pub(super) async fn fill(&self, secret: &str, body: Body) -> Result<(), ApiError> {
        if !self.locked().contains_key(secret) {
            return Err(ApiError::not_found("source"));
        }
        let (digest, _) = receive(&self.path(secret), body).await?;
        if let Some(upload) = self.locked().get_mut(secret) {
            upload.digest = Some(digest);
        }
        Ok(())
    }

    /// The file of an upload that is complete.
    pub(super) fn file(&self, secret: &str) -> Option<PathBuf> {
        let uploads = self.locked();
        uploads.get(secret)?.digest?;
        Some(self.path(secret))
    }

    /// Takes a complete upload for a build, which removes the file in the end.
    pub(super) fn take(&self, secret: &str) -> Option<PathBuf> {
        let file = self.file(secret)?;
        self.locked().remove(secret);
        Some(file)
    }

    fn path(&self, secret: &str) -> PathBuf {
        self.directory.join(format!("{secret}.tgz"))
    }
}

/// Writes a body to `path` as it comes (first to a name beside it, so that a file at `path` is
/// whole), at most [`UPLOAD_MAX`] bytes. Returns digest and size.
pub(super) async fn receive(path: &Path, body: Body) -> Result<(Digest, u64), ApiError> {
    let part = path.with_extension(format!("{}.part", secret()));
    let received = write_part(&part, body).await;
    let kept = match received {
        Ok(received) => tokio::fs::rename(&part, path)
            .await
            .map(|()| received)
            .map_err(|error| ApiError::io("keep the upload", &error)),
        Err(error) => Err(error),
    };
    if kept.is_err() {
        remove_file(&part).await;
    }
    kept
}

async fn write_part(part: &Path, body: Body) -> Result<(Digest, u64), ApiError> {
    let mut stream = body.into_data_stream();
    let written = write_chunks(part, &mut stream).await;
    if written.is_err() {
        // Who is still sending would see a broken connection and not the answer.
        let rest = async { while let Some(Ok(_)) = stream.next().await {} };
        let _ = tokio::time::timeout(DRAIN, rest).await;
    }
    written
}

async fn write_chunks(
    part: &Path,
    stream: &mut axum::body::BodyDataStream,
) -> Result<(Digest, u64), ApiError> {
    let act = "write the upload";
    let fail = |error: std::io::Error| ApiError::io(act, &error);
    let mut file = tokio::fs::File::create(part).await.map_err(fail)?;
    let mut hash = Sha256::new();
    let mut size_bytes = 0;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk
            .map_err(|error| ApiError::bad_request(format!("The upload broke off: {error}")))?;
        size_bytes += chunk.len() as u64;
        if size_bytes > UPLOAD_MAX {
            return Err(ApiError::too_large(
                "The upload is larger than 1 GiB, the most a source may have. Leave out what the build does not need.",
            ));
        }
        hash.update(&chunk);
        file.write_all(&chunk).await.map_err(fail)?;
    }
    file.sync_all().await.map_err(fail)?;
    Ok((Digest(hash.finalize().into()), size_bytes))
}

/// Renames a synced file, and comes back when that is on disk, too.
pub(super) async fn place(part: &Path, path: &Path) -> std::io::Result<()> {
    tokio::fs::rename(part, path).await?;
    let above = path.parent().unwrap_or(path);
    tokio::fs::File::open(above).await?.sync_all().await
}

/// Removes a file; one that is not there is fine.
pub(super) async fn remove_file(path: &Path) {
    match tokio::fs::remove_file(path).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "file not removed");
        }
        _ => {}
    }
}

/// Removes a directory with all in it; one that is not there is fine.
pub(super) async fn remove_tree(path: &Path) {
    match tokio::fs::remove_dir_all(path).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "directory not removed");
        }
        _ => {}
    }
}

/// A file as a body. `None` if there is none.
pub(super) async fn send(path: &Path) -> Result<Option<Body>, ApiError> {
    match tokio::fs::File::open(path).await {
        Ok(file) => {
            let stream = tokio_util::io::ReaderStream::with_capacity(file, 64 * 1024);
            Ok(Some(Body::from_stream(stream)))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ApiError::io("read the file", &error)),
    }
}
