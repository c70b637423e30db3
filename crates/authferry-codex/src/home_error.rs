//! Why a home is refused.

use std::{io, path::PathBuf};

use crate::SettingPlace;

/// Why a home, or the auth file in it, cannot be used.
///
/// `Display` may contain paths and settings, and never a part of the auth file.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// The auth file is a symbolic link.
    #[error("{} is a symbolic link", path.display())]
    Symlink {
        /// The auth file.
        path: PathBuf,
    },
    /// The auth file is something else than a file: a folder, a pipe, a device.
    #[error("{} is not a regular file", path.display())]
    NotARegularFile {
        /// The auth file.
        path: PathBuf,
    },
    /// The auth file has a second hard link. Codex 0.169.0 spends the refresh token and then
    /// refuses to replace such a file.
    #[error("{} is a hard link, one of {links}", path.display())]
    HardLinked {
        /// The auth file.
        path: PathBuf,
        /// Its number of hard links.
        links: u64,
    },
    /// The auth file is a mount point, as with `docker run -v …/auth.json:…`. Codex
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
        /// The owner of the file.
        owner: u32,
    },
    /// The auth file is read-only: by its mode, its attributes or its file system. Codex
    /// 0.169.0 spends the refresh token before it notices that.
    #[error("{} is read-only", path.display())]
    ReadOnlyFile {
        /// The auth file.
        path: PathBuf,
    },
    /// The home, or a parent of it, is not a folder.
    #[error("{} is not a folder", path.display())]
    HomeNotADirectory {
        /// The path that should be a folder.
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
    /// The group of the home, or all users, may write to it.
    #[error("{} is writable by other users (mode {mode:04o}, must be 0700)", path.display())]
    HomeWritableByOthers {
        /// The home.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The home is not writable, or for a missing home the folder to create it in.
    #[error("{} is not writable", path.display())]
    HomeNotWritable {
        /// The folder.
        path: PathBuf,
    },
    /// The home is in a git work tree, one `git add` away from being published.
    #[error("{} is inside the git work tree {}", path.display(), root.display())]
    InsideGitWorkTree {
        /// The home.
        path: PathBuf,
        /// The folder that contains `.git`.
        root: PathBuf,
    },
    /// A file with environment variables makes Codex use other credentials than the auth file.
    #[error("{place} sets {variable}, with which Codex {effect}")]
    OverrideInFile {
        /// Where it is set.
        place: SettingPlace,
        /// The variable.
        variable: String,
        /// Its effect, to complete "Codex …".
        effect: &'static str,
    },
    /// The settings make Codex store its login elsewhere. Codex then ignores the auth file
    /// (`keyring`, `ephemeral`), or may ignore it (`auto`).
    #[error("{place} sets cli_auth_credentials_store to {store:?}, must be \"file\"")]
    CredentialsStore {
        /// Where it is set.
        place: SettingPlace,
        /// The configured credentials store.
        store: String,
    },
    /// The settings make Codex accept only API keys. Codex then deletes the auth file of a
    /// `chatgpt` login.
    #[error("{place} sets forced_login_method to \"api\", which deletes a ChatGPT login")]
    ForcedApiLogin {
        /// Where it is set.
        place: SettingPlace,
    },
    /// The requirements of the machine do not allow a `chatgpt` login. Codex then ignores the auth
    /// file.
    #[error("{place} sets allowed_login_methods without \"chatgpt\": Codex ignores the login")]
    LoginMethodNotAllowed {
        /// Where it is set.
        place: SettingPlace,
    },
    /// The settings allow only other workspaces than the login's. Codex then deletes the auth file
    /// (`forced_chatgpt_workspace_id`) or ignores it (`allowed_chatgpt_workspaces`).
    #[error("{place} sets {setting} without the workspace of the login: Codex would not use it")]
    OtherWorkspace {
        /// Where it is set.
        place: SettingPlace,
        /// The setting.
        setting: &'static str,
    },
    /// Codex itself says that it does not use the auth file.
    #[error("{} does not use the login in its auth file", program.display())]
    LoginNotUsed {
        /// The Codex that was asked.
        program: PathBuf,
        /// What Codex says, if anything.
        source: Option<CodexAnswer>,
    },
    /// The configuration is not TOML, or a setting in it has the wrong type.
    #[error("{} is malformed{}", path.display(), at(*line))]
    ConfigMalformed {
        /// The `config.toml`.
        path: PathBuf,
        /// The line of the error, from 1, if known.
        line: Option<usize>,
    },
    /// A system call failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The attempted operation: `read`, `write`, …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// A line that Codex printed, sanitized.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CodexAnswer(pub String);

impl HomeError {
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
