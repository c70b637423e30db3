//! Azurite, Microsoft's emulator of Azure Storage, used for its blobs.

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
    keyvault::entra_token,
    pki::Pki,
    scoped_process::{ScopedProcess, free_ports},
};

/// The release under test.
pub const AZURITE_VERSION: &str = "3.37.0";

/// Azurite's only account.
pub(crate) const ACCOUNT: &str = "devstoreaccount1";

/// Startup timeout. A busy machine has been seen to need twelve seconds.
const START_TIMEOUT: Duration = Duration::from_mins(3);

/// A running Azurite that accepts only TLS and tokens. It ends when this is dropped, and when the
/// test's process ends.
///
/// It keeps its data in memory.
pub struct Azurite {
    port: u16,
    _process: Mutex<ScopedProcess>,
}

impl Azurite {
    /// Starts an Azurite without containers.
    ///
    /// # Panics
    ///
    /// If it cannot be installed or started; the panic says why.
    #[must_use]
    pub fn start() -> Self {
        let script = install().expect("Azurite from npm");
        let mut process = ScopedProcess::new("azurite-").expect("a folder");
        loop {
            let port = free_ports();
            process
                .start(&mut command(&script, port, process.folder()))
                .expect("node");
            if is_ready(&mut process, port) {
                return Self {
                    port,
                    _process: Mutex::new(process),
                };
            }
            let errors = process.output_tail();
            // Another program took the port first.
            assert!(
                errors.contains("EADDRINUSE"),
                "Azurite never got ready:\n{errors}"
            );
        }
    }

    /// Returns its address, without the account.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Creates a container and returns its name.
    ///
    /// # Panics
    ///
    /// If Azurite refuses the request.
    #[must_use]
    pub fn container(&self) -> String {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("logins-{}", MADE.fetch_add(1, Ordering::Relaxed));
        self.put(&format!("{name}?restype=container"), Vec::new());
        name
    }

    /// Writes a blob, `CONTAINER/NAME`, and overwrites an existing one.
    ///
    /// # Panics
    ///
    /// If Azurite refuses the request.
    pub fn put_blob(&self, blob: &str, content: Vec<u8>) {
        self.put(blob, content);
    }

    fn put(&self, path: &str, content: Vec<u8>) {
        let url = format!("{}/{ACCOUNT}/{path}", self.url());
        let token = entra_token(
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
    /// Returns a client that trusts Azurite. It belongs to the runtime that uses it first.
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

fn is_ready(process: &mut ScopedProcess, port: u16) -> bool {
    let deadline = Instant::now() + START_TIMEOUT;
    while Instant::now() < deadline {
        // Check the process first: another program may have taken the port and listen.
        if !process.is_alive() {
            return false;
        }
        if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return process.is_alive();
        }
        thread::sleep(Duration::from_millis(20));
    }
    false
}

/// Returns the path of Azurite's script, and installs it if it is missing.
///
/// Concurrent tests and processes share one installation under `target/azurite`. It uses the `npm`
/// on `PATH` with its configured registry.
fn install() -> io::Result<PathBuf> {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/azurite");
    fs::create_dir_all(&cache)?;
    let cache = cache.canonicalize()?;

    let lock = File::create(cache.join(format!("{AZURITE_VERSION}.lock")))?;
    lock.lock()?;
    let home = cache.join(AZURITE_VERSION);
    if !home.exists() {
        // We hold the lock, so a leftover of a killed install is not in use.
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
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("npm failed:\n{errors}")))
}
