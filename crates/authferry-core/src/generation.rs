//! A generation without its secrets.

use core::{fmt, str::FromStr};

use crate::{Identity, SessionHints};

/// One state of a login, without its secrets.
///
/// The machine, the reports and the receipts use this type. The bytes stay with the code that
/// read them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Generation {
    /// Identifies the token set.
    pub fingerprint: Fingerprint,
    /// The account and the person.
    pub identity: Identity,
    /// The access token's hints about its session.
    pub hints: SessionHints,
    /// When its tokens were issued.
    pub issued: Issued,
}

/// A short hash of a generation's token set, shown as 16 hex digits. Safe to print.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 8]);

impl Fingerprint {
    /// Wraps the first eight bytes of a hash.
    #[must_use]
    pub fn new(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl FromStr for Fingerprint {
    type Err = NotAFingerprint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != 16 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(NotAFingerprint);
        }
        let bits = u64::from_str_radix(text, 16).map_err(|_| NotAFingerprint)?;
        Ok(Self(bits.to_be_bytes()))
    }
}

/// The text is not 16 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a fingerprint of 16 hex digits")]
pub struct NotAFingerprint;

/// All generations that descend from one seed: OAuth's *refresh token family*. Identified by the
/// fingerprint of the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Family(pub Fingerprint);

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Family {
    type Err = NotAFingerprint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// When the tokens of an auth file were issued, and when they expire.
///
/// [`order::by_times`](crate::order::by_times) compares two of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Issued {
    /// The access token's `iat`, in Unix seconds.
    pub iat: Option<i64>,
    /// The access token's `exp`, in Unix seconds.
    pub exp: Option<i64>,
    /// The file's `last_refresh`, in Unix nanoseconds.
    pub last_refresh: Option<i128>,
}

/// How long before the expiry of an access token Codex rotates, in seconds: versions since 0.137.
const ROTATION_MARGIN: i64 = 300;

/// The age at which Codex rotates, regardless of the expiry, in seconds: versions up to 0.116.
const MAX_TOKEN_AGE: i128 = 8 * 24 * 60 * 60;

const NANOSECONDS: i128 = 1_000_000_000;

/// The rule by which a version of Codex rotates a login by itself. All of these rules were in use
/// within one year.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DueRule {
    /// Eight days after the last refresh, regardless of the access token's expiry: up to 0.116.
    /// Such a version also rotates an expired token, after a 401 from the provider.
    Age,
    /// Once the access token has expired: 0.117 to 0.130.
    Ended,
    /// Five minutes before the access token expires: since 0.137.
    Ending,
    /// Unknown version: the earliest of these times.
    Any,
}

impl Issued {
    /// Returns the time, in Unix seconds, from which some version of Codex rotates the login by
    /// itself; `None` if no version does.
    ///
    /// Three rules have been in use within a year: five minutes before the access token expires,
    /// once it has expired, and eight days after the last refresh. The earliest counts.
    #[must_use]
    pub fn due(&self) -> Option<i64> {
        self.due_by_rule(DueRule::Any)
    }

    /// Returns the time, in Unix seconds, from which a Codex with this rule rotates the login by
    /// itself; `None` if that Codex never does.
    #[must_use]
    pub fn due_by_rule(&self, rule: DueRule) -> Option<i64> {
        let ending = self.exp.map(|exp| exp.saturating_sub(ROTATION_MARGIN));
        let old = self
            .last_refresh
            .map(|at| at.div_euclid(NANOSECONDS).saturating_add(MAX_TOKEN_AGE))
            .map(|at| i64::try_from(at).unwrap_or(i64::MAX));
        match rule {
            DueRule::Age => self.exp.into_iter().chain(old).min(),
            // Without a readable expiry, these versions use the last refresh.
            DueRule::Ended => self.exp.or(old),
            DueRule::Ending => ending.or(old),
            DueRule::Any => ending.into_iter().chain(old).min(),
        }
    }

