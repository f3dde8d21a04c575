//! The Procfile: which commands an app declares.
//! Source: Dev Center, "The Procfile"; the platform's contract for odd lines.

use std::collections::BTreeMap;

use crate::model::{COMMAND_BYTES_MAX, PROCESS_TYPES_MAX, ProcessType};

/// Most bytes that are read of a Procfile.
pub(super) const BYTES_MAX: u64 = 256 << 10;

/// Most warnings that are kept; one more says how many are not.
const WARNINGS_MAX: usize = 20;

/// Dyno names of the platform's own, which a process type of that name would be mixed up with.
const RESERVED: &[&str] = &["run", "scheduler", "build"];

/// A parsed Procfile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Procfile {
    /// Command by type.
    pub(super) types: BTreeMap<ProcessType, String>,
    /// What was ignored and why, one line each.
    pub(super) warnings: Vec<String>,
}

impl Procfile {
    /// Parses any bytes; what is no process type is ignored with a warning.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let mut procfile = Self::default();
        let mut unsaid = 0;
        for (number, line) in (1..).zip(text.split('\n')) {
            let Some(warning) = procfile.line(number, line) else {
                continue;
            };
            if procfile.warnings.len() < WARNINGS_MAX {
                procfile.warnings.push(warning);
            } else {
                unsaid += 1;
            }
        }
        if unsaid > 0 {
            let more = format!("Procfile: {unsaid} more lines like these");
            procfile.warnings.push(more);
        }
        procfile
    }

    fn line(&mut self, number: usize, line: &str) -> Option<String> {
        let line = line.trim_end_matches(|c: char| c.is_ascii_whitespace());
        let start = line.trim_start();
        if start.is_empty() || start.starts_with('#') {
            return None;
        }
        let Some((process, command)) = split(line) else {
            let shown: String = line.chars().take(60).collect();
            let shown = shown.escape_debug();
            return Some(format!(
                "Procfile line {number} is not `TYPE: COMMAND` and is ignored: {shown}"
            ));
        };
        if self.types.contains_key(&process) {
            return Some(format!(
                "Procfile line {number} declares `{process}` again and is ignored: the first one counts"
            ));
        }
        if self.types.len() == PROCESS_TYPES_MAX {
            return Some(format!(
                "Procfile line {number} is ignored: too many process types, at most {PROCESS_TYPES_MAX} count"
            ));
        }
        let reserved = RESERVED.contains(&process.as_str());
        let warning = reserved.then(|| {
            format!("Procfile line {number}: the platform's own dynos are called `{process}` too, choose another name")
        });
        self.types.insert(process, command.to_owned());
        warning
    }
}

/// `^([A-Za-z0-9_-]{1,63}):[ \t]*(.+)$`. A command with a NUL byte, or a longer one than the kernel
/// takes, could never be run.
fn split(line: &str) -> Option<(ProcessType, &str)> {
    let (name, command) = line.split_once(':')?;
    let command = command.trim_start_matches([' ', '\t']);
    if command.is_empty() || command.contains('\0') || command.len() > COMMAND_BYTES_MAX {
        return None;
    }
    Some((name.parse().ok()?, command))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, types: &[(&str, &str)], warnings: usize) {
        let procfile = Procfile::parse(text.as_bytes());
        let got: Vec<_> = procfile
            .types
            .iter()
            .map(|(t, c)| (t.as_str(), c.as_str()))
            .collect();
        assert_eq!(got, types, "{text:?}");
        assert_eq!(procfile.warnings.len(), warnings, "{:?}", procfile.warnings);
    }

    #[test]
    fn the_example_of_the_contract_has_three_types() {
        let text = "# comment\n\
            web:    bundle exec puma -C config/puma.rb   # kept as shell text\n\
            worker: env A=b:c ./worker \"x: y\"\n\
            \n\
            release: ./migrate\n\
            not a process line\n\
            web: ignored duplicate\n";
        check(
            text,
            &[
                ("release", "./migrate"),
                (
                    "web",
                    "bundle exec puma -C config/puma.rb   # kept as shell text",
                ),
                ("worker", "env A=b:c ./worker \"x: y\""),
            ],
            2,
        );
        let warnings = Procfile::parse(text.as_bytes()).warnings;
        assert!(warnings[0].contains("line 6"), "{warnings:?}");
        assert!(warnings[1].contains("line 7"), "{warnings:?}");
    }

    #[test]
    fn odd_lines_are_ignored_with_a_warning_and_never_fail() {
        check("", &[], 0);
        check(
            "\u{feff}web: a\r\nworker:b\r\n",
            &[("web", "a"), ("worker", "b")],
            0,
        );
        check("  # indented comment\n\n \t \n", &[], 0);
        check("web bundle exec", &[], 1);
        check(" web : x", &[], 1);
        check(" web: x", &[], 1);
        check("web:", &[], 1);
        check("web: \t ", &[], 1);
        check("web: a\0b", &[], 1);
        check("Web: a\nweb: b", &[("Web", "a"), ("web", "b")], 0);
        check("run: a", &[("run", "a")], 1);
        check(&format!("{}: x", "n".repeat(64)), &[], 1);
        check(&"junk\n".repeat(100), &[], WARNINGS_MAX + 1);
        check(
            &format!("web: {}", "x".repeat(COMMAND_BYTES_MAX + 1)),
            &[],
            1,
        );
    }

    #[test]
    fn types_past_the_bound_are_ignored() {
        let lines: Vec<_> = (0..PROCESS_TYPES_MAX + 3)
            .map(|n| format!("t{n}: x"))
            .collect();
        let text = lines.join("\n");
        let procfile = Procfile::parse(text.as_bytes());
        assert_eq!(procfile.types.len(), PROCESS_TYPES_MAX);
        assert_eq!(procfile.warnings.len(), 3);
    }

    fn render(types: &BTreeMap<ProcessType, String>) -> String {
        let lines: Vec<_> = types.iter().map(|(t, c)| format!("{t}: {c}")).collect();
        lines.join("\n")
    }

    proptest! {
        #[test]
        fn any_bytes_parse(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            Procfile::parse(&bytes);
        }

        #[test]
        fn what_is_rendered_parses_the_same(
            types in proptest::collection::btree_map(
                "[A-Za-z0-9_-]{1,63}", "[!-~]([ -~\u{e4}-\u{ff}]{0,40}[!-~])?", 0..8)
        ) {
            let types: BTreeMap<ProcessType, String> =
                types.into_iter().map(|(t, c)| (t.parse().expect("a type"), c)).collect();
            prop_assert_eq!(Procfile::parse(render(&types).as_bytes()).types, types);
        }
    }
}
