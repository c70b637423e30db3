//! The stores that are compiled in: one entry each.

#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "azure-kv")]
mod azure;
#[cfg(feature = "vault")]
mod vault;

use std::path::Path;

use authferry_core::{BoxError, SecretStore};

use crate::env::Env;

/// A kind of store.
struct Kind {
    scheme: &'static str,
    open: fn(&str, &Env) -> Result<Opened, BoxError>,
}

const KINDS: &[Kind] = &[
    #[cfg(feature = "aws")]
    Kind {
        scheme: "aws-sm",
        open: aws::open,
    },
    #[cfg(feature = "azure-kv")]
    Kind {
        scheme: "azure-kv",
        open: azure::open,
    },
    #[cfg(feature = "file")]
    Kind {
        scheme: "file",
        open: |address, _| Ok(Opened::new(authferry_file::open(address)?)),
    },
    #[cfg(feature = "vault")]
    Kind {
        scheme: "vault",
        open: vault::open,
    },
];

/// A store, and what opens it.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) store: Box<dyn SecretStore>,
    /// The environment variables that let anybody into the store as this job: the command
    /// does not get them.
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

/// Why an address leads to no store.
#[derive(Debug)]
pub(crate) enum NoStore {
    /// The scheme is none that is known.
    UnknownScheme,
    /// The scheme's store does not take it.
    BadAddress(BoxError),
}

/// Opens the store that an address names. No request is made yet.
pub(crate) fn open(address: &str, env: &Env) -> Result<Opened, NoStore> {
    let scheme = address.split_once(':').map(|(scheme, _)| scheme);
    let known = KINDS.iter().find(|kind| Some(kind.scheme) == scheme);
    let kind = known.ok_or(NoStore::UnknownScheme)?;
    (kind.open)(address, env).map_err(NoStore::BadAddress)
}

/// Whether two addresses lead to one place, whatever their options are. Two secrets of Azure's that
/// share a coordinator would take each other's versions for their own.
pub(crate) fn is_same_place(one: &dyn SecretStore, other: &dyn SecretStore) -> bool {
    let [one, other] = [one, other].map(|store| {
        let address = store.to_string();
        let (place, options) = address.split_once('?').unwrap_or((&address, ""));
        let coordinator = options.strip_prefix("coordinator=").map(str::to_owned);
        (resolved(place), coordinator)
    });
    one.0 == other.0 || (one.1.is_some() && one.1 == other.1)
}

/// The place of a file store without the links on the way to it.
fn resolved(place: &str) -> String {
    let path = place.strip_prefix("file://").map(Path::new);
    let folder = path.and_then(|path| path.parent()?.canonicalize().ok());
    match (path.and_then(Path::file_name), folder) {
        (Some(name), Some(folder)) => format!("file://{}", folder.join(name).display()),
        _ => place.to_owned(),
    }
}

/// The schemes that are known, for people.
pub(crate) fn schemes() -> String {
    let names: Vec<_> = KINDS
        .iter()
        .map(|kind| format!("{}:", kind.scheme))
        .collect();
    names.join(", ")
}
