//! What the copies on this machine are worth compared with the store, for people.

use std::{io, time::Duration};

use authferry_core::copies::{Copy, Rules, Verdict, settle};
use authferry_core::{Fingerprint, Held, Stored};
use authferry_runner::Mark;
use authferry_runner::rescue::{Location, Record, Rescue};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::plan::Plan;
use crate::telling::time::at;

/// A copy of a login of this store, and what it is worth now.
pub(crate) struct Judged {
    pub(crate) location: Location,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) verdict: Verdict,
    pub(crate) record: Option<Record>,
}

/// Judges the copies that can be seen outside of the home.
///
/// Which logins the provider refused is looked up only if there is a copy.
pub(crate) async fn judged(
    plan: &Plan,
    rescue: &Rescue,
    stored: Option<&Stored>,
    patience: Duration,
) -> io::Result<Vec<Judged>> {
    let head = stored.map(|stored| {
        let generation = authferry_codex::parse(&stored.secret).ok();
        Held::new(stored.version.clone(), generation, stored.stamp.as_ref())
    });
    let store = plan.store.to_string();
    let found = authferry_runner::look(&store, rescue, Some(&plan.rotations))?;
    let refused = if found.is_empty() {
        Vec::new()
    } else {
        let refused = timeout(patience, Mark::refused(&*plan.store)).await;
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
        // Of another store's login there is nothing to be said here.
        .filter(|(found, verdict)| found.elsewhere.is_none() || *verdict != Verdict::Listed)
        .filter_map(|(found, verdict)| {
            Some(Judged {
                fingerprint: found.fingerprint()?,
                verdict,
                location: found.location,
                record: found.record,
            })
        })
        .collect();
    Ok(judged)
}

/// The copies, for programs: the same in every report.
pub(crate) fn for_programs(copies: &[Judged]) -> Vec<Value> {
    copies.iter().map(Judged::for_programs).collect()
}

impl Judged {
    /// Whether the next job puts it into the store.
    pub(crate) fn is_adopted(&self) -> bool {
        matches!(self.verdict, Verdict::Later | Verdict::WrittenAfterHead)
    }

    /// Says what it is worth.
    pub(crate) fn worth(&self) -> &'static str {
        worth(self.verdict)
    }

    /// Says in one line which login it is, what it is worth and where it is.
    pub(crate) fn line(&self) -> String {
        let (login, worth, place) = (self.fingerprint, self.worth(), &self.location);
        format!("{login}, {worth}: {place}")
    }

    fn for_programs(&self) -> Value {
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

/// Encrypted copies, of which this machine knows the name alone. Each line comes with whether the
/// copy may be later than the head.
pub(crate) fn encrypted(rescue: &Rescue, head: Option<Fingerprint>) -> Vec<(bool, String)> {
    let head = head.map(|head| head.to_string());
    let files = rescue.encrypted().unwrap_or_default().into_iter();
    let line = |location: Location| {
        let (login, place) = (location.name(), location.place());
        if Some(&login) == head.as_ref() {
            let worth = worth(Verdict::IsHead);
            (false, format!("{login}, encrypted, {worth}: {place}"))
        } else {
            let worth = "encrypted: whether it is later than the store's is not known";
            (true, format!("{login}, {worth}: {place}"))
        }
    };
    files.map(line).collect()
}

/// Returns a sentence on what a copy is worth compared with the store's login.
pub(crate) fn worth(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::OnlyCopy => "the store holds no login, and this one is not put there by itself",
        Verdict::IsHead => "the store holds it",
        Verdict::Ancestor => "replaced: the store held it before its present login",
        Verdict::OtherFamily => "of another family: tried if the provider refuses the store's",
        Verdict::RefusedBefore => "refused by the provider",
        Verdict::Later => "later than the store's: the next job puts it there",
        Verdict::WrittenAfterHead => "perhaps later than the store's: the next job puts it there",
        Verdict::Earlier => "earlier than the store's",
        Verdict::Elsewhere => {
            "perhaps later, and kept for another address: no job begins until it is put into the \
             store or dropped"
        }
        Verdict::Unclear => "perhaps later: tried if the provider refuses the store's",
        Verdict::Missing
        | Verdict::UnusableKnown
        | Verdict::Unusable
        | Verdict::OtherIdentity
        | Verdict::UnknownEarlier
        | Verdict::UnknownFamily
        | Verdict::Listed => "not known to belong to the store's login: it is not used by itself",
    }
}

/// The verdict, for programs.
fn name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::OnlyCopy => "only-copy",
        Verdict::Missing => "missing",
        Verdict::UnusableKnown | Verdict::Unusable => "unusable",
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
