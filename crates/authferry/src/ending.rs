//! The end of every command: what is told to people and to programs, and the exit code.

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

/// What there is to tell at the end. Holds no secret.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ending {
    pub(crate) code: u8,
    /// One word for programs: `persisted`, `refused`, …
    pub(crate) outcome: &'static str,
    /// What happened to the login, then what is wrong, if something is.
    pub(crate) message: String,
    /// Whether something is wrong.
    pub(crate) failed: bool,
    /// What lies below, from the nearest to the farthest.
    pub(crate) causes: Vec<String>,
    /// Next steps that work.
    pub(crate) hints: Vec<String>,
    /// What else is good to know.
    pub(crate) notes: Vec<String>,
    /// What should be known although the login is safe.
    pub(crate) warnings: Vec<String>,
    /// What only `--verbose` tells.
    pub(crate) details: Vec<String>,
    /// What `status` prints to standard output.
    pub(crate) lines: Vec<String>,
    /// Whether a job summary would tell of this twice: another command tells the end.
    pub(crate) midway: bool,
    /// More for programs.
    pub(crate) facts: Map<String, Value>,
}

/// A command's failure is told in the same way as its success.
pub(crate) type Result<T> = std::result::Result<T, Box<Ending>>;

/// What a refusal says of the login, before the reason.
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

    /// Nothing was touched.
    pub(crate) fn refused(code: u8, what: impl std::fmt::Display) -> Self {
        Self::bad(code, "refused", format!("{UNTOUCHED}{what}"))
    }

    /// The message of a refusal without what it says of the login; any other message whole.
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

    /// Adds the chain of causes below an error that the message tells.
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

    /// Takes the facts of another ending over.
    pub(crate) fn with_facts_of(mut self, other: Self) -> Self {
        self.facts = other.facts;
        self
    }

    pub(crate) fn fact(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.facts.insert(name.to_owned(), value.into());
        self
    }

    /// Tells it all, and returns the exit code.
    ///
    /// A stream that nobody reads any more, or a report that cannot be finished, is no reason
    /// to fail: the login matters more.
    pub(crate) fn tell(self, global: &Global, report: Option<ReportFile>) -> ExitCode {
        // First of all: whoever reads the other two may have stopped to.
        let written = report.map_or(Ok(()), |report| {
            report.write(&format!("{:#}\n", self.for_programs()))
        });
        let mut err = io::stderr().lock();
        err.write_all(self.for_people(global).as_bytes()).ok();
        if let Err(error) = written {
            writeln!(err, "warning: the report cannot be written: {error}").ok();
        }
        if global.github {
            github::tell(&self);
        }
        let mut out = io::stdout().lock();
        if global.json {
            writeln!(out, "{:#}", self.for_programs()).ok();
        } else {
            for line in &self.lines {
                writeln!(out, "{line}").ok();
            }
        }
        ExitCode::from(self.code)
    }

    fn for_people(&self, global: &Global) -> String {
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

    fn for_programs(&self) -> Value {
        let mut all = Map::from_iter([
            ("outcome".to_owned(), json!(self.outcome)),
            ("exit_code".to_owned(), json!(self.code)),
            ("message".to_owned(), json!(self.message)),
            ("causes".to_owned(), json!(self.causes)),
            ("notes".to_owned(), json!(self.notes)),
            ("warnings".to_owned(), json!(self.warnings)),
            ("hints".to_owned(), json!(self.hints)),
        ]);
        all.extend(self.facts.clone());
        Value::Object(all)
    }
}

fn lines(text: &mut String, label: &str, message: &str) {
    // Writing to a string cannot fail.
    writeln!(text, "{label}{message}").ok();
}

/// Runs a command. A panic is reported as every other failure is: it is a fault of ours, outside of a
/// trip, which keeps what a command wrote by itself.
pub(crate) fn whatever_panics(command: impl FnOnce() -> Result<Ending>) -> Result<Ending> {
    catch_unwind(AssertUnwindSafe(command)).unwrap_or_else(|_| {
        let what = "the auth file and its receipt are as they were left: authferry failed within, \
                    which is a fault of its own, and said why above";
        Err(Ending::bad(exit::FAILED, "failed", what)
            .hint("run `authferry restore` there: it puts a newer auth file into the store")
            .into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_as_a_failure() {
        let told = whatever_panics(|| panic!("made up")).expect_err("a failure");
        assert_eq!((told.code, told.outcome), (exit::FAILED, "failed"));
        assert!(
            told.message.contains("fault of its own"),
            "{}",
            told.message
        );
        let told = whatever_panics(|| Ok(Ending::good("nothing", "made up")));
        assert_eq!(told.expect("no failure").outcome, "nothing");
    }
}
