//! The judge: compares what a scenario saw with what is expected of the version.

use std::fmt::Debug;

use crate::bench::Act;

/// The differences that one scenario has found on one version.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    /// Each difference in one line, without anything that changes from run to run.
    wrong: Vec<String>,
    /// What the program printed where it differs, for the person at the terminal.
    details: Vec<String>,
}

impl Checks {
    /// Compares a value with the expected one.
    #[expect(clippy::needless_pass_by_value, reason = "callers compare literals")]
    pub(crate) fn equal<T: PartialEq + Debug>(&mut self, what: &str, seen: T, expected: T) {
        if seen != expected {
            let text = format!("{what}: {seen:?}, expected {expected:?}");
            self.wrong.push(text.replace("Some(", "").replace(')', ""));
        }
    }

    /// Checks a statement.
    pub(crate) fn holds(&mut self, statement: &str, holds: bool) {
        if !holds {
            self.wrong.push(format!("not so: {statement}"));
        }
    }

    /// Checks how `authferry` has ended: its exit code and, unless empty, its outcome. It must have
    /// printed no token.
    pub(crate) fn ended(&mut self, act: &Act, code: i32, outcome: &str) {
        let before = self.wrong.len();
        self.equal("exit code", act.code, Some(code));
        if !outcome.is_empty() {
            self.equal("outcome", act.outcome.as_str(), outcome);
        }
        self.holds("no token is printed", !act.leaks());
        if self.wrong.len() > before {
            self.details.push(format!("{act}"));
        }
    }

    /// Notes why the scenario could not end.
    pub(crate) fn broken(&mut self, why: &str) {
        let line = why.lines().next().unwrap_or_default();
        self.wrong.push(format!("broken off: {line}"));
        self.details.push(why.to_owned());
    }

    /// Returns the cell of the table, and the details of a wrong one. `seen` is what the scenario
    /// observed.
    pub(crate) fn verdict(self, seen: &str) -> (Cell, String) {
        if self.wrong.is_empty() {
            (Cell::Right(seen.to_owned()), String::new())
        } else {
            (Cell::Wrong(self.wrong.join("; ")), self.details.join("\n"))
        }
    }
}

/// The result of one scenario on one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    /// As expected, with what was observed.
    Right(String),
    /// As expected at the second attempt alone, with what differed at the first.
    Unsteady(String),
    /// Not as expected, with each difference.
    Wrong(String),
    /// Not run.
    Absent,
}

impl Cell {
    /// Returns the result of two attempts: a wrong cell is run once more.
    pub(crate) fn after_second(self, second: Self) -> Self {
        match (self, second) {
            (Self::Wrong(first), Self::Right(_)) => Self::Unsteady(first),
            (Self::Wrong(_), second) => second,
            (first, _) => first,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn act() -> Act {
        Act {
            code: Some(125),
            outcome: "dead".to_owned(),
            stdout: String::new(),
            stderr: "error: it is dead".to_owned(),
        }
    }

    #[test]
    fn a_cell_that_differs_from_its_expectation_is_wrong() {
        let mut checks = Checks::default();
        checks.equal("refreshes", 2, 1);
        let (cell, _) = checks.verdict("rotated");
        assert_eq!(cell, Cell::Wrong("refreshes: 2, expected 1".to_owned()));

        let mut checks = Checks::default();
        checks.holds("the store holds the live login", false);
        let (cell, _) = checks.verdict("rotated");
        let text = "not so: the store holds the live login";
        assert_eq!(cell, Cell::Wrong(text.to_owned()));

        let mut checks = Checks::default();
        checks.ended(&act(), 0, "rotated");
        let (cell, details) = checks.verdict("rotated");
        let text = "exit code: 125, expected 0; outcome: \"dead\", expected \"rotated\"";
        assert_eq!(cell, Cell::Wrong(text.to_owned()));
        assert!(details.contains("it is dead"), "{details}");

        let mut checks = Checks::default();
        let stderr = "error: made-up.refresh.account-1.0001 is spent".to_owned();
        checks.ended(&Act { stderr, ..act() }, 125, "dead");
        let (cell, _) = checks.verdict("dead");
        assert_eq!(cell, Cell::Wrong("not so: no token is printed".to_owned()));

        let mut checks = Checks::default();
        checks.broken("no reply\nand more");
        let (cell, _) = checks.verdict("rotated");
        assert_eq!(cell, Cell::Wrong("broken off: no reply".to_owned()));
    }

    #[test]
    fn a_cell_as_expected_is_right() {
        let mut checks = Checks::default();
        checks.equal("refreshes", 1, 1);
        checks.holds("the store holds the live login", true);
        checks.ended(&act(), 125, "dead");
        checks.ended(&act(), 125, "");
        let (cell, details) = checks.verdict("dead");
        assert_eq!((cell, details), (Cell::Right("dead".into()), String::new()));
    }

    #[test]
    fn a_second_attempt_hides_no_difference() {
        let wrong = |text: &str| Cell::Wrong(text.to_owned());
        let right = Cell::Right("rotated".to_owned());
        let unsteady = Cell::Unsteady("first".to_owned());
        assert_eq!(wrong("first").after_second(right), unsteady);
        assert_eq!(
            wrong("first").after_second(wrong("second")),
            wrong("second")
        );
    }
}
