//! `azure-kv://VAULT/NAME?coordinator=…`, and what may not be in it.

use std::{fmt, path::PathBuf, str::FromStr};

use url::Url;

/// Where a login is kept, what says which version of it counts, and how to log in there.
/// Every secret comes from elsewhere.
///
/// `Display` gives the place alone, in one spelling: how the caller logged in does not
/// make it another place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// As it was written: a name, or a host.
    vault: String,
    pub(crate) name: String,
    pub(crate) coordinator: BlobAddress,
    auth: Option<Auth>,
}

/// Where the coordinator's blob is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlobAddress {
    /// An account's name, or a host with everything up to the container.
    account: String,
    /// The container, a slash, and the blob.
    path: String,
}

/// How to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// With the job's own OIDC token, for which the application has a federated credential.
    Workload(IdToken),
    /// As the identity of the machine.
    Managed,
    /// With a secret of the application.
    Secret,
    /// As whoever is logged in to Azure's own command line tool.
    Cli,
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

const SCHEME: &str = "azure-kv://";

const BLOB: &str = "blob://";

/// The longest value of a tag: each version names its coordinator in one.
const MAX_TAG: usize = 256;

/// The end of the name of the blob that holds the claim.
const CLAIM: &str = "-claim";

/// The longest name of a secret.
const MAX_NAME: usize = 127;

/// The domain of the vaults of each cloud, and the domain of its blobs, which an address has to
/// name for every cloud but the public one.
const CLOUDS: [(&str, Option<&str>); 3] = [
    (".vault.azure.net", None),
    (".vault.azure.cn", Some("blob.core.chinacloudapi.cn")),
    (
        ".vault.usgovcloudapi.net",
        Some("blob.core.usgovcloudapi.net"),
    ),
];

/// The shortest name of a storage account.
const MIN_ACCOUNT: usize = 3;

impl Address {
    /// Returns how to log in, if the address says so.
    #[must_use]
    pub fn auth(&self) -> Option<&Auth> {
        self.auth.as_ref()
    }

    /// Returns the address of the vault.
    pub(crate) fn vault(&self) -> Url {
        let host = if is_host(&self.vault) {
            self.vault.clone()
        } else {
            format!("{}.vault.azure.net", self.vault)
        };
        url(&host)
    }
}

impl BlobAddress {
    pub(crate) fn url(&self) -> Url {
        if is_host(&self.account) {
            url(&format!("{}/{}", self.account, self.path))
        } else {
            let host = format!("{}.blob.core.windows.net", self.account);
            url(&format!("{host}/{}", self.path))
        }
    }

    /// Returns the blob beside this one that holds the claim.
    pub(crate) fn claim(&self) -> Self {
        Self {
            account: self.account.clone(),
            path: format!("{}{CLAIM}", self.path),
        }
    }
}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix(SCHEME).ok_or(BadAddress::Scheme)?;
        if !rest.bytes().all(|b| b.is_ascii_graphic()) || rest.contains(['#', '\\', '%']) {
            return Err(BadAddress::Character);
        }
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (vault, name) = place.split_once('/').ok_or(BadAddress::Path)?;
        if vault.contains('@') {
            return Err(BadAddress::User);
        }
        let vault = checked_authority(vault, 24).ok_or(BadAddress::Vault)?;
        let is_usual = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_usual) {
            return Err(BadAddress::Name);
        }
        let mut given = Given::parse(query)?;
        let coordinator = match given.take("coordinator").map(|it| it.strip_prefix(BLOB)) {
            Some(Some(blob)) => BlobAddress::parse(blob)?,
            None | Some(None) => {
                return Err(BadAddress::Coordinator(NewCoordinator::of(&vault, name)));
            }
        };
        let auth = given.auth()?;
        given.end()?;
        Ok(Self {
            vault,
            name: name.to_owned(),
            coordinator,
            auth,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            vault,
            name,
            coordinator,
            auth: _,
        } = self;
        write!(f, "{SCHEME}{vault}/{name}?coordinator={coordinator}")
    }
}

