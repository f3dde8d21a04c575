//! What `bin/release` prints: the small part of YAML that buildpacks use.
//!
//! Parsed by hand on purpose: values are texts (`LEIN_NO_DEV: yes` must not become `true`,
//! `PATH: bin:/usr/bin` is one text), and old buildpacks print things no YAML parser takes.
//! Source: Dev Center, "Buildpack API", "bin/release"; the forms seen in Heroku's buildpacks.

use std::collections::BTreeMap;

use crate::model::ProcessType;

/// Most bytes that are read of a buildpack's release file.
pub(super) const BYTES_MAX: u64 = 64 << 10;

/// What a buildpack says about the app.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Release {
    /// Commands of types that the Procfile does not declare.
    pub(super) default_process_types: BTreeMap<ProcessType, String>,
    /// Config vars it asks for (historic).
    pub(super) config_vars: BTreeMap<String, String>,
}

impl Release {
    /// Parses any bytes; what is not understood is skipped.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let mut release = Self::default();
        let mut section = String::new();
        for line in text.lines() {
            let line = line.trim_end();
            let indented = line.starts_with([' ', '\t']);
            let line = line.trim_start();
            if line.is_empty() || line.starts_with('#') || line == "---" || line == "..." {
                continue;
            }
            if indented {
                release.entry(&section, line);
            } else if let Some((key, value)) = split(line) {
                section = key;
                for entry in flow(&value) {
                    release.entry(&section, &entry);
                }
            }
        }
        release
    }

    /// Lays what a later buildpack says over it: types are all of the last one that has some.
    pub(super) fn extend(&mut self, later: Self) {
        if !later.default_process_types.is_empty() {
            self.default_process_types = later.default_process_types;
        }
        self.config_vars.extend(later.config_vars);
    }

    fn entry(&mut self, section: &str, line: &str) {
        let Some((key, value)) = split(line) else {
            return;
        };
        let value = unquote(&value);
        if value.is_empty() || value.contains('\0') {
            return;
        }
        match section {
            "default_process_types" => {
                if let Ok(process) = key.parse() {
                    self.default_process_types.insert(process, value);
                }
            }
            "config_vars" => {
                self.config_vars.insert(key, value);
            }
            _ => {}
        }
    }
}

/// `KEY: VALUE` at the first colon that ends a word; keys may be quoted.
fn split(line: &str) -> Option<(String, String)> {
    let mut from = 0;
    while let Some(at) = line[from..].find(':') {
        let at = from + at;
        let rest = &line[at + 1..];
        if rest.is_empty() || rest.starts_with([' ', '\t']) {
            let key = unquote(line[..at].trim());
            // Ruby's symbols: `:web: ...`.
            let key = key.strip_prefix(':').unwrap_or(&key).to_owned();
            return Some((key, rest.trim().to_owned()));
        }
        from = at + 1;
    }
    None
}

/// The entries of `{a: b, c: d}`. Commas inside quotes do not separate.
fn flow(value: &str) -> Vec<String> {
    let Some(inner) = value.strip_prefix('{').and_then(|v| v.strip_suffix('}')) else {
        return Vec::new();
    };
    let (mut entries, mut entry, mut quote) = (Vec::new(), String::new(), None);
    for c in inner.chars() {
        match (quote, c) {
            (None, ',') => {
                entries.push(std::mem::take(&mut entry).trim().to_owned());
                continue;
            }
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), _) if open == c => quote = None,
            _ => {}
        }
        entry.push(c);
    }
    entries.push(entry.trim().to_owned());
    entries
}

/// A value wholly in quotes loses them; anything else is kept as it is.
fn unquote(value: &str) -> String {
    let inside = |q: char| {
        value
            .strip_prefix(q)
            .and_then(|v| v.strip_suffix(q))
            .filter(|v| q == '\'' || !v.ends_with('\\'))
    };
    if let Some(text) = inside('\'') {
        return text.replace("''", "'");
    }
    let Some(text) = inside('"') else {
        return value.to_owned();
    };
    let (mut out, mut escaped) = (String::new(), false);
    for c in text.chars() {
        match (escaped, c) {
            (false, '\\') => escaped = true,
            (true, 'n') => {
                out.push('\n');
                escaped = false;
            }
            (true, 't') => {
                out.push('\t');
                escaped = false;
            }
            _ => {
                out.push(c);
                escaped = false;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, types: &[(&str, &str)], vars: &[(&str, &str)]) {
        let release = Release::parse(text.as_bytes());
        let got: Vec<_> = release
            .default_process_types
            .iter()
            .map(|(t, c)| (t.as_str(), c.as_str()))
            .collect();
        assert_eq!(got, types, "{text:?}");
        let got: Vec<_> = release
            .config_vars
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect();
        assert_eq!(got, vars, "{text:?}");
    }

    #[test]
    fn every_form_that_buildpacks_print_is_read() {
        check("", &[], &[]);
        check("---\n", &[], &[]);
        check("---\naddons: []\ndefault_process_types: {}\n", &[], &[]);
        check("config_vars:\ndefault_process_types:\n", &[], &[]);
        check(
            "---\naddons:\n  - heroku-postgresql:dev\ndefault_process_types:\n  web: npm start\n",
            &[("web", "npm start")],
            &[],
        );
        check(
            "addons:\n  heroku-postgresql:dev\ndefault_process_types:\n  web: x\n",
            &[("web", "x")],
            &[],
        );
        check(
            "config_vars:\n  LEIN_NO_DEV: yes\n  PATH: bin:node_modules/.bin:/usr/local/bin:/usr/bin:/bin\n",
            &[],
            &[
                ("LEIN_NO_DEV", "yes"),
                ("PATH", "bin:node_modules/.bin:/usr/local/bin:/usr/bin:/bin"),
            ],
        );
        check(
            "default_process_types:\n  web: target/start -Dhttp.port=$PORT $JAVA_OPTS \n  console: \"bundle exec \\\"irb\\\"\"\n  rake: 'it''s'\n",
            &[
                ("console", "bundle exec \"irb\""),
                ("rake", "it's"),
                ("web", "target/start -Dhttp.port=$PORT $JAVA_OPTS"),
            ],
            &[],
        );
        check(
            "default_process_types: {web: \"a, b\", worker: c}\r\n",
            &[("web", "a, b"), ("worker", "c")],
            &[],
        );
        check(
            "default_process_types:\n  web: java -jar \"a b.jar\"\n  bad type: x\n",
            &[("web", "java -jar \"a b.jar\"")],
            &[],
        );
        check("addons:\n  db: x\n  web: y\n", &[], &[]);
    }

    proptest! {
        #[test]
        fn any_bytes_parse(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            Release::parse(&bytes);
        }

        #[test]
        fn plain_commands_are_kept(command in "[a-z./][a-zA-Z0-9 .:=$/-]{0,40}[a-z]") {
            let release = Release::parse(format!("default_process_types:\n  web: {command}\n").as_bytes());
            prop_assert_eq!(release.default_process_types.get(&ProcessType::web()), Some(&command));
        }
    }
}
