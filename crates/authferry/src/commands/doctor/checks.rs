//! The checks, in the order of a job.

use std::{io, path::Path, time::Duration};

use authferry_codex::Home;
use authferry_core::{Fingerprint, Generation, Outcome, Stored};
use authferry_runner::rescue::{self, Rescue};
use authferry_runner::{Placement, VersionAnswer, preview_restore};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use tokio::time::timeout;

use super::check::{Check, State, at};
use super::lease::LeaseCheck;
use crate::args::{DoctorArgs, Global};
use crate::commands::status::{due_at, expiry_at, written};
use crate::commands::{block_on, from_now, read_second_store, rotate_first};
use crate::copies::{self, JudgedCopy};
use crate::messages::time::text;
use crate::outcome::{Ending, Result};
use crate::plan::{JobTerms, Plan};
use crate::{exit, messages, trust};

/// The timeout of `codex --version`.
const VERSION_TIMEOUT: Duration = Duration::from_secs(20);

/// The results of all checks.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) checks: Vec<Check>,
    /// Facts about the store's login, for the JSON report.
    pub(super) facts: Map<String, Value>,
    /// The plan of the login's account.
    pub(super) account_plan: Option<String>,
    /// Whether the store is known to keep a replaced login.
    pub(super) history: bool,
}

pub(super) fn run(plan: &Plan, args: &DoctorArgs, global: &Global) -> Result<Findings> {
    let mut findings = Findings::default();
    findings.add("trust", trusted(plan, args, global), Clone::clone);
    findings.add("environment", plan.environment(), |()| {
        "no variable makes Codex ignore the login".to_owned()
    });
    let home = findings.add("home", home(plan, global), |home| {
        format!("{} can hold a login", home.dir().display())
    });

    // Without a usable rescue folder there are no rescued logins.
    let rescue = plan.rescue(global);
    let (read, second, judged, lease, history) = block_on(plan, async {
        let read = read(plan, args).await;
        let second = match &rescue {
            Ok(rescue) => read_second_store(rescue, args.common.store_timeout).await,
            Err(_) => Ok(()),
        };
        let judged = match (&read, &rescue) {
            (Ok(stored), Ok(rescue)) => {
                // A separate check reports a folder that cannot be listed.
                let store_timeout = args.common.store_timeout;
                let judged = copies::judge(plan, rescue, stored.as_ref(), store_timeout).await;
                judged.unwrap_or_default()
            }
            (Err(_), _) | (_, Err(_)) => Vec::new(),
        };
        // The lease of a store that cannot be read cannot be read either.
        if read.is_err() {
            let history = plan.store.guarantees().history;
            return (read, second, judged, LeaseCheck::Skipped, history);
        }
        let lease = LeaseCheck::make(plan, args).await;
        let history = timeout(args.common.store_timeout, plan.store.keeps_history()).await;
        (read, second, judged, lease, history.unwrap_or(false))
    })?;
    findings.history = history;
    let stored = findings.add("store", read, |_| format!("{} can be read", plan.store));
    if let Some(stored) = stored {
        let head = stored.as_ref().and_then(|stored| {
            let login = authferry_codex::parse(&stored.secret).ok()?;
            Some(login.fingerprint)
        });
        let folder = rescue.as_ref().map_or(Path::new(""), Rescue::folder);
        let login = login(plan, folder, stored, &judged, &lease);
        let login = findings.add("login", login, |(stored, it)| {
            let by = written(stored.stamp.as_ref());
            let (fingerprint, account) = (it.fingerprint, &it.identity);
            format!(
                "{fingerprint} of account {account}, version {}, {by}",
                stored.version
            )
        });
        if let Some((stored, generation)) = login {
            findings.account_plan = authferry_codex::plan(&stored.secret);
            findings.checks.push(token(plan, &generation));
            findings.facts = facts(&stored, &generation);
            if let Some(home) = &home {
                findings.checks.push(match &rescue {
                    Ok(rescue) => auth_file(plan, rescue, home, &stored),
                    Err(ending) => Check::failed("auth file", (**ending).clone()),
                });
            }
        }
        if let Ok(rescue) = &rescue {
            findings.checks.extend(rescued(rescue, &judged, head));
        }
        let judged = copies::to_json(&judged);
        findings.facts.insert("copies".to_owned(), json!(judged));
    }
    if let Some(store) = &plan.second_store {
        findings.add("second store", second, |()| format!("{store} can be read"));
    }
    findings.checks.extend(lease.check(plan));
    findings.checks.extend(codex(plan, global));
    Ok(findings)
}

