//! The built-in buildpacks by the public contract: what they detect, whom they call with what, and
//! which process types come of it. Tools are stood in for: they tell how they were called.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::buildpack::install;
use super::release_yaml::Release;

/// An app, and programs that come before the machine's.
struct App {
    dir: tempfile::TempDir,
    packs: PathBuf,
}

impl App {
    /// Files whose contents begin with `#!` are programs.
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["build", "env", "bin", "home", "tmp"] {
            fs::create_dir(dir.path().join(name)).expect("made");
        }
        let packs = install(&dir.path().join("packs")).expect("installed");
        let app = Self { dir, packs };
        for (name, text) in files {
            app.write(&Path::new("build").join(name), text);
        }
        app
    }

    fn with(self, program: &str, script: &str) -> Self {
        self.write(
            &Path::new("bin").join(program),
            &format!("#!/bin/bash\n{script}\n"),
        );
        self
    }

    fn write(&self, name: &Path, text: &str) {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(&path, text).expect("written");
        if text.starts_with("#!") {
            fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("set");
        }
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join("build").join(name)).unwrap_or_default()
    }

    fn run(&self, pack: &str, step: &str) -> Output {
        let at = |name: &str| self.dir.path().join(name);
        Command::new(self.packs.join(pack).join("bin").join(step))
            .args(["build", "cache", "env"].map(at))
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", at("bin").display()))
            .env("HOME", at("home"))
            .env("TMPDIR", at("tmp"))
            .env("LANG", "C.UTF-8")
            .env("STACK", "cedar-12")
            .stdin(Stdio::null())
            .output()
            .expect("bash runs")
    }

    /// What a build by this pack prints; it must succeed.
    fn compile(&self, pack: &str) -> String {
        let output = self.run(pack, "compile");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{output:?}");
        text
    }

    fn types(&self, pack: &str) -> BTreeMap<String, String> {
        let output = self.run(pack, "release");
        assert!(output.status.success(), "{output:?}");
        let types = Release::parse(&output.stdout).default_process_types;
        let types = types.into_iter();
        types
            .map(|(name, command)| (name.to_string(), command))
            .collect()
    }
}

const RAILS: &str = "GEM\n  specs:\n    railties (7.0.4)\n";

#[test]
fn each_language_is_known_by_its_files() {
    let check = |pack: &str, files: &[(&str, &str)], name: Option<&str>| {
        let output = App::new(files).run(pack, "detect");
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let found = output.status.success().then_some(said.as_str());
        assert_eq!(found, name, "{pack} {files:?}");
    };
    check("ruby", &[("Gemfile", "")], Some("Ruby"));
    check(
        "ruby",
        &[("Gemfile", ""), ("config.ru", "")],
        Some("Ruby/Rack"),
    );
    let rails = [("Gemfile", ""), ("Gemfile.lock", RAILS), ("config.ru", "")];
    check("ruby", &rails, Some("Ruby/Rails"));
    check("ruby", &[("config.ru", "")], None);
    check("nodejs", &[("package.json", "{}")], Some("Node.js"));
    check("nodejs", &[("server.js", "")], None);
    let old = "(defproject a \"1\")";
    check("clojure", &[("project.clj", old)], Some("Clojure"));
    let new = "(defproject a \"1\" :min-lein-version \"2.0.0\")";
    check(
        "clojure",
        &[("project.clj", new)],
        Some("Clojure (Leiningen 2)"),
    );
    let off = "(defproject a \"1\" ; :min-lein-version \"2.0.0\"\n)";
    check("clojure", &[("project.clj", off)], Some("Clojure"));
    for file in ["pom.xml", "pom.clj", "pom.scala", "pom.yaml"] {
        check("java", &[(file, "")], Some("Java"));
    }
    check("java", &[("build.xml", "")], None);
    for file in [
        "requirements.txt",
        "uv.lock",
        "poetry.lock",
        "Pipfile",
        "pyproject.toml",
        "setup.py",
        "manage.py",
        "app.py",
        ".python-version",
    ] {
        check("python", &[(file, "")], Some("Python"));
    }
    check("python", &[("app.js", "")], None);
    for file in [
        "build.sbt",
        "project/Build.scala",
        "project/build.properties",
        ".sbtrc",
        "build.sc",
        "build.mill",
    ] {
        check("scala", &[(file, "")], Some("Scala"));
    }
    check("scala", &[("src/Main.scala", "")], None);
}

