//! `vault://MOUNT/PATH?field=NAME&auth=…`, and what may not be in it.

use std::{
    borrow::Cow,
    fmt::{self, Write},
    path::PathBuf,
    str::FromStr,
};

/// Where a login is kept on a server, and how to log in there. Which server it is, and
/// every secret, comes from elsewhere.
///
/// `Display` gives the place alone, in one spelling: how the caller logged in does not
/// make it another place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub(crate) mount: String,
    pub(crate) path: String,
    pub(crate) field: String,
    auth: Auth,
}

/// How to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// With a token that somebody else made.
    Token,
    /// With the job's own OIDC token.
    Jwt {
        /// The path of the auth method.
        mount: String,
        /// The role to log in as; `None` for the method's default.
        role: Option<String>,
        /// The audience to ask the platform for.
        audience: Option<String>,
        /// Where the job's token is.
        from: IdToken,
    },
    /// With a role ID and a secret ID.
    AppRole {
        /// The path of the auth method.
        mount: String,
    },
}

/// Where the job's own token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdToken {
    /// Wherever the platform has it.
    Platform,
    /// In the environment variable of this name.
    Variable(String),
    /// In this file.
    File(PathBuf),
}

const SCHEME: &str = "vault://";

/// What the field is called unless the address says so.
const FIELD: &str = "auth_json";

/// The end of the name of the field beside it.
pub(crate) const META: &str = ".authferry";

/// The end of the path of the secret that holds the claim.
const CLAIM: &str = "-claim";

impl Address {
    /// Returns how to log in.
    #[must_use]
    pub fn auth(&self) -> &Auth {
        &self.auth
    }

    /// Returns the place beside this one that holds its claim.
    pub(crate) fn of_claim(&self) -> Self {
        Self {
            path: format!("{}{CLAIM}", self.path),
            field: "claim".to_owned(),
            ..self.clone()
        }
    }
}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix(SCHEME).ok_or(BadAddress::Scheme)?;
        if rest.contains(['#', '\\']) || rest.chars().any(char::is_control) {
            return Err(BadAddress::Character);
        }
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (mount, path) = place.split_once('/').ok_or(BadAddress::Path)?;
        if mount.contains(['@', ':']) {
            return Err(BadAddress::User);
        }
        // A mount can have parts of its own; a slash in a part of the path would be one more.
        let mount = decoded(mount)?.into_owned();
        for part in mount.split('/') {
            checked(part)?;
        }
        let mut parts = Vec::new();
        for part in path.split('/') {
            let part = decoded(part)?;
            if part.contains('/') {
                return Err(BadAddress::Part);
            }
            parts.push(checked(&part)?.to_owned());
        }
        let mut given = Given::parse(query)?;
        let field = given.take("field").unwrap_or_else(|| FIELD.to_owned());
        if field.ends_with(META) {
            return Err(BadAddress::Field);
        }
        let auth = given.auth()?;
        given.end()?;
        Ok(Self {
            mount,
            path: parts.join("/"),
            field,
            auth,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The slash of a mount must come back encoded, or it would be read as its end.
        write!(f, "{SCHEME}{}", encoded(&self.mount))?;
        for part in self.path.split('/') {
            write!(f, "/{}", encoded(part))?;
        }
        if self.field != FIELD {
            write!(f, "?field={}", encoded(&self.field))?;
        }
        Ok(())
    }
}

