//! Uploads that race, and the process that unpacks.

use std::path::Path;
use std::time::Instant;

use libtest_mimic::Failed;
use nix::sys::signal::Signal;

use super::Bench;
use crate::attack::around::field;
use crate::host::{PATIENCE, check, contains};
use crate::support;

/// A good slug whose one file says a number.
fn good(bench: &Bench, number: usize) -> Result<Vec<u8>, Failed> {
    let dir = tempfile::tempdir()?;
    std::fs::create_dir(dir.path().join("app"))?;
    std::fs::write(dir.path().join("app/number"), number.to_string())?;
    let file = bench.archives.path().join(format!("good-{number}"));
    let made = std::process::Command::new("tar")
        .arg("-czf")
        .arg(&file)
        .arg("-C")
        .arg(dir.path())
        .arg("./app")
        .status()?;
    check(made.success(), "tar")?;
    Ok(std::fs::read(file)?)
}

/// Fifty uploads of one slug at once: one is taken, and it is the one that runs. Then its bytes are
/// changed behind the platform's back.
pub(super) fn uploads(bench: &Bench) -> Result<String, Failed> {
    let slugs = || -> Result<Vec<String>, Failed> {
        let entries = std::fs::read_dir(bench.state("slugs"))?.flatten();
        Ok(entries
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .collect())
    };
    let before = slugs()?;
    let id = bench.slug()?;
    let archives: Vec<Vec<u8>> = (0..50).map(|n| good(bench, n)).collect::<Result<_, _>>()?;
    let answers: Vec<Result<u16, Failed>> = std::thread::scope(|scope| {
        let sent: Vec<_> = archives
            .iter()
            .map(|bytes| scope.spawn(|| bench.put(&id, bytes)))
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| thread.join();
        sent.into_iter()
            .filter_map(|sent| join(sent).ok())
            .collect()
    });
    let answers: Vec<u16> = answers.into_iter().collect::<Result<_, _>>()?;
    let taken: Vec<usize> = (0..50).filter(|n| answers[*n] == 200).collect();
    let [winner] = taken[..] else {
        return Err(format!("one is taken: {answers:?}").into());
    };
    let is_known = |status: &u16| [200, 409].contains(status);
    check(answers.iter().all(is_known), format!("{answers:?}"))?;
    let (_, out, told) = bench.run(&id, "cat /app/number")?;
    check(
        out == winner.to_string(),
        format!("{winner} was taken: {out} {told}"),
    )?;
    // Old ones may have been collected meanwhile.
    let mut new = slugs()?;
    new.retain(|name| !before.contains(name));
    check(
        new.len() == 1 && !new[0].contains(".upload"),
        format!("new beside {} slugs: {new:?}", before.len()),
    )?;
    // Another archive under the name of the one that was recorded.
    let (id, _) = bench.upload(&good(bench, 100)?)?;
    let tree = bench.tree(&good(bench, 100)?);
    check(tree.is_none(), "it is not unpacked yet")?;
    let known: Vec<String> = slugs()?;
    let fresh = bench.upload(&good(bench, 101)?)?.0;
    let new: Vec<String> = slugs()?
        .into_iter()
        .filter(|name| !known.contains(name))
        .collect();
    let [name] = &new[..] else {
        return Err(format!("one more slug: {new:?}").into());
    };
    std::fs::write(bench.state("slugs").join(name), good(bench, 102)?)?;
    let (succeeded, out, told) = bench.run(&fresh, "cat /app/number")?;
    check(
        !succeeded && out.is_empty(),
        format!("changed bytes ran: {out}"),
    )?;
    contains(&told, "checksum mismatch")?;
    let (_, out, told) = bench.run(&id, "cat /app/number")?;
    check(out == "100", format!("{out} {told}"))?;
    bench.clear_trees()?;
    Ok("1 of 50 is taken and runs; changed bytes are refused (R17)".to_owned())
}

