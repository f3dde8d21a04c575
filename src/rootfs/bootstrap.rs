//! Making a stack's images from Debian's packages, by mmdebstrap.
//!
//! Packages come from a signed suite: apt checks `InRelease` against Debian's keys and each package
//! against it; the digests of the `InRelease` files are recorded. mmdebstrap runs in mount and pid
//! namespaces of its own that end with us, so that nothing stays mounted however a build ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use super::version::folder;
use super::{Recipe, RootfsError, Scratch, StackVersion, Versions, image, recipe};
use crate::model::StackImage;

/// Where a suite is fetched from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirrors {
    /// Of the suite and its updates.
    pub main: String,
    /// Of its security updates.
    pub security: Option<String>,
}

/// Where the build image says which `InRelease` files it was made from.
const SOURCES: &str = ".sources";

/// Lines of mmdebstrap's that are kept for the error.
const LAST_LINES: usize = 20;

/// What apt says of a mirror that it does not reach.
const UNREACHED: &[&str] = &[
    "Could not resolve",
    "Temporary failure resolving",
    "Could not connect",
    "Unable to connect",
    "Cannot initiate the connection",
    "Connection failed",
    "Connection refused",
    "Failed to fetch",
    "does not have a Release file",
];

impl Mirrors {
    /// Those of the host's own Debian release, whichever suite is wanted from them.
    ///
    /// # Errors
    /// [`RootfsError::NoMirror`].
    pub fn of_host() -> Result<Self, RootfsError> {
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let name = release
            .lines()
            .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
            .unwrap_or_default()
            .trim_matches('"');
        Self::read(Path::new("/etc/apt"), name).ok_or(RootfsError::NoMirror)
    }

    fn read(apt: &Path, suite: &str) -> Option<Self> {
        let mut files = vec![apt.join("sources.list")];
        let more = fs::read_dir(apt.join("sources.list.d"));
        files.extend(
            more.into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path()),
        );
        files.sort();
        let mut entries = Vec::new();
        for file in files {
            let text = fs::read_to_string(&file).unwrap_or_default();
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("list") => entries.extend(text.lines().filter_map(line)),
                Some("sources") => entries.extend(text.split("\n\n").filter_map(stanza)),
                // apt does not read others either.
                _ => {}
            }
        }
        let find = |suite: &str| {
            let mut entries = entries.iter();
            let found = entries.find(|(_, suites)| suites.iter().any(|own| own == suite));
            found.map(|(uri, _)| uri.trim_end_matches('/').to_owned())
        };
        Some(Self {
            main: find(suite)?,
            security: find(&format!("{suite}-security")),
        })
    }

    /// apt's sources for a suite, verified by Debian's keys.
    fn sources(&self, suite: &str) -> String {
        let keys = recipe::keyring();
        let entry = |uri: &str, suite: &str| {
            format!("deb [signed-by={}] {uri} {suite} main\n", keys.display())
        };
        let mut text = entry(&self.main, suite);
        text += &entry(&self.main, &format!("{suite}-updates"));
        if let Some(security) = &self.security {
            text += &entry(security, &format!("{suite}-security"));
        }
        text
    }
}

/// URI and suites of an entry with component main, in the one-line format.
fn line(line: &str) -> Option<(String, Vec<String>)> {
    let mut rest = line.trim().strip_prefix("deb ")?.trim_start();
    if rest.starts_with('[') {
        rest = rest.split_once(']')?.1;
    }
    let mut words = rest.split_whitespace();
    let (uri, suite) = (words.next()?, words.next()?);
    words
        .any(|component| component == "main")
        .then(|| (uri.to_owned(), vec![suite.to_owned()]))
}

/// The same, in the deb822 format.
fn stanza(text: &str) -> Option<(String, Vec<String>)> {
    let field = |name: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    };
    let has = |name: &str, word: &str| {
        field(name).is_some_and(|value| value.split_whitespace().any(|one| one == word))
    };
    if !has("Types", "deb") || !has("Components", "main") || has("Enabled", "no") {
        return None;
    }
    let uri = field("URIs")?.split_whitespace().next()?.to_owned();
    let suites = field("Suites")?.split_whitespace().map(str::to_owned);
    Some((uri, suites.collect()))
}

