//! `cargo xtask stack build`: a stack's run and build image, from Debian's packages.
//!
//! The result is what the supervisor looks for below its state directory: `NAME/run` and
//! `NAME/build`, two root file systems as plain directories, since an overlay is fastest on those.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};

use crate::sources::{self, Sources};
use crate::{packages, process};

/// Longest build of one image.
const LIMIT: Duration = Duration::from_mins(30);

/// Options of `cargo xtask stack`.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// Build a stack's run and build image
    Build {
        /// A folder of `stacks/`
        #[arg(default_value = "cedar")]
        name: String,
        /// Where `run` and `build` go [default: /var/lib/manifold/stacks/NAME]
        #[arg(long, value_name = "DIR")]
        output: Option<PathBuf>,
        /// Only this image
        #[arg(long, value_parser = ["run", "build"])]
        image: Option<String>,
    },
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let Action::Build {
        name,
        output,
        image,
    } = &options.action;
    let recipe = Recipe::read(name)?;
    packages::install(&["ca-certificates", "mmdebstrap"])?;
    let output = output
        .clone()
        .unwrap_or_else(|| Path::new("/var/lib/manifold/stacks").join(name));
    fs::create_dir_all(&output).with_context(|| format!("cannot make {}", output.display()))?;
    let images = image
        .as_deref()
        .map_or(vec!["run", "build"], |one| vec![one]);
    for image in images {
        let start = Instant::now();
        let root = output.join(image);
        build(&recipe, image, &output, &root)?;
        let size = process::read(Command::new("du").args(["-sm"]).arg(&root))?;
        println!(
            "{}: {} MB in {:.0} s",
            root.display(),
            size.split_whitespace().next().unwrap_or("?"),
            start.elapsed().as_secs_f64()
        );
    }
    println!("use it: manifold stack:set {name} --app APP, or stack = \"{name}\" in the settings");
    Ok(ExitCode::SUCCESS)
}

/// The folder of stacks that tests use, in `target/stacks`: built where it is missing or its recipe
/// changed.
pub(crate) fn for_tests() -> Result<PathBuf> {
    let recipe = Recipe::read("cedar")?;
    let stacks = crate::target().join("stacks");
    let output = stacks.join("cedar");
    let (stamp, text) = (output.join("recipe"), recipe.text()?);
    if fs::read(&stamp).is_ok_and(|old| old == text) {
        println!("{} is there", output.display());
        return Ok(stacks);
    }
    fs::create_dir_all(&output).with_context(|| format!("cannot make {}", output.display()))?;
    for image in ["run", "build"] {
        build(&recipe, image, &output, &output.join(image))?;
    }
    fs::write(&stamp, text).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(stacks)
}

/// `stacks/NAME`.
struct Recipe {
    dir: PathBuf,
    suite: String,
    architecture: String,
}

impl Recipe {
    fn read(name: &str) -> Result<Self> {
        ensure!(
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'),
            "`{name}` is no name of a stack"
        );
        let dir = crate::root().join("stacks").join(name);
        let file = dir.join("stack.toml");
        let text =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let table: toml::Table = text
            .parse()
            .with_context(|| format!("{} is not TOML", file.display()))?;
        let value = |key: &str| {
            let value = table.get(key).and_then(toml::Value::as_str);
            value
                .map(str::to_owned)
                .with_context(|| format!("{} has no `{key}`", file.display()))
        };
        Ok(Self {
            suite: value("suite")?,
            architecture: value("architecture")?,
            dir,
        })
    }

    /// All that makes the images what they are, but for the packages' versions.
    fn text(&self) -> Result<Vec<u8>> {
        let mut names: Vec<_> = fs::read_dir(&self.dir)
            .with_context(|| format!("cannot read {}", self.dir.display()))?
            .flatten()
            .map(|entry| entry.path())
            .collect();
        names.sort();
        let mut text = Vec::new();
        for path in names {
            let bytes =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            text.extend(bytes);
        }
        Ok(text)
    }
}

/// Made beside and put in place at once: a failed build leaves the old image.
fn build(recipe: &Recipe, image: &str, output: &Path, root: &Path) -> Result<()> {
    println!("building {}", root.display());
    refuse_if_used(root)?;
    let sources = Sources::of_host()?;
    ensure!(
        sources.suite == recipe.suite,
        "this stack is {}, and this host's apt sources are for {}",
        recipe.suite,
        sources.suite
    );
    let scratch = tempfile::Builder::new()
        .prefix(&format!(".{image}-"))
        .tempdir_in(output)?;
    let new = scratch.path().join("new");
    let mut command = Command::new(recipe.dir.join("build.sh"));
    command
        .arg(image)
        .arg(&new)
        .args([&recipe.suite, &recipe.architecture])
        .args(sources.write(scratch.path())?)
        .arg("--")
        .args(sources::proxy());
    process::check(&mut command, LIMIT)?;
    if root.exists() {
        let old = scratch.path().join("old");
        fs::rename(root, &old).with_context(|| format!("cannot move {} away", root.display()))?;
    }
    fs::rename(&new, root).with_context(|| format!("cannot make {}", root.display()))
}

/// Changing a layer under a mounted overlay is undefined. Source: the kernel's `overlayfs.rst`.
fn refuse_if_used(root: &Path) -> Result<()> {
    let text = root.display().to_string();
    for entry in fs::read_dir("/proc")
        .context("cannot read /proc")?
        .flatten()
    {
        let mounts = fs::read_to_string(entry.path().join("mountinfo")).unwrap_or_default();
        if mounts.lines().any(|line| line.contains(&text)) {
            bail!("{text} is in use by running dynos; stop the supervisor first");
        }
    }
    Ok(())
}
