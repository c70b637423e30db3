//! What needs attention about a login: the problems, the worst first.

use std::{
    fmt::{self, Display},
    path::Path,
    time::Duration,
};

use authferry_core::Issued;
use authferry_core::copies::Verdict;
use authferry_runner::rescue::Reason;
use authferry_runner::{LeaseDefect, RefusalNote};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::times::{at, rounded};
use crate::args::StatusArgs;
use crate::copies::{EncryptedCopy, JudgedCopy};
use crate::messages::{self, time::text};
use crate::outcome::Ending;

/// How long a rotation may be due. The keep-alive runs daily and rotates three days before a login
/// is due, and a job rotates a login that is due. So after this time neither has run, or both fail.
const OVERDUE_AFTER: Duration = Duration::from_hours(24);

/// How urgent a problem is, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    /// Jobs fail, or will soon, and no job can mend that.
    Critical,
    Warning,
}

impl Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
        })
    }
}

/// The kinds of problem, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ProblemKind {
    /// A copy outside of the store is later than the store's login, or may be.
    LaterCopy,
    /// The provider refuses the login for good.
    Dead,
    /// The provider refuses the login without a reason.
    Refused,
    /// The access token has expired.
    Expired,
    /// The second store, which may hold a later copy, cannot be read.
    SecondStore,
    /// The lease, which may hold the note of a refusal, cannot be read.
    LeaseUnknown,
    /// The access token expires soon.
    Expiring,
    /// No job has rotated the login in time.
    Overdue,
    /// The lease record has a defect.
    Lease,
}

impl ProblemKind {
    pub(super) const ALL: [Self; 9] = [
        Self::LaterCopy,
        Self::Dead,
        Self::Refused,
        Self::Expired,
        Self::SecondStore,
        Self::LeaseUnknown,
        Self::Expiring,
        Self::Overdue,
        Self::Lease,
    ];

    /// The name for programs.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::LaterCopy => "later-copy",
            Self::Dead => "dead",
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::SecondStore => "second-store",
            Self::LeaseUnknown => "lease-unknown",
            Self::Expiring => "expiring",
            Self::Overdue => "overdue",
            Self::Lease => "lease",
        }
    }
}

/// A problem, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) kind: ProblemKind,
    pub(super) severity: Severity,
    /// A clause about the login.
    pub(super) text: String,
    pub(super) hint: String,
}

impl Problem {
    fn warning(kind: ProblemKind, text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            kind,
            severity: Severity::Warning,
            text: text.into(),
            hint: hint.into(),
        }
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "problem": self.kind.name(),
            "severity": self.severity.to_string(),
            "message": self.text,
            "hint": self.hint,
        })
    }
}

/// Sorts problems: the critical ones first, then by kind.
pub(super) fn sort(problems: &mut [Problem]) {
    problems.sort_by_key(|problem| (problem.severity, problem.kind));
}

/// The terms of `--within` and `--critical`, and the time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) now: OffsetDateTime,
    within: Duration,
    critical: Duration,
}

impl Limits {
    pub(super) fn new(args: &StatusArgs, now: OffsetDateTime) -> Self {
        Self {
            now,
            within: args.within,
            critical: args.critical,
        }
    }

    /// Whether the time is at most this far away.
    fn is_near(self, time: OffsetDateTime, limit: Duration) -> bool {
        time - self.now <= limit
    }
}

