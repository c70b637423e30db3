//! The main job with Azure Key Vault as the store, and a blob that says which version counts.

mod kills;
mod logins;
mod policies;
mod round_trip;
pub(crate) mod site;
mod trouble;
