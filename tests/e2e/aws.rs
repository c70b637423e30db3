//! The main job with AWS Secrets Manager as the store.

mod policies;
mod round_trip;
mod site;
mod trouble;
mod ways;