/// The unpacking process below this supervisor.
fn unpacker(bench: &Bench) -> Option<u32> {
    let state = bench.state("trees").display().to_string();
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).into_owned();
        // Confined it is when it writes.
        let is_writing = || {
            let open = std::fs::read_dir(entry.path().join("fd"));
            open.into_iter().flatten().flatten().any(|fd| {
                std::fs::read_link(fd.path()).is_ok_and(|file| file.ends_with("app/zeros"))
            })
        };
        if words.contains("__unpack") && words.contains(&state) && is_writing() {
            return Some(pid);
        }
    }
    None
}

/// Stops the unpacking process in the middle and looks at it.
pub(super) fn confinement(bench: &Bench) -> Result<String, Failed> {
    let dir = tempfile::tempdir_in("/var/tmp")?;
    std::fs::create_dir(dir.path().join("app"))?;
    let zeros = std::fs::File::create(dir.path().join("app/zeros"))?;
    zeros.set_len(400 << 20)?;
    let file = bench.archives.path().join("large");
    let made = std::process::Command::new("tar")
        .args(["-I", "gzip -1", "-cf"])
        .arg(&file)
        .arg("-C")
        .arg(dir.path())
        .arg("./app")
        .status()?;
    check(made.success(), "tar")?;
    let (id, _) = bench.upload(&std::fs::read(file)?)?;
    std::thread::scope(|scope| {
        let running = scope.spawn(|| bench.run(&id, "stat -c %s /app/zeros"));
        let deadline = Instant::now() + PATIENCE;
        let found = loop {
            match unpacker(bench) {
                Some(pid) => break pid,
                None if Instant::now() > deadline => return Err("no unpacker was seen".into()),
                None => std::thread::yield_now(),
            }
        };
        support::signal(found, Signal::SIGSTOP);
        let seen = look(found);
        support::signal(found, Signal::SIGCONT);
        let ran = running
            .join()
            .unwrap_or_else(|_| Err("it panicked".into()))?;
        seen?;
        check(
            ran.1.trim() == (400_u64 << 20).to_string(),
            format!("{ran:?}"),
        )?;
        bench.clear_trees()?;
        Ok("uid 1000, no capability, no network, root is its target, 4 descriptors".to_owned())
    })
}

fn look(pid: u32) -> Result<(), Failed> {
    for (name, expected) in [
        ("Uid", "1000\t1000\t1000\t1000"),
        ("Gid", "1000\t1000\t1000\t1000"),
        ("Groups", ""),
        ("CapInh", "0000000000000000"),
        ("CapPrm", "0000000000000000"),
        ("CapEff", "0000000000000000"),
        ("CapBnd", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "1"),
    ] {
        let seen = field(pid, name);
        check(
            seen == expected,
            format!("{name} of the unpacker: {seen:?}"),
        )?;
    }
    let proc = Path::new("/proc").join(pid.to_string());
    let own = Path::new("/proc/self");
    for kind in ["net", "ipc"] {
        let of = |base: &Path| std::fs::read_link(base.join("ns").join(kind));
        check(
            of(&proc)? != of(own)?,
            format!("its {kind} namespace is the host's"),
        )?;
    }
    let links = std::fs::read_to_string(proc.join("net/dev"))?;
    check(links.lines().count() == 3, format!("links but lo: {links}"))?;
    let cwd = std::fs::read_link(proc.join("cwd"))?;
    check(
        cwd == std::fs::read_link(proc.join("root"))?,
        "its directory is its root",
    )?;
    let open: Vec<_> = std::fs::read_dir(proc.join("fd"))?
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .collect();
    // stdin (the archive), two pipes, its root, and what it writes right now.
    let outside = open.iter().filter(|link| {
        let text = link.to_string_lossy();
        !text.starts_with("pipe:") && !text.ends_with(".tgz") && !link.starts_with(&cwd)
    });
    let outside: Vec<_> = outside.collect();
    check(
        outside.is_empty() && open.len() < 16,
        format!("it holds {open:?}"),
    )?;
    let environ = std::fs::read(proc.join("environ"))?;
    check(environ.is_empty(), "it has an environment")
}
