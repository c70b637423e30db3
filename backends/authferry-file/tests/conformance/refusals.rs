//! Every unsafe or malformed state of the files.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::{
        fs::{PermissionsExt, chown, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    process::Command,
};

use authferry_conformance::Refusal;
use authferry_core::ErrorKind::{self, Malformed, NotFound, PermissionDenied, TooLarge, Unsafe};
use tempfile::Builder;

use crate::{open, put_by_hand};

const PREFIX: &str = "refusing-";

/// Breaks one property of the login's file, which is valid before.
type Break = fn(&Path) -> io::Result<()>;

/// A bad state, with the errors that it must cause.
struct BadState {
    name: &'static str,
    break_it: Break,
    on_read: Option<ErrorKind>,
    on_swap: ErrorKind,
    /// Whether only root can cause it (`true`), or only other users (`false`).
    by_root: Option<bool>,
}

const fn bad_state(name: &'static str, kind: ErrorKind, break_it: Break) -> BadState {
    BadState {
        name,
        break_it,
        on_read: Some(kind),
        on_swap: kind,
        by_root: None,
    }
}

const BAD_STATES: &[BadState] = &[
    bad_state("a login that all can read", Unsafe, |login| {
        mode(login, 0o644)
    }),
    bad_state("a login that the group can read", Unsafe, |login| {
        mode(login, 0o640)
    }),
    bad_state("a login that the group can write", Unsafe, |login| {
        mode(login, 0o620)
    }),
    bad_state("a login behind a symbolic link", Unsafe, |login| {
        symlink(moved(login)?, login)
    }),
    bad_state("a login with two names", Unsafe, |login| {
        fs::hard_link(login, login.with_added_extension("other"))
    }),
    bad_state("a folder in the login's place", Unsafe, |login| {
        moved(login)?;
        fs::create_dir(login)
    }),
    bad_state("a pipe in the login's place", Unsafe, |login| {
        moved(login)?;
        pipe(login)
    }),
    bad_state("a socket in the login's place", Unsafe, |login| {
        moved(login)?;
        UnixListener::bind(login).map(drop)
    }),
    BadState {
        by_root: Some(true),
        ..bad_state("a login of another user", Unsafe, give_away)
    },
    bad_state("a login that is too long", TooLarge, |login| {
        put_by_hand(login, &vec![b' '; 1024 * 1024 + 1])
    }),
    bad_state("a metadata file that all can read", Unsafe, |login| {
        meta(login, "{}")?;
        mode(&login.with_added_extension("meta"), 0o644)
    }),
    bad_state("a metadata file behind a link", Unsafe, |login| {
        symlink("/dev/null", login.with_added_extension("meta"))
    }),
    bad_state("a metadata file that is empty", Malformed, |login| {
        meta(login, "")
    }),
    bad_state("a login in the metadata file", Malformed, |login| {
        fs::copy(login, login.with_added_extension("meta")).map(drop)
    }),
    bad_state("a token in the metadata file", Malformed, |login| {
        meta(login, "\"made-up-token\"")
    }),
    bad_state("a metadata file of another format", Malformed, |login| {
        meta(login, "{\"format\":2}")
    }),
    bad_state("a lock that all can take", Unsafe, |login| {
        lock(login, 0o666)
    }),
    bad_state("a lock behind a symbolic link", Unsafe, |login| {
        symlink(login, login.with_added_extension("lock"))
    }),
    bad_state("a folder in the lock's place", Unsafe, |login| {
        fs::create_dir(login.with_added_extension("lock"))
    }),
    bad_state("a folder that all can write to", Unsafe, |login| {
        mode(folder(login), 0o777)
    }),
    bad_state("a sticky folder that all can write to", Unsafe, |login| {
        mode(folder(login), 0o1777)
    }),
    bad_state("a folder that the group can write to", Unsafe, |login| {
        mode(folder(login), 0o770)
    }),
    BadState {
        by_root: Some(true),
        ..bad_state("a folder of another user", Unsafe, |login| {
            give_away(folder(login))
        })
    },
    bad_state("a folder that is missing", NotFound, |login| {
        fs::remove_dir_all(folder(login))
    }),
    bad_state("a file in the folder's place", NotFound, |login| {
        fs::remove_dir_all(folder(login))?;
        put_by_hand(folder(login), b"")
    }),
    BadState {
        on_read: None,
        // Root can write to every folder.
        by_root: Some(false),
        ..bad_state(
            "a folder that we cannot write to",
            PermissionDenied,
            |login| {
                lock(login, 0o600)?;
                mode(folder(login), 0o500)
            },
        )
    },
];

/// Creates one new place under `root` for each bad state that this user can cause.
#[expect(clippy::print_stderr, reason = "a skipped check is reported")]
pub(crate) fn all(root: &Path, login: &[u8]) -> io::Result<Vec<Refusal>> {
    let we_are_root = rustix::process::geteuid().is_root();
    let mut refusals = Vec::new();
    for state in BAD_STATES {
        if state.by_root.is_some_and(|by_root| by_root != we_are_root) {
            let who = if we_are_root { "" } else { "not " };
            eprintln!("skipped, because we are {who}root: {}", state.name);
            continue;
        }
        let folder = Builder::new()
            .prefix(PREFIX)
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(root)?
            .keep();
        let path = folder.join("login.json");
        put_by_hand(&path, login)?;
        (state.break_it)(&path)?;
        refusals.push(Refusal {
            name: state.name,
            place: path.display().to_string(),
            store: open(&path),
            on_read: state.on_read,
            on_swap: state.on_swap,
        });
    }
    Ok(refusals)
}

/// Restores the permissions of the folders, so that they can be removed.
pub(crate) fn make_removable(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            // Ignore an error: the test is over.
            mode(&entry.path(), 0o700).ok();
        }
    }
}

fn folder(login: &Path) -> &Path {
    login.parent().expect("a file in a folder")
}

fn mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Moves the login away, and returns its new path.
fn moved(login: &Path) -> io::Result<PathBuf> {
    let away = login.with_added_extension("away");
    fs::rename(login, &away)?;
    Ok(away)
}

fn pipe(path: &Path) -> io::Result<()> {
    let made = Command::new("mkfifo").arg(path).status()?;
    made.success()
        .then_some(())
        .ok_or_else(|| io::Error::other("no pipe"))
}

fn give_away(path: &Path) -> io::Result<()> {
    chown(path, Some(65534), Some(65534))
}

fn meta(login: &Path, text: &str) -> io::Result<()> {
    put_by_hand(&login.with_added_extension("meta"), text.as_bytes())
}

fn lock(login: &Path, bits: u32) -> io::Result<()> {
    let lock = login.with_added_extension("lock");
    put_by_hand(&lock, b"")?;
    mode(&lock, bits)
}
