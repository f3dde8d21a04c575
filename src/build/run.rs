//! One build from archive to slug.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::dyno::{self, Cache, Finding, Task};
use super::failure::human;
use super::procfile::{self, Procfile};
use super::source::{self, Workdir};
use super::tree::{self, Found};
use super::{BuildError, Output, choice};
use crate::model::{
    AppId, AppName, BuildId, Buildpack, ConfigVars, Digest, DynoSize, ProcessType, StackName,
};
use crate::settings::Paths;
use crate::slug::{self, Lately, Packed, Trees};
use crate::supervisor::Supervisor;

/// Largest slug, compressed. Source: Dev Center, "Slug Compiler", "Slug size".
const SLUG_BYTES_MAX: u64 = 500 << 20;

/// Slugs larger than this boot slowly, and are told so. Source: the same, soft limit.
const SLUG_BYTES_SOFT: u64 = 300 << 20;

/// Time for removing what `.slugignore` names.
const CLEAN_TIME: Duration = Duration::from_mins(1);

/// What to build.
#[derive(Clone, Debug)]
pub struct BuildOrder {
    /// Identity of the build.
    pub id: BuildId,
    /// Whose.
    pub app: (AppId, AppName),
    /// The stack to build on.
    pub stack: StackName,
    /// gzip tar with the app's files at its root.
    pub archive: PathBuf,
    /// Expected sha256 of the archive.
    pub checksum: Option<Digest>,
    /// Config vars, shown to buildpacks as files in ENV_DIR.
    pub config: ConfigVars,
    /// Commit or version text (`SOURCE_VERSION`).
    pub version: Option<String>,
    /// Buildpacks that were set, in order.
    pub buildpacks: Vec<Buildpack>,
    /// Commit and path of each submodule, fetched before the buildpacks run.
    pub submodules: Vec<(String, String)>,
    /// Limits of the build dyno.
    pub size: DynoSize,
    /// Longest time that its dynos get.
    pub time_max: Duration,
    /// The slug that the app's last build made, and its size: what did not change since then is
    /// not packed again.
    pub before: Option<(Digest, u64)>,
    /// What slugs that were packed before are made of.
    pub lately: Lately,
}

/// A finished build: the slug's bytes are in place (`Paths::slug`), synced.
#[derive(Debug)]
pub struct Built {
    /// Names the bytes.
    pub digest: Digest,
    /// Compressed size in bytes.
    pub size_bytes: u64,
    /// Commands by type, Procfile over defaults.
    pub process_types: BTreeMap<ProcessType, String>,
    /// What detect printed (`Python`, `Node.js`).
    pub buildpack: String,
    /// What it worked with.
    pub rest: Rest,
}

/// What a finished build worked with. Dropped, one is written out and the other emptied, beside what
/// goes on: better when the release is on disk, which would wait for the same disk.
#[derive(Debug)]
pub struct Rest {
    _cache: Option<Cache>,
    workdir: Option<Workdir>,
}

/// Runs a build to its end, writing to `output`. Changes nothing that runs.
///
/// # Errors
/// See [`BuildError`].
pub async fn run(
    supervisor: &Supervisor,
    paths: &Paths,
    order: BuildOrder,
    output: &Output,
) -> Result<Built, BuildError> {
    let result = attempt(supervisor, paths, &order, output).await;
    if let Err(error) = &result {
        error.explain(output);
    }
    result
}

async fn attempt(
    supervisor: &Supervisor,
    paths: &Paths,
    order: &BuildOrder,
    output: &Output,
) -> Result<Built, BuildError> {
    if let Some(expected) = order.checksum {
        verify(&order.archive, expected).await?;
    }
    let workdir = Workdir::bounded(supervisor, paths, order.id).await;
    let workdir = workdir.map_err(BuildError::file("make", &paths.build(order.id)))?;
    let result = build(supervisor, paths, order, &workdir, output).await;
    match result {
        Ok(mut built) => {
            built.rest.workdir = Some(workdir);
            Ok(built)
        }
        Err(error) => {
            workdir.remove().await;
            Err(error)
        }
    }
}

