//! The built-in buildpacks and the script that drives them, embedded in the binary.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use crate::model::{BUILT_IN, Digest};

/// Every file: its path below the version's directory and its text. Scripts below `bin/` and the
/// driver are executable.
const FILES: &[(&str, &str)] = &[
    ("checkout.sh", include_str!("checkout.sh")),
    ("driver.sh", include_str!("driver.sh")),
    ("submodules.sh", include_str!("submodules.sh")),
    ("lib/common.sh", include_str!("buildpacks/lib/common.sh")),
    (
        "lib/failures.sh",
        include_str!("buildpacks/lib/failures.sh"),
    ),
    ("lib/jars.pl", include_str!("buildpacks/lib/jars.pl")),
    ("lib/jvm.sh", include_str!("buildpacks/lib/jvm.sh")),
    (
        "clojure/bin/compile",
        include_str!("buildpacks/clojure/bin/compile"),
    ),
    (
        "clojure/bin/detect",
        include_str!("buildpacks/clojure/bin/detect"),
    ),
    (
        "clojure/bin/release",
        include_str!("buildpacks/clojure/bin/release"),
    ),
    (
        "clojure/profile.sh",
        include_str!("buildpacks/clojure/profile.sh"),
    ),
    (
        "java/bin/compile",
        include_str!("buildpacks/java/bin/compile"),
    ),
    (
        "java/bin/detect",
        include_str!("buildpacks/java/bin/detect"),
    ),
    (
        "java/bin/release",
        include_str!("buildpacks/java/bin/release"),
    ),
    (
        "nodejs/bin/compile",
        include_str!("buildpacks/nodejs/bin/compile"),
    ),
    (
        "nodejs/bin/detect",
        include_str!("buildpacks/nodejs/bin/detect"),
    ),
    (
        "nodejs/bin/release",
        include_str!("buildpacks/nodejs/bin/release"),
    ),
    (
        "nodejs/facts.js",
        include_str!("buildpacks/nodejs/facts.js"),
    ),
    (
        "nodejs/profile.sh",
        include_str!("buildpacks/nodejs/profile.sh"),
    ),
    (
        "python/bin/compile",
        include_str!("buildpacks/python/bin/compile"),
    ),
    (
        "python/bin/detect",
        include_str!("buildpacks/python/bin/detect"),
    ),
    (
        "python/bin/release",
        include_str!("buildpacks/python/bin/release"),
    ),
    (
        "python/profile.sh",
        include_str!("buildpacks/python/profile.sh"),
    ),
    (
        "python/requirements.sh",
        include_str!("buildpacks/python/requirements.sh"),
    ),
    (
        "ruby/bin/compile",
        include_str!("buildpacks/ruby/bin/compile"),
    ),
    (
        "ruby/bin/detect",
        include_str!("buildpacks/ruby/bin/detect"),
    ),
    (
        "ruby/bin/release",
        include_str!("buildpacks/ruby/bin/release"),
    ),
    (
        "ruby/profile.sh",
        include_str!("buildpacks/ruby/profile.sh"),
    ),
    (
        "scala/bin/compile",
        include_str!("buildpacks/scala/bin/compile"),
    ),
    (
        "scala/bin/detect",
        include_str!("buildpacks/scala/bin/detect"),
    ),
    (
        "scala/bin/release",
        include_str!("buildpacks/scala/bin/release"),
    ),
    (
        "static/bin/compile",
        include_str!("buildpacks/static/bin/compile"),
    ),
    (
        "static/bin/detect",
        include_str!("buildpacks/static/bin/detect"),
    ),
    (
        "static/bin/release",
        include_str!("buildpacks/static/bin/release"),
    ),
];

/// Builds that start at the same time write once.
static GATE: Mutex<()> = Mutex::new(());

/// Makes sure that this binary's buildpacks lie below `parent` and returns their directory, which
/// is named by their contents. Those of other versions are removed: a state directory has one
/// supervisor, and no build outlives it.
///
/// # Errors
/// They cannot be written.
pub(super) fn install(parent: &Path) -> io::Result<PathBuf> {
    let _one_at_a_time = GATE.lock().unwrap_or_else(PoisonError::into_inner);
    let version = version();
    let home = parent.join(&version);
    if home.is_dir() {
        return Ok(home);
    }
    fs::create_dir_all(parent)?;
    for entry in fs::read_dir(parent)? {
        fs::remove_dir_all(entry?.path())?;
    }
    // Put in place at once: half a buildpack is none.
    let part = parent.join(".part");
    for (name, text) in FILES {
        let path = part.join(name);
        let directory = path.parent().unwrap_or(&part);
        fs::create_dir_all(directory)?;
        fs::set_permissions(directory, Permissions::from_mode(0o755))?;
        fs::write(&path, text)?;
        fs::set_permissions(&path, Permissions::from_mode(mode(name)))?;
    }
    for name in BUILT_IN.iter().chain(&["lib"]) {
        fs::set_permissions(part.join(name), Permissions::from_mode(0o755))?;
    }
    fs::set_permissions(&part, Permissions::from_mode(0o755))?;
    fs::rename(&part, &home)?;
    Ok(home)
}

