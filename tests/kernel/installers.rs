//! The installers that lock files choose, each in a real build dyno with real packages.
//!
//! The first deploy of an app fetches the installer itself, too; the second one has it all in the
//! cache.

use std::path::Path;
use std::process::Command;

use libtest_mimic::{Failed, Trial};

use crate::build::{NETWORK, write};
use crate::host::{Host, check, contains};

/// Set where the slow ones are wanted, too; see `languages`.
const STACKS: &str = "MANIFOLD_TEST_STACKS";

/// What a dyno of the release runs, to see that the package is there.
const PYTHON: &str =
    "python -c 'import itsdangerous as i, sys; print(i.Signer(\"k\").sign(\"x\"), sys.prefix)'";
const PYTHON_SAYS: &str = "b'x.";
const NODE: &str = "node -e 'console.log(require(\"ms\")(\"2 days\"), process.version)'";
const NODE_SAYS: &str = "172800000 v";

/// An app, how it is built and what its dynos then can do.
struct Case {
    name: &'static str,
    /// Who makes the lock file, if it is not among the files.
    locked_by: Option<&'static str>,
    files: &'static [(&'static str, &'static str)],
    /// In the output of the first build.
    first: &'static str,
    /// In that of the second one, of the same files.
    second: &'static str,
    run: &'static str,
    says: &'static str,
}

/// The cases of this file.
pub(crate) fn cases() -> Vec<Trial> {
    let is_closed = std::env::var_os(NETWORK).is_none();
    let is_short = is_closed || std::env::var_os(STACKS).is_none();
    vec![
        Trial::test("installers::pnpm_installs_what_is_locked", || all(&[PNPM]))
            .with_ignored_flag(is_closed),
        Trial::test(
            "installers::django_collects_its_files_with_what_uv_installed",
            || all(&[DJANGO_BY_UV]),
        )
        .with_ignored_flag(is_closed),
        Trial::test("installers::the_others_install_what_is_locked", || {
            all(&[
                UV,
                UV_IN_PLACE,
                POETRY,
                PIPENV,
                PROJECT,
                DJANGO,
                DJANGO_BY_POETRY,
                DJANGO_BY_PIPENV,
                YARN,
                ENGINE,
            ])
        })
        .with_ignored_flag(is_short),
    ]
}

fn all(cases: &[Case]) -> Result<(), Failed> {
    let host = Host::start()?;
    let mut failures = String::new();
    for case in cases {
        // All are tried: one run shows every one that fails.
        if let Err(error) = one(&host, case) {
            let error = error.message().unwrap_or("failed").to_owned();
            failures.extend([case.name, ": ", &error, "\n"]);
        }
    }
    check(failures.is_empty(), failures)
}

fn one(host: &Host, case: &Case) -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    write(dir.path(), case.files)?;
    if let Some(tool) = case.locked_by {
        lock(dir.path(), tool)?;
    }
    let path = dir.path().display().to_string();
    host.ok(&["create", case.name])?;
    for words in [case.first, case.second] {
        let output = host.cli(&["deploy", &path, "-a", case.name]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        check(output.status.success(), text.clone())?;
        contains(&text, words)?;
        let said = host.ok(&["run", "-a", case.name, "--", "bash", "-c", case.run])?;
        contains(&said, case.says)?;
    }
    Ok(())
}

/// Lock files that name the package index, which differs from place to place, are made here; where
/// pip finds it, so do they.
fn lock(app: &Path, tool: &str) -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let script = "set -e
        /usr/bin/python3 -m venv \"$1\"
        \"$1/bin/pip\" install --quiet --disable-pip-version-check \"$2\"
        index=$(\"$1/bin/python\" -c 'from pip._internal.models.index import PyPI; print(PyPI.simple_url)')
        for file in pyproject.toml Pipfile; do
          [ ! -f $file ] || sed -i \"s#INDEX#${PIP_INDEX_URL:-$index}#\" $file
        done
        \"$1/bin/$2\" lock --quiet";
    let output = Command::new("bash")
        .args(["-c", script, "-"])
        .arg(dir.path().join("venv"))
        .arg(tool)
        .current_dir(app)
        .env("UV_CACHE_DIR", dir.path().join("cache"))
        .env("POETRY_CACHE_DIR", dir.path().join("cache"))
        .env("UV_PYTHON", "/usr/bin/python3")
        .output()?;
    check(output.status.success(), format!("{output:?}"))
}

const PROCFILE: (&str, &str) = ("Procfile", "worker: sleep 1000\n");

const NO_CHANGE: &str = "-----> No change in requirements detected, installing from cache\n";

const UV: Case = Case {
    name: "by-uv",
    locked_by: Some("uv"),
    files: &[
        PROCFILE,
        (
            "pyproject.toml",
            "[project]\nname = \"hello\"\nversion = \"1\"\nrequires-python = \">=3.9\"\n\
             dependencies = [\"itsdangerous==2.2.0\"]\n",
        ),
    ],
    first: "-----> Installing dependencies with uv (uv.lock)\n",
    second: NO_CHANGE,
    run: PYTHON,
    says: PYTHON_SAYS,
};

