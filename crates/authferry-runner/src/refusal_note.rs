//! The note in the lease that the provider refuses a generation.

use std::{fmt, str::FromStr};

use authferry_codex::Death;
use authferry_core::{Fingerprint, LeaseStatus, SecretStore};

/// Which refresh token the provider refuses, since when, and which job found it.
///
/// A refusal with the provider's reason is final: the login is dead, and no job spends it until a
/// reseed. A refusal without a reason can come from a gateway between us and the provider. Its note
/// warns and limits further attempts to one in [`RefusalNote::RETRY_AFTER`], but blocks no job.
///
/// The note names one fingerprint, so a reseed need not remove it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusalNote {
    /// The refused generation.
    pub fingerprint: Fingerprint,
    /// When the first job found the refusal, in Unix seconds.
    pub since: u64,
    /// When a job last asked the provider, in Unix seconds; equal to `since` for a dead login.
    pub tried: u64,
    /// The provider's reason: the login is dead. `None` if the provider gave none.
    pub death: Option<Death>,
    /// The human-readable name of the job that found the refusal.
    pub by: String,
}

impl RefusalNote {
    /// How long no job asks the provider again after a refusal without a reason, in seconds.
    pub const RETRY_AFTER: u64 = 3600;

    /// Whether the provider refuses the login for good.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.death.is_some()
    }

    /// Returns when the next attempt is allowed, in Unix seconds; `None` for a dead login.
    #[must_use]
    pub fn next_attempt(&self) -> Option<u64> {
        let next = self.tried.saturating_add(Self::RETRY_AFTER);
        (!self.is_dead()).then_some(next)
    }

    /// Whether an attempt at this time is too early. A time before the last attempt is not: the
    /// clock of the machine that made that attempt may be ahead.
    pub(crate) fn forbids_attempt(&self, now: u64) -> bool {
        match self.next_attempt() {
            None => true,
            Some(next) => (self.tried..next).contains(&now),
        }
    }

    /// Reads the store's note on this generation; `None` if the store has none or the read fails.
    pub async fn read(generation: Fingerprint, store: &dyn SecretStore) -> Option<Self> {
        let status = store.leases()?.look().await.ok()??;
        Self::in_status(generation, &status)
    }

    /// Returns the note on this generation in a lease's status.
    #[must_use]
    pub fn in_status(generation: Fingerprint, status: &LeaseStatus) -> Option<Self> {
        Notes::parse(status.note.as_deref()).on(generation)
    }

    /// Parses the text of a lease's note; `None` if it names no refused generation.
    #[must_use]
    pub fn in_note(note: &str) -> Option<Self> {
        Notes::parse(Some(note)).current
    }

    /// Reads the generations that no job may adopt, because the provider refused them for good;
    /// none if the read fails.
    pub async fn refused_generations(store: &dyn SecretStore) -> Vec<Fingerprint> {
        let Some(leases) = store.leases() else {
            return Vec::new();
        };
        let note = leases.look().await.ok().flatten().and_then(|it| it.note);
        Notes::parse(note.as_deref()).all_refused()
    }
}

/// The content of a lease's note, for the next holder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notes {
    /// The last [`Notes::MAX_REFUSED`] generations that the provider refused and that another copy
    /// replaced. They are not adopted again.
    pub(crate) refused: Vec<Fingerprint>,
    /// The note on the store's generation, if the provider refuses it.
    pub(crate) current: Option<RefusalNote>,
}

impl Notes {
    /// How many refused generations are remembered.
    const MAX_REFUSED: usize = 8;

    /// Parses a note. A note that cannot be parsed counts as none: a later version may write
    /// others.
    pub(crate) fn parse(note: Option<&str>) -> Self {
        let note = note.unwrap_or_default();
        let (refused, current) = match note.strip_prefix(REFUSED_PREFIX) {
            Some(rest) => rest.split_once("; ").unwrap_or((rest, "")),
            None => ("", note),
        };
        Self {
            refused: refused
                .split(',')
                .filter_map(|it| it.parse().ok())
                .collect(),
            current: current.parse().ok(),
        }
    }

    /// Returns the text, or `None` without content.
    pub(crate) fn to_text(&self) -> Option<String> {
        let refused: Vec<_> = self.refused.iter().map(ToString::to_string).collect();
        let refused =
            (!refused.is_empty()).then(|| format!("{REFUSED_PREFIX}{}", refused.join(",")));
        match (refused, &self.current) {
            (Some(refused), Some(current)) => Some(format!("{refused}; {current}")),
            (Some(refused), None) => Some(refused),
            (None, current) => current.as_ref().map(ToString::to_string),
        }
    }

    /// Returns the note on this generation.
    pub(crate) fn on(self, generation: Fingerprint) -> Option<RefusalNote> {
        self.current.filter(|note| note.fingerprint == generation)
    }

    /// Adds a refused generation.
    pub(crate) fn refuse(&mut self, login: Fingerprint) {
        self.refused.retain(|it| *it != login);
        self.refused.push(login);
        let surplus = self.refused.len().saturating_sub(Self::MAX_REFUSED);
        self.refused.drain(..surplus);
    }

