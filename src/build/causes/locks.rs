//! The installers that go by lock files of their own: uv, Poetry, Pipenv, Yarn and pnpm.

use super::check;

#[test]
fn uv_fails_with_a_cause_and_an_advice() {
    let check = |log: &str, words: &[&str]| check("uv", log, words);
    check(
        "Resolved 2 packages in 741ms\n\
         error: The lockfile at `uv.lock` needs to be updated, but `--locked` was provided.\n\n\
         hint: To update the lockfile, run `uv lock`.\n",
        &["not that of pyproject.toml", "`uv lock`"],
    );
    check(
        "error: Failed to parse `uv.lock`\n  cause: TOML parse error at line 24, column 9\n",
        &["uv.lock cannot be read"],
    );
    check(
        "error: Failed to parse: pyproject.toml\n  cause: TOML parse error at line 6, column 5\n",
        &["pyproject.toml cannot be read"],
    );
    check(
        "Using CPython 3.11.7 interpreter at: .venv/bin/python\n\
         error: The requested interpreter resolved to Python 3.11.7, which is incompatible with the project's Python requirement: `>=3.13` (from `project.requires-python`)\n",
        &[
            "asks for Python >=3.13; the stack cedar-12 has 3.11.7",
            "requires-python",
        ],
    );
    check(
        "error: Failed to download `itsdangerous==2.2.0`\n  cause: Hash mismatch for `itsdangerous==2.2.0`\n",
        &[
            "itsdangerous==2.2.0 is not the one",
            "--upgrade-package itsdangerous`",
        ],
    );
    let download = |why: &str| {
        format!(
            "Resolved 2 packages in 2ms\nerror: Failed to download `itsdangerous==2.2.0`\n  cause: {why}\n\
             hint: `itsdangerous` (v2.2.0) was included because `hello` (v1) depends on `itsdangerous`\n"
        )
    };
    check(
        &download(
            "Failed to fetch: https://one.example/a.whl\n  cause: HTTP status client error (404 Not Found) for url (https://one.example/a.whl)",
        ),
        &["has no itsdangerous==2.2.0 any more", "uv lock --upgrade"],
    );
    check(
        &download(
            "Failed to fetch: https://one.example/a.whl\n  cause: HTTP status client error (401 Unauthorized) for url (https://one.example/a.whl)",
        ),
        &["let us not in (401)", "UV_INDEX_NAME_PASSWORD"],
    );
    check(
        &download(
            "Request failed after 3 retries in 6.1s\n  cause: Failed to fetch: https://127.0.0.1:1/a.whl\n\
             \x20 cause: error sending request for url (https://127.0.0.1:1/a.whl)\n  cause: client error (Connect)\n\
             \x20 cause: tcp connect error\n  cause: Connection refused (os error 111)",
        ),
        &["itsdangerous==2.2.0 was not fetched", "Try again later"],
    );
    check(
        "error: No solution found when resolving dependencies\n\
         \x20 cause: Because there is no version of itsdangerous==99 and your project depends on itsdangerous==99, we can conclude that your project's requirements are unsatisfiable.\n",
        &[
            "Because there is no version of itsdangerous==99",
            "`uv lock`",
        ],
    );
    check(
        "error: Failed to generate package metadata for `hello2==1 @ directory+h`\n  cause: Distribution not found at: file:///tmp/build_1/h\n",
        &["`h` is named as a path", ".gitignore"],
    );
    let build = "   Building hello2 @ file:///tmp/build_1/h\nerror: Failed to build `hello2 @ file:///tmp/build_1/h`\n\
                 \x20 cause: The build backend returned an error\n";
    check(
        &format!("{build}         x.c:1:10: fatal error: nothere.h: No such file or directory\n"),
        &["the header nothere.h"],
    );
    check(build, &["hello2 @ file:///tmp/build_1/h is built here"]);
    check(
        "ERROR: Could not find a version that satisfies the requirement uv (from versions: none)\n\
         ERROR: No matching distribution found for uv\n",
        &["uv itself could not be fetched", "PIP_INDEX_URL"],
    );
    check("what nobody knows\n", &["Its output above says why"]);
}

