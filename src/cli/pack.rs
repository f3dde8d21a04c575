//! A folder (or an archive that is there already) as bytes to upload.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::Stream;
use sha2::{Digest as _, Sha256};
use tar::{Builder, Header};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::model::Digest;

/// Bytes of one piece on its way.
const PIECE: usize = 64 * 1024;

/// Pieces that wait for the connection; then packing waits.
const PIECES: usize = 8;

/// Left out wherever it lies: history is no source.
const LEFT_OUT: &str = ".git";

/// A source that cannot be packed.
#[derive(Debug, thiserror::Error)]
pub(super) enum PackError {
    /// Something in it cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file got longer or shorter under our hands.
    #[error("{} changed while it was packed: try again", .0.display())]
    Changed(PathBuf),
    /// Neither folder nor file.
    #[error("{} is neither a folder nor an archive", .0.display())]
    Kind(PathBuf),
    /// Packing itself failed, or nobody takes the bytes any more.
    #[error("cannot pack the source")]
    Write(#[source] io::Error),
}

/// What was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packed {
    pub(super) digest: Digest,
    pub(super) size_bytes: u64,
    /// Sockets, devices and the like.
    pub(super) skipped: Vec<PathBuf>,
}

/// Starts packing `source` on another thread. The stream fails where packing fails; the handle
/// then tells why.
pub(super) fn pack(
    source: &Path,
) -> (
    impl Stream<Item = io::Result<Bytes>> + Send + use<>,
    JoinHandle<Result<Packed, PackError>>,
) {
    let (sender, receiver) = mpsc::channel(PIECES);
    let source = source.to_owned();
    let handle = tokio::task::spawn_blocking(move || {
        let mut pieces = Pieces::new(sender.clone());
        let packed = write(&source, &mut pieces);
        if packed.is_err() {
            // Without it a broken archive would look complete.
            let error = io::Error::other("packing failed");
            sender.blocking_send(Err(error)).ok();
        }
        packed
    });
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async {
        let piece = receiver.recv().await?;
        Some((piece, receiver))
    });
    (stream, handle)
}

fn write(source: &Path, pieces: &mut Pieces) -> Result<Packed, PackError> {
    let read = |error| PackError::Read {
        path: source.to_owned(),
        source: error,
    };
    let metadata = fs::metadata(source).map_err(read)?;
    let mut skipped = Vec::new();
    if metadata.is_dir() {
        let gzip = GzEncoder::new(&mut *pieces, Compression::fast());
        let mut archive = Builder::new(gzip);
        add_tree(&mut archive, source, &mut skipped)?;
        let gzip = archive.into_inner().map_err(PackError::Write)?;
        gzip.finish().map_err(PackError::Write)?;
    } else if metadata.is_file() {
        let mut file = File::open(source).map_err(read)?;
        io::copy(&mut file, pieces).map_err(PackError::Write)?;
    } else {
        return Err(PackError::Kind(source.to_owned()));
    }
    let (digest, size_bytes) = pieces.finish().map_err(PackError::Write)?;
    Ok(Packed {
        digest,
        size_bytes,
        skipped,
    })
}

/// Adds all below `root`, each folder before what it holds, names in order.
fn add_tree<W: Write>(
    archive: &mut Builder<W>,
    root: &Path,
    skipped: &mut Vec<PathBuf>,
) -> Result<(), PackError> {
    let mut waiting = children(root, Path::new(""))?;
    while let Some(relative) = waiting.pop() {
        let path = root.join(&relative);
        let metadata = fs::symlink_metadata(&path).map_err(|source| PackError::Read {
            path: path.clone(),
            source,
        })?;
        if metadata.is_dir() {
            let mut header = header(&metadata, 0);
            archive
                .append_data(&mut header, &relative, io::empty())
                .map_err(PackError::Write)?;
            waiting.append(&mut children(root, &relative)?);
        } else if metadata.is_symlink() {
            let target = fs::read_link(&path).map_err(|source| PackError::Read {
                path: path.clone(),
                source,
            })?;
            archive
                .append_link(&mut header(&metadata, 0), &relative, target)
                .map_err(PackError::Write)?;
        } else if metadata.is_file() {
            add_file(archive, &path, &relative)?;
        } else {
            skipped.push(relative);
        }
    }
    Ok(())
}

