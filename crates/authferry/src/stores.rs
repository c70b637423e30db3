//! The stores that are compiled in: one line each.

use authferry_core::{BoxError, SecretStore};

/// Opens the store at an address.
type Open = fn(&str) -> Result<Box<dyn SecretStore>, BoxError>;

/// Scheme and opener.
const STORES: &[(&str, Open)] = &[
    #[cfg(feature = "file")]
    ("file", |address| {
        Ok(Box::new(authferry_file::open(address)?))
    }),
];

/// Why an address leads to no store.
#[derive(Debug)]
pub(crate) enum NoStore {
    /// The scheme is none that is known.
    UnknownScheme,
    /// The scheme's store does not take it.
    BadAddress(BoxError),
}

/// Opens the store that an address names. No request is made yet.
pub(crate) fn open(address: &str) -> Result<Box<dyn SecretStore>, NoStore> {
    let scheme = address.split_once(':').map(|(scheme, _)| scheme);
    let known = STORES.iter().find(|(name, _)| Some(*name) == scheme);
    let (_, open) = known.ok_or(NoStore::UnknownScheme)?;
    open(address).map_err(NoStore::BadAddress)
}

/// The schemes that are known, for people.
pub(crate) fn schemes() -> String {
    let names: Vec<_> = STORES.iter().map(|(name, _)| format!("{name}:")).collect();
    names.join(", ")
}
