//! `file:///abs/path`, and what may not be in it.

use std::{fmt, str::FromStr};

/// Where a login is kept: a plain absolute path, in the one spelling it has.
///
/// Nothing is decoded or resolved, so that one file has one address and the address
/// reads as the path does.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Address {
    path: Box<str>,
}

const SCHEME: &str = "file://";

/// The ends of the names that the store gives to its own files.
pub(crate) const META: &str = ".meta";
pub(crate) const LOCK: &str = ".lock";
pub(crate) const TEMP: &str = ".authferry-tmp";
pub(crate) const CLAIM: &str = ".claim";

impl Address {
    /// Returns the folder's path.
    pub(crate) fn folder(&self) -> &str {
        match self.split() {
            ("", _) => "/",
            (folder, _) => folder,
        }
    }

    /// Returns the name of the login's file in the folder.
    pub(crate) fn name(&self) -> &str {
        self.split().1
    }

    /// Returns the place of its claim. No login can have that address.
    pub(crate) fn of_the_claim(&self) -> Self {
        Self {
            path: format!("{}{CLAIM}", self.path).into(),
        }
    }

    fn split(&self) -> (&str, &str) {
        self.path.rsplit_once('/').unwrap_or(("", &self.path))
    }
}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let path = text.strip_prefix(SCHEME).ok_or(BadAddress::Scheme)?;
        let parts = path.strip_prefix('/').ok_or(BadAddress::Host)?;
        if let Some(bad) = path
            .chars()
            .find(|c| matches!(c, '%' | '?' | '#' | '\\') || c.is_control())
        {
            return Err(BadAddress::Character(bad));
        }
        if parts.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(BadAddress::Part);
        }
        if let Some(taken) = [META, LOCK, TEMP, CLAIM]
            .iter()
            .find(|end| path.ends_with(*end))
        {
            return Err(BadAddress::Taken(taken));
        }
        Ok(Self { path: path.into() })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.path)
    }
}

/// Why a text is not the address of a file store. The text itself is not repeated: a
/// mistyped address may hold anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    /// Another scheme, or none.
    #[error("the address of a file begins with file:///")]
    Scheme,
    /// Something between `file://` and the path.
    #[error("a file address has no host: file:/// is followed by an absolute path")]
    Host,
    /// A character that other tools would read in another way than this one.
    #[error("a file address is taken as it stands, so it cannot hold {0:?}")]
    Character(char),
    /// A second spelling for a path that has a simpler one, or a folder.
    #[error("a file address names a file, without empty parts, `.` or `..`")]
    Part,
    /// The name would be taken for one of the store's own files.
    #[error("a name that ends in {0} is one of the store's own")]
    Taken(&'static str),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_as_its_path() {
        for (text, folder, name) in [
            ("file:///var/lib/ci/login.json", "/var/lib/ci", "login.json"),
            ("file:///login.json", "/", "login.json"),
            ("file:///home/jürgen/a b/login", "/home/jürgen/a b", "login"),
        ] {
            let address: Address = text.parse().expect(text);
            assert_eq!(address.folder(), folder);
            assert_eq!(address.name(), name);
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn a_claim_has_a_name_that_no_login_can_have() {
        let login: Address = "file:///a/login.json".parse().expect("an address");
        let claim = login.of_the_claim();
        assert_eq!(claim.folder(), login.folder());
        assert_eq!(claim.to_string(), "file:///a/login.json.claim");
        let taken = claim.to_string().parse::<Address>().err();
        assert_eq!(taken, Some(BadAddress::Taken(CLAIM)));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for (text, why) in [
            ("", BadAddress::Scheme),
            ("/var/lib/login.json", BadAddress::Scheme),
            ("file:/var/lib/login.json", BadAddress::Scheme),
            ("vault://secret/ci", BadAddress::Scheme),
            ("file://", BadAddress::Host),
            ("file://login.json", BadAddress::Host),
            ("file://localhost/login.json", BadAddress::Host),
            ("file://user:made-up@host/login.json", BadAddress::Host),
            ("file:///login%2ejson", BadAddress::Character('%')),
            ("file:///login.json?mode=0644", BadAddress::Character('?')),
            ("file:///login.json#1", BadAddress::Character('#')),
            ("file:///a\\login.json", BadAddress::Character('\\')),
            ("file:///login\u{1b}[2J", BadAddress::Character('\u{1b}')),
            ("file:///login\0", BadAddress::Character('\0')),
            ("file:///", BadAddress::Part),
            ("file:///a/", BadAddress::Part),
            ("file:///a//login.json", BadAddress::Part),
            ("file:///a/./login.json", BadAddress::Part),
            ("file:///a/../login.json", BadAddress::Part),
            ("file:///a/login.json.meta", BadAddress::Taken(META)),
            ("file:///a/login.json.lock", BadAddress::Taken(LOCK)),
            ("file:///a/x.authferry-tmp", BadAddress::Taken(TEMP)),
            ("file:///a/login.json.claim", BadAddress::Taken(CLAIM)),
        ] {
            assert_eq!(text.parse::<Address>().err(), Some(why), "{text:?}");
        }
    }

    #[test]
    fn no_error_repeats_the_text() {
        let error = "vault://made-up-password@host/x"
            .parse::<Address>()
            .err()
            .expect("another scheme");
        assert!(!format!("{error} {error:?}").contains("made-up"));
    }
}