#[test]
fn poetry_fails_with_a_cause_and_an_advice() {
    let check = |log: &str, words: &[&str]| {
        let log = format!("Installing dependencies from lock file\n\n{log}\n");
        check("poetry", &log, words);
    };
    check(
        "pyproject.toml changed significantly since poetry.lock was last generated. Run `poetry lock` to fix the lock file.",
        &["not that of pyproject.toml", "`poetry lock`"],
    );
    check(
        "The lock file is not compatible with the current version of Poetry.\n\
         Upgrade Poetry to be able to read the lock file or, alternatively, regenerate the lock file with the `poetry lock` command.",
        &["of a newer Poetry", "builds:cache:purge"],
    );
    check(
        "Invalid statement (at line 24, column 1)",
        &["poetry.lock cannot be read (line 24)"],
    );
    check(
        "Invalid TOML file /tmp/build_1/pyproject.toml: Unexpected character: '=' at line 7 col 4",
        &["`pyproject.toml` cannot be read"],
    );
    check(
        "Current Python version (3.11.7) is not allowed by the project (>=3.14).\n\
         Poetry cannot switch to a compatible Python version because virtualenv creation is disabled.",
        &["asks for Python >=3.14; the stack cedar-12 has 3.11.7"],
    );
    let one = "Package operations: 1 install, 0 updates, 0 removals\n\n  - Installing itsdangerous (2.2.0)\n";
    let none = "\n    | Unable to find installation candidates for itsdangerous (2.2.77)\n    | \n    | This is likely not a Poetry issue.\n";
    check(
        &format!("{one}{none}"),
        &["has no itsdangerous 2.2.77", "poetry update itsdangerous"],
    );
    check(
        &format!(
            "{one}Source (index): Authorization error accessing http://one.example/simple/itsdangerous/\n{none}"
        ),
        &[
            "let us not in (http://one.example/simple/itsdangerous/)",
            "POETRY_HTTP_BASIC_NAME_PASSWORD",
        ],
    );
    check(
        &format!("{one}\n    | All attempts to connect to no.such.example failed.\n    | \n"),
        &["no.such.example could not be reached", "Try again later"],
    );
    check(
        &format!(
            "{one}\n    | Downloaded distributions for itsdangerous (2.2.0) did not match any known checksums in your lock file.\n"
        ),
        &["itsdangerous 2.2.0 is not the one", "--regenerate"],
    );
    check(
        "Path /tmp/build_1/h for hello2 does not exist",
        &["`h` is the path of hello2", ".slugignore"],
    );
    let build = "PEP517 build of a dependency failed\n\nBackend subprocess exited when trying to invoke build_wheel\n";
    let whose = "\nNote: This error originates from the build backend, and is likely not a problem with poetry but one of the following issues with hello2 (1 /tmp/build_1/h)\n";
    check(
        &format!(
            "{build}    | x.c:1:10: fatal error: nothere.h: No such file or directory\n{whose}"
        ),
        &["the header nothere.h"],
    );
    check(&format!("{build}{whose}"), &["hello2 is built here"]);
    check(
        "ERROR: No matching distribution found for poetry",
        &["poetry itself could not be fetched"],
    );
    check("what nobody knows", &["Its output above says why"]);
}

#[test]
fn pipenv_fails_with_a_cause_and_an_advice() {
    let check = |log: &str, words: &[&str]| check("pipenv", log, words);
    check(
        "json.decoder.JSONDecodeError: Expecting property name enclosed in double quotes: line 2 column 1 (char 14)\n\n\
         The above exception was the direct cause of the following exception:\n\n\
         pipenv.utils.exceptions.LockfileCorruptException: ERROR: Failed to load lockfile at /tmp/build_1/Pipfile.lock\n\
         Your lockfile is corrupt, it will be removed and replaced on the next lock.\n",
        &["Pipenv", "Pipfile.lock cannot be read", "`pipenv lock`"],
    );
    check(
        "    raise suffixed_err(src, pos, \"Invalid value\")\n\
         tomllib.TOMLDecodeError: Invalid value (at line 1, column 5)\n",
        &["Pipfile cannot be read"],
    );
    check(
        "ERROR: No matching distribution found for pipenv\n",
        &["pipenv itself could not be fetched"],
    );
    // The packages themselves are pip's.
    check(
        "ERROR: Could not find a version that satisfies the requirement itsdangerous==99 (from versions: 0.1, 2.2.0)\n\
         ERROR: No matching distribution found for itsdangerous==99\n",
        &["with pip", "fits itsdangerous==99"],
    );
}

