//! Tests of the protocol: faults between any two steps, writes by hand, and locks.

mod by_hand;
mod faults;
mod locks;

use std::{
    fs::{self, Permissions},
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use authferry_core::{ErrorKind, Origin, WriteId};
use tempfile::TempDir;

use super::*;

/// A place in a temporary folder.
struct Site {
    folder: TempDir,
    place: FilePlace,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::Builder::new()
            .permissions(Permissions::from_mode(0o700))
            .tempdir()
            .expect("a folder");
        let place = place_at(&folder.path().join("login.json"));
        Self { folder, place }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn put_by_hand(&self, login: &[u8]) {
        self.put_private("login.json", login);
    }

    fn put_private(&self, name: &str, bytes: &[u8]) {
        fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.path(name))
            .and_then(|mut file| file.write_all(bytes))
            .expect("written by hand");
    }

    /// Returns all files in the folder except the three of the place.
    fn leftovers(&self) -> Vec<String> {
        fs::read_dir(self.folder.path())
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name())
            .map(|name| name.into_string().expect("text"))
            .filter(|name| !["login.json", "login.json.meta", "login.json.lock"].contains(&&**name))
            .collect()
    }

    fn read(&self) -> Option<Stored> {
        self.place.read().expect("a place that can be read")
    }

    fn version(&self) -> Option<Version> {
        self.read().map(|stored| stored.version)
    }

    /// Expects generation `number` with its stamp, and returns its version.
    fn expect_generation(&self, number: u64) -> Version {
        let stored = self.read().expect("a login");
        assert_eq!(stored.secret.expose(), login(number));
        assert_eq!(stored.stamp, Some(stamp(number)));
        stored.version
    }

    /// Replaces the current login with generation `number`.
    fn swap(&self, number: u64) -> Result<Version, SwapError> {
        self.swap_over(self.version().as_ref(), number)
    }

    fn swap_over(&self, base: Option<&Version>, number: u64) -> Result<Version, SwapError> {
        self.place.swap(base, &secret(number), &stamp(number))
    }
}

fn place_at(path: &Path) -> FilePlace {
    let address = format!("file://{}", path.display());
    FilePlace::new(&address.parse().expect("an address"))
}

fn login(number: u64) -> Vec<u8> {
    format!("{{\"token\":\"made-up-{number}\"}}").into_bytes()
}

fn secret(number: u64) -> Secret {
    Secret::new(login(number))
}

fn stamp(number: u64) -> Stamp {
    Stamp {
        id: WriteId { nonce: 1, number },
        count: number,
        origin: Origin::Rotation,
        family: authferry_core::Family(authferry_core::Fingerprint::new([5; 8])),
        volatile_hints: false,
        writer: "a test".into(),
    }
}

/// The state of a place before a swap: empty, or generation 1.
#[derive(Clone, Copy, Debug)]
enum InitialState {
    Empty,
    ByHand,
    Ours,
}

impl InitialState {
    const ALL: [Self; 3] = [Self::Empty, Self::ByHand, Self::Ours];

    fn site(self) -> Site {
        let site = Site::new();
        match self {
            Self::Empty => {}
            Self::ByHand => site.put_by_hand(&login(1)),
            Self::Ours => {
                site.swap(1).expect("an empty place");
            }
        }
        site
    }
}

/// Expects that a swap failed with a transient error.
fn expect_unavailable<T: std::fmt::Debug>(answer: &Result<T, SwapError>) {
    let is_unavailable =
        matches!(answer, Err(SwapError::NotWritten(t)) if t.kind() == ErrorKind::Unavailable);
    assert!(is_unavailable, "{answer:?}");
}
