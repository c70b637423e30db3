//! The stores that are compiled in: one entry each.

#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "azure-kv")]
mod azure;
#[cfg(feature = "vault")]
mod vault;

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

/// The schemes that are known, for people.
pub(crate) fn schemes() -> String {
    let names: Vec<_> = KINDS
        .iter()
        .map(|kind| format!("{}:", kind.scheme))
        .collect();
    names.join(", ")
}
