//! Servers that speak AWS's protocol, each alone on a loopback port, and AWS's own tools.
//!
//! The first server is moto, patched where it departs from AWS's documents (`aws/as_documented.py`
//! says where). The second is an unpatched ministack.

mod boto;
mod install;
#[cfg(test)]
mod tests;

use std::{
    ffi::OsStr,
    fmt, io,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    pki::Pki,
    scoped_process::{ScopedProcess, free_ports},
};

pub use self::boto::BotoClient;

/// The region of all tests.
pub const REGION: &str = "eu-west-1";

/// The account of all tests.
pub const ACCOUNT: &str = "123456789012";

/// Startup timeout, after the installation, which takes a minute on a busy machine.
const START_TIMEOUT: Duration = Duration::from_mins(3);

/// How many ports to try when another program takes the chosen one.
const ATTEMPTS: u32 = 5;

/// One server. It ends when this is dropped, and when the test's process ends.
pub struct Aws {
    packages: PathBuf,
    process: Mutex<ScopedProcess>,
    port: u16,
    pki: Option<Pki>,
    keys: Keys,
}

/// Environment variables with credentials.
pub type Keys = [(&'static str, String); 2];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Moto,
    Ministack,
}

impl Aws {
    /// Starts moto, without TLS.
    ///
    /// # Panics
    ///
    /// If it cannot be installed or started; the panic says why.
    #[must_use]
    pub fn moto() -> Self {
        Self::start(Kind::Moto, false)
    }

    /// Starts moto with TLS and its own certificate authority.
    ///
    /// # Panics
    ///
    /// If it cannot be installed or started; the panic says why.
    #[must_use]
    pub fn moto_with_tls() -> Self {
        Self::start(Kind::Moto, true)
    }

    /// Starts ministack.
    ///
    /// # Panics
    ///
    /// If it cannot be installed or started; the panic says why.
    #[must_use]
    pub fn ministack() -> Self {
        Self::start(Kind::Ministack, false)
    }

    fn start(kind: Kind, by_tls: bool) -> Self {
        let packages = install::install().unwrap_or_else(|error| panic!("{error}"));
        let mut process = ScopedProcess::new("aws-").expect("a folder");
        let pki = by_tls.then(|| Pki::set_up(process.folder()).expect("room"));
        for _ in 0..ATTEMPTS {
            let port = free_ports();
            let mut server = python_command("python3", &packages, process.folder());
            match kind {
                Kind::Moto => {
                    server.arg(script("as_documented.py")).arg(port.to_string());
                    server.args(pki.iter().flat_map(|pki| [&pki.certificate, &pki.key]));
                }
                Kind::Ministack => {
                    server
                        .args(["-m", "ministack"])
                        .env("GATEWAY_PORT", port.to_string())
                        // By default the server listens on every network interface.
                        .env("BIND_HOST", "127.0.0.1");
                }
            }
            process.start(&mut server).expect("python3");
            if wait_until_ready(&mut process, port) {
                return Self {
                    packages,
                    process: Mutex::new(process),
                    port,
                    pki,
                    keys: keys("AKIAIOSFODNN7EXAMPLE", "made-up-secret-key"),
                };
            }
        }
        panic!("{kind:?} does not start:\n{}", process.output_tail());
    }

    /// Enforces the policies from now on, except for the administrator's credentials, which the rig
    /// uses.
    ///
    /// # Panics
    ///
    /// If it is not moto.
    #[must_use]
    pub fn enforcing_policies(mut self) -> Self {
        let hand = self.boto();
        let all = json!({
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
        });
        let keys = hand.user("who-sets-things-up", &all);
        hand.rig("enforce", "");
        self.keys = keys;
        self
    }

    /// Returns the address of the server.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Returns its URL.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.pki.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address())
    }

    /// Returns the certificate authority of the server, if it has one.
    #[must_use]
    pub fn authority(&self) -> Option<&Path> {
        Some(&self.pki.as_ref()?.authority)
    }

    /// Returns only the variables that lead AWS's own tools and SDK clients to this server instead
    /// of AWS.
    #[must_use]
    pub fn place(&self) -> Vec<(&'static str, String)> {
        let mut place = vec![
            ("AWS_ENDPOINT_URL", self.url()),
            ("AWS_REGION", REGION.to_owned()),
            // AWS's tools for Python read only this variable.
            ("AWS_DEFAULT_REGION", REGION.to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ];
        if let Some(authority) = self.authority() {
            place.push(("AWS_CA_BUNDLE", authority.display().to_string()));
        }
        place
    }

    /// Returns the administrator's credentials.
    #[must_use]
    pub fn keys(&self) -> Keys {
        self.keys.clone()
    }

    /// Returns the AWS CLI, configured for this server with the administrator's credentials.
    #[must_use]
    pub fn cli(&self, arguments: &[&str]) -> Command {
        let mut command = self.python();
        command.args(["-m", "awscli"]).args(arguments);
        command
    }

    /// Returns a Python with boto3, configured for this server with the administrator's
    /// credentials.
    #[must_use]
    pub fn python(&self) -> Command {
        self.command("python3")
    }

    /// Returns a command in an environment in which Python finds boto3, and both find the server.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = python_command(program, &self.packages, &self.folder());
        command.envs(self.place()).envs(self.keys());
        command
    }

    /// Returns a boto3 client with the administrator's credentials.
    ///
    /// # Panics
    ///
    /// If there is no Python.
    #[must_use]
    pub fn boto(&self) -> BotoClient {
        BotoClient::start(&mut self.python())
    }

    fn folder(&self) -> PathBuf {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        process.folder().to_owned()
    }
}

impl fmt::Debug for Aws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Aws({})", self.url())
    }
}

pub(crate) fn keys(id: &str, secret: &str) -> Keys {
    [
        ("AWS_ACCESS_KEY_ID", id.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", secret.to_owned()),
    ]
}

/// A program with the Python packages on its path and an otherwise empty environment.
fn python_command(program: impl AsRef<OsStr>, packages: &Path, home: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .env("HOME", home)
        .env("PYTHONPATH", packages)
        .current_dir(home)
        .stdin(Stdio::null());
    command
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("rig/aws")
        .join(name)
}

/// Waits until the server accepts connections; `false` if its process ends first.
fn wait_until_ready(process: &mut ScopedProcess, port: u16) -> bool {
    let deadline = Instant::now() + START_TIMEOUT;
    while Instant::now() < deadline {
        // Check the process first: another program may have taken the port and accept connections.
        if !process.is_alive() {
            return false;
        }
        if is_open(port).is_ok() {
            return process.is_alive();
        }
        thread::sleep(Duration::from_millis(10));
    }
    false
}

fn is_open(port: u16) -> io::Result<()> {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map(drop)
}