#[test]
fn rails_and_rack_get_their_commands() {
    let check = |files: &[(&str, &str)], expected: &[(&str, &str)]| {
        let types = App::new(files).types("ruby");
        let types: Vec<_> = types
            .iter()
            .map(|(n, c)| (n.as_str(), c.as_str()))
            .collect();
        assert_eq!(types, expected);
    };
    check(
        &[("Gemfile", ""), ("Gemfile.lock", RAILS)],
        &[
            ("console", "bin/rails console"),
            ("rake", "bundle exec rake"),
            ("web", "bin/rails server -p ${PORT:-5000} -e $RAILS_ENV"),
        ],
    );
    let irb = ("console", "bundle exec irb");
    let rake = ("rake", "bundle exec rake");
    let rackup = ("web", "bundle exec rackup config.ru -p ${PORT:-5000}");
    check(&[("Gemfile", ""), ("config.ru", "")], &[irb, rake, rackup]);
    check(&[("Gemfile", "")], &[irb, rake]);
}

/// A Bundler that has what it is told to have.
const BUNDLER: &str = r#"case $* in
  --version) echo 'Bundler version 2.3.15' ;;
  'exec rake -P') printf 'rake assets:precompile\nrake jobs:work\n' ;;
  *) echo "bundle $* without $BUNDLE_WITHOUT in $RAILS_ENV, key ${SECRET_KEY_BASE:+set}" >>calls ;;
esac"#;

/// A Ruby that answers what the pack asks.
const RUBY: &str = r"case $* in
  *satisfied_by*) exit 1 ;;
  *RUBY_VERSION*) printf 3.1.2 ;;
  *ruby_version*) printf 3.1.0 ;;
esac";

#[test]
fn rails_precompiles_its_assets() {
    let rails = [("Gemfile", ""), ("Gemfile.lock", RAILS), ("Rakefile", "")];
    let app = App::new(&rails).with("bundle", BUNDLER).with("ruby", RUBY);
    let text = app.compile("ruby");
    for line in [
        "-----> Using Ruby 3.1.2 of the stack\n",
        "-----> Installing dependencies using bundler 2.3.15\n",
        "       The stack has every gem of the Gemfile\n",
        "-----> Preparing app for Rails asset pipeline\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
    let calls = app.read("calls");
    let precompile =
        "bundle exec rake assets:precompile without development:test in production, key set\n";
    assert!(calls.contains(precompile), "{calls}");
    assert!(
        app.read(".profile.d/ruby.sh")
            .contains("RAILS_LOG_TO_STDOUT")
    );
    // A Ruby that the stack does not have is refused at once.
    let other = [("Gemfile", "ruby \"2.7.8\"\n"), ("Gemfile.lock", "")];
    let app = App::new(&other).with("bundle", BUNDLER).with("ruby", RUBY);
    let output = app.run("ruby", "compile");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!output.status.success());
    assert!(
        text.contains(" !     The Gemfile asks for Ruby 2.7.8, which"),
        "{text}"
    );
}

#[test]
fn rails_starts_without_credentials_and_keeps_its_secret() {
    let build = |app: App| app.with("bundle", BUNDLER).with("ruby", RUBY);
    let dyno = |app: &App, set: &str| {
        let script = format!("{set} . .profile.d/ruby.sh; echo \"$SECRET_KEY_BASE\"; echo $LANG");
        let output = Command::new("bash")
            .args(["-c", &script])
            .current_dir(app.dir.path().join("build"))
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", "/app")
            .output()
            .expect("bash runs");
        let text = String::from_utf8(output.stdout).expect("text");
        let (secret, lang) = text.trim_end().split_once('\n').expect("two lines");
        // The stacks make no other locale.
        assert_eq!(lang, "C.UTF-8");
        secret.to_owned()
    };
    let rails = [("Gemfile", ""), ("Gemfile.lock", RAILS), ("Rakefile", "")];
    let app = build(App::new(&rails));
    app.compile("ruby");
    let secret = dyno(&app, "");
    let is_hex = secret.bytes().all(|b| b.is_ascii_hexdigit());
    assert!(secret.len() == 128 && is_hex, "{secret}");
    app.compile("ruby");
    assert_eq!(dyno(&app, ""), secret, "sessions outlive a deploy");
    assert_eq!(dyno(&app, "SECRET_KEY_BASE=mine;"), "mine");
    assert_eq!(app.types("ruby")["worker"], "bundle exec rake jobs:work");

    let other = build(App::new(&rails[..2]));
    other.compile("ruby");
    assert_ne!(dyno(&other, ""), secret, "each app has its own");
    assert!(!other.types("ruby").contains_key("worker"), "no such task");
    let rack = build(App::new(&[rails[0], ("Gemfile.lock", "")]));
    rack.write(Path::new("env/secret"), "x");
    rack.compile("ruby");
    assert_eq!(dyno(&rack, ""), "", "only Rails asks for one");
}

