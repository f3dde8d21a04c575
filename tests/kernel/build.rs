//! From source to release: what goes in, what is kept, what a failure leaves alone.

use std::path::Path;
use std::process::Command;

use libtest_mimic::{Failed, Trial};

use crate::host::{Host, app_dir, check, contains, deployed};

/// Set where the network reaches the package indexes: the real frameworks are built then.
const NETWORK: &str = "MANIFOLD_TEST_NETWORK";

/// The cases of this file.
pub(crate) fn cases() -> Vec<Trial> {
    let is_closed = std::env::var_os(NETWORK).is_none();
    vec![
        Trial::test("build::a_failed_build_changes_nothing", failure),
        Trial::test(
            "build::archives_ignore_files_and_profiles_are_honoured",
            archive,
        ),
        Trial::test("build::flask_and_express_answer_with_two_dynos", frameworks)
            .with_ignored_flag(is_closed),
    ]
}

fn write(dir: &Path, files: &[(&str, &str)]) -> Result<(), Failed> {
    for (name, text) in files {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().ok_or("no parent")?)?;
        std::fs::write(path, text)?;
    }
    Ok(())
}

fn failure() -> Result<(), Failed> {
    let host = deployed()?;
    let releases = host.ok(&["releases", "-a", "tiny", "--json"])?;
    let dir = tempfile::tempdir()?;
    write(
        dir.path(),
        &[
            ("requirements.txt", "./nowhere\n"),
            ("Procfile", "web: true\n"),
        ],
    )?;
    let output = host.cli(&["deploy", &dir.path().display().to_string(), "-a", "tiny"]);
    check(output.status.code() == Some(9), format!("{output:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    contains(&text, " !     Push rejected, failed to compile Python app.")?;
    contains(&text, " !     Push failed")?;
    check(
        host.ok(&["releases", "-a", "tiny", "--json"])? == releases,
        "nothing was released",
    )?;
    contains(
        &host.logs("tiny"),
        "app[api]: Build failed -- check your build output: ",
    )?;
    check(
        host.all_up("tiny", &["web.1"]),
        "what ran before still runs",
    )?;
    let left = std::fs::read_dir(host.dir.path().join("state/builds"))?.count();
    check(left == 0, "no working directory is left")
}

fn archive() -> Result<(), Failed> {
    let host = Host::start()?;
    let dir = tempfile::tempdir()?;
    write(
        dir.path(),
        &[
            ("requirements.txt", ""),
            (
                "Procfile",
                "# types\nworker: ./work.sh \"x: y\"\r\nnot a process line\n",
            ),
            (
                "work.sh",
                "#!/bin/bash\necho \"$GREETING|$1|$DYNO|$HOME|$PWD\"\nsleep 1000\n",
            ),
            (
                ".profile.d/a.sh",
                "export GREETING=\"hello from the profile\"\n",
            ),
            (".slugignore", "secret\n/docs\n"),
            ("secret/key", "1"),
            ("docs/index", "1"),
            ("lib/docs/kept", "1"),
            ("log/old.log", "1"),
        ],
    )?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir.path().join("work.sh"), mode)?;
    let archive = host.dir.path().join("app.tgz");
    let tar = Command::new("tar")
        .arg("-czf")
        .arg(&archive)
        .arg("-C")
        .arg(dir.path())
        .arg(".")
        .status()?;
    check(tar.success(), "tar")?;
    host.ok(&["create", "arc"])?;
    let text = host.ok(&["deploy", &archive.display().to_string(), "-a", "arc"])?;
    contains(&text, "Procfile declares types -> worker")?;
    host.ok(&["ps:scale", "worker=1", "-a", "arc"])?;
    let line = "app[worker.1]: hello from the profile|x: y|worker.1|/app|/app";
    host.eventually(line, || host.logs("arc").contains(line))?;
    let files = host.ok(&["run", "-a", "arc", "--", "find", "/app", "-type", "f"])?;
    for kept in ["/app/lib/docs/kept", "/app/work.sh"] {
        contains(&files, kept)?;
    }
    for gone in ["secret", "/app/docs", "old.log"] {
        check(
            !files.contains(gone),
            format!("{gone} is in the slug:\n{files}"),
        )?;
    }
    Ok(())
}

fn frameworks() -> Result<(), Failed> {
    let host = Host::start()?;
    for (app, folder, name, words) in [
        ("shop", "flask", "Python", "by Flask"),
        ("blog", "express", "Node.js", "by Express"),
    ] {
        host.ok(&["create", app])?;
        let text = host.ok(&["deploy", &app_dir(folder), "-a", app])?;
        contains(&text, &format!("-----> {name} app detected"))?;
        host.ok(&["ps:scale", "web=2", "-a", app])?;
        host.eventually("web=2", || host.all_up(app, &["web.1", "web.2"]))?;
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..64 {
            let answer = host.get(&format!("{app}.localhost"), "/");
            let (status, body) = answer.ok_or("no answer")?;
            check(
                status == 200 && body.contains(words),
                format!("{status} {body}"),
            )?;
            seen.insert(body);
        }
        check(seen.len() == 2, format!("both dynos answer: {seen:?}"))?;
    }
    // The cache of the first build serves the second one.
    let text = host.ok(&["deploy", &app_dir("flask"), "-a", "shop"])?;
    contains(&text, "cache")
}
