//! What is looked at, in the order in which a job would meet it.

use std::{io, path::Path, time::Duration};

use authferry_codex::Home;
use authferry_core::{Fingerprint, Generation, Outcome, Stored};
use authferry_runner::rescue::{self, Rescue};
use authferry_runner::{Introduction, Placement, foresee};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use tokio::time::timeout;

use super::check::{Check, State, at};
use super::claim::Claim;
use crate::args::{Doctor, Global};
use crate::commands::status::{due_at, ending_at, written};
use crate::commands::{ahead, block_on, from_now, look_into_second_store};
use crate::copies::{self, Judged};
use crate::ending::{Ending, Result};
use crate::plan::{JobTerms, Plan};
use crate::telling::time::text;
use crate::{exit, telling, trust};

/// How long Codex may take to tell its version.
const INTRODUCTION: Duration = Duration::from_secs(20);

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) checks: Vec<Check>,
    /// What the store holds, for programs.
    pub(super) facts: Map<String, Value>,
    /// The plan of the account that the login is of.
    pub(super) account_plan: Option<String>,
    /// Whether the store was seen to keep a login that is replaced.
    pub(super) history: bool,
}

pub(super) fn make(plan: &Plan, args: &Doctor, global: &Global) -> Result<Found> {
    let mut found = Found::default();
    found.look("trust", trusted(plan, args, global), Clone::clone);
    found.look("environment", plan.environment(), |()| {
        "no variable makes Codex pass the login by".to_owned()
    });
    let home = found.look("home", home(plan, global), |home| {
        format!("{} is fit for a login", home.dir().display())
    });

    // Where there is no place for a rescue, there is none.
    let rescue = plan.rescue(global);
    let (read, second, judged, claim, history) = block_on(plan, async {
        let read = read(plan, args).await;
        let second = match &rescue {
            Ok(rescue) => look_into_second_store(rescue, args.common.patience).await,
            Err(_) => Ok(()),
        };
        let judged = match (&read, &rescue) {
            (Ok(stored), Ok(rescue)) => {
                // A separate check reports a folder that cannot be listed.
                let patience = args.common.patience;
                let judged = copies::judged(plan, rescue, stored.as_ref(), patience).await;
                judged.unwrap_or_default()
            }
            (Err(_), _) | (_, Err(_)) => Vec::new(),
        };
        // Whoever cannot be read will not tell of the claim either.
        if read.is_err() {
            let history = plan.store.guarantees().history;
            return (read, second, judged, Claim::Untold, history);
        }
        let claim = Claim::ask(plan, args).await;
        let history = timeout(args.common.patience, plan.store.keeps_history()).await;
        (read, second, judged, claim, history.unwrap_or(false))
    })?;
    found.history = history;
    let stored = found.look("store", read, |_| format!("{} can be read", plan.store));
    if let Some(stored) = stored {
        let head = stored.as_ref().and_then(|stored| {
            let login = authferry_codex::parse(&stored.secret).ok()?;
            Some(login.fingerprint)
        });
        let folder = rescue.as_ref().map_or(Path::new(""), Rescue::folder);
        let login = login(plan, folder, stored, &judged, &claim);
        let login = found.look("login", login, |(stored, it)| {
            let by = written(stored.stamp.as_ref());
            let (fingerprint, account) = (it.fingerprint, &it.identity);
            format!(
                "{fingerprint} of account {account}, version {}, {by}",
                stored.version
            )
        });
        if let Some((stored, generation)) = login {
            found.account_plan = authferry_codex::plan(&stored.secret);
            found.checks.push(token(plan, &generation));
            found.facts = facts(&stored, &generation);
            if let Some(home) = &home {
                found.checks.push(match &rescue {
                    Ok(rescue) => auth_file(plan, rescue, home, &stored),
                    Err(ending) => Check::failed("auth file", (**ending).clone()),
                });
            }
        }
        if let Ok(rescue) = &rescue {
            found.checks.extend(kept(rescue, &judged, head));
        }
        let judged = copies::for_programs(&judged);
        found.facts.insert("copies".to_owned(), json!(judged));
    }
    if let Some(store) = &plan.second_store {
        found.look("second store", second, |()| format!("{store} can be read"));
    }
    found.checks.extend(claim.check(plan));
    found.checks.extend(codex(plan, global));
    Ok(found)
}

