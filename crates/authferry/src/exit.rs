//! The exit codes, in one place.
//!
//! `run` gives the command's own code (128 + n when signal n ended it) whenever the login
//! is safe; a code from here says that something else matters more. A command can exit
//! with these numbers as well: `--report` tells them apart. Code 2, for an invalid command line,
//! is clap's own.

/// The login is safe, or nothing had to be done.
pub const OK: u8 = 0;
/// `status --check`: the login in the store needs somebody's attention.
pub const ATTENTION: u8 = 1;
/// A Codex or another authferry still uses the login, which may be spent.
pub const UNSETTLED: u8 = 119;
/// The login was not persisted, and is kept in a file or in the second store.
pub const RESCUED: u8 = 120;
/// The login was not persisted, and could not be kept.
pub const LOST: u8 = 121;
/// Somebody else's generation is current, and ours is kept.
pub const SUPERSEDED: u8 = 122;
/// Somebody else held the claim to rotate the login for too long.
pub const HELD: u8 = 123;
/// Refused by preflight or the trust check, before anything was touched.
pub const REFUSED: u8 = 124;
/// The store or the configuration failed before the command ran.
pub const FAILED: u8 = 125;
/// The command cannot be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// There is no such command.
pub const NOT_FOUND: u8 = 127;
