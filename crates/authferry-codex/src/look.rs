//! Reads the auth file, which Codex may be writing.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use authferry_core::{Generation, Secret};
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};
use zeroize::Zeroizing;

use crate::{AuthFileError, Home, HomeError, MAX_LEN, parse};

/// The state of the auth file.
#[derive(Debug)]
pub enum Look {
    /// There is no file.
    Missing,
    /// A file without a login.
    Unusable {
        /// Its bytes; of a file larger than [`MAX_LEN`] the first `MAX_LEN + 1`.
        secret: Secret,
        /// The error.
        why: AuthFileError,
    },
    /// A login.
    Usable {
        /// Its bytes.
        secret: Secret,
        /// Its generation.
        generation: Generation,
    },
}

impl Look {
    /// The look at a file with these bytes.
    pub(crate) fn of(secret: Secret) -> Self {
        match parse(&secret) {
            Ok(generation) => Self::Usable { secret, generation },
            Err(why) => Self::Unusable { secret, why },
        }
    }
}

impl Home {
    /// Reads the auth file once, possibly in the middle of a write.
    ///
    /// Fails with [`HomeError::Symlink`] or [`HomeError::NotARegularFile`] without a read, and
    /// with [`HomeError::Io`] if the read fails. In a missing home the auth file is missing.
    pub fn look(&self) -> Result<Look, HomeError> {
        let Some(file) = self.open()? else {
            return Ok(Look::Missing);
        };
        let secret = read(file).map_err(|error| HomeError::io("read", self.auth_file(), error))?;
        Ok(Look::of(secret))
    }

    /// Opens the auth file.
    fn open(&self) -> Result<Option<File>, HomeError> {
        let path = self.auth_file();
        let file = match rustix::fs::open(path, FLAGS, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(HomeError::Symlink { path: path.into() }),
            Err(Errno::NXIO) => return Err(HomeError::NotARegularFile { path: path.into() }),
            Err(error) => return Err(HomeError::io("read", path, error)),
        };
        match file.metadata() {
            Ok(metadata) if metadata.is_file() => Ok(Some(file)),
            Ok(_) => Err(HomeError::NotARegularFile { path: path.into() }),
            Err(error) => Err(HomeError::io("read", path, error)),
        }
    }
}

/// Reads a file with another name than the auth file's.
pub(crate) fn look_at(path: &Path) -> io::Result<Look> {
    let secret = read(File::from(rustix::fs::open(path, FLAGS, Mode::empty())?))?;
    Ok(Look::of(secret))
}

/// Does not follow a symbolic link, and does not block on a pipe.
const FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// Reads a file, at most `MAX_LEN + 1` bytes.
///
/// The buffer is larger than the file: a vector that grows or shrinks leaves copies of the
/// secret in memory. The secret gets a buffer of exactly its size.
pub(crate) fn read(file: File) -> io::Result<Secret> {
    let len = file.metadata()?.len().min(MAX_LEN as u64);
    let mut buffer = Zeroizing::new(Vec::with_capacity(
        usize::try_from(len).unwrap_or(0) + READ_BUFFER_BYTES,
    ));
    file.take(MAX_LEN as u64 + 1).read_to_end(&mut buffer)?;
    Ok(Secret::new(buffer.to_vec()))
}

/// How many bytes the file may grow by during the read without a reallocation. This exceeds the
/// size of a real file: Codex may truncate it before we read its size, and rewrite it before we
/// read its bytes.
const READ_BUFFER_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::{fs::symlink, net::UnixListener},
        process::Command,
    };

    use super::*;
    use crate::made_up::{home, is};

    #[test]
    fn a_look_reports_the_state_of_the_file() {
        let (_above, home) = home();
        assert!(is(&home.look().expect("a look"), 1));

        fs::write(home.auth_file(), "{}").expect("a file");
        let look = home.look().expect("a look");
        assert!(
            matches!(
                look,
                Look::Unusable {
                    why: AuthFileError::Member { .. },
                    ..
                }
            ),
            "{look:?}"
        );

        fs::write(home.auth_file(), vec![b' '; 3 * MAX_LEN]).expect("a file");
        let look = home.look().expect("a look");
        let Look::Unusable {
            secret,
            why: AuthFileError::TooLarge,
        } = look
        else {
            panic!("{look:?}");
        };
        assert_eq!(secret.expose().len(), MAX_LEN + 1);

        fs::remove_file(home.auth_file()).expect("a file");
        assert!(matches!(home.look().expect("a look"), Look::Missing));
        fs::remove_dir(home.dir()).expect("a folder");
        assert!(matches!(home.look().expect("a look"), Look::Missing));
    }

    #[test]
    fn only_a_regular_file_is_read() {
        let (above, home) = home();
        let elsewhere = above.path().join("elsewhere");
        fs::rename(home.auth_file(), &elsewhere).expect("a file");
        symlink(&elsewhere, home.auth_file()).expect("a link");
        assert!(matches!(home.look(), Err(HomeError::Symlink { .. })));

        fs::remove_file(home.auth_file()).expect("a link");
        fs::create_dir(home.auth_file()).expect("a folder");
        assert!(matches!(
            home.look(),
            Err(HomeError::NotARegularFile { .. })
        ));

        fs::remove_dir(home.auth_file()).expect("a folder");
        let made = Command::new("mkfifo").arg(home.auth_file()).status();
        assert!(made.expect("mkfifo").success());
        assert!(matches!(
            home.look(),
            Err(HomeError::NotARegularFile { .. })
        ));

        fs::remove_file(home.auth_file()).expect("a pipe");
        let _socket = UnixListener::bind(home.auth_file()).expect("a socket");
        assert!(matches!(
            home.look(),
            Err(HomeError::NotARegularFile { .. })
        ));
    }
}
