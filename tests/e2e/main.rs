//! End-to-end tests: the real Codex against a stub of its endpoints.

mod access_only;
mod any_store;
mod architecture;
#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "azure-kv")]
mod azure;
mod codex_facts;
mod conflicting_copies;
mod crowds;
mod doctor;
mod ferry;
#[cfg(feature = "vault")]
mod hung_store;
mod interrupted_refresh;
mod login_turned_off;
mod monitor;
mod oversized_replies;
mod owners;
mod pending_refresh;
mod refresh;
mod refresh_facts;
mod refresh_faults;
mod refusals;
mod rescue;
mod round_trip;
mod signal_forwarding;
mod signals;
#[cfg(feature = "vault")]
mod vault;
mod versions;
mod watch;
