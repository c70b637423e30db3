//! Takes a file out of its place, looks at it once more, and only then removes it.

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

/// Puts the file `new` into the place of `old`, if that is what is expected; returns whether it
/// was. `new` is gone then, or again what it was.
pub(super) fn exchange(
    new: &Path,
    old: &Path,
    secret: &Secret,
    is_expected: impl Fn(&Look) -> bool,
) -> io::Result<bool> {
    match rename(new, old, RenameFlags::EXCHANGE) {
        Ok(()) => {}
        // There is nothing in its place, and nothing that comes there meanwhile is replaced.
        Err(Errno::NOENT) if !is_expected(&Look::Missing) => return discard(new),
        Err(Errno::NOENT) => {
            return match rename(new, old, RenameFlags::NOREPLACE) {
                Ok(()) => Ok(true),
                Err(Errno::EXIST) => discard(new),
                Err(error) if is_unknown(error) => fs::rename(new, old).map(|()| true),
                Err(error) => Err(abandon(new, error.into())),
            };
        }
        // A file system that cannot exchange two names: what is there was looked at a moment ago.
        Err(error) if is_unknown(error) => {
            return if is_expected(&look_at(old)?) {
                fs::rename(new, old).map(|()| true)
            } else {
                discard(new)
            };
        }
        Err(error) => return Err(abandon(new, error.into())),
    }
    // From here on `new` is the name of what was there.
    let was_there = look_at(new);
    if was_there.as_ref().is_ok_and(&is_expected) {
        fs::remove_file(new)?;
        return Ok(true);
    }
    rename(new, old, RenameFlags::EXCHANGE)?;
    was_there?;
    // Whoever has written to what was in place for a moment keeps what was written.
    let is_ours = bytes(new)?.is_some_and(|it| it.expose() == secret.expose());
    if is_ours { discard(new) } else { Ok(false) }
}

/// Removes a file if it is what is expected; returns whether it was.
pub(super) fn remove(
    path: &Path,
    aside: &Path,
    is_expected: impl Fn(&Look) -> bool,
) -> io::Result<bool> {
    fs::rename(path, aside)?;
    let was_there = look_at(aside);
    if was_there.as_ref().is_ok_and(is_expected) {
        fs::remove_file(aside)?;
        return Ok(true);
    }
    put_back(aside, path)?;
    was_there.map(|_| false)
}

/// Gives a file its name again; returns whether that is done, or there is no such file. It stays if
/// something else has the name.
pub(super) fn put_back(aside: &Path, path: &Path) -> io::Result<bool> {
    match fs::hard_link(aside, path) {
        Ok(()) => fs::remove_file(aside).map(|()| true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        // A file system that has no second names.
        Err(_) if path.symlink_metadata().is_err() => fs::rename(aside, path).map(|()| true),
        Err(_) => Ok(false),
    }
}

/// The bytes of a file that was put aside.
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

/// What was to be placed goes: it is in the store.
fn discard(new: &Path) -> io::Result<bool> {
    fs::remove_file(new)?;
    Ok(false)
}

fn abandon(new: &Path, error: io::Error) -> io::Error {
    // What cannot be removed either is found by the next job.
    fs::remove_file(new).ok();
    error
}
