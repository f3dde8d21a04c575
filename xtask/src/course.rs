//! How test binaries went, read off their output: what the failed tests said, to be told again at
//! the end of a long run, and which tests took longest.

use std::time::{Duration, Instant};

/// Lines of failures that are kept of one step.
const KEPT: usize = 200;

/// What was read so far.
#[derive(Debug)]
pub(crate) struct Course {
    /// When the last test ended.
    since: Instant,
    /// The test whose end is awaited.
    current: Option<String>,
    took: Vec<(Duration, String)>,
    in_failures: bool,
    failures: Vec<String>,
}

impl Course {
    /// From now on.
    pub(crate) fn begin() -> Self {
        Self {
            since: Instant::now(),
            current: None,
            took: Vec::new(),
            in_failures: false,
            failures: Vec::new(),
        }
    }

    /// Reads one line of output. Times are right where tests run one at a time.
    pub(crate) fn read(&mut self, line: &str) {
        // A guest's console may leave a carriage return.
        let line = line.trim_end();
        if line.contains("test result: ") {
            self.in_failures = false;
        } else if line == "failures:" {
            self.in_failures = true;
        } else if line.starts_with("running ") {
            self.since = Instant::now();
        }
        if self.in_failures && self.failures.len() < KEPT {
            self.failures.push(line.to_owned());
        }
        if let Some((name, _)) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.split_once(" ..."))
        {
            self.current = Some(name.trim().to_owned());
        }
        // Whatever a test prints stands between its name and its verdict.
        let is_end = matches!(line.rsplit(' ').next(), Some("ok" | "FAILED"));
        if is_end && let Some(name) = self.current.take() {
            self.took.push((self.since.elapsed(), name));
            self.since = Instant::now();
        }
    }

    /// The tests that took longest, and their time.
    pub(crate) fn slowest(&self, count: usize) -> Vec<String> {
        let mut took = self.took.clone();
        took.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
        took.iter()
            .take(count)
            .map(|(time, name)| format!("{:>7.1} s  {name}", time.as_secs_f64()))
            .collect()
    }

    /// What the failed ones said.
    pub(crate) fn failures(self) -> Vec<String> {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::Course;

    #[test]
    fn names_and_failures_are_read_whatever_stands_between() {
        let mut course = Course::begin();
        for line in [
            "running 3 tests",
            "test a::quick   ... ok",
            "test b::attack  ... ",
            "ATTACK N-01 user held ok",
            "ATTACK N-02 user held nothing more",
            "FAILED\r",
            "test c::skipped ... ignored",
            "",
            "failures:",
            "",
            "---- b::attack ----",
            "two came, not one",
            "",
            "failures:",
            "    b::attack",
            "",
            "test result: FAILED. 1 passed; 1 failed",
            "done",
        ] {
            course.read(line);
        }
        let names: Vec<_> = course.took.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(names, ["a::quick", "b::attack"]);
        assert_eq!(course.slowest(1).len(), 1);
        let failures = course.failures();
        assert!(failures.iter().any(|line| line == "two came, not one"));
        assert!(!failures.iter().any(|line| line.contains("test result")));
        assert!(!failures.iter().any(|line| line == "done"));
    }
}
