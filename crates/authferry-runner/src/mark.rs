//! A generation that the provider takes no more, as it is noted beside the claim.

use std::{fmt, str::FromStr};

use authferry_codex::Death;
use authferry_core::{Fingerprint, SecretStore, Standing};

/// Whose refresh token is dead, since when, and who has found that out.
///
/// Only the provider's own word makes a mark, for it stops every job until a reseed: a bare
/// refusal can come from whatever is between us and the provider.
///
/// It speaks of one fingerprint, so a reseed needs not take it away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The generation.
    pub fingerprint: Fingerprint,
    /// When it was found dead, in Unix seconds.
    pub since: u64,
    /// Why it is.
    pub death: Death,
    /// Who found it so, for people.
    pub by: String,
}

impl Mark {
    /// Returns what was noted of this generation beside the claim of a store; `None` if
    /// nothing was, or the store does not tell.
    pub async fn of(generation: Fingerprint, store: &dyn SecretStore) -> Option<Self> {
        let standing = store.claims()?.look().await.ok()??;
        Self::noted(generation, &standing)
    }

    /// The same, for a lease that was looked at.
    #[must_use]
    pub fn noted(generation: Fingerprint, standing: &Standing) -> Option<Self> {
        let dead = Notes::read(standing.note.as_deref()).dead;
        dead.filter(|mark| mark.fingerprint == generation)
    }

    /// Returns what a note with a lease says of a dead generation.
    #[must_use]
    pub fn in_note(note: &str) -> Option<Self> {
        Notes::read(Some(note)).dead
    }

    /// Returns the generations that the provider refused, as far as that was noted with the
    /// lease of a store; none if the store does not tell.
    pub async fn refused(store: &dyn SecretStore) -> Vec<Fingerprint> {
        let Some(claims) = store.claims() else {
            return Vec::new();
        };
        let note = claims.look().await.ok().flatten().and_then(|it| it.note);
        Notes::read(note.as_deref()).all_refused()
    }
}

/// What is left with the lease for the next holder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notes {
    /// Generations that the provider refused, and that another copy has replaced since: none of
    /// them is adopted again. The last [`Notes::REFUSED`].
    pub(crate) refused: Vec<Fingerprint>,
    /// The generation that the store holds, if the provider rejects it for good.
    pub(crate) dead: Option<Mark>,
}

impl Notes {
    /// How many refused generations are remembered.
    const REFUSED: usize = 8;

    /// Reads a note. A note that cannot be parsed counts as none: a later version may leave others.
    pub(crate) fn read(note: Option<&str>) -> Self {
        let note = note.unwrap_or_default();
        let (refused, dead) = match note.strip_prefix(REFUSED_NOTE) {
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

    /// Returns the text, or `None` if there is nothing to be noted.
    pub(crate) fn text(&self) -> Option<String> {
        let refused: Vec<_> = self.refused.iter().map(ToString::to_string).collect();
        let refused = (!refused.is_empty()).then(|| format!("{REFUSED_NOTE}{}", refused.join(",")));
        match (refused, &self.dead) {
            (Some(refused), Some(dead)) => Some(format!("{refused}; {dead}")),
            (Some(refused), None) => Some(refused),
            (None, dead) => dead.as_ref().map(ToString::to_string),
        }
    }

    /// Remembers a refused generation.
    pub(crate) fn refuse(&mut self, login: Fingerprint) {
        self.refused.retain(|it| *it != login);
        self.refused.push(login);
        let surplus = self.refused.len().saturating_sub(Self::REFUSED);
        self.refused.drain(..surplus);
    }

    /// Returns all generations that the provider refused.
    pub(crate) fn all_refused(&self) -> Vec<Fingerprint> {
        let dead = self.dead.as_ref().map(|dead| dead.fingerprint);
        self.refused.iter().copied().chain(dead).collect()
    }
}

const REFUSED_NOTE: &str = "refused ";

const DEATHS: [(Death, &str); 3] = [
    (Death::Reused, "reused"),
    (Death::Expired, "expired"),
    (Death::Revoked, "revoked"),
];

impl fmt::Display for Mark {
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

impl FromStr for Mark {
    type Err = NotAMark;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (facts, by) = text.split_once(" by ").ok_or(NotAMark)?;
        let words: Vec<_> = facts.split(' ').collect();
        let ["dead", fingerprint, death, "since", since] = words[..] else {
            return Err(NotAMark);
        };
        let known = DEATHS.iter().find(|(_, word)| *word == death);
        Ok(Self {
            fingerprint: fingerprint.parse().map_err(|_| NotAMark)?,
            since: since.parse().map_err(|_| NotAMark)?,
            death: known.ok_or(NotAMark)?.0,
            by: by.to_owned(),
        })
    }
}

/// The text is no mark: a later version may leave other notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAMark;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_survive_their_own_text() {
        let login = |number: u8| Fingerprint::new([number; 8]);
        let dead = Mark {
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
                let text = notes.text();
                assert_eq!(text.is_none(), notes == Notes::default());
                assert_eq!(Notes::read(text.as_deref()), notes);
            }
        }
        assert_eq!(
            Notes::read(Some("a note of a later version")),
            Notes::default()
        );
    }

    #[test]
    fn the_last_refused_generations_are_remembered() {
        let mut notes = Notes::default();
        for number in 0..20 {
            notes.refuse(Fingerprint::new([number; 8]));
        }
        notes.refuse(Fingerprint::new([15; 8]));
        let numbers = [12, 13, 14, 16, 17, 18, 19, 15];
        assert_eq!(notes.refused, numbers.map(|it| Fingerprint::new([it; 8])));
    }

    #[test]
    fn a_mark_survives_its_own_text() {
        for (death, _) in DEATHS {
            let mark = Mark {
                fingerprint: Fingerprint::new([7; 8]),
                since: 1_760_000_000,
                death,
                by: "a job by name, by chance".into(),
            };
            assert_eq!(mark.to_string().parse(), Ok(mark));
        }
        let good = "dead 0707070707070707 reused since 1760000000 by a job";
        assert!(good.parse::<Mark>().is_ok());
        for bad in [
            "",
            "dead",
            &good.replace("reused", "tired"),
            &good.replace("0707", "07"),
            &good.replace("1760000000", "today"),
            &good.replace(" by a job", ""),
        ] {
            assert_eq!(bad.parse::<Mark>(), Err(NotAMark), "{bad}");
        }
    }
}