#[test]
fn yarn_fails_with_a_cause_and_an_advice() {
    // The first, and those from the second on.
    let both = |classic: &str, modern: &str, words: &[&str]| {
        let classic = format!(
            "yarn install v1.22.22\n[1/4] Resolving packages...\n{classic}\n\
             info Visit https://one.example/en/docs/cli/install for documentation about this command.\n"
        );
        check("yarn", &classic, words);
        let modern = format!(
            "➤ YN0000: · Yarn 4.18.1\n➤ YN0000: ┌ Resolution step\n{modern}\n➤ YN0000: └ Completed\n\
             ➤ YN0000: · Failed with errors in 0s 109ms\n"
        );
        check("yarn", &modern, words);
    };
    both(
        "error Your lockfile needs to be updated, but yarn was run with `--frozen-lockfile`.",
        "➤ YN0028: │ -    ms: \"npm:2.1.3\"\n➤ YN0028: │ +    ms: \"npm:2.1.2\"\n\
         ➤ YN0028: │ The lockfile would have been modified by this install, which is explicitly forbidden.",
        &["yarn.lock is not that of package.json", "commit both"],
    );
    both(
        "error SyntaxError: Unknown token: { line: 6, col: 1, type: 'INVALID', value: undefined } 6:1 in /tmp/build_1/yarn.lock",
        "➤ YN0047: Cannot autofix a lockfile when running an immutable install",
        &["yarn.lock cannot be read"],
    );
    both(
        "error Couldn't find package \"ms-none\" on the \"npm\" registry.",
        "➤ YN0035: │ ms-none@npm:1: Package not found\n➤ YN0035: │   Response Code: 404 (Not Found)",
        &["has no ms-none", "NPM_TOKEN"],
    );
    both(
        "error Couldn't find any versions for \"ms\" that matches \"99.0.0\"",
        "➤ YN0082: │ ms@npm:99.0.0: No candidates found",
        &["fits ms@", "99.0.0."],
    );
    both(
        "error Error: http://one.example/ms/-/ms-2.1.3.tgz: Request failed \"401 Unauthorized\"",
        "➤ YN0041: │ ms@npm:2.1.3: Invalid authentication (as an anonymous user)",
        &["let us not in", "token"],
    );
    both(
        "error Error: connect ECONNREFUSED 127.0.0.1:1\n    at TCPConnectWrap.afterConnect [as oncomplete] (node:net:1611:16)",
        "➤ YN0001: │ RequestError: connect ECONNREFUSED 127.0.0.1:1",
        &["could not be reached (ECONNREFUSED)", "try again later"],
    );
    both(
        "info There appears to be trouble with your network connection. Retrying...\n\
         error Error: getaddrinfo ENOTFOUND no.such.example",
        "➤ YN0001: │ RequestError: getaddrinfo ENOTFOUND no.such.example",
        &["could not be reached (ENOTFOUND)"],
    );
    both(
        "$ exit 3\nerror Command failed with exit code 3.",
        "➤ YN0007: │ hello@workspace:. must be built because it never has been before or the last one failed\n\
         ➤ YN0009: │ hello@workspace:. couldn't be built successfully (exit code 3, logs can be found here: /tmp/xfs-5606c6c9/build.log)",
        &["The install script of ", " failed"],
    );
    let check = |log: &str, words: &[&str]| check("yarn", log, words);
    check(
        "error hello@1.0.0: The engine \"node\" is incompatible with this module. Expected version \"^4\". Got \"20.20.2\"\n\
         error Found incompatible module.\n",
        &[
            "hello@1.0.0 asks for node ^4, and gets 20.20.2",
            "engines.node",
        ],
    );
    check(
        "error SyntaxError: /tmp/build_1/package.json: Expected double-quoted property name in JSON at position 63\n",
        &["package.json is not valid JSON"],
    );
    check(
        "➤ YN0018: │ ms@npm:2.1.3: The remote archive doesn't match the expected checksum\n",
        &["ms@npm:2.1.3 is not the one", "builds:cache:purge"],
    );
    check("what nobody knows\n", &["Its output above says why"]);
}