    /// Returns all generations that the provider refused for good.
    pub(crate) fn all_refused(&self) -> Vec<Fingerprint> {
        let dead = self.current.as_ref().filter(|note| note.is_dead());
        let dead = dead.map(|note| note.fingerprint);
        self.refused.iter().copied().chain(dead).collect()
    }
}

const REFUSED_PREFIX: &str = "refused ";

const DEATHS: [(Death, &str); 3] = [
    (Death::Reused, "reused"),
    (Death::Expired, "expired"),
    (Death::Revoked, "revoked"),
];

impl fmt::Display for RefusalNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            fingerprint,
            since,
            tried,
            death,
            by,
        } = self;
        let Some(death) = death else {
            return write!(
                f,
                "unnamed {fingerprint} since {since} tried {tried} by {by}"
            );
        };
        let words = DEATHS.iter().find(|(it, _)| it == death);
        let death = words.map_or("", |(_, word)| word);
        write!(f, "dead {fingerprint} {death} since {since} by {by}")
    }
}

impl FromStr for RefusalNote {
    type Err = NotARefusalNote;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (facts, by) = text.split_once(" by ").ok_or(NotARefusalNote)?;
        let words: Vec<_> = facts.split(' ').collect();
        let (fingerprint, since, tried, death) = match words[..] {
            ["dead", fingerprint, death, "since", since] => {
                let known = DEATHS.iter().find(|(_, word)| *word == death);
                let death = known.ok_or(NotARefusalNote)?.0;
                (fingerprint, since, since, Some(death))
            }
            ["unnamed", fingerprint, "since", since, "tried", tried] => {
                (fingerprint, since, tried, None)
            }
            _ => return Err(NotARefusalNote),
        };
        Ok(Self {
            fingerprint: fingerprint.parse().map_err(|_| NotARefusalNote)?,
            since: since.parse().map_err(|_| NotARefusalNote)?,
            tried: tried.parse().map_err(|_| NotARefusalNote)?,
            death,
            by: by.to_owned(),
        })
    }
}

/// The text is not a note on a refused login: a later version may write other notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotARefusalNote;

#[cfg(test)]
mod tests {
    use super::*;

    fn login(number: u8) -> Fingerprint {
        Fingerprint::new([number; 8])
    }

    fn note(death: Option<Death>) -> RefusalNote {
        RefusalNote {
            fingerprint: login(7),
            since: 1_760_000_000,
            tried: 1_760_000_000 + if death.is_some() { 0 } else { 7200 },
            death,
            by: "a job; refused by name, by chance".into(),
        }
    }

    #[test]
    fn notes_round_trip_as_text() {
        for refused in [vec![], vec![login(1)], vec![login(1), login(2)]] {
            for current in [None, Some(note(Some(Death::Reused))), Some(note(None))] {
                let notes = Notes {
                    refused: refused.clone(),
                    current,
                };
                let text = notes.to_text();
                assert_eq!(text.is_none(), notes == Notes::default());
                assert_eq!(Notes::parse(text.as_deref()), notes);
            }
        }
        assert_eq!(
            Notes::parse(Some("a note of a later version")),
            Notes::default()
        );
    }

    #[test]
    fn the_last_refused_generations_are_kept() {
        let mut notes = Notes::default();
        for number in 0..20 {
            notes.refuse(login(number));
        }
        notes.refuse(login(15));
        let numbers = [12, 13, 14, 16, 17, 18, 19, 15];
        assert_eq!(notes.refused, numbers.map(login));
    }

    #[test]
    fn only_a_dead_login_is_never_adopted_again() {
        for (death, refused) in [(Some(Death::Expired), vec![login(7)]), (None, vec![])] {
            let current = Some(note(death));
            let notes = Notes {
                refused: vec![],
                current,
            };
            assert_eq!(notes.all_refused(), refused, "{death:?}");
        }
    }

    #[test]
    fn a_refusal_without_a_reason_allows_one_attempt_an_hour() {
        let unnamed = note(None);
        let tried = unnamed.tried;
        for (now, forbids) in [
            (tried, true),
            (tried + 3599, true),
            (tried + 3600, false),
            // The clock of the other machine was ahead.
            (tried - 1, false),
        ] {
            assert_eq!(unnamed.forbids_attempt(now), forbids, "{now}");
        }
        assert!(note(Some(Death::Revoked)).forbids_attempt(u64::MAX));
    }

    #[test]
    fn a_refusal_note_round_trips_as_text() {
        let deaths = DEATHS.iter().map(|(death, _)| Some(*death));
        for death in deaths.chain([None]) {
            let note = note(death);
            assert_eq!(note.to_string().parse(), Ok(note));
        }
        for good in [
            "dead 0707070707070707 reused since 1760000000 by a job",
            "unnamed 0707070707070707 since 1760000000 tried 1760003600 by a job",
        ] {
            assert!(good.parse::<RefusalNote>().is_ok(), "{good}");
            for bad in [
                "",
                "dead",
                &good.replace("reused", "tired").replace("tried", "tired"),
                &good.replace("0707", "07"),
                &good.replace("1760000000", "today"),
                &good.replace(" by a job", ""),
            ] {
                let parsed = bad.parse::<RefusalNote>();
                assert_eq!(parsed, Err(NotARefusalNote), "{bad}");
            }
        }
    }
}
