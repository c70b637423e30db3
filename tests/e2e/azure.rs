//! The main job with Azure Key Vault as the store: with a blob that says which version counts,
//! and alone.

mod kills;
mod logins;
mod policies;
mod round_trip;
pub(crate) mod site;
mod trouble;
