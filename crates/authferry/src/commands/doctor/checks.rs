//! The checks, in the order of a job.

use std::{path::Path, time::Duration};

use authferry_codex::Home;
use authferry_core::{Fingerprint, Generation, Outcome, Stored};
use authferry_runner::rescue::{self, Rescue};
use authferry_runner::{Placement, RefusalNote, preview_restore};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use tokio::time::timeout;

use super::check::{Check, State};
use super::codex;
use super::lease::LeaseCheck;
use super::login_use;
use crate::args::{DoctorArgs, Global};
use crate::commands::status::{at, due_at, expiry_at, written};
use crate::commands::{block_on, from_now, read_second_store, rotate_first};
use crate::copies::{self, EncryptedCopy, JudgedCopy};
use crate::messages::time::text;
use crate::outcome::Result;
use crate::plan::{self, JobTerms, Plan};
use crate::{messages, trust};

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
        let dir = home.dir().display();
        match home.open_mode() {
            Ok(Some(mode)) => format!(
                "{dir} can hold a login: a job closes it to other users first (mode {mode:04o})"
            ),
            Ok(None) | Err(_) => format!("{dir} can hold a login"),
        }
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
    let secret = stored.as_ref().and_then(Option::as_ref);
    let secret = secret.map(|stored| stored.secret.duplicate());
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
            let refused = refused(plan, &lease, &generation);
            findings
                .checks
                .push(token(plan, &generation, refused.is_some()));
            findings.checks.extend(refused);
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
    codex::check(plan, global, &mut findings);
    let login_use = login_use::check(plan, global, home.as_ref(), secret.as_ref());
    findings.checks.push(login_use);
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

/// The check of the home and of its settings, without the environment.
fn home(plan: &Plan, global: &Global) -> Result<Home> {
    let home = plan.home_as_left(global)?;
    home.preflight()
        .map_err(|error| messages::home_error(&error))?;
    plan::settings(&plan::setting_sources(&home, &[]))?;
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
    let note = lease.refusal();
    let note = note.filter(|note| note.fingerprint == generation.fingerprint);
    match note.filter(RefusalNote::is_dead) {
        Some(note) => {
            Err(messages::refused_by_provider(&*plan.store, &note, Some(&generation)).into())
        }
        None => Ok((stored, generation)),
    }
}

fn token(plan: &Plan, generation: &Generation, is_refused: bool) -> Check {
    let now = OffsetDateTime::now_utc();
    let issued = &generation.issued;
    let ends = at(issued.exp).map_or_else(|| "expiry unknown".to_owned(), |at| expiry_at(at, now));
    let due = due_at(at(issued.due()), now);
    let rotate_within = from_now(rotate_first::rotate_within(None, plan));
    let is_rotated = issued.is_due(rotate_within) && issued.is_half_over(from_now(Duration::ZERO));
    let rotation = if is_rotated && !is_refused {
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

/// The check of a login that the provider refuses without a reason: a job starts, but may be unable
/// to rotate the login.
fn refused(plan: &Plan, lease: &LeaseCheck, generation: &Generation) -> Option<Check> {
    let note = lease.refusal()?;
    if note.fingerprint != generation.fingerprint {
        return None;
    }
    let ending = messages::refused_by_provider(&*plan.store, &note, Some(generation));
    let check = Check::new("refresh token", State::Warning, ending.message);
    Some(ending.hints.into_iter().fold(check, Check::hint))
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
    let of_encrypted = |copy: EncryptedCopy| {
        let state = if copy.may_be_later {
            State::Warning
        } else {
            State::Ok
        };
        Check::new(NAME, state, copy.line)
    };
    let checks = copies.iter().map(check);
    checks
        .chain(encrypted.into_iter().map(of_encrypted))
        .collect()
}