    /// Returns whether some version of Codex rotates the login by the time `by`, in Unix seconds.
    #[must_use]
    pub fn is_due(&self, by: i64) -> bool {
        self.due().is_some_and(|due| due <= by)
    }

    /// Returns whether half of the time from issue to [due](Self::due) has passed at `now`, in Unix
    /// seconds. Returns `true` if either time is unknown.
    #[must_use]
    pub fn is_half_over(&self, now: i64) -> bool {
        self.iat.zip(self.due()).is_none_or(|(iat, due)| {
            let half = due.saturating_sub(iat) / 2;
            now >= due.saturating_sub(half)
        })
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    fn issued(iat: Option<i64>, exp: Option<i64>, last_refresh: Option<i128>) -> Issued {
        Issued {
            iat,
            exp,
            last_refresh,
        }
    }

    #[test]
    fn the_earliest_rule_of_any_version_makes_it_due() {
        let day = 24 * 60 * 60;
        let refreshed = |seconds: i128| Some(seconds * NANOSECONDS);
        for (tokens, due) in [
            (issued(None, None, None), None),
            (issued(Some(1), None, None), None),
            (issued(None, Some(1000), None), Some(700)),
            (issued(None, None, refreshed(0)), Some(8 * day)),
            (issued(None, Some(10 * day), refreshed(0)), Some(8 * day)),
            (
                issued(None, Some(3 * day), refreshed(0)),
                Some(3 * day - 300),
            ),
            (issued(None, Some(i64::MIN), None), Some(i64::MIN)),
            (issued(None, None, Some(i128::MAX)), Some(i64::MAX)),
        ] {
            assert_eq!(tokens.due(), due, "{tokens:?}");
        }
        let tokens = issued(None, Some(1000), None);
        assert_eq!([699, 700].map(|by| tokens.is_due(by)), [false, true]);
        assert!(!issued(None, None, None).is_due(i64::MAX), "never");
    }

    #[test]
    fn each_rule_has_its_own_due_time() {
        let day = 24 * 60 * 60;
        let tokens = issued(None, Some(9 * day), Some(NANOSECONDS));
        let due = |rule| tokens.due_by_rule(rule);
        assert_eq!(due(DueRule::Age), Some(8 * day + 1));
        assert_eq!(due(DueRule::Ended), Some(9 * day));
        assert_eq!(due(DueRule::Ending), Some(9 * day - 300));
        assert_eq!(due(DueRule::Any), Some(8 * day + 1));
        // Codex rotates an expired token after a 401, at any age.
        let ended = issued(None, Some(2 * day), Some(NANOSECONDS));
        assert_eq!(ended.due_by_rule(DueRule::Age), Some(2 * day));
        let opaque = issued(None, None, Some(NANOSECONDS));
        for rule in [DueRule::Age, DueRule::Ended, DueRule::Ending, DueRule::Any] {
            assert_eq!(opaque.due_by_rule(rule), Some(8 * day + 1), "{rule:?}");
        }
    }

    #[test]
    fn half_of_the_lifetime_counts_from_the_issue() {
        let tokens = issued(Some(1000), Some(2300), None);
        assert_eq!(
            [1499, 1500].map(|now| tokens.is_half_over(now)),
            [false, true]
        );
        let unknown = [
            issued(None, Some(1000), None),
            issued(Some(1000), None, None),
        ];
        assert!(unknown.iter().all(|tokens| tokens.is_half_over(0)));
    }

    #[test]
    fn a_fingerprint_round_trips_through_its_text() {
        let fingerprint = Fingerprint::new([0, 1, 2, 3, 4, 5, 6, 255]);
        assert_eq!(fingerprint.to_string(), "00010203040506ff");
        assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
        for bad in [
            "",
            "+0010203040506ff",
            "00010203040506f",
            "00010203040506fg",
        ] {
            assert_eq!(bad.parse::<Fingerprint>(), Err(NotAFingerprint), "{bad}");
        }
    }
}
