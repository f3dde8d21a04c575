//! The six languages and buildpacks from elsewhere, on a stack of our own.
//!
//! The stack is built once (`cargo xtask test` does it) and named by `MANIFOLD_TEST_STACKS`, a
//! folder as the state directory's `stacks`. Dependencies come from package indexes and from the
//! Debian packages of the stack.

use std::path::{Path, PathBuf};

use libtest_mimic::{Failed, Trial};

use crate::host::{Host, app_dir, check, contains, copy_app};
use crate::network::yard::{WORLD, Yard};

/// Where built stacks lie; the cases are skipped without.
const STACKS: &str = "MANIFOLD_TEST_STACKS";

/// The cases of this file.
pub(crate) fn cases() -> Vec<Trial> {
    let is_missing = std::env::var_os(STACKS).is_none();
    vec![
        Trial::test("languages::all_six_and_pages_are_deployed", all).with_ignored_flag(is_missing),
        Trial::test("languages::cedar_is_the_newest_of_both", newest).with_ignored_flag(is_missing),
        Trial::test("languages::gems_are_fetched_once", gems).with_ignored_flag(is_missing),
        Trial::test("languages::buildpacks_from_elsewhere_run_in_order", outside),
        Trial::test(
            "languages::buildpacks_come_by_git_and_as_a_tarball",
            fetched,
        ),
    ]
}

fn all() -> Result<(), Failed> {
    let host = Host::start()?;
    stack(&host, "cedar-12")?;
    each(&host, "by Sinatra 3", "1.11.1")
}

/// The newer Debian has other versions of everything.
fn newest() -> Result<(), Failed> {
    let host = Host::start()?;
    for name in ["cedar-12", "cedar-13"] {
        stack(&host, name)?;
    }
    contains(&host.ok(&["stacks"])?, "= cedar-13")?;
    each(&host, "by Sinatra 4", "1.12.0")?;
    let said = host.ok(&["run", "-a", "my-flask", "--", "python3", "--version"])?;
    contains(&said, "Python 3.13.")
}

/// Gives a host a stack that was built before.
fn stack(host: &Host, name: &str) -> Result<PathBuf, Failed> {
    let stacks = std::env::var_os(STACKS).ok_or("no stacks")?;
    let built = Path::new(&stacks).join(name);
    check(built.is_dir(), format!("{} is missing", built.display()))?;
    let link = host.dir.path().join("state/stacks").join(name);
    std::os::unix::fs::symlink(&built, link)?;
    Ok(built)
}

/// Deploys an app of each language. Both Debians have Jetty 9; Scala is what the app brings.
fn each(host: &Host, sinatra: &str, clojure: &str) -> Result<(), Failed> {
    let version = format!("CLOJURE_VERSION={clojure}");
    let clojure = format!("by Clojure {clojure}");
    // Two builds ask for versions by names that only Debian has.
    let debian = Some("MAVEN_MIRROR_ONLY=1");
    let mut failures = String::new();
    for (folder, name, words, config) in [
        ("ruby", "Ruby/Rack", sinatra, None),
        ("java", "Java", "by Jetty 9", debian),
        (
            "clojure",
            "Clojure (Leiningen 2)",
            &clojure,
            Some(&*version),
        ),
        ("scala", "Scala", "by Scala 2.13.8", debian),
        ("flask", "Python", "by Flask", None),
        ("express", "Node.js", "by Express", None),
        ("static", "Static", "hello from a page", None),
    ] {
        // All are tried: one run shows every language that fails.
        if let Err(error) = one(host, folder, name, words, config) {
            failures.extend([folder, ": ", &format!("{error:?}"), "\n"]);
        }
    }
    check(failures.is_empty(), failures)
}

