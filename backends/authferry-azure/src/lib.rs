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
//! | `auth=workload` | log in with the job's own OIDC token, as an application with a federated credential for it |
//! | `auth=managed` | log in as the identity of the machine |
//! | `auth=secret` | log in with a secret of the application |
//! | `auth=cli` | log in as whoever is logged in to `az` |
//! | `id_token=NAME` | the environment variable that holds the job's token |
//! | `id_token_file=PATH` | the file that holds it |
//!
//! The coordinator is required, for reads too: without it two writers overwrite each other, and
//! nothing says which version counts. The refusal names the `az` commands that create one.
//!
//! Without `auth` the way in is chosen by what is set, as Azure's own libraries do, and nobody is
//! asked for that: `AZURE_CLIENT_SECRET`, then a token of the job's own, then `IDENTITY_ENDPOINT`,
//! then `az`.
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
//! # What it promises
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
//! # What it does not
//!
//! - The newest version in the vault is mostly the one that counts, and not always: a value that
//!   came too late stays the newest until the next write. Where `az` shows another value than
//!   `authferry status` tells of, the blob is right.
//! - If the blob is deleted, the newest version counts, and the next write makes a new blob.
//! - All jobs have to name the same coordinator. A version that was written under another one
//!   is taken for one that a person put.
//! - A value put by hand while the vault's lists lag behind may be seen late
//!   ([`Reads::Eventual`](authferry_core::Reads::Eventual)): Microsoft documents no bound.
//! - Two values that people put within one second, both covered by a late write, have no order.
//! - A token that the servers refuse before its time is over is not replaced: the library keeps
//!   it. The next process takes a new one.
//! - A secret has room for 25 KB, and a tag for 256 characters: the name of a writer is cut there.

mod address;
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

pub use address::{Address, Auth, BadAddress, IdToken, NewCoordinator};
pub use settings::{Application, Login, Misfit, Settings};
pub use store::{AzureStore, open};
pub use trouble::{Rejection, Trouble};