const POETRY: Case = Case {
    name: "by-poetry",
    locked_by: Some("poetry"),
    files: &[
        PROCFILE,
        (
            "pyproject.toml",
            "[tool.poetry]\npackage-mode = false\n\n\
             [tool.poetry.dependencies]\npython = \">=3.9\"\nitsdangerous = \"2.2.0\"\n\n\
             [[tool.poetry.source]]\nname = \"index\"\nurl = \"INDEX\"\npriority = \"primary\"\n",
        ),
    ],
    first: "-----> Installing dependencies with poetry (poetry.lock)\n",
    second: NO_CHANGE,
    run: PYTHON,
    says: PYTHON_SAYS,
};

const PIPENV: Case = Case {
    name: "by-pipenv",
    locked_by: None,
    files: &[
        PROCFILE,
        ("Pipfile", "[packages]\nitsdangerous = \"==2.2.0\"\n"),
        (
            "Pipfile.lock",
            "{\"_meta\": {\"hash\": {\"sha256\": \"426c121f5f9a04907f2bdb8d8038ad00c4f6de9dc7bcbedcd63c077ff26a3870\"},\n\
             \"pipfile-spec\": 6, \"requires\": {}, \"sources\": []},\n\
             \"default\": {\"itsdangerous\": {\"hashes\": [\n\
             \"sha256:c6242fc49e35958c8b15141343aa660db5fc54d4f13a1db01a3f5891b98700ef\",\n\
             \"sha256:e0050c0b7da1eea53ffaf149c0cfbb5c6e2e2b69c4bef22c81fa6eb73e5f6173\"],\n\
             \"version\": \"==2.2.0\"}}, \"develop\": {}}\n",
        ),
    ],
    first: "-----> Installing dependencies with pipenv (Pipfile.lock)\n",
    second: NO_CHANGE,
    run: PYTHON,
    says: PYTHON_SAYS,
};

/// Installed in place: what the build calls by its own path is below `/app` later.
const UV_IN_PLACE: Case = Case {
    name: "by-uv-in-place",
    locked_by: Some("uv"),
    files: &[
        PROCFILE,
        (
            "pyproject.toml",
            "[build-system]\nrequires = [\"setuptools\"]\nbuild-backend = \"setuptools.build_meta\"\n\
             [project]\nname = \"hello\"\nversion = \"1\"\nrequires-python = \">=3.9\"\n",
        ),
        (
            "src/hello/__init__.py",
            "WORDS = 'hello from ' + __file__\n",
        ),
    ],
    first: "-----> Installing dependencies with uv (uv.lock)\n",
    second: "-----> Restoring cache\n",
    run: "python -c 'import hello; print(hello.WORDS)'",
    says: "hello from /app/src/hello/__init__.py",
};

/// `pip install .` has to see the source each time.
const PROJECT: Case = Case {
    name: "by-project",
    locked_by: None,
    files: &[
        PROCFILE,
        (
            "pyproject.toml",
            "[build-system]\nrequires = [\"setuptools\"]\nbuild-backend = \"setuptools.build_meta\"\n\
             [project]\nname = \"hello\"\nversion = \"1\"\ndependencies = [\"itsdangerous==2.2.0\"]\n\
             [tool.setuptools]\npy-modules = [\"hello\"]\n",
        ),
        ("hello.py", "WORDS = 'hello'\n"),
    ],
    first: "-----> Installing the project with pip (pyproject.toml)\n",
    second: "-----> Installing the project with pip (pyproject.toml)\n",
    run: PYTHON,
    says: PYTHON_SAYS,
};

const MANAGE: (&str, &str) = (
    "manage.py",
    "import os, sys\nfrom django.core.management import execute_from_command_line\n\
     os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'settings')\n\
     execute_from_command_line(sys.argv)\n",
);

const SETTINGS: (&str, &str) = (
    "settings.py",
    "import os\nSECRET_KEY = 'x'\nINSTALLED_APPS = ['django.contrib.staticfiles']\n\
     STATIC_URL = 'static/'\nSTATIC_ROOT = 'collected'\nSTATICFILES_DIRS = ['assets']\n",
);

const ASSET: (&str, &str) = ("assets/hello.css", "p { color: red }\n");

const COLLECTED: &str = "       1 static file copied to '";
const SERVED: &str =
    "python -c 'import django; print(django.__version__)' && cat collected/hello.css";
const DJANGO_SAYS: &str = "4.2.16\np { color: red }";

/// Its static files are collected; without a change nothing is installed for that.
const DJANGO: Case = Case {
    name: "by-pip-django",
    locked_by: None,
    files: &[
        PROCFILE,
        ("requirements.txt", "Django==4.2.16\n"),
        MANAGE,
        SETTINGS,
        ASSET,
    ],
    first: COLLECTED,
    second: NO_CHANGE,
    run: SERVED,
    says: DJANGO_SAYS,
};

