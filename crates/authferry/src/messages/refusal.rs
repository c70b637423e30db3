//! Messages about a login that the provider refuses.

use std::time::Duration;

use authferry_core::{Generation, SecretStore};
use authferry_runner::RefusalNote;
use time::OffsetDateTime;

use super::time::{at, text};
use crate::outcome::Ending;
use crate::{commands, exit};

/// Reports a login that the provider refuses, according to this rotation or an earlier one.
pub(crate) fn refused_by_provider(
    store: &dyn SecretStore,
    note: &RefusalNote,
    generation: Option<&Generation>,
) -> Ending {
    let expiry = generation.and_then(|it| it.issued.exp);
    let expiry = expiry.filter(|&exp| exp > commands::from_now(Duration::ZERO));
    let expiry = expiry.and_then(|exp| OffsetDateTime::from_unix_timestamp(exp).ok());
    let works = expiry.map_or_else(String::new, |expiry| {
        format!(
            "; jobs work until {}, when its access token expires",
            text(expiry)
        )
    });
    // Without leases, nothing limits the attempts.
    let next = note.next_attempt().filter(|_| store.leases().is_some());
    let attempt = next.map_or_else(String::new, |next| {
        format!("; the next attempt is at {}", at(next))
    });
    let message = format!(
        "login {} in {store} is {}{attempt}{works}",
        note.fingerprint,
        refused_login(note),
    );
    let (outcome, since, hint) = if note.is_dead() {
        ("dead", "dead_since", super::RESEED.to_owned())
    } else {
        let hint = format!(
            "unless a proxy answered in place of the provider, {}",
            super::RESEED
        );
        ("refused", "refused_since", hint)
    };
    let ending = Ending::bad(exit::FAILED, outcome, message)
        .hint(hint)
        .fact("store", store.to_string())
        .fact("fingerprint", note.fingerprint.to_string())
        .fact(since, refused_since(note));
    match next {
        Some(next) => ending.fact("next_attempt", at(next)),
        None => ending,
    }
}

/// Describes a refused login: since when, found by which job, and why.
pub(crate) fn refused_login(note: &RefusalNote) -> String {
    let (since, by) = (refused_since(note), &note.by);
    match note.death {
        Some(death) => format!("dead since {since}, found by {by}: {death}"),
        None => {
            format!("refused by the provider since {since}, found by {by}, without a reason")
        }
    }
}

pub(crate) fn refused_since(note: &RefusalNote) -> String {
    at(note.since)
}
