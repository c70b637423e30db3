//! One check and its result.

use std::fmt;

use serde_json::{Value, json};

use crate::outcome::Ending;

#[derive(Debug)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) state: State,
    pub(super) message: String,
    causes: Vec<String>,
    hints: Vec<String>,
    /// The exit code of a job for which this check fails.
    pub(super) code: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The check passed.
    Ok,
    /// A job starts, with a warning.
    Warning,
    /// A job does not start, or not once its login is due for rotation.
    Failed,
    /// The check was not made.
    NotTried,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::NotTried => "not tried",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl Check {
    pub(super) fn new(name: &'static str, state: State, message: impl Into<String>) -> Self {
        Self {
            name,
            state,
            message: message.into(),
            causes: Vec::new(),
            hints: Vec::new(),
            code: 0,
        }
    }

    /// A failed check, with the message of a job that fails on it.
    pub(super) fn failed(name: &'static str, ending: Ending) -> Self {
        Self {
            name,
            state: State::Failed,
            message: ending.reason().to_owned(),
            causes: ending.causes,
            hints: ending.hints,
            code: ending.code,
        }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Whether the check failed or has a warning.
    pub(super) fn needs_attention(&self) -> bool {
        match self.state {
            State::Ok | State::NotTried => false,
            State::Warning | State::Failed => true,
        }
    }

    /// The line of the check, with its causes and hints below.
    pub(super) fn lines(&self) -> Vec<String> {
        let Self {
            name,
            state,
            message,
            ..
        } = self;
        let below = |label: &str, text: &String| format!("{:25}{label}{text}", "");
        let causes = self.causes.iter().map(|it| below("caused by: ", it));
        let hints = self.hints.iter().map(|it| below("hint: ", it));
        [format!("{state:<10} {name:<13} {message}")]
            .into_iter()
            .chain(causes)
            .chain(hints)
            .collect()
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "name": self.name,
            "state": self.state.word(),
            "message": self.message,
            "causes": self.causes,
            "hints": self.hints,
        })
    }
}