/// The problems of the tokens in the store.
pub(super) fn of_tokens(
    store: &dyn Display,
    issued: &Issued,
    refusal: Option<&RefusalNote>,
    limits: Limits,
) -> Vec<Problem> {
    let now = limits.now;
    let expiry = at(issued.exp);
    let has_expired = expiry.is_some_and(|expiry| expiry <= now);
    let refresh = messages::pasted::refresh(store);
    let rotate = format!("rotate it: {refresh}, and check that the keep-alive runs every day");
    let mut problems = Vec::new();
    if let Some(note) = refusal {
        let (kind, problem, hint) = if note.is_dead() {
            let problem = "its refresh token is dead";
            (ProblemKind::Dead, problem, messages::RESEED.to_owned())
        } else {
            let problem = "the provider refuses its refresh token without a reason";
            let reseed = messages::RESEED;
            let hint = format!("ask the provider again: {refresh}; if it still refuses, {reseed}");
            (ProblemKind::Refused, problem, hint)
        };
        let until = expiry.filter(|_| !has_expired).map(text);
        let works = until.map_or_else(String::new, |it| format!(", and jobs work only until {it}"));
        let mut problem = Problem::warning(kind, format!("{problem}{works}"), hint);
        if expiry.is_some_and(|expiry| limits.is_near(expiry, limits.critical)) {
            problem.severity = Severity::Critical;
        }
        problems.push(problem);
    }
    // No job can rotate a refused login.
    let hint = refusal.map_or(rotate.as_str(), |_| messages::RESEED);
    match expiry {
        Some(_) if has_expired => problems.push(Problem {
            severity: Severity::Critical,
            ..Problem::warning(ProblemKind::Expired, "its access token has expired", hint)
        }),
        Some(expiry) if limits.is_near(expiry, limits.within) => {
            let rest = rounded((expiry - now).unsigned_abs());
            let text = format!("its access token expires in {rest}");
            problems.push(Problem::warning(ProblemKind::Expiring, text, hint));
        }
        Some(_) | None => {}
    }
    let due = at(issued.due()).filter(|_| refusal.is_none());
    if let Some(due) = due.filter(|&due| now - due > OVERDUE_AFTER) {
        let text = format!("its rotation is overdue: it is due since {}", text(due));
        problems.push(Problem::warning(ProblemKind::Overdue, text, hint));
    }
    problems
}

/// The problem of a copy that is later than the store's login, or may be.
pub(super) fn of_copy(store: &dyn Display, rescue: &Path, copy: &JudgedCopy) -> Option<Problem> {
    let is_here = copy.location.file().is_some();
    let put = || {
        if is_here && copy.is_adopted() {
            messages::pasted::rescue_put(store, rescue, "", &copy.fingerprint)
        } else {
            messages::put(store, rescue, "", &copy.location)
        }
    };
    let place = if is_here {
        "on this machine".to_owned()
    } else {
        format!("in {}", copy.location)
    };
    let (text, hint) = match copy.verdict {
        Verdict::Later | Verdict::WrittenAfterHead => {
            let hint = format!("let a job adopt it, or {}", put());
            (format!("a later one is saved {place}"), hint)
        }
        Verdict::Elsewhere => {
            let text = format!(
                "one that may be later was saved for another address {place}, and no job starts"
            );
            (text, format!("put it into the store: {}", put()))
        }
        // What a job set aside because another login counts needs no attention.
        Verdict::Unclear if was_not_persisted(copy) => {
            let text = format!("one that may be later is saved {place}");
            (text, format!("put it into the store: {}", put()))
        }
        Verdict::OnlyCopy
        | Verdict::Missing
        | Verdict::UnusableKnown
        | Verdict::AuthFileError
        | Verdict::IsHead
        | Verdict::Ancestor
        | Verdict::OtherFamily
        | Verdict::OtherIdentity
        | Verdict::RefusedBefore
        | Verdict::Earlier
        | Verdict::Unclear
        | Verdict::UnknownEarlier
        | Verdict::UnknownFamily
        | Verdict::Listed => return None,
    };
    Some(Problem::warning(ProblemKind::LaterCopy, text, hint))
}

/// Whether the store did not accept the copy, as far as is known.
fn was_not_persisted(copy: &JudgedCopy) -> bool {
    let record = copy.record.as_ref();
    record.is_none_or(|record| record.reason == Reason::NotPersisted)
}

/// The problem of an encrypted copy, of which this machine knows the name alone.
pub(super) fn of_encrypted(
    store: &dyn Display,
    rescue: &Path,
    copy: &EncryptedCopy,
) -> Option<Problem> {
    let put = messages::put(store, rescue, "", &copy.location);
    let hint = format!("with the age identity in KEY: {put}; or remove the file");
    let text = "an encrypted one that may be later is saved on this machine";
    let problem = Problem::warning(ProblemKind::LaterCopy, text, hint);
    copy.may_be_later.then_some(problem)
}

/// The problem of a second store that cannot be read.
pub(super) fn of_second_store(hint: Option<&String>) -> Problem {
    let hint = hint.cloned().unwrap_or_default();
    Problem::warning(
        ProblemKind::SecondStore,
        "the second store cannot be read",
        hint,
    )
}

/// The problem of a lease that cannot be read: a monitor must not take that for a sound login.
pub(super) fn of_unknown_lease(failure: &Ending) -> Problem {
    let hint = failure.hints.first().cloned().unwrap_or_default();
    let text = format!(
        "it is unknown whether the provider refuses it: {}",
        failure.reason()
    );
    Problem::warning(ProblemKind::LeaseUnknown, text, hint)
}

