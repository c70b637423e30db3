//! The hint for each error of a home or a store.

#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "azure-kv")]
mod azure;
#[cfg(feature = "vault")]
mod vault;

use std::path::Path;

use authferry_codex::HomeError;
use authferry_core::{BoxError, ErrorKind, StoreError};

use super::pasted::{self, quoted};

/// The hints for a store that cannot be opened.
pub(crate) fn for_opening(error: &BoxError) -> Vec<String> {
    #[cfg_attr(
        not(any(feature = "aws", feature = "azure-kv", feature = "vault")),
        expect(unused_mut, reason = "only the stores of the network add a hint")
    )]
    let mut hints = Vec::new();
    #[cfg(feature = "aws")]
    hints.extend(aws::for_opening(&**error));
    #[cfg(feature = "azure-kv")]
    hints.extend(azure::for_opening(&**error));
    #[cfg(feature = "vault")]
    hints.extend(vault::for_opening(&**error));
    // Unused without the network stores.
    let _: &BoxError = error;
    hints
}

pub(super) fn for_home(error: &HomeError) -> Option<String> {
    let hint = match error {
        HomeError::Symlink { .. } => {
            "replace the link with the file: Codex would replace the target of the link".to_owned()
        }
        HomeError::NotARegularFile { path } => format!("move {} away", path.display()),
        HomeError::HardLinked { path, .. } => {
            let path = pasted::path(path);
            format!("remove the hard link: `cp -p {path} {path}.new && mv {path}.new {path}`")
        }
        HomeError::MountPoint { .. } => {
            "mount the whole home of Codex: Codex replaces the file by a rename".to_owned()
        }
        HomeError::ForeignOwner { path, .. } | HomeError::HomeNotOurs { path, .. } => {
            format!(
                "run as its owner, or change the owner: `chown USER {}`",
                pasted::path(path)
            )
        }
        HomeError::ReadOnlyFile { path } => {
            format!(
                "make it writable for Codex: `chmod 600 {}`",
                pasted::path(path)
            )
        }
        HomeError::HomeWritableByOthers { path, .. } => {
            format!(
                "remove what other users put there, then deny them access: `chmod 700 {}`",
                pasted::path(path)
            )
        }
        HomeError::HomeNotWritable { path } => format!(
            "make {} writable for this user, or use another home with `--codex-home DIR`",
            path.display()
        ),
        HomeError::HomeNotADirectory { .. } => "use a folder with `--codex-home DIR`".to_owned(),
        HomeError::InsideGitWorkTree { .. } => {
            "use a folder outside of it with `--codex-home DIR`, for example $RUNNER_TEMP/codex"
                .to_owned()
        }
        HomeError::CredentialsStore { .. } => {
            "set cli_auth_credentials_store = \"file\" there, or remove it".to_owned()
        }
        HomeError::ForcedApiLogin { .. } | HomeError::OverrideInFile { .. } => {
            "remove it".to_owned()
        }
        HomeError::LoginMethodNotAllowed { .. } => {
            "add \"chatgpt\" there, or use an API key in this job".to_owned()
        }
        HomeError::OtherWorkspace { .. } => {
            "add the workspace there, or use a login of that workspace: `authferry seed --replace FILE`"
                .to_owned()
        }
        HomeError::LoginNotUsed { .. } => {
            "look for other credentials in the settings of Codex: /etc/codex, its home, and .codex of the project"
                .to_owned()
        }
        HomeError::ConfigMalformed { .. } => {
            "correct the file: Codex does not start with it either".to_owned()
        }
        HomeError::Io { .. } => return None,
    };
    Some(hint)
}

/// The hint for an error of the lease record. It holds no login, so a malformed one can be deleted.
pub(super) fn for_lease(error: &StoreError) -> Option<String> {
    if !matches!(error.kind, ErrorKind::Malformed | ErrorKind::TooLarge) {
        return for_store(error);
    }
    let delete = if let Some(lease) = error.store.strip_prefix("file://") {
        let metadata = quoted(&format!("{lease}.meta"));
        format!("`rm -f {} {metadata}`", quoted(lease))
    } else if let Some(lease) = error.store.strip_prefix("vault://") {
        let (lease, _) = lease.split_once('?').unwrap_or((lease, ""));
        format!("`bao kv metadata delete {lease}` or `vault kv metadata delete {lease}`")
    } else if let Some(blob) = error.store.strip_prefix("blob://") {
        format!("`az storage blob delete` for {blob}")
    } else {
        format!("delete {}", error.store)
    };
    Some(format!(
        "delete the lease, it holds no login and the next job creates a new one: {delete}"
    ))
}

pub(super) fn for_store(error: &StoreError) -> Option<String> {
    #[cfg(feature = "aws")]
    if let Some(hint) = error
        .source
        .as_deref()
        .and_then(|below| aws::for_store(below))
    {
        return Some(hint);
    }
    #[cfg(feature = "azure-kv")]
    if let Some(hint) = error
        .source
        .as_deref()
        .and_then(|below| azure::for_store(below))
    {
        return Some(hint);
    }
    #[cfg(feature = "vault")]
    if let Some(hint) = error
        .source
        .as_deref()
        .and_then(|below| vault::for_store(below))
    {
        return Some(hint);
    }
    let a_file = error.store.strip_prefix("file://");
    let hint = match (error.kind, a_file) {
        (ErrorKind::NotFound, Some(login)) => {
            let folder = Path::new(login).parent().unwrap_or(Path::new("/"));
            format!(
                "create the folder, as the user of the jobs: `mkdir -m 700 -p {}`",
                pasted::path(folder)
            )
        }
        (ErrorKind::NotFound, None) => {
            "check the address: authferry does not create the place itself".to_owned()
        }
        (ErrorKind::PermissionDenied, _) => {
            "give the user of the job read and write access".to_owned()
        }
        (ErrorKind::Unauthenticated, _) => "check how the job logs in to the store".to_owned(),
        (ErrorKind::Unavailable, Some(login)) => {
            format!(
                "find the process that holds the lock {login}.lock: `fuser -v {}`",
                quoted(&format!("{login}.lock"))
            )
        }
        (ErrorKind::Throttled | ErrorKind::Unavailable, _) => {
            "increase the timeout with `--store-timeout TIME`".to_owned()
        }
        (ErrorKind::Full, _) => "free some space there, and try again".to_owned(),
        (ErrorKind::Unsafe, Some(_)) => "the store must be a file of mode 0600 that belongs to \
            this user, has one hard link, and is in a folder that only this user can write to"
            .to_owned(),
        (ErrorKind::Malformed, Some(login)) => format!(
            "if the login itself is good, remove its metadata, as for a login written by hand: `mv {} {}`",
            quoted(&format!("{login}.meta")),
            quoted(&format!("{login}.meta.bad"))
        ),
        (ErrorKind::TooLarge, Some(login)) => {
            let bad = quoted(&format!("{login}.bad"));
            format!(
                "that is not a login: `mv {} {bad}`, and seed the store again",
                quoted(login)
            )
        }
        (
            ErrorKind::Unsafe | ErrorKind::Malformed | ErrorKind::TooLarge | ErrorKind::Unexpected,
            _,
        ) => {
            return None;
        }
    };
    Some(hint)
}
