//! Whose generation stays current when two of one account meet.

use core::cmp::Ordering;

use crate::Generation;

/// What to do when the store moved to another generation of the same account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Policy {
    /// The later-issued one becomes current; a reseed always stays.
    #[default]
    Newest,
    /// What is in the store stays current.
    Theirs,
}

/// Who stays current.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Winner {
    /// The generation on our disk.
    Ours,
    /// The generation in the store.
    Theirs,
}

impl Policy {
    /// Returns whose generation is to be current.
    ///
    /// `reseed`: a person put theirs there. When nothing tells which was issued later,
    /// theirs stays: it is the one that other jobs already see.
    #[must_use]
    pub fn judge(self, ours: &Generation, theirs: &Generation, reseed: bool) -> Winner {
        let newer = ours.issued.compare(&theirs.issued) == Some(Ordering::Greater);
        match self {
            Self::Newest if newer && !reseed => Winner::Ours,
            Self::Newest | Self::Theirs => Winner::Theirs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Account, Fingerprint, Issued};

    fn issued_at(iat: Option<i64>) -> Generation {
        Generation {
            fingerprint: Fingerprint::new([0; 8]),
            account: Account::new("a"),
            issued: Issued {
                iat,
                ..Issued::default()
            },
        }
    }

    #[test]
    fn newest_looks_at_the_time_of_issue_and_spares_a_reseed() {
        let (old, new, unknown) = (issued_at(Some(1)), issued_at(Some(2)), issued_at(None));
        assert_eq!(Policy::Newest.judge(&new, &old, false), Winner::Ours);
        assert_eq!(Policy::Newest.judge(&old, &new, false), Winner::Theirs);
        assert_eq!(Policy::Newest.judge(&new, &unknown, false), Winner::Theirs);
        assert_eq!(Policy::Newest.judge(&new, &old, true), Winner::Theirs);
        assert_eq!(Policy::Theirs.judge(&new, &old, false), Winner::Theirs);
    }
}
