//! `status`: shows what the store holds.

mod attention;
mod lease_reading;
mod prometheus;
mod times;

use std::{path::Path, time::Duration};

use authferry_core::{Generation, Origin, Stamp, Stored};
use authferry_runner::{LeaseDefect, RefusalNote};
use serde_json::Value;
use time::OffsetDateTime;
use tokio::time::timeout;

use attention::{Limits, Problem};
use lease_reading::LeaseReading;
use prometheus::LoginFacts;

use crate::args::{Global, StatusArgs};
use crate::commands::block_on;
use crate::copies::{self, EncryptedCopy, JudgedCopy};
use crate::messages::time::text;
use crate::outcome::{Ending, Result};
use crate::plan::Plan;
use crate::{exit, messages};

pub(crate) use times::{at, due_at, expiry_at};

pub(crate) fn status(args: &StatusArgs, global: &Global) -> Result<Ending> {
    if let Some(file) = &args.prometheus {
        prometheus::check(file, global)?;
    }
    let plan = Plan::new(global)?;
    let found = find(&plan, args, global);
    let store = plan.store.to_string();
    let (ending, metrics) = match found {
        Ok(found) => {
            let metrics = prometheus::text(&store, Some(&found.facts()));
            (found.describe(&plan, args), metrics)
        }
        Err(ending) => (*ending, prometheus::text(&store, None)),
    };
    Ok(match &args.prometheus {
        Some(file) => prometheus::publish(file, &metrics, ending),
        None => ending,
    })
}

/// The store's login, its lease, and the copies outside of the store.
struct Found {
    stored: Stored,
    generation: Generation,
    lease: LeaseReading,
    /// The note that the provider refuses the login.
    refusal: Option<RefusalNote>,
    copies: Vec<JudgedCopy>,
    encrypted: Vec<EncryptedCopy>,
    /// Why the second store could not be read.
    unread: Option<Ending>,
    /// What needs attention, the worst first.
    problems: Vec<Problem>,
    now: OffsetDateTime,
}

/// Reads everything. An error if the store holds no usable login.
fn find(plan: &Plan, args: &StatusArgs, global: &Global) -> Result<Found> {
    // Without a usable rescue folder there are no rescued logins.
    let rescue = plan.rescue(global).ok();
    let store_timeout = args.common.store_timeout;
    let (state, copies, unread) = block_on(plan, async {
        let state = read_store(plan, store_timeout).await?;
        let (copies, unread) = match &rescue {
            Some(rescue) => {
                let unread = rescue.load_second_store(store_timeout).await.err();
                let stored = state.as_ref().map(|(stored, _)| stored);
                let judged = copies::judge(plan, rescue, stored, store_timeout).await;
                let folder = rescue.folder();
                let copies = judged.map_err(|error| messages::rescue_folder(folder, &error))?;
                (copies, unread)
            }
            None => (Vec::new(), None),
        };
        Result::Ok((state, copies, unread))
    })??;
    let folder = rescue.as_ref().map_or(Path::new(""), |it| it.folder());
    let Some((stored, lease)) = state else {
        return Err(empty(plan, folder, &copies).into());
    };
    let generation = authferry_codex::parse(&stored.secret)
        .map_err(|why| unusable(plan, folder, why, &copies))?;
    let head = Some(generation.fingerprint);
    let mut found = Found {
        refusal: lease.refusal(generation.fingerprint),
        stored,
        generation,
        lease,
        copies,
        encrypted: rescue
            .as_ref()
            .map_or_else(Vec::new, |rescue| copies::encrypted(rescue, head)),
        unread: unread.map(|error| messages::second_store(&error)),
        problems: Vec::new(),
        now: OffsetDateTime::now_utc(),
    };
    found.problems = found.find_problems(plan, args, folder);
    Ok(found)
}

async fn read_store(
    plan: &Plan,
    store_timeout: Duration,
) -> Result<Option<(Stored, LeaseReading)>> {
    let read = timeout(store_timeout, plan.store.read()).await;
    let read = read.map_err(|_| messages::out_of_time(&plan.store))?;
    let Some(stored) = read.map_err(|error| messages::store(&error))? else {
        return Ok(None);
    };
    let lease = LeaseReading::make(plan, store_timeout).await;
    Ok(Some((stored, lease)))
}

