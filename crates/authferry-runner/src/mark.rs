//! A generation that the provider takes no more, as it is noted beside the claim.

use std::{fmt, str::FromStr};

use authferry_codex::Death;
use authferry_core::{Fingerprint, SecretStore};

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
        let mark: Self = standing.note?.parse().ok()?;
        (mark.fingerprint == generation).then_some(mark)
    }
}

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
