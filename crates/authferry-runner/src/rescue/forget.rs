//! Removes a login from the rescue folder, unless a job has kept it again.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::folder::{is_login, record_path};

/// The identity of a file when it was read. A replacement has another inode or modification time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileIdentity {
    inode: u64,
    modified: (i64, i64),
}

impl FileIdentity {
    pub(super) fn of(path: &Path) -> Option<Self> {
        let metadata = fs::symlink_metadata(path).ok()?;
        Some(Self {
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

/// Removes a login and its record, unless a job has kept the login again since both were read.
/// Returns whether it removed them.
pub(super) fn remove_if_unchanged(
    path: &Path,
    [login, record]: [Option<FileIdentity>; 2],
) -> io::Result<bool> {
    let record_path = record_path(path);
    // A job writes the record before the login. So rename the record first: a record that exists
    // after the login was renamed belongs to a job that keeps the login again.
    let Some(record) = RenamedFile::take(&record_path, record)? else {
        return Ok(false);
    };
    let login = match RenamedFile::take(path, login) {
        Ok(Some(login)) if FileIdentity::of(&record_path).is_none() => login,
        Ok(login) => {
            login.map_or(Ok(()), |it| it.put_back(path))?;
            record.put_back(&record_path)?;
            return Ok(false);
        }
        Err(error) => {
            record.put_back(&record_path)?;
            return Err(error);
        }
    };
    login.remove()?;
    record.remove()?;
    Ok(true)
}

/// A file that was renamed, to be checked before it is removed.
struct RenamedFile(Option<PathBuf>);

impl RenamedFile {
    /// Renames a file; `None` if the file was replaced since it was read. The new name is still a
    /// login's name, so that the copy is found if this process dies.
    fn take(path: &Path, expected: Option<FileIdentity>) -> io::Result<Option<Self>> {
        let Some(expected) = expected else {
            return Ok(FileIdentity::of(path).is_none().then_some(Self(None)));
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
        if aside.0.as_deref().and_then(FileIdentity::of) == Some(expected) {
            return Ok(Some(aside));
        }
        aside.put_back(path)?;
        Ok(None)
    }

    /// Renames the file back, or removes it if a newer file has its name.
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
