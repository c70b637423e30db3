//! A login in AWS Secrets Manager.

mod address;
mod aws;
mod claims;
mod classify;
mod failure;
mod login;
mod net;
mod settings;
mod store;
mod token;

pub use address::{Address, BadAddress};
pub use failure::{Failure, Obstacle};
pub use settings::Settings;
pub use store::{AwsStore, open};
