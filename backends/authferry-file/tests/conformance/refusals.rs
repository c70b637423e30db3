//! Every way in which the files can be as they must not be.

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

/// Spoils one thing about the login's file, which is there and as it must be.
type Spoil = fn(&Path) -> io::Result<()>;

/// One way, with what is told of it.
struct Way {
    name: &'static str,
    spoil: Spoil,
    on_read: Option<ErrorKind>,
    on_swap: ErrorKind,
    /// Whether it takes root, or anybody else.
    by_root: Option<bool>,
}

const fn way(name: &'static str, kind: ErrorKind, spoil: Spoil) -> Way {
    Way {
        name,
        spoil,
        on_read: Some(kind),
        on_swap: kind,
        by_root: None,
    }
}

const WAYS: &[Way] = &[
    way("a login that all can read", Unsafe, |login| {
        mode(login, 0o644)
    }),
    way("a login that the group can read", Unsafe, |login| {
        mode(login, 0o640)
    }),
    way("a login that the group can write", Unsafe, |login| {
        mode(login, 0o620)
    }),
    way("a login behind a symbolic link", Unsafe, |login| {
        symlink(moved(login)?, login)
    }),
    way("a login with two names", Unsafe, |login| {
        fs::hard_link(login, login.with_added_extension("other"))
    }),
    way("a folder in the login's place", Unsafe, |login| {
        moved(login)?;
        fs::create_dir(login)
    }),
    way("a pipe in the login's place", Unsafe, |login| {
        moved(login)?;
        pipe(login)
    }),
    way("a socket in the login's place", Unsafe, |login| {
        moved(login)?;
        UnixListener::bind(login).map(drop)
    }),
    Way {
        by_root: Some(true),
        ..way("a login of somebody else's", Unsafe, give_away)
    },
    way("a login that is too long", TooLarge, |login| {
        put_by_hand(login, &vec![b' '; 1024 * 1024 + 1])
    }),
    way("a file beside it that all can read", Unsafe, |login| {
        meta(login, "{}")?;
        mode(&login.with_added_extension("meta"), 0o644)
    }),
    way("a file beside it behind a link", Unsafe, |login| {
        symlink("/dev/null", login.with_added_extension("meta"))
    }),
    way("a file beside it that is empty", Malformed, |login| {
        meta(login, "")
    }),
    way("a login in the file beside it", Malformed, |login| {
        fs::copy(login, login.with_added_extension("meta")).map(drop)
    }),
    way("a token in the file beside it", Malformed, |login| {
        meta(login, "\"made-up-token\"")
    }),
    way("a file beside it of another format", Malformed, |login| {
        meta(login, "{\"format\":2}")
    }),
    way("a lock that all can take", Unsafe, |login| {
        lock(login, 0o666)
    }),
    way("a lock behind a symbolic link", Unsafe, |login| {
        symlink(login, login.with_added_extension("lock"))
    }),
    way("a folder in the lock's place", Unsafe, |login| {
        fs::create_dir(login.with_added_extension("lock"))
    }),
    way("a folder that all can write to", Unsafe, |login| {
        mode(folder(login), 0o777)
    }),
    way("a sticky folder that all can write to", Unsafe, |login| {
        mode(folder(login), 0o1777)
    }),
    way("a folder that the group can write to", Unsafe, |login| {
        mode(folder(login), 0o770)
    }),
    Way {
        by_root: Some(true),
        ..way("a folder of somebody else's", Unsafe, |login| {
            give_away(folder(login))
        })
    },
    way("a folder that is missing", NotFound, |login| {
        fs::remove_dir_all(folder(login))
    }),
    way("a file in the folder's place", NotFound, |login| {
        fs::remove_dir_all(folder(login))?;
        put_by_hand(folder(login), b"")
    }),
    Way {
        on_read: None,
        // Nothing is closed to root.
        by_root: Some(false),
        ..way(
            "a folder that we cannot write to",
            PermissionDenied,
            |login| {
                lock(login, 0o600)?;
                mode(folder(login), 0o500)
            },
        )
    },
];

/// Spoils one fresh place under `root` in each way that this user can.
#[expect(clippy::print_stderr, reason = "what is not tried is said")]
pub(crate) fn all(root: &Path, login: &[u8]) -> io::Result<Vec<Refusal>> {
    let we_are_root = rustix::process::geteuid().is_root();
    let mut refusals = Vec::new();
    for way in WAYS {
        if way.by_root.is_some_and(|by_root| by_root != we_are_root) {
            let who = if we_are_root { "" } else { "not " };
            eprintln!("not tried, since we are {who}root: {}", way.name);
            continue;
        }
        let folder = Builder::new()
            .prefix(PREFIX)
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(root)?
            .keep();
        let path = folder.join("login.json");
        put_by_hand(&path, login)?;
        (way.spoil)(&path)?;
        refusals.push(Refusal {
            name: way.name,
            place: path.display().to_string(),
            store: open(&path),
            on_read: way.on_read,
            on_swap: way.on_swap,
        });
    }
    Ok(refusals)
}

/// Opens the folders that were closed, so that they can be removed.
pub(crate) fn make_removable(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            // What cannot be opened stays, and the test has said what it had to say.
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

/// Moves the login away, and returns where it went.
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
