//! The note in the lease that the provider rejects a generation for good.

use std::{fmt, str::FromStr};

use authferry_codex::Death;
use authferry_core::{Fingerprint, LeaseStatus, SecretStore};

/// Which refresh token is dead, since when, and which job found it.
///
/// Only a refusal with the provider's reason creates a note, because the note stops every job until
/// a reseed. A refusal without a reason can come from a proxy between us and the provider.
///
/// The note names one fingerprint, so a reseed need not remove it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLoginNote {
    /// The dead generation.
    pub fingerprint: Fingerprint,
    /// When it was found dead, in Unix seconds.
    pub since: u64,
    /// The provider's reason.
    pub death: Death,
    /// The human-readable name of the job that found it dead.
    pub by: String,
}

impl DeadLoginNote {
    /// Reads the store's note on this generation; `None` if the store has none or the read fails.
    pub async fn read(generation: Fingerprint, store: &dyn SecretStore) -> Option<Self> {
        let status = store.leases()?.look().await.ok()??;
        Self::in_status(generation, &status)
    }

    /// Returns the note on this generation in a lease's status.
    #[must_use]
    pub fn in_status(generation: Fingerprint, status: &LeaseStatus) -> Option<Self> {
        let dead = Notes::parse(status.note.as_deref()).dead;
        dead.filter(|note| note.fingerprint == generation)
    }

    /// Parses the text of a lease's note; `None` if it names no dead generation.
    #[must_use]
    pub fn in_note(note: &str) -> Option<Self> {
        Notes::parse(Some(note)).dead
    }

    /// Reads the store's note on the generations that the provider refused; none if the read fails.
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
    /// The store's generation, if the provider rejects it for good.
    pub(crate) dead: Option<DeadLoginNote>,
}

impl Notes {
    /// How many refused generations are remembered.
    const MAX_REFUSED: usize = 8;

    /// Parses a note. A note that cannot be parsed counts as none: a later version may write
    /// others.
    pub(crate) fn parse(note: Option<&str>) -> Self {
        let note = note.unwrap_or_default();
        let (refused, dead) = match note.strip_prefix(REFUSED_PREFIX) {
            Some(rest) => rest.split_once("; ").unwrap_or((rest, "")),
            None => ("", note),
        };
        Self {
            refused: refused
                .split(',')
                .filter_map(|it| it.parse().ok())
                .collect(),
            dead: dead.parse().ok(),
        }
    }

    /// Returns the text, or `None` without content.
    pub(crate) fn to_text(&self) -> Option<String> {
        let refused: Vec<_> = self.refused.iter().map(ToString::to_string).collect();
        let refused =
            (!refused.is_empty()).then(|| format!("{REFUSED_PREFIX}{}", refused.join(",")));
        match (refused, &self.dead) {
            (Some(refused), Some(dead)) => Some(format!("{refused}; {dead}")),
            (Some(refused), None) => Some(refused),
            (None, dead) => dead.as_ref().map(ToString::to_string),
        }
    }

    /// Adds a refused generation.
    pub(crate) fn refuse(&mut self, login: Fingerprint) {
        self.refused.retain(|it| *it != login);
        self.refused.push(login);
        let surplus = self.refused.len().saturating_sub(Self::MAX_REFUSED);
        self.refused.drain(..surplus);
    }

    /// Returns all generations that the provider refused.
    pub(crate) fn all_refused(&self) -> Vec<Fingerprint> {
        let dead = self.dead.as_ref().map(|dead| dead.fingerprint);
        self.refused.iter().copied().chain(dead).collect()
    }
}

const REFUSED_PREFIX: &str = "refused ";

const DEATHS: [(Death, &str); 3] = [
    (Death::Reused, "reused"),
    (Death::Expired, "expired"),
    (Death::Revoked, "revoked"),
];

impl fmt::Display for DeadLoginNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = DEATHS.iter().find(|(death, _)| *death == self.death);
        let death = words.map_or("", |(_, word)| word);
        let Self {
            fingerprint,
            since,
            by,
            ..
        } = self;
        write!(f, "dead {fingerprint} {death} since {since} by {by}")
    }
}

impl FromStr for DeadLoginNote {
    type Err = NotADeadLoginNote;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (facts, by) = text.split_once(" by ").ok_or(NotADeadLoginNote)?;
        let words: Vec<_> = facts.split(' ').collect();
        let ["dead", fingerprint, death, "since", since] = words[..] else {
            return Err(NotADeadLoginNote);
        };
        let known = DEATHS.iter().find(|(_, word)| *word == death);
        Ok(Self {
            fingerprint: fingerprint.parse().map_err(|_| NotADeadLoginNote)?,
            since: since.parse().map_err(|_| NotADeadLoginNote)?,
            death: known.ok_or(NotADeadLoginNote)?.0,
            by: by.to_owned(),
        })
    }
}

/// The text is not a note on a dead login: a later version may write other notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotADeadLoginNote;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_round_trip_as_text() {
        let login = |number: u8| Fingerprint::new([number; 8]);
        let dead = DeadLoginNote {
            fingerprint: login(7),
            since: 1_760_000_000,
            death: Death::Reused,
            by: "a job; refused by name".into(),
        };
        for refused in [vec![], vec![login(1)], vec![login(1), login(2)]] {
            for dead in [None, Some(dead.clone())] {
                let notes = Notes {
                    refused: refused.clone(),
                    dead,
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
            notes.refuse(Fingerprint::new([number; 8]));
        }
        notes.refuse(Fingerprint::new([15; 8]));
        let numbers = [12, 13, 14, 16, 17, 18, 19, 15];
        assert_eq!(notes.refused, numbers.map(|it| Fingerprint::new([it; 8])));
    }

    #[test]
    fn a_dead_login_note_round_trips_as_text() {
        for (death, _) in DEATHS {
            let note = DeadLoginNote {
                fingerprint: Fingerprint::new([7; 8]),
                since: 1_760_000_000,
                death,
                by: "a job by name, by chance".into(),
            };
            assert_eq!(note.to_string().parse(), Ok(note));
        }
        let good = "dead 0707070707070707 reused since 1760000000 by a job";
        assert!(good.parse::<DeadLoginNote>().is_ok());
        for bad in [
            "",
            "dead",
            &good.replace("reused", "tired"),
            &good.replace("0707", "07"),
            &good.replace("1760000000", "today"),
            &good.replace(" by a job", ""),
        ] {
            assert_eq!(
                bad.parse::<DeadLoginNote>(),
                Err(NotADeadLoginNote),
                "{bad}"
            );
        }
    }
}