/// What the JVM packs ask for.
fn java(app: App) -> App {
    app.with("javac", "echo javac 17.0.15 >&2")
        .with("java", "true")
}

/// Tells how it was called, in a file of the app.
const TELLS: &str = "#!/bin/bash\necho \"$0 $*\" >>calls\necho built\n";

#[test]
fn sbt_stages_by_the_apps_own_launcher_before_the_stacks() {
    let staged = "#!/bin/bash\necho \"$0 $*; $SBT_OPTS\" >>calls\n\
                  mkdir -p target/universal/stage/bin\n: >target/universal/stage/bin/hello\n\
                  : >target/universal/stage/bin/hello.bat\n";
    let app = java(App::new(&[("build.sbt", ""), ("sbt", staged)])).with("sbt", "exit 9");
    let text = app.compile("scala");
    assert!(
        text.contains("-----> Running: sbt compile stage\n"),
        "{text}"
    );
    let calls = app.read("calls");
    assert!(
        calls.starts_with("./sbt compile stage; -Xmx768m"),
        "{calls}"
    );
    let cache = app.dir.path().join("cache/scala");
    let boot = format!("-Dsbt.boot.directory={}/boot", cache.display());
    assert!(calls.contains(&boot), "what it fetches is kept: {calls}");
    let web = "target/universal/stage/bin/hello -Dhttp.port=$PORT";
    assert_eq!(app.types("scala")["web"], web);
    // Other tasks, and the stack's launcher where the app has none.
    let app = java(App::new(&[("build.sbt", "")])).with("sbt", &TELLS[12..]);
    app.write(Path::new("env/SBT_TASKS"), "assembly");
    app.write(Path::new("env/SBT_PRE_TASKS"), "clean");
    app.compile("scala");
    let calls = app.read("calls");
    assert!(calls.ends_with("/bin/sbt clean assembly\n"), "{calls}");
    assert!(app.types("scala").is_empty(), "nothing was staged");
}

#[test]
fn maven_is_the_apps_wrapper_before_the_stacks() {
    let wrapper = [
        ("pom.xml", "<project/>"),
        ("mvnw", TELLS),
        (".mvn/wrapper/maven-wrapper.properties", "x"),
    ];
    let app = java(App::new(&wrapper)).with("mvn", "exit 9");
    let text = app.compile("java");
    assert!(
        text.contains("       $ ./mvnw -DskipTests clean install\n"),
        "{text}"
    );
    let calls = app.read("calls");
    assert!(
        calls.starts_with("./mvnw -B -Dmaven.repo.local="),
        "{calls}"
    );
    assert!(calls.ends_with(" -DskipTests clean install\n"), "{calls}");
    // Half a wrapper is none, and config vars say what is built.
    let app = java(App::new(&wrapper[..2])).with("mvn", &TELLS[12..]);
    app.write(Path::new("env/MAVEN_CUSTOM_GOALS"), "package");
    app.write(Path::new("env/MAVEN_CUSTOM_OPTS"), "-Pfast");
    app.write(
        Path::new("build/system.properties"),
        "java.runtime.version=21\n",
    );
    let text = app.compile("java");
    assert!(text.contains(" !     mvnw is there, but"), "{text}");
    assert!(
        text.contains(" !     system.properties asks for Java 21, which"),
        "{text}"
    );
    let calls = app.read("calls");
    assert!(calls.contains("/bin/mvn -B "), "{calls}");
    assert!(calls.ends_with(" -Pfast package\n"), "{calls}");
}

