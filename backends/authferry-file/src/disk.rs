//! The operations on the files of one folder.

use std::{
    fs::{File, TryLockError},
    io::{self, Read, Write},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use authferry_core::Secret;
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps},
    io::Errno,
};

use crate::{
    facts::Facts,
    file_error::{Exposure, FileError},
    steps::change,
};

/// The delay between two attempts to take a held lock.
const LOCK_RETRY_DELAY: Duration = Duration::from_millis(5);

/// An open folder. All operations use its descriptor, so that they stay in this folder even if it
/// is moved or replaced.
pub(crate) struct Folder {
    dir: File,
    path: String,
    me: u32,
}

/// A new empty file with a known inode and modification time.
pub(crate) struct Draft<'n> {
    file: File,
    name: &'n str,
    pub(crate) facts: Facts,
}

/// The mode of a lock.
#[derive(Clone, Copy)]
pub(crate) enum LockMode {
    Shared,
    Exclusive,
}

/// A held lock. Dropping it releases the lock.
pub(crate) struct Lock<'n> {
    _file: File,
    name: &'n str,
    inode: u64,
}

impl Folder {
    /// Opens the folder, which must exist and not be writable by other users.
    pub(crate) fn open(path: &str) -> Result<Self, FileError> {
        let cannot_open = io_error("open", path);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
            Ok(dir) => File::from(dir),
            Err(Errno::NOENT | Errno::NOTDIR) => return Err(FileError::NoFolder(path.into())),
            Err(errno) => return Err(cannot_open(errno.into())),
        };
        let me = rustix::process::geteuid().as_raw();
        Facts::of(&dir.metadata().map_err(cannot_open)?)
            .vet_folder(me)
            .map_err(exposed(path))?;
        Ok(Self {
            dir,
            path: path.into(),
            me,
        })
    }

    /// Takes the lock, and waits for other holders up to the timeout.
    ///
    /// The store never removes the lock's file: a lock on a removed file would not exclude later
    /// processes. If a person removes the file, a waiting process takes the new one, and the holder
    /// detects it with [`Folder::check_lock`].
    pub(crate) fn lock<'n>(
        &self,
        name: &'n str,
        mode: LockMode,
        timeout: Duration,
    ) -> Result<Lock<'n>, FileError> {
        let begin = Instant::now();
        loop {
            let file = self.open_file(name, OFlags::RDWR | OFlags::CREATE)?;
            let facts = self.vetted_facts(&file, name)?;
            let outcome = match mode {
                LockMode::Shared => file.try_lock_shared(),
                LockMode::Exclusive => file.try_lock(),
            };
            match outcome {
                Ok(()) => {
                    return Ok(Lock {
                        _file: file,
                        name,
                        inode: facts.inode,
                    });
                }
                Err(TryLockError::WouldBlock) if begin.elapsed() < timeout => {
                    thread::sleep(LOCK_RETRY_DELAY);
                }
                Err(TryLockError::WouldBlock) => return Err(FileError::Locked(name.into())),
                Err(TryLockError::Error(error)) => return Err(io_error("lock", name)(error)),
            }
        }
    }

    /// Checks that the lock's file was not removed or replaced.
    pub(crate) fn check_lock(&self, lock: &Lock<'_>) -> Result<(), FileError> {
        match self.facts(lock.name)? {
            Some(facts) if facts.inode == lock.inode => Ok(()),
            Some(_) | None => Err(FileError::LockRemoved(lock.name.into())),
        }
    }

    /// Returns the metadata of a file; `None` if it does not exist.
    pub(crate) fn facts(&self, name: &str) -> Result<Option<Facts>, FileError> {
        match self.open_existing(name)? {
            Some(file) => Ok(Some(self.vetted_facts(&file, name)?)),
            None => Ok(None),
        }
    }

    /// Reads a file of at most `max` bytes; `None` if it does not exist.
    ///
    /// A longer file is not read. A file that changes during the read fails with
    /// [`FileError::ChangedDuringRead`]: the bytes may be torn between two logins.
    pub(crate) fn read(
        &self,
        name: &str,
        max: usize,
    ) -> Result<Option<(Secret, Facts)>, FileError> {
        let Some(mut file) = self.open_existing(name)? else {
            return Ok(None);
        };
        let facts = self.vetted_facts(&file, name)?;
        let too_long = || FileError::TooLong {
            name: name.into(),
            len: facts.len,
            max,
        };
        let len = usize::try_from(facts.len).map_err(|_| too_long())?;
        if len > max {
            return Err(too_long());
        }
        // Allocate the final size: a growing vector would leave copies of the secret behind.
        let mut bytes = vec![0; len];
        let outcome = file.read_exact(&mut bytes);
        let secret = Secret::new(bytes);
        match outcome {
            Ok(()) if facts_of(&file, name)? == facts => Ok(Some((secret, facts))),
            Ok(()) => Err(FileError::ChangedDuringRead(name.into())),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(FileError::ChangedDuringRead(name.into()))
            }
            Err(error) => Err(io_error("read", name)(error)),
        }
    }

    /// Creates a private file, writes it and syncs it.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<Facts, FileError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let mut file = self.open_file(name, flags)?;
        let mut write = || {
            change("write", || file.write_all(bytes))?;
            change("sync", || file.sync_all())?;
            file.metadata()
        };
        let metadata = write().map_err(io_error("write", name))?;
        Ok(Facts::of(&metadata))
    }

    /// Creates a private empty file, for [`Draft::fill`].
    ///
    /// The modification time is set here and again by `fill`. A file system may round it: the facts
    /// contain the rounded time.
    pub(crate) fn create<'n>(&self, name: &'n str) -> Result<Draft<'n>, FileError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let file = self.open_file(name, flags)?;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let seconds = i64::try_from(now.as_secs()).unwrap_or_default();
        set_time(&file, (seconds, now.subsec_nanos().into())).map_err(io_error("write", name))?;
        let facts = facts_of(&file, name)?;
        Ok(Draft { file, name, facts })
    }

    /// Sets the time of a file that a killed process has filled, and syncs it.
    pub(crate) fn finish(&self, name: &str, written: (i64, i64)) -> Result<(), FileError> {
        let file = self.open_file(name, OFlags::RDONLY)?;
        let finish = || {
            set_time(&file, written)?;
            change("sync", || file.sync_all())
        };
        finish().map_err(io_error("write", name))
    }

    /// Renames a file, and replaces an existing file of that name.
    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<(), FileError> {
        let rename = || Ok(rustix::fs::renameat(&self.dir, from, &self.dir, to)?);
        change("rename", rename).map_err(io_error("replace", to))
    }

    /// Returns whether a file of any type has this name.
    pub(crate) fn has(&self, name: &str) -> Result<bool, FileError> {
        match rustix::fs::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(io_error("find", name)(errno.into())),
        }
    }

    /// Removes the file if it exists.
    pub(crate) fn remove(&self, name: &str) -> Result<(), FileError> {
        let remove = || match rustix::fs::unlinkat(&self.dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        };
        change("remove", remove).map_err(io_error("remove", name))
    }

    /// Syncs the folder, so that renames reach the disk.
    pub(crate) fn sync(&self) -> Result<(), FileError> {
        change("sync folder", || self.dir.sync_all()).map_err(io_error("sync", &self.path))
    }

    fn open_existing(&self, name: &str) -> Result<Option<File>, FileError> {
        match self.open_file(name, OFlags::RDONLY) {
            Ok(file) => Ok(Some(file)),
            Err(FileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(cause) => Err(cause),
        }
    }

    fn open_file(&self, name: &str, flags: OFlags) -> Result<File, FileError> {
        // Without NONBLOCK, opening a pipe would block.
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let mode = Mode::RUSR | Mode::WUSR;
        let open = || Ok(rustix::fs::openat(&self.dir, name, flags, mode)?.into());
        let opened = if flags.contains(OFlags::EXCL) {
            change("create", open)
        } else {
            open()
        };
        opened.map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::LOOP) => exposed(name)(Exposure::Symlink),
            Some(Errno::ISDIR | Errno::NXIO) => exposed(name)(Exposure::NotAFile),
            Some(_) | None => io_error("open", name)(error),
        })
    }

    fn vetted_facts(&self, file: &File, name: &str) -> Result<Facts, FileError> {
        let facts = facts_of(file, name)?;
        facts.vet_file(self.me).map_err(exposed(name))?;
        Ok(facts)
    }
}

impl Draft<'_> {
    /// Writes the bytes and syncs the file.
    pub(crate) fn fill(self, bytes: &[u8]) -> Result<(), FileError> {
        let mut file = self.file;
        let mut write = || {
            change("write", || file.write_all(bytes))?;
            set_time(&file, self.facts.written)?;
            change("sync", || file.sync_all())
        };
        write().map_err(io_error("write", self.name))
    }
}

/// Sets the modification time.
fn set_time(file: &File, (seconds, nanoseconds): (i64, i64)) -> io::Result<()> {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    change("set time", || Ok(rustix::fs::futimens(file, &times)?))
}

fn facts_of(file: &File, name: &str) -> Result<Facts, FileError> {
    let metadata = file.metadata().map_err(io_error("look at", name))?;
    Ok(Facts::of(&metadata))
}

fn io_error(action: &'static str, name: &str) -> impl FnOnce(io::Error) -> FileError {
    move |source| FileError::Io {
        action,
        name: name.into(),
        source,
    }
}

fn exposed(name: &str) -> impl FnOnce(Exposure) -> FileError {
    move |exposure| FileError::Exposed {
        name: name.into(),
        exposure,
    }
}
