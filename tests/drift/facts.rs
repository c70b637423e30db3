//! What the code knows of a version: the expectations of the scenarios.

use std::time::Duration;

use authferry_codex::versions::{CodexVersion, RANGES, VersionRange, WriteForm};
use authferry_core::DueRule;

/// The facts that a scenario compares with what it sees.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) due: DueRule,
    pub(crate) write_form: WriteForm,
    /// How long Codex waits for the provider, before it drops the answer.
    pub(crate) answer_timeout: Duration,
}

impl Facts {
    /// Returns the facts of a version. One that is newer than every tested one is expected to do
    /// what the newest does: the table shows where it does not.
    pub(crate) fn of(version: &str) -> Self {
        let known = CodexVersion::parse(version).and_then(CodexVersion::range);
        let newest = &RANGES[RANGES.len() - 1];
        let VersionRange {
            due_rule,
            write_form,
            answer_timeout,
            ..
        } = *known.unwrap_or(newest);
        Self {
            due: due_rule,
            write_form,
            answer_timeout,
        }
    }
}

/// When Codex rotates a login by itself.
pub(crate) fn rule_name(rule: DueRule) -> &'static str {
    match rule {
        DueRule::Age => "refreshed more than 8 days ago",
        DueRule::Ended => "ended",
        DueRule::Ending => "ends within 5 minutes",
        DueRule::Any => "not known",
    }
}

/// How Codex writes the auth file.
pub(crate) fn write_form_name(form: WriteForm) -> &'static str {
    match form {
        WriteForm::InPlace => "in place",
        WriteForm::InPlaceUnderLock => "in place, under `auth.lock`",
        WriteForm::Rename => "by rename",
    }
}