async fn build(
    supervisor: &Supervisor,
    paths: &Paths,
    order: &BuildOrder,
    workdir: &Workdir,
    output: &Output,
) -> Result<Built, BuildError> {
    let stack = order.stack.as_str();
    output.step(&format!("Building on the {} stack", capitalized(stack)));
    let source = workdir.source();
    slug::extract_source(&order.archive, &source)
        .await
        .map_err(BuildError::Source)?;
    let deadline = Instant::now() + order.time_max;
    if !order.submodules.is_empty() {
        source::keep_submodules(workdir, &order.submodules)
            .map_err(BuildError::file("keep", Path::new(".gitmodules")))?;
        let task = (Task::Submodules, deadline);
        dyno::run(supervisor, paths, order, workdir, output, task).await?;
    }
    clean(&source, output).await?;
    let left_out = source::write_env(&workdir.env(), &order.config)
        .map_err(BuildError::file("write", &workdir.env()))?;
    if !left_out.is_empty() {
        output.error("Warning: config vars with names over 255 characters are not seen by builds.");
    }
    let buildpacks = choice::choose(order, &source)?;
    choice::prepare(&buildpacks, paths, workdir, output).await?;
    let task = (Task::Build, deadline);
    let (finding, cache) = dyno::run(supervisor, paths, order, workdir, output, task).await?;
    let process_types = process_types(&source, &finding, output)?;
    let packed = pack(source, paths, order, output).await?;
    Ok(Built {
        digest: packed.digest,
        size_bytes: packed.size_bytes,
        process_types,
        buildpack: finding.name,
        rest: Rest {
            _cache: cache,
            workdir: None,
        },
    })
}

/// Of the whole tree, submodules too: what is ignored or never built is gone before a buildpack runs.
async fn clean(source: &Path, output: &Output) -> Result<(), BuildError> {
    let source = source.to_owned();
    let deadline = Instant::now() + CLEAN_TIME;
    let warnings = blocking(move || source::clean(&source, deadline))
        .await?
        .map_err(BuildError::file("clean", Path::new("the source")))?;
    for warning in warnings {
        output.error(&format!("Warning: {warning}"));
    }
    Ok(())
}

/// Before anything is unpacked: a wrong archive is called that, not damaged.
async fn verify(archive: &Path, expected: Digest) -> Result<(), BuildError> {
    let path = archive.to_owned();
    let (actual, _) = blocking(move || slug::digest_of(File::open(path)?))
        .await?
        .map_err(BuildError::file("read", archive))?;
    if actual == expected {
        Ok(())
    } else {
        Err(BuildError::Checksum { expected, actual })
    }
}

/// Runs work that blocks in a thread of its own. A panic there goes on here.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, BuildError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime shuts down.
            Err(_) => Err(BuildError::Stopped),
        },
    }
}

fn process_types(
    source: &Path,
    finding: &Finding,
    output: &Output,
) -> Result<BTreeMap<ProcessType, String>, BuildError> {
    let found = tree::read_file(source, "Procfile", procfile::BYTES_MAX)
        .map_err(BuildError::file("read", Path::new("the Procfile")))?;
    let procfile = match found {
        Found::Missing => Procfile::default(),
        Found::Refused(why) => {
            output.error(&format!("Warning: Procfile {why}: it is not used"));
            Procfile::default()
        }
        Found::Bytes(bytes) => Procfile::parse(&bytes),
    };
    for warning in &procfile.warnings {
        output.error(&format!("Warning: {warning}"));
    }
    let release = &finding.release;
    if !release.config_vars.is_empty() {
        let names: Vec<_> = release.config_vars.keys().map(String::as_str).collect();
        let names = names.join(", ");
        output.error(&format!(
            "Warning: the buildpack asks for config vars, which are yours to set: {names}"
        ));
    }
    output.step("Discovering process types");
    let (types, lines) = merge(procfile.types, &release.default_process_types);
    for line in lines {
        output.detail(&line);
    }
    output.plain("");
    Ok(types)
}

