//! The identity of a login and its session hints.

use alloc::boxed::Box;
use core::fmt;

/// A short hash of one claim of a token. Equal claims have equal labels. Safe to print.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label(Box<str>);

impl Label {
    /// Wraps a text that is equal for equal claims and reveals nothing else about them.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The identity of a login: the workspace and the person.
///
/// All members of a Business workspace share one `account_id`. The claims of the ID token
/// identify the person.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The workspace: `account_id` of the auth file.
    pub account: Option<Label>,
    /// The person: `chatgpt_user_id` of the ID token.
    pub chatgpt_user: Option<Label>,
    /// The person: `user_id` of the ID token.
    pub user: Option<Label>,
    /// The person: `sub` of the ID token.
    pub subject: Option<Label>,
}

impl Identity {
    /// Returns whether a claim that both sides have differs. A claim that one side lacks is
    /// ignored.
    #[must_use]
    pub fn contradicts(&self, other: &Self) -> bool {
        let Self {
            account,
            chatgpt_user,
            user,
            subject,
        } = self;
        differ(account.as_ref(), other.account.as_ref())
            || differ(chatgpt_user.as_ref(), other.chatgpt_user.as_ref())
            || differ(user.as_ref(), other.user.as_ref())
            || differ(subject.as_ref(), other.subject.as_ref())
    }
}

impl fmt::Display for Identity {
    /// Prints the workspace, by which people know an account.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.account {
            Some(account) => account.fmt(f),
            None => f.write_str("unknown"),
        }
    }
}

/// An access token's hints about its session.
///
/// Second-hand knowledge: `session_id` and `pwd_auth_time` survived a refresh in a few public
/// tokens. A difference means another login; equality means nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SessionHints {
    /// `session_id` of the access token.
    pub session: Option<Label>,
    /// `pwd_auth_time` of the access token, unchanged.
    pub password_time: Option<i64>,
}

impl SessionHints {
    /// Returns whether a hint that both sides have differs.
    #[must_use]
    pub fn contradict(&self, other: &Self) -> bool {
        differ(self.session.as_ref(), other.session.as_ref())
            || differ(self.password_time.as_ref(), other.password_time.as_ref())
    }
}

fn differ<T: PartialEq>(ours: Option<&T>, theirs: Option<&T>) -> bool {
    ours.zip(theirs)
        .is_some_and(|(ours, theirs)| ours != theirs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(text: &str) -> Option<Label> {
        (!text.is_empty()).then(|| Label::new(text))
    }

    fn identity([account, chatgpt_user, user, subject]: [&str; 4]) -> Identity {
        Identity {
            account: label(account),
            chatgpt_user: label(chatgpt_user),
            user: label(user),
            subject: label(subject),
        }
    }

    #[test]
    fn one_different_claim_contradicts_an_identity() {
        let ours = identity(["w", "c", "u", "s"]);
        assert!(!ours.contradicts(&ours));
        for other in [
            ["x", "c", "u", "s"],
            ["w", "x", "u", "s"],
            ["w", "c", "x", "s"],
            ["w", "c", "u", "x"],
        ] {
            assert!(ours.contradicts(&identity(other)), "{other:?}");
        }
    }

    #[test]
    fn a_claim_that_one_side_lacks_is_ignored() {
        let ours = identity(["w", "c", "u", "s"]);
        for other in [["", "", "", ""], ["w", "", "", ""], ["w", "", "u", ""]] {
            assert!(!ours.contradicts(&identity(other)), "{other:?}");
            assert!(!identity(other).contradicts(&ours), "{other:?}");
        }
    }

    #[test]
    fn session_hints_contradict_only_where_both_sides_have_one() {
        let hints = |session: &str, password_time| SessionHints {
            session: label(session),
            password_time,
        };
        assert!(!hints("a", Some(1)).contradict(&hints("a", Some(1))));
        assert!(!hints("a", None).contradict(&hints("", Some(1))));
        assert!(hints("a", Some(1)).contradict(&hints("b", Some(1))));
        assert!(hints("", Some(1)).contradict(&hints("", Some(2))));
    }
}
