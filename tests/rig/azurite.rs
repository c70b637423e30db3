//! Azurite, Microsoft's own stand-in for Azure Storage, for its blobs.

use std::{
    fmt,
    fs::{self, File},
    io,
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use authferry_http::{Net, Roots};

use crate::{
    kept::{Kept, free_ports},
    keyvault::shaped,
    pki::Pki,
};

/// The release that the tests run on.
pub const AZURITE_VERSION: &str = "3.37.0";

/// The one account that it has.
pub(crate) const ACCOUNT: &str = "devstoreaccount1";

/// How long it may take to be ready. A busy machine has been seen to need twelve seconds.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running Azurite, by TLS and with tokens only; gone when this is dropped, and when the
/// test's process ends.
///
/// Nothing of it is written to disk.
pub struct Azurite {
    port: u16,
    _process: Mutex<Kept>,
}

impl Azurite {
    /// Starts one without any containers.
    ///
    /// # Panics
    ///
    /// If it cannot be installed or started: the panic shows why.
    #[must_use]
    pub fn start() -> Self {
        let script = install().expect("Azurite from npm");
        let mut kept = Kept::new("azurite-").expect("a folder");
        loop {
            let port = free_ports();
            kept.start(&mut command(&script, port, kept.folder()))
                .expect("node");
            if is_ready(&mut kept, port) {
                return Self {
                    port,
                    _process: Mutex::new(kept),
                };
            }
            let said = kept.last_words();
            // Somebody was faster at the port.
            assert!(
                said.contains("EADDRINUSE"),
                "Azurite never got ready:\n{said}"
            );
        }
    }

    /// Returns its address, without the account.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Makes a container, and returns its name.
    ///
    /// # Panics
    ///
    /// If Azurite says no.
    #[must_use]
    pub fn container(&self) -> String {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("logins-{}", MADE.fetch_add(1, Ordering::Relaxed));
        self.put(&format!("{name}?restype=container"), Vec::new());
        name
    }

    /// Writes a blob, `CONTAINER/NAME`, over what is there.
    ///
    /// # Panics
    ///
    /// If Azurite says no.
    pub fn put_blob(&self, blob: &str, content: Vec<u8>) {
        self.put(blob, content);
    }

    fn put(&self, path: &str, content: Vec<u8>) {
        let url = format!("{}/{ACCOUNT}/{path}", self.url());
        let token = shaped(
            "https://storage.azure.com",
            "whoever sets it up",
            Duration::from_mins(1),
        );
        let request = self
            .client()
            .put(url)
            .header("x-ms-version", "2023-11-03")
            .header("x-ms-blob-type", "BlockBlob")
            .bearer_auth(token)
            .body(content);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let answer = runtime
            .block_on(async { request.send().await })
            .expect("Azurite, which is on this host");
        assert_eq!(answer.status(), 201, "{answer:?}");
    }
}

impl Azurite {
    /// Returns a client that trusts it, for the runtime that it is used on first.
    pub(crate) fn client(&self) -> reqwest::Client {
        let net = Net {
            roots: Roots {
                file: Some(Pki::shared().authority.clone()),
                ..Roots::default()
            },
            ..Net::default()
        };
        let url = self.url().parse().expect("an address");
        net.client(&[url]).expect("an authority of our own")
    }
}

impl fmt::Debug for Azurite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Azurite({})", self.port)
    }
}

fn command(script: &Path, port: u16, folder: &Path) -> Command {
    let pki = Pki::shared();
    let mut command = Command::new("node");
    command
        .arg(script)
        .args(["--silent", "--disableTelemetry", "--inMemoryPersistence"])
        .args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()])
        .args(["--skipApiVersionCheck", "--oauth", "basic"])
        .arg("--cert")
        .arg(&pki.certificate)
        .arg("--key")
        .arg(&pki.key)
        .current_dir(folder);
    command
}

fn is_ready(kept: &mut Kept, port: u16) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        // Asked first: what listens may be somebody else's who took the port.
        if !kept.is_alive() {
            return false;
        }
        if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return kept.is_alive();
        }
        thread::sleep(Duration::from_millis(20));
    }
    false
}

/// Returns the path of its script, installing it if it is not there yet.
///
/// However many tests and processes ask at the same time, it is installed once: under
/// `target/azurite`, by the `npm` on `PATH` with whatever registry that is set up for.
fn install() -> io::Result<PathBuf> {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/azurite");
    fs::create_dir_all(&cache)?;
    let cache = cache.canonicalize()?;

    let lock = File::create(cache.join(format!("{AZURITE_VERSION}.lock")))?;
    lock.lock()?;
    let home = cache.join(AZURITE_VERSION);
    if !home.exists() {
        // What an install that was killed has left is in nobody's use: we have the lock.
        let partial = cache.join(format!("{AZURITE_VERSION}.partial"));
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        npm_install(&partial)?;
        fs::rename(&partial, &home)?;
    }
    Ok(home.join("node_modules/azurite/dist/src/blob/main.js"))
}

fn npm_install(into: &Path) -> io::Result<()> {
    fs::create_dir(into)?;
    let output = Command::new("npm")
        .arg("install")
        .arg("--prefix")
        .arg(into)
        .args(["--no-audit", "--no-fund", "--ignore-scripts"])
        .arg(format!("azurite@{AZURITE_VERSION}"))
        .current_dir(into)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| io::Error::new(error.kind(), format!("cannot run npm: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("npm failed:\n{said}")))
}
