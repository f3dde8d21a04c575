//! From source to release: what goes in, what is kept, what a failure leaves alone.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};

use crate::host::{Host, app_dir, check, contains, deployed};
use crate::support;

/// Set where the network reaches the package indexes: the real frameworks are built then.
pub(crate) const NETWORK: &str = "MANIFOLD_TEST_NETWORK";

/// The cases of this file.
pub(crate) fn cases() -> Vec<Trial> {
    let is_closed = std::env::var_os(NETWORK).is_none();
    vec![
        Trial::test("build::a_failed_build_changes_nothing", failure),
        Trial::test("build::a_build_past_its_time_is_stopped", timeout),
        Trial::test(
            "build::memory_tasks_and_disk_are_bounded_and_what_ran_out_is_told",
            bounds,
        ),
        Trial::test(
            "build::the_cache_is_as_the_last_good_build_left_it_until_it_is_purged",
            failed_cache,
        ),
        Trial::test("build::every_kind_of_release_passes_its_phase", gated),
        Trial::test(
            "build::archives_ignore_files_and_profiles_are_honoured",
            archive,
        ),
        Trial::test("build::the_same_tree_gives_the_same_slug", reproducible),
        Trial::test("build::a_failing_release_command_changes_nothing", gate),
        Trial::test(
            "build::trees_that_were_not_on_disk_when_the_machine_ended_are_made_anew",
            power,
        ),
        Trial::test("build::flask_and_express_answer_with_two_dynos", frameworks)
            .with_ignored_flag(is_closed),
    ]
}

