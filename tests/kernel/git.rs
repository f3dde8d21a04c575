//! `git push` with the stock client, by each of its three ways.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};

use crate::host::{Host, PATIENCE, check, contains, copy_app};
use crate::network::yard::{WORLD, Yard};
use crate::support;

/// The program of ssh's server; tests that need it are skipped where it is missing.
const SSHD: &str = "/usr/sbin/sshd";

/// The cases of this file.
pub(crate) fn cases() -> Vec<Trial> {
    vec![
        Trial::test("git::a_push_over_the_socket_builds_and_releases", socket),
        Trial::test("git::a_push_says_this_and_no_more", whole),
        Trial::test("git::what_is_not_built_moves_no_dyno", branches),
        Trial::test("git::pushes_queue_and_outlive_their_client", queue),
        Trial::test("git::ignored_files_stay_out_and_submodules_come_in", parts),
        Trial::test(
            "git::a_tree_of_a_gigabyte_is_built_and_a_larger_one_is_not",
            gigabyte,
        ),
        Trial::test("git::http_takes_a_token_and_serves_clones", http),
        Trial::test("git::ssh_serves_one_app_by_its_forced_command", ssh)
            .with_ignored_flag(!Path::new(SSHD).exists()),
    ]
}

/// A work tree with the tiny app committed, and git with our remote helper.
struct Tree {
    dir: tempfile::TempDir,
    socket: PathBuf,
}

impl Tree {
    fn new(host: &Host) -> Result<Self, Failed> {
        let dir = tempfile::tempdir_in("/var/tmp")?;
        let tree = Self {
            dir,
            socket: host.socket(),
        };
        std::fs::create_dir(tree.dir.path().join("bin"))?;
        let helper = tree.dir.path().join("bin/git-remote-manifold");
        std::os::unix::fs::symlink(support::manifold(), helper)?;
        std::fs::create_dir(tree.path())?;
        tree.git(&["init", "-q", "-b", "main"])?;
        copy_app("tiny", &tree.path())?;
        tree.commit("first")?;
        Ok(tree)
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("tree")
    }

    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .args(args)
            .current_dir(self.path())
            .env("PATH", format!("{}/bin:{path}", self.dir.path().display()))
            .env("HOME", self.dir.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("MANIFOLD_SOCKET", &self.socket)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        for role in ["AUTHOR", "COMMITTER"] {
            command
                .env(format!("GIT_{role}_NAME"), "Ann")
                .env(format!("GIT_{role}_EMAIL"), "ann@example.test");
        }
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command("git", args).output().expect("git starts")
    }

    /// stdout and stderr of a git that must succeed.
    fn git(&self, args: &[&str]) -> Result<String, Failed> {
        let output = self.run(args);
        let text = both(&output);
        check(output.status.success(), format!("git {args:?}: {text}"))?;
        Ok(text)
    }

    /// stderr of a git that must fail.
    fn refused(&self, args: &[&str]) -> Result<String, Failed> {
        let output = self.run(args);
        let text = both(&output);
        check(!output.status.success(), format!("git {args:?}: {text}"))?;
        Ok(text)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), Failed> {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().ok_or("no parent")?)?;
        Ok(std::fs::write(path, text)?)
    }

    fn commit(&self, message: &str) -> Result<String, Failed> {
        self.git(&["add", "-A"])?;
        self.git(&["commit", "-q", "--allow-empty", "-m", message])?;
        self.id("HEAD")
    }

    fn id(&self, name: &str) -> Result<String, Failed> {
        Ok(self.git(&["rev-parse", name])?.trim().to_owned())
    }

    /// What the server has.
    fn remote_id(&self, branch: &str) -> Result<String, Failed> {
        let text = self.git(&["ls-remote", "manifold", &format!("refs/heads/{branch}")])?;
        let id = text.split_whitespace().next().unwrap_or_default();
        Ok(id.to_owned())
    }
}