/// Reports an empty store.
fn empty(plan: &Plan, folder: &Path, copies: &[JudgedCopy]) -> Ending {
    let ending = if copies.is_empty() {
        let problem = format!("{} holds no login yet", plan.store);
        Ending::bad(exit::FAILED, "empty", problem).hint("seed it with `authferry seed FILE`")
    } else {
        Ending {
            outcome: "empty",
            ..messages::only_copies(
                &plan.store,
                folder,
                None,
                copies.iter().map(|it| &it.location),
            )
        }
    };
    with_copies(ending, copies)
}

/// Reports a value that is no usable login.
fn unusable(
    plan: &Plan,
    folder: &Path,
    why: authferry_codex::AuthFileError,
    copies: &[JudgedCopy],
) -> Ending {
    let ending = if copies.is_empty() {
        let problem = format!("the value in {} is unusable: {why}", plan.store);
        Ending::bad(exit::FAILED, "unusable", problem).hint(messages::RESEED)
    } else {
        let places = copies.iter().map(|it| &it.location);
        Ending {
            outcome: "unusable",
            ..messages::only_copies(&plan.store, folder, Some(why), places)
        }
    };
    with_copies(ending, copies)
}

/// Adds the copies to the message about a store without a login.
fn with_copies(mut ending: Ending, copies: &[JudgedCopy]) -> Ending {
    let reason = ending.reason().to_owned();
    ending.message = reason;
    ending.fact("copies", copies::to_json(copies))
}

impl Found {
    fn find_problems(&self, plan: &Plan, args: &StatusArgs, folder: &Path) -> Vec<Problem> {
        let limits = Limits::new(args, self.now);
        let issued = &self.generation.issued;
        let mut problems = attention::of_tokens(&plan.store, issued, self.refusal.as_ref(), limits);
        let copies = self.copies.iter();
        problems.extend(copies.filter_map(|it| attention::of_copy(&plan.store, folder, it)));
        let encrypted = self.encrypted.iter();
        problems
            .extend(encrypted.filter_map(|it| attention::of_encrypted(&plan.store, folder, it)));
        let unread = self.unread.as_ref();
        problems.extend(unread.map(|it| attention::of_second_store(it.hints.first())));
        let failure = self.lease.failure();
        problems.extend(failure.map(attention::of_unknown_lease));
        let defect = self.lease.defect();
        problems.extend(defect.map(|it| attention::of_lease(&plan.store, it)));
        attention::sort(&mut problems);
        problems
    }

