//! The next step that works, for each way in which a home or a store can be refused.

#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "azure-kv")]
mod azure;
#[cfg(feature = "vault")]
mod vault;

use std::path::Path;

use authferry_codex::Unfit;
use authferry_core::{BoxError, ErrorKind, StoreError};

use super::pasted::{self, quoted};

/// For a store that cannot even be opened.
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
    // Without the stores of the network nobody asks.
    let _: &BoxError = error;
    hints
}

pub(super) fn for_home(unfit: &Unfit) -> Option<String> {
    let hint = match unfit {
        Unfit::Symlink { .. } => {
            "put the file itself there: Codex would replace what the link points to".to_owned()
        }
        Unfit::NotARegularFile { path } => format!("move {} away", path.display()),
        Unfit::HardLinked { path, .. } => {
            let path = pasted::path(path);
            format!("give it one name: `cp -p {path} {path}.new && mv {path}.new {path}`")
        }
        Unfit::MountPoint { .. } => {
            "mount the whole home of Codex: it replaces the file by renaming a new one over it"
                .to_owned()
        }
        Unfit::ForeignOwner { path, .. } | Unfit::HomeNotOurs { path, .. } => {
            format!("run as its owner, or `chown USER {}`", pasted::path(path))
        }
        Unfit::ReadOnlyFile { path } => {
            format!("`chmod 600 {}`: Codex has to write it", pasted::path(path))
        }
        Unfit::HomeReadableByOthers { path, .. } => format!("`chmod 700 {}`", pasted::path(path)),
        Unfit::HomeNotWritable { path } => format!(
            "see that this user can write to {}, or name another home with `--codex-home DIR`",
            path.display()
        ),
        Unfit::HomeNotADirectory { .. } => {
            "name a folder of your own with `--codex-home DIR`".to_owned()
        }
        Unfit::InsideGitWorkTree { .. } => {
            "name a folder outside of it with `--codex-home DIR`, for example $RUNNER_TEMP/codex"
                .to_owned()
        }
        Unfit::CredentialsStore { .. } => {
            "set cli_auth_credentials_store = \"file\" there, or take the line out".to_owned()
        }
        Unfit::ForcedApiLogin { .. } => "take the line out".to_owned(),
        Unfit::ConfigMalformed { .. } => {
            "mend the file: Codex does not start with it either".to_owned()
        }
        Unfit::Io { .. } => return None,
    };
    Some(hint)
}

/// For a place of claims. No login is in it, so what makes no sense there may go.
pub(super) fn for_claim(error: &StoreError) -> Option<String> {
    if !matches!(error.kind, ErrorKind::Malformed | ErrorKind::TooLarge) {
        return for_store(error);
    }
    let away = if let Some(claim) = error.store.strip_prefix("file://") {
        let beside = quoted(&format!("{claim}.meta"));
        format!("`rm -f {} {beside}`", quoted(claim))
    } else if let Some(claim) = error.store.strip_prefix("vault://") {
        let (claim, _) = claim.split_once('?').unwrap_or((claim, ""));
        format!("`bao kv metadata delete {claim}`, or the same with vault")
    } else if let Some(blob) = error.store.strip_prefix("blob://") {
        format!("`az storage blob delete` for {blob}")
    } else {
        format!("take away {}", error.store)
    };
    Some(format!(
        "the claim holds no login, and the next job makes a new one: {away}"
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
                "make the folder, as the user of the jobs: `mkdir -m 700 -p {}`",
                pasted::path(folder)
            )
        }
        (ErrorKind::NotFound, None) => {
            "check the address: the place itself has to be there already".to_owned()
        }
        (ErrorKind::PermissionDenied, _) => {
            "see that the user of the job may read and write there".to_owned()
        }
        (ErrorKind::Unauthenticated, _) => "check how the job logs in to the store".to_owned(),
        (ErrorKind::Unavailable, Some(login)) => {
            format!(
                "see who holds {login}.lock: `fuser -v {}`",
                quoted(&format!("{login}.lock"))
            )
        }
        (ErrorKind::Throttled | ErrorKind::Unavailable, _) => {
            "give it longer with `--patience TIME`".to_owned()
        }
        (ErrorKind::Full, _) => "free some room there, and try again".to_owned(),
        (ErrorKind::Unsafe, Some(_)) => "the store is to be a file of mode 0600 that belongs to \
            this user, has one name, and lies in a folder that nobody else can write to"
            .to_owned(),
        (ErrorKind::Malformed, Some(login)) => format!(
            "if the login itself is good, `mv {} {}` makes it one put there by hand",
            quoted(&format!("{login}.meta")),
            quoted(&format!("{login}.meta.bad"))
        ),
        (ErrorKind::TooLarge, Some(login)) => {
            let bad = quoted(&format!("{login}.bad"));
            format!(
                "that is no login: `mv {} {bad}`, and seed the store again",
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