impl BlobAddress {
    /// Parses what follows `blob://`.
    fn parse(text: &str) -> Result<Self, BadAddress> {
        let (authority, path) = text.split_once('/').ok_or(BadAddress::Blob)?;
        if authority.contains('@') {
            return Err(BadAddress::User);
        }
        let mut account = checked_authority(authority, 24).ok_or(BadAddress::Blob)?;
        let mut path = path;
        if authority.contains(':') {
            // Where there is a port the account is no part of the host.
            let (name, rest) = path.split_once('/').ok_or(BadAddress::Blob)?;
            account = format!(
                "{account}/{}",
                checked_authority(name, 24).ok_or(BadAddress::Blob)?
            );
            path = rest;
        }
        let is_usual = |b: u8| b.is_ascii_alphanumeric() || b"-._~$".contains(&b);
        let is_part = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(is_usual);
        if !path.contains('/') || !path.split('/').all(is_part) {
            return Err(BadAddress::Blob);
        }
        if BLOB.len() + text.len() > MAX_TAG {
            return Err(BadAddress::Long);
        }
        Ok(Self {
            account,
            path: path.to_owned(),
        })
    }
}

impl fmt::Display for BlobAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{BLOB}{}/{}", self.account, self.path)
    }
}

/// Why a text is not the address of such a store. The text itself is not repeated: a
/// mistyped address may hold anything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    /// Another scheme, or none.
    #[error("the address of a Key Vault store begins with azure-kv://")]
    Scheme,
    /// Nothing but a vault.
    #[error("the address of a Key Vault store names a vault and a secret: azure-kv://VAULT/NAME")]
    Path,
    /// A user.
    #[error("a Key Vault address names no user and no password")]
    User,
    /// A character that other tools would read in another way than this one.
    #[error("a Key Vault address is ASCII text without blanks, `#`, `%` or `\\`")]
    Character,
    /// Neither a name nor a host.
    #[error("the vault of a Key Vault address is its name, or a host, which has a dot or a port")]
    Vault,
    /// A name that Key Vault does not take.
    #[error("the name of a secret is letters, digits and `-`, at most 127 of them")]
    Name,
    /// No coordinator, or one that is not a blob.
    #[error(
        "a Key Vault address needs coordinator=blob://ACCOUNT/CONTAINER/NAME, because Key Vault \
         has no compare-and-swap"
    )]
    Coordinator(NewCoordinator),
    /// No blob.
    #[error(
        "the blob of a coordinator reads blob://ACCOUNT/CONTAINER/NAME, or \
         blob://HOST:PORT/ACCOUNT/CONTAINER/NAME"
    )]
    Blob,
    /// More than a tag can hold.
    #[error("the blob of a coordinator is named in at most 256 characters")]
    Long,
    /// An option that is not known. Maybe a secret.
    #[error(
        "a Key Vault address knows the options coordinator, auth, id_token and id_token_file, \
         and no other"
    )]
    Option,
    /// An option twice, or without a value.
    #[error("{0} has one value in a Key Vault address")]
    Value(&'static str),
    /// A way to log in that is not known.
    #[error("auth is workload, managed, secret or cli in a Key Vault address")]
    Auth,
    /// An option for another way to log in.
    #[error("{0} means nothing in a Key Vault address without auth=workload")]
    Idle(&'static str),
    /// Two places for one token.
    #[error("the job's token is in a variable or in a file: give id_token or id_token_file")]
    Twice,
    /// No name of an environment variable. It might be the token itself.
    #[error("id_token is the name of an environment variable, never the token")]
    Variable,
}

/// The names for a coordinator that does not exist yet, derived from an address without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCoordinator {
    /// The name of the vault. `None` if the address names a host outside the known clouds.
    pub vault: Option<String>,
    /// A name for the storage account. `None` if the name of the vault yields none.
    pub account: Option<String>,
    /// The domain of the account's blobs. `None` for the public cloud.
    pub domain: Option<&'static str>,
    /// A name for the blob.
    pub blob: String,
}