/// Why a text is not the address of such a store. The text itself is not repeated: a
/// mistyped address may hold anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    /// Another scheme, or none.
    #[error("the address of a Vault store begins with vault://")]
    Scheme,
    /// Nothing but a mount.
    #[error("the address of a Vault store names a mount and a path: vault://MOUNT/PATH")]
    Path,
    /// A user or a port: no host is named here.
    #[error("a Vault address names no user, no password and no port: it begins with the mount")]
    User,
    /// A character that other tools would read in another way than this one.
    #[error("a Vault address holds no control characters, `#` or `\\`")]
    Character,
    /// A percent sign with something else behind it than two hex digits, or bytes that are
    /// no text.
    #[error("a percent sign in a Vault address is followed by two hex digits of UTF-8 text")]
    Percent,
    /// A second spelling for a path that has a simpler one, or a folder.
    #[error("a Vault path names one secret, without empty parts, `.` or `..`")]
    Part,
    /// The name is that of a field of our own.
    #[error("a field whose name ends in .authferry is one of the store's own")]
    Field,
    /// An option that is not known. Maybe a secret.
    #[error(
        "a Vault address knows the options field, auth, role, auth_mount, audience, id_token \
         and id_token_file, and no other"
    )]
    Option,
    /// An option twice, or without a value.
    #[error("{0} has one value in a Vault address")]
    Value(&'static str),
    /// A way to log in that is not known.
    #[error("auth is token, jwt or approle in a Vault address")]
    Auth,
    /// An option for another way to log in.
    #[error("{0} means nothing in a Vault address with this auth")]
    Idle(&'static str),
    /// Two places for one token.
    #[error("the job's token is in a variable or in a file: give id_token or id_token_file")]
    Twice,
    /// No name of an environment variable. It might be the token itself.
    #[error("id_token is the name of an environment variable, never the token")]
    Variable,
}

/// The options, as far as they were not taken yet.
struct Given(Vec<(&'static str, String)>);

const OPTIONS: [&str; 7] = [
    "field",
    "auth",
    "role",
    "auth_mount",
    "audience",
    "id_token",
    "id_token_file",
];

impl Given {
    fn parse(query: &str) -> Result<Self, BadAddress> {
        let mut given: Vec<(&'static str, String)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let known = OPTIONS.into_iter().find(|option| *option == name);
            let name = known.ok_or(BadAddress::Option)?;
            let value = decoded(value)?;
            if value.is_empty() || given.iter().any(|(other, _)| *other == name) {
                return Err(BadAddress::Value(name));
            }
            if value.chars().any(char::is_control) {
                return Err(BadAddress::Character);
            }
            given.push((name, value.into_owned()));
        }
        Ok(Self(given))
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(other, _)| *other == name)?;
        Some(self.0.swap_remove(at).1)
    }

    fn auth(&mut self) -> Result<Auth, BadAddress> {
        match self.take("auth").as_deref() {
            None | Some("token") => Ok(Auth::Token),
            Some("approle") => Ok(Auth::AppRole {
                mount: self.mount("approle")?,
            }),
            Some("jwt") => {
                let from = match (self.take("id_token"), self.take("id_token_file")) {
                    (Some(_), Some(_)) => return Err(BadAddress::Twice),
                    (Some(name), None) => IdToken::Variable(checked_variable(name)?),
                    (None, Some(file)) => IdToken::File(file.into()),
                    (None, None) => IdToken::Platform,
                };
                Ok(Auth::Jwt {
                    mount: self.mount("jwt")?,
                    role: self.take("role"),
                    audience: self.take("audience"),
                    from,
                })
            }
            Some(_) => Err(BadAddress::Auth),
        }
    }

    fn mount(&mut self, default: &str) -> Result<String, BadAddress> {
        let mount = self
            .take("auth_mount")
            .unwrap_or_else(|| default.to_owned());
        for part in mount.split('/') {
            checked(part)?;
        }
        Ok(mount)
    }

    fn end(self) -> Result<(), BadAddress> {
        match self.0.first() {
            Some((name, _)) => Err(BadAddress::Idle(name)),
            None => Ok(()),
        }
    }
}

fn checked(part: &str) -> Result<&str, BadAddress> {
    if matches!(part, "" | "." | "..") {
        return Err(BadAddress::Part);
    }
    if part.contains('\\') || part.chars().any(char::is_control) {
        return Err(BadAddress::Character);
    }
    Ok(part)
}

fn checked_variable(name: String) -> Result<String, BadAddress> {
    let is_usual = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    if name.len() <= 64 && name.bytes().all(is_usual) {
        Ok(name)
    } else {
        Err(BadAddress::Variable)
    }
}

fn decoded(text: &str) -> Result<Cow<'_, str>, BadAddress> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || {
                let digit = char::from(rest.next()?).to_digit(16)?;
                u8::try_from(digit).ok()
            };
            let (Some(high), Some(low)) = (digit(), digit()) else {
                return Err(BadAddress::Percent);
            };
            bytes.push(high << 4 | low);
        } else {
            bytes.push(byte);
        }
    }
    let text = String::from_utf8(bytes).map_err(|_| BadAddress::Percent)?;
    Ok(Cow::Owned(text))
}

/// Encodes what an address cannot hold as it is; other text stays readable.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '%' | '?' | '#' | '&' | '/' | '@' | ':') || c.is_whitespace() {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                // Writing to a string cannot fail.
                write!(encoded, "%{byte:02X}").ok();
            }
        } else {
            encoded.push(c);
        }
    }
    encoded
}

#[cfg(test)]
mod tests;
