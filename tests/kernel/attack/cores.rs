//! The host's core handler must not run for a dyno's crash.

use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Failed;

use super::around::inside;
use crate::host::{Host, check};

const PATTERN: &str = "/proc/sys/kernel/core_pattern";

/// The host's own pattern comes back whatever happens.
struct Pattern(String);

impl Drop for Pattern {
    fn drop(&mut self) {
        // Nobody is left to tell.
        let _ = std::fs::write(PATTERN, &self.0);
    }
}

/// A handler that leaves a file per crash, and the pattern that names it.
fn handler(host: &Host) -> Result<(PathBuf, Pattern), Failed> {
    let dir = host.dir.path().join("cores");
    std::fs::create_dir(&dir)?;
    let script = host.dir.path().join("core-handler");
    std::fs::write(
        &script,
        format!("#!/bin/sh\ncat >/dev/null\n: >{}/\"$1\"\n", dir.display()),
    )?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode)?;
    let old = Pattern(std::fs::read_to_string(PATTERN)?);
    std::fs::write(PATTERN, format!("|{} %u", script.display()))?;
    Ok((dir, old))
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

pub(super) fn host_handler(host: &Host) -> Result<String, Failed> {
    let (dir, pattern) = handler(host)?;
    let mut text = String::new();
    for limit in ["0", "1", "unlimited"] {
        text += &inside(
            host,
            &format!(
                "ulimit -c {limit} 2>/dev/null; echo limit $(ulimit -c); sh -c 'kill -SEGV $$'; echo $?"
            ),
        );
    }
    // The same crash on the host, by an ordinary user, shows that the handler does run.
    let crash = "ulimit -c unlimited; kill -SEGV $$";
    let _ = Command::new("setpriv")
        .args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "sh",
            "-c",
            crash,
        ])
        .current_dir("/")
        .status()?;
    let has_run = host.eventually("the handler runs for the host", || {
        names(&dir).contains(&"65534".to_owned())
    });
    drop(pattern);
    has_run?;
    check(
        text.matches("139").count() == 3,
        format!("three crashes: {text}"),
    )?;
    let dynos: Vec<_> = names(&dir)
        .into_iter()
        .filter(|uid| uid.len() > 5)
        .collect();
    check(dynos.is_empty(), format!("the handler ran for {dynos:?}"))?;
    Ok("not run for limits 0, 1 and unlimited; run for the host's own crash".to_owned())
}
