//! Why the disk did not do as asked.

use std::io;

use authferry_core::ErrorKind;
use rustix::io::Errno;

/// The concrete reason below a [`StoreError`](authferry_core::StoreError).
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error("there is no folder {0}")]
    NoFolder(String),
    #[error("{name} {exposure}")]
    Exposed { name: String, exposure: Exposure },
    #[error("{name} has {len} bytes, more than {max}")]
    TooLong { name: String, len: u64, max: usize },
    #[error("{0} is being written by somebody who does not take the lock")]
    Moving(String),
    #[error("somebody else holds {0} and does not let go")]
    Locked(String),
    #[error("somebody removed {0} while we held it")]
    Unlocked(String),
    /// Where, but not what: a login that was put under the wrong name is not to be
    /// quoted, and the parser quotes what it does not expect.
    #[error("{name} cannot be understood from line {line}, column {column} on")]
    Corrupt {
        name: String,
        line: usize,
        column: usize,
    },
    #[error("{name} is written in format {format}, which this version does not know")]
    Format { name: String, format: u64 },
    #[error("cannot {action} {name}")]
    Io {
        action: &'static str,
        name: String,
        source: io::Error,
    },
    #[error("the system gives no random numbers")]
    Random(#[source] getrandom::Error),
    #[error("the work was broken off")]
    Task(#[source] tokio::task::JoinError),
}

/// Who could get at a login that is protected like this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Exposure {
    #[error("is a symbolic link")]
    Symlink,
    #[error("is not a regular file")]
    NotAFile,
    #[error("belongs to user {owner}, not to user {me}")]
    Foreign { owner: u32, me: u32 },
    #[error("has {0} names, and only one of them is ours")]
    HardLinked(u64),
    #[error("is open to others: its mode is {0:04o}, not 0600")]
    Open(u32),
    #[error("is a folder that others can write to: its mode is {0:04o}")]
    OpenFolder(u32),
}

impl Trouble {
    /// Returns the sort of failure it is for callers.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::NoFolder(_) => ErrorKind::NotFound,
            Self::Exposed { .. } => ErrorKind::Unsafe,
            Self::TooLong { .. } => ErrorKind::TooLarge,
            Self::Moving(_) | Self::Locked(_) | Self::Unlocked(_) => ErrorKind::Unavailable,
            Self::Corrupt { .. } | Self::Format { .. } => ErrorKind::Malformed,
            Self::Io { source, .. } => kind_of(source),
            Self::Random(_) | Self::Task(_) => ErrorKind::Unexpected,
        }
    }
}

fn kind_of(error: &io::Error) -> ErrorKind {
    match Errno::from_io_error(error) {
        // A limit on the size of files is a quota of its own sort.
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
    fn each_error_of_the_system_has_its_kind() {
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
            let trouble = Trouble::Io {
                action: "write",
                name: "login.json".into(),
                source: errno.into(),
            };
            assert_eq!(trouble.kind(), kind, "{errno}");
        }
        assert_eq!(kind_of(&io::Error::other("?")), ErrorKind::Unexpected);
    }
}
