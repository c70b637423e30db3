//! The checks of the private home and of the Codex that rotates.

use std::{io, path::Path, time::Duration};

use authferry_codex::versions::{CodexVersion, Support, TESTED};
use authferry_runner::VersionAnswer;
use serde_json::json;

use super::check::{Check, State};
use super::checks::Findings;
use crate::args::Global;
use crate::outcome::Ending;
use crate::plan::Plan;
use crate::{exit, messages};

/// The timeout of `codex --version`.
const VERSION_TIMEOUT: Duration = Duration::from_secs(20);

const NAME: &str = "codex";

pub(super) fn check(plan: &Plan, global: &Global, findings: &mut Findings) {
    let codex = match plan.codex(global, None) {
        Ok(codex) => codex,
        Err(ending) => return findings.checks.push(Check::failed(NAME, *ending)),
    };
    let temp = &plan.rotations;
    let answer = match codex.query_version(temp, VERSION_TIMEOUT) {
        Ok(answer) => answer,
        Err(error) => {
            let ending = Ending {
                hints: vec![messages::other_rotations_folder(temp)],
                ..messages::start_error(&error)
            };
            let home = Check::failed("private home", ending);
            let message = "Codex has no private home to run in";
            let codex = Check::new(NAME, State::NotTried, message);
            return findings.checks.extend([home, codex]);
        }
    };
    let message = format!("a login can be rotated in {}", temp.display());
    findings
        .checks
        .push(Check::new("private home", State::Ok, message));
    if let VersionAnswer::Version(text) = &answer {
        let version = CodexVersion::parse(text);
        let support = version.map(|version| word(version.support()));
        let version = version.map(|version| version.to_string());
        let facts = [
            ("codex_version", json!(version)),
            ("codex_support", json!(support)),
        ];
        let facts = facts.map(|(name, fact)| (name.to_owned(), fact));
        findings.facts.extend(facts);
    }
    let program = codex.locate().unwrap_or(codex.program);
    findings.checks.push(check_version(&program, answer));
}

fn check_version(program: &Path, answer: VersionAnswer) -> Check {
    let program = program.display();
    let failed = |code, problem: String| Ending::refused(code, problem);
    match answer {
        VersionAnswer::Version(text) if text.is_empty() => {
            let message = format!("{program}, which prints no version");
            Check::new(NAME, State::Ok, message)
        }
        VersionAnswer::Version(text) => {
            check_support(&format!("{program}: {text}"), CodexVersion::parse(&text))
        }
        VersionAnswer::NotStarted(error) => {
            let (code, hint) = messages::not_started(&error);
            let ending = failed(code, format!("`{program}` cannot be started")).caused_by(&error);
            Check::failed(NAME, ending.hint(hint).hint(messages::OTHER_CODEX))
        }
        VersionAnswer::Failed(code, text) => {
            let is_known = [exit::NOT_FOUND, exit::NOT_EXECUTABLE].contains(&code);
            let run_code = if is_known { code } else { exit::NOT_EXECUTABLE };
            let ending = failed(
                run_code,
                format!("`{program} --version` exited with {code}"),
            );
            let cause = (!text.is_empty()).then(|| io::Error::other(text));
            let ending = match &cause {
                Some(cause) => ending.caused_by(cause),
                None => ending,
            };
            Check::failed(NAME, ending.hint(messages::OTHER_CODEX))
        }
        VersionAnswer::TimedOut => {
            let limit = humantime::format_duration(VERSION_TIMEOUT);
            let message = format!("timeout: `{program} --version` did not exit within {limit}");
            Check::new(NAME, State::Warning, message)
        }
    }
}

/// The check of a version. An untested one may rotate or write a login in a way that is not known.
fn check_support(codex: &str, version: Option<CodexVersion>) -> Check {
    let [oldest, .., newest] = TESTED else {
        unreachable!("more than one version is tested");
    };
    let untested = match version.map(CodexVersion::support) {
        Some(Support::Tested) => return Check::new(NAME, State::Ok, format!("{codex}, tested")),
        Some(Support::Between) => {
            return Check::new(NAME, State::Ok, format!("{codex}, between tested versions"));
        }
        Some(Support::Newer) => format!("newer than {newest}, the newest tested version"),
        Some(Support::Older) => format!("older than {oldest}, the oldest tested version"),
        Some(Support::PreRelease) => "a pre-release, which is not tested".to_owned(),
        None => "an unknown version".to_owned(),
    };
    let message = format!("{codex}, {untested}: it may rotate or write a login in another way");
    Check::new(NAME, State::Warning, message).hint(format!(
        "install a tested version for the rotation: `npm install --global @openai/codex@{newest}`"
    ))
}

/// The word for programs.
fn word(support: Support) -> &'static str {
    match support {
        Support::Tested => "tested",
        Support::Between => "between-tested",
        Support::Newer => "newer",
        Support::Older => "older",
        Support::PreRelease => "pre-release",
    }
}
