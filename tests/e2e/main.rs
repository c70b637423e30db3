//! End-to-end tests: the real Codex against a stub of its endpoints.

mod access_only;
mod any_store;
mod architecture;
#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "azure-kv")]
mod azure;
mod codex_facts;
mod crowds;
mod doctor;
mod families;
mod ferry;
mod left_alone;
mod long_answers;
mod moments;
mod owners;
mod passed_on;
mod refresh;
mod refresh_facts;
mod refresh_faults;
mod rescue;
mod round_trip;
mod signals;
#[cfg(feature = "vault")]
mod stopped_store;
#[cfg(feature = "vault")]
mod vault;
mod watch;
