//! A login in Vault or OpenBao, for jobs that share nothing but a network.
//!
//! At `vault://secret/ci/codex` the login is the field `auth_json` of the secret `ci/codex`
//! in the key-value store (version 2) mounted at `secret`, byte for byte:
//! `bao kv get -field=auth_json secret/ci/codex` gives a file that Codex can use, and
//! `bao kv put secret/ci/codex auth_json=@auth.json` seeds it. What the writer said of it
//! stands beside it in the field `auth_json.authferry`. Fields of others stay as they are.
//!
//! | in the address | |
//! |---|---|
//! | `field=NAME` | the field, if it is not `auth_json` |
//! | `auth=token` | log in with a token that somebody else made: the default |
//! | `auth=jwt` | log in with the job's own OIDC token |
//! | `auth=approle` | log in with a role ID and a secret ID |
//! | `auth_mount=PATH` | where the auth method is, if not at `jwt` or `approle` |
//! | `role=NAME` | which role of the JWT method, if it has no default |
//! | `audience=TEXT` | which audience GitHub is asked for, if not its own default |
//! | `id_token=NAME` | the environment variable that holds the job's token |
//! | `id_token_file=PATH` | the file that holds it |
//!
//! # What it promises
//!
//! - **One winner.** A swap is one request under the condition that the secret still has the
//!   version that was looked at (`options.cas`); the server lets one of any number pass.
//!   A second request looks before, and changes nothing.
//! - **No version twice.** A version is the server's number and the time of its creation,
//!   since numbers start again when a secret is deleted with all that is known of it.
//! - **A stamp belongs to its login alone.** It names the digest of the login and the number
//!   of the version that it was written with: a login that a person patched in beside it, or
//!   rolled back to, has none.
//! - **A history counts if it was seen.** A replaced login is an older version where
//!   `max_versions` of the secret, else of the mount, is 2 or more (10 unless it is configured).
//!   The store reads that, at `MOUNT/metadata/PATH` and `MOUNT/config`, only before a login is
//!   replaced that may be worth keeping. Without the right to read it, the login is kept in the
//!   rescue folder.
//! - **A token goes to the named servers alone**, and by TLS unless that is this host. One
//!   that we made is renewed as long as we are at work, and revoked at the end.
//!
//! # What it does not
//!
//! - Reads may lag ([`Reads::Eventual`](authferry_core::Reads::Eventual)): a standby of
//!   OpenBao, or a performance standby, answers them by itself, and nothing that this store
//!   can ask for makes it wait for the leader. Writes all go through the leader, so that a
//!   swap on what was read too late is a conflict. A look that shows an older version than
//!   this process has seen or written is made again, and then fails as a server does that
//!   is not ready.
//! - Between the look and the write of a swap somebody can delete the secret with all that
//!   is known of it and write it anew up to the very same number. The server then compares
//!   equal numbers. Nobody does that by accident within some milliseconds.
//! - A secret that holds several logins under several fields has one version: each write to
//!   one of them is a conflict for the others. Use a secret for each.
//! - A field holds text, so a login that is not UTF-8 is refused. No auth file is that.
//! - A token in `~/.vault-token` can be read by whatever runs as the same user.

mod address;
#[cfg(test)]
mod canned;
mod classify;
mod fields;
mod session;
mod settings;
mod store;
mod trouble;
mod wire;

pub use address::{Address, Auth, BadAddress, IdToken};
pub use settings::{Misfit, Settings};
pub use store::{VaultStore, open};
pub use trouble::{Rejection, Trouble};
