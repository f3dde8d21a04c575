//! The system-call filter alone: what it adds to each call, and what loading it costs a launch.

use std::process::Command;

use anyhow::{Context, Result};

use super::table::Report;
use crate::process;

/// Rounds; each makes some hundred thousand calls.
const ROUNDS: &str = "51";

/// Bounds of the isolation contract.
const ADDED_NS: f64 = 50.0;
const LOAD_US: f64 = 150.0;

pub(super) fn filter(report: &mut Report) -> Result<()> {
    let program = super::built("filter")?;
    let text = process::read(Command::new(program).arg(ROUNDS))?;
    let (added, load) = medians(&text)?;
    report.at_most("filter, added to a hot system call, ns", added, ADDED_NS);
    report.at_most("filter, loading it, us", load, LOAD_US);
    Ok(())
}

/// Of the two columns.
fn medians(text: &str) -> Result<(f64, f64)> {
    let mut columns = (Vec::new(), Vec::new());
    for line in text.lines() {
        let (added, load) = line.split_once(' ').context("two figures a line")?;
        columns.0.push(added.parse::<f64>()?);
        columns.1.push(load.parse::<f64>()?);
    }
    let median = |mut column: Vec<f64>| {
        column.sort_by(f64::total_cmp);
        column.get(column.len() / 2).copied().context("no figures")
    };
    Ok((median(columns.0)?, median(columns.1)?))
}

#[cfg(test)]
mod tests {
    use super::medians;

    #[test]
    fn the_middle_of_each_column_counts() {
        let (added, load) = medians("9.00 90.0\n1.50 70.0\n-2.00 80.5\n").expect("figures");
        assert!((added - 1.5).abs() < 1e-9 && (load - 80.5).abs() < 1e-9);
        assert!(medians("").is_err() && medians("1\n").is_err());
    }
}