fn both(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn create(host: &Host, tree: &Tree, app: &str) -> Result<String, Failed> {
    let manifold = support::manifold().display().to_string();
    let output = tree.command(&manifold, &["create", app]).output()?;
    check(output.status.success(), both(&output))?;
    host.eventually("the app is there", || {
        host.cli(&["info", "-a", app]).status.success()
    })?;
    Ok(both(&output))
}

fn current(host: &Host, app: &str) -> Result<String, Failed> {
    let text = host.ok(&["releases", "-a", app, "-n", "1", "--json"])?;
    let releases: serde_json::Value = serde_json::from_str(&text)?;
    Ok(releases[0]["description"].to_string() + &releases[0]["version"].to_string())
}

fn socket() -> Result<(), Failed> {
    let host = Host::start()?;
    let tree = Tree::new(&host)?;
    let said = create(&host, &tree, "pushed")?;
    contains(&said, "Git remote manifold is manifold::pushed")?;
    let text = tree.git(&["push", "manifold", "main"])?;
    for line in [
        "remote: Compressing source files... done.",
        "remote: Building source:",
        "remote: -----> Building on the Host stack",
        "remote: -----> Python app detected",
        "remote: -----> Discovering process types",
        "remote:        Procfile declares types -> stubborn, web, worker",
        "remote: -----> Compressing...",
        "remote: -----> Launching...",
        "remote:        Released v3",
        "remote: Verifying deploy... done.",
        "* [new branch]      main -> main",
    ] {
        contains(&text, line)?;
    }
    host.eventually("web.1 is up", || host.all_up("pushed", &["web.1"]))?;
    let head = tree.id("HEAD")?;
    check(tree.remote_id("main")? == head, "the ref moved")?;
    contains(
        &current(&host, "pushed")?,
        &format!("Deploy {}", &head[..8]),
    )?;
    let (status, body) = host.get("pushed.localhost", "/files").ok_or("no answer")?;
    check(status == 200 && !body.contains(".git"), body)?;
    // Nothing new: git says so itself, and nothing is built.
    contains(
        &tree.git(&["push", "manifold", "main"])?,
        "Everything up-to-date",
    )?;

    // A failed build rejects the push, moves no ref, changes nothing that runs.
    tree.write("requirements.txt", "./nowhere\n")?;
    tree.commit("broken")?;
    let before = current(&host, "pushed")?;
    let text = tree.refused(&["push", "manifold", "main"])?;
    for line in [
        "remote:  !     Push rejected, failed to compile Python app.",
        "remote: !       Push rejected to pushed.",
        "! [remote rejected] main -> main (pre-receive hook declined)",
    ] {
        contains(&text, line)?;
    }
    check(tree.remote_id("main")? == head, "the ref stays")?;
    check(current(&host, "pushed")? == before, "nothing was released")?;
    check(host.all_up("pushed", &["web.1"]), "web.1 still runs")?;

    // History may be rewritten, and a shallow clone may deploy.
    tree.git(&["reset", "-q", "--hard", "HEAD~1"])?;
    tree.git(&["commit", "-q", "--amend", "-m", "rewritten"])?;
    let text = tree.refused(&["push", "manifold", "main"])?;
    contains(&text, "non-fast-forward")?;
    contains(
        &tree.git(&["push", "--force", "manifold", "main"])?,
        "(forced update)",
    )?;
    tree.write("more", "x")?;
    tree.commit("more")?;
    let url = format!("file://{}", tree.path().display());
    let shallow = tree.dir.path().join("shallow").display().to_string();
    tree.git(&["clone", "-q", "--depth", "1", &url, &shallow])?;
    // It does not know the history that it would replace.
    tree.git(&["-C", &shallow, "push", "-f", "manifold::pushed", "main"])?;
    check(tree.remote_id("main")? == tree.id("HEAD")?, "shallow")?;
    // No work of a push is left behind.
    let repositories = std::fs::read_dir(host.dir.path().join("state/repos"))?;
    for repository in repositories.flatten() {
        let left = std::fs::read_dir(repository.path().join("push"))?.count();
        check(left == 0, format!("{left} pushes left"))?;
    }
    host.ok(&["destroy", "-a", "pushed", "--confirm", "pushed"])?;
    let left = std::fs::read_dir(host.dir.path().join("state/repos"))?.count();
    check(left == 0, "the repository goes with its app")
}

/// What a push prints, line by line: numbers are `#`.
fn masked(text: &str) -> String {
    let mut masked = String::new();
    for line in text.lines() {
        for c in line.trim_end().chars() {
            if !c.is_ascii_digit() {
                masked.push(c);
            } else if !masked.ends_with('#') {
                masked.push('#');
            }
        }
        masked.push('\n');
    }
    masked
}

fn same(text: &str, expected: &str) -> Result<(), Failed> {
    let text = masked(text);
    check(
        text == expected,
        format!("expected:\n{expected}\nnot:\n{text}"),
    )
}

/// A first push, in the order of its lines.
const PUSH: &str = "\
remote: Compressing source files... done.
remote: Building source:
remote:
remote: -----> Building on the Host stack
remote: -----> Determining which buildpack to use for this app
remote: -----> Python app detected
remote: -----> Using Python #.#.# of the stack
remote: -----> No requirements to install
remote: -----> Discovering process types
remote:        Procfile declares types -> TYPES
remote:
remote: -----> Compressing...
remote:        Done: #.#K
remote: -----> Launching...
RELEASE
remote:        Released v#
remote:        http://said.localhost:#/ deployed to manifold
remote:
remote: Verifying deploy... done.
PHASE
To manifold::said
 * [new branch]      main -> main
";

fn whole() -> Result<(), Failed> {
    let host = Host::start()?;
    let tree = Tree::new(&host)?;
    create(&host, &tree, "said")?;
    let plain = PUSH
        .replace("TYPES", "stubborn, web, worker")
        .replace("RELEASE\n", "")
        .replace("PHASE\n", "");
    same(&tree.git(&["push", "manifold", "main"])?, &plain)?;
    // It is not over when the push is.
    let procfile = std::fs::read_to_string(tree.path().join("Procfile"))?;
    tree.write(
        "Procfile",
        &format!("{procfile}release: sleep 3; echo migrated\n"),
    )?;
    let first = tree.id("HEAD")?;
    let second = tree.commit("with a release command")?;
    let phased = PUSH
        .replace("TYPES", "release, stubborn, web, worker")
        .replace("RELEASE", "remote:  !     Release command declared: this new release will not be available until the command succeeds.")
        .replace("PHASE", "remote: Running release command....\nremote: Follow it with: manifold logs --tail --dyno release")
        .replace(
            " * [new branch]      main -> main",
            "   #..#  main -> main",
        );
    let text = tree.git(&["push", "manifold", "main"])?;
    let ids = format!("{}..{}", &first[..7], &second[..7]);
    contains(&text, &ids)?;
    same(&text.replace(&ids, "0..0"), &phased)?;
    let ran = host.eventually("the release command ran", || {
        host.logs("said").contains("]: migrated")
    });
    check(ran.is_ok(), host.logs("said"))?;
    // A failure, from the tool's own words to git's.
    tree.write("requirements.txt", "./nowhere\n")?;
    tree.commit("broken")?;
    let text = tree.refused(&["push", "manifold", "main"])?;
    let (_, end) = text
        .split_once("Installing requirements with pip")
        .ok_or(text.clone())?;
    let (_, end) = end.split_once(" !     ").ok_or(text.clone())?;
    same(end, BROKEN)
}

/// The end of a push of requirements that cannot be installed.
const BROKEN: &str = "\
Failed to install the dependencies with pip.
remote:  !     Line # of requirements.txt names the path ./nowhere, which is not there: commit it, or see whether .slugignore or .gitignore hides it.
remote:
remote:  !     Push rejected, failed to compile Python app.
remote:
remote:  !     Push failed
remote: Verifying deploy...
remote:
remote: !       Push rejected to said.
To manifold::said
 ! [remote rejected] main -> main (pre-receive hook declined)
error: failed to push some refs to 'manifold::said'
";

fn branches() -> Result<(), Failed> {
    let host = Host::start()?;
    let tree = Tree::new(&host)?;
    create(&host, &tree, "branchy")?;
    let before = current(&host, "branchy")?;
    let text = tree.git(&["push", "manifold", "main:topic", "main:refs/tags/v1"])?;
    contains(
        &text,
        "remote: Pushed to branch other than [main, master], skipping build.",
    )?;
    check(current(&host, "branchy")? == before, "nothing was released")?;
    check(tree.remote_id("topic")? == tree.id("HEAD")?, "it is kept")?;
    // `master` builds as `main` does; neither can be deleted.
    contains(
        &tree.git(&["push", "manifold", "main:master"])?,
        "Released v3",
    )?;
    let text = tree.refused(&["push", "manifold", ":master"])?;
    contains(&text, "Push rejected, cannot delete master branch.")?;
    contains(&tree.git(&["push", "manifold", ":topic"])?, "[deleted]")?;
    // A submodule that cannot be had fails the build and says which.
    let id = tree.id("HEAD")?;
    tree.git(&[
        "update-index",
        "--add",
        "--cacheinfo",
        &format!("160000,{id},vendor/lib"),
    ])?;
    tree.write(
        ".gitmodules",
        "[submodule \"lib\"]\n\tpath = vendor/lib\n\turl = https://127.0.0.1:1/lib.git\n",
    )?;
    tree.git(&["add", ".gitmodules"])?;
    tree.git(&["commit", "-q", "-m", "submodule"])?;
    let text = tree.refused(&["push", "manifold", "main:master"])?;
    contains(&text, "remote: -----> Fetching submodules")?;
    contains(
        &text,
        " !     Push rejected, submodule vendor/lib cannot be fetched",
    )?;
    // An app that is not there, and a client that may not.
    let text = tree.refused(&["push", "manifold::nosuch", "main"])?;
    contains(&text, "Couldn't find that app.")?;
    Ok(())
}

fn queue() -> Result<(), Failed> {
    let host = Host::start()?;
    let tree = Tree::new(&host)?;
    create(&host, &tree, "slow")?;
    tree.write("bin/pre_compile", "echo the slow step; sleep 4\n")?;
    let first = tree.commit("slow")?;
    // The client goes away as soon as its build runs.
    let mut push = tree.command("git", &["push", "manifold", "main"]);
    let mut client = push.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let said = client.stderr.take().ok_or("no stderr")?;
    let mut said = std::io::BufReader::new(said);
    let mut line = String::new();
    while !line.contains("the slow step") {
        line.clear();
        let count = std::io::BufRead::read_line(&mut said, &mut line)?;
        check(count > 0, "the push ended early")?;
    }
    // A second push waits for its turn, and says so.
    tree.write("bin/pre_compile", "echo the fast step\n")?;
    let second = tree.commit("fast")?;
    let mut waiting = tree.command("git", &["push", "--force", "manifold", "main:master"]);
    let waiting = waiting
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    support::signal(client.id(), nix::sys::signal::Signal::SIGINT);
    client.wait()?;
    let output = waiting.wait_with_output()?;
    let text = both(&output);
    check(output.status.success(), text.clone())?;
    contains(
        &text,
        "Waiting for an earlier build of this app to finish...",
    )?;
    contains(&text, "the fast step")?;
    // The build of the client that left went on, and its ref moved with it.
    check(tree.remote_id("main")? == first, "main moved")?;
    check(tree.remote_id("master")? == second, "master moved")?;
    let releases = host.ok(&["releases", "-a", "slow"])?;
    contains(&releases, &format!("Deploy {}", &first[..8]))?;
    contains(&releases, &format!("Deploy {}", &second[..8]))
}

fn http() -> Result<(), Failed> {
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let host = Host::with(&format!("api = [\"{address}\"]\n"))?;
    let tree = Tree::new(&host)?;
    create(&host, &tree, "webby")?;
    let url = format!("http://x:wrong@{address}/webby.git");
    contains(
        &tree.refused(&["push", &url, "main"])?,
        "Authentication failed",
    )?;
    let token = host.ok(&["authorizations:create", "--short", "-d", "laptop"])?;
    let token = token.trim();
    let url = format!("http://x:{token}@{address}/webby.git");
    let text = tree.git(&["push", &url, "main"])?;
    contains(&text, "remote: -----> Python app detected")?;
    contains(&text, "remote:        Released v3")?;
    let clone = tree.dir.path().join("clone").display().to_string();
    tree.git(&["clone", "-q", &url, &clone])?;
    let there = tree.git(&["-C", &clone, "rev-parse", "HEAD"])?;
    check(
        there.trim() == tree.id("HEAD")?,
        "the clone is what was pushed",
    )?;
    // More than git sends in one piece, of what it cannot compress.
    let mut random = vec![0; 3 << 20];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut random)?;
    std::fs::write(tree.path().join("large"), &random)?;
    let large = tree.commit("large")?;
    let text = tree.git(&["push", &url, "main"])?;
    contains(&text, "remote:        Released v4")?;
    host.eventually("web.1 is up", || host.all_up("webby", &["web.1"]))?;
    let sum = host.ok(&["run", "-a", "webby", "--", "sha256sum", "/app/large"])?;
    let output = Command::new("sha256sum")
        .arg(tree.path().join("large"))
        .output()?;
    check(sum[..64] == both(&output)[..64], sum)?;
    // A failed build is told here, too, and moves no ref.
    tree.write("requirements.txt", "./nowhere\n")?;
    tree.commit("broken")?;
    let before = current(&host, "webby")?;
    let text = tree.refused(&["push", &url, "main"])?;
    for line in [
        "remote:  !     Push rejected, failed to compile Python app.",
        "remote: !       Push rejected to webby.",
        "! [remote rejected] main -> main (pre-receive hook declined)",
    ] {
        contains(&text, line)?;
    }
    let there = tree.git(&["ls-remote", &url, "refs/heads/main"])?;
    check(there.starts_with(&large), "the ref stays")?;
    check(current(&host, "webby")? == before, "nothing was released")?;
    check(host.all_up("webby", &["web.1"]), "web.1 still runs")?;
    let none = format!("http://x:{token}@{address}/nosuch.git");
    contains(&tree.refused(&["push", &none, "main"])?, "not found")?;
    // The token opens the API, and ends when it is revoked.
    let curl = |token: &str| -> Result<String, Failed> {
        let output = Command::new("curl")
            .args(["-s", "-H", &format!("Authorization: Bearer {token}")])
            .arg(format!("http://{address}/apps/webby"))
            .output()?;
        Ok(both(&output))
    };
    contains(&curl(token)?, "\"name\":\"webby\"")?;
    contains(&curl("")?, "\"id\":\"unauthorized\"")?;
    let tokens: serde_json::Value = serde_json::from_str(&host.ok(&["authorizations", "--json"])?)?;
    let id = tokens[0]["id"].as_str().ok_or("no id")?;
    check(!tokens.to_string().contains(token), "it is shown only once")?;
    host.ok(&["authorizations:revoke", id])?;
    contains(&curl(token)?, "\"id\":\"unauthorized\"")?;
    let database = std::fs::read(host.dir.path().join("state/manifold.db"))?;
    let is_there = database.windows(token.len()).any(|w| w == token.as_bytes());
    check(!is_there, "the token itself is not stored")
}

