//! The stores that are compiled in.

#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "azure-kv")]
mod azure;
#[cfg(feature = "vault")]
mod vault;

use std::path::Path;

use authferry_core::{BoxError, SecretStore};

use crate::env::Env;

/// A kind of store, by the scheme of its address.
struct StoreKind {
    scheme: &'static str,
    open: fn(&str, &Env) -> Result<Opened, BoxError>,
}

const KINDS: &[StoreKind] = &[
    #[cfg(feature = "aws")]
    StoreKind {
        scheme: "aws-sm",
        open: aws::open,
    },
    #[cfg(feature = "azure-kv")]
    StoreKind {
        scheme: "azure-kv",
        open: azure::open,
    },
    #[cfg(feature = "file")]
    StoreKind {
        scheme: "file",
        open: |address, _| Ok(Opened::new(authferry_file::open(address)?)),
    },
    #[cfg(feature = "vault")]
    StoreKind {
        scheme: "vault",
        open: vault::open,
    },
];

/// A store, and the environment variables with its credentials.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) store: Box<dyn SecretStore>,
    /// Environment variables that authenticate to the store as this job: the command does not get
    /// them.
    pub(crate) credentials: Vec<String>,
}

impl Opened {
    /// A store that needs nothing from the environment.
    #[cfg(feature = "file")]
    fn new(store: impl SecretStore + 'static) -> Self {
        Self {
            store: Box::new(store),
            credentials: Vec::new(),
        }
    }
}

/// Why an address cannot be opened.
#[derive(Debug)]
pub(crate) enum NoStore {
    /// The scheme is unknown.
    UnknownScheme,
    /// The store of the scheme rejects the address.
    BadAddress(BoxError),
}

/// Opens the store at an address, without a request.
pub(crate) fn open(address: &str, env: &Env) -> Result<Opened, NoStore> {
    let scheme = address.split_once(':').map(|(scheme, _)| scheme);
    let known = KINDS.iter().find(|kind| Some(kind.scheme) == scheme);
    let kind = known.ok_or(NoStore::UnknownScheme)?;
    (kind.open)(address, env).map_err(NoStore::BadAddress)
}

/// Whether two addresses name the same place, with any options. Two Azure secrets with the same
/// coordinator count as one place: each would mistake the other's versions for its versions.
pub(crate) fn is_same_place(one: &dyn SecretStore, other: &dyn SecretStore) -> bool {
    let [one, other] = [one, other].map(|store| {
        let address = store.to_string();
        let (place, options) = address.split_once('?').unwrap_or((&address, ""));
        let coordinator = options.strip_prefix("coordinator=").map(str::to_owned);
        (resolved(place), coordinator)
    });
    one.0 == other.0 || (one.1.is_some() && one.1 == other.1)
}

/// Resolves the symbolic links in the path of a file store.
fn resolved(place: &str) -> String {
    let path = place.strip_prefix("file://").map(Path::new);
    let folder = path.and_then(|path| path.parent()?.canonicalize().ok());
    match (path.and_then(Path::file_name), folder) {
        (Some(name), Some(folder)) => format!("file://{}", folder.join(name).display()),
        _ => place.to_owned(),
    }
}

/// The known schemes, as text.
pub(crate) fn schemes() -> String {
    let names: Vec<_> = KINDS
        .iter()
        .map(|kind| format!("{}:", kind.scheme))
        .collect();
    names.join(", ")
}