impl NewCoordinator {
    fn of(vault: &str, secret: &str) -> Self {
        let in_cloud = |(vaults, blobs): (&str, _)| Some((vault.strip_suffix(vaults)?, blobs));
        let (name, domain) = CLOUDS
            .into_iter()
            .find_map(in_cloud)
            .unwrap_or((vault, None));
        let vault = (!is_host(name)).then(|| name.to_owned());
        // Names of vaults and of accounts are global. That of an account has no hyphen.
        let account = vault.as_ref().map(|vault| vault.replace('-', ""));
        Self {
            vault,
            account: account.filter(|account| account.len() >= MIN_ACCOUNT),
            domain,
            blob: format!("{secret}.json"),
        }
    }
}

/// The options, as far as they were not taken yet.
struct Given<'a>(Vec<(&'static str, &'a str)>);

const OPTIONS: [&str; 4] = ["coordinator", "auth", "id_token", "id_token_file"];

impl<'a> Given<'a> {
    fn parse(query: &'a str) -> Result<Self, BadAddress> {
        let mut given: Vec<(&'static str, &str)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let known = OPTIONS.into_iter().find(|option| *option == name);
            let name = known.ok_or(BadAddress::Option)?;
            if value.is_empty() || given.iter().any(|(other, _)| *other == name) {
                return Err(BadAddress::Value(name));
            }
            given.push((name, value));
        }
        Ok(Self(given))
    }

    fn take(&mut self, name: &str) -> Option<&'a str> {
        let at = self.0.iter().position(|(other, _)| *other == name)?;
        Some(self.0.swap_remove(at).1)
    }

    fn auth(&mut self) -> Result<Option<Auth>, BadAddress> {
        let auth = match self.take("auth") {
            None => return Ok(None),
            Some("managed") => Auth::Managed,
            Some("secret") => Auth::Secret,
            Some("cli") => Auth::Cli,
            Some("workload") => {
                let from = match (self.take("id_token"), self.take("id_token_file")) {
                    (Some(_), Some(_)) => return Err(BadAddress::Twice),
                    (Some(name), None) => IdToken::Variable(checked_variable(name)?),
                    (None, Some(file)) => IdToken::File(file.into()),
                    (None, None) => IdToken::Platform,
                };
                Auth::Workload(from)
            }
            Some(_) => return Err(BadAddress::Auth),
        };
        Ok(Some(auth))
    }

    fn end(self) -> Result<(), BadAddress> {
        match self.0.first() {
            Some((name, _)) => Err(BadAddress::Idle(name)),
            None => Ok(()),
        }
    }
}

/// Takes a name of letters, digits and hyphens, or a host, in lower case as both are.
fn checked_authority(text: &str, max: usize) -> Option<String> {
    let text = text.to_ascii_lowercase();
    if is_host(&text) {
        let url = Url::parse(&format!("https://{text}/")).ok()?;
        let is_itself = url.host_str().is_some() && url.path() == "/" && url.query().is_none();
        return is_itself.then_some(text);
    }
    let is_usual = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    let is_name = !text.is_empty() && text.len() <= max && text.bytes().all(is_usual);
    is_name.then_some(text)
}

fn is_host(text: &str) -> bool {
    text.contains(['.', ':'])
}

fn url(text: &str) -> Url {
    let url = Url::parse(&format!("https://{text}"));
    url.expect("its parts were looked at before")
}

fn checked_variable(name: &str) -> Result<String, BadAddress> {
    let is_usual = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    if name.len() <= 64 && name.bytes().all(is_usual) {
        Ok(name.to_owned())
    } else {
        Err(BadAddress::Variable)
    }
}

#[cfg(test)]
mod tests;
