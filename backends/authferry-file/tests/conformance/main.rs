//! Runs the conformance suite on the file store.

mod refusals;

use std::{
    fs::{self, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process::ExitCode,
};

use async_trait::async_trait;
use authferry_conformance::{Fixture, Refusal};
use authferry_core::{Guarantees, Reads, SecretStore, Swap};
use tempfile::TempDir;

fn main() -> ExitCode {
    let folder = tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o700))
        .tempdir()
        .expect("a folder");
    authferry_conformance::main(FolderFixture(folder))
}

/// A folder with one file for each place.
struct FolderFixture(TempDir);

impl Drop for FolderFixture {
    fn drop(&mut self) {
        refusals::make_removable(self.0.path());
    }
}

impl FolderFixture {
    fn path(&self, place: &str) -> PathBuf {
        self.0.path().join(place)
    }
}

#[async_trait]
impl Fixture for FolderFixture {
    fn guarantees(&self) -> Guarantees {
        Guarantees {
            swap: Swap::Atomic,
            stamps: true,
            reads: Reads::Strong,
            history: false,
            max_len: 1024 * 1024,
        }
    }

    fn leases(&self) -> bool {
        true
    }

    async fn open(&self, place: &str) -> Box<dyn SecretStore> {
        open(&self.path(place))
    }

    async fn put_by_hand(&self, place: &str, login: &[u8]) {
        put_by_hand(&self.path(place), login).expect("a file that can be written");
    }

    async fn put_lease_by_hand(&self, place: &str, text: &[u8]) {
        let path = self.path(&format!("{place}.lease"));
        put_by_hand(&path, text).expect("a file that can be written");
    }

    async fn look_by_hand(&self, place: &str) -> Option<Vec<u8>> {
        let path = self.path(place);
        path.is_file()
            .then(|| fs::read(path).expect("a file that can be read"))
    }

    async fn empty(&self, place: &str) {
        fs::remove_file(self.path(place)).expect("a file that can be removed");
    }

    async fn refusals(&self, login: &[u8]) -> Vec<Refusal> {
        refusals::all(self.0.path(), login).expect("unsafe files")
    }
}

fn open(path: &Path) -> Box<dyn SecretStore> {
    let address = format!("file://{}", path.display());
    Box::new(authferry_file::open(&address).expect("an address"))
}

/// Overwrites a file in place, like `cp`.
fn put_by_hand(path: &Path, login: &[u8]) -> io::Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?
        .write_all(login)
}