/// The problem of a lease record with a defect.
pub(super) fn of_lease(store: &dyn Display, defect: LeaseDefect) -> Problem {
    let text = messages::lease_defect(defect);
    Problem::warning(ProblemKind::Lease, text, messages::take_over(store))
}

#[cfg(test)]
mod tests {
    use authferry_codex::Death;
    use authferry_core::Fingerprint;

    use super::*;

    const NOW: i64 = 1_800_000_000;
    const HOUR: i64 = 3600;
    const DAY: i64 = 24 * HOUR;

    /// The defaults of the options.
    fn limits() -> Limits {
        Limits {
            now: OffsetDateTime::from_unix_timestamp(NOW).expect("a time"),
            within: Duration::from_hours(48),
            critical: Duration::from_hours(6),
        }
    }

    /// The problems of a login whose access token has `left` seconds of its ten days.
    fn problems(left: i64, note: Option<&RefusalNote>) -> Vec<(ProblemKind, Severity)> {
        let issued = NOW + left - 10 * DAY;
        let issued = Issued {
            iat: Some(issued),
            exp: Some(NOW + left),
            last_refresh: Some(i128::from(issued) * 1_000_000_000),
        };
        let mut found = of_tokens(&"file:///s", &issued, note, limits());
        sort(&mut found);
        assert!(found.iter().all(|it| !it.hint.is_empty()), "{found:?}");
        found.iter().map(|it| (it.kind, it.severity)).collect()
    }

    #[test]
    fn an_access_token_that_ends_soon_needs_attention() {
        use Severity::{Critical, Warning};
        assert_eq!(problems(2 * DAY + 1, None), []);
        assert_eq!(problems(2 * DAY, None), [(ProblemKind::Expiring, Warning)]);
        // Due for more than a day.
        let soon = [
            (ProblemKind::Expiring, Warning),
            (ProblemKind::Overdue, Warning),
        ];
        assert_eq!(problems(59 * 60, None), soon);
        let over = [
            (ProblemKind::Expired, Critical),
            (ProblemKind::Overdue, Warning),
        ];
        assert_eq!(problems(0, None), over);
    }

    #[test]
    fn an_overdue_rotation_needs_attention_while_the_access_token_lives() {
        // Codex up to 0.116 rotates eight days after the last refresh, at any expiry.
        let old = Issued {
            iat: None,
            exp: Some(NOW + 100 * DAY),
            last_refresh: Some(i128::from(NOW - 9 * DAY - 1) * 1_000_000_000),
        };
        let found = of_tokens(&"file:///s", &old, None, limits());
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].kind, ProblemKind::Overdue);
        let just = Issued {
            last_refresh: Some(i128::from(NOW - 9 * DAY) * 1_000_000_000),
            ..old
        };
        assert_eq!(of_tokens(&"file:///s", &just, None, limits()), []);
    }

    #[test]
    fn a_refused_login_is_critical_shortly_before_its_access_token_ends() {
        use Severity::{Critical, Warning};
        for (death, kind) in [
            (Some(Death::Reused), ProblemKind::Dead),
            (None, ProblemKind::Refused),
        ] {
            let note = RefusalNote {
                fingerprint: Fingerprint::new([7; 8]),
                since: 1,
                tried: 1,
                death,
                by: "a job".to_owned(),
            };
            let problems = |left| problems(left, Some(&note));
            assert_eq!(problems(7 * DAY), [(kind, Warning)]);
            assert_eq!(
                problems(6 * HOUR + 1),
                [(kind, Warning), (ProblemKind::Expiring, Warning)]
            );
            assert_eq!(
                problems(6 * HOUR),
                [(kind, Critical), (ProblemKind::Expiring, Warning)]
            );
            assert_eq!(
                problems(0),
                [(kind, Critical), (ProblemKind::Expired, Critical)]
            );
        }
    }

    #[test]
    fn an_unknown_expiry_is_no_problem() {
        let limits = Limits {
            within: Duration::MAX,
            critical: Duration::MAX,
            ..limits()
        };
        assert_eq!(of_tokens(&"s", &Issued::default(), None, limits), []);
        let later = Issued {
            exp: Some(NOW + DAY),
            ..Issued::default()
        };
        assert_eq!(of_tokens(&"s", &later, None, limits).len(), 1);
    }
}
