//! The main scenario with a real OpenBao server as the store.

mod authentication;
mod certificates;
mod doctor;
mod faults;
mod policies;
mod round_trip;
pub(crate) mod site;