    /// The facts for the metrics.
    fn facts(&self) -> LoginFacts<'_> {
        LoginFacts {
            issued: self.generation.issued,
            lease: &self.lease,
            refusal: self.refusal.as_ref(),
            problems: &self.problems,
            copies: self.copies.len() + self.encrypted.len(),
        }
    }

    fn describe(self, plan: &Plan, args: &StatusArgs) -> Ending {
        let mut ending = Ending::good("held", "");
        ending.lines = self.lines(plan);
        if let (true, Some(worst)) = (args.check, self.problems.first()) {
            let problems: Vec<_> = self.problems.iter().map(|it| it.text.as_str()).collect();
            ending.failed = true;
            ending.code = exit::ATTENTION;
            ending.outcome = "attention";
            ending.message = format!(
                "login {} is in {}, but needs attention ({}): {}",
                self.generation.fingerprint,
                plan.store,
                worst.severity,
                problems.join("; ")
            );
            let hints = self.problems.iter().map(|it| &it.hint);
            for hint in hints.filter(|hint| !hint.is_empty()) {
                if !ending.hints.contains(hint) {
                    ending.hints.push(hint.clone());
                }
            }
        }
        if let Some(unread) = &self.unread {
            ending.warnings.push(unread.reason().to_owned());
        }
        if let Some(failure) = self.lease.failure() {
            let causes = failure.causes.iter().map(|cause| format!(": {cause}"));
            let causes: String = causes.collect();
            ending.warnings.push(format!(
                "it is unknown whether the provider refuses the login: {}{causes}",
                failure.reason()
            ));
            ending.hints.extend(failure.hints.iter().cloned());
        }
        self.with_facts(ending, plan)
    }

    /// The rows of the output.
    fn lines(&self, plan: &Plan) -> Vec<String> {
        let Self {
            stored,
            generation,
            now,
            ..
        } = self;
        let mut lines = Vec::new();
        let mut row = |name: &str, value: &dyn std::fmt::Display| {
            lines.push(format!("{name:<13} {value}"));
        };
        row("store", &plan.store);
        row("login", &generation.fingerprint);
        row("account", &generation.identity);
        row("version", &stored.version);
        if let Some(stamp) = &stored.stamp {
            row("generation", &stamp.count);
        }
        row("written", &written(stored.stamp.as_ref()));
        let expiry = at(generation.issued.exp);
        let expiry = expiry.map_or_else(|| "expiry unknown".to_owned(), |at| expiry_at(at, *now));
        row("access token", &expiry);
        let refreshed = last_refresh(generation);
        let refreshed = refreshed.map_or_else(|| "unknown".to_owned(), text);
        row("last refresh", &refreshed);
        row("rotation", &due_at(at(generation.issued.due()), *now));
        if let Some(note) = &self.refusal {
            row("refresh token", &messages::refused_login(note));
        }
        if let Some(failure) = self.lease.failure() {
            row("refresh token", &format!("unknown: {}", failure.reason()));
        }
        if let Some(defect) = self.lease.defect() {
            row("lease", &messages::lease_defect(defect));
        }
        for copy in &self.copies {
            row("copy", &copy.line());
        }
        for copy in &self.encrypted {
            row("copy", &copy.line);
        }
        lines
    }

    fn with_facts(&self, ending: Ending, plan: &Plan) -> Ending {
        let Self {
            stored, generation, ..
        } = self;
        let stamp = stored.stamp.as_ref();
        let since = |is_dead| {
            let note = self.refusal.as_ref();
            note.filter(|note| note.is_dead() == is_dead)
                .map(messages::refused_since)
        };
        let problems: Vec<_> = self.problems.iter().map(Problem::json).collect();
        let severity = self.problems.first().map(|it| it.severity.to_string());
        ending
            .fact("store", plan.store.to_string())
            .fact("fingerprint", generation.fingerprint.to_string())
            .fact("account", generation.identity.to_string())
            .fact("version", stored.version.to_string())
            .fact("generation", stamp.map(|stamp| stamp.count))
            .fact("origin", stamp.map(|stamp| stamp.origin.to_string()))
            .fact(
                "writer",
                stamp
                    .map(|stamp| stamp.writer.clone())
                    .filter(|writer| !writer.is_empty()),
            )
            .fact("access_token_ends", at(generation.issued.exp).map(text))
            .fact("last_refresh", last_refresh(generation).map(text))
            .fact("rotation_due", at(generation.issued.due()).map(text))
            .fact("dead_since", since(true))
            .fact("refused_since", since(false))
            .fact("lease_defect", self.lease.defect().map(defect_name))
            .fact("severity", severity)
            .fact("problems", problems)
            .fact("unknown", self.unknown())
            .fact("copies", copies::to_json(&self.copies))
    }

    /// The fields that are empty because their source cannot be read.
    fn unknown(&self) -> Vec<Value> {
        let of_lease = ["dead_since", "refused_since", "lease_defect"];
        let of_lease = of_lease.iter().filter(|_| self.lease.failure().is_some());
        let of_second_store = ["copies"].iter().filter(|_| self.unread.is_some());
        of_lease
            .chain(of_second_store)
            .map(|&field| field.into())
            .collect()
    }
}

fn last_refresh(generation: &Generation) -> Option<OffsetDateTime> {
    let nanoseconds = generation.issued.last_refresh?;
    OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).ok()
}

/// The name of a defect in JSON.
fn defect_name(defect: LeaseDefect) -> &'static str {
    match defect {
        LeaseDefect::Foreign => "foreign",
        LeaseDefect::EndsTooLate => "ends-too-late",
    }
}

/// How a value was written to the store, and by which writer.
pub(crate) fn written(stamp: Option<&Stamp>) -> String {
    match stamp.map(|stamp| (stamp.origin, stamp.writer.as_str())) {
        None => "by hand".to_owned(),
        // Some stores cannot hold the writer's name.
        Some((Origin::Seed, "")) => "seeded".to_owned(),
        Some((Origin::Rotation, "")) => "persisted".to_owned(),
        Some((Origin::Seed, writer)) => format!("seeded by {writer}"),
        Some((Origin::Rotation, writer)) => format!("persisted by {writer}"),
    }
}
