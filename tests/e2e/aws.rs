//! The main scenario with AWS Secrets Manager as the store.

mod connection;
mod doctor;
mod faults;
mod policies;
mod round_trip;
pub(crate) mod site;