/// Deploys a folder; returns what the build said.
fn deploy(host: &Host, folder: &str, app: &str) -> Result<String, Failed> {
    let output = host.cli(&["deploy", folder, "-a", app]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    check(output.status.success(), text.clone())?;
    Ok(text)
}

/// The Ruby app with a lock of the stack's own gems, whose versions change with Debian's: it is what
/// a deploy without one came to.
fn locked(host: &Host, app: &str) -> Result<tempfile::TempDir, Failed> {
    let dir = tempfile::tempdir()?;
    copy_app("ruby", dir.path())?;
    let text = deploy(host, &dir.path().display().to_string(), app)?;
    contains(&text, "Gemfile.lock is missing")?;
    let lock = host.ok(&["run", "-a", app, "--", "cat", "Gemfile.lock"])?;
    std::fs::write(dir.path().join("Gemfile.lock"), lock)?;
    // It is there without a gem of the app's.
    let said = host.ok(&["run", "-a", app, "--", "rackup", "--version"])?;
    contains(&said, "Rack")?;
    Ok(dir)
}

fn one(
    host: &Host,
    folder: &str,
    name: &str,
    words: &str,
    config: Option<&str>,
) -> Result<(), Failed> {
    let app = format!("my-{folder}");
    host.ok(&["create", &app, "--stack", "cedar"])?;
    if let Some(config) = config {
        host.ok(&["config:set", config, "-a", &app])?;
    }
    let text = if folder == "ruby" {
        let dir = locked(host, &app)?;
        let text = deploy(host, &dir.path().display().to_string(), &app)?;
        contains(&text, "The stack has every gem of the Gemfile")?;
        check(!text.contains("Gemfile.lock is missing"), text.clone())?;
        text
    } else {
        deploy(host, &app_dir(folder), &app)?
    };
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
    if folder == "ruby" {
        return Ok(());
    }
    // Compiled again, and in another app without a cache, it is the same, byte for byte.
    let slugs = || std::fs::read_dir(host.dir.path().join("state/slugs")).map(Iterator::count);
    let before = slugs()?;
    let other = format!("other-{folder}");
    host.ok(&["create", &other, "--stack", "cedar"])?;
    if let Some(config) = config {
        host.ok(&["config:set", config, "-a", &other])?;
    }
    for app in [&app, &other] {
        deploy(host, &app_dir(folder), app)?;
        check(slugs()? == before, format!("{app} has another slug"))?;
        host.ok(&["ps:scale", "web=0", "-a", app])?;
    }
    Ok(())
}

/// A gem of ours, made by the stack's own tools, and the index of a source that has it.
const GEMS: &str = r#"set -e
for name in greet leave; do
  mkdir -p $name/lib
  echo "def $name = '$name by a gem'" >$name/lib/$name.rb
  cat >$name/$name.gemspec <<SPEC
Gem::Specification.new do |s|
  s.name, s.version, s.summary, s.authors = '$name', '1.0.0', 'A test', ['a']
  s.files, s.homepage, s.license = ['lib/$name.rb'], 'http://a.test', 'MIT'
end
SPEC
  (cd $name && gem build --silent $name.gemspec)
done
mkdir -p served/gems
mv */*.gem served/gems
gem generate_index --directory served --silent
"#;

/// The app's files for the gems of these names.
fn bundled(dir: &Path, names: &[&str]) -> Result<(), Failed> {
    let source = format!("http://{WORLD}:8000/");
    let each = |line: &dyn Fn(&str) -> String| names.iter().map(|name| line(name)).collect();
    let (gems, specs, all): (String, String, String) = (
        each(&|name| format!("gem \"{name}\", require: false\n")),
        each(&|name| format!("    {name} (1.0.0)\n")),
        each(&|name| format!("  {name}\n")),
    );
    let lock = format!(
        "GEM\n  remote: {source}\n  specs:\n{specs}\nPLATFORMS\n  ruby\n\nDEPENDENCIES\n{all}"
    );
    for (name, text) in [
        ("Gemfile", format!("source \"{source}\"\n{gems}")),
        ("Gemfile.lock", lock),
        ("Procfile", "worker: sleep 1000\n".to_owned()),
    ] {
        std::fs::write(dir.join(name), text)?;
    }
    Ok(())
}

fn gems() -> Result<(), Failed> {
    let yard = Yard::new()?;
    let host = Host::within(&yard.netns(), "")?;
    let version = std::fs::read_dir(stack(&host, "cedar-12")?)?
        .next()
        .ok_or("no version")??;
    let dir = tempfile::tempdir()?;
    let made = std::process::Command::new("bwrap")
        .arg("--ro-bind")
        .arg(version.path().join("build"))
        .arg("/")
        .arg("--bind")
        .arg(dir.path())
        .args([
            "/tmp", "--dev", "/dev", "--proc", "/proc", "--chdir", "/tmp",
        ])
        .args(["--clearenv", "--setenv", "PATH", "/usr/bin:/bin"])
        .args(["bash", "-c", GEMS])
        .output()?;
    check(made.status.success(), format!("{made:?}"))?;
    let served = yard.serve(&dir.path().join("served"))?;
    let source = tempfile::tempdir()?;
    bundled(source.path(), &["greet"])?;
    host.ok(&["create", "gems", "--stack", "cedar-12"])?;
    let folder = source.path().display().to_string();
    let deploy = || host.ok(&["deploy", &folder, "-a", "gems"]);
    let text = deploy()?;
    contains(&text, "-----> Ruby app detected")?;
    contains(&text, "Installing greet 1.0.0")?;
    let say = |script: &str| {
        host.ok(&[
            "run", "-a", "gems", "--", "bundle", "exec", "ruby", "-e", script,
        ])
    };
    contains(&say("require 'greet'; puts greet")?, "greet by a gem")?;
    // Nobody is asked again for what was locked before.
    drop(served);
    let text = deploy()?;
    contains(
        &text,
        "No change in Gemfile.lock detected, installing from cache",
    )?;
    check(!text.contains("Installing greet"), text)?;
    contains(&say("require 'greet'; puts greet")?, "greet by a gem")?;
    let slugs = std::fs::read_dir(host.dir.path().join("state/slugs"))?.count();
    check(slugs == 1, format!("{slugs} slugs of one tree"))?;
    // What is new is fetched; what was there is kept, what is not wanted any more is not.
    let _served = yard.serve(&dir.path().join("served"))?;
    bundled(source.path(), &["greet", "leave"])?;
    let text = deploy()?;
    for line in [
        "-----> Restoring cache",
        "Using greet 1.0.0",
        "Installing leave 1.0.0",
    ] {
        contains(&text, line)?;
    }
    bundled(source.path(), &["leave"])?;
    contains(&deploy()?, "Removing greet (1.0.0)")?;
    contains(&say("require 'leave'; puts leave")?, "leave by a gem")?;
    let files = host.ok(&["run", "-a", "gems", "--", "find", "/app/vendor/bundle"])?;
    check(!files.contains("greet"), files)
}

/// A buildpack as a folder: detect, compile and what it exports.
pub(crate) fn pack(dir: &Path, name: &str, compile: &str) -> Result<String, Failed> {
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

/// What a build of the app `packs` says that the API is asked for with one buildpack, uploaded for it.
fn built_by(host: &Host, source: &Path, pack: &str) -> Result<String, Failed> {
    let curl = |args: &[&str], path: &str| -> Result<String, Failed> {
        let output = std::process::Command::new("curl")
            .args(["-sS", "--fail-with-body", "--unix-socket"])
            .arg(host.socket())
            .args(args)
            .arg(format!("http://localhost{path}"))
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        check(output.status.success(), format!("{path}: {output:?}"))?;
        Ok(text)
    };
    let post = |path: &str, body: &serde_json::Value| -> Result<serde_json::Value, Failed> {
        let body = body.to_string();
        let args = ["-H", "Content-Type: application/json", "-d", &body];
        Ok(serde_json::from_str(&curl(&args, path)?)?)
    };
    let upload = |folder: &str| -> Result<String, Failed> {
        let archive = host.dir.path().join("upload.tgz").display().to_string();
        command("tar", source, &["-czf", &archive, "-C", folder, "."])?;
        let urls = post("/sources", &serde_json::json!({}))?["source_blob"].clone();
        let put = urls["put_url"].as_str().ok_or("no url")?;
        curl(&["-T", &archive], put)?;
        Ok(urls["get_url"].as_str().ok_or("no url")?.to_owned())
    };
    let buildpack = format!("{}#second", upload(pack)?);
    let url = upload(&source.display().to_string())?;
    let build = post(
        "/apps/packs/builds",
        &serde_json::json!({ "source_blob": { "url": url }, "buildpacks": [{ "url": buildpack }] }),
    )?;
    let output = build["output_stream_url"].as_str().ok_or("no url")?;
    curl(&[], output)
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
         echo \"limit $(cat /sys/fs/cgroup/memory/memory.limit_in_bytes), cached $(ls -A \"$2\"), home $HOME\"\n\
         touch \"$2/kept\"\n\
         [ ! -f \"$1/fails\" ] || { touch \"$2/half\"; exit 1; }\n\
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
        // They know Heroku's stacks alone: the one that this machine's Debian 12 comes nearest to.
        "stack heroku-22, source abc, secret unset, file s3cret",
        // Heroku's packs read the size of the dyno off this file.
        "limit 1073741824, cached , home /app",
        "CapEff:\t0000000000000000",
        "NoNewPrivs:\t1",
        "-----> Pack second app detected",
        "from the first: it works",
        // Of the last buildpack that gives some.
        "Default types for buildpack -> both, second\n",
    ] {
        contains(&text, line)?;
    }
    check(!text.contains("writable"), text)?;
    // A build that fails changes nothing of its cache.
    std::fs::write(source.path().join("fails"), "")?;
    let output = host.cli(&["deploy", &folder, "-a", "packs"]);
    check(output.status.code() == Some(9), format!("{output:?}"))?;
    std::fs::remove_file(source.path().join("fails"))?;
    let text = host.ok(&["deploy", &folder, "-a", "packs"])?;
    contains(&text, "cached kept, home /app")?;
    // The last buildpack has the last word, and all start-up files stay.
    let said = host.ok(&["run", "-a", "packs", "both", "start", "$AT_START"])?;
    contains(&said, "second start yes")?;
    let text = built_by(&host, source.path(), &second)?;
    contains(&text, "-----> Pack second app detected")?;
    check(!text.contains("Pack first"), text)?;
    let list = host.ok(&["buildpacks", "-a", "packs"])?;
    contains(&list, "2. upload:second:")?;
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
