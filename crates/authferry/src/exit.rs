//! The exit codes, in one place.
//!
//! `run` gives the command's own code (128 + n when signal n ended it) whenever the login
//! is safe. A code from this module replaces it when the login needs attention. A command can exit
//! with the same numbers: `--report` distinguishes the two. clap sets code 2, for an invalid
//! command line.

/// The login is safe, or nothing had to be done.
pub const OK: u8 = 0;
/// `status --check`: the login in the store needs attention.
pub const ATTENTION: u8 = 1;
/// The login may be spent, or a Codex or another authferry still uses it.
pub const UNSETTLED: u8 = 119;
/// The login was not persisted: a copy is saved in a file or in the second store.
pub const RESCUED: u8 = 120;
/// The login was not persisted, and no copy could be saved.
pub const LOST: u8 = 121;
/// Another writer's generation is current, and ours is saved.
pub const SUPERSEDED: u8 = 122;
/// Another job held the lease, or was rotating the login, until the timeout.
pub const HELD: u8 = 123;
/// Refused by preflight or the trust check, before anything was touched.
pub const REFUSED: u8 = 124;
/// The store or the configuration failed before the command ran.
pub const FAILED: u8 = 125;
/// The command cannot be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// The command was not found.
pub const NOT_FOUND: u8 = 127;