impl Findings {
    /// Adds the check of a result, and returns the value if it is one.
    fn add<T>(
        &mut self,
        name: &'static str,
        result: Result<T>,
        describe: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        match result {
            Ok(value) => {
                self.checks
                    .push(Check::new(name, State::Ok, describe(&value)));
                Some(value)
            }
            Err(ending) => {
                self.checks.push(Check::failed(name, *ending));
                None
            }
        }
    }
}

fn trusted(plan: &Plan, args: &DoctorArgs, global: &Global) -> Result<String> {
    plan.trust(args.allow_untrusted, global)?;
    Ok(match trust::distrust_reason(&plan.env) {
        Some(reason) => format!("{reason}, which `--allow-untrusted` allows"),
        None => "this job is trusted".to_owned(),
    })
}

/// The check of the home, without the environment.
fn home(plan: &Plan, global: &Global) -> Result<Home> {
    let home = plan.home_as_left(global)?;
    home.preflight()
        .map_err(|error| messages::home_error(&error))?;
    Ok(home)
}

async fn read(plan: &Plan, args: &DoctorArgs) -> Result<Option<Stored>> {
    let read = timeout(args.common.store_timeout, plan.store.read()).await;
    let read = read.map_err(|_| messages::out_of_time(&plan.store))?;
    Ok(read.map_err(|error| messages::store(&error))?)
}

/// The store's login, unless it is unusable or known to be dead.
fn login(
    plan: &Plan,
    rescue: &Path,
    stored: Option<Stored>,
    copies: &[JudgedCopy],
    lease: &LeaseCheck,
) -> Result<(Stored, Generation)> {
    let store = &plan.store;
    let places = || copies.iter().map(|copy| &copy.location);
    let stored = stored.ok_or_else(|| match copies {
        [] => messages::nothing_stored(store),
        [..] => messages::only_copies(store, rescue, None, places()),
    })?;
    let generation = authferry_codex::parse(&stored.secret).map_err(|why| match copies {
        [] => messages::unusable_stored(store, Some(why)),
        [..] => messages::only_copies(store, rescue, Some(why), places()),
    })?;
    let note = lease.dead_login();
    match note.filter(|note| note.fingerprint == generation.fingerprint) {
        Some(note) => Err(messages::dead(&*plan.store, &note).into()),
        None => Ok((stored, generation)),
    }
}

fn token(plan: &Plan, generation: &Generation) -> Check {
    let now = OffsetDateTime::now_utc();
    let issued = &generation.issued;
    let ends = at(issued.exp).map_or_else(|| "expiry unknown".to_owned(), |at| expiry_at(at, now));
    let due = due_at(at(issued.due()), now);
    let rotate_within = from_now(rotate_first::rotate_within(None, plan));
    let is_rotated = issued.is_due(rotate_within) && issued.is_half_over(from_now(Duration::ZERO));
    let rotation = if is_rotated {
        ": the next job rotates it first"
    } else {
        ""
    };
    Check::new(
        "access token",
        State::Ok,
        format!("{ends}; {due}{rotation}"),
    )
}

fn facts(stored: &Stored, generation: &Generation) -> Map<String, Value> {
    let time = |seconds| at(seconds).map(text);
    Map::from_iter([
        (
            "fingerprint".to_owned(),
            json!(generation.fingerprint.to_string()),
        ),
        ("account".to_owned(), json!(generation.identity.to_string())),
        ("version".to_owned(), json!(stored.version.as_str())),
        (
            "access_token_ends".to_owned(),
            json!(time(generation.issued.exp)),
        ),
        (
            "rotation_due".to_owned(),
            json!(time(generation.issued.due())),
        ),
    ])
}

