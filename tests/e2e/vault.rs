//! The main job with a real server as the store.

mod logins;
mod policies;
mod round_trip;
mod site;
mod trouble;
