//! The verdicts on the copies outside of the store, for messages and reports.

use std::{io, time::Duration};

use authferry_core::copies::{Copy, Rules, Verdict, settle};
use authferry_core::{Fingerprint, Held, Stored};
use authferry_runner::RefusalNote;
use authferry_runner::rescue::{Location, Record, Rescue};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::messages::time::at;
use crate::plan::Plan;

/// A copy of a login of this store, with its verdict.
pub(crate) struct JudgedCopy {
    pub(crate) location: Location,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) verdict: Verdict,
    pub(crate) record: Option<Record>,
}

/// Judges the copies outside of the home.
///
/// Reads the list of refused logins only if there is a copy.
pub(crate) async fn judge(
    plan: &Plan,
    rescue: &Rescue,
    stored: Option<&Stored>,
    store_timeout: Duration,
) -> io::Result<Vec<JudgedCopy>> {
    let head = stored.map(|stored| {
        let generation = authferry_codex::parse(&stored.secret).ok();
        Held::new(stored.version.clone(), generation, stored.stamp.as_ref())
    });
    let store = plan.store.to_string();
    let found = authferry_runner::find_read_only(&store, rescue, Some(&plan.rotations))?;
    let refused = if found.is_empty() {
        Vec::new()
    } else {
        let refused = timeout(
            store_timeout,
            RefusalNote::refused_generations(&*plan.store),
        )
        .await;
        refused.unwrap_or_default()
    };
    let rules = Rules {
        refused,
        ..Rules::default()
    };
    let copies: Vec<Copy> = found.iter().map(|found| found.copy.clone()).collect();
    let verdicts = settle(head.as_ref(), &copies, &rules).verdicts;
    let judged = found
        .into_iter()
        .zip(verdicts)
        // Skips a copy of another address, unless it may be a later login of this store.
        .filter(|(found, verdict)| found.elsewhere.is_none() || *verdict != Verdict::Listed)
        .filter_map(|(found, verdict)| {
            Some(JudgedCopy {
                fingerprint: found.fingerprint()?,
                verdict,
                location: found.location,
                record: found.record,
            })
        })
        .collect();
    Ok(judged)
}

/// The copies as JSON, the same in every report.
pub(crate) fn to_json(copies: &[JudgedCopy]) -> Vec<Value> {
    copies.iter().map(JudgedCopy::to_json).collect()
}

impl JudgedCopy {
    /// Whether the next job puts the copy into the store.
    pub(crate) fn is_adopted(&self) -> bool {
        matches!(self.verdict, Verdict::Later | Verdict::WrittenAfterHead)
    }

    /// Describes the verdict.
    pub(crate) fn description(&self) -> &'static str {
        describe(self.verdict)
    }

    /// One line: the fingerprint, the verdict and the location.
    pub(crate) fn line(&self) -> String {
        let (login, verdict, place) = (self.fingerprint, self.description(), &self.location);
        format!("{login}, {verdict}: {place}")
    }

    fn to_json(&self) -> Value {
        json!({
            "file": self.location.place(),
            "fingerprint": self.fingerprint.to_string(),
            "verdict": name(self.verdict),
            "reason": self.record.as_ref().map(|record| record.reason),
            "kept_at": self.record.as_ref().map(|record| at(record.time)),
            "job": self.record.as_ref().map(|record| record.job.clone()),
        })
    }
}

/// An encrypted copy, of which this machine can read only the name.
pub(crate) struct EncryptedCopy {
    pub(crate) location: Location,
    /// Whether the copy may be later than the head.
    pub(crate) may_be_later: bool,
    /// A line about the copy.
    pub(crate) line: String,
}

/// The encrypted copies on this machine.
pub(crate) fn encrypted(rescue: &Rescue, head: Option<Fingerprint>) -> Vec<EncryptedCopy> {
    let head = head.map(|head| head.to_string());
    let files = rescue.encrypted().unwrap_or_default().into_iter();
    let copy = |location: Location| {
        let (login, place) = (location.name(), location.place());
        let may_be_later = Some(&login) != head.as_ref();
        let line = if may_be_later {
            format!("{login}, encrypted: may be later than the store's login: {place}")
        } else {
            let verdict = describe(Verdict::IsHead);
            format!("{login}, encrypted, {verdict}: {place}")
        };
        EncryptedCopy {
            location,
            may_be_later,
            line,
        }
    };
    files.map(copy).collect()
}

/// Describes a verdict: how the copy compares with the store's login.
pub(crate) fn describe(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::OnlyCopy => "the store holds no login, and no job puts this one there",
        Verdict::IsHead => "the store holds it",
        Verdict::Ancestor => "replaced: the store held it before its current login",
        Verdict::OtherFamily => {
            "of another family: tried if the provider refuses the store's login"
        }
        Verdict::RefusedBefore => "refused by the provider",
        Verdict::Later => "later than the store's login: the next job puts it into the store",
        Verdict::WrittenAfterHead => {
            "perhaps later than the store's login: the next job puts it into the store"
        }
        Verdict::Earlier => "earlier than the store's login",
        Verdict::Elsewhere => {
            "perhaps later, and saved for another address: no job starts until it is put into the \
             store or dropped"
        }
        Verdict::Unclear => "perhaps later: tried if the provider refuses the store's login",
        Verdict::Missing
        | Verdict::UnusableKnown
        | Verdict::AuthFileError
        | Verdict::OtherIdentity
        | Verdict::UnknownEarlier
        | Verdict::UnknownFamily
        | Verdict::Listed => "not known to belong to the store's login: no job uses it",
    }
}

/// The name of a verdict in JSON.
fn name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::OnlyCopy => "only-copy",
        Verdict::Missing => "missing",
        Verdict::UnusableKnown | Verdict::AuthFileError => "unusable",
        Verdict::IsHead => "is-stored",
        Verdict::Ancestor => "replaced",
        Verdict::OtherFamily => "other-family",
        Verdict::OtherIdentity => "other-identity",
        Verdict::RefusedBefore => "refused",
        Verdict::Later => "later",
        Verdict::Earlier | Verdict::UnknownEarlier => "earlier",
        Verdict::WrittenAfterHead | Verdict::Unclear => "unclear",
        Verdict::Elsewhere => "elsewhere",
        Verdict::UnknownFamily | Verdict::Listed => "unknown",
    }
}
