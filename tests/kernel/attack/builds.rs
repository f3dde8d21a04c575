//! Attacks by builds: a buildpack and a source that nobody should trust.

use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Failed;

use super::inside::{PROBE, judge, steps};
use super::{As, Report};
use crate::host::{Host, check, contains};
use crate::support::Leftovers;

/// The name of the test, as the rows have it.
pub(super) const TEST: &str = "attack::hostile_builds";

const SECRET: &str = "canary-of-a-build";

/// Rows of other sections that a build tries as an app does: all that need no planted files.
const INSIDE: &str = "B-03 C-01 C-02 C-03 D-03 D-04 E-01 F-06 F-08 K-01 K-02 K-03 K-05 K-06 K-07 \
    K-08 K-09 K-12 U-04 U-05 U-06 U-08 U-09 U-10 Y-02 Y-03 Y-04 Y-05 Y-07";

type Check = fn(&Yard) -> Result<String, Failed>;

/// A host, and a place that builds would like to write to.
struct Yard {
    host: Host,
    canary: PathBuf,
}

pub(super) fn run() -> Result<(), Failed> {
    let before = Leftovers::count();
    let host = Host::with("[timings]\nstop_grace = 1\n")?;
    let canary = host.dir.path().join("canary");
    std::fs::create_dir(&canary)?;
    // Whoever gets out may write here, whatever user it is.
    for dir in [host.dir.path(), &canary] {
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o777))?;
    }
    std::fs::write(canary.join("file"), "canary-of-the-host")?;
    let mut yard = Yard { host, canary };
    let mut report = Report::new(TEST);
    let checks: [(&str, Check); 5] = [
        ("M-01", isolated),
        ("M-02", sources),
        ("M-03", outputs),
        ("M-04", caches),
        ("M-05", secrets),
    ];
    for (id, act) in checks {
        report.holds(id, As::User, || {
            let said = act(&yard)?;
            yard.untouched()?;
            Ok(said)
        });
    }
    yard.host.stop()?;
    Leftovers::none_since(&before)?;
    report.finish(&[As::User])
}

impl Yard {
    fn untouched(&self) -> Result<(), Failed> {
        let names = std::fs::read_dir(&self.canary)?.count();
        let text = std::fs::read_to_string(self.canary.join("file"))?;
        check(
            names == 1 && text == "canary-of-the-host",
            format!("the canary: {names} names, {text}"),
        )?;
        // What a good build leaves is removed beside the release that it makes.
        let builds = self.host.dir.path().join("state/builds");
        self.host.eventually("no build leaves its directory", || {
            std::fs::read_dir(&builds).is_ok_and(|left| left.count() == 0)
        })?;
        Ok(())
    }

