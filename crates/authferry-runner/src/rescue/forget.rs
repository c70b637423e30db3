//! Takes a login out of the rescue folder, unless a job has kept it anew meanwhile.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::folder::{is_login, record_path};

/// A file at the moment when it was read: what replaces it has another inode or another time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    inode: u64,
    modified: (i64, i64),
}

impl Seen {
    pub(super) fn of(path: &Path) -> Option<Self> {
        let metadata = fs::symlink_metadata(path).ok()?;
        Some(Self {
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

/// Removes a login from the rescue folder, and its record, if both still are what was read;
/// returns whether they were. A job may have kept the login anew.
pub(super) fn forget(path: &Path, [login, record]: [Option<Seen>; 2]) -> io::Result<bool> {
    let beside = record_path(path);
    // The record of a kept login is written first. So the record goes first, and what comes
    // there after the login was taken away is seen.
    let Some(record) = Aside::take(&beside, record)? else {
        return Ok(false);
    };
    let login = match Aside::take(path, login) {
        Ok(Some(login)) if Seen::of(&beside).is_none() => login,
        Ok(login) => {
            login.map_or(Ok(()), |it| it.put_back(path))?;
            record.put_back(&beside)?;
            return Ok(false);
        }
        Err(error) => {
            record.put_back(&beside)?;
            return Err(error);
        }
    };
    login.remove()?;
    record.remove()?;
    Ok(true)
}

/// A file that was renamed, to be looked at before it is removed.
struct Aside(Option<PathBuf>);

impl Aside {
    /// Takes a file away; `None` if it is not what was seen any more. Its new name is that of a
    /// login, so that it is found should this be the end.
    fn take(path: &Path, seen: Option<Seen>) -> io::Result<Option<Self>> {
        let Some(seen) = seen else {
            return Ok(Seen::of(path).is_none().then_some(Self(None)));
        };
        let folder = path.parent().unwrap_or(path);
        let is_login = is_login(path);
        let free = tempfile::Builder::new()
            .prefix("aside-")
            .suffix(if is_login { ".json" } else { ".record" })
            .tempfile_in(folder)?;
        let aside = free.into_temp_path();
        match fs::rename(path, &aside) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            renamed => renamed?,
        }
        let aside = Self(Some(aside.keep()?));
        if aside.0.as_deref().and_then(Seen::of) == Some(seen) {
            return Ok(Some(aside));
        }
        aside.put_back(path)?;
        Ok(None)
    }

    /// Gives the file its name again, unless something newer has it.
    fn put_back(self, path: &Path) -> io::Result<()> {
        let Some(aside) = self.0 else {
            return Ok(());
        };
        match fs::hard_link(&aside, path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => fs::rename(aside, path),
            _ => fs::remove_file(aside),
        }
    }

    fn remove(self) -> io::Result<()> {
        self.0.map_or(Ok(()), fs::remove_file)
    }
}