fn parts() -> Result<(), Failed> {
    let yard = Yard::new()?;
    let host = Host::within(&yard.netns(), "")?;
    let tree = Tree::new(&host)?;
    create(&host, &tree, "parted")?;
    // A library of its own history, served as plain files.
    let dir = tree.dir.path().join("library");
    let at = dir.display().to_string();
    std::fs::create_dir(&dir)?;
    tree.git(&["init", "-q", "-b", "main", &at])?;
    std::fs::write(dir.join("lib.py"), "first")?;
    // As ignored as what is beside it: patterns are of the whole tree.
    for name in ["art.psd", "docs/own", "spec/lib_spec.py", "log/kept"] {
        std::fs::create_dir_all(dir.join(name).parent().ok_or("no parent")?)?;
        std::fs::write(dir.join(name), "1")?;
    }
    tree.git(&["-C", &at, "add", "-A"])?;
    tree.git(&["-C", &at, "commit", "-q", "-m", "first"])?;
    let commit = tree.git(&["-C", &at, "rev-parse", "HEAD"])?;
    std::fs::write(dir.join("lib.py"), "second")?;
    tree.git(&["-C", &at, "commit", "-q", "-a", "-m", "second"])?;
    tree.git(&["-C", &at, "update-server-info"])?;
    let _library = yard.serve(tree.dir.path())?;

    for (name, text) in [
        (
            ".slugignore",
            "# not for the dyno\nsecret\n/docs\n*.psd\n/vendor/lib/spec\n",
        ),
        ("secret/key", "1"),
        ("docs/index", "1"),
        ("lib/docs/kept", "1"),
        ("art/logo.psd", "1"),
    ] {
        tree.write(name, text)?;
    }
    let url = format!("http://{WORLD}:8000/library/.git");
    let modules = format!("[submodule \"lib\"]\n\tpath = vendor/lib\n\turl = {url}\n");
    tree.write(".gitmodules", &modules)?;
    tree.git(&["add", "-A"])?;
    let entry = format!("160000,{},vendor/lib", commit.trim());
    tree.git(&["update-index", "--add", "--cacheinfo", &entry])?;
    tree.git(&["commit", "-q", "-m", "parts"])?;
    let text = tree.git(&["push", "manifold", "main"])?;
    contains(&text, &format!("remote:        vendor/lib ({url})"))?;
    contains(&text, "Released v3")?;
    let script = "cd /app; find . -type f -not -path './.heroku/*' | sort; cat vendor/lib/lib.py";
    let files = host.ok(&["run", "-a", "parted", "--", "bash", "-c", script])?;
    for kept in [
        "./lib/docs/kept",
        "./server.py",
        "./vendor/lib/lib.py",
        "./vendor/lib/docs/own",
        "./vendor/lib/log/kept",
    ] {
        contains(&files, kept)?;
    }
    for gone in ["secret", "\n./docs", "psd", ".git", "spec"] {
        check(!files.contains(gone), format!("{gone} is there:\n{files}"))?;
    }
    // At the commit that the tree names, not at the newest.
    check(files.ends_with("first"), files)
}

