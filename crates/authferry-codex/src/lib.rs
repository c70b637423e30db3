//! All that is known of Codex's auth file: its shapes, and how to place and collect it.
//!
//! Codex reads its login from `auth.json` in its home folder. It ignores an unusable one
//! without a word, replaces it when it rotates the login, and spends the single-use
//! refresh token even where it cannot write the new one down. So this crate
//!
//! - tells an auth file's generation from its bytes, or names what is wrong with it
//!   ([`parse`]),
//! - refuses a home in which Codex would ignore, lose or publish a login
//!   ([`Home::preflight`]),
//! - places the bytes and looks at them again, whichever way Codex writes them
//!   ([`Home::place`], [`Home::settled_look`]).
//!
//! It reads no environment, starts no process and writes nothing but the auth file. It
//! takes none of Codex's locks: Codex gives up on its own rotation when somebody else
//! holds them. Nothing that it prints holds a token; only [`Secret`] does.
//!
//! What is said of Codex here was measured on versions 0.63.0 to 0.169.0.
//!
//! [`Secret`]: authferry_core::Secret

mod access_only;
pub mod app_server;
mod auth_file;
#[cfg(test)]
mod bad_shapes;
mod checks;
mod config;
mod failure;
mod home;
#[cfg(all(test, target_os = "linux"))]
mod in_a_namespace;
mod jwt;
mod look;
#[cfg(test)]
mod made_up;
mod mounts;
mod program;
mod settle;
mod unfit;
mod unrenamed;
mod unusable;
mod value;

pub use access_only::{access_only, is_access_only};
pub use auth_file::{MAX_LEN, each_token, fingerprint_of_bytes, parse, plan};
pub use config::{OVERRIDES, Override};
pub use failure::{Death, Failure, failure};
pub use home::Home;
pub use look::Look;
pub use program::{due_rule, is_codex};
pub use unfit::Unfit;
pub use unrenamed::Unrenamed;
pub use unusable::{Fault, Member, Unusable};
