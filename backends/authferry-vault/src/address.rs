//! Parses `vault://MOUNT/PATH?field=NAME&auth=…` and rejects every ambiguous spelling.

use std::{
    borrow::Cow,
    fmt::{self, Write},
    path::PathBuf,
    str::FromStr,
};

/// Where a server keeps a login, and how to authenticate there. The server's URL and every
/// secret come from [`Settings`](crate::Settings).
///
/// `Display` prints only the place, in one canonical spelling: the authentication method does
/// not change which place it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub(crate) mount: String,
    pub(crate) path: String,
    pub(crate) field: String,
    auth: Auth,
}

/// How to authenticate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// With an existing Vault token.
    Token,
    /// With the job's own OIDC token.
    Jwt {
        /// The path of the auth method.
        mount: String,
        /// The role; `None` for the method's default.
        role: Option<String>,
        /// The audience to request from the platform.
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
    /// In the platform's usual place.
    Platform,
    /// In the environment variable of this name.
    Variable(String),
    /// In this file.
    File(PathBuf),
}

const SCHEME: &str = "vault://";

/// The default name of the field.
const FIELD: &str = "auth_json";

/// The suffix of the metadata field's name.
pub(crate) const META: &str = ".authferry";

/// The suffix of the path of the lease's secret.
const LEASE: &str = "-lease";

impl Address {
    /// Returns how to authenticate.
    #[must_use]
    pub fn auth(&self) -> &Auth {
        &self.auth
    }

    /// Returns the place of this login's lease.
    pub(crate) fn of_lease(&self) -> Self {
        Self {
            path: format!("{}{LEASE}", self.path),
            field: "lease".to_owned(),
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
        // A mount may consist of several segments. An encoded slash in a path segment would add
        // one more segment.
        let mount = decode(mount)?.into_owned();
        for part in mount.split('/') {
            check_segment(part)?;
        }
        let mut parts = Vec::new();
        for part in path.split('/') {
            let part = decode(part)?;
            if part.contains('/') {
                return Err(BadAddress::Segment);
            }
            parts.push(check_segment(&part)?.to_owned());
        }
        let mut options = AddressOptions::parse(query)?;
        let field = options.take("field").unwrap_or_else(|| FIELD.to_owned());
        if field.ends_with(META) {
            return Err(BadAddress::Field);
        }
        let auth = options.take_auth()?;
        options.finish()?;
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
        // Encode a slash in the mount: a plain one would end the mount.
        write!(f, "{SCHEME}{}", encode(&self.mount))?;
        for part in self.path.split('/') {
            write!(f, "/{}", encode(part))?;
        }
        if self.field != FIELD {
            write!(f, "?field={}", encode(&self.field))?;
        }
        Ok(())
    }
}

/// Why a text is not a Vault address. The message never repeats the text: a mistyped address
/// may contain a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    /// Another scheme, or none.
    #[error("the address of a Vault store begins with vault://")]
    Scheme,
    /// A mount without a path.
    #[error("the address of a Vault store names a mount and a path: vault://MOUNT/PATH")]
    Path,
    /// A user or a port: the address contains no host.
    #[error("a Vault address contains no user, password or port: it begins with the mount")]
    User,
    /// A character that other tools parse differently.
    #[error("a Vault address contains no control characters, `#` or `\\`")]
    Character,
    /// A percent sign without two hex digits, or bytes that are not UTF-8.
    #[error("a percent sign in a Vault address is followed by two hex digits of UTF-8 text")]
    Percent,
    /// A second spelling of a path that has a simpler one, or a folder.
    #[error("a Vault path names one secret, without empty parts, `.` or `..`")]
    Segment,
    /// The name of a metadata field.
    #[error("field names that end in .authferry are reserved for the store's metadata")]
    Field,
    /// An unknown option. It may be a secret.
    #[error(
        "unknown option in a Vault address: the options are field, auth, role, auth_mount, \
         audience, id_token and id_token_file"
    )]
    Option,
    /// A repeated option, or one without a value.
    #[error("the option {0} of a Vault address needs exactly one value")]
    Value(&'static str),
    /// An unknown authentication method.
    #[error("the option auth of a Vault address is token, jwt or approle")]
    Auth,
    /// An option of another authentication method.
    #[error("the option {0} of a Vault address does not apply to this auth")]
    NotApplicable(&'static str),
    /// Two sources for one token.
    #[error("give either id_token or id_token_file, not both")]
    TwoTokenSources,
    /// Not the name of an environment variable. It might be the token itself.
    #[error("id_token is the name of an environment variable, never the token")]
    Variable,
}

/// The options that are not consumed yet.
struct AddressOptions(Vec<(&'static str, String)>);

const OPTIONS: [&str; 7] = [
    "field",
    "auth",
    "role",
    "auth_mount",
    "audience",
    "id_token",
    "id_token_file",
];

impl AddressOptions {
    fn parse(query: &str) -> Result<Self, BadAddress> {
        let mut given: Vec<(&'static str, String)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let known = OPTIONS.into_iter().find(|option| *option == name);
            let name = known.ok_or(BadAddress::Option)?;
            let value = decode(value)?;
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

    fn take_auth(&mut self) -> Result<Auth, BadAddress> {
        match self.take("auth").as_deref() {
            None | Some("token") => Ok(Auth::Token),
            Some("approle") => Ok(Auth::AppRole {
                mount: self.take_mount("approle")?,
            }),
            Some("jwt") => {
                let from = match (self.take("id_token"), self.take("id_token_file")) {
                    (Some(_), Some(_)) => return Err(BadAddress::TwoTokenSources),
                    (Some(name), None) => IdToken::Variable(check_variable(name)?),
                    (None, Some(file)) => IdToken::File(file.into()),
                    (None, None) => IdToken::Platform,
                };
                Ok(Auth::Jwt {
                    mount: self.take_mount("jwt")?,
                    role: self.take("role"),
                    audience: self.take("audience"),
                    from,
                })
            }
            Some(_) => Err(BadAddress::Auth),
        }
    }

    fn take_mount(&mut self, default: &str) -> Result<String, BadAddress> {
        let mount = self
            .take("auth_mount")
            .unwrap_or_else(|| default.to_owned());
        for part in mount.split('/') {
            check_segment(part)?;
        }
        Ok(mount)
    }

    fn finish(self) -> Result<(), BadAddress> {
        match self.0.first() {
            Some((name, _)) => Err(BadAddress::NotApplicable(name)),
            None => Ok(()),
        }
    }
}

fn check_segment(part: &str) -> Result<&str, BadAddress> {
    if matches!(part, "" | "." | "..") {
        return Err(BadAddress::Segment);
    }
    if part.contains('\\') || part.chars().any(char::is_control) {
        return Err(BadAddress::Character);
    }
    Ok(part)
}

fn check_variable(name: String) -> Result<String, BadAddress> {
    let is_usual = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    if name.len() <= 64 && name.bytes().all(is_usual) {
        Ok(name)
    } else {
        Err(BadAddress::Variable)
    }
}

fn decode(text: &str) -> Result<Cow<'_, str>, BadAddress> {
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

/// Percent-encodes the characters that have a meaning in an address; other text stays readable.
fn encode(text: &str) -> String {
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
