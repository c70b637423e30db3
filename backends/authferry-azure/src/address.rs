//! Parses `azure-kv://VAULT/NAME?coordinator=…` and rejects invalid addresses.

use std::{fmt, path::PathBuf, str::FromStr};

use url::Url;

/// Where a login is kept, which blob names its current version, and how to authenticate. Every
/// secret comes from [`Settings`](crate::Settings).
///
/// `Display` prints only the place, in one canonical spelling: the authentication method does
/// not change which place it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A name or a host, as given.
    vault: String,
    pub(crate) name: String,
    pub(crate) coordinator: BlobAddress,
    auth: Option<Auth>,
}

/// The address of the coordinator's blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlobAddress {
    /// The name of an account, or a host and the path up to the container.
    account: String,
    /// The container, a slash, and the blob.
    path: String,
}

/// How to authenticate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// With the job's OIDC token, for which the application has a federated credential.
    Workload(IdToken),
    /// With the managed identity of the machine.
    Managed,
    /// With a client secret of the application.
    Secret,
    /// With the login of the Azure CLI.
    Cli,
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

const SCHEME: &str = "azure-kv://";

const BLOB: &str = "blob://";

/// The longest value of a tag: a tag of each version names the coordinator.
const MAX_TAG_LEN: usize = 256;

/// The suffix of the name of the lease's blob.
const LEASE: &str = "-lease";

/// The longest name of a secret.
const MAX_NAME_LEN: usize = 127;

/// The domain of the vaults of each cloud, and the domain of its blobs. An address must name the
/// latter for every cloud except the public one.
const CLOUDS: [(&str, Option<&str>); 3] = [
    (".vault.azure.net", None),
    (".vault.azure.cn", Some("blob.core.chinacloudapi.cn")),
    (
        ".vault.usgovcloudapi.net",
        Some("blob.core.usgovcloudapi.net"),
    ),
];

/// The shortest name of a storage account.
const MIN_ACCOUNT_LEN: usize = 3;

impl Address {
    /// Returns how to authenticate, if the address names it.
    #[must_use]
    pub fn auth(&self) -> Option<&Auth> {
        self.auth.as_ref()
    }

    /// Returns the URL of the vault.
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

