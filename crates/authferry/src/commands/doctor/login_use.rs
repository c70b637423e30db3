//! The check of whether Codex uses the login.

use authferry_codex::{Home, LoginStatus};
use authferry_core::Secret;
use authferry_runner::LOGIN_STATUS_TIMEOUT;

use super::check::{Check, State};
use crate::args::Global;
use crate::messages;
use crate::outcome::Result;
use crate::plan::{self, Plan};

const NAME: &str = "login in use";

/// Asks Codex with a made-up login of the workspace of `login`. A home that is refused is not given:
/// another check reports why.
pub(super) fn check(
    plan: &Plan,
    global: &Global,
    home: Option<&Home>,
    login: Option<&Secret>,
) -> Check {
    match home.map(|home| ask(plan, global, home, login)) {
        Some(Ok(LoginStatus::Used)) => Check::new(NAME, State::Ok, "Codex uses the auth file"),
        Some(Ok(LoginStatus::NotUsed | LoginStatus::Unknown)) => {
            let message = "not known whether Codex uses the auth file: it gave no answer";
            Check::new(NAME, State::NotTried, message)
        }
        Some(Err(ending)) => Check::failed(NAME, *ending),
        None => {
            let message =
                "not known whether Codex uses the auth file: its home or settings are refused";
            Check::new(NAME, State::NotTried, message)
        }
    }
}

fn ask(plan: &Plan, global: &Global, home: &Home, login: Option<&Secret>) -> Result<LoginStatus> {
    let sources = plan::setting_sources(home, &[]);
    let settings = plan::settings(&sources)?;
    if let Some(Ok(login)) = login.map(authferry_codex::parse) {
        let checked = settings.check_workspace(&login.identity);
        checked.map_err(|error| messages::home_error(&error))?;
    }
    let codex = plan.codex(global, None)?;
    let answer = codex.query_login_status(&plan.rotations, &sources, login, LOGIN_STATUS_TIMEOUT);
    let Ok(answer) = answer else {
        // The check of the private home reports it.
        return Ok(LoginStatus::Unknown);
    };
    let status = answer.status;
    match answer.error(&codex) {
        Some(error) => Err(messages::home_error(&error).into()),
        None => Ok(status),
    }
}
