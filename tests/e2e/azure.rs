//! The main scenario with Azure Key Vault as the store, and a blob as the pointer to the current
//! version.

mod authentication;
mod faults;
mod kills;
mod policies;
mod round_trip;
pub(crate) mod site;