#[test]
fn pnpm_fails_with_a_cause_and_an_advice() {
    let check = |log: &str, words: &[&str]| check("pnpm", log, words);
    check(
        " ERR_PNPM_OUTDATED_LOCKFILE  Cannot install with \"frozen-lockfile\" because pnpm-lock.yaml is not up to date with <ROOT>/package.json\n",
        &["pnpm-lock.yaml is not that of package.json"],
    );
    check(
        " ERR_PNPM_NO_LOCKFILE  Cannot install with \"frozen-lockfile\" because pnpm-lock.yaml is absent\n",
        &["pnpm-lock.yaml is missing"],
    );
    // Of 9, then of 10.
    for other in [
        " WARN  Ignoring not compatible lockfile at /tmp/build_1/pnpm-lock.yaml\n\
         \x20ERR_PNPM_NO_LOCKFILE  Cannot install with \"frozen-lockfile\" because pnpm-lock.yaml is absent\n",
        " ERR_PNPM_LOCKFILE_BREAKING_CHANGE  Lockfile /tmp/build_1/pnpm-lock.yaml not compatible with current pnpm\n",
    ] {
        check(other, &["of another pnpm", "packageManager"]);
    }
    check(
        " ERR_PNPM_BROKEN_LOCKFILE  The lockfile at \"/tmp/build_1/pnpm-lock.yaml\" is broken: can not read a block mapping entry; a multiline key may not be an implicit key (24:1)\n",
        &["pnpm-lock.yaml cannot be read"],
    );
    check(
        " ERR_PNPM_FETCH_404  GET https://one.example/ms/-/ms-2.1.77.tgz: Not Found - 404\n\n\
         No authorization header was set for the request.\n",
        &["has no https://one.example/ms/-/ms-2.1.77.tgz"],
    );
    check(
        " ERR_PNPM_FETCH_404  GET https://one.example/ms-none: Not Found - 404\n\n\
         This error happened while installing a direct dependency of /tmp/build_1\n\n\
         ms-none is not in the npm registry, or you have no permission to fetch it.\n",
        &["has no ms-none,", "NPM_TOKEN"],
    );
    check(
        " ERR_PNPM_FETCH_401  GET http://one.example/ms/-/ms-2.1.3.tgz: Unauthorized - 401\n",
        &["let us not in (401)"],
    );
    check(
        " ERR_PNPM_TARBALL_INTEGRITY  Got unexpected checksum for \"https://one.example/ms/-/ms-2.1.3.tgz\". Wanted \"sha512-6FlA\". Got \"sha512-6Flz\".\n",
        &["ms-2.1.3.tgz is not the one", "builds:cache:purge"],
    );
    check(
        " ERR_PNPM_UNSUPPORTED_ENGINE  Unsupported environment (bad pnpm and/or Node.js version)\n\n\
         Your Node version is incompatible with \"/tmp/build_1\".\n\nExpected version: ^4\nGot: v20.20.2\n",
        &["The app asks for node ^4, and gets 20.20.2", "engines.node"],
    );
    check(
        " ECONNREFUSED  request to http://127.0.0.1:1/ms/-/ms-2.1.3.tgz failed, reason: connect ECONNREFUSED 127.0.0.1:1\n",
        &["could not be reached (ECONNREFUSED)"],
    );
    check(
        "> hello@1.0.0 postinstall /tmp/build_1\n> echo why; exit 3\n\nwhy\n ELIFECYCLE  Command failed with exit code 3.\n",
        &["An install script failed"],
    );
    check("what nobody knows\n", &["Its output above says why"]);
}
