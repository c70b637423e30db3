//! The store in a file, for the jobs of one host.
//!
//! At `file:///var/lib/ci/login.json` the login is `/var/lib/ci/login.json`, byte for byte:
//! Codex can use a copy of it, and `install -m 600 auth.json login.json` seeds it. Its version
//! and stamp are in `login.json.meta`. The lock is `login.json.lock`, which is empty and stays.
//!
//! The lease has files like those of the login, with the same guarantees: `login.json.lease`,
//! `login.json.lease.meta` and `login.json.lease.lock`. The first acquire creates them. A release
//! changes the content of the file and does not remove it.
//!
//! # Guarantees
//!
//! - **One winner.** Writers take an exclusive `flock` and compare the version under the lock. The
//!   system releases the lock of a killed writer.
//! - **The old login or the new one, each with its own stamp,** whenever a writer is killed or the
//!   machine loses power; the module `place` explains it. A swap returns after its sync to disk.
//! - **No version twice.** A login written here has 128 random bits as its version. The version of
//!   a login put by hand is derived from its bytes, its inode and its change time; so is that of a
//!   copy or a backup. Deleting the login, its metadata or both repeats no version.
//! - **Private files only.** The login and the other files must be regular files of mode 0600 with
//!   one hard link, owned by us, in a folder that is owned by us or root and not writable by
//!   others. Root refuses the files of other users too. All checks use the open descriptor.
//! - **No complete login is dropped.** If a writer is killed after it wrote all bytes of the new
//!   login, the next reader or writer finishes the swap, provided that no other login was written
//!   meanwhile.
//! - **No leftovers.** A failed write leaves no file behind. The next writer removes the incomplete
//!   file of a killed writer: `login.json.authferry-tmp` and `login.json.meta.authferry-tmp`, no
//!   others. The lease of a killed job expires.
//! - **A copied folder works.** Copies of a login and of a lease have no stamp. A copied lease is
//!   valid until its expiry.
//!
//! # Limits
//!
//! - `cp` and editors take no lock. A swap can overwrite what they write within some microseconds,
//!   and a reader may see half of it. `mv` from the same folder is always safe to read.
//! - Network file systems: whether `flock` works between hosts, and whether inodes and times agree
//!   on all hosts, depends on the server. Use another store.
//! - Removing `login.json.lease` releases the lease at once, but does not stop its holder.
//! - The store does not create the folder: the user chooses its permissions.

mod address;
mod disk;
mod facts;
mod file_error;
mod meta;
mod place;
mod steps;
mod store;

pub use address::BadAddress;
pub use store::{FileStore, open};
