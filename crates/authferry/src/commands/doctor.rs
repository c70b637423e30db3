//! `doctor`: checks whether a job would start here, and shows what the store guarantees.

mod check;
mod checks;
mod codex;
mod guarantees;
mod lease;
mod login_use;

use authferry_core::SecretStore;

use crate::args::{DoctorArgs, Global};
use crate::outcome::{Ending, Result};
use crate::plan::Plan;

use check::{Check, State};
use checks::Findings;

pub(crate) fn doctor(args: &DoctorArgs, global: &Global) -> Result<Ending> {
    let plan = Plan::new(global)?;
    let findings = checks::run(&plan, args, global)?;
    Ok(describe(&*plan.store, findings, global.quiet))
}

fn describe(store: &dyn SecretStore, findings: Findings, quiet: bool) -> Ending {
    let Findings {
        checks,
        facts,
        account_plan,
        history,
    } = findings;
    let shown = checks
        .iter()
        .filter(|check| !quiet || check.needs_attention());
    let mut ending = verdict(&checks);
    ending.lines = shown.flat_map(Check::lines).collect();
    if !quiet {
        ending.lines.push(String::new());
        ending.lines.extend(guarantees::lines(store, history));
        ending.lines.push(String::new());
        ending
            .lines
            .push(guarantees::alternative(account_plan.as_deref()));
    }
    let checks: Vec<_> = checks.iter().map(Check::json).collect();
    ending.facts = facts;
    ending
        .fact("store", store.to_string())
        .fact("checks", checks)
        .fact("guarantees", guarantees::json(store, history))
        .fact("store_notes", store.notes())
        .fact("plan", account_plan)
}

/// The first failed check decides, as for a job.
fn verdict(checks: &[Check]) -> Ending {
    let count = |state| checks.iter().filter(|check| check.state == state).count();
    let failed = checks.iter().find(|check| check.state == State::Failed);
    let Some(first) = failed else {
        let message = match count(State::Warning) {
            0 => "this runner is ready".to_owned(),
            1 => "this runner is ready, with 1 warning".to_owned(),
            warnings => format!("this runner is ready, with {warnings} warnings"),
        };
        return Ending::good("ready", message);
    };
    let more = match count(State::Failed) - 1 {
        0 => String::new(),
        1 => "; 1 more check failed".to_owned(),
        others => format!("; {others} more checks failed"),
    };
    let message = format!("this runner is not ready: {}{more}", first.message);
    Ending::bad(first.code, "not-ready", message)
}
