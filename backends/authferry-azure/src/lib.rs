//! A login in Azure Key Vault.

mod address;
mod alone;
mod claim_log;
mod classify;
mod coordinated;
mod credential;
mod protocol;
mod record;
mod settings;
mod store;
mod tags;
mod trouble;
mod wire;

pub use address::{Address, Auth, BadAddress, BlobAddress, Coordinator, IdToken};
pub use settings::{Application, COMMIT_WAIT, Login, Misfit, Settings};
pub use store::{AzureStore, open};
pub use trouble::{Rejection, Trouble};
