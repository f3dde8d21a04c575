//! A slug whose tree has links where the platform mounts: planted by the test, as an unpacker that
//! failed would.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use libtest_mimic::Failed;

use super::around::inside;
use crate::host::{Host, check};

/// Between two rounds of links: about as long as a launch takes.
const PAUSE: Duration = Duration::from_millis(15);

/// The one unpacked slug.
pub(super) fn slug_tree(host: &Host) -> Result<PathBuf, Failed> {
    let trees = std::fs::read_dir(host.dir.path().join("state/trees"))?;
    let trees: Vec<_> = trees.flatten().map(|entry| entry.path()).collect();
    match trees.as_slice() {
        [tree] => Ok(tree.clone()),
        other => Err(format!("one tree was expected: {other:?}").into()),
    }
}

/// A directory of the host that nothing may be made in or mounted on.
fn canary(host: &Host) -> Result<PathBuf, Failed> {
    let canary = host.dir.path().join("canary");
    if !canary.is_dir() {
        std::fs::create_dir(&canary)?;
        std::fs::write(canary.join("file"), "untouched")?;
    }
    Ok(canary)
}

fn untouched(canary: &Path) -> Result<(), Failed> {
    let names = std::fs::read_dir(canary)?.count();
    let text = std::fs::read_to_string(canary.join("file"))?;
    check(
        names == 1 && text == "untouched",
        format!("{} was changed", canary.display()),
    )?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    check(
        !mounts.contains(&canary.display().to_string()),
        "something is mounted on the canary",
    )
}

/// Prints the file systems that a dyno's own places are on.
const PLACES: &str = "stat -f -c %T /proc /sys /dev /dev/pts /dev/shm | tr '\\n' ' '";
const EXPECTED: &str = "proc sysfs tmpfs devpts tmpfs";

pub(super) fn in_the_slug(host: &Host) -> Result<String, Failed> {
    let tree = slug_tree(host)?;
    let canary = canary(host)?;
    let outside = canary.display().to_string();
    for name in ["dev", "proc", "sys", "usr"] {
        for target in [&*outside, "/tmp", "/", "../../../..", "/proc/1/root"] {
            let link = tree.join(name);
            std::os::unix::fs::symlink(target, &link)?;
            let text = inside(host, PLACES);
            std::fs::remove_file(&link)?;
            check(
                !text.trim().starts_with(EXPECTED) && !text.is_empty(),
                format!("{name} -> {target} was launched: {text}"),
            )?;
            let is_clear = ["mount", "bind", "/usr"]
                .iter()
                .any(|word| text.contains(word));
            check(is_clear, format!("{name} -> {target}: what failed? {text}"))?;
            untouched(&canary)?;
        }
    }
    // Nothing is mounted here: the link means what it means inside.
    for (name, target) in [("tmp", &*outside), ("run", "/proc/1/root")] {
        let link = tree.join(name);
        std::os::unix::fs::symlink(target, &link)?;
        let text = inside(host, &format!("echo x >/{name}/escaped; {PLACES}"));
        std::fs::remove_file(&link)?;
        check(
            text.contains(EXPECTED),
            format!("{name} -> {target}: {text}"),
        )?;
        untouched(&canary)?;
    }
    let text = inside(host, PLACES);
    check(text.trim() == EXPECTED, format!("without links: {text}"))?;
    Ok("20 links end the launch, 2 lead inside, the host is untouched".to_owned())
}

/// Links that come and go while dynos are made.
pub(super) fn racing(host: &Host) -> Result<String, Failed> {
    let tree = slug_tree(host)?;
    let canary = canary(host)?;
    let is_over = AtomicBool::new(false);
    let (mut launched, mut refused) = (0, 0);
    std::thread::scope(|scope| -> Result<(), Failed> {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                for name in ["dev", "proc"] {
                    // Whether each half works depends on the other side: that is the race.
                    let _ = std::os::unix::fs::symlink(&canary, tree.join(name));
                    std::thread::yield_now();
                    let _ = std::fs::remove_file(tree.join(name));
                }
                // Room for a launch that meets no link; where in it one comes is chance.
                std::thread::park_timeout(PAUSE);
            }
        });
        let result = (0..12).try_for_each(|_| {
            let text = inside(host, PLACES);
            if text.trim() == EXPECTED {
                launched += 1;
                Ok(())
            } else {
                refused += 1;
                let is_partial = EXPECTED.split(' ').all(|word| text.contains(word));
                check(!is_partial, format!("neither whole nor refused: {text}"))
            }
        });
        is_over.store(true, Ordering::Relaxed);
        result
    })?;
    untouched(&canary)?;
    check(launched + refused == 12, "all were tried")?;
    Ok(format!(
        "12 launches under flipping links: {launched} whole, {refused} refused"
    ))
}
