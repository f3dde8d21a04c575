//! Attacks by slugs that nobody built: uploaded over the API as they are, then run.

mod races;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Failed;
use serde::Deserialize;

use super::around::{family, field};
use super::control::{is_cut, request};
use super::{As, Report};
use crate::host::{Host, PATIENCE, check};
use crate::support::{self, Leftovers};

/// The name of the test, as the rows have it.
pub(super) const TEST: &str = "attack::hostile_slugs";

const MAKER: &str = include_str!("archives.py");

/// One archive, as its maker describes it.
#[derive(Debug, Deserialize)]
struct Archive {
    row: String,
    name: String,
    /// Words of the message, parted by `|`; none: it is unpacked.
    refused: Option<String>,
    script: Option<String>,
    prints: String,
    /// The same tree as GNU tar's, or refused.
    gnu: bool,
}

pub(super) fn run() -> Result<(), Failed> {
    let before = Leftovers::count();
    let host = Host::start()?;
    host.ok(&["create", "slug", "--no-remote"])?;
    let mut bench = Bench::new(host)?;
    let mut report = Report::new(TEST);
    let mut rows: BTreeMap<String, Vec<Archive>> = BTreeMap::new();
    for archive in bench.make()? {
        rows.entry(archive.row.clone()).or_default().push(archive);
    }
    for (row, archives) in &rows {
        report.holds(row, As::User, || {
            let (mut faults, mut refused) = (Vec::new(), 0);
            // Unpacking knows no cgroups: a part of them will do where each takes a second.
            let stride = if support::is_guest() { 3 } else { 1 };
            for archive in archives.iter().step_by(stride) {
                match bench.attack(archive) {
                    Ok(is_unpacked) => refused += usize::from(!is_unpacked),
                    Err(failed) => faults.push(failed.message().unwrap_or("?").to_owned()),
                }
            }
            check(faults.is_empty(), faults.join("; "))?;
            let tried = archives.len().div_ceil(stride);
            Ok(format!(
                "{tried} archives: {refused} refused, nothing outside"
            ))
        });
    }
    report.holds("S-20", As::User, || races::uploads(&bench));
    report.holds("S-21", As::User, || races::confinement(&bench));
    bench.host.stop()?;
    Leftovers::none_since(&before)?;
    report.finish(&[As::User])
}

/// Writes all archives into a folder, aimed at a file of the host; what there is to say of each.
fn make_into(folder: &Path, canary: &Path) -> Result<String, Failed> {
    let output = Command::new("python3")
        .args(["-c", MAKER])
        .args([folder, canary])
        .output()?;
    check(output.status.success(), format!("{output:?}"))?;
    Ok(String::from_utf8(output.stdout)?)
}

/// The same archives for other attacks, named by row and kind.
pub(super) fn samples(canary: &Path) -> Result<tempfile::TempDir, Failed> {
    let folder = tempfile::tempdir_in("/var/tmp")?;
    make_into(folder.path(), canary)?;
    Ok(folder)
}

/// A host, a canary, and archives.
struct Bench {
    host: Host,
    archives: tempfile::TempDir,
    canary: PathBuf,
}

impl Bench {
    fn new(host: Host) -> Result<Self, Failed> {
        let canary = host.dir.path().join("canary");
        std::fs::create_dir(&canary)?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        std::fs::set_permissions(&canary, mode)?;
        std::fs::write(canary.join("canary"), "untouched")?;
        Ok(Self {
            host,
            archives: tempfile::tempdir_in("/var/tmp")?,
            canary,
        })
    }

    /// What the maker writes.
    fn make(&self) -> Result<Vec<Archive>, Failed> {
        let text = make_into(self.archives.path(), &self.canary.join("canary"))?;
        text.lines()
            .map(|line| serde_json::from_str(line).map_err(Failed::from))
            .collect()
    }

    fn untouched(&self) -> Result<(), Failed> {
        let found = std::fs::metadata(&self.canary)?;
        let names = std::fs::read_dir(&self.canary)?.count();
        let text = std::fs::read_to_string(self.canary.join("canary"))?;
        let links = std::fs::metadata(self.canary.join("canary"))?.nlink();
        check(
            found.mode() & 0o7777 == 0o711 && names == 1 && text == "untouched" && links == 1,
            format!("the canary: {found:?}, {names} names, {links} links, {text}"),
        )
    }

    fn state(&self, name: &str) -> PathBuf {
        self.host.dir.path().join("state").join(name)
    }

    /// A slug with these bytes; its id, and the answer to the upload.
    fn upload(&self, bytes: &[u8]) -> Result<(String, u16), Failed> {
        let id = self.slug()?;
        let status = self.put(&id, bytes)?;
        Ok((id, status))
    }

    fn slug(&self) -> Result<String, Failed> {
        let made = request(&self.host, "POST", "/apps/slug/slugs", "{}")?;
        let slug: serde_json::Value = serde_json::from_str(made.body())?;
        let id = slug["id"].as_str().ok_or_else(|| made.body().to_owned())?;
        Ok(id.to_owned())
    }

