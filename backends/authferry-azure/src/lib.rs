//! A login in Azure Key Vault, for jobs that share nothing but a network.
//!
//! At `azure-kv://VAULT/NAME?coordinator=…` the login is the value of the secret `NAME`, byte
//! for byte: `az keyvault secret show --vault-name VAULT --name NAME --query value -o tsv` gives
//! a file that Codex can use, and `az keyvault secret set --vault-name VAULT --name NAME --file
//! auth.json` seeds it. What the writer said of it stands beside it in the tags `authferry-…` of
//! the version. Tags of others, and the content type, are kept from version to version.
//!
//! `VAULT` is the name of a vault, or a host if it has a dot or a port: sovereign clouds, private
//! endpoints.
//!
//! | in the address | |
//! |---|---|
//! | `coordinator=blob://ACCOUNT/CONTAINER/NAME` | a blob in which the jobs agree on the version that counts; `ACCOUNT` is a name, or a host if it has a dot |
//! | `coordinator=blob://HOST:PORT/ACCOUNT/CONTAINER/NAME` | the same where the account is no part of the host |
//! | `coordinator=none` | nothing: the newest version counts, and all is best effort |
//! | `auth=workload` | log in with the job's own OIDC token, as an application with a federated credential for it |
//! | `auth=managed` | log in as the identity of the machine |
//! | `auth=secret` | log in with a secret of the application |
//! | `auth=cli` | log in as whoever is logged in to `az` |
//! | `id_token=NAME` | the environment variable that holds the job's token |
//! | `id_token_file=PATH` | the file that holds it |
//!
//! An address without a coordinator is refused, for looks as well: which version counts is then
//! not known. Without `auth` the way in is chosen by what is set, as Azure's own libraries do,
//! and nobody is asked for that: `AZURE_CLIENT_SECRET`, then a token of the job's own, then
//! `IDENTITY_ENDPOINT`, then `az`.
//!
//! # Why there is a coordinator
//!
//! Key Vault has no condition on a write. It appends a version and makes that the newest one,
//! whoever asks and however late; it lists versions by name and not by time, and tells their
//! times in whole seconds. So nothing that is asked of it keeps two writers apart. A blob has
//! such a condition (`If-Match`): it holds the name of the version that counts, who is about to
//! replace it, and which versions without a tag of ours were seen. The module `protocol` says
//! how a write goes through, and is checked in every order in which two writers, a reader and a
//! person can get into each other's way.
//!
//! # What it promises with a coordinator
//!
//! - **One winner.** Of any number of writers one may put its value at a time, and of those that
//!   expect the same version one is told that it has written. No clock decides that: an
//!   intent is replaced when it was seen unchanged for some ten seconds, and whoever was asleep
//!   meanwhile is told of a conflict.
//! - **An interrupted write is finished** by whoever looks next, if its value is in the vault.
//! - **A value that a person put counts**, whenever it comes, also where a write covers it.
//! - **No version twice**: a version is the vault's own name for it, 32 random digits.
//! - **A claim makes no versions.** It is a second blob, `NAME-claim`.
//!
//! # What it promises without one
//!
//! - **Nothing is lost.** If two write over one version, both values stay in the vault, and
//!   each writer that comes second finds the other by the tag `authferry-parent`. What was
//!   first by the vault's own time counts, and is put once more to be the newest.
//! - **Losers of a claim put nothing** into the secret. The claim itself is a log of bids, in the
//!   secret `NAME-claim`: of all bids in one epoch the first counts, five seconds after it was
//!   made. That the vault lists a bid by then is likely, and documented nowhere.
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
//!
//! # What it does not
//!
//! - With a coordinator, the newest version in the vault is mostly the one that counts, and not
//!   always: a value that came too late stays the newest until the next write. Where `az` shows
//!   another value than `authferry status` tells of, the blob is right.
//! - If the blob is deleted, the newest version counts, and the next write makes a new blob.
//! - All jobs have to name the same coordinator. A version that was written under another one,
//!   or under none, is taken for one that a person put.
//! - A value put by hand while the vault's lists lag behind may be seen late
//!   ([`Reads::Eventual`](authferry_core::Reads::Eventual)): Microsoft documents no bound.
//! - Two values that people put within one second, both covered by a late write, have no order.
//! - A token that the servers refuse before its time is over is not replaced: the library keeps
//!   it. The next process takes a new one.
//! - A secret has room for 25 KB, and a tag for 256 characters: the name of a writer is cut there.

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