/// The Procfile's types over the buildpack's, and what to say about them.
fn merge(
    declared: BTreeMap<ProcessType, String>,
    defaults: &BTreeMap<ProcessType, String>,
) -> (BTreeMap<ProcessType, String>, Vec<String>) {
    let list = |types: Vec<&ProcessType>| {
        let names: Vec<_> = types.iter().map(|t| t.as_str()).collect();
        if names.is_empty() {
            "(none)".to_owned()
        } else {
            names.join(", ")
        }
    };
    let mut lines = vec![format!(
        "Procfile declares types -> {}",
        list(declared.keys().collect())
    )];
    let added: Vec<_> = defaults
        .keys()
        .filter(|t| !declared.contains_key(t))
        .collect();
    if !added.is_empty() {
        lines.push(format!("Default types for buildpack -> {}", list(added)));
    }
    let mut types = defaults.clone();
    types.extend(declared);
    (types, lines)
}

/// The slug of the source: the one before if it would be the same, else a new one.
async fn pack(
    source: PathBuf,
    paths: &Paths,
    order: &BuildOrder,
    output: &Output,
) -> Result<Packed, BuildError> {
    output.step("Compressing...");
    let packed = match unchanged(&source, paths, order.before).await? {
        Some(packed) => packed,
        None => pack_anew(source, paths, order).await?,
    };
    output.detail(&format!("Done: {}", human(packed.size_bytes)));
    if let Some(warning) = slow(packed.size_bytes) {
        output.error(&warning);
    }
    Ok(packed)
}

/// What is said of a slug that is large, if it is.
fn slow(size_bytes: u64) -> Option<String> {
    (size_bytes > SLUG_BYTES_SOFT).then(|| {
        format!(
            "Warning: Your slug size ({} MB) exceeds our soft limit (300 MB) which may affect boot time.",
            size_bytes >> 20
        )
    })
}

/// Its tree for the dynos is made at the same time.
async fn pack_anew(
    source: PathBuf,
    paths: &Paths,
    order: &BuildOrder,
) -> Result<Packed, BuildError> {
    let (trees, lately) = (Trees::new(paths), order.lately.clone());
    let before = order.before.map(|(digest, _)| digest);
    let packing = blocking(move || trees.pack(&source, before, &lately));
    let (packed, made) = packing.await?.map_err(BuildError::Slug)?;
    match within_bounds(packed) {
        Ok(packed) => {
            made.keep();
            Ok(packed)
        }
        Err(error) => {
            made.discard().await;
            Err(error)
        }
    }
}

fn within_bounds(packed: Packed) -> Result<Packed, BuildError> {
    if packed.size_bytes <= SLUG_BYTES_MAX {
        return Ok(packed);
    }
    if let Err(error) = std::fs::remove_file(&packed.path) {
        tracing::warn!(path = %packed.path.display(), %error, "slug not removed");
    }
    Err(BuildError::TooLarge {
        size_bytes: packed.size_bytes,
        max_bytes: SLUG_BYTES_MAX,
    })
}

/// The slug of the build before, if this source gives the same. Its files are held while a build
/// is under way, but may be gone by then.
async fn unchanged(
    source: &Path,
    paths: &Paths,
    before: Option<(Digest, u64)>,
) -> Result<Option<Packed>, BuildError> {
    let Some((digest, size_bytes)) = before else {
        return Ok(None);
    };
    let (path, tree) = (paths.slug(&digest), paths.tree(&digest));
    let is_there = std::fs::metadata(&path).is_ok_and(|slug| slug.len() == size_bytes);
    if !is_there || !tree.is_dir() {
        return Ok(None);
    }
    let source = source.to_owned();
    let is_same = blocking(move || slug::is_unpacked(&source, &tree)).await?;
    // What cannot be read is told by who packs it.
    Ok(is_same.unwrap_or(false).then_some(Packed {
        digest,
        size_bytes,
        path,
    }))
}

