//! The six languages and buildpacks from elsewhere, on a stack of our own.
//!
//! The stack is built once (`cargo xtask test` does it) and named by `MANIFOLD_TEST_STACKS`, a
//! folder as the state directory's `stacks`. Dependencies come from package indexes and from the
//! Debian packages of the stack.

use std::path::Path;

use libtest_mimic::{Failed, Trial};

use crate::host::{Host, app_dir, check, contains};
use crate::network::yard::{WORLD, Yard};

/// Where built stacks lie; the cases are skipped without.
const STACKS: &str = "MANIFOLD_TEST_STACKS";

/// The cases of this file.
pub(crate) fn cases() -> Vec<Trial> {
    let is_missing = std::env::var_os(STACKS).is_none();
    vec![
        Trial::test("languages::all_six_and_pages_are_deployed", all).with_ignored_flag(is_missing),
        Trial::test("languages::buildpacks_from_elsewhere_run_in_order", outside),
        Trial::test(
            "languages::buildpacks_come_by_git_and_as_a_tarball",
            fetched,
        ),
    ]
}

fn all() -> Result<(), Failed> {
    let stacks = std::env::var_os(STACKS).ok_or("no stacks")?;
    let host = Host::start()?;
    let link = host.dir.path().join("state/stacks/cedar-12");
    std::os::unix::fs::symlink(Path::new(&stacks).join("cedar-12"), link)?;
    let mut failures = String::new();
    for (folder, name, words) in [
        ("ruby", "Ruby/Rack", "by Sinatra 3"),
        ("java", "Java", "by Jetty 9"),
        ("clojure", "Clojure (Leiningen 2)", "by Clojure 1.11.1"),
        ("scala", "Scala", "by Scala 2.13.8"),
        ("flask", "Python", "by Flask"),
        ("express", "Node.js", "by Express"),
        ("static", "Static", "hello from a page"),
    ] {
        // All are tried: one run shows every language that fails.
        if let Err(error) = one(&host, folder, name, words) {
            failures.extend([folder, ": ", &format!("{error:?}"), "\n"]);
        }
    }
    check(failures.is_empty(), failures)
}

fn one(host: &Host, folder: &str, name: &str, words: &str) -> Result<(), Failed> {
    let app = format!("my-{folder}");
    host.ok(&["create", &app, "--stack", "cedar"])?;
    let output = host.cli(&["deploy", &app_dir(folder), "-a", &app]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    check(output.status.success(), text.clone())?;
    contains(&text, "-----> Building on the Cedar stack")?;
    contains(&text, &format!("-----> {name} app detected"))?;
    host.eventually("web.1 is up", || host.all_up(&app, &["web.1"]))?;
    let (status, body) = host
        .get(&format!("{app}.localhost"), "/")
        .ok_or("no answer")?;
    check(
        status == 200 && body.contains(words),
        format!("{status} {body}"),
    )?;
    // The whole output is kept with the build.
    let kept = host.ok(&["builds:output", "-a", &app])?;
    check(kept == text, "the output is kept as it was shown")?;
    host.ok(&["ps:scale", "web=0", "-a", &app])?;
    Ok(())
}

/// A buildpack as a folder: detect, compile and what it exports.
fn pack(dir: &Path, name: &str, compile: &str) -> Result<String, Failed> {
    let root = dir.join(name);
    std::fs::create_dir_all(root.join("bin"))?;
    for (file, text) in [
        (
            "detect",
            format!(
                "#!/bin/bash\n[ -f \"$1/wanted-{name}\" ] || {{ echo no; echo 'it wants a file' >&2; exit 1; }}\necho \"Pack {name}\"\n"
            ),
        ),
        ("compile", format!("#!/bin/bash\nset -e\n{compile}\n")),
        (
            "release",
            format!(
                "#!/bin/bash\nprintf -- '---\\ndefault_process_types:\\n  {name}: sleep 1000\\n  both: echo {name}\\n'\n"
            ),
        ),
    ] {
        let path = root.join("bin").join(file);
        std::fs::write(&path, text)?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, mode)?;
    }
    Ok(root.display().to_string())
}