    fn put(&self, id: &str, bytes: &[u8]) -> Result<u16, Failed> {
        let shown = request(&self.host, "GET", &format!("/apps/slug/slugs/{id}"), "")?;
        let slug: serde_json::Value = serde_json::from_str(shown.body())?;
        let url = slug["blob"]["url"].as_str().unwrap_or_default().to_owned();
        let path = url.find("/slugs/").map(|at| url[at..].to_owned());
        let path = path.ok_or_else(|| shown.body().to_owned())?;
        let mut stream = UnixStream::connect(self.host.socket())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let length = bytes.len();
        stream.write_all(
            format!("PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")
                .as_bytes(),
        )?;
        // One that comes too late is refused before it was all read.
        match stream.write_all(bytes) {
            Err(error) if is_cut(&error) => {}
            other => other?,
        }
        let mut answer = String::new();
        match stream.read_to_string(&mut answer) {
            Err(error) if is_cut(&error) && !answer.is_empty() => {}
            other => drop(other?),
        }
        let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok());
        status.ok_or_else(|| format!("PUT {path}: {answer}").into())
    }

    /// Releases a slug and runs a script in a dyno of it: stdout and stderr.
    fn run(&self, id: &str, script: &str) -> Result<(bool, String, String), Failed> {
        let body = serde_json::json!({ "slug": id }).to_string();
        let answer = request(&self.host, "POST", "/apps/slug/releases", &body)?;
        check(answer.status() == 201, answer.body())?;
        let words = ["run", "-a", "slug", "--", "sh", "-c", script];
        let output = self.host.cli(&words);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((
            output.status.success(),
            text(&output.stdout),
            text(&output.stderr),
        ))
    }

    /// True if it was unpacked. Leaves no tree behind: each archive is judged for itself.
    fn attack(&self, archive: &Archive) -> Result<bool, Failed> {
        let outcome = self.try_one(archive);
        self.clear_trees()?;
        outcome
    }

    fn clear_trees(&self) -> Result<(), Failed> {
        for entry in std::fs::read_dir(self.state("trees"))?.flatten() {
            std::fs::remove_dir_all(entry.path())?;
        }
        Ok(())
    }

    fn try_one(&self, archive: &Archive) -> Result<bool, Failed> {
        let name = &archive.name;
        let bytes = std::fs::read(self.archives.path().join(name))?;
        let (supervisor, _) = family(&self.host)?;
        let memory = resident_mb(supervisor);
        let (id, status) = self.upload(&bytes)?;
        check(
            status == 200,
            format!("{name}: the upload answered {status}"),
        )?;
        let script = archive.script.as_deref().unwrap_or("echo it runs");
        let (succeeded, out, told) = self.run(&id, script)?;
        let out: Vec<&str> = out.split_whitespace().collect();
        let story = format!("{name}: {out:?}, {told}");
        self.untouched()
            .map_err(|failed| format!("{story}: {failed:?}"))?;
        let grown = resident_mb(supervisor).saturating_sub(memory);
        check(
            grown < 64,
            format!("{name}: the supervisor grew by {grown} MiB"),
        )?;
        check(
            !told.contains('\x1b'),
            format!("{name}: an escape is told raw"),
        )?;
        let tree = self.tree(&bytes);
        match &archive.refused {
            Some(words) => {
                let is_told = words.split('|').any(|word| told.contains(word));
                check(!succeeded && is_told && out.is_empty(), story)?;
                check(tree.is_none(), format!("{name}: its tree is kept"))?;
            }
            None if archive.gnu => {
                if let Some(tree) = &tree {
                    self.as_gnu(name, &tree.join("app"))?;
                }
            }
            None => {
                check(succeeded, story.clone())?;
                check(out.join(" ") == archive.prints, story)?;
            }
        }
        let is_unpacked = tree.is_some();
        if let Some(tree) = tree {
            tame(&tree)?;
            std::fs::remove_dir_all(&tree)?;
        }
        let left: Vec<_> = std::fs::read_dir(self.state("trees"))?.flatten().collect();
        check(
            left.is_empty(),
            format!("{name}: half a tree is left: {left:?}"),
        )?;
        Ok(is_unpacked)
    }

    /// The unpacked tree of these bytes.
    fn tree(&self, bytes: &[u8]) -> Option<PathBuf> {
        use sha2::Digest as _;
        let digest = sha2::Sha256::digest(bytes);
        let hex = digest.iter().fold(String::new(), |mut text, byte| {
            use std::fmt::Write as _;
            let _ = write!(text, "{byte:02x}");
            text
        });
        let tree = self.state("trees").join(hex);
        tree.is_dir().then_some(tree)
    }

    /// The same names and contents as GNU tar unpacks.
    fn as_gnu(&self, name: &str, app: &Path) -> Result<(), Failed> {
        let other = tempfile::tempdir_in("/var/tmp")?;
        let done = Command::new("tar")
            .arg("-xzf")
            .arg(self.archives.path().join(name))
            .arg("-C")
            .arg(other.path())
            .output()?;
        check(
            done.status.success(),
            format!("{name}: GNU tar refuses: {done:?}"),
        )?;
        let same = Command::new("diff")
            .args(["-r", "--no-dereference"])
            .arg(app)
            .arg(other.path().join("app"))
            .output()?;
        let difference = String::from_utf8_lossy(&same.stdout).into_owned();
        check(
            same.status.success(),
            format!("{name}: a third result: {difference}"),
        )
    }
}

/// Owner, bits and kinds of all that was unpacked.
fn tame(tree: &Path) -> Result<(), Failed> {
    let mut open = vec![tree.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir)?.flatten() {
            let (path, data) = (entry.path(), entry.metadata()?);
            let kind = data.file_type();
            let is_plain = kind.is_file() || kind.is_dir() || kind.is_symlink();
            check(
                is_plain && !kind.is_fifo() && data.mode() & 0o7000 == 0,
                format!("{}: {data:?}", path.display()),
            )?;
            check(
                (data.uid(), data.gid()) == (1000, 1000),
                format!("{}: {}:{}", path.display(), data.uid(), data.gid()),
            )?;
            if kind.is_dir() {
                open.push(path);
            }
        }
    }
    Ok(())
}

/// Resident memory of a process in MiB.
fn resident_mb(pid: u32) -> u64 {
    let text = field(pid, "VmRSS");
    let number = text.split_whitespace().next().unwrap_or_default();
    number.parse::<u64>().unwrap_or_default() >> 10
}