/// Source: Dev Center, "Deploying with Git": the checked-out tree.
const TREE_MAX: u64 = 1 << 30;

fn gigabyte() -> Result<(), Failed> {
    let host = Host::start()?;
    let tree = Tree::new(&host)?;
    create(&host, &tree, "big")?;
    let piece = TREE_MAX / 16;
    let fill = |number: u64, bytes: u64| -> Result<(), Failed> {
        let path = tree.path().join(format!("piece-{number}"));
        Ok(std::fs::File::create(path)?.set_len(bytes)?)
    };
    for number in 0..15 {
        fill(number, piece)?;
    }
    // The app's own files and the archive's padding count, too.
    fill(15, piece - (1 << 20))?;
    let good = tree.commit("as large as can be")?;
    contains(&tree.git(&["push", "manifold", "main"])?, "Released v3")?;
    host.eventually("web.1 is up", || host.all_up("big", &["web.1"]))?;
    let script = "cat /app/piece-* | wc -c; od -An -tx1 /app/piece-15 | sort -u | head -n 3";
    let said = host.ok(&["run", "-a", "big", "--", "bash", "-c", script])?;
    let bytes = TREE_MAX - (1 << 20);
    check(said.starts_with(&format!("{bytes}\n 00 00")), said)?;
    let before = current(&host, "big")?;
    fill(16, 2 << 20)?;
    tree.commit("too large")?;
    let text = tree.refused(&["push", "manifold", "main"])?;
    contains(
        &text,
        &format!("it unpacks to more than {TREE_MAX} bytes: entry `piece-"),
    )?;
    contains(&text, "[remote rejected] main -> main")?;
    check(tree.remote_id("main")? == good, "the ref stays")?;
    check(current(&host, "big")? == before, "nothing was released")?;
    check(host.all_up("big", &["web.1"]), "web.1 still runs")
}

