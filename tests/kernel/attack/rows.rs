//! The rows of the isolation contract: what is attacked, what must come of it, what shows it.
//!
//! Data, in `rows/SECTION.toml`, because two programs read it: the kernel tests, which refuse to
//! report on a row that is not there, and `cargo xtask security`, which makes the table of
//! SECURITY.md from it.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

/// As whom the attacker runs inside the dyno.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub(crate) enum As {
    /// As every app: an ordinary user without capabilities, under the filter.
    User,
    /// As root of the dyno's user namespace with all its capabilities, under the filter.
    Root,
    /// The same without the filter: what the kernel's own rules hold alone.
    Bare,
}

impl As {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Root => "root",
            Self::Bare => "bare",
        }
    }
}

/// One row. The other keys (priority, attack, expected, ...) are for the table only.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Row {
    /// The kernel test that reports on it; empty: none does.
    #[serde(default)]
    pub(crate) kernel: String,
    /// As whom it must have been tried.
    #[serde(default = "user_only", rename = "as")]
    pub(crate) attackers: Vec<As>,
    /// A kernel or host feature without which it may be skipped.
    #[serde(default)]
    pub(crate) needs: String,
}

fn user_only() -> Vec<As> {
    vec![As::User]
}

const FILES: [&str; 15] = [
    include_str!("rows/start.toml"),
    include_str!("rows/slug.toml"),
    include_str!("rows/mounts.toml"),
    include_str!("rows/descriptors.toml"),
    include_str!("rows/kernel.toml"),
    include_str!("rows/users.toml"),
    include_str!("rows/filter.toml"),
    include_str!("rows/dynos.toml"),
    include_str!("rows/network.toml"),
    include_str!("rows/exhaustion.toml"),
    include_str!("rows/cgroups.toml"),
    include_str!("rows/terminals.toml"),
    include_str!("rows/secrets.toml"),
    include_str!("rows/lifecycle.toml"),
    include_str!("rows/builds.toml"),
];

static ROWS: LazyLock<BTreeMap<String, Row>> = LazyLock::new(|| {
    let mut all = BTreeMap::new();
    for text in FILES {
        let rows: BTreeMap<String, Row> = toml::from_str(text).expect("rows/*.toml are rows");
        all.extend(rows);
    }
    all
});

/// The row of that id.
pub(crate) fn row(id: &str) -> Option<&'static Row> {
    ROWS.get(id)
}

/// Ids of the rows that a kernel test has to report on, for one kind of attacker.
pub(crate) fn of_test(test: &str, attacker: As) -> Vec<&'static str> {
    let wanted = |row: &Row| row.kernel == test && row.attackers.contains(&attacker);
    let found = ROWS.iter().filter(|(_, row)| wanted(row));
    found.map(|(id, _)| id.as_str()).collect()
}
