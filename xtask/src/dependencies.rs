//! Licences, bans and sources of all crates, as deny.toml has them.
//!
//! The file is `cargo deny`'s; it is read here because building that program takes longer than all
//! other checks together. Advisories are left to it: their database lies on a forge.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process;

/// Where crates come from, as Cargo.lock has it.
const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// What deny.toml says.
struct Rules {
    targets: Vec<String>,
    licences: Vec<spdx::Licensee>,
    banned: Vec<String>,
}

/// Fails when a crate breaks a rule.
pub(crate) fn check() -> Result<()> {
    let path = crate::root().join("deny.toml");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let rules = Rules::parse(&text).with_context(|| format!("in {}", path.display()))?;
    let mut faults = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for target in &rules.targets {
        let mut cargo = process::cargo();
        cargo.args([
            "metadata",
            "--format-version=1",
            "--locked",
            "--all-features",
        ]);
        cargo.arg(format!("--filter-platform={target}"));
        let metadata: Value = serde_json::from_str(&process::read(&mut cargo)?)
            .context("cargo metadata wrote no JSON")?;
        for package in used(&metadata)? {
            seen.insert(package["id"].to_string());
            faults.extend(rules.faults(package));
        }
    }
    for fault in &faults {
        println!("{fault}");
    }
    if !faults.is_empty() {
        bail!("{} crates break the rules of deny.toml", faults.len());
    }
    println!("{} crates keep the rules of deny.toml", seen.len());
    Ok(())
}

/// The packages that the platform's dependency tree really has.
fn used(metadata: &Value) -> Result<Vec<&Value>> {
    let nodes = metadata["resolve"]["nodes"]
        .as_array()
        .context("cargo metadata has no dependency tree")?;
    let nodes: BTreeSet<_> = nodes
        .iter()
        .filter_map(|node| node["id"].as_str())
        .collect();
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata names no packages")?;
    Ok(packages
        .iter()
        .filter(|package| package["id"].as_str().is_some_and(|id| nodes.contains(id)))
        .collect())
}

impl Rules {
    fn parse(text: &str) -> Result<Self> {
        let table: toml::Table = text.parse()?;
        let list = |section: &str, key: &str| -> Result<Vec<String>> {
            let list = table
                .get(section)
                .and_then(|section| section.get(key)?.as_array())
                .with_context(|| format!("no list `{key}` in [{section}]"))?;
            let words = list.iter().map(|word| word.as_str().map(str::to_owned));
            words
                .collect::<Option<_>>()
                .with_context(|| format!("`{key}` has something that is no text"))
        };
        let licences = list("licenses", "allow")?
            .iter()
            .map(|name| spdx::Licensee::parse(name).with_context(|| format!("licence {name}")))
            .collect::<Result<_>>()?;
        Ok(Self {
            targets: list("graph", "targets")?,
            licences,
            banned: list("bans", "deny")?,
        })
    }

    /// What is wrong with a package.
    fn faults(&self, package: &Value) -> Vec<String> {
        let name = package["name"].as_str().unwrap_or_default();
        let version = package["version"].as_str().unwrap_or_default();
        let mut faults = Vec::new();
        let Some(source) = package["source"].as_str() else {
            // Our own: its licence is ours, its dependencies name versions.
            let all = package["dependencies"].as_array().into_iter().flatten();
            for dependency in all.filter(|d| d["req"] == "*" && d["path"].is_null()) {
                faults.push(format!("{name}: any version of {}", dependency["name"]));
            }
            return faults;
        };
        if source != CRATES_IO {
            faults.push(format!("{name} {version} comes from {source}"));
        }
        if self.banned.iter().any(|banned| banned == name) {
            faults.push(format!("{name} {version} is banned"));
        }
        let licence = package["license"].as_str().unwrap_or_default();
        let allowed =
            spdx::Expression::parse_mode(licence, spdx::ParseMode::LAX).is_ok_and(|licence| {
                licence.evaluate(|wanted| self.licences.iter().any(|l| l.satisfies(wanted)))
            });
        if !allowed {
            faults.push(format!("{name} {version} has the licence `{licence}`"));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = "[graph]\ntargets = []\n[licenses]\nallow = [\"MIT\", \"ISC\"]\n\
                         [bans]\ndeny = [\"openssl\"]\n";

    fn faults(name: &str, licence: &str, source: Option<&str>) -> Vec<String> {
        let rules = Rules::parse(RULES).expect("rules");
        rules.faults(&serde_json::json!({
            "name": name, "version": "1.0.0", "license": licence, "source": source,
            "dependencies": [{"name": "any", "req": "*", "path": null}],
        }))
    }

    #[test]
    fn a_crate_needs_an_allowed_licence_name_and_source() {
        let known = Some(CRATES_IO);
        for licence in [
            "MIT",
            "MIT OR GPL-3.0-only",
            "MIT/Apache-2.0",
            "MIT AND ISC",
        ] {
            assert!(faults("good", licence, known).is_empty(), "{licence}");
        }
        for licence in ["GPL-3.0-only", "MIT AND GPL-3.0-only", "", "whatever"] {
            assert_eq!(
                faults("bad", licence, known),
                [format!("bad 1.0.0 has the licence `{licence}`")]
            );
        }
        assert_eq!(faults("openssl", "MIT", known), ["openssl 1.0.0 is banned"]);
        assert_eq!(
            faults("fork", "MIT", Some("git+https://example.invalid/fork")),
            ["fork 1.0.0 comes from git+https://example.invalid/fork"]
        );
        assert_eq!(faults("ours", "", None), ["ours: any version of \"any\""]);
    }

    #[test]
    fn rules_that_are_not_there_are_told() {
        let error = Rules::parse("[graph]\ntargets = []")
            .err()
            .expect("no licences");
        assert_eq!(error.to_string(), "no list `allow` in [licenses]");
    }
}
