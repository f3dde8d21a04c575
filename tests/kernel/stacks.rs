//! Stacks: imported, built, replaced under running apps, collected.
//!
//! The stack of these tests is a few files of this machine (a shell, its libraries, busybox) and a
//! library of our own, which the app's server asks what to answer: replacing the stack replaces the
//! answer.

use std::io::Read as _;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libtest_mimic::{Failed, Trial};

use crate::build::{NETWORK, write};
use crate::host::{Host, PATIENCE, check, contains};
use crate::load::Load;
use crate::support;

/// The cases of this file.
pub(crate) fn cases() -> Vec<Trial> {
    vec![
        Trial::test(
            "stacks::a_fixed_library_reaches_a_running_app_without_a_failed_request",
            rebase,
        ),
        Trial::test(
            "stacks::bamboo_is_the_newest_cedar_with_a_global_queue",
            bamboo,
        ),
        Trial::test(
            "stacks::what_no_release_needs_is_removed_and_every_byte_is_explained",
            collected,
        ),
        Trial::test(
            "stacks::archives_and_images_of_one_tree_are_one_version",
            imported,
        ),
        Trial::test(
            "stacks::a_build_that_fails_or_is_interrupted_leaves_nothing",
            interrupted,
        ),
        Trial::test(
            "stacks::built_twice_from_the_same_packages_it_is_one_version",
            twice,
        )
        .with_ignored_flag(std::env::var_os(NETWORK).is_none()),
    ]
}

/// The server: answers what the stack's library says, on one connection at a time.
const SERVER: &str = r#"
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
const char *answer(void);
int steady(void);
int main(int argc, char **argv) {
    if (argc > 1) {
        puts("worker works");
        fflush(stdout);
        while (steady()) sleep(1);
        return 1;
    }
    int one = 1, door = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons(atoi(getenv("PORT"))) };
    setsockopt(door, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(door, (struct sockaddr *)&at, sizeof at) || listen(door, 1024)) return 1;
    for (;;) {
        char head[8192];
        size_t have = 0;
        int client = accept(door, 0, 0);
        if (client < 0) continue;
        while (have < sizeof head - 1) {
            ssize_t got = read(client, head + have, sizeof head - 1 - have);
            if (got <= 0) break;
            head[have += got] = 0;
            if (strstr(head, "\r\n\r\n")) break;
        }
        char reply[256];
        int length = snprintf(reply, sizeof reply,
            "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
            strlen(answer()), answer());
        if (write(client, reply, length) < 0) perror("write");
        close(client);
    }
}
"#;

