//! Parses the address `file:///abs/path`.

use std::{fmt, str::FromStr};

/// The address of a login: a plain absolute path.
///
/// The path is neither decoded nor resolved, so that one file has one address, which reads like
/// the path.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Address {
    path: Box<str>,
}

const SCHEME: &str = "file://";

/// The suffixes of the store's own files.
pub(crate) const META: &str = ".meta";
pub(crate) const LOCK: &str = ".lock";
pub(crate) const TEMP: &str = ".authferry-tmp";
pub(crate) const LEASE: &str = ".lease";

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

    /// Returns the address of the lease, which no login can have.
    pub(crate) fn of_lease(&self) -> Self {
        Self {
            path: format!("{}{LEASE}", self.path).into(),
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
        if let Some(suffix) = [META, LOCK, TEMP, LEASE]
            .iter()
            .find(|end| path.ends_with(*end))
        {
            return Err(BadAddress::Reserved(suffix));
        }
        Ok(Self { path: path.into() })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.path)
    }
}

/// Why a text is not the address of a file store. The error does not quote the text, which may
/// contain anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    /// Another scheme, or none.
    #[error("a file address must begin with file:///")]
    Scheme,
    /// A host between `file://` and the path.
    #[error("a file address has no host: file:/// must be followed by an absolute path")]
    Host,
    /// A character that other tools would decode.
    #[error("a file address is not decoded, so it cannot contain {0:?}")]
    Character(char),
    /// A folder, or a path that is not in its simplest form.
    #[error("a file address must name a file, without empty parts, `.` or `..`")]
    Part,
    /// The suffix of one of the store's own files.
    #[error("a name that ends in {0} is reserved for the store's own files")]
    Reserved(&'static str),
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
    fn no_login_can_have_the_address_of_a_lease() {
        let login: Address = "file:///a/login.json".parse().expect("an address");
        let lease = login.of_lease();
        assert_eq!(lease.folder(), login.folder());
        assert_eq!(lease.to_string(), "file:///a/login.json.lease");
        let error = lease.to_string().parse::<Address>().err();
        assert_eq!(error, Some(BadAddress::Reserved(LEASE)));
    }

    #[test]
    fn ambiguous_addresses_are_refused() {
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
            ("file:///a/login.json.meta", BadAddress::Reserved(META)),
            ("file:///a/login.json.lock", BadAddress::Reserved(LOCK)),
            ("file:///a/x.authferry-tmp", BadAddress::Reserved(TEMP)),
            ("file:///a/login.json.lease", BadAddress::Reserved(LEASE)),
        ] {
            assert_eq!(text.parse::<Address>().err(), Some(why), "{text:?}");
        }
    }

    #[test]
    fn errors_do_not_quote_the_address() {
        let error = "vault://made-up-password@host/x"
            .parse::<Address>()
            .err()
            .expect("another scheme");
        assert!(!format!("{error} {error:?}").contains("made-up"));
    }
}
