//! The real Codex on an ephemeral machine, against a stub of the endpoints that it calls.
//!
//! No real account is involved: the [`Login`]s are made up, the [`Stub`] issues and spends their
//! tokens, a [`Codex`] comes unmodified from npm, and a [`Runner`] is the machine of one job. The
//! stub keeps a spent token spent, so a login that is lost or duplicated on the way is dead here as
//! with the real provider.
//!
//! | Codex's request | the stub's answer | what a test can change |
//! |---|---|---|
//! | `POST /oauth/token` | rotates: a refresh token is valid for one refresh | fail, drop the connection before or after the decision, omit tokens, give any refusal ([`Fault`]); add latency ([`Rules::latency`]); change the session claims ([`Rules::changes_session`]); hold the reply ([`Stub::hold`]) |
//! | the same with a spent token | `refresh_token_reused`, 401 | answer 400 ([`Rules::reused_status`]) |
//! | the same with an unknown token | `invalid_grant`, 400 | |
//! | `POST /oauth/revoke` | ends the login | |
//! | `POST /backend-api/codex/responses` | "OK" if the bearer is the newest access token of its login and has not expired; else 401 | accept older ones ([`Bearer`]), fail always ([`Rules::model_failure`]), make Codex run a command first ([`Rules::shell`]), hold the reply |
//! | anything else, `CONNECT` included | 404 at once | |
//!
//! The stub records each request as an [`Event`] before it replies.
//!
//! A network store is a real server as well, alone on loopback ports, which ends with the test:
//! `OpenBao`, `Aws`. Azure has a local server only for blobs, `Azurite`; `KeyVault` stands in for
//! the vault, with Microsoft's own `PythonClient` as its witness. An `Issuer` signs a job's identity
//! token as its CI system would. Each needs its feature, so that the demo has less to build.
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
mod json_filter;
#[cfg(feature = "azure-kv")]
mod keyvault;
mod login;
mod node24;
#[cfg(feature = "vault")]
mod openbao;
mod pip;
#[cfg(any(feature = "aws", feature = "azure-kv", feature = "vault"))]
mod pki;
mod prometheus;
#[cfg(feature = "azure-kv")]
mod python;
mod runner;
#[cfg(any(feature = "aws", feature = "azure-kv", feature = "vault"))]
mod scoped_process;
mod stub;
mod unique;
#[cfg(feature = "vault")]
mod wire;

pub use app_server::AppServer;
#[cfg(feature = "aws")]
pub use aws::{ACCOUNT, Aws, BotoClient, Keys, REGION};
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
pub use prometheus::{Sample, prometheus_samples};
#[cfg(feature = "azure-kv")]
pub use python::{PythonClient, Refusal};
pub use runner::{EXEC, Runner, finish, finish_within};
pub use stub::{Answer, Bearer, Endpoint, Event, Fault, Hold, Outcome, Rules, Stub, What};
pub use unique::unique;
#[cfg(feature = "vault")]
pub use wire::{Direction, Wire, WireAction};