/// What a version of the stack's library is.
#[derive(Clone, Copy)]
enum Library {
    /// Answers this.
    Answers(&'static str),
    /// Has no answer: what needs it does not start.
    Broken,
    /// Lets workers end.
    Unsteady,
}

impl Library {
    fn source(self) -> String {
        match self {
            Self::Answers(text) => format!(
                "const char *answer(void) {{ return \"{text}\"; }}\nint steady(void) {{ return 1; }}\n"
            ),
            Self::Broken => "int steady(void) { return 1; }\n".to_owned(),
            Self::Unsteady => {
                "const char *answer(void) { return \"unsteady\"; }\nint steady(void) { return 0; }\n"
                    .to_owned()
            }
        }
    }
}

fn run(command: &mut Command) -> Result<(), Failed> {
    let output = command.output()?;
    check(output.status.success(), format!("{command:?}: {output:?}"))
}

fn compile(source: &str, to: &Path, more: &[&str]) -> Result<(), Failed> {
    let file = to.with_extension("c");
    std::fs::write(&file, source)?;
    run(Command::new("gcc")
        .arg("-O1")
        .arg("-o")
        .arg(to)
        .arg(&file)
        .args(more))?;
    Ok(std::fs::remove_file(file)?)
}

/// Files of this machine that a small stack is made of.
struct Workshop {
    dir: tempfile::TempDir,
}

impl Workshop {
    fn new() -> Result<Self, Failed> {
        let workshop = Self {
            dir: tempfile::tempdir()?,
        };
        let root = workshop.root();
        for dir in ["usr/bin", "usr/lib", "usr/lib64", "etc"] {
            std::fs::create_dir_all(root.join(dir))?;
        }
        for name in ["bin", "lib", "lib64"] {
            symlink(format!("usr/{name}"), root.join(name))?;
        }
        symlink("usr/bin", root.join("sbin"))?;
        std::fs::copy("/bin/bash", root.join("usr/bin/bash"))?;
        std::fs::copy("/bin/busybox", root.join("usr/bin/busybox"))?;
        let needs = Command::new("ldd").arg("/bin/bash").output()?;
        for word in String::from_utf8_lossy(&needs.stdout).split_whitespace() {
            let path = Path::new(word);
            if let (true, Some(name)) = (path.is_absolute(), path.file_name()) {
                let dir = if word.contains("ld-linux") {
                    "usr/lib64"
                } else {
                    "usr/lib"
                };
                std::fs::copy(path, root.join(dir).join(name))?;
            }
        }
        let applets = Command::new("/bin/busybox").arg("--list").output()?;
        for applet in String::from_utf8_lossy(&applets.stdout).lines() {
            let link = root.join("usr/bin").join(applet);
            if !link.exists() {
                symlink("busybox", link)?;
            }
        }
        workshop.make(Library::Answers("0"))?;
        let app = workshop.app();
        std::fs::create_dir(&app)?;
        let lib = format!("-L{}", root.join("usr/lib").display());
        // Without its library's functions it does not start, rather than end at its first request,
        // which would be one that failed.
        let at_start = "-Wl,-z,now";
        compile(SERVER, &app.join("server"), &[&lib, "-lanswer", at_start])?;
        std::fs::write(
            app.join("Procfile"),
            "web: ./server\nworker: ./server work\n",
        )?;
        Ok(workshop)
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn app(&self) -> PathBuf {
        self.dir.path().join("app")
    }

    fn make(&self, library: Library) -> Result<(), Failed> {
        let to = self.root().join("usr/lib/libanswer.so");
        compile(&library.source(), &to, &["-shared", "-fPIC"])
    }

    /// Another version of the stack for a host; returns its digest.
    fn import(&self, host: &Host, name: &str, library: Library) -> Result<String, Failed> {
        self.make(library)?;
        let file = self.dir.path().join(format!("{name}.tar.gz"));
        run(Command::new("tar")
            .arg("-czf")
            .arg(&file)
            .arg("-C")
            .arg(self.root())
            .arg("."))?;
        let text = local(host, &["stacks:import", &file.display().to_string()])?;
        let (_, digest) = text.trim().split_once(' ').ok_or("no digest")?;
        Ok(digest.to_owned())
    }

    fn deploy(&self, host: &Host, name: &str, stack: &str) -> Result<(), Failed> {
        host.ok(&["create", name, "--stack", stack])?;
        host.ok(&["deploy", &self.app().display().to_string(), "-a", name])?;
        host.eventually("web.1 is up", || host.all_up(name, &["web.1"]))
    }
}

/// A command on the state directory itself.
fn on_state(host: &Host, words: &[&str]) -> Command {
    let mut command = Command::new(support::manifold());
    command
        .args(words)
        .arg("--state")
        .arg(host.dir.path().join("state"))
        .arg("--config")
        .arg(host.dir.path().join("manifold.toml"))
        .stdin(Stdio::null());
    command
}

fn local(host: &Host, words: &[&str]) -> Result<String, Failed> {
    let output = on_state(host, words).output()?;
    check(output.status.success(), format!("{words:?}: {output:?}"))?;
    Ok(String::from_utf8(output.stdout)?)
}

fn answers(host: &Host, app: &str) -> Option<String> {
    host.get(&format!("{app}.localhost"), "/")
        .map(|(_, body)| body)
}

/// A log without the lines of requests that had their answer.
fn all_but_served(log: &str) -> String {
    let lines = log.lines().filter(|line| !line.contains(" status=200 "));
    lines.collect::<Vec<_>>().join("\n")
}

fn rebase() -> Result<(), Failed> {
    let workshop = Workshop::new()?;
    let host = Host::start()?;
    let first = workshop.import(&host, "mine", Library::Answers("one"))?;
    workshop.deploy(&host, "tiny", "mine")?;
    host.ok(&["ps:scale", "web=3", "worker=1", "-a", "tiny"])?;
    let all = ["web.1", "web.2", "web.3", "worker.1"];
    host.eventually("all are up", || host.all_up("tiny", &all))?;
    let slug = |host: &Host| -> Result<serde_json::Value, Failed> {
        let text = host.ok(&["releases:info", "-a", "tiny", "--json"])?;
        Ok(serde_json::from_str::<serde_json::Value>(&text)?["slug"].clone())
    };
    let before = slug(&host)?;
    let told = host.dir.path().join("told");
    let mut follower = host
        .command(&["logs", "--tail", "-a", "tiny"])
        .stdout(std::fs::File::create(&told)?)
        .stderr(Stdio::null())
        .spawn()?;
    let load = Load::start(host.http, "tiny.localhost", 500);
    // The fix.
    let second = workshop.import(&host, "mine", Library::Answers("two"))?;
    host.ok(&["stack:upgrade", "tiny"])?;
    check(
        answers(&host, "tiny").as_deref() == Some("two"),
        "the fix serves",
    )?;
    check(slug(&host)? == before, "the slug is the same")?;
    contains(
        &host.ok(&["releases", "-a", "tiny"])?,
        &format!("Upgrade stack mine to {}", &second[..12]),
    )?;
    contains(
        &host.ok(&["releases:info", "-a", "tiny"])?,
        &format!("mine {}", &second[..12]),
    )?;
    let none = host.cli(&["stack:upgrade", "tiny"]);
    contains(
        &String::from_utf8_lossy(&none.stderr),
        "it is on the newest",
    )?;
    // Versions that are not fit: nobody notices.
    for library in [Library::Broken, Library::Unsteady] {
        workshop.import(&host, "mine", library)?;
        let failed = host.cli(&["stack:upgrade"]);
        let text = String::from_utf8_lossy(&failed.stderr).into_owned();
        check(failed.status.code() == Some(11), text.clone())?;
        contains(&text, "not upgraded: tiny")?;
        host.eventually("the fix serves again", || {
            host.all_up("tiny", &all)
                && (0..8).all(|_| answers(&host, "tiny").as_deref() == Some("two"))
        })?;
    }
    // The history is full of requests by then.
    host.eventually("the log says why", || {
        let told = std::fs::read_to_string(&told).unwrap_or_default();
        ["web.1", "worker.1"]
            .iter()
            .all(|name| told.contains(&format!("{name} did not stay up on it")))
    })?;
    // Back to before the fix: the release before knows its stack.
    host.ok(&["rollback", "v3", "-a", "tiny"])?;
    host.eventually("the first serves", || {
        host.all_up("tiny", &all)
            && (0..8).all(|_| answers(&host, "tiny").as_deref() == Some("one"))
    })?;
    contains(
        &host.ok(&["releases:info", "-a", "tiny"])?,
        &format!("mine {}", &first[..12]),
    )?;
    // At least 10,000 requests altogether; the rest of them while all is quiet.
    host.eventually("10,000 requests were sent", || {
        support::is_guest() || load.sent() >= 10_000
    })?;
    let outcome = load.end();
    follower.kill()?;
    follower.wait()?;
    let (sent, failed) = (outcome.sent, outcome.failed);
    eprintln!("{} of {sent} failed", failed.len());
    check(
        failed.is_empty(),
        format!(
            "{} of {sent} failed: {}\n{}",
            failed.len(),
            crate::load::told(&failed),
            all_but_served(&std::fs::read_to_string(&told)?)
        ),
    )?;
    check(
        support::is_guest() || sent >= 10_000,
        format!("only {sent} requests were sent"),
    )
}

fn bamboo() -> Result<(), Failed> {
    let workshop = Workshop::new()?;
    let host = Host::start()?;
    let unknown = host.cli(&["create", "early", "--stack", "bamboo"]);
    contains(
        &String::from_utf8_lossy(&unknown.stderr),
        "Stack bamboo is not installed",
    )?;
    workshop.import(&host, "cedar-1", Library::Answers("old"))?;
    workshop.import(&host, "cedar-2", Library::Answers("new"))?;
    let stacks = host.ok(&["stacks"])?;
    for word in [
        "bamboo",
        "= cedar-2",
        "cedar-1.tar.gz",
        "(newest)",
        "this machine's /usr",
    ] {
        contains(&stacks, word)?;
    }
    workshop.deploy(&host, "queue", "bamboo")?;
    check(
        answers(&host, "queue").as_deref() == Some("new"),
        "bamboo is the newest cedar",
    )?;
    contains(&host.ok(&["routing", "-a", "queue"])?, "global-queue")?;
    contains(&host.ok(&["metrics", "-a", "queue"])?, "global-queue")?;
    // One request at a time, and the limit of the policy.
    let routing: serde_json::Value =
        serde_json::from_str(&host.ok(&["routing", "-a", "queue", "--json"])?)?;
    check(routing["limit"] == 1, routing.to_string())?;
    host.ok(&["routing:set", "random", "-a", "queue"])?;
    contains(&host.ok(&["metrics", "-a", "queue"])?, "random")?;
    // Elsewhere there is no such default; the stack counts from the next build on.
    host.ok(&["create", "other", "--stack", "cedar-1"])?;
    contains(&host.ok(&["routing", "-a", "other"])?, "least-in-flight")?;
    host.ok(&["stack:set", "cedar", "-a", "other"])?;
    let app = workshop.app().display().to_string();
    contains(
        &host.ok(&["deploy", &app, "-a", "other"])?,
        "Building on the Cedar stack",
    )?;
    host.eventually("it serves", || {
        answers(&host, "other").as_deref() == Some("new")
    })
}

fn collected() -> Result<(), Failed> {
    let workshop = Workshop::new()?;
    let mut host = Host::with("[disk]\nkeep_releases = 3\n")?;
    let stacks = host.dir.path().join("state/stacks/mine");
    let first = workshop.import(&host, "mine", Library::Answers("one"))?;
    workshop.deploy(&host, "tiny", "mine")?; // v3
    let count = |dir: &str| {
        let dir = host.dir.path().join("state").join(dir);
        std::fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .count()
    };
    let second = workshop.import(&host, "mine", Library::Answers("two"))?;
    host.ok(&["stack:upgrade", "tiny"])?; // v4
    std::fs::write(workshop.app().join("more"), "another slug")?;
    let app = workshop.app().display().to_string();
    host.ok(&["deploy", &app, "-a", "tiny"])?; // v5
    check(
        stacks.join(&first).is_dir() && count("slugs") == 2,
        "v3 is among the last three",
    )?;
    contains(&host.ok(&["builds", "-a", "tiny"])?, "succeeded")?;
    // The last three, and what runs: v6 to v8 are of the second slug and stack.
    for value in ["1", "2", "3"] {
        host.ok(&["config:set", &format!("A={value}"), "-a", "tiny"])?;
    }
    host.eventually("the first slug and stack are gone", || {
        !stacks.join(&first).exists() && count("slugs") == 1 && count("trees") == 1
    })?;
    check(stacks.join(&second).is_dir(), "the stack in use stays")?;
    let refused = host.cli(&["rollback", "v3", "-a", "tiny"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    check(refused.status.code() == Some(5), text.clone())?;
    contains(&text, "Cannot roll back to v3: it is too old")?;
    host.ok(&["rollback", "v6", "-a", "tiny"])?;
    host.eventually("v6 serves", || {
        answers(&host, "tiny").as_deref() == Some("two")
    })?;
    // A version that nothing ever ran on goes when a newer one comes; the newest stays.
    let third = workshop.import(&host, "mine", Library::Answers("three"))?;
    let fourth = workshop.import(&host, "mine", Library::Answers("four"))?;
    contains(
        &host.ok(&["disk", "--prune"])?,
        &format!("stack mine {}", &third[..12]),
    )?;
    check(
        !stacks.join(&third).exists() && stacks.join(&fourth).is_dir(),
        "the newest stays",
    )?;
    // And what a killed supervisor left of an app that is gone goes at the start.
    host.ok(&["ps:scale", "web=0", "-a", "tiny"])?;
    host.eventually("nothing runs", || host.states("tiny").is_empty())?;
    host.stop()?;
    let orphan = host
        .dir
        .path()
        .join("state/cache/01234567-89ab-4def-8123-456789abcdef.img");
    std::fs::write(&orphan, "x")?;
    host.launch()?;
    check(!orphan.exists(), "the cache of no app")?;
    explained(&host)
}

/// The rows of `disk` are all there is. Logs and the database are written at any time: what counts
/// is a moment in which nothing was.
fn explained(host: &Host) -> Result<(), Failed> {
    let du = || -> Option<u64> {
        let output = Command::new("du")
            .args(["-s", "-x", "--block-size=1"])
            .arg(host.dir.path().join("state"))
            .output()
            .ok()?;
        String::from_utf8(output.stdout)
            .ok()?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    };
    host.eventually("the sum of the rows is what du counts", || {
        let before = du();
        let text = host.cli(&["disk", "--json"]).stdout;
        let disk: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        let parts = disk["parts"].as_array().cloned().unwrap_or_default();
        let sum: u64 = parts.iter().filter_map(|part| part["bytes"].as_u64()).sum();
        before == Some(sum) && du() == before && disk["total_bytes"] == sum
    })
}

fn imported() -> Result<(), Failed> {
    let workshop = Workshop::new()?;
    let host = Host::start()?;
    let root = workshop.root();
    let at = |name: &str| workshop.dir.path().join(name);
    run(Command::new("tar")
        .arg("-cf")
        .arg(at("mine.tar"))
        .arg("-C")
        .arg(&root)
        .arg("."))?;
    run(Command::new("mksquashfs")
        .arg(&root)
        .arg(at("mine.squashfs"))
        .args(["-quiet", "-no-progress"]))?;
    run(Command::new("mkfs.ext4")
        .args(["-q", "-d"])
        .arg(&root)
        .arg(at("mine.ext4"))
        .arg("64M"))?;
    let import = |file: &str| -> Result<String, Failed> {
        let file = at(file).display().to_string();
        let text = local(&host, &["stacks:import", &file, "--name", "mine"])?;
        let (_, digest) = text.trim().split_once(' ').ok_or("no digest")?;
        Ok(digest.to_owned())
    };
    let version = import("mine.tar")?;
    for file in ["mine.squashfs", "mine.ext4"] {
        let other = import(file)?;
        check(other == version, format!("{file}: {other}, not {version}"))?;
    }
    let count = std::fs::read_dir(host.dir.path().join("state/stacks/mine"))?.count();
    check(count == 1, "one version")?;
    workshop.deploy(&host, "tiny", "mine")?;
    check(answers(&host, "tiny").as_deref() == Some("0"), "it serves")?;
    // Two images in one file: builds see what dynos do not.
    let pair = at("pair");
    std::fs::create_dir(&pair)?;
    for image in ["run", "build"] {
        run(Command::new("cp")
            .arg("-a")
            .arg(&root)
            .arg(pair.join(image)))?;
    }
    symlink("true", pair.join("build/usr/bin/compiler"))?;
    run(Command::new("mksquashfs")
        .arg(&pair)
        .arg(at("mine.squashfs"))
        .args(["-quiet", "-no-progress", "-noappend"]))?;
    let both = import("mine.squashfs")?;
    check(both != version, "another version")?;
    let pack = at("pack");
    crate::languages::pack(
        workshop.dir.path(),
        "pack",
        "command -v compiler >\"$1/seen\"",
    )?;
    std::fs::write(workshop.app().join("wanted-pack"), "")?;
    host.ok(&["buildpacks:set", &pack.display().to_string(), "-a", "tiny"])?;
    host.ok(&[
        "deploy",
        &workshop.app().display().to_string(),
        "-a",
        "tiny",
    ])?;
    let script = "cat seen; command -v compiler || echo none here";
    let said = host.ok(&["run", "-a", "tiny", "--", "bash", "-c", script])?;
    check(said == "/usr/bin/compiler\nnone here\n", said)
}

fn interrupted() -> Result<(), Failed> {
    let host = Host::start()?;
    let stacks = host.dir.path().join("state/stacks");
    let left = || -> Vec<String> {
        let entries = std::fs::read_dir(&stacks).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names
            .filter(|name| name != "host" && name != ".lock")
            .collect()
    };
    let said = |words: &[&str], status: i32, text: &str| -> Result<(), Failed> {
        let output = on_state(&host, words).output()?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        check(
            output.status.code() == Some(status),
            format!("{words:?}: {output:?}"),
        )?;
        contains(&told, text)?;
        check(left().is_empty(), format!("{words:?} left {:?}", left()))
    };
    said(
        &["stacks:build", "cedar-99"],
        5,
        "cedar-12, cedar-13, cedar, bamboo can be built",
    )?;
    said(&["stacks:build", "Bad name"], 1, "a stack's name is")?;
    said(
        &["stacks:import", "/etc/hostname", "--name", "mine"],
        5,
        "/etc/hostname holds no stack",
    )?;
    said(
        &["stacks:import", "/no/such.tar"],
        1,
        "cannot read /no/such.tar",
    )?;
    said(
        &["stacks:import", "/etc/hostname", "--name", "host"],
        5,
        "choose another with --name",
    )?;
    let nobody = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let mirror = format!("http://{nobody}/debian");
    said(
        &["stacks:build", "cedar-12", "--mirror", &mirror],
        1,
        "was not reached for bookworm",
    )?;
    // A mirror that never answers: time to interrupt, in both ways.
    for signal in [
        nix::sys::signal::Signal::SIGTERM,
        nix::sys::signal::Signal::SIGKILL,
    ] {
        // A new one each time: apt may have knocked at the last one twice.
        let door = TcpListener::bind("127.0.0.1:0")?;
        let mirror = format!("http://{}/debian", door.local_addr()?);
        let mut build = on_state(&host, &["stacks:build", "cedar-12", "--mirror", &mirror]);
        let mut build = build.stderr(Stdio::piped()).spawn()?;
        let (mut asked, _) = door.accept()?;
        check(left().len() == 1, format!("it is being made: {:?}", left()))?;
        let busy = on_state(&host, &["stacks:build", "cedar-12"]).output()?;
        contains(&String::from_utf8_lossy(&busy.stderr), "is under way here")?;
        support::signal(build.id(), signal);
        let status = build.wait()?;
        let is_term = signal == nix::sys::signal::Signal::SIGTERM;
        check(status.code() == is_term.then_some(130), status.to_string())?;
        // Whoever asked the mirror is gone, too.
        asked.set_read_timeout(Some(PATIENCE))?;
        let mut rest = Vec::new();
        let _ = asked.read_to_end(&mut rest);
        check(!rest.is_empty(), "apt asked")?;
        if !is_term {
            check(left().len() == 1, "a killed build cannot tidy up")?;
            said(
                &["stacks:import", "/etc/hostname", "--name", "mine"],
                5,
                "holds no stack",
            )?;
        }
        check(left().is_empty(), format!("{signal} left {:?}", left()))?;
    }
    Ok(())
}

/// Runs a command with another host name, mask and time zone, on another kind of file system at `$1`.
/// All of it ends with the command.
const ELSEWHERE: &str = "mount -t tmpfs elsewhere \"$1\"; hostname elsewhere; umask 077; shift; \
                         TZ=Pacific/Kiritimati LANG=de_DE.UTF-8 HOME=/nonexistent exec \"$@\"";

/// As `cedar-12` is made, of few packages: some whose scripts make files of their own when they are
/// installed (certificates, an id of the machine, compiled Python).
fn twice() -> Result<(), Failed> {
    let dir = tempfile::Builder::new()
        .prefix(&support::dir_prefix())
        .tempdir_in("/var/tmp")?;
    let (here, there) = (dir.path().join("here"), dir.path().join("further/away"));
    for state in [&here, &there] {
        std::fs::create_dir_all(state)?;
    }
    write(
        dir.path(),
        &[
            (
                "recipes/small/stack.toml",
                "description = \"Small\"\nsuite = \"bookworm\"\n",
            ),
            (
                "recipes/small/packages.txt",
                "bash ca-certificates dbus python3-minimal tzdata\n",
            ),
            ("recipes/small/packages-build.txt", "make\n"),
        ],
    )?;
    let build = |mut command: Command, state: &Path| -> Result<String, String> {
        command.args(["stacks:build", "small", "--recipes"]);
        command.arg(dir.path().join("recipes"));
        command.arg("--state").arg(state).stdin(Stdio::null());
        let output = command.output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(format!("{command:?}: {output:?}"));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let mut elsewhere = Command::new("unshare");
    elsewhere
        .args(["--mount", "--uts", "--", "sh", "-ec", ELSEWHERE, "sh"])
        .arg(&there)
        .arg(support::manifold());
    // Side by side: mostly they wait, for the mirror and for dpkg.
    let (one, other) = std::thread::scope(|scope| {
        let other = scope.spawn(|| build(elsewhere, &there));
        (
            build(Command::new(support::manifold()), &here),
            other.join().expect("no panic"),
        )
    });
    let (one, other) = (one?, other?);
    check(one.starts_with("small "), one.clone())?;
    check(one == other, format!("{one} and {other} differ"))
}
