//! `cargo xtask security`: the table of SECURITY.md, made from the rows that the kernel tests read
//! too, and held against what a run of `cargo xtask test` has shown.
//!
//! The table says nothing that depends on the machine: what a row claims, not what was measured. A
//! run fails when the file is not what the rows make of it, or when a claim was not shown.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};

const BEGIN: &str = "<!-- attacks: made by `cargo xtask security`, do not edit -->";
const END: &str = "<!-- end of attacks -->";

/// Sections in the order of the contract: first letter of the ids, file, title.
const SECTIONS: [(&str, &str, &str); 15] = [
    ("B", "start", "What every dyno starts with"),
    ("S", "slug", "Slug archives"),
    ("F", "mounts", "Root file system and mounts"),
    ("E", "descriptors", "Descriptors and the platform's memory"),
    ("K", "kernel", "/proc, /sys, /dev"),
    ("U", "users", "Privileges and user namespaces"),
    ("Y", "filter", "System-call filter"),
    ("D", "dynos", "Between dynos"),
    ("N", "network", "Network"),
    ("X", "exhaustion", "Exhaustion"),
    ("C", "cgroups", "Control groups"),
    ("T", "terminals", "Terminals and one-off dynos"),
    ("L", "secrets", "Logs, control plane, secrets"),
    ("R", "lifecycle", "Lifecycle"),
    ("M", "builds", "Builds"),
];

/// Rooms of kernel tests that are not run in the virtual machine, one a line: their rows claim
/// nothing there. The tests read the same list.
const HERE_ONLY: &str = include_str!("../../tests/kernel/here-only.txt");

/// One row of the contract.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    id: String,
    priority: String,
    attack: String,
    expected: String,
    /// As whom it is tried.
    attackers: Vec<String>,
    /// The kernel test that reports on it.
    kernel: String,
    /// Unit and host tests that show it.
    tests: Vec<String>,
    /// What measures it: no test judges times.
    bench: String,
    /// What a host must have; a run without it may skip the row.
    needs: String,
    /// What is not shown.
    gap: String,
}

impl Row {
    fn is_here_only(&self) -> bool {
        HERE_ONLY.lines().any(|room| self.kernel.starts_with(room))
    }

    fn is_covered(&self) -> bool {
        self.is_tested() || !self.bench.is_empty()
    }

    fn is_tested(&self) -> bool {
        !self.kernel.is_empty() || !self.tests.is_empty()
    }
}

/// Runs the command.
pub(crate) fn run() -> Result<ExitCode> {
    let path = file();
    let new = with_table(&read(&path)?, &table(&rows()?))?;
    fs::write(&path, new).with_context(|| format!("cannot write {}", path.display()))?;
    println!("{} is up to date", path.display());
    Ok(ExitCode::SUCCESS)
}

/// Fails when SECURITY.md is not what the rows make of it.
pub(crate) fn check_file() -> Result<()> {
    let old = read(&file())?;
    let new = with_table(&old, &table(&rows()?))?;
    ensure!(
        old == new,
        "SECURITY.md is not what the rows make of it: run `cargo xtask security`"
    );
    Ok(())
}