fn mode(name: &str) -> u32 {
    if name.contains("/bin/") || !name.contains('/') {
        0o755
    } else {
        0o644
    }
}

fn version() -> String {
    let mut hash = Sha256::new();
    for (name, text) in FILES {
        hash.update(name.len().to_le_bytes());
        hash.update(name);
        hash.update(text.len().to_le_bytes());
        hash.update(text);
    }
    let mut name = Digest(hash.finalize().into()).to_string();
    name.truncate(16);
    name
}

/// For tests that need a program: machines without it cannot try them.
#[cfg(test)]
pub(super) fn has(program: &str) -> bool {
    let ran = std::process::Command::new(program)
        .arg("--version")
        .output();
    ran.is_ok_and(|output| output.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_version_is_in_place_and_older_ones_are_gone() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(dir.path().join("0123/old")).expect("made");
        let home = install(dir.path()).expect("installed");
        assert_eq!(install(dir.path()).expect("found"), home);
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1);
        for (name, text) in FILES {
            let path = home.join(name);
            assert_eq!(&fs::read_to_string(&path).expect("read"), text);
            let mode_now = fs::metadata(&path).expect("there").permissions().mode();
            assert_eq!(mode_now & 0o777, mode(name), "{name}");
        }
    }

    /// A build without a dyno: the driver run by the host's bash, `HOME` in a directory of ours.
    struct Bench {
        dir: tempfile::TempDir,
    }

    impl Bench {
        fn new(files: &[(&str, &str)]) -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            for name in ["build", "env", "result", "home"] {
                fs::create_dir(dir.path().join(name)).expect("made");
            }
            let bench = Self { dir };
            for (name, text) in files {
                fs::write(bench.at("build").join(name), text).expect("written");
            }
            bench
        }

        fn at(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn result(&self, name: &str) -> String {
            fs::read_to_string(self.at("result").join(name)).unwrap_or_default()
        }

        /// A script of bash in the build's directory; `$1`: where the packs lie.
        fn bash(&self, script: &str) -> std::process::Output {
            let home = install(&self.at("packs")).expect("installed");
            std::process::Command::new("bash")
                .args(["-c", script, "-"])
                .arg(home)
                .current_dir(self.at("build"))
                .output()
                .expect("bash runs")
        }

        /// Status and output.
        fn drive(&self) -> (i32, String) {
            let home = install(&self.at("packs")).expect("installed");
            let output = std::process::Command::new(home.join("driver.sh"))
                .args(["build", "cache", "env", "result", "uploads"].map(|name| self.at(name)))
                .env_clear()
                .env("HOME", self.at("home"))
                .env("STACK", "host")
                .env("SECRET_OF_THE_DYNO", "x")
                .env("TMPDIR", self.dir.path())
                .stdin(std::process::Stdio::null())
                .output()
                .expect("bash runs");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            (output.status.code().expect("an exit"), text)
        }
    }

    #[test]
    fn nothing_applies_to_an_app_of_no_known_language() {
        let bench = Bench::new(&[("README", "x")]);
        let (status, text) = bench.drive();
        let said = "-----> Determining which buildpack to use for this app\n";
        assert_eq!((status, text.as_str()), (3, said));
        assert_eq!(bench.result("stage"), "detect\n");
        assert_eq!(bench.result("name"), "");
    }

    #[test]
    fn with_several_languages_the_first_buildpack_wins_and_its_failure_is_the_builds() {
        let bench = Bench::new(&[("package.json", "{"), ("requirements.txt", "")]);
        let (status, text) = bench.drive();
        assert_ne!(status, 0, "{text}");
        assert!(
            text.contains("Detected buildpacks: Node.js,Python\n"),
            "{text}"
        );
        assert!(text.contains("-----> Node.js app detected\n"), "{text}");
        assert_eq!(bench.result("stage"), "compile\n");
        assert_eq!(bench.result("name"), "Node.js\n");
    }

    #[test]
    fn submodules_are_fetched_at_their_commit_and_their_submodules_with_them() {
        let bench = Bench::new(&[("README", "x")]);
        let git = |dir: &Path, args: &[&str]| {
            let output = std::process::Command::new("git")
                .args([
                    "-c",
                    "user.name=a",
                    "-c",
                    "user.email=a@b",
                    "-c",
                    "protocol.file.allow=always",
                ])
                .arg("-C")
                .arg(dir)
                .args(args)
                .env("GIT_CONFIG_GLOBAL", "/dev/null")
                .output()
                .expect("git runs");
            assert!(output.status.success(), "{args:?}: {output:?}");
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        };
        let repository = |name: &str| {
            let dir = bench.at(name);
            fs::create_dir(&dir).expect("made");
            git(&dir, &["init", "-q", "-b", "main"]);
            fs::write(dir.join(name), name).expect("written");
            git(&dir, &["add", "-A"]);
            git(&dir, &["commit", "-q", "-m", name]);
            (dir.clone(), git(&dir, &["rev-parse", "HEAD"]))
        };
        let (inner, _) = repository("inner");
        let (outer, _) = repository("outer");
        let inner = inner.display().to_string();
        git(&outer, &["submodule", "--quiet", "add", &inner, "deep"]);
        git(&outer, &["commit", "-q", "-m", "with a submodule"]);
        let wanted = git(&outer, &["rev-parse", "HEAD"]);
        fs::write(outer.join("later"), "x").expect("written");
        git(&outer, &["add", "-A"]);
        git(&outer, &["commit", "-q", "-m", "later"]);
        let url = format!("file://{}", outer.display());
        let modules = format!("[submodule \"o\"]\n\tpath = lib/outer x\n\turl = {url}\n");
        fs::write(bench.at("result").join("gitmodules"), modules).expect("written");
        let run = |list: &str| {
            fs::write(bench.at("result").join("submodules"), list).expect("written");
            let home = install(&bench.at("packs")).expect("installed");
            let output = std::process::Command::new(home.join("submodules.sh"))
                .args(["build", "result"].map(|name| bench.at(name)))
                .env("MANIFOLD_SUBMODULE_PROTOCOLS", "file")
                .output()
                .expect("bash runs");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            (output.status.success(), text)
        };
        let (is_good, text) = run(&format!("{wanted}\tlib/outer x\n"));
        assert!(is_good, "{text}");
        let built = bench.at("build").join("lib/outer x");
        assert!(built.join("outer").is_file(), "{text}");
        assert!(built.join("deep/inner").is_file(), "{text}");
        assert!(!built.join("later").exists() && !built.join(".git").exists());
        for (list, why) in [
            (format!("{wanted}\t../out\n"), "no path inside"),
            (format!("{wanted}\tother\n"), "no url"),
            (format!("{}\tlib/outer x\n", "1".repeat(40)), "See above"),
        ] {
            let (is_good, text) = run(&list);
            assert!(!is_good && text.contains(why), "{text}");
        }
        assert_eq!(bench.result("submodule"), "lib/outer x\n");
    }

    #[test]
    fn a_python_app_without_requirements_builds_without_network() {
        if !has("/usr/bin/python3") {
            return;
        }
        let bench = Bench::new(&[("requirements.txt", "# none\n\n")]);
        let (status, text) = bench.drive();
        assert_eq!(status, 0, "{text}");
        assert_eq!(bench.result("stage"), "done\n");
        let built = bench.at("build");
        assert!(built.join(".heroku/python/bin/python").exists());
        assert!(built.join(".profile.d/python.sh").is_file());
        let config = fs::read_to_string(built.join(".heroku/python/pyvenv.cfg")).expect("read");
        assert!(config.contains("home = /usr"), "{config}");
    }

    #[test]
    fn buildpacks_from_elsewhere_know_a_stack_of_herokus_and_share_a_directory_with_ours() {
        if !has("/usr/bin/python3") {
            return;
        }
        let bench = Bench::new(&[("requirements.txt", "# none\n")]);
        // As Heroku's do: what is at $HOME while it builds lies in the source.
        let script = "#!/bin/bash\nset -e\nown=$(basename \"$(dirname \"$(dirname \"$0\")\")\")\n\
            echo \"stack $STACK\"; [ -x bin/compile ]\n\
            echo \"cached $(ls -A \"$2\" | tr '\\n' ' ')\"; touch \"$2/$own-$(cat \"$3/TURN\")\"\n\
            [ ! -f \"$3/FAIL\" ] || exit 1\n\
            mkdir -p \"$1/.heroku/$own\" \"$HOME/.heroku\"\n\
            ln -nsf \"$1/.heroku/$own\" \"$HOME/.heroku/$own\"\n\
            echo here >\"$HOME/.heroku/$own/file\"\n\
            ls -d \"$HOME/.heroku/python/bin\" 2>/dev/null || true\n";
        for name in ["first", "last"] {
            let bin = bench.at("uploads").join(name).join("bin");
            fs::create_dir_all(&bin).expect("made");
            for (file, text) in [("detect", "#!/bin/bash\necho Other\n"), ("compile", script)] {
                fs::write(bin.join(file), text).expect("written");
                fs::set_permissions(bin.join(file), Permissions::from_mode(0o755)).expect("set");
            }
        }
        let list = "uploaded first first\nbuiltin python\nuploaded last last\n";
        fs::write(bench.at("result").join("buildpacks"), list).expect("written");
        let turn = |number: &str| {
            fs::write(bench.at("env").join("TURN"), number).expect("written");
            for gone in ["buildpack_0", "buildpack_2"] {
                let _ = fs::remove_dir_all(bench.at(gone));
            }
            bench.drive()
        };
        // What a failed build leaves in their cache is no part of it.
        fs::write(bench.at("env").join("FAIL"), "").expect("written");
        let (status, text) = turn("1");
        assert!(status == 1 && text.contains("cached \n"), "{text}");
        fs::remove_file(bench.at("env").join("FAIL")).expect("removed");
        let (status, text) = turn("2");
        assert!(status == 0 && text.contains("cached \n"), "{text}");
        fs::write(bench.at("env").join("FAIL"), "").expect("written");
        let (status, text) = turn("3");
        assert!(
            status == 1 && text.contains("cached buildpack_0-2 buildpack_2-2 \n"),
            "{text}"
        );
        fs::remove_file(bench.at("env").join("FAIL")).expect("removed");
        let (status, text) = turn("4");
        assert!(
            text.contains("cached buildpack_0-2 buildpack_2-2 \n"),
            "{text}"
        );
        assert_eq!(status, 0, "{text}");
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        if release.contains("VERSION_ID=\"12\"") && release.contains("ID=debian") {
            assert_eq!(text.matches("stack heroku-22\n").count(), 2, "{text}");
        }
        // Ours is seen by those after it, where it is when the app runs.
        assert!(text.ends_with("/.heroku/python/bin\n"), "{text}");
        let built = bench.at("build").join(".heroku");
        assert!(built.join("python/bin/python").exists());
        let own = |index: usize| fs::read_dir(&built).expect("listed").nth(index);
        assert!(own(2).is_some() && own(3).is_none(), "three and no more");
        for entry in fs::read_dir(&built).expect("listed") {
            let entry = entry.expect("read");
            assert!(entry.file_type().expect("known").is_dir(), "{entry:?}");
        }
    }

    #[test]
    fn what_is_kept_comes_back_whole_or_not_at_all() {
        let bench = Bench::new(&[("lock", "1")]);
        fs::create_dir_all(bench.at("build").join("tree/below")).expect("made");
        fs::write(bench.at("build").join("tree/below/file"), "kept").expect("written");
        let run = |script: &str| {
            let prelude = "set -euo pipefail; STACK=s cache_dir=../cache; . \"$1/lib/common.sh\"
                key() { key_of w -- lock missing; }\n";
            let output = bench.bash(&format!("{prelude}{script}"));
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            (output.status.success(), text)
        };
        let kept = "is_kept it \"$(key)\"";
        assert!(!run(kept).0, "nothing is there yet");
        assert!(run("keep it \"$(key)\" . tree").0);
        assert!(run(kept).0);
        assert!(run("rm -rf tree; restore it . tree; [ \"$(cat tree/below/file)\" = kept ]").0);
        for change in ["STACK=other", "echo 2 >lock", "echo x >missing"] {
            assert!(!run(&format!("{change}; {kept}")).0, "{change}");
            fs::write(bench.at("build").join("lock"), "1").expect("written");
            let _ = fs::remove_file(bench.at("build").join("missing"));
        }
        assert!(run(kept).0, "as before");
        // Cut off: nothing half is left.
        let archive = bench.at("cache").join("it.tar");
        let length = fs::metadata(&archive).expect("there").len();
        let file = fs::File::options().write(true).open(&archive);
        file.and_then(|file| file.set_len(length.min(1600)))
            .expect("cut");
        let broken = "rm -rf tree; ! restore it . tree 2>/dev/null; [ ! -e tree ]";
        assert!(run(broken).0);
        // Without room (what is to be kept is missing) no key stays, and that is said.
        let (is_good, text) = run("keep it \"$(key)\" . nothing 2>/dev/null");
        assert!(
            is_good && text.contains(" !     Warning: the build cache"),
            "{text}"
        );
        assert!(!run(kept).0 && !archive.exists());
    }

    #[test]
    fn requirements_are_settled_only_where_the_files_say_all() {
        let check = |text: &str, expected: &str| {
            let bench = Bench::new(&[("requirements.txt", text)]);
            fs::create_dir(bench.at("build").join("more")).expect("made");
            let more = "-c base.txt\nflask\n";
            fs::write(bench.at("build").join("more/dev.txt"), more).expect("written");
            fs::write(bench.at("build").join("more/base.txt"), "\r\n# x\n").expect("written");
            let script = "set -euo pipefail; . \"$1/python/requirements.sh\"
                files=() is_settled=yes
                requirements requirements.txt
                echo \"$is_settled ${files[*]}\"";
            let output = bench.bash(script);
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(said.trim(), expected, "{text:?}: {output:?}");
        };
        let own = "yes requirements.txt";
        check("", own);
        check(
            "flask\n# -e .\nDjango>=4,<5 ; python_version < '3.13'\nx[y]==1.*",
            own,
        );
        check(
            "a==1 \\\n    --hash=sha256:00 \\\n    --hash=sha256:11\r\n",
            own,
        );
        check(
            "--index-url https://${TOKEN}@x.test/simple\na # see https://y.test",
            own,
        );
        check(
            "-r more/dev.txt",
            "yes requirements.txt more/dev.txt more/base.txt",
        );
        check(
            "--requirement=./more/base.txt\n",
            "yes requirements.txt ./more/base.txt",
        );
        for unsettled in [
            "-e .",
            "  .\n",
            "./lib",
            "lib/",
            "a @ git+ssh://x.test/a",
            "git+https://x.test/a@main#egg=a",
            "a-1.whl",
            "--find-links wheels",
            "-r https://x.test/all.txt",
            "-r \\\nmore/dev.txt",
            "-r",
            "--anything-new",
            "-r $HOME/x",
        ] {
            check(unsettled, "no requirements.txt");
        }
        // In a circle.
        let bench = Bench::new(&[("requirements.txt", "-r requirements.txt\n")]);
        let script = ". \"$1/python/requirements.sh\"; files=(); requirements requirements.txt; echo $is_settled";
        assert_eq!(bench.bash(script).stdout, b"no\n");
    }

    #[test]
    fn buildpacks_say_what_is_missing_and_what_to_do() {
        let check = |can_be_tried: bool, files: &[(&str, &str)], is_built: bool, words: &str| {
            if can_be_tried {
                let (status, text) = Bench::new(files).drive();
                assert_eq!(status == 0, is_built, "{text}");
                assert!(text.contains(words), "{text}");
            }
        };
        let lacks = |program: &str| !has(program);
        check(
            has("/usr/bin/python3"),
            &[("Pipfile", "")],
            false,
            " !     Pipfile.lock is missing: run `pipenv lock` and commit it.\n",
        );
        check(
            has("/usr/bin/python3"),
            &[("requirements.txt", ""), (".python-version", "# x\n2.7\n")],
            true,
            " !     The app asks for Python 2.7, which the stack does not have: ",
        );
        check(
            has("node") && has("npm"),
            &[("package.json", "{")],
            false,
            " !     package.json is not valid JSON.\n",
        );
        check(
            lacks("ruby"),
            &[("Gemfile", "")],
            false,
            " !     There is no ruby on the stack host.\n !     On Debian or Ubuntu install the packages ruby, or choose another stack (`manifold stack`), then deploy again.\n",
        );
        check(
            lacks("sbt") && has("java"),
            &[("build.sbt", "")],
            false,
            " !     Commit its launcher script as ./sbt, then deploy again.\n",
        );
    }

    #[test]
    fn the_default_type_of_node_is_npm_start_where_that_can_work() {
        if !has("node") {
            return;
        }
        let release = |files: &[(&str, &str)]| {
            let bench = Bench::new(files);
            let home = install(&bench.at("packs")).expect("installed");
            let output = std::process::Command::new(home.join("nodejs/bin/release"))
                .arg(bench.at("build"))
                .output()
                .expect("bash runs");
            crate::build::release_yaml::Release::parse(&output.stdout)
                .default_process_types
                .into_values()
                .collect::<Vec<_>>()
        };
        let start = ("package.json", r#"{"scripts": {"start": "node x.js"}}"#);
        assert_eq!(release(&[start]), ["npm start"]);
        assert_eq!(
            release(&[("package.json", "{}"), ("server.js", "")]),
            ["npm start"]
        );
        assert!(release(&[("package.json", "{}")]).is_empty());
    }
}
