//! Where Debian packages of a fresh root come from: this host's own apt sources.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Debian's own entries among the host's apt sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sources {
    /// The release they are for, such as `bookworm`.
    pub(crate) suite: String,
    /// Entries in the one-line format.
    one_line: String,
    /// Entries in the deb822 format.
    stanzas: String,
}

impl Sources {
    /// Reads `/etc/os-release` and `/etc/apt`.
    pub(crate) fn of_host() -> Result<Self> {
        let release =
            fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
        let suite = release
            .lines()
            .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
            .context("/etc/os-release has no VERSION_CODENAME: this is for Debian")?
            .trim_matches('"')
            .to_owned();
        let sources = Self::read(Path::new("/etc/apt"), suite)?;
        ensure!(
            !(sources.one_line.is_empty() && sources.stanzas.is_empty()),
            "no apt source of {} with component main in /etc/apt",
            sources.suite
        );
        Ok(sources)
    }

    fn read(apt: &Path, suite: String) -> Result<Self> {
        let mut files = vec![apt.join("sources.list")];
        if let Ok(entries) = fs::read_dir(apt.join("sources.list.d")) {
            files.extend(entries.flatten().map(|entry| entry.path()));
        }
        files.sort();
        let mut sources = Self {
            suite,
            one_line: String::new(),
            stanzas: String::new(),
        };
        for file in files.iter().filter(|file| file.is_file()) {
            let text = fs::read_to_string(file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            match file.extension().and_then(|e| e.to_str()) {
                Some("list") => sources.take_lines(&text),
                Some("sources") => sources.take_stanzas(&text),
                // apt does not read others either.
                _ => {}
            }
        }
        Ok(sources)
    }

    /// Third-party sources name other suites, or no component `main`.
    fn is_debian<'a>(
        &self,
        mut suites: impl Iterator<Item = &'a str>,
        mut components: impl Iterator<Item = &'a str>,
    ) -> bool {
        let ours = ["", "-updates", "-security"].map(|tail| format!("{}{tail}", self.suite));
        suites.any(|suite| ours.iter().any(|own| own == suite)) && components.any(|c| c == "main")
    }

    fn take_lines(&mut self, text: &str) {
        for line in text.lines() {
            let mut rest = line.trim();
            let Some(after) = rest.strip_prefix("deb ") else {
                continue;
            };
            rest = after.trim_start();
            if rest.starts_with('[') {
                rest = rest.split_once(']').map_or("", |(_, rest)| rest);
            }
            let words: Vec<_> = rest.split_whitespace().collect();
            let (suite, components) = (words.get(1), words.iter().skip(2));
            if self.is_debian(suite.into_iter().copied(), components.copied()) {
                let _ = writeln!(self.one_line, "{}", line.trim());
            }
        }
    }

    fn take_stanzas(&mut self, text: &str) {
        for stanza in text.split("\n\n") {
            let lines: Vec<_> = stanza.lines().filter(|l| !l.starts_with('#')).collect();
            let field = |name: &str| {
                lines
                    .iter()
                    .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                    .unwrap_or_default()
            };
            let enabled = field("Enabled").trim() != "no";
            let deb = field("Types").split_whitespace().any(|word| word == "deb");
            let suites = field("Suites").split_whitespace();
            let components = field("Components").split_whitespace();
            if enabled && deb && self.is_debian(suites, components) {
                let _ = writeln!(self.stanzas, "{}\n", lines.join("\n"));
            }
        }
    }

    /// Writes them into `dir`, as files that mmdebstrap takes for its mirrors.
    pub(crate) fn write(&self, dir: &Path) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for (name, text) in [
            ("host.list", &self.one_line),
            ("host.sources", &self.stanzas),
        ] {
            if text.is_empty() {
                continue;
            }
            let file = dir.join(name);
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
            files.push(file);
        }
        Ok(files)
    }
}

/// `--aptopt` arguments that hand the host's proxy on: mmdebstrap starts with an apt of its own.
pub(crate) fn proxy() -> Vec<String> {
    let mut options = Vec::new();
    for key in ["Acquire::http::Proxy", "Acquire::https::Proxy"] {
        let output = Command::new("apt-config")
            .args(["shell", "PROXY", key])
            .output();
        let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
        let value = text.unwrap_or_default();
        if let Some(value) = value.trim().strip_prefix("PROXY=") {
            options.push(format!("--aptopt={key} \"{}\"", value.trim_matches('\'')));
        }
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> Sources {
        let dir = tempfile::tempdir().expect("a directory");
        let parts = dir.path().join("sources.list.d");
        fs::create_dir(&parts).expect("a directory");
        for (name, text) in files {
            fs::write(parts.join(name), text).expect("a file");
        }
        Sources::read(dir.path(), "bookworm".to_owned()).expect("sources")
    }

    #[test]
    fn only_debian_s_own_entries_are_taken() {
        let sources = read(&[
            (
                "a.list",
                "deb [signed-by=/k] http://m.test/debian bookworm main contrib\n# deb http://m.test x main\ndeb-src http://m.test/debian bookworm main\n",
            ),
            (
                "b.list",
                "deb http://other.test stable main\ndeb http://other.test bookworm stable\n",
            ),
            ("c.list", "deb http://other.test vendor-bookworm main\n"),
        ]);
        assert_eq!(
            sources.one_line,
            "deb [signed-by=/k] http://m.test/debian bookworm main contrib\n"
        );
        assert_eq!(sources.stanzas, "");
    }

    #[test]
    fn stanzas_are_kept_whole() {
        let own = "Types: deb\n# where\nURIs: http://m.test/debian\nSuites: bookworm bookworm-updates\nComponents: main\n";
        let off = "Enabled: no\nTypes: deb\nURIs: http://m.test/off\nSuites: bookworm\nComponents: main\n";
        let other = "Types: deb\nURIs: http://n.test\nSuites: nodistro\nComponents: main\n";
        let sources = read(&[
            ("debian.sources", &format!("{own}\n{off}")),
            ("n.sources", other),
        ]);
        assert_eq!(
            sources.stanzas,
            "Types: deb\nURIs: http://m.test/debian\nSuites: bookworm bookworm-updates\nComponents: main\n\n"
        );
    }
}
