//! The file of `--report`: opened before anything is touched, written at the end.

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
use crate::outcome::{Ending, Result};
use crate::{exit, own_files};

/// The timeout for the reader of a pipe to open it, and to read from it. After that, the job ends
/// without its report.
const PIPE_TIMEOUT: Duration = Duration::from_secs(5);
/// The interval between two attempts to write to a pipe.
const PIPE_RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// Where the report goes.
#[derive(Debug)]
pub(crate) enum ReportFile {
    /// A file, a device, or a pipe that has a reader.
    Open(File),
    /// A pipe without a reader so far.
    Pipe(PathBuf),
    /// The standard output or error of this process, under any path. Opened again, a file would be
    /// overwritten from its start, and a socket cannot be opened.
    Stdout,
    Stderr,
}

impl ReportFile {
    /// Opens the file of `--report` first, so that a job does not fail to open it at its end. Does
    /// not block, and refuses a file that belongs to authferry or holds a login.
    pub(crate) fn open(global: &Global) -> Result<Option<Self>> {
        let Some(path) = &global.report else {
            return Ok(None);
        };
        check(path, "--report", global)?;
        let opened = open(path).map_err(|error| {
            let problem = format!("the report cannot be written to {}", path.display());
            Ending::refused(exit::FAILED, problem).caused_by(&error)
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

/// Refuses a file that a report must not overwrite.
pub(crate) fn check(path: &Path, option: &str, global: &Global) -> Result<()> {
    let problem = if let Some(owner) = own_files::owner(path, global) {
        format!("{} belongs to {owner}", path.display())
    } else if holds_a_login(path) {
        format!("{} holds a login", path.display())
    } else {
        return Ok(());
    };
    Err(Ending::refused(exit::REFUSED, problem)
        .hint(format!("use another file with `{option} FILE`"))
        .into())
}

/// Whether a file holds a login. Reads only regular files: a pipe may never end.
fn holds_a_login(path: &Path) -> bool {
    let read = || {
        let file = File::options()
            .read(true)
            .custom_flags(NONBLOCKING)
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

/// Whether a stream of this process leads to the same file, pipe or device.
fn is(found: &Metadata, stream: impl AsFd) -> bool {
    let stream = rustix::fs::fstat(stream);
    stream.is_ok_and(|stream| (stream.st_dev, stream.st_ino) == (found.dev(), found.ino()))
}

fn open_for_writing(path: &Path, truncate: bool) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create(truncate).truncate(truncate);
    options.custom_flags(NONBLOCKING).open(path)
}

/// Opens a pipe as soon as it has a reader.
fn open_pipe(path: &Path) -> io::Result<File> {
    let begin = Instant::now();
    loop {
        match open_for_writing(path, false) {
            Err(error) if has_no_reader(&error) && begin.elapsed() < PIPE_TIMEOUT => {
                thread::sleep(PIPE_RETRY_INTERVAL);
            }
            Err(error) if has_no_reader(&error) => {
                let problem = format!("timeout: the pipe {} has no reader", path.display());
                return Err(io::Error::new(io::ErrorKind::TimedOut, problem));
            }
            opened => return opened,
        }
    }
}

fn has_no_reader(error: &io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::NXIO)
}

/// Writes the whole text, and retries while a pipe is full.
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
                thread::sleep(PIPE_RETRY_INTERVAL);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let problem = "timeout: the pipe is full, and its reader does not read";
                return Err(io::Error::new(io::ErrorKind::TimedOut, problem));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The flags to open a file without blocking on a pipe or device, and without acquiring a
/// controlling terminal.
#[expect(clippy::cast_possible_wrap, reason = "small flags")]
pub(crate) const NONBLOCKING: i32 = OFlags::NONBLOCK.union(OFlags::NOCTTY).bits() as i32;