pub(crate) fn write(dir: &Path, files: &[(&str, &str)]) -> Result<(), Failed> {
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

fn timeout() -> Result<(), Failed> {
    // The last build of these has to end within it.
    let limit: u64 = if support::is_guest() { 20 } else { 5 };
    let host = Host::with(&format!("[timings]\nbuild = {limit}\nstop_grace = 2\n"))?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().display().to_string();
    let step = |script: &str| {
        write(
            dir.path(),
            &[
                ("requirements.txt", ""),
                ("Procfile", "worker: sleep 1000\n"),
                ("bin/pre_compile", script),
            ],
        )
    };
    host.ok(&["create", "slow"])?;
    let releases = host.ok(&["releases", "-a", "slow", "--json"])?;
    // It does not go by itself when it is asked to, and nor does what it began.
    step("trap '' TERM; echo it begins; sleep 600 & while :; do sleep 1; done\n")?;
    let begun = Instant::now();
    let output = host.cli(&["deploy", &path, "-a", "slow"]);
    let took = begun.elapsed();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    check(output.status.code() == Some(9), format!("{output:?}"))?;
    contains(&text, "it begins\n")?;
    let words = format!(
        "\n !     Build timed out\n !     It was stopped after {limit} seconds.\n\n !     Push failed\n"
    );
    check(text.ends_with(&words), text.clone())?;
    check(took >= Duration::from_secs(limit), format!("{took:?}"))?;
    check(
        took < Duration::from_mins(1) || support::is_guest(),
        format!("{took:?}"),
    )?;
    check(
        host.ok(&["releases", "-a", "slow", "--json"])? == releases,
        "nothing was released",
    )?;
    let builds = host.ok(&["builds", "-a", "slow", "--json"])?;
    contains(&builds, "\"failed\"")?;
    host.eventually("its dyno and its directory are gone", || {
        let left = std::fs::read_dir(host.dir.path().join("state/builds"));
        host.states("slow").is_empty() && left.is_ok_and(|mut left| left.next().is_none())
    })?;
    // The next one gets all of its time.
    step("true\n")?;
    contains(&host.ok(&["deploy", &path, "-a", "slow"])?, "Released v3")
}

/// A host with an app whose builds run the returned script.
fn scripted(settings: &str) -> Result<(Host, tempfile::TempDir), Failed> {
    let host = Host::with(settings)?;
    let dir = tempfile::tempdir()?;
    write(
        dir.path(),
        &[
            ("requirements.txt", ""),
            ("Procfile", "worker: sleep 1000\n"),
        ],
    )?;
    host.ok(&["create", "odd"])?;
    Ok((host, dir))
}

/// What a build says whose `bin/pre_compile` is this, and how the client ended.
fn built(host: &Host, dir: &Path, script: &str) -> Result<(Option<i32>, String), Failed> {
    write(dir, &[("bin/pre_compile", script)])?;
    let output = host.cli(&["deploy", &dir.display().to_string(), "-a", "odd"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok((output.status.code(), text))
}

fn bounds() -> Result<(), Failed> {
    let (host, dir) = scripted("[disk]\nbuild_mb = 64\ncache_mb = 64\n")?;
    let failed = "\n !     Push rejected, failed to compile Python app.\n\n !     Push failed\n";
    let fails = |script: &str, words: &str| -> Result<String, Failed> {
        let (status, text) = built(&host, dir.path(), script)?;
        check(status == Some(9), text.clone())?;
        contains(&text, words)?;
        check(text.ends_with(failed), text.clone())?;
        Ok(text)
    };
    let memory = " !     The build ran out of memory, of which it has 1024.0M: ";
    // Itself, and one of its processes, whose end the build may or may not outlive.
    let greedy =
        "python3 -c 'import itertools; [b\"x\" * (n % 2 + (1 << 20)) for n in itertools.count(1)]'";
    fails(&format!("exec {greedy}\n"), memory)?;
    let text = fails(
        &format!("{greedy}; echo it ended with $?; exit 1\n"),
        memory,
    )?;
    check(text.matches(memory).count() == 1, text)?;
    let disk = " !     The build filled its disk, which has 64.0M: ";
    fails("head -c 200M /dev/zero >filler\n", disk)?;
    fails(
        "mkdir many; cd many; for n in {1..100000}; do : >$n || exit 1; done\n",
        disk,
    )?;
    let cache = " !     The build filled its app's cache, which has 64.0M: ";
    fails("head -c 200M /dev/zero >/tmp/cache/filler\n", cache)?;
    let forks = "exec python3 -c '\n\
        import os, time\n\
        for n in range(5000):\n    \
            try:\n        \
                if os.fork() == 0: time.sleep(60); os._exit(0)\n    \
            except OSError as error: print(\"stopped at\", n, error.strerror, flush=True); break\n\
        os._exit(1)'\n";
    let text = fails(forks, "stopped at ")?;
    let count = text.lines().find_map(|line| {
        let (_, rest) = line.split_once("stopped at ")?;
        rest.split(' ').next()?.parse::<u32>().ok()
    });
    check(
        count.is_some_and(|count| (100..=512).contains(&count)),
        text.clone(),
    )?;
    contains(&text, "Resource temporarily unavailable")?;
    // None of it is left, and the next one has all again.
    let (status, text) = built(&host, dir.path(), "true\n")?;
    check(status == Some(0), text)
}

/// Heroku saves a cache only after a build that succeeded. Source: Dev Center, "Buildpack API".
fn failed_cache() -> Result<(), Failed> {
    let (host, dir) = scripted("")?;
    let cache = |script: &str| built(&host, dir.path(), script);
    let look = "cd /tmp/cache/own.new; ls -A | sed 's/^/found /'\n";
    let (status, text) = cache(&format!("{look}touch good\n"))?;
    check(status == Some(0), text.clone())?;
    check(!text.contains("found good"), text)?;
    let spoil = "rm good; mkdir bad; touch bad/file; exit 1\n";
    let (status, text) = cache(&format!("{look}{spoil}"))?;
    check(status == Some(9), text.clone())?;
    contains(&text, "found good")?;
    let (status, text) = cache(look)?;
    check(status == Some(0), text.clone())?;
    contains(&text, "found good")?;
    check(!text.contains("found bad"), text)?;
    host.ok(&["builds:cache:purge", "-a", "odd"])?;
    let (_, text) = cache(look)?;
    check(!text.contains("found good"), text)
}

/// Deploys, changes of config vars, rollbacks and promotions.
fn gated() -> Result<(), Failed> {
    let host = Host::start()?;
    let dir = tempfile::tempdir()?;
    write(
        dir.path(),
        &[
            ("requirements.txt", ""),
            (
                "Procfile",
                "worker: sleep 1000\nrelease: echo \"phase of ${MODE:-none}\"; [ \"${MODE:-}\" != bad ]\n",
            ),
        ],
    )?;
    for app in ["from", "into"] {
        host.ok(&["create", app])?;
    }
    let newest = |app: &str| -> Result<(u64, String), Failed> {
        let text = host.ok(&["releases", "-a", app, "-n", "1", "--json"])?;
        let list: serde_json::Value = serde_json::from_str(&text)?;
        let status = list[0]["status"].as_str().unwrap_or_default().to_owned();
        Ok((list[0]["version"].as_u64().unwrap_or_default(), status))
    };
    let settles = |app: &str, version: u64, status: &str| {
        host.eventually(&format!("v{version} of {app}: {status}"), || {
            newest(app).is_ok_and(|now| now == (version, status.to_owned()))
        })
    };
    let mode = |app: &str| host.ok(&["config:get", "MODE", "-a", app]);
    host.ok(&["deploy", &dir.path().display().to_string(), "-a", "from"])?;
    settles("from", 3, "succeeded")?;
    host.cli(&["config:set", "MODE=good", "-a", "from"]);
    settles("from", 4, "succeeded")?;
    host.ok(&["ps:scale", "worker=1", "-a", "from"])?;
    host.eventually("worker.1 is up", || host.all_up("from", &["worker.1"]))?;
    let dyno = || -> Result<String, Failed> { host.ok(&["ps", "-a", "from", "--json"]) };
    let before = dyno()?;
    // It is not current: what runs goes on, without the change.
    host.cli(&["config:set", "MODE=bad", "-a", "from"]);
    settles("from", 5, "failed")?;
    contains(&host.logs("from"), "phase of bad")?;
    check(mode("from")?.trim() == "good", "a failed change is seen")?;
    check(dyno()? == before, "a failed change restarted a dyno")?;
    host.cli(&["rollback", "v3", "-a", "from"]);
    settles("from", 6, "succeeded")?;
    check(
        host.logs("from").matches("phase of none").count() == 2,
        host.logs("from"),
    )?;
    let refused = host.cli(&["rollback", "v5", "-a", "from"]);
    check(!refused.status.success(), "rolled back to what failed")?;
    // Of the app that it goes to.
    host.cli(&["config:set", "MODE=bad", "-a", "into"]);
    settles("into", 3, "succeeded")?;
    host.cli(&["promote", "-a", "from", "--to", "into"]);
    settles("into", 4, "failed")?;
    contains(&host.logs("into"), "phase of bad")?;
    check(host.states("into").is_empty(), "a failed promotion runs")?;
    host.cli(&["config:set", "MODE=fine", "-a", "into"]);
    settles("into", 5, "succeeded")?;
    host.cli(&["promote", "-a", "from", "--to", "into"]);
    settles("into", 6, "succeeded")?;
    contains(&host.logs("into"), "phase of fine")
}

/// Slugs are named by their sha256.
fn slugs(host: &Host) -> Result<usize, Failed> {
    let dir = std::fs::read_dir(host.dir.path().join("state/slugs"))?;
    let is_slug = |path: &std::path::PathBuf| path.extension().is_some_and(|e| e == "tgz");
    let paths = dir.flatten().map(|entry| entry.path());
    Ok(paths.filter(is_slug).count())
}

/// A build that compiles, links, and writes a time: what differs between two builds.
const BUSY: &str = "set -e
python -m compileall -q lib
for n in $(shuf -i 1-50); do echo $n > lib/$n; done
ln -s lib/1 link
pwd > where
date -u ${SOURCE_DATE_EPOCH:+-d @$SOURCE_DATE_EPOCH} > when
mkdir -m 750 private
";

fn slug(host: &Host) -> Result<PathBuf, Failed> {
    let dir = std::fs::read_dir(host.dir.path().join("state/slugs"))?;
    let mut paths = dir.flatten().map(|entry| entry.path());
    Ok(paths.next().ok_or("no slug")?)
}

fn inode(path: &Path) -> Result<u64, Failed> {
    Ok(std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(
        path,
    )?))
}

/// The tree that was made while the slug was packed is what the slug holds; no dyno was started.
fn unpacked(host: &Host) -> Result<(), Failed> {
    let slug = slug(host)?;
    let digest = slug.file_stem().ok_or("no name")?;
    let trees = host.dir.path().join("state/trees");
    let count = std::fs::read_dir(&trees)?.count();
    check(count == 1, format!("{count} trees"))?;
    let dir = tempfile::tempdir()?;
    // `%T@`: times, too, for web servers tell versions of a file by them.
    let script = "set -e
        tar --extract --file \"$1\" --directory \"$2\" --no-same-owner --preserve-permissions
        diff --recursive --no-dereference \"$2\" \"$3\"
        for tree in \"$2\" \"$3\"; do
          (cd \"$tree\" && find app -type f -printf '%p %m %s %T@\\n' -o -printf '%p %m %l\\n' | sort) >\"$2/list\"
          sha256sum <\"$2/list\"
          rm \"$2/list\"
        done | uniq | wc -l";
    let output = Command::new("bash")
        .args(["-c", script, "-"])
        .arg(&slug)
        .arg(dir.path())
        .arg(trees.join(digest))
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    check(
        output.status.success() && said.trim() == "1",
        format!("{said} {output:?}"),
    )
}

fn reproducible() -> Result<(), Failed> {
    let host = Host::start()?;
    let tree = |seconds: u64| -> Result<tempfile::TempDir, Failed> {
        let dir = tempfile::tempdir()?;
        write(
            dir.path(),
            &[
                ("requirements.txt", ""),
                ("Procfile", "worker: true\n"),
                ("bin/post_compile", BUSY),
                (
                    "lib/module.py",
                    "NAMES = {'a', 'b', 'c'}\ndef f(): return NAMES\n",
                ),
            ],
        )?;
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        let module = std::fs::File::options()
            .append(true)
            .open(dir.path().join("lib/module.py"))?;
        module.set_modified(time)?;
        Ok(dir)
    };
    for (app, seconds) in [("one", 1_000_000_000), ("two", 1_700_000_000)] {
        let dir = tree(seconds)?;
        host.ok(&["create", app])?;
        let dir = dir.path().display().to_string();
        host.ok(&["deploy", &dir, "-a", app])?;
        // And once more, with a cache. It is not even packed again.
        let before = inode(&slug(&host)?)?;
        host.ok(&["deploy", &dir, "-a", app])?;
        check(inode(&slug(&host)?)? == before, "packed twice")?;
    }
    unpacked(&host)?;
    check(slugs(&host)? == 1, "four builds of one tree")?;
    let dir = tree(1_000_000_000)?;
    write(
        dir.path(),
        &[(
            "lib/module.py",
            "NAMES = {'a', 'b', 'd'}\ndef f(): return NAMES\n",
        )],
    )?;
    host.ok(&["deploy", &dir.path().display().to_string(), "-a", "two"])?;
    check(slugs(&host)? == 2, "another tree is another slug")?;
    // Web servers tell versions of a file of the same size apart by its time; Python needs none.
    let script = "stat -c %Y /app/lib/module.py; cd /app; PYTHONPATH=/app/lib python -v -c 'import module' 2>&1 | grep -c 'matches /app/lib/module.py'";
    let told = |app: &str| host.ok(&["run", "-a", app, "--", "bash", "-c", script]);
    let (one, two) = (told("one")?, told("two")?);
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let (one, two) = (lines(&one), lines(&two));
    check(
        one.len() == 2 && one[0] != two[0] && one[1] == "1" && two[1] == "1",
        format!("{one:?} {two:?}"),
    )
}

/// As after the power went: the files of a tree are there, but what was in them is not.
fn power() -> Result<(), Failed> {
    let mut host = deployed()?;
    let state = host.dir.path().join("state");
    let tree = || -> Result<PathBuf, Failed> {
        let mut found = std::fs::read_dir(state.join("trees"))?;
        Ok(found.next().ok_or("no tree")??.path())
    };
    // 2000-01-01: it is on disk.
    let is_marked = || -> Result<bool, Failed> { Ok(tree()?.metadata()?.mtime() == 946_684_800) };
    host.eventually("the tree is on disk", || is_marked().unwrap_or(false))?;
    let restart = |host: &mut Host| {
        host.stop()?;
        std::fs::write(state.join("boot"), "another start of the machine")?;
        host.launch()?;
        host.eventually("web.1 is up", || host.all_up("tiny", &["web.1"]))
    };
    let first = inode(&tree()?)?;
    restart(&mut host)?;
    check(
        inode(&tree()?)? == first,
        "a tree that is on disk was made anew",
    )?;
    let source = tree()?.join("app/server.py");
    let length = source.metadata()?.len();
    check(length > 0, "the app is its source")?;
    std::fs::File::create(&source)?;
    std::fs::File::open(tree()?)?.set_modified(std::time::SystemTime::now())?;
    restart(&mut host)?;
    check(source.metadata()?.len() == length, "the source is empty")?;
    host.eventually("the new tree is on disk", || is_marked().unwrap_or(false))
}

fn gate() -> Result<(), Failed> {
    let host = Host::start()?;
    let dir = tempfile::tempdir()?;
    let path = dir.path().display().to_string();
    let server = std::fs::read_to_string(Path::new(&app_dir("tiny")).join("server.py"))?;
    let version = |name: &str, release: &str| {
        let procfile = format!("web: python3 server.py\nrelease: {release}\n");
        write(
            dir.path(),
            &[
                ("requirements.txt", ""),
                ("server.py", &server),
                ("Procfile", &procfile),
                (name, ""),
            ],
        )
    };
    let current = || -> Result<serde_json::Value, Failed> {
        let text = host.ok(&["releases", "-a", "gated", "-n", "1", "--json"])?;
        Ok(serde_json::from_str::<serde_json::Value>(&text)?[0].clone())
    };
    host.ok(&["create", "gated"])?;
    version("version-1", "echo migrated $DYNO")?;
    let text = host.ok(&["deploy", &path, "-a", "gated"])?;
    contains(&text, "Release command declared")?;
    host.eventually("web.1 is up", || host.all_up("gated", &["web.1"]))?;
    contains(&host.logs("gated"), "migrated release.")?;
    let good = current()?;
    check(good["status"] == "succeeded", format!("{good}"))?;

    version("version-2", "echo cannot migrate; exit 3")?;
    let output = host.cli(&["deploy", &path, "-a", "gated"]);
    check(output.status.code() == Some(11), format!("{output:?}"))?;
    let failed = current()?;
    check(failed["status"] == "failed", format!("{failed}"))?;
    contains(&host.logs("gated"), "cannot migrate")?;
    let ps = host.ok(&["ps", "-a", "gated", "--json"])?;
    let ps: serde_json::Value = serde_json::from_str(&ps)?;
    check(
        ps[0]["state"] == "up" && ps[0]["release"]["version"] == good["version"],
        format!("{ps}"),
    )?;
    let (status, files) = host.get("gated.localhost", "/files").ok_or("no answer")?;
    check(status == 200 && !files.contains("version-2"), files)?;
    // Also after a restart.
    host.ok(&["ps:restart", "-a", "gated"])?;
    host.eventually("another web.1 is up", || {
        let now = host.cli(&["ps", "-a", "gated", "--json"]).stdout;
        let now: serde_json::Value = serde_json::from_slice(&now).unwrap_or_default();
        now[0]["state"] == "up" && now[0]["id"] != ps[0]["id"]
    })?;
    let (_, files) = host.get("gated.localhost", "/files").ok_or("no answer")?;
    check(!files.contains("version-2"), files)
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
    for (app, folder, words, run) in [
        ("shop", "flask", "requirements", "Installing requirements"),
        ("blog", "express", "package-lock.json", "added "),
    ] {
        let text = host.ok(&["deploy", &app_dir(folder), "-a", app])?;
        contains(
            &text,
            &format!("No change in {words} detected, installing from cache\n"),
        )?;
        check(!text.contains(run), text)?;
    }
    // With the cache or without, in whatever app: the same tree gives the same slug.
    for (app, folder) in [("shop-2", "flask"), ("blog-2", "express")] {
        host.ok(&["create", app])?;
        host.ok(&["deploy", &app_dir(folder), "-a", app])?;
    }
    check(slugs(&host)? == 2, "six builds of two trees")
}