/// What a folder holds, last name first: taken from the end they come in order.
fn children(root: &Path, folder: &Path) -> Result<Vec<PathBuf>, PackError> {
    let path = root.join(folder);
    let entries = fs::read_dir(&path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let entries = entries.map_err(|source| PackError::Read { path, source })?;
    let mut names: Vec<_> = entries
        .into_iter()
        .map(|entry| entry.file_name())
        .filter(|name| name != LEFT_OUT)
        .collect();
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

fn add_file<W: Write>(
    archive: &mut Builder<W>,
    path: &Path,
    relative: &Path,
) -> Result<(), PackError> {
    let read = |source| PackError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(read)?;
    let metadata = file.metadata().map_err(read)?;
    let size = metadata.len();
    let mut source = Source {
        // One byte more shows a file that grew.
        bytes: file.take(size + 1),
        size,
        count: 0,
        failed: None,
    };
    let added = archive.append_data(&mut header(&metadata, size), relative, &mut source);
    if let Some(error) = source.failed.take() {
        return Err(read(error));
    }
    match added {
        // Nobody takes the bytes any more: that the file was not read to its end is no wonder.
        Err(error) if source.count <= size => Err(PackError::Write(error)),
        Ok(()) if source.count == size => Ok(()),
        _ => Err(PackError::Changed(path.to_owned())),
    }
}

/// Mode and time of the file; the owner is the platform's business.
fn header(metadata: &Metadata, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_metadata(metadata);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header
}

/// A file being packed: counts its bytes and keeps its own errors apart from the archive's.
struct Source<R> {
    bytes: R,
    size: u64,
    count: u64,
    failed: Option<io::Error>,
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.bytes.read(buffer) {
            Ok(count) => {
                self.count += count as u64;
                if self.count > self.size {
                    return Err(io::Error::other("the file grew"));
                }
                Ok(count)
            }
            Err(error) => {
                self.failed = Some(io::Error::new(error.kind(), error.to_string()));
                Err(error)
            }
        }
    }
}

/// Cuts what is written into pieces, hashes and sends them.
struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
    hash: Sha256,
    size_bytes: u64,
}

impl Pieces {
    fn new(sender: mpsc::Sender<io::Result<Bytes>>) -> Self {
        Self {
            sender,
            piece: Vec::with_capacity(PIECE),
            hash: Sha256::new(),
            size_bytes: 0,
        }
    }

