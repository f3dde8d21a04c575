//! How a process's command is started: through bash with the profile scripts, or without a shell
//! where none would do anything.
//!
//! A start of bash costs about as much as all that isolates a dyno. What the contract asks for is
//! that the command runs *as if* by `bash -c` after the scripts, so a command of plain words needs
//! no second bash, and none at all where there are no scripts.

/// Profile scripts in the order of the contract, then the command. The command is no positional
/// parameter while scripts run, and no variable of it reaches the command's own environment.
///
/// Plain words are executed without a second bash, unless the scripts changed what a second one
/// would do: a function of that name, a start-up file, exported shell options, an odd port.
const WRAPPER: &str = r#"__command=$1
shift
__words=("$@")
set --
for __file in /etc/profile.d/*.sh /app/.profile.d/*.sh /app/.profile; do
  if [ -r "$__file" ]; then . "$__file"; fi
done
cd /app || exit 126
if [ -n "${__words-}" ] && [ -z "${BASH_ENV-}" ]; then
  case ${SHELLOPTS@a}${BASHOPTS@a} in *x*) __words=() ;; esac
  case ${__words[*]} in
    *'$PORT'*)
      case ${PORT-} in
        '' | *[!0-9]*) __words=() ;;
        *) __words=("${__words[@]//'$PORT'/$PORT}") ;;
      esac
      ;;
  esac
  if [ -n "${__words-}" ] && ! declare -F -- "$__words" >/dev/null &&
    type -P -- "$__words" >/dev/null; then
    exec -- "${__words[@]}"
  fi
fi
exec /bin/bash -c "$__command""#;

/// Directories whose `*.sh` the wrapper reads, in this order.
pub const PROFILE_DIRS: [&str; 2] = ["/etc/profile.d", "/app/.profile.d"];

/// The last script that it reads.
pub const PROFILE: &str = "/app/.profile";

/// What the wrapper adds to the environment of the command that it executes.
pub const BY_BASH: [&str; 3] = ["PWD=/app", "OLDPWD=/app", "SHLVL=0"];

/// How the words name the port; bash is given no other form.
const PORT: &str = "$PORT";

/// Words that a shell reads otherwise than as a program's name. `true` and `false` are not here:
/// the programs do what the builtins do.
const SHELL_WORDS: &[&str] = &[
    ".",
    ":",
    "[",
    "alias",
    "bg",
    "bind",
    "break",
    "builtin",
    "caller",
    "case",
    "cd",
    "command",
    "compgen",
    "complete",
    "compopt",
    "continue",
    "coproc",
    "declare",
    "dirs",
    "disown",
    "do",
    "done",
    "echo",
    "elif",
    "else",
    "enable",
    "esac",
    "eval",
    "exec",
    "exit",
    "export",
    "fc",
    "fg",
    "fi",
    "for",
    "function",
    "getopts",
    "hash",
    "help",
    "history",
    "if",
    "in",
    "jobs",
    "kill",
    "let",
    "local",
    "logout",
    "mapfile",
    "popd",
    "printf",
    "pushd",
    "pwd",
    "read",
    "readarray",
    "readonly",
    "return",
    "select",
    "set",
    "shift",
    "shopt",
    "source",
    "suspend",
    "test",
    "then",
    "time",
    "times",
    "trap",
    "type",
    "typeset",
    "ulimit",
    "umask",
    "unalias",
    "unset",
    "until",
    "wait",
    "while",
];

/// Exported variables that change what a bash does at its start.
const SHELL_VARIABLES: &[&str] = &["BASH_ENV", "SHELLOPTS", "BASHOPTS", "POSIXLY_CORRECT"];

/// The program and its arguments that run `command` after the profile scripts.
pub fn argv(command: &str) -> Vec<String> {
    let fixed = ["/bin/bash", "-c", WRAPPER, "bash", command].map(str::to_owned);
    fixed
        .into_iter()
        .chain(words(command).unwrap_or_default())
        .collect()
}

/// The words of a command that can be executed as they are when there are no profile scripts, with
/// the port put in. Empty: only a shell knows what this is.
pub fn plain_words(command: &str, env: &[(String, String)]) -> Vec<String> {
    let is_shells = |(name, _): &(String, String)| {
        SHELL_VARIABLES.contains(&name.as_str()) || name.starts_with("BASH_FUNC_")
    };
    if env.iter().any(is_shells) {
        return Vec::new();
    }
    let mut words = words(command).unwrap_or_default();
    if words.iter().any(|word| word.contains(PORT)) {
        let Some((_, port)) = env.iter().find(|(name, _)| name == "PORT") else {
            return Vec::new();
        };
        for word in &mut words {
            *word = word.replace(PORT, port);
        }
    }
    words
}

/// The words of a command without anything that a shell would do something about, but for the port,
/// which is written `$PORT` in them.
fn words(command: &str) -> Option<Vec<String>> {
    let command = command.replace("${PORT}", "\0").replace(PORT, "\0");
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,@%+ \t\0".contains(c);
    if !command.chars().all(is_plain) {
        return None;
    }
    // `$PORTABLE` is another variable.
    let mut after = command.split('\0').skip(1);
    if after.any(|rest| rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')) {
        return None;
    }
    let mut words: Vec<&str> = command.split_ascii_whitespace().collect();
    if words.len() > 1 && words[0] == "exec" {
        words.remove(0);
    }
    let program = words.first()?;
    let is_program = !program.contains(['=', '\0'])
        && !program.starts_with(['-', '%'])
        && !SHELL_WORDS.contains(program);
    is_program.then(|| words.iter().map(|word| word.replace('\0', PORT)).collect())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Output};

    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn plain_commands_are_their_words_and_the_port() {
        let env = env(&[("PORT", "5000"), ("A", "b")]);
        let check = |command: &str, expected: &[&str]| {
            assert_eq!(plain_words(command, &env), expected, "{command:?}");
        };
        check("true", &["true"]);
        check("exec ./serve", &["./serve"]);
        check(
            "bin/rails s -p $PORT\t-e production",
            &["bin/rails", "s", "-p", "5000", "-e", "production"],
        );
        check(
            "gunicorn app:app --bind=0.0.0.0:${PORT}",
            &["gunicorn", "app:app", "--bind=0.0.0.0:5000"],
        );
        for shell in [
            "",
            " ",
            "exec",
            "echo a",
            "cd x",
            "A=b serve",
            "serve $A",
            "serve $PORTABLE",
            "serve ${PORT}A",
            "$PORT",
            "a && b",
            "a; b",
            "a | b",
            "a > b",
            "a 'b c'",
            "a \"b\"",
            "a *",
            "a ?",
            "a ~",
            "a {b,c}",
            "a #b",
            "a !b",
            "a\nb",
            "a \\b",
            "(a)",
            "`a`",
            "$(a)",
            "-c x",
            "exec -a x y",
            "a &",
            "é",
        ] {
            check(shell, &[]);
        }
    }

    #[test]
    fn a_shell_that_would_read_more_than_the_command_is_not_left_out() {
        for name in ["BASH_ENV", "SHELLOPTS", "BASHOPTS", "BASH_FUNC_true%%"] {
            assert!(
                plain_words("true", &env(&[(name, "x")])).is_empty(),
                "{name}"
            );
        }
        assert!(plain_words("serve $PORT", &env(&[])).is_empty());
    }

    /// The wrapper with /app and /etc/profile.d where a test may write.
    fn run(profile: &str, command: &str, vars: &[(&str, &str)]) -> (Output, String) {
        let dir = tempfile::tempdir().expect("a directory");
        let app = std::fs::canonicalize(dir.path())
            .expect("a path")
            .display()
            .to_string();
        let scripts = dir.path().join(".profile.d");
        std::fs::create_dir(&scripts).expect("made");
        std::fs::write(scripts.join("a.sh"), profile).expect("written");
        let argv = argv(command);
        let wrapper = argv[2]
            .replace("/etc/profile.d", "/nowhere")
            .replace("/app", &app);
        let mut bash = Command::new(&argv[0]);
        bash.args([&argv[1], &wrapper]).args(&argv[3..]);
        bash.env_clear()
            .env("PATH", "/usr/bin:/bin")
            .envs(vars.iter().copied());
        let output = bash.output().expect("bash runs");
        (output, app)
    }

    #[test]
    fn the_wrapper_reads_these_scripts_and_no_others() {
        let [host, app] = PROFILE_DIRS;
        let list = format!("for __file in {host}/*.sh {app}/*.sh {PROFILE}; do");
        assert!(WRAPPER.contains(&list), "{list}");
        assert_eq!(WRAPPER.matches(". \"").count(), 1);
    }

    #[test]
    fn the_wrapper_runs_the_command_as_written_and_leaks_nothing() {
        let profile = "export A=\"from profile $#\"; false\n";
        let command = "echo \"$A|$0|$#|${__command-none}|${__words-none}|x: y\"; pwd";
        let (output, app) = run(profile, command, &[]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(
            text,
            format!("from profile 0|/bin/bash|0|none|none|x: y\n{app}\n")
        );
    }

    #[test]
    fn plain_words_find_what_a_second_bash_would_give_them() {
        let sorted = |command: &str| {
            let (output, app) = run("export A=1; B=2\n", command, &[("PORT", "5000")]);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let mut lines: Vec<String> = text
                .lines()
                // The last command, which bash tells its children.
                .filter(|line| !line.starts_with("_="))
                .map(|line| line.replace(&app, "/app"))
                .collect();
            lines.sort();
            lines
        };
        // A quote makes it a matter for a shell.
        assert_eq!(sorted("env"), sorted("'env'"));
        assert_eq!(sorted("env X=$PORT"), sorted("'env' X=$PORT"));
        assert!(sorted("env X=$PORT").contains(&"X=5000".to_owned()));
    }

    #[test]
    fn scripts_may_change_what_the_words_mean() {
        let said = |profile: &str, command: &str| {
            let (output, _) = run(profile, command, &[("PORT", "5000")]);
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        assert_eq!(
            said("env() { echo mine; }; export -f env\n", "env"),
            "mine\n"
        );
        assert_eq!(said("export PORT='1 2'\n", "printenv $PORT PORT"), "1 2\n");
        assert_eq!(said("unset PORT\n", "/bin/echo a $PORT b"), "a b\n");
        assert_eq!(said("export PORT=7\n", "/bin/echo $PORT"), "7\n");
        let (output, _) = run("", "no-such-program", &[]);
        assert_eq!(output.status.code(), Some(127));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            error.contains("no-such-program: command not found"),
            "{error}"
        );
    }
}
