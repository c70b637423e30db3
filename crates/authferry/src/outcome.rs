//! The end of every command: the message, the report for programs, and the exit code.

use std::{
    fmt::Write as _,
    io::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
};

use serde_json::{Map, Value, json};

use crate::args::Global;
use crate::report::ReportFile;
use crate::{exit, github};

/// The end of a command. Holds no secret.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ending {
    pub(crate) code: u8,
    /// One word for programs: `persisted`, `refused`, …
    pub(crate) outcome: &'static str,
    /// What happened to the login, then the error, if there is one.
    pub(crate) message: String,
    /// Whether the message is an error.
    pub(crate) failed: bool,
    /// The chain of causes, nearest first.
    pub(crate) causes: Vec<String>,
    /// The next steps.
    pub(crate) hints: Vec<String>,
    /// Further information.
    pub(crate) notes: Vec<String>,
    /// Problems that do not endanger the login.
    pub(crate) warnings: Vec<String>,
    /// Printed only with `--verbose`.
    pub(crate) details: Vec<String>,
    /// Printed to standard output: the rows of `status`, for example.
    pub(crate) lines: Vec<String>,
    /// Whether the job summary skips this: a later command of the job writes it.
    pub(crate) midway: bool,
    /// More fields of the report for programs.
    pub(crate) facts: Map<String, Value>,
}

/// The result of a step of a command: a failure is an [`Ending`], as a success is.
pub(crate) type Result<T> = std::result::Result<T, Box<Ending>>;

/// The prefix of a refusal's message: what happened to the login.
const UNTOUCHED: &str = "nothing was touched: ";

impl Ending {
    pub(crate) fn good(outcome: &'static str, message: impl Into<String>) -> Self {
        Self {
            outcome,
            message: message.into(),
            ..Self::default()
        }
    }

    pub(crate) fn bad(code: u8, outcome: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            outcome,
            message: message.into(),
            failed: true,
            ..Self::default()
        }
    }

    /// A refusal: nothing was touched.
    pub(crate) fn refused(code: u8, problem: impl std::fmt::Display) -> Self {
        Self::bad(code, "refused", format!("{UNTOUCHED}{problem}"))
    }

    /// The message without the prefix of a refusal.
    pub(crate) fn reason(&self) -> &str {
        self.message
            .strip_prefix(UNTOUCHED)
            .unwrap_or(&self.message)
    }

    /// Adds an error and the chain of causes below it.
    pub(crate) fn caused_by(mut self, error: &dyn std::error::Error) -> Self {
        self.causes.push(error.to_string());
        self.because(error)
    }

    /// Adds the chain of causes below an error that the message contains.
    pub(crate) fn because(mut self, error: &dyn std::error::Error) -> Self {
        let mut source = error.source();
        while let Some(error) = source {
            self.causes.push(error.to_string());
            source = error.source();
        }
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    pub(crate) fn note(mut self, note: Option<String>) -> Self {
        self.notes.extend(note);
        self
    }

    /// Replaces the facts with those of another ending.
    pub(crate) fn with_facts_of(mut self, other: Self) -> Self {
        self.facts = other.facts;
        self
    }

    pub(crate) fn fact(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.facts.insert(name.to_owned(), value.into());
        self
    }

    /// Writes the message and the reports, and returns the exit code.
    ///
    /// A closed stream or a report that cannot be written does not change the exit code: that
    /// describes the login.
    pub(crate) fn publish(self, global: &Global, report: Option<ReportFile>) -> ExitCode {
        // The report first: the readers of the two streams may block.
        let written = report.map_or(Ok(()), |report| {
            report.write(&format!("{:#}\n", self.to_json()))
        });
        let mut err = io::stderr().lock();
        err.write_all(self.to_text(global).as_bytes()).ok();
        if let Err(error) = written {
            writeln!(err, "warning: the report cannot be written: {error}").ok();
        }
        if global.github {
            github::publish(&self);
        }
        let mut out = io::stdout().lock();
        if global.json {
            writeln!(out, "{:#}", self.to_json()).ok();
        } else {
            for line in &self.lines {
                writeln!(out, "{line}").ok();
            }
        }
        ExitCode::from(self.code)
    }

    fn to_text(&self, global: &Global) -> String {
        let mut text = String::new();
        let label = if self.failed { "error" } else { "authferry" };
        if !self.message.is_empty() && (self.failed || !global.quiet) {
            lines(&mut text, &format!("{label}: "), &self.message);
        }
        for cause in &self.causes {
            lines(&mut text, "  caused by: ", cause);
        }
        for note in self.notes.iter().filter(|_| self.failed || !global.quiet) {
            lines(&mut text, "note: ", note);
        }
        for detail in self.details.iter().filter(|_| global.verbose) {
            lines(&mut text, "  ", detail);
        }
        for warning in &self.warnings {
            lines(&mut text, "warning: ", warning);
        }
        let hints = if self.failed || !global.quiet {
            self.hints.as_slice()
        } else {
            &[]
        };
        if !hints.is_empty() {
            text.push('\n');
        }
        for hint in hints {
            lines(&mut text, "hint: ", hint);
        }
        text
    }

    fn to_json(&self) -> Value {
        let mut fields = Map::from_iter([
            ("outcome".to_owned(), json!(self.outcome)),
            ("exit_code".to_owned(), json!(self.code)),
            ("message".to_owned(), json!(self.message)),
            ("causes".to_owned(), json!(self.causes)),
            ("notes".to_owned(), json!(self.notes)),
            ("warnings".to_owned(), json!(self.warnings)),
            ("hints".to_owned(), json!(self.hints)),
        ]);
        fields.extend(self.facts.clone());
        Value::Object(fields)
    }
}

fn lines(text: &mut String, label: &str, message: &str) {
    // Writing to a string cannot fail.
    writeln!(text, "{label}{message}").ok();
}

/// Runs a command, and reports a panic like any other failure. A panic in a round trip does not get
/// here: the runner catches it, and rescues what the command wrote.
pub(crate) fn catch_panics(command: impl FnOnce() -> Result<Ending>) -> Result<Ending> {
    catch_unwind(AssertUnwindSafe(command)).unwrap_or_else(|_| {
        let problem = "the auth file and its receipt are left in place: authferry panicked, which is a bug; \
                    the panic message is above";
        Err(Ending::bad(exit::FAILED, "failed", problem)
            .hint("run `authferry restore` with the same home: it puts a newer auth file into the store")
            .into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_failure() {
        let ending = catch_panics(|| panic!("made up")).expect_err("a failure");
        assert_eq!((ending.code, ending.outcome), (exit::FAILED, "failed"));
        assert!(
            ending.message.contains("which is a bug"),
            "{}",
            ending.message
        );
        let ending = catch_panics(|| Ok(Ending::good("nothing", "made up")));
        assert_eq!(ending.expect("no failure").outcome, "nothing");
    }
}
