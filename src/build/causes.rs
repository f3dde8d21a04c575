//! `buildpacks/lib/failures.sh` against what the tools really print.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::buildpack::install;

/// What is said of a tool's log. The stack is `cedar-12` with Java 17, the build at `/tmp/build_1`.
fn said(tool: &str, log: &str) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let packs = install(&dir.path().join("packs")).expect("installed");
    let bin = dir.path().join("bin");
    fs::create_dir(&bin).expect("made");
    let javac = bin.join("javac");
    fs::write(&javac, "#!/bin/sh\necho javac 17.0.15\n").expect("written");
    fs::set_permissions(&javac, fs::Permissions::from_mode(0o755)).expect("set");
    let path = dir.path().join("log");
    fs::write(&path, log).expect("written");
    let script = "set -euo pipefail
        build_dir=/tmp/build_1
        . \"$1/lib/common.sh\"
        . \"$1/lib/failures.sh\"
        \"$2_failed\" \"$3\"";
    let output = std::process::Command::new("bash")
        .args(["-c", script, "-"])
        .args([packs.as_os_str(), tool.as_ref(), path.as_os_str()])
        .env_clear()
        .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
        .env("LANG", "C.UTF-8")
        .env("STACK", "cedar-12")
        .env("TMPDIR", dir.path())
        .output()
        .expect("bash runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// The tool's name, then the words that have to be there; each line is one of the platform's.
fn check(tool: &str, log: &str, words: &[&str]) {
    let text = said(tool, log);
    assert!(
        text.lines().all(|line| line.starts_with(" !     ")),
        "{text}"
    );
    assert!(text.lines().count() >= 2, "what and why: {text}");
    for word in words {
        assert!(text.contains(word), "`{word}` is not in:\n{text}");
    }
}

#[test]
fn leiningen_fails_with_a_cause_and_an_advice() {
    let check = |log: &str, words: &[&str]| check("leiningen", log, words);
    check(
        "Could not find artifact ring:ring-core:jar:99.9 in central (https://one.example/)\n\
         Could not find artifact ring:ring-core:jar:99.9 in clojars (https://two.example/)\n\
         This could be due to a typo in :dependencies, file system permissions, or network issues.\n\
         Uberjar aborting because jar failed: Could not resolve dependencies\n",
        &["has ring:ring-core:jar:99.9.", ":repositories"],
    );
    check(
        "Could not transfer artifact a:b:pom:1 from/to central (https://one.example/): Name or service not known\n",
        &["could not be reached: a:b:pom:1", "Try again later"],
    );
    check(
        "Compiling web.core\n\
         Syntax error compiling at (web/core.clj:5:3).\n\
         Unable to resolve symbol: prinln in this context\n\
         Compilation failed: Subprocess failed (exit code: 1)\n",
        &["web/core.clj:5:3 does not compile"],
    );
    check(
        "Syntax error (FileNotFoundException) compiling at (web/core.clj:1:1).\n\
         Could not locate ring/adapter/jetty__init.class, ring/adapter/jetty.clj or ring/adapter/jetty.cljc on classpath.\n",
        &["no namespace ring.adapter.jetty on", ":dependencies"],
    );
    check(
        "'ubjar' is not a task. See 'lein help'.\n\nDid you mean this?\n         uberjar\n",
        &["no task `ubjar`", "LEIN_BUILD_TASK"],
    );
    check(
        "Syntax error reading source at (/tmp/build_1/project.clj:4:1).\nEOF while reading, starting at line 1\n",
        &["cannot read project.clj"],
    );
    check(
        "java.lang.OutOfMemoryError: Java heap space\n",
        &["out of memory", "config:set LEIN_JVM_OPTS="],
    );
    check("what nobody knows\n", &["Its output above says why"]);
}

#[test]
fn sbt_fails_with_a_cause_and_an_advice() {
    let check = |log: &str, words: &[&str]| check("sbt", log, words);
    check(
        "[error] Not a valid command: stage (similar: last, set, get)\n\
         [error] Not a valid project ID: stage\n\
         [error] Expected ':'\n\
         [error] Not a valid key: stage (similar: state, target, tags)\n\
         [error] stage\n[error]      ^\n",
        &["no task `stage`", "sbt-native-packager"],
    );
    check(
        "[error] Not a valid command: dist\n",
        &["no task `dist`", "SBT_TASKS"],
    );
    check(
        "[error] (update) sbt.librarymanagement.ResolveException: Error downloading org.http4s:http4s-core_2.13:99.0\n\
         [error]   Not found\n[error]   not found: https://one.example/http4s-core_2.13-99.0.pom\n",
        &["has org.http4s:http4s-core_2.13:99.0,", "scalaVersion"],
    );
    check(
        "[error] (*:update) sbt.ResolveException: unresolved dependency: org.foo#bar_2.10;1.0: not found\n",
        &["has org.foo#bar_2.10;1.0,"],
    );
    check(
        "[error] Web.scala:3: Web is already defined as object Web\n\
         [error] one error found\n",
        &["builds:cache:purge"],
    );
    check(
        "[error] /tmp/build_1/src/main/scala/Web.scala:3:12: not found: value x\n\
         [error] one error found\n\
         [error] (Compile / compileIncremental) Compilation failed\n",
        &["do not compile"],
    );
    check(
        "[error] scala.reflect.internal.MissingRequirementError: object java.lang.Object in compiler mirror not found.\n",
        &["Java 17", "scalaVersion"],
    );
    check("what nobody knows\n", &["Its output above says why"]);
}

#[test]
fn mill_fails_with_a_cause_and_an_advice() {
    let check = |log: &str, words: &[&str]| check("mill", log, words);
    check(
        "Compiling /tmp/build_1/build.sc\n\
         scala.reflect.internal.FatalError: \n  bad constant pool index: 0 at pos: 48474\n\
         \x20    while compiling: <no file>\n    compiler version: version 2.13.8\n",
        &["Mill or Scala", "Java 17", "another stack"],
    );
    check(
        "Cannot resolve __.nothing. Try `mill resolve _` to see what's available.\n",
        &["no task `__.nothing`", "MILL_TASK"],
    );
    check(
        "Compiling /tmp/build_1/build.sc\n1 targets failed\nweb.resolvedIvyDeps \n\
         Resolution failed for 1 modules:\n--------------------------------------------\n\
         \x20 javax.servlet:javax.servlet-api:9.9.9 \n\
         \tnot found: https://one.example/javax.servlet-api-9.9.9.pom\n",
        &["has javax.servlet:javax.servlet-api:9.9.9,", "scalaVersion"],
    );
    check(
        "/tmp/build_1/build.sc:8:8 expected id\nobject {\n       ^\n",
        &["the build at build.sc:8:8"],
    );
    check(
        "[info] compiling 1 Scala source to /tmp/build_1/out/web/compile.dest/classes ...\n\
         [error] /tmp/build_1/web/src/Hello.scala:16:12: value joint is not a member of Server\n\
         [error] one error found\n1 targets failed\nweb.compile Compilation failed\n",
        &["do not compile"],
    );
    check("what nobody knows\n", &["Its output above says why"]);
}

#[test]
fn maven_fails_with_a_cause_and_an_advice() {
    let check = |log: &str, words: &[&str]| check("maven", log, words);
    check(
        "[ERROR] Failed to execute goal on project a: Could not resolve dependencies for project g:a:jar:1: \
         Could not find artifact no.such:lib:jar:9 in central (https://one.example/maven2) -> [Help 1]\n",
        &["has no.such:lib:jar:9.", "settings.xml"],
    );
    check(
        "[ERROR] Plugin org.apache.maven.plugins:maven-clean-plugin:2.5 or one of its dependencies could not be resolved: \
         Failed to read artifact descriptor for org.apache.maven.plugins:maven-clean-plugin:jar:2.5: \
         Could not transfer artifact org.apache.maven.plugins:maven-clean-plugin:pom:2.5 from/to central (https://one.example/maven2): \
         transfer failed for https://one.example/maven2/maven-clean-plugin-2.5.pom: Unknown host one.example: Name or service not known -> [Help 1]\n",
        &[
            "did not let us in: org.apache.maven.plugins:maven-clean-plugin:pom:2.5",
            "try again later",
        ],
    );
    // What is only a parent's is no fault of the file itself.
    check(
        "[ERROR] [ERROR] Some problems were encountered while processing the POMs:\n\
         [ERROR] The build could not read 1 project -> [Help 1]\n\
         [ERROR]   The project no.such:a:9 (/tmp/build_1/pom.xml) has 1 error\n\
         [ERROR]     Non-resolvable parent POM for no.such:a:9: Could not transfer artifact no.such:parent:pom:9 from/to central\n",
        &["no.such:parent:pom:9 was not fetched"],
    );
    check(
        "[ERROR] [ERROR] Some problems were encountered while processing the POMs:\n\
         [ERROR] The build could not read 1 project -> [Help 1]\n\
         [ERROR]   The project  (/tmp/build_1/pom.xml) has 1 error\n\
         [ERROR]     Non-parseable POM /tmp/build_1/pom.xml: end tag name </project> must be the same as start tag <groupId> from line 1\n",
        &["cannot read pom.xml", "mvn validate"],
    );
    check(
        "[ERROR] Unknown lifecycle phase \"cleen\". You must specify a valid lifecycle phase or a goal\n",
        &["no goal `cleen`", "MAVEN_CUSTOM_GOALS"],
    );
    check(
        "[ERROR] No plugin found for prefix 'foo' in the current project and in the plugin groups [a, b]\n",
        &["no goal `foo`"],
    );
    check(
        "[WARNING] Could not transfer metadata org.codehaus.mojo/maven-metadata.xml from/to central: Unknown host\n\
         [ERROR] No plugin found for prefix 'foo' in the current project and in the plugin groups [a, b]\n",
        &["org.codehaus.mojo/maven-metadata.xml was not fetched"],
    );
    check(
        "[ERROR] COMPILATION ERROR : \n\
         [ERROR] /tmp/build_1/src/main/java/A.java:[1,18] ';' expected\n\
         [ERROR] Failed to execute goal maven-compiler-plugin:3.11.0:compile (default-compile) on project a: Compilation failure\n",
        &["do not compile with the stack's Java 17"],
    );
    check(
        "[ERROR] Failed to execute goal maven-compiler-plugin:3.11.0:compile (default-compile) on project a: \
         Fatal error compiling: error: release version 21 not supported -> [Help 1]\n",
        &[
            "asks for Java 21; the stack cedar-12 has Java 17",
            "maven.compiler.release",
        ],
    );
    check(
        "[ERROR] COMPILATION ERROR : \n[ERROR] Source option 5 is no longer supported. Use 7 or later.\n",
        &["asks for Java 5,", "to 7 or later"],
    );
    check("what nobody knows\n", &["Its output above says why"]);
}

#[test]
fn collectstatic_fails_with_a_cause_and_an_advice() {
    let check = |log: &str, words: &[&str]| {
        let log =
            format!("Traceback (most recent call last):\n  File \"manage.py\", line 22\n{log}\n");
        check("collectstatic", &log, words);
        check(
            "collectstatic",
            &log,
            &["config:set DISABLE_COLLECTSTATIC=1"],
        );
    };
    check(
        "django.core.exceptions.ImproperlyConfigured: You're using the staticfiles app without having set the STATIC_ROOT setting to a filesystem path.",
        &["STATIC_ROOT = BASE_DIR / \"staticfiles\""],
    );
    check(
        "  File \"<frozen os>\", line 679, in __getitem__\nKeyError: 'API_KEY'",
        &["read `API_KEY`", "config:set API_KEY=..."],
    );
    check(
        "django.core.exceptions.ImproperlyConfigured: Set the DATABASE_URL environment variable",
        &["config:set DATABASE_URL=..."],
    );
    check(
        "decouple.UndefinedValueError: API_KEY not found. Declare it as envvar or define a default value.",
        &["config:set API_KEY=..."],
    );
    check(
        "django.core.exceptions.ImproperlyConfigured: The SECRET_KEY setting must not be empty.",
        &["config:set SECRET_KEY=..."],
    );
    check(
        "ModuleNotFoundError: No module named 'corsheaders'",
        &["no `corsheaders`", "requirements.txt"],
    );
    check(
        "FileNotFoundError: [Errno 2] No such file or directory: '/tmp/build_1/assets'",
        &["`assets` is missing", "no empty directories"],
    );
    check(
        "whitenoise.storage.MissingFileError: The file 'no.png' could not be found with <whitenoise.storage.CompressedManifestStaticFilesStorage object at 0x7ff7af994b10>.",
        &["refers to `no.png`"],
    );
    check(
        "django.db.utils.OperationalError: connection to server at \"127.0.0.1\", port 1 failed: Connection refused\n\tIs the server running on that host and accepting TCP/IP connections?",
        &["use the database"],
    );
    check(
        "  File \"/tmp/build_1/site1/settings.py\", line 124\n    x = = 1\n        ^\nSyntaxError: invalid syntax",
        &["no Python of this version: invalid syntax"],
    );
    check(
        "django.core.exceptions.ImproperlyConfigured: Something else.",
        &["ImproperlyConfigured: Something else."],
    );
    check("Killed", &["See the traceback above"]);
}