/// Builds a stack and puts it in its place; a build that fails or is dropped leaves what was there.
/// `say` gets a line for each step and each line of mmdebstrap's.
///
/// # Errors
/// See [`RootfsError`].
pub async fn build(
    versions: &Versions,
    recipe: &Recipe,
    mirrors: &Mirrors,
    say: impl Fn(&str),
) -> Result<StackVersion, RootfsError> {
    let scratch = versions.scratch()?;
    let make = |image| make(&scratch, recipe, image, mirrors, &say);
    let sources = if recipe.build_packages.is_empty() {
        let root = scratch.image(StackImage::Build);
        let linked = std::os::unix::fs::symlink(folder(StackImage::Run), &root);
        linked.map_err(RootfsError::io("make", &root))?;
        make(StackImage::Run).await?
    } else {
        // Both at once: each is mostly one processor's work.
        let (run, build) = tokio::try_join!(make(StackImage::Run), make(StackImage::Build))?;
        if run != build {
            return Err(RootfsError::Moved);
        }
        run
    };
    say("-----> Packing");
    let origin = format!("Debian {}", recipe.suite);
    versions.install(&scratch, &recipe.name, origin, sources)
}

/// Makes one image; returns what was signed: name and digest of each `InRelease` file.
async fn make(
    scratch: &Scratch,
    recipe: &Recipe,
    image: StackImage,
    mirrors: &Mirrors,
    say: &impl Fn(&str),
) -> Result<Vec<(String, String)>, RootfsError> {
    say(&format!(
        "-----> Building the {} image of {} from Debian {}",
        folder(image),
        recipe.name,
        recipe.suite
    ));
    bootstrap(scratch, recipe, image, mirrors, say).await?;
    let root = scratch.image(image);
    image::tidy(&root, &root)?;
    // Its owner depends on whether apt's own user can get there.
    let partial = root.join("var/lib/apt/lists/partial");
    match fs::remove_dir_all(&partial) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        other => other.map_err(RootfsError::io("remove", &partial))?,
    }
    let path = root.join(SOURCES);
    let text = fs::read_to_string(&path).map_err(RootfsError::io("read", &path))?;
    fs::remove_file(&path).map_err(RootfsError::io("remove", &path))?;
    Ok(signed(&text))
}

/// sha256sum(1)'s lines as name and digest.
fn signed(text: &str) -> Vec<(String, String)> {
    let line = |line: &str| {
        let (digest, path) = line.split_once("  ")?;
        let name = Path::new(path).file_name()?.to_str()?;
        Some((name.to_owned(), digest.to_owned()))
    };
    let mut all: Vec<_> = text.lines().filter_map(line).collect();
    all.sort();
    all
}

async fn bootstrap(
    scratch: &Scratch,
    recipe: &Recipe,
    image: StackImage,
    mirrors: &Mirrors,
    say: &impl Fn(&str),
) -> Result<(), RootfsError> {
    for (program, package) in [("mmdebstrap", "mmdebstrap"), ("unshare", "util-linux")] {
        if !is_on_path(program) {
            return Err(RootfsError::Missing { program, package });
        }
    }
    // The list's name becomes part of the image; temporary files go with the scratch.
    let home = scratch.dir().join(format!("{}-tools", folder(image)));
    fs::create_dir(&home).map_err(RootfsError::io("make", &home))?;
    let (sources, complete) = (home.join("debian.list"), home.join("complete.sh"));
    let text = mirrors.sources(&recipe.suite);
    fs::write(&sources, text).map_err(RootfsError::io("write", &sources))?;
    fs::write(&complete, recipe::COMPLETE).map_err(RootfsError::io("write", &complete))?;
    let mut packages = recipe.packages.clone();
    if image == StackImage::Build {
        packages.extend(recipe.build_packages.iter().cloned());
    }
    let mut command = Command::new("setpriv");
    command
        .args([
            "--pdeathsig",
            "KILL",
            "--",
            "unshare",
            "--mount",
            "--pid",
            "--fork",
        ])
        .args(["--kill-child", "--mount-proc", "--", "mmdebstrap"])
        .args(["--mode=root", "--variant=minbase"])
        .arg(format!("--architectures={}", recipe.architecture))
        .arg(format!("--include={}", packages.join(",")))
        .args(HOOKS)
        .arg(format!(
            "--customize-hook=bash '{}' \"$1\"",
            complete.display()
        ))
        .args(proxies().await)
        .arg(&recipe.suite)
        .arg(scratch.image(image))
        .arg(&sources)
        .env("SOURCE_DATE_EPOCH", image::EPOCH.to_string())
        .env("LC_ALL", "C.UTF-8")
        .env("TMPDIR", &home)
        // Whatever mask we were started with: every dyno is to read it.
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let failed = |reason: String| RootfsError::Bootstrap {
        image: folder(image),
        reason,
    };
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    let mut last = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        let mut lines = BufReader::new(stderr).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            say(&format!("       {}: {line}", folder(image)));
            last.push(line);
            if last.len() > LAST_LINES {
                last.remove(0);
            }
        }
    }
    let status = child.wait().await;
    match status.map_err(|error| failed(error.to_string()))? {
        status if status.success() => Ok(()),
        _ => Err(explain(&last, mirrors, &recipe.suite, folder(image))),
    }
}

