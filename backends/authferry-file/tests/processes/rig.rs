//! Starts this program again as another process with a role.

use std::{
    env,
    fs::{self, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use authferry_core::{
    CasError, Lease, LeaseError, LeaseRequest, Leases, Origin, Secret, SecretStore, Stamp,
    StoreError, Version, WriteId,
};
use authferry_file::FileStore;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

const ROLE: &str = "AUTHFERRY_TEST_PART";
const LOGIN: &str = "AUTHFERRY_TEST_LOGIN";

/// Returns the command that runs `role` on the login `path`, through `launcher` if there is one. The
/// role reports on standard output.
pub(crate) fn command(launcher: &[&str], role: &str, path: &Path) -> Command {
    let program = env::current_exe().expect("this program");
    let mut words = launcher
        .iter()
        .map(AsRef::as_ref)
        .chain([program.as_os_str()]);
    let mut command = Command::new(words.next().expect("at least this program"));
    command
        .args(words)
        .env(ROLE, role)
        .env(LOGIN, path)
        .stdout(Stdio::piped());
    command
}

/// Runs the role that a test gave to this process; `false` if it has none.
pub(crate) fn run_role() -> bool {
    let (Ok(role), Ok(path)) = (env::var(ROLE), env::var(LOGIN)) else {
        return false;
    };
    let login = Login::at(Path::new(&path));
    match role.as_str() {
        "writer" => crate::crash::writer(&login),
        "racer" => crate::race::racer(&login),
        "lease_client" => crate::lease::client(&login),
        "write_over_limit" => crate::full::write_over_limit(&login),
        "fill_disk" => crate::full::fill_disk(&login, Path::new(&path)),
        _ => panic!("no role {role}"),
    }
    true
}

/// Prints a line with one write, so that a killed process has printed all or nothing of it.
pub(crate) fn print_line(line: &str) {
    // The test harness may not have ended its line.
    let line = format!("\n{line}\n");
    io::stdout().write_all(line.as_bytes()).expect("a listener");
    io::stdout().flush().expect("a listener");
}

/// A store and a runtime to call it.
pub(crate) struct Login {
    store: FileStore,
    runtime: Runtime,
}

impl Login {
    pub(crate) fn at(path: &Path) -> Self {
        let address = format!("file://{}", path.display());
        Self {
            store: authferry_file::open(&address).expect("an address"),
            runtime: Builder::new_current_thread().build().expect("a runtime"),
        }
    }

    /// Returns the number and the version of the current login. Panics unless it is whole and has
    /// its stamp.
    pub(crate) fn look(&self) -> Result<Option<(u64, Version)>, StoreError> {
        let Some(stored) = self.runtime.block_on(self.store.read())? else {
            return Ok(None);
        };
        let stamp = stored.stamp.expect("a stamp");
        let whole = stored.secret.expose() == login(stamp.count, stored.secret.expose().len());
        assert!(whole, "a torn login under {stamp:?}");
        Ok(Some((stamp.count, stored.version)))
    }

    /// Swaps the login for the one with `number`, of `len` bytes, as `writer`.
    pub(crate) fn swap(
        &self,
        base: Option<&Version>,
        writer: u64,
        number: u64,
        len: usize,
    ) -> Result<Version, CasError> {
        let stamp = Stamp {
            id: WriteId {
                nonce: writer,
                number,
            },
            count: number,
            origin: Origin::Rotation,
            family: authferry_core::Family(authferry_core::Fingerprint::new([5; 8])),
            volatile_hints: false,
            writer: writer.to_string(),
        };
        let new = Secret::new(login(number, len));
        self.runtime
            .block_on(self.store.compare_and_swap(base, &new, &stamp))
    }
}

/// The calls of the lease, with a term of one minute.
impl Login {
    pub(crate) fn acquire(&self, holder: u64, now: u64) -> Result<Lease, LeaseError> {
        let request = LeaseRequest {
            owner: holder.to_string(),
            holder,
            now,
            until: now + 60,
            expired: None,
        };
        self.runtime.block_on(self.leases().acquire(&request))
    }

    pub(crate) fn renew(&self, lease: &Lease, until: u64) -> Result<Lease, LeaseError> {
        self.runtime.block_on(self.leases().renew(lease, until))
    }

    pub(crate) fn release(&self, lease: &Lease) -> Result<(), LeaseError> {
        self.runtime.block_on(self.leases().release(lease))
    }

    fn leases(&self) -> &dyn Leases {
        self.store.leases().expect("a file store has leases")
    }
}

/// Returns a login whose every part contains its number.
fn login(number: u64, len: usize) -> Vec<u8> {
    let part = format!("made-up-{number} ");
    let mut login = part.repeat(len / part.len() + 1).into_bytes();
    login.truncate(len);
    login
}

/// Creates a folder for a login, mode 0700 with any umask.
pub(crate) fn folder() -> TempDir {
    tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o700))
        .tempdir()
        .expect("a folder")
}

/// Returns all files in the folder except the three of the login and the three of its lease.
pub(crate) fn leftovers(folder: &Path) -> Vec<String> {
    fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .map(|name| name.into_string().expect("text"))
        .filter(|name| {
            let name = name.replace(".lease", "");
            !["login.json", "login.json.meta", "login.json.lock"].contains(&&*name)
        })
        .collect()
}