const DJANGO_BY_UV: Case = Case {
    name: "by-uv-django",
    locked_by: Some("uv"),
    files: &[
        PROCFILE,
        (
            "pyproject.toml",
            "[project]\nname = \"hello\"\nversion = \"1\"\nrequires-python = \">=3.9\"\n\
             dependencies = [\"django==4.2.16\"]\n",
        ),
        MANAGE,
        SETTINGS,
        ASSET,
    ],
    ..DJANGO
};

const DJANGO_BY_POETRY: Case = Case {
    name: "by-poetry-django",
    locked_by: Some("poetry"),
    files: &[
        PROCFILE,
        (
            "pyproject.toml",
            "[tool.poetry]\npackage-mode = false\n\n\
             [tool.poetry.dependencies]\npython = \">=3.9\"\ndjango = \"4.2.16\"\n\n\
             [[tool.poetry.source]]\nname = \"index\"\nurl = \"INDEX\"\npriority = \"primary\"\n",
        ),
        MANAGE,
        SETTINGS,
        ASSET,
    ],
    ..DJANGO
};

const DJANGO_BY_PIPENV: Case = Case {
    name: "by-pipenv-django",
    locked_by: Some("pipenv"),
    files: &[
        PROCFILE,
        (
            "Pipfile",
            "[[source]]\nname = \"index\"\nurl = \"INDEX\"\nverify_ssl = true\n\n\
             [packages]\ndjango = \"==4.2.16\"\n",
        ),
        MANAGE,
        SETTINGS,
        ASSET,
    ],
    ..DJANGO
};

const PNPM: Case = Case {
    name: "by-pnpm",
    locked_by: None,
    files: &[
        (
            "package.json",
            "{\"name\": \"hello\", \"dependencies\": {\"ms\": \"2.1.3\"}, \"packageManager\": \"pnpm@9.15.9\"}\n",
        ),
        (
            "pnpm-lock.yaml",
            "lockfileVersion: '9.0'\n\nsettings:\n  autoInstallPeers: true\n  excludeLinksFromLockfile: false\n\n\
             importers:\n\n  .:\n    dependencies:\n      ms:\n        specifier: 2.1.3\n        version: 2.1.3\n\n\
             packages:\n\n  ms@2.1.3:\n    resolution: {integrity: sha512-6FlzubTLZG3J2a/NVCAleEhjzq5oxgHyaCU9yYXvcLsvoVaHJq/s5xXI6/XXP6tz7R9xAOtHnSO/tXtF3WRTlA==}\n\n\
             snapshots:\n\n  ms@2.1.3: {}\n",
        ),
    ],
    first: "       Installing node modules (pnpm-lock.yaml)\n",
    second: " and pnpm 9.15.9\n",
    run: NODE,
    says: NODE_SAYS,
};

const YARN: Case = Case {
    name: "by-yarn",
    locked_by: None,
    files: &[
        (
            "package.json",
            "{\"name\": \"hello\", \"dependencies\": {\"ms\": \"2.1.3\"}}\n",
        ),
        (
            "yarn.lock",
            "# THIS IS AN AUTOGENERATED FILE. DO NOT EDIT THIS FILE DIRECTLY.\n# yarn lockfile v1\n\n\n\
             ms@2.1.3:\n  version \"2.1.3\"\n  integrity sha512-6FlzubTLZG3J2a/NVCAleEhjzq5oxgHyaCU9yYXvcLsvoVaHJq/s5xXI6/XXP6tz7R9xAOtHnSO/tXtF3WRTlA==\n",
        ),
    ],
    first: "       Installing node modules (yarn.lock)\n",
    second: " and yarn 1.",
    run: NODE,
    says: NODE_SAYS,
};

/// A version of node that no stack has.
const ENGINE: Case = Case {
    name: "by-engine",
    locked_by: None,
    files: &[
        (
            "package.json",
            "{\"name\": \"hello\", \"dependencies\": {\"ms\": \"2.1.3\"}, \"engines\": {\"node\": \"22.11.0\"}}\n",
        ),
        (
            "package-lock.json",
            "{\"name\": \"hello\", \"lockfileVersion\": 3, \"requires\": true, \"packages\": {\n\
             \"\": {\"name\": \"hello\", \"dependencies\": {\"ms\": \"2.1.3\"}, \"engines\": {\"node\": \"22.11.0\"}},\n\
             \"node_modules/ms\": {\"version\": \"2.1.3\", \"integrity\": \"sha512-6FlzubTLZG3J2a/NVCAleEhjzq5oxgHyaCU9yYXvcLsvoVaHJq/s5xXI6/XXP6tz7R9xAOtHnSO/tXtF3WRTlA==\"}}}\n",
        ),
    ],
    first: "       Using node v22.11.0 and npm ",
    second: "       No change in package-lock.json detected, installing from cache\n",
    run: NODE,
    says: "172800000 v22.11.0",
};
