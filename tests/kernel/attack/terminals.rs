//! Attacks on terminals of attached one-off dynos.

use std::process::{Command, Stdio};

use libtest_mimic::Failed;

use super::links;
use crate::host::{Host, check, contains};
use crate::support;

/// Runs a script in a one-off with a terminal, as a person at one would see it.
fn at_terminal(host: &Host, script: &str) -> Result<String, Failed> {
    let path = host.dir.path().join("at-terminal.sh");
    std::fs::write(
        &path,
        format!(
            "exec {} run -a tiny -- bash -c '{script}'",
            support::manifold().display()
        ),
    )?;
    let output = Command::new("script")
        .args(["-qefc", &format!("sh {}", path.display()), "/dev/null"])
        .env("MANIFOLD_SOCKET", host.socket())
        .stdin(Stdio::null())
        .output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

const INJECT: &str = "python3 -c \"
import errno, fcntl, os
print(os.ttyname(0), os.isatty(1))
for name, number in ((\\\"TIOCSTI\\\", 0x5412), (\\\"TIOCLINUX\\\", 0x541C)):
    try:
        fcntl.ioctl(0, number, b\\\"i\\\")
        print(name, \\\"SUCCEEDED\\\")
    except OSError as error:
        print(name, \\\"BLOCKED\\\", errno.errorcode[error.errno])
\"; ls /dev/pts";

pub(super) fn injection(host: &Host) -> Result<String, Failed> {
    let text = at_terminal(host, INJECT)?;
    for line in [
        "/dev/pts/0 True",
        "TIOCSTI BLOCKED EPERM",
        "TIOCLINUX BLOCKED EPERM",
    ] {
        contains(&text, line)?;
    }
    let terminals = text.lines().last().unwrap_or_default();
    check(
        terminals.split_whitespace().collect::<Vec<_>>() == ["0", "ptmx"],
        format!("a devpts of its own: {text}"),
    )?;
    Ok("EPERM on a pty of a devpts of its own".to_owned())
}

/// A slug that has links where the terminal's slave will be.
pub(super) fn planted(host: &Host) -> Result<String, Failed> {
    let tree = links::slug_tree(host)?;
    let canary = host.dir.path().join("pty-canary");
    std::fs::write(&canary, "untouched")?;
    let links = [("dev/pts", "/app"), ("app/0", &*canary.to_string_lossy())];
    std::fs::create_dir(tree.join("dev"))?;
    for (name, target) in links {
        std::os::unix::fs::symlink(target, tree.join(name))?;
    }
    let text = at_terminal(host, "tty; echo still works");
    std::fs::remove_file(tree.join("app/0"))?;
    std::fs::remove_file(tree.join("dev/pts"))?;
    std::fs::remove_dir(tree.join("dev"))?;
    let text = text?;
    contains(&text, "/dev/pts/0")?;
    contains(&text, "still works")?;
    check(
        std::fs::read_to_string(&canary)? == "untouched",
        "the canary was written",
    )?;
    Ok("links at /dev/pts have no effect".to_owned())
}
