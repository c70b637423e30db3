#![doc = include_str!("../README.md")]

mod address;
mod azure_error;
mod classify;
mod coordinated;
mod credential;
mod protocol;
mod record;
mod settings;
mod store;
mod tags;
mod wire;

pub use address::{Address, Auth, BadAddress, IdToken, NewCoordinator};
pub use azure_error::{AzureError, Rejection};
pub use settings::{Application, ConfigError, Credential, Settings};
pub use store::{AzureStore, open};
