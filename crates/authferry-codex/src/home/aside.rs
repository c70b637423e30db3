//! Renames a file, reads it again, and only then removes it.

use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    path::Path,
};

use authferry_core::Secret;
use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};

use crate::{
    Look,
    look::{look_at, read},
};

/// Replaces the file `old` with `new` if `is_expected` accepts `old`; returns whether it did.
/// Otherwise removes `new`, unless another process wrote to it while it was in place of `old`.
pub(super) fn exchange(
    new: &Path,
    old: &Path,
    secret: &Secret,
    is_expected: impl Fn(&Look) -> bool,
) -> io::Result<bool> {
    match rename(new, old, RenameFlags::EXCHANGE) {
        Ok(()) => {}
        // `old` is missing. A file that appears meanwhile is not replaced.
        Err(Errno::NOENT) if !is_expected(&Look::Missing) => return discard(new),
        Err(Errno::NOENT) => {
            return match rename(new, old, RenameFlags::NOREPLACE) {
                Ok(()) => Ok(true),
                Err(Errno::EXIST) => discard(new),
                Err(error) if is_unknown(error) => fs::rename(new, old).map(|()| true),
                Err(error) => Err(abandon(new, error.into())),
            };
        }
        // The file system cannot exchange two names: read `old` just before the rename.
        Err(error) if is_unknown(error) => {
            return if is_expected(&look_at(old)?) {
                fs::rename(new, old).map(|()| true)
            } else {
                discard(new)
            };
        }
        Err(error) => return Err(abandon(new, error.into())),
    }
    // From here on, `new` is the path of the old file.
    let replaced = look_at(new);
    if replaced.as_ref().is_ok_and(&is_expected) {
        fs::remove_file(new)?;
        return Ok(true);
    }
    rename(new, old, RenameFlags::EXCHANGE)?;
    replaced?;
    // Keep our file if another process wrote to it while it was in place.
    let is_ours = bytes(new)?.is_some_and(|it| it.expose() == secret.expose());
    if is_ours { discard(new) } else { Ok(false) }
}

/// Removes a file if it is expected; returns whether it was.
pub(super) fn remove(
    path: &Path,
    aside: &Path,
    is_expected: impl Fn(&Look) -> bool,
) -> io::Result<bool> {
    fs::rename(path, aside)?;
    let removed = look_at(aside);
    if removed.as_ref().is_ok_and(is_expected) {
        fs::remove_file(aside)?;
        return Ok(true);
    }
    put_back(aside, path)?;
    removed.map(|_| false)
}

/// Renames a file back; returns true also if the file is missing. Does nothing and returns false
/// if its name is in use.
pub(super) fn put_back(aside: &Path, path: &Path) -> io::Result<bool> {
    match fs::hard_link(aside, path) {
        Ok(()) => fs::remove_file(aside).map(|()| true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        // The file system has no hard links.
        Err(_) if path.symlink_metadata().is_err() => fs::rename(aside, path).map(|()| true),
        Err(_) => Ok(false),
    }
}

/// Reads a file that was renamed.
pub(super) fn bytes(aside: &Path) -> io::Result<Option<Secret>> {
    match File::open(aside) {
        Ok(file) => read(file).map(Some),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn rename(from: &Path, to: &Path, flags: RenameFlags) -> Result<(), Errno> {
    renameat_with(CWD, from, CWD, to, flags)
}

fn is_unknown(error: Errno) -> bool {
    [Errno::INVAL, Errno::NOSYS, Errno::NOTSUP].contains(&error)
}

/// Removes the file that was to be placed: its login is in the store.
fn discard(new: &Path) -> io::Result<bool> {
    fs::remove_file(new)?;
    Ok(false)
}

fn abandon(new: &Path, error: io::Error) -> io::Error {
    // If this fails too, the next job finds the file.
    fs::remove_file(new).ok();
    error
}
