//! The floor: `floor.c`, compiled here, run in rounds beside the others.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process;

const FLOOR: &str = include_str!("floor.c");
const SERVE: &str = include_str!("serve.c");

/// Longest compilation.
const COMPILE: Duration = Duration::from_mins(2);

fn compile(text: &str, dir: &Path, name: &str, flags: &[&str]) -> Result<PathBuf> {
    let (source, program) = (dir.join(format!("{name}.c")), dir.join(name));
    fs::write(&source, text)?;
    let mut command = Command::new("cc");
    command.args(["-O2", "-w"]).args(flags);
    command.arg("-o").arg(&program).arg(&source);
    process::check(&mut command, COMPILE)?;
    fs::remove_file(&source)?;
    Ok(program)
}

/// The server that the scaled app runs.
pub(super) fn server(dir: &Path) -> Result<()> {
    compile(SERVE, dir, "serve", &["-static"]).map(drop)
}

/// The compiled program, a lower layer, and cgroups of its own.
pub(super) struct Floor {
    dir: tempfile::TempDir,
    program: PathBuf,
    groups: Vec<PathBuf>,
}

impl Floor {
    /// `lower` has the links and mount points of a root.
    pub(super) fn prepare() -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("manifold-bench-floor-")
            .tempdir_in("/var/tmp")?;
        let program = compile(FLOOR, dir.path(), "floor", &[])?;
        let lower = dir.path().join("lower");
        for name in ["usr", "proc", "sys", "dev", "tmp", "app", "etc"] {
            fs::create_dir_all(lower.join(name))?;
        }
        for name in ["bin", "lib", "lib64", "sbin"] {
            std::os::unix::fs::symlink(format!("usr/{name}"), lower.join(name))?;
        }
        for name in ["scratch", "scratch-writable"] {
            fs::create_dir(dir.path().join(name))?;
        }
        let top = Path::new("/sys/fs/cgroup");
        let name = format!("manifold-floor-{}", std::process::id());
        let groups: Vec<PathBuf> = if top.join("cgroup.controllers").exists() {
            vec![top.join(&name)]
        } else {
            let controllers = ["memory", "cpu", "pids"];
            controllers.map(|c| top.join(c).join(&name)).to_vec()
        };
        let floor = Self {
            dir,
            program,
            groups,
        };
        for group in &floor.groups {
            fs::create_dir(group).with_context(|| format!("cannot make {}", group.display()))?;
        }
        Ok(floor)
    }

    /// Launches to exec, and whole cycles.
    pub(super) fn run(&self, count: usize) -> Result<Vec<(Duration, Duration)>> {
        let output = Command::new(&self.program)
            .arg(count.to_string())
            .arg(self.dir.path().join("scratch"))
            .arg(self.dir.path().join("lower"))
            .args(&self.groups)
            .output()
            .context("cannot run the floor")?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines = text.lines().map(|line| {
            let (exec, whole) = line.split_once(' ').context("two figures a line")?;
            let time = |text: &str| -> Result<Duration> {
                Ok(Duration::from_secs_f64(text.parse::<f64>()? / 1e6))
            };
            Ok((time(exec)?, time(whole)?))
        });
        lines.collect()
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        for group in &self.groups {
            // After a launch that failed one of its own may be inside; the count tells.
            let _ = fs::remove_dir(group.join("floor"));
            let _ = fs::remove_dir(group);
        }
    }
}