impl Found {
    /// Notes what came of something, and returns it if it is as it has to be.
    fn look<T>(
        &mut self,
        name: &'static str,
        came: Result<T>,
        say: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        match came {
            Ok(value) => {
                self.checks.push(Check::new(name, State::Ok, say(&value)));
                Some(value)
            }
            Err(ending) => {
                self.checks.push(Check::failed(name, *ending));
                None
            }
        }
    }
}

fn trusted(plan: &Plan, args: &Doctor, global: &Global) -> Result<String> {
    plan.trust(args.allow_untrusted, global)?;
    Ok(match trust::distrust(&plan.env) {
        Some(reason) => format!("{reason}, which is allowed"),
        None => "nothing speaks against this job".to_owned(),
    })
}

/// The home alone, whatever the environment is like.
fn home(plan: &Plan, global: &Global) -> Result<Home> {
    let home = plan.home_as_left(global)?;
    home.preflight().map_err(|unfit| telling::unfit(&unfit))?;
    Ok(home)
}

async fn read(plan: &Plan, args: &Doctor) -> Result<Option<Stored>> {
    let read = timeout(args.common.patience, plan.store.read()).await;
    let read = read.map_err(|_| telling::out_of_time(&plan.store))?;
    Ok(read.map_err(|error| telling::store(&error))?)
}

/// The login that the store holds, if it is one, and is not known to be dead.
fn login(
    plan: &Plan,
    rescue: &Path,
    stored: Option<Stored>,
    copies: &[Judged],
    claim: &Claim,
) -> Result<(Stored, Generation)> {
    let store = &plan.store;
    let places = || copies.iter().map(|copy| &copy.location);
    let stored = stored.ok_or_else(|| match copies {
        [] => telling::nothing_stored(store),
        [..] => telling::only_copies(store, rescue, None, places()),
    })?;
    let generation = authferry_codex::parse(&stored.secret).map_err(|why| match copies {
        [] => telling::unusable_stored(store, Some(why)),
        [..] => telling::only_copies(store, rescue, Some(why), places()),
    })?;
    let mark = claim.mark();
    match mark.filter(|mark| mark.fingerprint == generation.fingerprint) {
        Some(mark) => Err(telling::dead(&*plan.store, &mark).into()),
        None => Ok((stored, generation)),
    }
}

