//! The main job with a real server as the store.

mod certificates;
mod round_trip;
mod site;
mod trouble;
