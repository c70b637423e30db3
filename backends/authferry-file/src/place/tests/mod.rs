//! What the protocol holds against: a fault between any two steps, and people.

mod faults;
mod hands;
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

/// One place in a folder of its own.
struct Site {
    folder: TempDir,
    place: Place,
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

    /// Returns what is in the folder besides the three files that belong there.
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

    /// Requires generation `number`, with its own stamp, and returns its version.
    fn shows(&self, number: u64) -> Version {
        let stored = self.read().expect("a login");
        assert_eq!(stored.secret.expose(), login(number));
        assert_eq!(stored.stamp, Some(stamp(number)));
        stored.version
    }

    /// Swaps generation `number` in over what is there.
    fn swap(&self, number: u64) -> Result<Version, Unswapped> {
        self.swap_over(self.version().as_ref(), number)
    }

    fn swap_over(&self, base: Option<&Version>, number: u64) -> Result<Version, Unswapped> {
        self.place.swap(base, &secret(number), &stamp(number))
    }
}

fn place_at(path: &Path) -> Place {
    let address = format!("file://{}", path.display());
    Place::new(&address.parse().expect("an address"))
}

fn login(number: u64) -> Vec<u8> {
    format!("{{\"token\":\"made-up-{number}\"}}").into_bytes()
}

fn secret(number: u64) -> Secret {
    Secret::new(login(number))
}

fn stamp(number: u64) -> Stamp {
    Stamp {
        id: WriteId { trip: 1, number },
        count: number,
        origin: Origin::Rotation,
        family: authferry_core::Family(authferry_core::Fingerprint::new([5; 8])),
        volatile_hints: false,
        writer: "a test".into(),
    }
}

/// How a place can be before a swap; generation 1 is there, or nothing is.
#[derive(Clone, Copy, Debug)]
enum Before {
    Empty,
    ByHand,
    Ours,
}

impl Before {
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

/// Requires that a swap was told to come again.
fn unavailable<T: std::fmt::Debug>(answer: &Result<T, Unswapped>) {
    let told = matches!(answer, Err(Unswapped::Before(t)) if t.kind() == ErrorKind::Unavailable);
    assert!(told, "{answer:?}");
}