/// `host` → `Host`, as in `Heroku-24`.
fn capitalized(name: &str) -> String {
    let mut chars = name.chars();
    let head = chars.next().map(|c| c.to_ascii_uppercase());
    head.into_iter().chain(chars).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(declared: &[(&str, &str)], defaults: &[(&str, &str)], types: &[&str], said: &[&str]) {
        let map = |list: &[(&str, &str)]| -> BTreeMap<ProcessType, String> {
            list.iter()
                .map(|(t, c)| (t.parse().expect("a type"), (*c).to_owned()))
                .collect()
        };
        let (merged, lines) = merge(map(declared), &map(defaults));
        let merged: Vec<_> = merged.iter().map(|(t, c)| format!("{t}={c}")).collect();
        assert_eq!(merged, types);
        assert_eq!(lines, said);
    }

    #[test]
    fn the_procfile_goes_over_the_defaults() {
        check(&[], &[], &[], &["Procfile declares types -> (none)"]);
        check(
            &[],
            &[("web", "npm start")],
            &["web=npm start"],
            &[
                "Procfile declares types -> (none)",
                "Default types for buildpack -> web",
            ],
        );
        check(
            &[("worker", "w"), ("web", "mine")],
            &[("web", "npm start"), ("console", "c")],
            &["console=c", "web=mine", "worker=w"],
            &[
                "Procfile declares types -> web, worker",
                "Default types for buildpack -> console",
            ],
        );
    }

    #[test]
    fn slugs_of_500_mb_are_the_largest_and_those_over_300_are_warned_of() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("slug.tgz");
        let bounded = |size_bytes| {
            std::fs::write(&path, "bytes").expect("written");
            let digest = Digest([1; 32]);
            within_bounds(Packed {
                digest,
                size_bytes,
                path: path.clone(),
            })
        };
        let largest = bounded(500 << 20).expect("within bounds");
        assert!(path.exists());
        assert_eq!(largest.size_bytes, 524_288_000);
        let error = bounded((500 << 20) + 1).expect_err("too large");
        assert_eq!(
            error.to_string(),
            "the slug has 524288001 bytes, more than 524288000"
        );
        assert!(!path.exists(), "nothing of it stays");

        assert_eq!(slow(300 << 20), None);
        assert_eq!(
            slow((300 << 20) + 1).as_deref(),
            Some(
                "Warning: Your slug size (300 MB) exceeds our soft limit (300 MB) which may affect boot time."
            )
        );
    }

    #[tokio::test]
    async fn an_archive_that_was_changed_is_called_that() {
        let dir = tempfile::tempdir().expect("a directory");
        let archive = dir.path().join("a.tgz");
        std::fs::write(&archive, "bytes").expect("written");
        let (right, _) = slug::digest_of(&b"bytes"[..]).expect("hashed");
        verify(&archive, right).await.expect("the same");
        let wrong = verify(&archive, Digest([0; 32])).await;
        assert!(matches!(wrong, Err(BuildError::Checksum { .. })));
    }

    #[tokio::test]
    async fn process_types_come_from_a_real_procfile_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let output = Output::create(&dir.path().join("log")).expect("made");
        let finding = Finding {
            name: "Node.js".to_owned(),
            release: super::super::release_yaml::Release::parse(
                b"default_process_types:\n  web: npm start\n",
            ),
        };
        std::fs::write(dir.path().join("elsewhere"), "worker: x\n").expect("written");
        std::os::unix::fs::symlink("elsewhere", dir.path().join("Procfile")).expect("linked");
        let types = process_types(dir.path(), &finding, &output).expect("read");
        assert_eq!(types.len(), 1);
        let text = std::fs::read_to_string(dir.path().join("log")).expect("read");
        insta::assert_snapshot!(text);
    }
}