    fn finish(&mut self) -> io::Result<(Digest, u64)> {
        self.flush()?;
        let digest = std::mem::take(&mut self.hash).finalize();
        Ok((Digest(digest.into()), self.size_bytes))
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..count]);
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.hash.update(&piece);
        self.size_bytes += piece.len() as u64;
        let sent = self.sender.blocking_send(Ok(Bytes::from(piece)));
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use futures_util::TryStreamExt as _;

    use super::*;

    async fn packed(source: &Path) -> (Result<Vec<u8>, io::Error>, Result<Packed, PackError>) {
        let (stream, handle) = pack(source);
        let bytes = stream.try_fold(Vec::new(), |mut all, piece| async move {
            all.extend_from_slice(&piece);
            Ok(all)
        });
        (bytes.await, handle.await.expect("no panic"))
    }

    fn entries(bytes: &[u8]) -> Vec<String> {
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(bytes));
        let entries = archive.entries().expect("an archive");
        entries
            .map(|entry| {
                let entry = entry.expect("an entry");
                let header = entry.header();
                let path = entry.path().expect("a path").display().to_string();
                let mode = header.mode().expect("a mode") & 0o7777;
                let link = entry
                    .link_name()
                    .expect("a link")
                    .map(std::borrow::Cow::into_owned);
                let link = link.map_or_else(String::new, |link| format!(" -> {}", link.display()));
                format!("{path} {mode:o} {}{link}", header.size().expect("a size"))
            })
            .collect()
    }

    #[tokio::test]
    async fn a_reader_that_left_is_not_the_files_fault() {
        let dir = tempfile::tempdir().expect("a directory");
        let noise: Vec<u8> = (0..4 << 20).map(|_| rand::random()).collect();
        fs::write(dir.path().join("noise"), noise).expect("written");
        let (stream, handle) = pack(dir.path());
        drop(stream);
        let packed = handle.await.expect("no panic");
        assert!(matches!(packed, Err(PackError::Write(_))), "{packed:?}");
    }

    #[tokio::test]
    async fn a_folder_becomes_an_archive_with_its_files_at_the_root_and_no_history() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path();
        for folder in [".git/objects", "bin", "sub/.git"] {
            fs::create_dir_all(root.join(folder)).expect("made");
        }
        fs::write(root.join("Procfile"), "web: bin/web\n").expect("written");
        fs::write(root.join("bin/web"), vec![7; 200_000]).expect("written");
        fs::write(root.join(".git/HEAD"), "ref").expect("written");
        fs::write(root.join(".gitignore"), "target").expect("written");
        for (name, mode) in [
            ("bin/web", 0o755),
            ("Procfile", 0o640),
            (".gitignore", 0o644),
        ] {
            let mode = fs::Permissions::from_mode(mode);
            fs::set_permissions(root.join(name), mode).expect("set");
        }
        for folder in ["bin", "sub"] {
            let mode = fs::Permissions::from_mode(0o755);
            fs::set_permissions(root.join(folder), mode).expect("set");
        }
        symlink("/nowhere", root.join("link")).expect("linked");
        let long = "l".repeat(120);
        fs::write(root.join(&long), "").expect("written");
        let mode = fs::Permissions::from_mode(0o644);
        fs::set_permissions(root.join(&long), mode).expect("set");
        let socket = std::os::unix::net::UnixListener::bind(root.join("socket"));
        let _socket = socket.expect("bound");
        let (bytes, packed) = packed(root).await;
        let (bytes, packed) = (bytes.expect("bytes"), packed.expect("packed"));
        assert_eq!(
            entries(&bytes),
            [
                ".gitignore 644 6".to_owned(),
                "Procfile 640 13".to_owned(),
                "bin 755 0".to_owned(),
                "bin/web 755 200000".to_owned(),
                "link 777 0 -> /nowhere".to_owned(),
                format!("{long} 644 0"),
                "sub 755 0".to_owned(),
            ]
        );
        assert_eq!(packed.skipped, [PathBuf::from("socket")]);
        assert_eq!(packed.size_bytes, bytes.len() as u64);
        assert_eq!(packed.digest, Digest(Sha256::digest(&bytes).into()));
    }

    #[tokio::test]
    async fn an_archive_is_sent_as_it_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("app.tgz");
        let content: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        fs::write(&path, &content).expect("written");
        let (bytes, packed) = packed(&path).await;
        assert_eq!(bytes.expect("bytes"), content);
        assert_eq!(packed.expect("packed").size_bytes, 200_000);
    }

    #[tokio::test]
    async fn a_source_that_is_not_there_breaks_the_upload_and_is_named() {
        let (bytes, packed) = packed(Path::new("/nonexistent/app")).await;
        assert!(bytes.is_err());
        let error = packed.expect_err("refused").to_string();
        assert_eq!(error, "cannot read /nonexistent/app");
    }

    #[tokio::test]
    async fn packing_ends_when_nobody_takes_the_bytes() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("big.tgz");
        let file = File::create(&path).expect("made");
        file.set_len(64 << 20).expect("grown");
        let (stream, handle) = pack(&path);
        drop(stream);
        let error = handle.await.expect("no panic").expect_err("stopped");
        assert!(matches!(error, PackError::Write(_)), "{error}");
    }
}
