//! The store of a scene: a file, or an OpenBao server.

use std::{
    ffi::OsString,
    fs,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use rig::OpenBao;

/// The store of all scenes of one kind.
pub(crate) struct Store {
    server: Option<OpenBao>,
    numbers: AtomicUsize,
}

impl Store {
    /// A file on each machine.
    pub(crate) fn file() -> Self {
        Self {
            server: None,
            numbers: AtomicUsize::new(0),
        }
    }

    /// A server that the machines share.
    pub(crate) fn vault() -> Self {
        Self {
            server: Some(OpenBao::dev()),
            ..Self::file()
        }
    }

    /// Returns an unused number.
    pub(crate) fn next(&self) -> usize {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// The variables that lead authferry to the store.
    pub(crate) fn environment(&self, number: usize, root: &Path) -> Vec<(&'static str, OsString)> {
        match &self.server {
            None => {
                let address = format!("file://{}", root.join("store/login.json").display());
                vec![("AUTHFERRY_STORE", address.into())]
            }
            Some(server) => vec![
                (
                    "AUTHFERRY_STORE",
                    format!("vault://secret/sweep/{number}/auth").into(),
                ),
                ("BAO_ADDR", server.address().into()),
                ("BAO_TOKEN", server.root_token().into()),
            ],
        }
    }

    /// The login that the store holds.
    pub(crate) fn read(&self, number: usize, root: &Path) -> Vec<u8> {
        match &self.server {
            None => fs::read(root.join("store/login.json")).unwrap_or_default(),
            Some(server) => {
                let found = server
                    .admin()
                    .read(&format!("secret/data/sweep/{number}/auth"));
                let found = found.unwrap_or_default();
                let fields = found["data"]["data"].as_object();
                let mut values = fields.into_iter().flat_map(|it| it.values());
                let login = values.find_map(|it| it.as_str().filter(|it| it.contains("tokens")));
                login.unwrap_or_default().as_bytes().to_vec()
            }
        }
    }

    /// Removes the lease, as its expiry does.
    pub(crate) fn end_lease(&self, number: usize, root: &Path) {
        match &self.server {
            None => {
                let entries = fs::read_dir(root.join("store")).into_iter().flatten();
                for path in entries.flatten().map(|entry| entry.path()) {
                    let name = path.file_name().unwrap_or_default().to_string_lossy();
                    if name.contains("lease") {
                        fs::remove_file(&path).ok();
                    }
                }
            }
            Some(server) => {
                let path = format!("secret/metadata/sweep/{number}/auth-lease");
                server.admin().delete(&path);
            }
        }
    }
}