fn outside() -> Result<(), Failed> {
    let host = Host::start()?;
    let dir = tempfile::tempdir()?;
    let first = pack(
        dir.path(),
        "first",
        "here=$(cd \"$(dirname \"$0\")/..\" && pwd)\n\
         echo 'export FROM_FIRST=\"it works\"' >\"$here/export\"\n\
         echo \"stack $STACK, source $SOURCE_VERSION, secret ${SECRET:-unset}, file $(cat \"$3/SECRET\")\"\n\
         [ -w / ] && echo 'the stack is writable'\n\
         id -u; cat /proc/self/status | grep -E '^(CapEff|NoNewPrivs)'\n\
         mkdir -p \"$1/.profile.d\"; echo 'export AT_START=yes' >\"$1/.profile.d/first.sh\"",
    )?;
    let second = pack(
        dir.path(),
        "second",
        "echo \"from the first: ${FROM_FIRST:-nothing}\"",
    )?;
    let source = tempfile::tempdir()?;
    std::fs::write(source.path().join("wanted-first"), "")?;
    std::fs::write(source.path().join("wanted-second"), "")?;
    let folder = source.path().display().to_string();
    host.ok(&["create", "packs"])?;
    host.ok(&["config:set", "SECRET=s3cret", "-a", "packs"])?;
    host.ok(&["buildpacks:set", &first, "-a", "packs"])?;
    host.ok(&["buildpacks:add", &second, "-a", "packs"])?;
    let list = host.ok(&["buildpacks", "-a", "packs"])?;
    contains(&list, "1. upload:first:")?;
    contains(&list, "2. upload:second:")?;
    let text = host.ok(&["deploy", &folder, "-a", "packs", "--source-version", "abc"])?;
    for line in [
        "-----> Using buildpacks:",
        "       1. first (uploaded)",
        "-----> Pack first app detected",
        "stack host, source abc, secret unset, file s3cret",
        "CapEff:\t0000000000000000",
        "NoNewPrivs:\t1",
        "-----> Pack second app detected",
        "from the first: it works",
        "Default types for buildpack -> both, first, second",
    ] {
        contains(&text, line)?;
    }
    check(!text.contains("writable"), text)?;
    // The last buildpack has the last word, and all start-up files stay.
    let said = host.ok(&["run", "-a", "packs", "both", "start", "$AT_START"])?;
    contains(&said, "second start yes")?;
    // One that does not apply is said to, with its own reason.
    std::fs::remove_file(source.path().join("wanted-second"))?;
    let output = host.cli(&["deploy", &folder, "-a", "packs"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    check(output.status.code() == Some(9), text.clone())?;
    contains(&text, "-----> App not compatible with buildpack: second")?;
    contains(&text, "       it wants a file")?;
    // The other ways to choose: by place, by URL, by config var, by a file of the app.
    host.ok(&["buildpacks:remove", "second", "-a", "packs"])?;
    host.ok(&["buildpacks:add", "-i", "1", "heroku/static", "-a", "packs"])?;
    contains(
        &host.ok(&["buildpacks", "-a", "packs"])?,
        "1. heroku/static",
    )?;
    let refused = host.cli(&["buildpacks:add", "heroku/cobol", "-a", "packs"]);
    check(!refused.status.success(), "cobol")?;
    host.ok(&["buildpacks:clear", "-a", "packs"])?;
    std::fs::write(source.path().join("Procfile"), "web: sleep 1000\n")?;
    let text = host.ok(&["deploy", &folder, "-a", "packs"])?;
    contains(&text, "-----> Procfile app detected")?;
    std::fs::write(
        source.path().join(".buildpacks"),
        "# one a line\nheroku/python\n",
    )?;
    let output = host.cli(&["deploy", &folder, "-a", "packs"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    contains(&text, "-----> Using buildpack: heroku/python")?;
    contains(&text, "App not compatible with buildpack: heroku/python")?;
    host.ok(&[
        "config:set",
        "BUILDPACK_URL=https://127.0.0.1:1/x.git",
        "-a",
        "packs",
    ])?;
    let output = host.cli(&["deploy", &folder, "-a", "packs"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    contains(&text, "-----> Fetching custom buildpack... failed")?;
    check(output.status.code() == Some(9), text)
}

fn command(program: &str, dir: &Path, args: &[&str]) -> Result<(), Failed> {
    let output = std::process::Command::new(program)
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()?;
    check(
        output.status.success(),
        format!("{program} {args:?}: {output:?}"),
    )
}

fn fetched() -> Result<(), Failed> {
    let yard = Yard::new()?;
    let host = Host::within(&yard.netns(), "")?;
    let dir = tempfile::tempdir()?;
    // One in a repository, with a version of before; one in a tarball, in a folder of its own.
    let git = |args: &[&str]| {
        let who = ["-c", "user.name=a", "-c", "user.email=a@b.test"];
        let args = [&who, args].concat();
        command("git", &dir.path().join("first"), &args)
    };
    pack(dir.path(), "first", "echo the old one")?;
    git(&["init", "-q", "-b", "main"])?;
    git(&["add", "-A"])?;
    git(&["commit", "-q", "-m", "old"])?;
    git(&["tag", "v1"])?;
    pack(dir.path(), "first", "echo the new one")?;
    git(&["commit", "-q", "-a", "-m", "new"])?;
    git(&["update-server-info"])?;
    pack(dir.path(), "second", "echo from a tarball")?;
    command("tar", dir.path(), &["-czf", "second.tgz", "second"])?;
    command(
        "tar",
        dir.path(),
        &["-czf", "none.tgz", "second/bin/detect"],
    )?;
    let _served = yard.serve(dir.path())?;
    let source = tempfile::tempdir()?;
    std::fs::write(source.path().join("wanted-first"), "")?;
    std::fs::write(source.path().join("wanted-second"), "")?;
    let folder = source.path().display().to_string();
    host.ok(&["create", "far"])?;
    let at = |rest: &str| format!("http://{WORLD}:8000/{rest}");
    host.ok(&["buildpacks:set", &at("first/.git"), "-a", "far"])?;
    host.ok(&["buildpacks:add", &at("second.tgz"), "-a", "far"])?;
    let text = host.ok(&["deploy", &folder, "-a", "far"])?;
    for line in [
        "-----> Fetching custom buildpack... done",
        "the new one",
        "-----> Pack second app detected",
        "from a tarball",
    ] {
        contains(&text, line)?;
    }
    host.ok(&["buildpacks:set", &at("first/.git#v1"), "-a", "far"])?;
    contains(&host.ok(&["deploy", &folder, "-a", "far"])?, "the old one")?;
    for (url, why) in [
        (
            at("first/.git#nowhere"),
            "Fetching custom buildpack... failed",
        ),
        (at("nowhere.tgz"), "Fetching custom buildpack... failed"),
        (at("none.tgz"), "There is no bin/compile in it"),
    ] {
        host.ok(&["buildpacks:clear", "-a", "far"])?;
        host.ok(&["buildpacks:set", &url, "-a", "far"])?;
        let output = host.cli(&["deploy", &folder, "-a", "far"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        check(output.status.code() == Some(9), format!("{url}: {text}"))?;
        contains(&text, why)?;
    }
    Ok(())
}
