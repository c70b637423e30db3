//! The file of `--report`: opened before anything is done, written at the end.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read, Write},
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use authferry_codex::{MAX_LEN, parse};
use authferry_core::Secret;
use rustix::{fs::OFlags, io::Errno};

use crate::args::Global;
use crate::ending::{Ending, Result};
use crate::{exit, own_files};

/// How long the reader of a pipe may take to open it, and to make room in it. A job ends without
/// its report rather than never.
const PIPE_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two attempts to write to a pipe.
const PIPE_PACE: Duration = Duration::from_millis(10);

/// Where the report goes.
#[derive(Debug)]
pub(crate) enum ReportFile {
    /// A file, a device, or a pipe that has a reader.
    Open(File),
    /// A pipe that nobody reads yet.
    Pipe(PathBuf),
    /// Our own standard output or error, under whatever name: opened once more, a file would be
    /// written from its beginning again, and a socket not at all.
    Stdout,
    Stderr,
}

impl ReportFile {
    /// Opens the file of `--report` before anything else is done, so that none is missed at the
    /// end. Never waits, and changes no file that authferry keeps or that holds a login.
    pub(crate) fn open(global: &Global) -> Result<Option<Self>> {
        let Some(path) = &global.report else {
            return Ok(None);
        };
        check(path, "--report", global)?;
        let opened = open(path).map_err(|error| {
            let what = format!("the report cannot be written to {}", path.display());
            Ending::refused(exit::FAILED, what).caused_by(&error)
        });
        Ok(Some(opened?))
    }

    pub(crate) fn write(self, text: &str) -> io::Result<()> {
        match self {
            Self::Open(file) => write(file, text),
            Self::Pipe(path) => write(open_pipe(&path)?, text),
            Self::Stdout => io::stdout().lock().write_all(text.as_bytes()),
            Self::Stderr => io::stderr().lock().write_all(text.as_bytes()),
        }
    }
}

/// Refuses a file whose content is worth more than a report.
pub(crate) fn check(path: &Path, option: &str, global: &Global) -> Result<()> {
    let what = if let Some(owner) = own_files::owner(path, global) {
        format!("{} belongs to {owner}", path.display())
    } else if holds_a_login(path) {
        format!("{} holds a login", path.display())
    } else {
        return Ok(());
    };
    Err(Ending::refused(exit::REFUSED, what)
        .hint(format!("name another file with `{option} FILE`"))
        .into())
}

/// Whether a file holds a login. Nothing but a file is read: a pipe may never end.
fn holds_a_login(path: &Path) -> bool {
    let read = || {
        let file = File::options()
            .read(true)
            .custom_flags(NEVER_WAIT)
            .open(path)?;
        let mut bytes = Vec::new();
        if file.metadata()?.is_file() {
            file.take(MAX_LEN as u64 + 1).read_to_end(&mut bytes)?;
        }
        io::Result::Ok(Secret::new(bytes))
    };
    read().is_ok_and(|bytes| parse(&bytes).is_ok())
}

fn open(path: &Path) -> io::Result<ReportFile> {
    if let Ok(found) = fs::metadata(path) {
        if is(&found, io::stdout()) {
            return Ok(ReportFile::Stdout);
        }
        if is(&found, io::stderr()) {
            return Ok(ReportFile::Stderr);
        }
        if found.file_type().is_fifo() {
            return match open_for_writing(path, false) {
                Ok(pipe) => Ok(ReportFile::Open(pipe)),
                Err(error) if has_no_reader(&error) => Ok(ReportFile::Pipe(path.to_owned())),
                Err(error) => Err(error),
            };
        }
    }
    Ok(ReportFile::Open(open_for_writing(path, true)?))
}

/// Whether a stream of ours leads to the same file, pipe or device.
fn is(found: &Metadata, stream: impl AsFd) -> bool {
    let stream = rustix::fs::fstat(stream);
    stream.is_ok_and(|stream| (stream.st_dev, stream.st_ino) == (found.dev(), found.ino()))
}

fn open_for_writing(path: &Path, truncate: bool) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create(truncate).truncate(truncate);
    options.custom_flags(NEVER_WAIT).open(path)
}

/// Opens a pipe as soon as it has a reader.
fn open_pipe(path: &Path) -> io::Result<File> {
    let begin = Instant::now();
    loop {
        match open_for_writing(path, false) {
            Err(error) if has_no_reader(&error) && begin.elapsed() < PIPE_TIMEOUT => {
                thread::sleep(PIPE_PACE);
            }
            Err(error) if has_no_reader(&error) => {
                let what = format!("nobody reads the pipe {}", path.display());
                return Err(io::Error::new(io::ErrorKind::TimedOut, what));
            }
            opened => return opened,
        }
    }
}

fn has_no_reader(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::NXIO)
}

/// Writes everything, also to a pipe that is full for a while.
fn write(mut file: File, text: &str) -> io::Result<()> {
    let begin = Instant::now();
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        match file.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => rest = &rest[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock && begin.elapsed() < PIPE_TIMEOUT =>
            {
                thread::sleep(PIPE_PACE);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let what = "the pipe is full, and nobody reads on";
                return Err(io::Error::new(io::ErrorKind::TimedOut, what));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Neither for the other end of a pipe nor for a device, and no terminal becomes ours.
#[expect(clippy::cast_possible_wrap, reason = "small flags")]
pub(crate) const NEVER_WAIT: i32 = OFlags::NONBLOCK.union(OFlags::NOCTTY).bits() as i32;
