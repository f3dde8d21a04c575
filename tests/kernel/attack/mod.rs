//! Attacks on what isolates dynos, each with its exact outcome. The rows are data (`rows/`); what
//! came of them is printed and gathered by `cargo xtask test`, and SECURITY.md holds the table.
//!
//! To cover a row: in its `rows/*.toml` replace `gap` by `kernel = "NAME OF THE TEST"` (and
//! `as = [...]` when it is tried as more than the ordinary user), and in that test
//!
//! ```ignore
//! let mut report = Report::new("slug::hostile_archives");
//! report.holds("S-01", As::User, || { ...; Ok("rejected: absolute path".into()) });
//! report.finish(&[As::User])
//! ```
//!
//! A row that a unit or host test shows has `tests = ["path::of::test"]` instead. `gap` beside
//! either tells what is still open. Then `cargo xtask security` writes SECURITY.md anew.

mod around;
mod beside;
mod builds;
mod control;
mod cores;
mod exhaust;
mod inside;
mod links;
mod numbers;
mod plane;
mod report;
mod rows;
mod slug;
mod terminals;

use libtest_mimic::Trial;

pub(crate) use report::Report;
pub(crate) use rows::As;

/// The cases of this folder.
pub(crate) fn cases() -> Vec<Trial> {
    vec![
        Trial::test(inside::TEST, inside::run),
        Trial::test(around::TEST, around::run),
        Trial::test(beside::TEST, beside::run),
        Trial::test(plane::TEST, plane::run),
        Trial::test(slug::TEST, slug::run),
        Trial::test(exhaust::TEST, exhaust::run),
        Trial::test(builds::TEST, builds::run),
        Trial::test(numbers::TEST, numbers::run),
    ]
}
