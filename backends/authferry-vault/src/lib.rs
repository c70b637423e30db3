#![doc = include_str!("../README.md")]

mod address;
#[cfg(test)]
mod canned;
mod classify;
mod fields;
mod session;
mod settings;
mod store;
mod vault_error;
mod wire;

pub use address::{Address, Auth, BadAddress, IdToken};
pub use settings::{ConfigError, Settings};
pub use store::{VaultStore, open};
pub use vault_error::{Rejection, VaultError};
