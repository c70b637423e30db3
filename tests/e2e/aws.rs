//! The main job with AWS Secrets Manager as the store.

mod doctor;
mod policies;
mod round_trip;
pub(crate) mod site;
mod trouble;
mod ways;