fn file() -> PathBuf {
    crate::root().join("SECURITY.md")
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn rows() -> Result<Vec<Row>> {
    let mut all = Vec::new();
    for (letter, name, _) in SECTIONS {
        let path = crate::root().join(format!("tests/kernel/attack/rows/{name}.toml"));
        let rows = parse(&read(&path)?).with_context(|| format!("in {}", path.display()))?;
        if let Some(stray) = rows.iter().find(|row| !row.id.starts_with(letter)) {
            bail!("{} does not belong into {}", stray.id, path.display());
        }
        all.extend(rows);
    }
    Ok(all)
}

/// Rows in the order of their ids.
fn parse(text: &str) -> Result<Vec<Row>> {
    let table: toml::Table = text.parse()?;
    let known = [
        "priority", "attack", "expected", "as", "kernel", "tests", "bench", "needs", "gap", "root",
    ];
    let mut rows = Vec::new();
    for (id, value) in table {
        let row = value
            .as_table()
            .with_context(|| format!("{id} is no table"))?;
        if let Some(key) = row.keys().find(|key| !known.contains(&key.as_str())) {
            bail!("{id}: unknown key {key}");
        }
        let text = |key: &str| {
            row.get(key)
                .and_then(toml::Value::as_str)
                .unwrap_or_default()
        };
        let list = |key: &str| {
            let list = row.get(key).and_then(toml::Value::as_array);
            let words = list.into_iter().flatten().filter_map(toml::Value::as_str);
            words.map(str::to_owned).collect::<Vec<_>>()
        };
        let mut attackers = list("as");
        if attackers.is_empty() {
            attackers.push("user".to_owned());
        }
        let row = Row {
            priority: text("priority").to_owned(),
            attack: text("attack").to_owned(),
            expected: text("expected").to_owned(),
            attackers,
            kernel: text("kernel").to_owned(),
            tests: list("tests"),
            bench: text("bench").to_owned(),
            needs: text("needs").to_owned(),
            gap: text("gap").to_owned(),
            id,
        };
        ensure!(
            row.is_covered() || !row.gap.is_empty(),
            "{}: neither `kernel`, `tests`, `bench` nor a `gap`",
            row.id
        );
        rows.push(row);
    }
    Ok(rows)
}

/// Markdown: a sum, then one table a section.
fn table(rows: &[Row]) -> String {
    let covered = |priority: &str| {
        let all = rows.iter().filter(|row| row.priority == priority);
        let (yes, no): (Vec<_>, Vec<_>) = all.partition(|row| row.is_covered());
        format!("{priority} {} of {}", yes.len(), yes.len() + no.len())
    };
    let mut text = format!(
        "Rows shown by a test or measured: {}, {}, {}.\n",
        covered("P0"),
        covered("P1"),
        covered("P2")
    );
    for (letter, _, title) in SECTIONS {
        let _ = write!(
            text,
            "\n### {title}\n\n| | | Attack or requirement | Expected | As | Shown by | v1 | v2 |\n|---|---|---|---|---|---|---|---|\n"
        );
        for row in rows.iter().filter(|row| row.id.starts_with(letter)) {
            text.push_str(&line(row));
        }
    }
    text
}

fn line(row: &Row) -> String {
    let mut shown: Vec<String> = Vec::new();
    if !row.kernel.is_empty() {
        shown.push(format!("`{}`", row.kernel));
    }
    shown.extend(row.tests.iter().map(|test| format!("`{test}`")));
    if !row.bench.is_empty() {
        shown.push(format!("`{}`", row.bench));
    }
    let mut shown = shown.join(", ");
    if !row.is_covered() {
        shown = format!("**not covered**: {}", row.gap);
    } else if !row.gap.is_empty() {
        let _ = write!(shown, "; open: {}", row.gap);
    }
    let held = match (row.kernel.is_empty(), row.needs.is_empty()) {
        (false, true) => "held".to_owned(),
        (false, false) => format!("held with {}", row.needs),
        (true, _) if row.is_tested() => "unit".to_owned(),
        (true, _) if row.is_covered() => "measured".to_owned(),
        (true, _) => "–".to_owned(),
    };
    let not_run = "not run".to_owned();
    let attackers = if row.kernel.is_empty() {
        String::new()
    } else {
        row.attackers.join(", ")
    };
    let cells = [
        &row.id,
        &row.priority,
        &row.attack,
        &row.expected,
        &attackers,
        &shown,
        &held,
        if row.is_here_only() { &not_run } else { &held },
    ];
    let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', r"\|")).collect();
    format!("| {} |\n", cells.join(" | "))
}

fn with_table(text: &str, table: &str) -> Result<String> {
    let cut = text.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(END)?;
        Some((before, after))
    });
    let (before, after) = cut.context("SECURITY.md has lost its marks around the table")?;
    Ok(format!("{before}{BEGIN}\n\n{table}\n{END}{after}"))
}

/// Where a line was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// On this machine.
    Here,
    /// In the virtual machine.
    Guest,
}

/// What a run has shown, read off the tests' output.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    /// By place, row and attacker: outcome and detail.
    attacks: BTreeMap<(Place, String, String), (String, String)>,
    /// Names of unit and host tests that passed.
    passed: BTreeSet<String>,
    /// Kernel tests ran there, all of them.
    whole: BTreeSet<Place>,
}

