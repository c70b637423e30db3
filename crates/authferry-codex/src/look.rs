//! Looking at the auth file while Codex may be writing it.

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

use crate::{Home, MAX_LEN, Unfit, Unusable, parse};

/// What is in the auth file's place.
#[derive(Debug)]
pub enum Look {
    /// Nothing.
    Missing,
    /// A file that carries no login.
    Unusable {
        /// Its bytes; of one larger than [`MAX_LEN`] only so many that it shows.
        secret: Secret,
        /// What is wrong with it.
        why: Unusable,
    },
    /// A login.
    Usable {
        /// Its bytes.
        secret: Secret,
        /// Its generation.
        generation: Generation,
    },
}

impl Home {
    /// Looks at the auth file as it is at this moment, which may be in the middle of a
    /// write.
    ///
    /// [`Unfit::Symlink`] and [`Unfit::NotARegularFile`] without looking any further, and
    /// [`Unfit::Io`] when it cannot be read. A missing home has no auth file.
    pub fn look(&self) -> Result<Look, Unfit> {
        let Some(file) = self.open()? else {
            return Ok(Look::Missing);
        };
        let secret = read(file).map_err(|error| Unfit::io("read", self.auth_file(), error))?;
        Ok(match parse(&secret) {
            Ok(generation) => Look::Usable { secret, generation },
            Err(why) => Look::Unusable { secret, why },
        })
    }

    /// Opens the auth file.
    fn open(&self) -> Result<Option<File>, Unfit> {
        let path = self.auth_file();
        let file = match rustix::fs::open(path, FLAGS, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(Unfit::Symlink { path: path.into() }),
            Err(Errno::NXIO) => return Err(Unfit::NotARegularFile { path: path.into() }),
            Err(error) => return Err(Unfit::io("read", path, error)),
        };
        match file.metadata() {
            Ok(metadata) if metadata.is_file() => Ok(Some(file)),
            Ok(_) => Err(Unfit::NotARegularFile { path: path.into() }),
            Err(error) => Err(Unfit::io("read", path, error)),
        }
    }
}

/// Looks at a file under another name than the auth file's.
pub(crate) fn look_at(path: &Path) -> io::Result<Look> {
    let secret = read(File::from(rustix::fs::open(path, FLAGS, Mode::empty())?))?;
    Ok(match parse(&secret) {
        Ok(generation) => Look::Usable { secret, generation },
        Err(why) => Look::Unusable { secret, why },
    })
}

/// Without following a link, and without waiting for the other end of a pipe.
const FLAGS: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// Reads a file up to the first byte that is too much.
///
/// The buffer starts with more room than the file needs, for a vector that grows or shrinks
/// leaves copies behind; the secret gets one of exactly its own size.
pub(crate) fn read(file: File) -> io::Result<Secret> {
    let len = file.metadata()?.len().min(MAX_LEN as u64);
    let mut buffer = Zeroizing::new(Vec::with_capacity(usize::try_from(len).unwrap_or(0) + ROOM));
    file.take(MAX_LEN as u64 + 1).read_to_end(&mut buffer)?;
    Ok(Secret::new(buffer.to_vec()))
}

/// How many bytes a file may grow by while it is read, without a second buffer. More than a real file
/// has: Codex may truncate it before we ask for its size, and write all of it before we read.
const ROOM: usize = 16 << 10;

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
    fn a_look_says_what_is_there() {
        let (_above, home) = home();
        assert!(is(&home.look().expect("a look"), 1));

        fs::write(home.auth_file(), "{}").expect("a file");
        let look = home.look().expect("a look");
        assert!(
            matches!(
                look,
                Look::Unusable {
                    why: Unusable::Member { .. },
                    ..
                }
            ),
            "{look:?}"
        );

        fs::write(home.auth_file(), vec![b' '; 3 * MAX_LEN]).expect("a file");
        let look = home.look().expect("a look");
        let Look::Unusable {
            secret,
            why: Unusable::TooLarge,
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
    fn a_look_goes_through_nothing_but_a_file() {
        let (above, home) = home();
        let elsewhere = above.path().join("elsewhere");
        fs::rename(home.auth_file(), &elsewhere).expect("a file");
        symlink(&elsewhere, home.auth_file()).expect("a link");
        assert!(matches!(home.look(), Err(Unfit::Symlink { .. })));

        fs::remove_file(home.auth_file()).expect("a link");
        fs::create_dir(home.auth_file()).expect("a folder");
        assert!(matches!(home.look(), Err(Unfit::NotARegularFile { .. })));

        fs::remove_dir(home.auth_file()).expect("a folder");
        let made = Command::new("mkfifo").arg(home.auth_file()).status();
        assert!(made.expect("mkfifo").success());
        assert!(matches!(home.look(), Err(Unfit::NotARegularFile { .. })));

        fs::remove_file(home.auth_file()).expect("a pipe");
        let _socket = UnixListener::bind(home.auth_file()).expect("a socket");
        assert!(matches!(home.look(), Err(Unfit::NotARegularFile { .. })));
    }
}
