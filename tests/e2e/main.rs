//! End-to-end tests: the real Codex against a stub of its endpoints.

mod architecture;
mod codex_facts;
mod ferry;
mod refresh;
mod round_trip;
mod signals;
#[cfg(feature = "vault")]
mod vault;