fn token(plan: &Plan, generation: &Generation) -> Check {
    let now = OffsetDateTime::now_utc();
    let issued = &generation.issued;
    let ends = at(issued.exp).map_or_else(|| "tells no end".to_owned(), |at| ending_at(at, now));
    let due = due_at(at(issued.due()), now);
    let horizon = from_now(ahead::horizon(None, plan));
    let first = issued.is_due(horizon) && issued.is_half_over(from_now(Duration::ZERO));
    let first = if first {
        ": the next job rotates it first"
    } else {
        ""
    };
    Check::new("access token", State::Ok, format!("{ends}; {due}{first}"))
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

/// What a restore would make of what is in the home.
fn auth_file(plan: &Plan, rescue: &Rescue, home: &Home, stored: &Stored) -> Check {
    const NAME: &str = "auth file";
    let job = plan.job(home, rescue, &JobTerms::default());
    let report = match foresee(&job, stored) {
        Ok(report) => report,
        Err(error) => return Check::failed(NAME, telling::not_begun(&error)),
    };
    if let Outcome::Refused(_) = report.outcome {
        return Check::failed(NAME, telling::trip(&job, &report, None));
    }
    let file = home.auth_file().display();
    match report.placement {
        Some(Placement::Adopted) => {
            let message = format!(
                "{file} is newer: an earlier persist was lost, and the next job puts it into the store first"
            );
            Check::new(NAME, State::Warning, message)
        }
        Some(Placement::Kept) => {
            Check::new(NAME, State::Ok, format!("{file} has the login already"))
        }
        Some(Placement::Placed) | None => Check::new(
            NAME,
            State::Ok,
            format!("the login can be placed in {file}"),
        ),
    }
}

/// The copies of this store's login that the machine has, and what each is worth.
fn kept(rescue: &Rescue, copies: &[Judged], head: Option<Fingerprint>) -> Vec<Check> {
    const NAME: &str = "copies";
    let folder = rescue.folder();
    if let Err(error) = rescue::check(folder) {
        return vec![Check::failed(NAME, telling::rescue_folder(folder, &error))];
    }
    let encrypted = copies::encrypted(rescue, head);
    if copies.is_empty() && encrypted.is_empty() {
        let message = "this machine keeps no copy of the login";
        return vec![Check::new(NAME, State::Ok, message)];
    }
    let state = |copy: &Judged| {
        if copy.is_adopted() {
            State::Warning
        } else {
            State::Ok
        }
    };
    let check = |copy: &Judged| Check::new(NAME, state(copy), copy.line());
    let of_encrypted = |(unknown, line)| {
        let state = if unknown { State::Warning } else { State::Ok };
        Check::new(NAME, state, line)
    };
    let checks = copies.iter().map(check);
    checks
        .chain(encrypted.into_iter().map(of_encrypted))
        .collect()
}

/// Where a login would be rotated, and by whom.
fn codex(plan: &Plan, global: &Global) -> Vec<Check> {
    let codex = match plan.codex(global, None) {
        Ok(codex) => codex,
        Err(ending) => return vec![Check::failed("codex", *ending)],
    };
    let temp = &plan.rotations;
    let said = match codex.introduction(temp, INTRODUCTION) {
        Ok(said) => said,
        Err(error) => {
            let ending = Ending {
                hints: vec![telling::elsewhere(temp)],
                ..telling::not_begun(&error)
            };
            let home = Check::failed("private home", ending);
            let codex = Check::new("codex", State::NotTried, "it has no home to be asked in");
            return vec![home, codex];
        }
    };
    let message = format!("a login can be rotated in {}", temp.display());
    vec![
        Check::new("private home", State::Ok, message),
        introduced(&codex.place().unwrap_or(codex.program), said),
    ]
}

fn introduced(program: &Path, said: Introduction) -> Check {
    const NAME: &str = "codex";
    let program = program.display();
    let failed = |code, what: String| Ending::refused(code, what);
    match said {
        Introduction::Version(words) if words.is_empty() => {
            let message = format!("{program}, which does not tell its version");
            Check::new(NAME, State::Ok, message)
        }
        Introduction::Version(words) => Check::new(NAME, State::Ok, format!("{program}: {words}")),
        Introduction::NotStarted(error) => {
            let (code, hint) = telling::not_started(&error);
            let ending = failed(code, format!("`{program}` cannot be started")).caused_by(&error);
            Check::failed(NAME, ending.hint(hint).hint(telling::OTHER_CODEX))
        }
        Introduction::Failed(code, words) => {
            let known = [exit::NOT_FOUND, exit::NOT_EXECUTABLE].contains(&code);
            let code_of_run = if known { code } else { exit::NOT_EXECUTABLE };
            let ending = failed(
                code_of_run,
                format!("`{program} --version` ends with {code}"),
            );
            let said = (!words.is_empty()).then(|| io::Error::other(words));
            let ending = match &said {
                Some(said) => ending.caused_by(said),
                None => ending,
            };
            Check::failed(NAME, ending.hint(telling::OTHER_CODEX))
        }
        Introduction::OutOfTime => {
            let limit = humantime::format_duration(INTRODUCTION);
            let message = format!("`{program} --version` was not done within {limit}");
            Check::new(NAME, State::Warning, message)
        }
    }
}