    /// Builds an app with a buildpack whose `bin/compile` is this script, given BUILD CACHE ENV.
    fn build(&self, app: &str, compile: &str, source: &Path) -> Result<(bool, String), Failed> {
        let pack = tempfile::tempdir()?;
        let bin = pack.path().join("bin");
        std::fs::create_dir(&bin)?;
        for (name, text) in [
            ("detect", "echo Hostile"),
            ("compile", compile),
            ("release", "true"),
        ] {
            let path = bin.join(name);
            std::fs::write(&path, format!("#!/bin/bash\n{text}\n"))?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
        }
        if !self.host.cli(&["info", "-a", app]).status.success() {
            self.host.ok(&["create", app, "--no-remote"])?;
        }
        let pack = pack.path().display().to_string();
        self.host.ok(&["buildpacks:set", &pack, "-a", app])?;
        let output = self
            .host
            .cli(&["deploy", &source.display().to_string(), "-a", app]);
        let text = [output.stdout.as_slice(), &output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        Ok((output.status.success(), text))
    }

    fn run(&self, app: &str, script: &str) -> Result<String, Failed> {
        self.host
            .ok(&["run", "-a", app, "--", "bash", "-c", script])
    }
}

fn plain() -> Result<tempfile::TempDir, Failed> {
    let source = tempfile::tempdir()?;
    std::fs::write(source.path().join("Procfile"), "worker: sleep 1000\n")?;
    Ok(source)
}

/// The probe of the attacks from inside a dyno, in a build; and what only a build has.
fn isolated(yard: &Yard) -> Result<String, Failed> {
    let source = plain()?;
    for (name, text) in PROBE {
        std::fs::write(source.path().join(name), text)?;
    }
    let listener = TcpListener::bind("0.0.0.0:0")?;
    let port = listener.local_addr()?.port();
    let compile = format!(
        "cd \"$1\"; python3 main.py user {INSIDE}
         ulimit -u | sed 's/^/TASKS /'
         gateway=$(awk '$2 == \"00000000\" {{ print $3 }}' /proc/net/route)
         python3 - $gateway <<'END'
import socket, sys
address = socket.inet_ntoa(bytes.fromhex(sys.argv[1])[::-1])
for host in (address, '127.0.0.1'):
    try:
        socket.create_connection((host, {port}), 2); print('REACHED', host)
    except OSError as error:
        print('NETWORK', type(error).__name__)
END
         ls -d {} {} 2>&1 | sed 's/^/SEEN /'
         ls -A \"$2\" | sed 's/^/CACHE /'; ls /tmp | grep -c '^build_' | sed 's/^/BUILDS /'",
        yard.canary.display(),
        yard.host.dir.path().join("state").display(),
    );
    let (succeeded, text) = yard.build("inside", &compile, source.path())?;
    check(succeeded, text.clone())?;
    let seen = steps(&text);
    let mut faults = Vec::new();
    for row in INSIDE.split_whitespace() {
        let of_row = seen.get(row).map(Vec::as_slice).unwrap_or_default();
        if let Err(why) = judge(of_row) {
            faults.push(format!("{row}: {why}"));
        }
    }
    check(faults.is_empty(), faults.join("; "))?;
    check(!text.contains("REACHED"), text.clone())?;
    for line in [
        "NETWORK ConnectionRefusedError",
        "BUILDS 1",
        "No such file or directory",
    ] {
        contains(&text, line)?;
    }
    let tasks = text.lines().find_map(|line| line.strip_prefix("TASKS "));
    let tasks = tasks.and_then(|number| number.trim().parse::<u32>().ok());
    check(
        tasks.is_some_and(|number| number <= 4096),
        format!("tasks of a build: {tasks:?}"),
    )?;
    check(!text.contains("CACHE "), "a first build has a cache")?;
    let count = INSIDE.split_whitespace().count();
    Ok(format!(
        "{count} rows of other sections hold in a build; its own cache, limits and network"
    ))
}

/// What a source may bring along to be run or read outside of the build.
fn sources(yard: &Yard) -> Result<String, Failed> {
    let canary = yard.canary.display().to_string();
    let source = plain()?;
    let at = |name: &str| source.path().join(name);
    let run = format!("touch {canary}/ran");
    std::fs::create_dir_all(at(".git/hooks"))?;
    for hook in [
        "post-checkout",
        "pre-commit",
        "post-receive",
        "fsmonitor-watchman",
    ] {
        std::fs::write(at(".git/hooks").join(hook), format!("#!/bin/sh\n{run}\n"))?;
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(at(".git/hooks").join(hook), mode)?;
    }
    std::fs::write(at(".git/HEAD"), "ref: refs/heads/main\n")?;
    std::fs::write(
        at(".git/config"),
        format!(
            "[core]\n\tfsmonitor = \"{run}\"\n\tsshCommand = \"{run}\"\n\tpager = \"{run}\"\n[filter \"x\"]\n\tsmudge = \"{run}\"\n\tclean = \"{run}\"\n[alias]\n\tstatus = \"!{run}\"\n"
        ),
    )?;
    std::fs::write(at(".gitattributes"), "* filter=x diff=x\n")?;
    std::fs::write(
        at(".gitmodules"),
        format!(
            "[submodule \"x\"]\n\tpath = x\n\turl = ext::sh -c {run}\n[submodule \"y\"]\n\tpath = ../../y\n\turl = --upload-pack={run}\n"
        ),
    )?;
    std::fs::write(at("-rf"), "")?;
    std::fs::write(at("--checkpoint-action=exec=sh"), "")?;
    std::fs::write(at("$(touch ran)"), "")?;
    symlink(&canary, at("link"))?;
    symlink("/etc/shadow", at("Gemfile"))?;
    symlink(format!("{canary}/file"), at(".slugignore"))?;
    symlink("/", at("log"))?;
    let (succeeded, text) = yard.build("source", "ls -A \"$1\"", source.path())?;
    check(succeeded, text.clone())?;
    check(!text.contains("canary-of-the-host"), "a link was followed")?;
    let text = yard.run(
        "source",
        "ls -A /app; cat /app/link/file /app/.slugignore 2>&1; true",
    )?;
    check(!text.contains("canary-of-the-host"), text)?;
    // Archives as the unpacker gets them, and words that git or curl might take for options.
    let archives = super::slug::samples(&yard.canary.join("file"))?;
    for name in [
        "S-01-canary",
        "S-02-path-0",
        "S-02-pax-1",
        "S-03-link-0",
        "S-05-hard-0",
        "S-06-through",
        "S-07-memory",
        "S-11-declared",
        "S-14-pax-1",
        "S-15-cut-gzip",
    ] {
        let (succeeded, text) = yard.build("source", "true", &archives.path().join(name))?;
        check(
            !succeeded && text.contains("refused"),
            format!("{name}: {text}"),
        )?;
        yard.untouched()?;
    }
    for url in [
        &*format!("--upload-pack={run}"),
        &format!("ext::sh -c {run}"),
        &format!("-o{canary}/ran"),
        "fd::17",
        &format!("file://{canary}/nowhere.git"),
    ] {
        let output = yard
            .host
            .cli(&["buildpacks:set", "-a", "source", "--", url]);
        check(!output.status.success(), format!("{url}: {output:?}"))?;
    }
    Ok(
        "hooks, filters, submodules, links, 10 archives and 5 URLs: nothing ran or was read"
            .to_owned(),
    )
}

/// What a build leaves behind for the packer.
fn outputs(yard: &Yard) -> Result<String, Failed> {
    let source = plain()?;
    for (what, make) in [
        ("fifo", "mkfifo \"$1/odd\""),
        (
            "socket",
            "python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1] + \"/odd\")' \"$1\"",
        ),
    ] {
        let (succeeded, text) = yard.build("output", make, source.path())?;
        check(!succeeded, format!("{what}: {text}"))?;
        contains(&text, "odd")?;
    }
    let canary = yard.canary.display();
    // Processes that go on after the build's end would change files while they are packed.
    let compile = format!(
        "cd \"$1\"; echo mine >mine; ln -s {canary}/file link; ln -s /etc link-to-folder
         chmod 4755 mine; mkdir closed; echo x >closed/file; chmod 0 closed
         (setsid bash -c 'trap \"\" TERM HUP; while true; do
            ln -sfn {canary}/file flip; ln -sfn {canary} flop
            rm -f flip flop; echo mine >flip; mkdir flop; echo mine >flop/file; rm -rf flip flop
          done' >/dev/null 2>&1 &)
         sleep 0.3"
    );
    let (succeeded, text) = yard.build("output", &compile, source.path())?;
    check(succeeded, text)?;
    let text = yard.run(
        "output",
        "cat /app/mine /app/link /app/flip /app/flop/file /app/link-to-folder/hostname 2>/dev/null
         stat -c '%a %F' /app/mine /app/link; chmod 700 /app/closed; cat /app/closed/file",
    )?;
    check(!text.contains("canary-of-the-host"), text.clone())?;
    for line in ["mine", "755 regular file", "symbolic link", "x"] {
        contains(&text, line)?;
    }
    Ok("a FIFO and a socket are refused by name; links stay links; nothing changes while it is packed".to_owned())
}

fn caches(yard: &Yard) -> Result<String, Failed> {
    let source = plain()?;
    let compile = "ls -A \"$2\" | sed 's/^/FOUND /'; echo x >\"$2/poison\"; ln -sfn / \"$2/root\"; ls /tmp/cache | wc -l";
    let build = |app| -> Result<String, Failed> {
        let (succeeded, text) = yard.build(app, compile, source.path())?;
        check(succeeded, text.clone())?;
        Ok(text)
    };
    let first = build("cache-a")?;
    check(!first.contains("FOUND"), first)?;
    contains(&build("cache-a")?, "FOUND poison")?;
    let other = build("cache-b")?;
    check(!other.contains("FOUND"), format!("of another app: {other}"))?;
    yard.host
        .ok(&["destroy", "-a", "cache-a", "--confirm", "cache-a"])?;
    let again = build("cache-a")?;
    check(
        !again.contains("FOUND"),
        format!("of an app that is gone: {again}"),
    )?;
    Ok(
        "an app's own cache comes back to it, and to no other, nor to the next of its name"
            .to_owned(),
    )
}

fn secrets(yard: &Yard) -> Result<String, Failed> {
    yard.host.ok(&["create", "secret", "--no-remote"])?;
    let set = format!("TOKEN={SECRET}");
    yard.host.ok(&["config:set", &set, "-a", "secret"])?;
    let source = plain()?;
    let (succeeded, text) = yard.build(
        "secret",
        "wc -c <\"$3/TOKEN\"; env | grep -c TOKEN; true",
        source.path(),
    )?;
    check(succeeded, text.clone())?;
    check(
        text.lines()
            .any(|line| line.trim() == SECRET.len().to_string()),
        text.clone(),
    )?;
    check(!text.contains(SECRET), "it is in the build's output")?;
    yard.run("secret", "true")?;
    let state = yard.host.dir.path().join("state");
    for place in ["trees", "outputs", "cache", "builds", "sources"] {
        let found = Command::new("grep")
            .args(["-rlaF", "--exclude=*.img", SECRET])
            .arg(state.join(place))
            .output()?;
        check(found.stdout.is_empty(), format!("in {place}: {found:?}"))?;
    }
    Ok("seen by the build, in neither slug, output, cache nor leftovers".to_owned())
}
