//! The embedded default: a login in a file, for the jobs of one host.
//!
//! At `file:///var/lib/ci/login.json` the login is `/var/lib/ci/login.json`, byte for
//! byte: Codex can use a copy of it, and `install -m 600 auth.json login.json` seeds it.
//! What the writer said of it stands beside it in `login.json.meta`, and a lock in
//! `login.json.lock`, which holds nothing and stays.
//!
//! The claim is a place of its own beside that of the login, and all below is true of it
//! as well: `login.json.claim`, with `login.json.claim.meta` and `login.json.claim.lock`.
//! It is there from the first claim on, and it is released by its text, not by its removal.
//!
//! # What it promises
//!
//! - **One winner.** Writers take turns by `flock`, and each looks at the version under
//!   the lock. A writer that is killed lets go of it.
//! - **The old login or the new one, each with its own stamp,** whenever a writer is
//!   killed or the machine loses power: the module `place` says why. A swap is answered
//!   when the disk has it.
//! - **No version twice.** A login written here has 128 random bits for a version. One put
//!   there by hand is named after its bytes, its inode and the time of its last change,
//!   and so is a copy or a backup of what was written here. Deleting the login, the file
//!   beside it or both repeats nothing.
//! - **Nobody else's hands.** The login and the files beside it must be regular files of
//!   mode 0600 with one name that belong to us, in a folder that belongs to us or root and
//!   that others cannot write to; also root is refused the files of others. All is looked
//!   at on the open descriptor.
//! - **No complete login is thrown away.** If a writer is killed after it wrote all bytes of
//!   the new login, the next reader or writer finishes its swap, provided that nothing else was
//!   written in between.
//! - **Nothing left over.** What cannot be written leaves no trace, and the next writer
//!   removes an incomplete login that a killed one left: the names `login.json.authferry-tmp`
//!   and `login.json.meta.authferry-tmp` alone. A claim that a killed job leaves ends by itself.
//! - **A copied folder works.** Copies of a login and of a lease have no stamp. A copy of a lease
//!   counts until its end.
//!
//! # What it does not
//!
//! - `cp` and editors take no lock. What they write within some microseconds of a swap
//!   can be replaced by it, and a reader may see half of it; `mv` from the same folder is
//!   safe to read at any time.
//! - Network file systems: whether `flock` there holds between hosts, and whether inodes
//!   and times are the same on all of them, depends on the server. Use another store.
//! - Removing `login.json.claim` frees a claim at once. Its holder is not stopped by that.
//! - The folder is not created: whoever chooses a place also chooses its protection.

mod address;
mod disk;
mod facts;
mod meta;
mod place;
mod steps;
mod store;
mod trouble;

pub use address::BadAddress;
pub use store::{FileStore, open};
