//! The real Codex on a throw-away machine, against a stub of the endpoints it talks to.
//!
//! Nobody's account is involved: the [`Login`]s are made up, the [`Stub`] gives out and
//! spends their tokens, a [`Codex`] comes from npm as it is, and a [`Runner`] is the
//! machine that one job finds and leaves behind. What the stub spends stays spent, so
//! that a login which is lost or doubled on the way is as dead here as in earnest.
//!
//! | Codex asks for | the stub | a test can have it |
//! |---|---|---|
//! | `POST /oauth/token` | rotates: a refresh token is good for one refresh | fail, drop the connection before or after it has decided, leave the refresh token out ([`Fault`]); take its time ([`Rules::latency`]); change the session marks ([`Rules::changes_session`]); hold the reply ([`Stub::hold`]) |
//! | the same with a spent token | says `refresh_token_reused`, 401 | say so with 400 ([`Rules::reused_status`]) |
//! | the same with a token of nobody's | says `invalid_grant`, 400 | |
//! | `POST /oauth/revoke` | ends the login | |
//! | `POST /backend-api/codex/responses` | says "OK", if the bearer is the newest access token of its login and has not ended; else 401 | take older ones ([`Bearer`]), fail always ([`Rules::model_failure`]), have Codex run something first ([`Rules::shell`]), hold the reply |
//! | anything else, `CONNECT` included | says 404 at once | |
//!
//! Each request is an [`Event`], recorded before the reply goes out.
//!
//! A store on the network is a real server as well, alone on loopback ports and gone with
//! the test: `OpenBao`, `Aws`. Of Azure there is none to be had but for blobs, `Azurite`, and so
//! `KeyVault` stands in, with Microsoft's own `PythonClient` as its witness. An `Issuer`
//! vouches for a job as its CI system would. None is there without its feature, so that the
//! demo has less to build.
//!
//! ```no_run
//! use rig::{Codex, Login, Runner, Stub, What, finish};
//!
//! let login = Login::stale();
//! let stub = Stub::start(&login);
//! let codex = Codex::install(rig::V0_169)?;
//! let runner = Runner::new(&stub, &codex)?;
//! runner.place(&login.auth_json())?;
//! let run = finish(&mut runner.exec());
//! assert!(run.status.success());
//! assert_eq!(stub.count(What::is_rotation), 1);
//! assert!(stub.is_live(&std::fs::read(runner.auth_file())?));
//! # Ok::<(), std::io::Error>(())
//! ```

mod app_server;
#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "azure-kv")]
mod azurite;
mod cargo;
mod codex;
mod gitlab;
#[cfg(feature = "issuer")]
mod issuer;
#[cfg(any(feature = "aws", feature = "azure-kv", feature = "vault"))]
mod kept;
#[cfg(feature = "azure-kv")]
mod keyvault;
mod login;
mod node24;
#[cfg(feature = "vault")]
mod openbao;
#[cfg(any(feature = "aws", feature = "azure-kv", feature = "vault"))]
mod pki;
#[cfg(feature = "azure-kv")]
mod python;
mod runner;
mod stub;
mod unique;
#[cfg(feature = "vault")]
mod wire;

pub use app_server::AppServer;
#[cfg(feature = "aws")]
pub use aws::{ACCOUNT, Aws, Hand, Keys, REGION};
#[cfg(feature = "azure-kv")]
pub use azurite::{AZURITE_VERSION, Azurite};
pub use cargo::cargo;
pub use codex::{Codex, V0_101, V0_130, V0_145, V0_166, V0_169, V0_171};
pub use gitlab::GitlabCiLocal;
#[cfg(feature = "issuer")]
pub use issuer::{Issuer, github_claims, gitlab_claims};
#[cfg(feature = "azure-kv")]
pub use keyvault::{
    ADMIN, Account, Call, ENTRA_AUDIENCE, Failure, Fault as KeyVaultFault, Hold as KeyVaultHold,
    IDENTITY, Job, KeyVault, Moment, Op, Right, Rules as KeyVaultRules, TENANT,
    Version as SecretVersion,
};
pub use login::{ACCESS_LIFETIME, Login, MARKERS, Person, Session, secrets_in};
pub use node24::Node24;
#[cfg(feature = "vault")]
pub use openbao::{Admin, OPENBAO_VERSION, OpenBao, Reply};
#[cfg(feature = "azure-kv")]
pub use python::{No, PythonClient};
pub use runner::{EXEC, Runner, finish, finish_within};
pub use stub::{Bearer, Endpoint, Event, Fault, Hold, Outcome, Rules, Stub, What};
pub use unique::unique;
#[cfg(feature = "vault")]
pub use wire::{Fate, Way, Wire};
