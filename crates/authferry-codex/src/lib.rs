//! Codex's auth file: its format, and how to place it and read it back.
//!
//! Codex reads its login from `auth.json` in its home folder. It silently ignores an
//! unusable file and replaces the file when it rotates the login. It spends the single-use
//! refresh token even if it cannot save the new one. So this crate
//!
//! - parses an auth file into its generation, or says what is wrong with it ([`parse`]),
//! - refuses a home in which Codex would ignore, lose or publish a login
//!   ([`Home::preflight`], [`SettingSources`]),
//! - places the auth file and reads it back, however Codex writes it
//!   ([`Home::place`], [`Home::settled_look`]).
//!
//! This crate reads no environment variable, starts no process and writes only the auth
//! file. It takes none of Codex's locks: Codex abandons its rotation when another process
//! holds them. No output of this crate contains a token; only [`Secret`] does.
//!
//! The facts about Codex were measured on versions 0.63.0 to 0.171.0, and [`versions`] says
//! where they differ.
//!
//! [`Secret`]: authferry_core::Secret

mod access_only;
pub mod app_server;
mod auth_file;
mod auth_file_error;
#[cfg(test)]
mod bad_shapes;
mod checks;
mod config;
mod ended_copy;
mod error_line;
mod failure;
mod home;
mod home_error;
#[cfg(all(test, target_os = "linux"))]
mod in_a_namespace;
mod jwt;
mod login_status;
mod look;
#[cfg(test)]
mod made_up;
mod mounts;
mod program;
mod raw;
mod settle;
mod stand_in;
mod unrenamed;
mod value;
pub mod versions;

pub use access_only::{access_only, is_access_only};
pub use auth_file::{MAX_LEN, fingerprint_of_bytes, for_each_token, parse, plan};
pub use auth_file_error::{AuthFileError, Fault, Member};
pub use config::{EffectiveSettings, Override, SettingPlace, SettingSources, override_of};
pub use ended_copy::ended_copy;
pub use error_line::error_line;
pub use failure::{Death, RefreshFailure, classify_failure, hides_reason};
pub use home::Home;
pub use home_error::{CodexAnswer, HomeError};
pub use login_status::{LoginStatus, obedient_app_server};
pub use look::Look;
pub use program::{due_rule, is_codex};
pub use stand_in::stand_in;
pub use unrenamed::Unrenamed;