    /// Returns the address of the lease's blob.
    pub(crate) fn lease(&self) -> Self {
        Self {
            account: self.account.clone(),
            path: format!("{}{LEASE}", self.path),
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
        let vault = check_authority(vault, 24).ok_or(BadAddress::KeyVault)?;
        let is_usual = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if name.is_empty() || name.len() > MAX_NAME_LEN || !name.bytes().all(is_usual) {
            return Err(BadAddress::Name);
        }
        let mut options = AddressOptions::parse(query)?;
        let coordinator = match options.take("coordinator").map(|it| it.strip_prefix(BLOB)) {
            Some(Some(blob)) => BlobAddress::parse(blob)?,
            None | Some(None) => {
                return Err(BadAddress::Coordinator(NewCoordinator::of(&vault, name)));
            }
        };
        let auth = options.take_auth()?;
        options.finish()?;
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
        let mut account = check_authority(authority, 24).ok_or(BadAddress::Blob)?;
        let mut path = path;
        if authority.contains(':') {
            // With a port, the account is the first segment of the path.
            let (name, rest) = path.split_once('/').ok_or(BadAddress::Blob)?;
            account = format!(
                "{account}/{}",
                check_authority(name, 24).ok_or(BadAddress::Blob)?
            );
            path = rest;
        }
        let is_usual = |b: u8| b.is_ascii_alphanumeric() || b"-._~$".contains(&b);
        let is_part = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(is_usual);
        if !path.contains('/') || !path.split('/').all(is_part) {
            return Err(BadAddress::Blob);
        }
        if BLOB.len() + text.len() > MAX_TAG_LEN {
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

/// Why a text is not a Key Vault address. The message never repeats the text: a mistyped address
/// may contain a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    /// Another scheme, or none.
    #[error("the address of a Key Vault store begins with azure-kv://")]
    Scheme,
    /// A vault without a secret.
    #[error("the address of a Key Vault store names a vault and a secret: azure-kv://VAULT/NAME")]
    Path,
    /// A user.
    #[error("a Key Vault address contains no user and no password")]
    User,
    /// A character that other tools parse differently.
    #[error("a Key Vault address is ASCII text without spaces, `#`, `%` or `\\`")]
    Character,
    /// Neither a name nor a host.
    #[error("the vault of a Key Vault address is its name, or a host, which has a dot or a port")]
    KeyVault,
    /// A name that Key Vault does not accept.
    #[error("the name of a secret consists of at most 127 letters, digits and `-`")]
    Name,
    /// No coordinator, or one that is not a blob.
    #[error(
        "a Key Vault address needs coordinator=blob://ACCOUNT/CONTAINER/NAME, because Key Vault \
         has no compare-and-swap"
    )]
    Coordinator(NewCoordinator),
    /// An invalid blob address.
    #[error(
        "the address of a coordinator's blob is blob://ACCOUNT/CONTAINER/NAME, or \
         blob://HOST:PORT/ACCOUNT/CONTAINER/NAME"
    )]
    Blob,
    /// Too long for a tag.
    #[error("the address of a coordinator's blob has at most 256 characters")]
    Long,
    /// An unknown option. It may be a secret.
    #[error(
        "unknown option in a Key Vault address: the options are coordinator, auth, id_token and \
         id_token_file"
    )]
    Option,
    /// A repeated option, or one without a value.
    #[error("the option {0} of a Key Vault address needs exactly one value")]
    Value(&'static str),
    /// An unknown authentication method.
    #[error("the option auth of a Key Vault address is workload, managed, secret or cli")]
    Auth,
    /// An option of another authentication method.
    #[error("the option {0} of a Key Vault address applies only to auth=workload")]
    NotApplicable(&'static str),
    /// Two sources for one token.
    #[error("give either id_token or id_token_file, not both")]
    TwoTokenSources,
    /// Not the name of an environment variable. It might be the token itself.
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
        // Suggest the vault's name: it is globally unique, so it is probably free as an account's
        // name too. An account's name has no hyphen.
        let account = vault.as_ref().map(|vault| vault.replace('-', ""));
        Self {
            vault,
            account: account.filter(|account| account.len() >= MIN_ACCOUNT_LEN),
            domain,
            blob: format!("{secret}.json"),
        }
    }
}

/// The options that are not consumed yet.
struct AddressOptions<'a>(Vec<(&'static str, &'a str)>);

const OPTIONS: [&str; 4] = ["coordinator", "auth", "id_token", "id_token_file"];

impl<'a> AddressOptions<'a> {
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

    fn take_auth(&mut self) -> Result<Option<Auth>, BadAddress> {
        let auth = match self.take("auth") {
            None => return Ok(None),
            Some("managed") => Auth::Managed,
            Some("secret") => Auth::Secret,
            Some("cli") => Auth::Cli,
            Some("workload") => {
                let from = match (self.take("id_token"), self.take("id_token_file")) {
                    (Some(_), Some(_)) => return Err(BadAddress::TwoTokenSources),
                    (Some(name), None) => IdToken::Variable(check_variable(name)?),
                    (None, Some(file)) => IdToken::File(file.into()),
                    (None, None) => IdToken::Platform,
                };
                Auth::Workload(from)
            }
            Some(_) => return Err(BadAddress::Auth),
        };
        Ok(Some(auth))
    }

    fn finish(self) -> Result<(), BadAddress> {
        match self.0.first() {
            Some((name, _)) => Err(BadAddress::NotApplicable(name)),
            None => Ok(()),
        }
    }
}

/// Validates a name of letters, digits and hyphens, or a host. Returns it in lowercase.
fn check_authority(text: &str, max: usize) -> Option<String> {
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
    url.expect("validated parts")
}

fn check_variable(name: &str) -> Result<String, BadAddress> {
    let is_usual = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    if name.len() <= 64 && name.bytes().all(is_usual) {
        Ok(name.to_owned())
    } else {
        Err(BadAddress::Variable)
    }
}

#[cfg(test)]
mod tests;