impl Shown {
    /// Reads one line of output.
    pub(crate) fn read(&mut self, place: Place, line: &str) {
        if let Some((_, rest)) = line.split_once("ATTACK ") {
            let mut words = rest.splitn(4, ' ');
            if let (Some(id), Some(attacker), Some(outcome)) =
                (words.next(), words.next(), words.next())
            {
                let detail = words.next().unwrap_or_default().trim().to_owned();
                let key = (place, id.to_owned(), attacker.to_owned());
                self.attacks
                    .insert(key, (outcome.trim().to_owned(), detail));
            }
        } else if let Some(name) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.strip_suffix(" ... ok"))
        {
            self.passed.insert(name.to_owned());
        }
    }

    /// All kernel tests of a place have run: what no line tells was not shown.
    pub(crate) fn complete(&mut self, place: Place) {
        self.whole.insert(place);
    }

    /// Prints attack → result and fails for claims that were not shown.
    pub(crate) fn report(&self) -> Result<()> {
        let mut faults = Vec::new();
        let rows = rows()?;
        println!(
            "{:<5} {:<3} {:<54} here / virtual machine",
            "row", "", "attack"
        );
        for row in &rows {
            println!("{}", self.line(row));
            faults.extend(self.faults(row));
        }
        let covered = rows.iter().filter(|row| row.is_covered()).count();
        println!("{covered} of {} rows have a test", rows.len());
        check_file()?;
        if faults.is_empty() {
            return Ok(());
        }
        for fault in &faults {
            println!("{fault}");
        }
        bail!("{} claims of SECURITY.md were not shown", faults.len())
    }

    fn line(&self, row: &Row) -> String {
        let attack: String = row.attack.chars().take(54).collect();
        let results = if row.kernel.is_empty() {
            match (row.tests.is_empty(), self.has_passed(row)) {
                (true, _) if row.is_covered() => format!("measured by {}", row.bench),
                (true, _) => format!("NOT COVERED: {}", row.gap),
                (false, true) => "unit tests passed".to_owned(),
                (false, false) => "unit tests not run".to_owned(),
            }
        } else {
            format!(
                "{} / {}",
                self.of_place(row, Place::Here),
                self.of_place(row, Place::Guest)
            )
        };
        format!("{:<5} {:<3} {attack:<54} {results}", row.id, row.priority)
    }

    fn of_place(&self, row: &Row, place: Place) -> String {
        let mut words = Vec::new();
        for attacker in &row.attackers {
            let key = (place, row.id.clone(), attacker.clone());
            match self.attacks.get(&key) {
                Some((outcome, detail)) if outcome != "held" || row.attackers.len() == 1 => {
                    let detail: String = detail.chars().take(60).collect();
                    words.push(format!("{attacker} {outcome} ({detail})"));
                }
                Some((outcome, _)) => words.push(format!("{attacker} {outcome}")),
                None => words.push(format!("{attacker} not run")),
            }
        }
        words.join(", ")
    }

    fn has_passed(&self, row: &Row) -> bool {
        row.tests.iter().all(|test| self.passed.contains(test))
    }

    fn faults(&self, row: &Row) -> Vec<String> {
        let mut faults = Vec::new();
        for place in &self.whole {
            if !row.tests.is_empty() && !self.has_passed(row) {
                faults.push(format!("{}: not all of {:?} passed", row.id, row.tests));
            }
            if row.kernel.is_empty() || (*place == Place::Guest && row.is_here_only()) {
                continue;
            }
            for attacker in &row.attackers {
                let key = (*place, row.id.clone(), attacker.clone());
                let outcome = self.attacks.get(&key).map(|(outcome, _)| outcome.as_str());
                match outcome {
                    Some("held") => {}
                    Some("skipped") if !row.needs.is_empty() => {}
                    other => faults.push(format!(
                        "{} as {attacker}, {place:?}: {}",
                        row.id,
                        other.unwrap_or("not tried")
                    )),
                }
            }
        }
        faults.dedup();
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: &str = r#"
[B-01]
priority = "P0"
attack = "a | b"
expected = "no"
as = ["user", "root"]
kernel = "git::inside"

[B-02]
priority = "P1"
attack = "c"
expected = "no"
gap = "nobody wrote it"

[B-03]
priority = "P2"
attack = "d"
expected = "fast"
bench = "xtask bench"
"#;

    fn shown(lines: &[&str]) -> Vec<String> {
        let mut shown = Shown::default();
        for line in lines {
            shown.read(Place::Here, line);
        }
        shown.complete(Place::Here);
        let rows = parse(ROWS).expect("rows");
        rows.iter().flat_map(|row| shown.faults(row)).collect()
    }

    #[test]
    fn a_claim_that_was_not_shown_is_a_fault() {
        let both = [
            "test git::inside ... ATTACK B-01 user held EPERM",
            "ATTACK B-01 root held EPERM",
        ];
        assert!(shown(&both).is_empty());
        assert_eq!(shown(&both[..1]), ["B-01 as root, Here: not tried"]);
        let skipped = ["ATTACK B-01 user held x", "ATTACK B-01 root skipped kvm"];
        assert_eq!(shown(&skipped), ["B-01 as root, Here: skipped"]);
    }

    #[test]
    fn the_table_says_what_is_not_covered() {
        let text = table(&parse(ROWS).expect("rows"));
        assert!(
            text.starts_with(
                "Rows shown by a test or measured: P0 1 of 1, P1 0 of 1, P2 1 of 1.\n"
            )
        );
        assert!(text.contains(
            "| B-01 | P0 | a \\| b | no | user, root | `git::inside` | held | not run |\n"
        ));
        assert!(text.contains("| **not covered**: nobody wrote it | – | – |\n"));
        assert!(text.contains("| `xtask bench` | measured | measured |\n"));
    }

    #[test]
    fn only_what_lies_between_the_marks_changes() {
        let old = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let new = with_table(&old, "new\n").expect("marks");
        assert_eq!(new, format!("a\n{BEGIN}\n\nnew\n\n{END}\nb\n"));
        assert!(with_table("nothing", "new").is_err());
    }

    #[test]
    fn a_row_without_test_and_without_gap_is_refused() {
        let text = "[B-01]\npriority = \"P0\"\nattack = \"a\"\nexpected = \"b\"\n";
        assert!(parse(text).is_err());
    }

    #[test]
    fn security_md_is_what_the_rows_make_of_it() {
        check_file().expect("SECURITY.md is up to date");
    }
}