/// As Debian's script of Leiningen: it names its jar. It fetches one, too.
const LEIN: &str = r#"export LEIN_VERSION="2.10.0"
BIN_DIR="$(dirname "$0")"
LEIN_JAR=HERE/leiningen-$LEIN_VERSION.jar
repository=${LEIN_JVM_OPTS##*-Duser.home=}/.m2/repository
mkdir -p "$repository/a"
[ -e "$repository/a/a.jar" ] || echo "fetched by $0" >"$repository/a/a.jar"
: >"$repository/a/_remote.repositories"
echo "$0 $*" >>calls
echo "$* by $(cat "$LEIN_JAR") with a.jar $(cat "$repository/a/a.jar")""#;

/// The stack's Leiningen.
fn leiningen(app: App) -> App {
    let dir = app.dir.path().display().to_string();
    app.write(Path::new("leiningen-2.10.0.jar"), "the jar");
    app.with("lein", &LEIN.replace("HERE", &dir))
}

#[test]
fn leiningen_makes_what_the_project_names() {
    let check = |project: &str, more: &[(&str, &str)], called: &str, web: &str| {
        let files = [&[("project.clj", project)], more].concat();
        let app = leiningen(java(App::new(&files)));
        app.compile("clojure");
        let calls = app.read("calls");
        assert!(calls.trim_end().ends_with(called), "{calls}");
        assert_eq!(app.types("clojure").get("web").map_or("", |web| web), web);
    };
    let named = "(defproject a \"1\"\n  :uberjar-name \"a.jar\")";
    let jar = ("target/a.jar", "");
    check(
        named,
        &[jar],
        "/bin/lein uberjar",
        "java $JVM_OPTS -jar target/a.jar",
    );
    let in_place = "lein with-profile production trampoline run";
    let all = "/bin/lein with-profile production compile :all";
    check("(defproject a \"1\")", &[], all, in_place);
    check(
        "(defproject a \"1\") ; :uberjar-name \"a.jar\"",
        &[],
        all,
        in_place,
    );
    // The app's own Leiningen, its own build; a Procfile says it all.
    let own = ("bin/lein", TELLS);
    check(
        named,
        &[own, jar, ("Procfile", "web: x\n")],
        "bin/lein uberjar",
        "",
    );
    check(
        named,
        &[("bin/build", TELLS), jar],
        "bin/build",
        "java $JVM_OPTS -jar target/a.jar",
    );
}

#[test]
fn a_jar_is_the_default_where_no_procfile_says_what_runs() {
    let check = |files: &[(&str, &str)], web: &[&str]| {
        let app = App::new(&[&[("target/a.jar", "")], files].concat());
        let unzip = "printf 'Main-Class: A\\n'";
        let types = app.with("unzip", unzip).types("java");
        assert_eq!(types.into_values().collect::<Vec<_>>(), web, "{files:?}");
    };
    check(&[], &["java $JAVA_OPTS -jar target/a.jar"]);
    check(&[("Procfile", "worker: x\n")], &[]);
}

/// What a dyno says that has these files alone: the process's command with start-up files before.
fn dyno(app: &App, command: &str) -> String {
    let home = app.dir.path().join("app");
    fs::rename(app.dir.path().join("build"), &home).expect("moved");
    for gone in ["bin", "cache", "tmp", "leiningen-2.10.0.jar"] {
        let gone = app.dir.path().join(gone);
        let _ = fs::remove_file(&gone).or_else(|_| fs::remove_dir_all(&gone));
    }
    let script = format!(". .profile.d/clojure.sh; {command}");
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(&home)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", &home)
        .output()
        .expect("bash runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn an_app_without_a_jar_brings_the_leiningen_that_built_it() {
    let project = ("project.clj", "(defproject a \"1\")");
    let app = leiningen(java(App::new(&[project])));
    let text = app.compile("clojure");
    assert!(text.contains("-----> Adding Leiningen"), "{text}");
    let built = app.dir.path().join("bin/lein").display().to_string();
    let origin = app
        .dir
        .path()
        .join("build/.m2/repository/a/_remote.repositories");
    assert!(!origin.exists(), "what is there is for all repositories");
    let web = app.types("clojure")["web"].clone();
    let said = format!(
        "with-profile production trampoline run by the jar with a.jar fetched by {built}\n"
    );
    assert_eq!(dyno(&app, &web), said);

    // The app's own comes with what it fetched of itself.
    let own = "#!/bin/bash\nat=$LEIN_HOME/self-installs\n\
               [ -e $at/jar ] || { mkdir -p $at; echo own >$at/jar; }\n\
               echo \"$* by $(cat $at/jar)\"\n";
    let app = java(App::new(&[project, ("bin/lein", own)])).with("lein", "exit 9");
    app.compile("clojure");
    let said = "with-profile production trampoline run by own\n";
    assert_eq!(dyno(&app, &web), said);

    // A jar runs without; unless the app wants to run more by it.
    let jar = [
        (
            "project.clj",
            "(defproject a \"1\" :uberjar-name \"a.jar\")",
        ),
        ("target/a.jar", ""),
    ];
    let app = leiningen(java(App::new(&jar)));
    app.compile("clojure");
    let slug = |app: &App| app.dir.path().join("build/.heroku-lein").exists();
    assert!(!slug(&app), "for nothing");
    app.write(Path::new("env/LEIN_INCLUDE_IN_SLUG"), "yes");
    app.compile("clojure");
    assert!(slug(&app), "it was asked for");

    // One that cannot be put there is said at once.
    let app = java(App::new(&[project])).with("lein", "true");
    let output = app.run("clojure", "compile");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!output.status.success());
    assert!(text.contains(" !     The stack's Leiningen (/"), "{text}");
    assert!(text.contains("its jar is not named"), "{text}");
}
