//! The errors of the file store.

use std::io;

use authferry_core::ErrorKind;
use rustix::io::Errno;

/// The source of a [`StoreError`](authferry_core::StoreError).
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("folder {0} does not exist")]
    NoFolder(String),
    #[error("{name} {exposure}")]
    Exposed { name: String, exposure: Exposure },
    #[error("{name} has {len} bytes, more than {max}")]
    TooLong { name: String, len: u64, max: usize },
    #[error("another program is writing {0} without the lock")]
    ChangedDuringRead(String),
    #[error("timed out waiting for the lock {0}, which another process holds")]
    Locked(String),
    #[error("the lock {0} was removed while we held it")]
    LockRemoved(String),
    /// Only the position: the file may be a login under the wrong name, and the parser's message
    /// quotes unexpected text.
    #[error("{name} is malformed at line {line}, column {column}")]
    Corrupt {
        name: String,
        line: usize,
        column: usize,
    },
    #[error("{name} has format {format}, which this version does not support")]
    Format { name: String, format: u64 },
    #[error("cannot {action} {name}")]
    Io {
        action: &'static str,
        name: String,
        source: io::Error,
    },
    #[error("cannot get random numbers from the system")]
    Random(#[source] getrandom::Error),
    #[error("the background task failed")]
    Task(#[source] tokio::task::JoinError),
}

/// Why a file or a folder is not safe for a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Exposure {
    #[error("is a symbolic link")]
    Symlink,
    #[error("is not a regular file")]
    NotAFile,
    #[error("belongs to user {owner}, not to user {me}")]
    Foreign { owner: u32, me: u32 },
    #[error("has {0} hard links, must have one")]
    HardLinked(u64),
    #[error("is open to other users (mode {0:04o}, must be 0600)")]
    Open(u32),
    #[error("is writable by other users (mode {0:04o})")]
    OpenFolder(u32),
}

impl FileError {
    /// Returns the kind of this error for callers.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::NoFolder(_) => ErrorKind::NotFound,
            Self::Exposed { .. } => ErrorKind::Unsafe,
            Self::TooLong { .. } => ErrorKind::TooLarge,
            Self::ChangedDuringRead(_) | Self::Locked(_) | Self::LockRemoved(_) => {
                ErrorKind::Unavailable
            }
            Self::Corrupt { .. } | Self::Format { .. } => ErrorKind::Malformed,
            Self::Io { source, .. } => kind_of(source),
            Self::Random(_) | Self::Task(_) => ErrorKind::Unexpected,
        }
    }
}

fn kind_of(error: &io::Error) -> ErrorKind {
    match Errno::from_io_error(error) {
        // A limit on the size of files is a kind of quota.
        Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => ErrorKind::Full,
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => ErrorKind::PermissionDenied,
        Some(Errno::NOENT | Errno::NOTDIR) => ErrorKind::NotFound,
        Some(
            Errno::AGAIN
            | Errno::MFILE
            | Errno::NFILE
            | Errno::NOMEM
            | Errno::NOLCK
            | Errno::STALE
            | Errno::TIMEDOUT,
        ) => ErrorKind::Unavailable,
        Some(_) | None => ErrorKind::Unexpected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_system_error_has_its_kind() {
        for (errno, kind) in [
            (Errno::NOSPC, ErrorKind::Full),
            (Errno::DQUOT, ErrorKind::Full),
            (Errno::FBIG, ErrorKind::Full),
            (Errno::ACCESS, ErrorKind::PermissionDenied),
            (Errno::PERM, ErrorKind::PermissionDenied),
            (Errno::ROFS, ErrorKind::PermissionDenied),
            (Errno::NOENT, ErrorKind::NotFound),
            (Errno::NOTDIR, ErrorKind::NotFound),
            (Errno::MFILE, ErrorKind::Unavailable),
            (Errno::STALE, ErrorKind::Unavailable),
            (Errno::IO, ErrorKind::Unexpected),
        ] {
            let cause = FileError::Io {
                action: "write",
                name: "login.json".into(),
                source: errno.into(),
            };
            assert_eq!(cause.kind(), kind, "{errno}");
        }
        assert_eq!(kind_of(&io::Error::other("?")), ErrorKind::Unexpected);
    }
}