/// A real sshd on loopback, with keys of its own.
struct Sshd(Child);

impl Drop for Sshd {
    fn drop(&mut self) {
        support::signal(self.0.id(), nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

fn ssh() -> Result<(), Failed> {
    let host = Host::start()?;
    let tree = Tree::new(&host)?;
    create(&host, &tree, "secure")?;
    host.ok(&["create", "other"])?;
    let dir = tree.dir.path();
    std::fs::create_dir_all("/run/sshd")?;
    for key in ["host", "user"] {
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(dir.join(key))
            .status()?;
        check(made.success(), "ssh-keygen")?;
    }
    let key = std::fs::read_to_string(dir.join("user.pub"))?;
    let manifold = support::manifold();
    let line = format!(
        "restrict,command=\"MANIFOLD_SOCKET={} {} git-shell secure\" {key}",
        host.socket().display(),
        manifold.display()
    );
    std::fs::write(dir.join("authorized_keys"), line)?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut config = std::fs::File::create(dir.join("sshd_config"))?;
    writeln!(
        config,
        "ListenAddress 127.0.0.1:{port}\nHostKey {0}/host\nAuthorizedKeysFile {0}/authorized_keys\nPidFile {0}/sshd.pid\nStrictModes no\nPasswordAuthentication no\nUsePAM no\nPermitRootLogin yes",
        dir.display()
    )?;
    let sshd = Command::new(SSHD)
        .args(["-D", "-e", "-f"])
        .arg(dir.join("sshd_config"))
        .stdin(Stdio::null())
        .stderr(std::fs::File::create(dir.join("sshd.log"))?)
        .spawn()?;
    let _sshd = Sshd(sshd);
    let deadline = Instant::now() + PATIENCE;
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        check(Instant::now() < deadline, "sshd does not listen")?;
        std::thread::park_timeout(Duration::from_millis(50));
    }
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid())?.ok_or("no user")?;
    let ssh = format!(
        "ssh -p {port} -i {}/user -o IdentitiesOnly=yes -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR",
        dir.display()
    );
    let url = format!("{}@127.0.0.1:secure.git", user.name);
    let push = |url: &str| {
        let mut command = tree.command("git", &["push", url, "main"]);
        command.env("GIT_SSH_COMMAND", &ssh).output()
    };
    let output = push(&url)?;
    let log = std::fs::read_to_string(dir.join("sshd.log"))?;
    check(output.status.success(), format!("{}\n{log}", both(&output)))?;
    contains(&both(&output), "remote:        Released v3")?;
    host.eventually("web.1 is up", || host.all_up("secure", &["web.1"]))?;
    // The key names the app, not the client; and it is for git only.
    let before = current(&host, "other")?;
    let output = push(&format!("{}@127.0.0.1:other.git", user.name))?;
    contains(&both(&output), "Everything up-to-date")?;
    check(current(&host, "other")? == before, "other was not touched")?;
    let words: Vec<&str> = ssh.split(' ').skip(1).collect();
    let shell = Command::new("ssh")
        .args(words)
        .arg(format!("{}@127.0.0.1", user.name))
        .arg("id")
        .stdin(Stdio::null())
        .output()?;
    check(!shell.status.success(), "no shell")?;
    contains(&both(&shell), "this key deploys with git only, not `id`")
}