fn explain(last: &[String], mirrors: &Mirrors, suite: &str, image: &'static str) -> RootfsError {
    let unreached = last
        .iter()
        .find(|line| UNREACHED.iter().any(|words| line.contains(words)));
    if let Some(line) = unreached {
        return RootfsError::Mirror {
            mirror: mirrors.main.clone(),
            suite: suite.to_owned(),
            reason: line.trim().to_owned(),
        };
    }
    // Its very last line says only that it failed.
    let is_reason = |line: &&String| line.starts_with("E: ") && !line.ends_with("failed to run");
    let reason = last.iter().rfind(is_reason).or(last.last());
    let reason = reason.map_or("it said nothing", |line| line.trim());
    RootfsError::Bootstrap {
        image,
        reason: reason.chars().take(300).collect(),
    }
}

/// They drop what belongs to a host, not to an image. A dyno's devices, resolver, host name and user
/// are given to it at its launch.
const HOOKS: &[&str] = &[
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    // Java's packages link pages into it.
    "--essential-hook=mkdir -p \"$1/usr/share/man/man1\"",
    "--customize-hook=sha256sum \"$1\"/var/lib/apt/lists/*InRelease >\"$1/.sources\"",
    "--customize-hook=rm -rf \"$1\"/var/log/* \"$1\"/var/cache/apt/* \"$1\"/var/cache/ldconfig/*",
    "--customize-hook=rm -f \"$1/etc/machine-id\" \"$1/var/lib/dbus/machine-id\" \"$1/etc/hostname\"",
    "--customize-hook=rm -f \"$1\"/etc/ssh/ssh_host_* \"$1\"/etc/passwd- \"$1\"/etc/group- \"$1\"/etc/shadow-",
    "--customize-hook=if [ -d \"$1/usr/share/zoneinfo\" ]; then ln -sf /usr/share/zoneinfo/Etc/UTC \"$1/etc/localtime\"; fi",
    "--customize-hook=mkdir -p \"$1/app\" && chmod 755 \"$1/app\"",
];

fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir: PathBuf| dir.join(program).is_file())
}

/// The host's proxies: mmdebstrap starts with an apt of its own.
async fn proxies() -> Vec<String> {
    let mut options = Vec::new();
    for key in ["Acquire::http::Proxy", "Acquire::https::Proxy"] {
        let output = Command::new("apt-config")
            .args(["shell", "PROXY", key])
            .output();
        let text = output.await.map(|output| output.stdout).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        if let Some(value) = text.trim().strip_prefix("PROXY=") {
            options.push(format!("--aptopt={key} \"{}\"", value.trim_matches('\'')));
        }
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_mirrors_serve_other_suites() {
        let dir = tempfile::tempdir().expect("a directory");
        let parts = dir.path().join("sources.list.d");
        fs::create_dir(&parts).expect("made");
        let other = "deb https://elsewhere.example/apt tool main\n";
        fs::write(parts.join("a.list"), other).expect("written");
        let text = "# first\nTypes: deb\n# old\nURIs: http://mirror.example/debian/\nSuites: bookworm bookworm-updates\nComponents: main\n\n\
                    Types: deb\nURIs: http://mirror.example/debian-security\nSuites: bookworm-security\nComponents: main contrib\n";
        fs::write(parts.join("debian.sources"), text).expect("written");
        let mirrors = Mirrors::read(dir.path(), "bookworm").expect("found");
        assert_eq!(mirrors.main, "http://mirror.example/debian");
        let sources = mirrors.sources("trixie");
        let lines: Vec<_> = sources.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(
            lines[2].contains("[signed-by=/usr/share/keyrings/"),
            "{sources}"
        );
        assert!(lines[2].ends_with("http://mirror.example/debian-security trixie-security main"));
        assert_eq!(Mirrors::read(dir.path(), "sid"), None);
        let list = "deb-src http://a/ sid main\ndeb [arch=amd64] http://b/ sid contrib main\n";
        fs::write(dir.path().join("sources.list"), list).expect("written");
        let mirrors = Mirrors::read(dir.path(), "sid").expect("found");
        assert_eq!(
            (mirrors.main.as_str(), mirrors.security),
            ("http://b", None)
        );
    }

    #[test]
    fn a_mirror_that_is_not_reached_is_told_from_other_failures() {
        let mirrors = Mirrors {
            main: "http://m.example".to_owned(),
            security: None,
        };
        let told = |line: &str| {
            let lines = ["I: something".to_owned(), line.to_owned()];
            explain(&lines, &mirrors, "trixie", "run").to_string()
        };
        let text = told("W: Failed to fetch http://m.example/dists  Could not resolve 'm.example'");
        assert!(text.starts_with("the mirror http://m.example was not reached for trixie: W: F"));
        assert_eq!(
            told("E: Unable to locate package nonesuch"),
            "mmdebstrap made no run image: E: Unable to locate package nonesuch"
        );
    }
}
