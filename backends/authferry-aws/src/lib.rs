#![doc = include_str!("../README.md")]

mod address;
mod aws;
#[cfg(test)]
mod canned;
mod classify;
mod failure;
mod leases;
mod login;
mod net;
mod settings;
mod store;
mod token;

pub use address::{Address, BadAddress};
pub use failure::{AwsError, Obstacle};
pub use net::ConfigError;
pub use settings::Settings;
pub use store::{AwsStore, open};
