//! A login in Azure Key Vault.
//!
//! # How likely two winners are without a coordinator
//!
//! With `coordinator=none` a job that wants to rotate puts a bid into a log, waits, and has won
//! if its bid is the first one that the log shows then. Two win if the log did not show the first
//! bid yet when the second one had waited. No promise of Microsoft's says how late a list can be.
//! So this is how often it happens in a simulation in which four jobs begin within a second,
//! 10,000 times, by the time that each waits and by what the vault is like:
//!
//! | commit wait | clocks ±0.2 s, lists ≤ 0.2 s late | clocks ±1 s, lists ≤ 0.5 s late | clocks ±1 s, lists ≤ 3 s late | clocks ±1 s, lists ≤ 3 s late, 1 write of 100 stuck ≤ 15 s |
//! |---|---|---|---|---|
//! | 0 s | 19.43 % | 34.63 % | 64.09 % | 62.88 % |
//! | 1 s | 0.00 % | 0.00 % | 53.91 % | 53.81 % |
//! | 2 s | 0.00 % | 0.00 % | 27.55 % | 27.84 % |
//! | 3 s | 0.00 % | 0.00 % | 2.68 % | 3.32 % |
//! | 5 s | 0.00 % | 0.00 % | 0.00 % | 0.75 % |
//! | 8 s | 0.00 % | 0.00 % | 0.00 % | 0.57 % |
//! | 12 s | 0.00 % | 0.00 % | 0.00 % | 0.31 % |
//! | 20 s | 0.00 % | 0.00 % | 0.00 % | 0.00 % |
//!
//! The wait is five seconds ([`COMMIT_WAIT`]). Which column is true nobody knows, and that is
//! why this is best effort. Two winners may spend the same refresh token, of which one comes to
//! nothing. If both write, the login forks: whoever's version is listed last finds the other one
//! by the parent that both name, and both values stay readable in the vault.

mod address;
mod alone;
mod claim_log;
mod classify;
mod coordinated;
mod credential;
mod protocol;
mod record;
mod settings;
mod store;
mod tags;
mod trouble;
mod wire;

pub use address::{Address, Auth, BadAddress, BlobAddress, Coordinator, IdToken};
pub use settings::{Application, COMMIT_WAIT, Login, Misfit, Settings};
pub use store::{AzureStore, open};
pub use trouble::{Rejection, Trouble};
