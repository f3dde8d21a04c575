//! The confined process that unpacks, and how it is asked.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, setrlimit};

use super::SlugError;
use super::extract::{self, Bounds};
use crate::model::Digest;
use crate::sys;

/// Longest unpack.
const DEADLINE: Duration = Duration::from_mins(10);

/// Address space of the unpacking process in bytes.
const MEMORY_MAX: u64 = 1 << 30;

/// Unpacks an uploaded source (tar or gzip'd tar, files at its root) into an empty directory,
/// which is given to the `dyno` user. Returns the sha256 of the archive.
///
/// # Errors
/// [`SlugError`]; what was unpacked so far stays for the caller to remove.
pub async fn extract_source(archive: &Path, dest: &Path) -> Result<Digest, SlugError> {
    ask("source", open(archive)?, dest).await
}

/// As [`extract_source`], for a slug (entries below `./app/`).
pub(super) async fn extract_slug(archive: &Path, dest: &Path) -> Result<Digest, SlugError> {
    ask("slug", open(archive)?, dest).await
}

fn open(archive: &Path) -> Result<OwnedFd, SlugError> {
    let file = File::open(archive).map_err(SlugError::file("open", archive))?;
    Ok(file.into())
}

async fn ask(kind: &str, input: OwnedFd, dest: &Path) -> Result<Digest, SlugError> {
    sys::give_to_app(dest).map_err(SlugError::file("give away", dest))?;
    let child = tokio::process::Command::new(sys::own_program())
        .arg0("manifold")
        .args(["__unpack", kind])
        .arg(dest)
        .env_clear()
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| SlugError::Worker(e.to_string()))?;
    let output = match tokio::time::timeout(DEADLINE, child.wait_with_output()).await {
        Ok(output) => output.map_err(|e| SlugError::Worker(e.to_string()))?,
        Err(_) => {
            return Err(SlugError::Worker(
                "it took longer than 10 minutes".to_owned(),
            ));
        }
    };
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    match output.status.code() {
        Some(0) => String::from_utf8_lossy(&output.stdout)
            .trim()
            .parse()
            .map_err(|_| SlugError::Worker("it did not report a checksum".to_owned())),
        Some(65) => Err(SlugError::Refused(said)),
        _ => Err(SlugError::Worker(format!("{} {said}", output.status))),
    }
}

/// Entry point of the role `__unpack`: `slug|source DIR`, the archive on stdin. Prints the
/// archive's sha256. Exit statuses: 0; 65 the archive is refused (why on stderr); 70 else.
pub fn unpack_main(args: &[std::ffi::OsString]) -> ExitCode {
    let [kind, dir] = args else {
        return ExitCode::from(64);
    };
    let bounds = if kind == "slug" {
        extract::SLUG
    } else {
        extract::SOURCE
    };
    let mut stderr = io::stderr().lock();
    match unpack(Path::new(dir), bounds) {
        Ok(digest) => match writeln!(io::stdout().lock(), "{digest}") {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::from(70),
        },
        Err(SlugError::Refused(why)) => {
            let _ = writeln!(stderr, "{why}");
            ExitCode::from(65)
        }
        Err(error) => {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            let _ = writeln!(stderr, "{error}: {}", source.unwrap_or_default());
            ExitCode::from(70)
        }
    }
}

fn unpack(dir: &Path, bounds: Bounds) -> Result<Digest, SlugError> {
    // Whatever else came along is of no use here.
    sys::close_from(3).map_err(SlugError::file("close what was inherited for", dir))?;
    let root = OwnedFd::from(File::open(dir).map_err(SlugError::file("open", dir))?);
    confine(dir).map_err(SlugError::file("confine ourselves to", dir))?;
    extract::extract(io::stdin().lock(), &root, bounds)
}

/// No way out of `dir`: chroot, the `dyno` user, no capability, no network. Without root
/// (tests) only what an ordinary user can give up.
fn confine(dir: &Path) -> io::Result<()> {
    nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    setrlimit(Resource::RLIMIT_AS, MEMORY_MAX, MEMORY_MAX)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    if nix::unistd::geteuid().is_root() {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC)?;
        nix::unistd::chroot(dir)?;
        nix::unistd::chdir("/")?;
        sys::bounding_drop()?;
        sys::set_ids(sys::APP_ID, sys::APP_ID)?;
        sys::set_capabilities_none()?;
    }
    sys::no_new_privileges()
}
