//! The main job with a real server as the store.

mod certificates;
mod doctor;
mod logins;
mod policies;
mod round_trip;
pub(crate) mod site;
mod trouble;
