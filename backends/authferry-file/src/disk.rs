//! One folder, and the few things that are done in it.

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
    steps::change,
    trouble::{Exposure, Trouble},
};

/// How often a lock that somebody else holds is tried again.
const LOCK_PACE: Duration = Duration::from_millis(5);

/// An open folder. Everything is reached from its descriptor, so that a folder that is
/// moved or replaced meanwhile makes no difference.
pub(crate) struct Folder {
    dir: File,
    path: String,
    me: u32,
}

/// A new file, still empty, whose inode and time of writing are known already.
pub(crate) struct Draft<'n> {
    file: File,
    name: &'n str,
    pub(crate) facts: Facts,
}

/// Who else may have the lock at the same time.
#[derive(Clone, Copy)]
pub(crate) enum Sharing {
    Readers,
    Nobody,
}

/// A lock that is held for as long as this lives.
pub(crate) struct Lock<'n> {
    _file: File,
    name: &'n str,
    inode: u64,
}

impl Folder {
    /// Opens the folder, which must be there and be nobody else's to write to.
    pub(crate) fn open(path: &str) -> Result<Self, Trouble> {
        let trouble = io_trouble("open", path);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
            Ok(dir) => File::from(dir),
            Err(Errno::NOENT | Errno::NOTDIR) => return Err(Trouble::NoFolder(path.into())),
            Err(errno) => return Err(trouble(errno.into())),
        };
        let me = rustix::process::geteuid().as_raw();
        Facts::of(&dir.metadata().map_err(trouble)?)
            .vet_folder(me)
            .map_err(exposed(path))?;
        Ok(Self {
            dir,
            path: path.into(),
            me,
        })
    }

    /// Takes the lock, waiting for others up to `patience`. Dropping it lets go.
    ///
    /// The lock's file is never removed: who has the lock on a file that has lost its
    /// name shares it with nobody who comes later. Should somebody remove it by hand, who
    /// waits for it finds the new one, and who has it finds out by [`Folder::check`].
    pub(crate) fn lock<'n>(
        &self,
        name: &'n str,
        sharing: Sharing,
        patience: Duration,
    ) -> Result<Lock<'n>, Trouble> {
        let begin = Instant::now();
        loop {
            let file = self.open_file(name, OFlags::RDWR | OFlags::CREATE)?;
            let facts = self.vetted(&file, name)?;
            let outcome = match sharing {
                Sharing::Readers => file.try_lock_shared(),
                Sharing::Nobody => file.try_lock(),
            };
            match outcome {
                Ok(()) => {
                    return Ok(Lock {
                        _file: file,
                        name,
                        inode: facts.inode,
                    });
                }
                Err(TryLockError::WouldBlock) if begin.elapsed() < patience => {
                    thread::sleep(LOCK_PACE);
                }
                Err(TryLockError::WouldBlock) => return Err(Trouble::Locked(name.into())),
                Err(TryLockError::Error(error)) => return Err(io_trouble("lock", name)(error)),
            }
        }
    }

    /// Makes sure that the lock is still the one that others come to.
    pub(crate) fn check(&self, lock: &Lock<'_>) -> Result<(), Trouble> {
        match self.look(lock.name)? {
            Some(facts) if facts.inode == lock.inode => Ok(()),
            Some(_) | None => Err(Trouble::Unlocked(lock.name.into())),
        }
    }

    /// Returns what the file says of itself, or `None` if there is none.
    pub(crate) fn look(&self, name: &str) -> Result<Option<Facts>, Trouble> {
        match self.open_existing(name)? {
            Some(file) => Ok(Some(self.vetted(&file, name)?)),
            None => Ok(None),
        }
    }

    /// Reads a file of at most `max` bytes, or `None` if there is none.
    ///
    /// A longer one is not read at all. One that changes while it is read is told as
    /// [`Trouble::Moving`]: its bytes may be half of one login and half of another.
    pub(crate) fn read(&self, name: &str, max: usize) -> Result<Option<(Secret, Facts)>, Trouble> {
        let Some(mut file) = self.open_existing(name)? else {
            return Ok(None);
        };
        let facts = self.vetted(&file, name)?;
        let too_long = || Trouble::TooLong {
            name: name.into(),
            len: facts.len,
            max,
        };
        let len = usize::try_from(facts.len).map_err(|_| too_long())?;
        if len > max {
            return Err(too_long());
        }
        // Of the right size from the start: growing would leave copies behind.
        let mut bytes = vec![0; len];
        let outcome = file.read_exact(&mut bytes);
        let secret = Secret::new(bytes);
        match outcome {
            Ok(()) if facts_of(&file, name)? == facts => Ok(Some((secret, facts))),
            Ok(()) => Err(Trouble::Moving(name.into())),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(Trouble::Moving(name.into()))
            }
            Err(error) => Err(io_trouble("read", name)(error)),
        }
    }

    /// Writes a new file that is ours alone, down to the disk.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<Facts, Trouble> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let mut file = self.open_file(name, flags)?;
        let mut write = || {
            change("write", || file.write_all(bytes))?;
            change("sync", || file.sync_all())?;
            file.metadata()
        };
        let metadata = write().map_err(io_trouble("write", name))?;
        Ok(Facts::of(&metadata))
    }

    /// Creates a new file that is ours alone, for [`Draft::fill`].
    ///
    /// Its time of writing is set here and again when it is filled. A file system may keep
    /// less of a time than is set: the facts have what it keeps.
    pub(crate) fn create<'n>(&self, name: &'n str) -> Result<Draft<'n>, Trouble> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let file = self.open_file(name, flags)?;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let seconds = i64::try_from(now.as_secs()).unwrap_or_default();
        set_time(&file, (seconds, now.subsec_nanos().into())).map_err(io_trouble("write", name))?;
        let facts = facts_of(&file, name)?;
        Ok(Draft { file, name, facts })
    }

    /// Brings a file down to the disk that another process filled and did not finish.
    pub(crate) fn finish(&self, name: &str, written: (i64, i64)) -> Result<(), Trouble> {
        let file = self.open_file(name, OFlags::RDONLY)?;
        let finish = || {
            set_time(&file, written)?;
            change("sync", || file.sync_all())
        };
        finish().map_err(io_trouble("write", name))
    }

    /// Gives the file another name, over whatever has that name.
    pub(crate) fn rename(&self, from: &str, to: &str) -> Result<(), Trouble> {
        let rename = || Ok(rustix::fs::renameat(&self.dir, from, &self.dir, to)?);
        change("rename", rename).map_err(io_trouble("replace", to))
    }

    /// Returns whether there is anything by that name.
    pub(crate) fn has(&self, name: &str) -> Result<bool, Trouble> {
        match rustix::fs::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(io_trouble("find", name)(errno.into())),
        }
    }

    /// Removes the file if it is there.
    pub(crate) fn remove(&self, name: &str) -> Result<(), Trouble> {
        let remove = || match rustix::fs::unlinkat(&self.dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        };
        change("remove", remove).map_err(io_trouble("remove", name))
    }

    /// Brings the names in the folder down to the disk.
    pub(crate) fn sync(&self) -> Result<(), Trouble> {
        change("sync folder", || self.dir.sync_all()).map_err(io_trouble("sync", &self.path))
    }

    fn open_existing(&self, name: &str) -> Result<Option<File>, Trouble> {
        match self.open_file(name, OFlags::RDONLY) {
            Ok(file) => Ok(Some(file)),
            Err(Trouble::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    fn open_file(&self, name: &str, flags: OFlags) -> Result<File, Trouble> {
        // Without NONBLOCK a pipe in the file's place would keep us waiting for ever.
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
            Some(_) | None => io_trouble("open", name)(error),
        })
    }

    fn vetted(&self, file: &File, name: &str) -> Result<Facts, Trouble> {
        let facts = facts_of(file, name)?;
        facts.vet_file(self.me).map_err(exposed(name))?;
        Ok(facts)
    }
}

impl Draft<'_> {
    /// Writes the bytes, down to the disk.
    pub(crate) fn fill(self, bytes: &[u8]) -> Result<(), Trouble> {
        let mut file = self.file;
        let mut write = || {
            change("write", || file.write_all(bytes))?;
            set_time(&file, self.facts.written)?;
            change("sync", || file.sync_all())
        };
        write().map_err(io_trouble("write", self.name))
    }
}

/// Sets the time of writing.
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

fn facts_of(file: &File, name: &str) -> Result<Facts, Trouble> {
    let metadata = file.metadata().map_err(io_trouble("look at", name))?;
    Ok(Facts::of(&metadata))
}

fn io_trouble(action: &'static str, name: &str) -> impl FnOnce(io::Error) -> Trouble {
    move |source| Trouble::Io {
        action,
        name: name.into(),
        source,
    }
}

fn exposed(name: &str) -> impl FnOnce(Exposure) -> Trouble {
    move |exposure| Trouble::Exposed {
        name: name.into(),
        exposure,
    }
}
