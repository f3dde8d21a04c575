//! `buildpacks/lib/failures.sh` against what the tools really print.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::buildpack::install;

mod locks;

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
fn installers_of_python_say_that_no_room_is_left() {
    let words = ["no room left", "builds:cache:purge"];
    let os = "[Errno 28] No space left on device";
    check(
        "pip",
        &format!("ERROR: Could not install packages due to an OSError: {os}\n"),
        &words,
    );
    check(
        "uv",
        "error: Failed to install: flask-3.1.0-py3-none-any.whl (flask==3.1.0)\n  \
         Caused by: failed to copy file: No space left on device (os error 28)\n",
        &words,
    );
    check("poetry", &format!("  OSError\n\n  {os}\n"), &words);
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

#[test]
fn pip_fails_with_a_cause_and_an_advice() {
    let check = |log: &str, words: &[&str]| check("pip", log, words);
    check(
        "ERROR: Could not find a version that satisfies the requirement flask==99 (from versions: 0.1, 3.1.2)\n\
         ERROR: No matching distribution found for flask==99\n",
        &["published fits flask==99", "Correct it"],
    );
    check(
        "ERROR: Ignored the following versions that require a different python version: 2.3.0 Requires-Python >=3.11\n\
         ERROR: Could not find a version that satisfies the requirement numpy==2.3.0 (from versions: 1.0, 2.2.6)\n\
         ERROR: No matching distribution found for numpy==2.3.0\n",
        &[
            "fits numpy==2.3.0",
            "need another Python than the stack's",
            "`manifold stack`",
        ],
    );
    check(
        "ERROR: Could not find a version that satisfies the requirement flsk (from versions: none)\n\
         ERROR: No matching distribution found for flsk\n",
        &["has no flsk for", "PIP_EXTRA_INDEX_URL"],
    );
    check(
        "WARNING: Retrying (Retry(total=0, connect=None)) after connection broken by 'NewConnectionError('<pip._vendor.urllib3.connection.HTTPConnection object at 0x7f73fcbfd490>: Failed to establish a new connection: [Errno 111] Connection refused')': /simple/flask/\n\
         ERROR: Could not find a version that satisfies the requirement flask (from versions: none)\n\
         ERROR: No matching distribution found for flask\n",
        &["could not be reached", "PIP_INDEX_URL", "try again later"],
    );
    check(
        "ERROR: Could not install packages due to an OSError: HTTPSConnectionPool(host='files.example', port=443): Max retries exceeded with url: /a.whl (Caused by ConnectTimeoutError())\n",
        &["could not be reached"],
    );
    // One that was lost on the way and came then is no reason.
    check(
        "WARNING: Retrying (Retry(total=4)) after connection broken by 'Failed to establish a new connection'\n\
         ERROR: Could not find a version that satisfies the requirement flask==99 (from versions: 0.1)\n\
         ERROR: No matching distribution found for flask==99\n",
        &["published fits flask==99"],
    );
    check(
        "ERROR: Package 'numpy' requires a different Python: 3.11.2 not in '>=3.12'\n",
        &["numpy asks for Python >=3.12", "cedar-12 has 3.11.2"],
    );
    check(
        "ERROR: Invalid requirement: 'flask = 2' (from line 1 of requirements.txt)\n\
         Hint: = is not a valid operator. Did you mean == ?\n",
        &[
            "Line 1 of requirements.txt is no requirement: flask = 2",
            "NAME==VERSION",
        ],
    );
    check(
        "ERROR: Invalid requirement: './nowhere': Expected package name at the start of dependency specifier\n\
         \x20   ./nowhere\n    ^ (from line 3 of /tmp/build_1/more/dev.txt)\n\
         Hint: It looks like a path. File './nowhere' does not exist.\n",
        &[
            "Line 3 of more/dev.txt names the path ./nowhere",
            ".slugignore",
        ],
    );
    check(
        "ERROR: Could not open requirements file: [Errno 2] No such file or directory: 'base.txt'\n",
        &["`base.txt` is named", "commit it"],
    );
    check(
        "ERROR: file:///tmp/build_1/lib does not appear to be a Python project: neither 'setup.py' nor 'pyproject.toml' found.\n",
        &["/lib` is named as a path", "pyproject.toml"],
    );
    check(
        "ERROR: Cannot install -r requirements.txt (line 1) and werkzeug==0.16 because these package versions have conflicting dependencies.\n\
         The conflict is caused by:\n    The user requested werkzeug==0.16\n",
        &["exclude each other", "Loosen one"],
    );
    check(
        "  e.c:1:10: fatal error: libpq-fe.h: No such file or directory\n  compilation terminated.\n\
         error: legacy-install-failure\n",
        &[
            "needs the header libpq-fe.h",
            "cedar-12 does not have",
            "published compiled",
        ],
    );
    check(
        "  Error: pg_config executable not found.\n\n  pg_config is required to build psycopg2 from source.\n",
        &["needs the program pg_config"],
    );
    check(
        "      Package cairo was not found in the pkg-config search path.\n",
        &["needs the library cairo"],
    );
    check(
        "      error: command 'gcc' failed: No such file or directory\n",
        &["needs the program gcc"],
    );
    check(
        "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. If you have updated\n",
        &["the hash of", "--generate-hashes"],
    );
    check("what nobody knows\n", &["Its output above says why"]);
}

#[test]
fn npm_fails_with_a_cause_and_an_advice() {
    let check = |log: &str, words: &[&str]| {
        check("npm", log, words);
        // As versions before 10 wrote it.
        check("npm", &log.replace("npm error", "npm ERR!"), words);
    };
    check(
        "npm error code ETARGET\nnpm error notarget No matching version found for @a/ms@99.0.0.\n\
         npm error notarget In most cases you or one of your dependencies are requesting\n",
        &[
            "fits @a/ms@99.0.0.",
            "`npm view @a/ms versions`",
            "package-lock.json",
        ],
    );
    check(
        "npm error code E404\nnpm error 404 Not Found - GET https://one.example/ms2\n\
         npm error 404\nnpm error 404  The requested resource 'ms2@1' could not be found or you do not have permission to access it.\n",
        &["has no ms2@1,", "_authToken=${NPM_TOKEN}"],
    );
    check(
        "npm error code E404\nnpm error 404  'ms2@1' is not in this registry.\n",
        &["has no ms2@1,"],
    );
    check(
        "npm error code ENOTFOUND\nnpm error syscall getaddrinfo\n\
         npm error network request to https://one.example/ms failed, reason: getaddrinfo ENOTFOUND one.example\n",
        &[
            "registry https://one.example could not be reached (ENOTFOUND)",
            "NPM_CONFIG_REGISTRY",
        ],
    );
    check(
        "npm error code ECONNREFUSED\nnpm error FetchError: request to http://127.0.0.1:1/ms failed, reason: connect ECONNREFUSED 127.0.0.1:1\n",
        &["http://127.0.0.1:1 could not be reached (ECONNREFUSED)"],
    );
    check(
        "npm error code E401\nnpm error Incorrect or missing password.\n",
        &["(E401)", ".npmrc"],
    );
    check(
        "npm error code EUSAGE\nnpm error\n\
         npm error `npm ci` can only install packages when your package.json and package-lock.json or npm-shrinkwrap.json are in sync. Please update your lock file with `npm install` before continuing.\n\
         npm error\nnpm error Invalid: lock file's ms@2.1.3 does not satisfy ms@2.1.2\n",
        &["is not that of package.json", "commit both"],
    );
    check(
        "npm error code EUSAGE\nnpm error The `npm ci` command can only install with an existing package-lock.json or\n\
         npm error npm-shrinkwrap.json with lockfileVersion >= 1.\n",
        &["package-lock.json cannot be read"],
    );
    check(
        "npm error code EBADENGINE\nnpm error engine Unsupported engine\n\
         npm error engine Not compatible with your version of node/npm: a@1.0.0\n\
         npm error notsup Not compatible with your version of node/npm: a@1.0.0\n\
         npm error notsup Required: {\"node\":\"99\"}\n\
         npm error notsup Actual:   {\"node\":\"v20.20.2\",\"npm\":\"11.19.1\"}\n",
        &[
            "a@1.0.0 asks for {\"node\":\"99\"}, and gets {\"node\":\"v20.20.2\"",
            "engines.node",
        ],
    );
    check(
        "npm error code ERESOLVE\nnpm error ERESOLVE could not resolve\nnpm error Could not resolve dependency:\n",
        &["exclude each other", "legacy-peer-deps"],
    );
    check(
        "../src/x.cc:1:10: fatal error: vips/vips8: No such file or directory\ngyp ERR! build error\n\
         npm error code 1\nnpm error path /tmp/build_1/node_modules/sharp\nnpm error command failed\n",
        &["needs the header vips/vips8"],
    );
    check(
        "npm error code 1\nnpm error path /tmp/build_1/node_modules/@a/sharp\nnpm error command failed\n\
         npm error command sh -c node install.js\n",
        &["install script of @a/sharp failed"],
    );
    check(
        "npm error code EINTEGRITY\nnpm error sha512-x integrity checksum failed when using sha512\n",
        &["checksum of", "builds:cache:purge"],
    );
    check("what nobody knows\n", &["Its output above says why"]);
}

#[test]
fn bundler_fails_with_a_cause_and_an_advice() {
    let check = |log: &str, words: &[&str]| check("bundler", log, words);
    check(
        "Fetching gem metadata from https://one.example/...\n\
         Could not find gem 'sinatra (= 99.0)' in rubygems repository https://one.example/ or\ninstalled locally.\n",
        &["has sinatra (= 99.0):", "Gemfile"],
    );
    check(
        "Could not find greet-1.0.0 in any of the sources\n",
        &["has greet-1.0.0:"],
    );
    check(
        "Could not reach host one.example. Check your network connection and try again.\n",
        &["one.example could not be reached", "try again later"],
    );
    check(
        "Could not fetch specs from https://one.example/ due to underlying error <Errno::ECONNREFUSED: x>\n",
        &["https://one.example/ could not be reached"],
    );
    for log in [
        "You are trying to install in deployment mode after changing\nyour Gemfile. Run `bundle install` elsewhere\n",
        "The dependencies in your gemfile changed, but the lockfile can't be updated because frozen mode is set\n",
        "The gemspecs for path gems changed, but the lockfile can't be updated because frozen mode is set\n",
    ] {
        check(log, &["is not that of the Gemfile", "commit both"]);
    }
    check(
        "Your bundle only supports platforms [\"x86_64-darwin-22\"] but your local platform is x86_64-linux. Add the current platform\n",
        &[
            "no gems for x86_64-linux",
            "bundle lock --add-platform x86_64-linux",
        ],
    );
    check(
        "Your Ruby version is 3.1.2, but your Gemfile specified ~> 3.3\n",
        &["asks for Ruby ~> 3.3", "cedar-12 has 3.1.2"],
    );
    check(
        "nokogiri-1.18.0 requires ruby version >= 3.2, which is incompatible with the current version, ruby 3.1.2p20\n",
        &["nokogiri-1.18.0 asks for Ruby >= 3.2", "has 3.1.2."],
    );
    check(
        "Your bundle is locked to a (1.0.0) from rubygems repository https://one.example/ or installed locally, but that version can no longer be found in that source.\n",
        &["names a (1.0.0), which", "`bundle update a`"],
    );
    check(
        "Bundler could not find compatible versions for gem \"rack\":\n  In Gemfile:\n",
        &["exclude each other"],
    );
    check(
        "[!] There was an error parsing `Gemfile`: syntax error, unexpected end-of-input. Bundler cannot continue.\n",
        &["cannot read the Gemfile"],
    );
    check(
        "Authentication is required for gems.example.com.\nPlease supply credentials for this source.\n",
        &[
            "gems.example.com let us not in",
            "BUNDLE_GEMS__EXAMPLE__COM=",
        ],
    );
    check(
        "Gem::Ext::BuildError: ERROR: Failed to build gem native extension.\n\
         checking for pg_config... no\nchecking for libpq-fe.h... no\nCan't find the 'libpq-fe.h header\n\
         *** extconf.rb failed ***\n\
         An error occurred while installing pg (1.4.5), and Bundler cannot continue.\n",
        &["needs the header libpq-fe.h", "cedar-12"],
    );
    check("yaml.h not found\n", &["needs the header yaml.h"]);
    check(
        "An error occurred while installing pg (1.4.5), and Bundler cannot continue.\n",
        &["pg (1.4.5) could not be installed"],
    );
    check("what nobody knows\n", &["Its output above says why"]);
}
