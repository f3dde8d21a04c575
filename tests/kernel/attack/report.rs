//! What came of the attacks: one line each, which `cargo xtask test` gathers into its table.
//!
//! A line is `ATTACK ID AS OUTCOME DETAIL` with `held`, `FAILED` or `skipped`. One broken row does
//! not hide the next: the report goes on and fails at its end.

use libtest_mimic::Failed;

use super::rows::{self, As};

/// Gathers the outcomes of one kernel test.
#[derive(Debug)]
pub(crate) struct Report {
    test: &'static str,
    faults: Vec<String>,
    reported: Vec<(String, As)>,
}

impl Report {
    /// `test` is the name of the running test, as the rows' `kernel` has it.
    pub(crate) fn new(test: &'static str) -> Self {
        Self {
            test,
            faults: Vec::new(),
            reported: Vec::new(),
        }
    }

    /// Runs the attack of a row; `Ok` tells in a few words what was seen and means that it held.
    pub(crate) fn holds(
        &mut self,
        id: &str,
        attacker: As,
        attack: impl FnOnce() -> Result<String, Failed>,
    ) {
        match attack() {
            Ok(detail) => self.line(id, attacker, "held", &detail),
            Err(failed) => {
                let why = failed.message().unwrap_or("no reason given").to_owned();
                self.line(id, attacker, "FAILED", &why);
                self.faults
                    .push(format!("{id} as {}: {why}", attacker.word()));
            }
        }
    }

    /// The host lacks what the row needs. Allowed only where the row says `needs`.
    #[allow(dead_code, reason = "rows that need a feature come one by one")]
    pub(crate) fn skipped(&mut self, id: &str, attacker: As, feature: &str) {
        self.line(id, attacker, "skipped", feature);
        if rows::row(id).is_some_and(|row| row.needs.is_empty()) {
            self.faults
                .push(format!("{id}: skipped for {feature}, but it needs nothing"));
        }
    }

    /// Fails with all that did not hold, and for rows that nobody reported on.
    pub(crate) fn finish(mut self, attackers: &[As]) -> Result<(), Failed> {
        for attacker in attackers {
            for id in rows::of_test(self.test, *attacker) {
                if !self.reported.contains(&(id.to_owned(), *attacker)) {
                    self.faults
                        .push(format!("{id} as {}: not tried", attacker.word()));
                }
            }
        }
        if self.faults.is_empty() {
            Ok(())
        } else {
            Err(self.faults.join("\n").into())
        }
    }

    fn line(&mut self, id: &str, attacker: As, outcome: &str, detail: &str) {
        let detail = detail.replace(['\n', '\r'], " ");
        #[expect(clippy::print_stdout, reason = "the table is made from these lines")]
        {
            println!("\nATTACK {id} {} {outcome} {detail}", attacker.word());
        }
        match rows::row(id) {
            Some(row) if row.kernel == self.test && row.attackers.contains(&attacker) => {}
            Some(_) => self.faults.push(format!(
                "{id}: its row does not name {} as {}",
                self.test,
                attacker.word()
            )),
            None => self.faults.push(format!("{id}: no such row")),
        }
        self.reported.push((id.to_owned(), attacker));
    }
}
