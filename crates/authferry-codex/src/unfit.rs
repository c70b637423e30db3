//! Why a home is refused.

use std::{io, path::PathBuf};

/// Why a home, or the auth file in it, cannot be used.
///
/// `Display` is for people; it may hold paths and settings, and never a piece of the auth
/// file.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// The auth file is a symbolic link.
    #[error("{} is a symbolic link", path.display())]
    Symlink {
        /// The auth file.
        path: PathBuf,
    },
    /// There is something else in the auth file's place: a folder, a pipe, a device.
    #[error("{} is not a regular file", path.display())]
    NotARegularFile {
        /// The auth file.
        path: PathBuf,
    },
    /// The auth file has a second name. Codex 0.169.0 spends the refresh token and then
    /// refuses to replace such a file.
    #[error("{} is a hard link, one of {links}", path.display())]
    HardLinked {
        /// The auth file.
        path: PathBuf,
        /// How many names it has.
        links: u64,
    },
    /// The auth file is mounted by itself, as by `docker run -v …/auth.json:…`. Codex
    /// 0.169.0 spends the refresh token and then cannot replace such a file.
    #[error("{} is a mount point", path.display())]
    MountPoint {
        /// The auth file.
        path: PathBuf,
    },
    /// The auth file belongs to another user.
    #[error("{} belongs to another user (uid {owner})", path.display())]
    ForeignOwner {
        /// The auth file.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
    },
    /// The auth file cannot be written: by its mode, its attributes or its file system.
    /// Codex 0.169.0 spends the refresh token before it notices.
    #[error("{} is read-only", path.display())]
    ReadOnlyFile {
        /// The auth file.
        path: PathBuf,
    },
    /// The home, or a folder above it, is something else than a folder.
    #[error("{} is not a folder", path.display())]
    HomeNotADirectory {
        /// What should be a folder.
        path: PathBuf,
    },
    /// The home belongs to another user.
    #[error("{} belongs to another user (uid {owner})", path.display())]
    HomeNotOurs {
        /// The home.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
    },
    /// The home gives rights to its group or to others.
    #[error("{} is open to other users (mode {mode:04o}, must be 0700)", path.display())]
    HomeReadableByOthers {
        /// The home.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The home, or for a missing one the folder to make it in, cannot be written.
    #[error("{} is not writable", path.display())]
    HomeNotWritable {
        /// The folder.
        path: PathBuf,
    },
    /// The home lies in a git work tree, one `git add` away from being published.
    #[error("{} is inside the git work tree {}", path.display(), root.display())]
    InsideGitWorkTree {
        /// The home.
        path: PathBuf,
        /// The folder that holds `.git`.
        root: PathBuf,
    },
    /// Codex is told to keep its login elsewhere. It ignores the auth file then (Codex
    /// 0.169.0: `keyring`, `ephemeral`), or may (`auto`).
    #[error(
        "{} sets cli_auth_credentials_store to {store:?}, must be \"file\"",
        path.display()
    )]
    CredentialsStore {
        /// The `config.toml`.
        path: PathBuf,
        /// What it names.
        store: String,
    },
    /// Codex is told to accept API keys alone. Codex 0.169.0 deletes a `chatgpt` login's
    /// auth file then.
    #[error("{} sets forced_login_method to \"api\", which deletes a ChatGPT login", path.display())]
    ForcedApiLogin {
        /// The `config.toml`.
        path: PathBuf,
    },
    /// The configuration is not TOML, or a setting in it has the wrong type.
    #[error("{} is malformed{}", path.display(), at(*line))]
    ConfigMalformed {
        /// The `config.toml`.
        path: PathBuf,
        /// The line at fault, from 1, if it is known.
        line: Option<usize>,
    },
    /// The operating system said no.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted: `read`, `write`, …
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

impl Unfit {
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::Io {
            action,
            path: path.into(),
            source: source.into(),
        }
    }
}

fn at(line: Option<usize>) -> String {
    line.map_or_else(String::new, |line| format!(" (line {line})"))
}
