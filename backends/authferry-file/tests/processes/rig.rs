//! A process of its own: this program, started again to play one part.

use std::{
    env,
    fs::{self, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use authferry_core::{
    Bid, CasError, Claim, ClaimError, Claims, Origin, Secret, SecretStore, Stamp, StoreError,
    Version, WriteId,
};
use authferry_file::FileStore;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

const PART: &str = "AUTHFERRY_TEST_PART";
const LOGIN: &str = "AUTHFERRY_TEST_LOGIN";

/// Starts the play of `part` at the login `path`, through `launcher` if there is one.
/// What the part says comes by standard output.
pub(crate) fn command(launcher: &[&str], part: &str, path: &Path) -> Command {
    let program = env::current_exe().expect("this program");
    let mut words = launcher
        .iter()
        .map(AsRef::as_ref)
        .chain([program.as_os_str()]);
    let mut command = Command::new(words.next().expect("at least this program"));
    command
        .args(words)
        .env(PART, part)
        .env(LOGIN, path)
        .stdout(Stdio::piped());
    command
}

/// Plays the part that a test gave to this process; `false` if none did.
pub(crate) fn play() -> bool {
    let (Ok(part), Ok(path)) = (env::var(PART), env::var(LOGIN)) else {
        return false;
    };
    let login = Login::at(Path::new(&path));
    match part.as_str() {
        "writer" => crate::crash::writer(&login),
        "racer" => crate::race::racer(&login),
        "claimer" => crate::claim::claimer(&login),
        "small" => crate::full::small(&login),
        "brim" => crate::full::brim(&login, Path::new(&path)),
        _ => panic!("no part {part}"),
    }
    true
}

/// Says a line in one piece, so that who is killed has said it or has not.
pub(crate) fn say(line: &str) {
    // The test harness does not always end its own line.
    let line = format!("\n{line}\n");
    io::stdout().write_all(line.as_bytes()).expect("a listener");
    io::stdout().flush().expect("a listener");
}

/// The store with a runtime to call it from.
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

    /// Returns the number of the login that is there and its version. Panics unless it
    /// is whole and has its own stamp.
    pub(crate) fn look(&self) -> Result<Option<(u64, Version)>, StoreError> {
        let Some(stored) = self.runtime.block_on(self.store.read())? else {
            return Ok(None);
        };
        let stamp = stored.stamp.expect("a stamp");
        let whole = stored.secret.expose() == login(stamp.count, stored.secret.expose().len());
        assert!(whole, "a mixture under {stamp:?}");
        Ok(Some((stamp.count, stored.version)))
    }

    /// Swaps the login `number` in, written by `writer` in `len` bytes.
    pub(crate) fn swap(
        &self,
        base: Option<&Version>,
        writer: u64,
        number: u64,
        len: usize,
    ) -> Result<Version, CasError> {
        let stamp = Stamp {
            id: WriteId {
                trip: writer,
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

/// The same for the claim beside the login, which is asked for a minute.
impl Login {
    pub(crate) fn acquire(&self, holder: u64, now: u64) -> Result<Claim, ClaimError> {
        let bid = Bid {
            owner: holder.to_string(),
            holder,
            now,
            until: now + 60,
            expired: None,
        };
        self.runtime.block_on(self.claims().acquire(&bid))
    }

    pub(crate) fn renew(&self, claim: &Claim, until: u64) -> Result<Claim, ClaimError> {
        self.runtime.block_on(self.claims().renew(claim, until))
    }

    pub(crate) fn release(&self, claim: &Claim) -> Result<(), ClaimError> {
        self.runtime.block_on(self.claims().release(claim))
    }

    fn claims(&self) -> &dyn Claims {
        self.store.claims().expect("a file store has claims")
    }
}

/// Returns a login whose every part tells its number.
fn login(number: u64, len: usize) -> Vec<u8> {
    let part = format!("made-up-{number} ");
    let mut login = part.repeat(len / part.len() + 1).into_bytes();
    login.truncate(len);
    login
}

/// Returns a folder for a login, whatever the umask is.
pub(crate) fn folder() -> TempDir {
    tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o700))
        .tempdir()
        .expect("a folder")
}

/// Returns what is in the folder besides the files that belong there: three for the
/// login and three for its claim.
pub(crate) fn leftovers(folder: &Path) -> Vec<String> {
    fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .map(|name| name.into_string().expect("text"))
        .filter(|name| {
            let name = name.replace(".claim", "");
            !["login.json", "login.json.meta", "login.json.lock"].contains(&&*name)
        })
        .collect()
}