/// The result of a restore with the auth file in the home.
fn auth_file(plan: &Plan, rescue: &Rescue, home: &Home, stored: &Stored) -> Check {
    const NAME: &str = "auth file";
    let job = plan.job(home, rescue, &JobTerms::default());
    let report = match preview_restore(&job, stored) {
        Ok(report) => report,
        Err(error) => return Check::failed(NAME, messages::start_error(&error)),
    };
    if let Outcome::Refused(_) = report.outcome {
        return Check::failed(NAME, messages::round_trip(&job, &report, None));
    }
    let file = home.auth_file().display();
    match report.placement {
        Some(Placement::Adopted) => {
            let message = format!(
                "{file} is newer than the store's login: an earlier job did not persist it, and the next job does so first"
            );
            Check::new(NAME, State::Warning, message)
        }
        Some(Placement::Kept) => {
            Check::new(NAME, State::Ok, format!("{file} already holds the login"))
        }
        Some(Placement::Placed) | None => Check::new(
            NAME,
            State::Ok,
            format!("the login can be written to {file}"),
        ),
    }
}

/// The copies of this store's login on this machine, with their verdicts.
fn rescued(rescue: &Rescue, copies: &[JudgedCopy], head: Option<Fingerprint>) -> Vec<Check> {
    const NAME: &str = "copies";
    let folder = rescue.folder();
    if let Err(error) = rescue::check(folder) {
        return vec![Check::failed(NAME, messages::rescue_folder(folder, &error))];
    }
    let encrypted = copies::encrypted(rescue, head);
    if copies.is_empty() && encrypted.is_empty() {
        let message = "no copy of the login is saved on this machine";
        return vec![Check::new(NAME, State::Ok, message)];
    }
    let state = |copy: &JudgedCopy| {
        if copy.is_adopted() {
            State::Warning
        } else {
            State::Ok
        }
    };
    let check = |copy: &JudgedCopy| Check::new(NAME, state(copy), copy.line());
    let of_encrypted = |(may_be_later, line)| {
        let state = if may_be_later {
            State::Warning
        } else {
            State::Ok
        };
        Check::new(NAME, state, line)
    };
    let checks = copies.iter().map(check);
    checks
        .chain(encrypted.into_iter().map(of_encrypted))
        .collect()
}

/// The checks of the private home and of Codex.
fn codex(plan: &Plan, global: &Global) -> Vec<Check> {
    let codex = match plan.codex(global, None) {
        Ok(codex) => codex,
        Err(ending) => return vec![Check::failed("codex", *ending)],
    };
    let temp = &plan.rotations;
    let version = match codex.query_version(temp, VERSION_TIMEOUT) {
        Ok(version) => version,
        Err(error) => {
            let ending = Ending {
                hints: vec![messages::other_rotations_folder(temp)],
                ..messages::start_error(&error)
            };
            let home = Check::failed("private home", ending);
            let codex = Check::new(
                "codex",
                State::NotTried,
                "Codex has no private home to run in",
            );
            return vec![home, codex];
        }
    };
    let message = format!("a login can be rotated in {}", temp.display());
    vec![
        Check::new("private home", State::Ok, message),
        check_version(&codex.locate().unwrap_or(codex.program), version),
    ]
}

fn check_version(program: &Path, version: VersionAnswer) -> Check {
    const NAME: &str = "codex";
    let program = program.display();
    let failed = |code, problem: String| Ending::refused(code, problem);
    match version {
        VersionAnswer::Version(text) if text.is_empty() => {
            let message = format!("{program}, which prints no version");
            Check::new(NAME, State::Ok, message)
        }
        VersionAnswer::Version(text) => Check::new(NAME, State::Ok, format!("{program}: {text}")),
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
