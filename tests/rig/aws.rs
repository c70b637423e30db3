//! Servers that speak as AWS does, each alone on a loopback port, and AWS's own tools.
//!
//! The first one is moto, held to AWS's documents where it departs from them
//! (`aws/as_documented.py` says where). The second opinion is ministack as it is.

mod hand;
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
    kept::{Kept, free_ports},
    pki::Pki,
};

pub use self::hand::Hand;

/// Where everything is in the tests.
pub const REGION: &str = "eu-west-1";

/// The account that everything belongs to.
pub const ACCOUNT: &str = "123456789012";

/// How long a server may take to be ready: one installs itself a minute on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// How often a server is given another port because somebody else took its own.
const ATTEMPTS: u32 = 5;

/// One server. It is gone when this is dropped, and when the test's process ends.
pub struct Aws {
    packages: PathBuf,
    kept: Mutex<Kept>,
    port: u16,
    pki: Option<Pki>,
    keys: Keys,
}

/// The variables with somebody's credentials.
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
    /// If it cannot be installed or started: the panic shows why.
    #[must_use]
    pub fn moto() -> Self {
        Self::start(Kind::Moto, false)
    }

    /// Starts moto with TLS, by an authority of its own.
    ///
    /// # Panics
    ///
    /// If it cannot be installed or started: the panic shows why.
    #[must_use]
    pub fn moto_with_tls() -> Self {
        Self::start(Kind::Moto, true)
    }

    /// Starts ministack.
    ///
    /// # Panics
    ///
    /// If it cannot be installed or started: the panic shows why.
    #[must_use]
    pub fn ministack() -> Self {
        Self::start(Kind::Ministack, false)
    }

    fn start(kind: Kind, by_tls: bool) -> Self {
        let packages = install::install().unwrap_or_else(|error| panic!("{error}"));
        let mut kept = Kept::new("aws-").expect("a folder");
        let pki = by_tls.then(|| Pki::set_up(kept.folder()).expect("room"));
        for _ in 0..ATTEMPTS {
            let port = free_ports();
            let mut server = beside("python3", &packages, kept.folder());
            match kind {
                Kind::Moto => {
                    server.arg(script("as_documented.py")).arg(port.to_string());
                    server.args(pki.iter().flat_map(|pki| [&pki.certificate, &pki.key]));
                }
                Kind::Ministack => {
                    server
                        .args(["-m", "ministack"])
                        .env("GATEWAY_PORT", port.to_string())
                        // It would be there for the whole network.
                        .env("BIND_HOST", "127.0.0.1");
                }
            }
            kept.start(&mut server).expect("python3");
            if comes_up(&mut kept, port) {
                return Self {
                    packages,
                    kept: Mutex::new(kept),
                    port,
                    pki,
                    keys: keys("AKIAIOSFODNN7EXAMPLE", "made-up-secret-key"),
                };
            }
        }
        panic!("{kind:?} does not start:\n{}", kept.last_words());
    }

    /// Lets nobody do from now on what no policy allows, but for who sets things up: the tools
    /// of this rig.
    ///
    /// # Panics
    ///
    /// If it is not moto.
    #[must_use]
    pub fn going_by_policies(mut self) -> Self {
        let hand = self.hand();
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

    /// Returns the authority that the server's certificate is from, if it has one.
    #[must_use]
    pub fn authority(&self) -> Option<&Path> {
        Some(&self.pki.as_ref()?.authority)
    }

    /// Returns the variables by which AWS's own tools, and whoever does as they do, find the
    /// server instead of AWS, and nothing else.
    #[must_use]
    pub fn place(&self) -> Vec<(&'static str, String)> {
        let mut place = vec![
            ("AWS_ENDPOINT_URL", self.url()),
            ("AWS_REGION", REGION.to_owned()),
            // AWS's tools for Python look for this one alone.
            ("AWS_DEFAULT_REGION", REGION.to_owned()),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ];
        if let Some(authority) = self.authority() {
            place.push(("AWS_CA_BUNDLE", authority.display().to_string()));
        }
        place
    }

    /// Returns the credentials of who sets things up.
    #[must_use]
    pub fn keys(&self) -> Keys {
        self.keys.clone()
    }

    /// Returns AWS's own command line tool, set up for the server as for a person.
    #[must_use]
    pub fn cli(&self, arguments: &[&str]) -> Command {
        let mut command = self.python();
        command.args(["-m", "awscli"]).args(arguments);
        command
    }

    /// Returns a Python that has AWS's own library, set up for the server as for a person.
    #[must_use]
    pub fn python(&self) -> Command {
        self.command("python3")
    }

    /// Returns a program in an environment in which Python finds AWS's own library, and both
    /// find the server.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = beside(program, &self.packages, &self.folder());
        command.envs(self.place()).envs(self.keys());
        command
    }

    /// Returns somebody who can do there all that AWS's own library can.
    ///
    /// # Panics
    ///
    /// If there is no Python.
    #[must_use]
    pub fn hand(&self) -> Hand {
        Hand::start(&mut self.python())
    }

    fn folder(&self) -> PathBuf {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.folder().to_owned()
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

/// A program with the packages for Python, and nothing of the test's environment.
fn beside(program: impl AsRef<OsStr>, packages: &Path, home: &Path) -> Command {
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

/// Waits until the server takes connections; `false` if it ends instead.
fn comes_up(kept: &mut Kept, port: u16) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        // Asked first: what answers may be somebody else's who took the port.
        if !kept.is_alive() {
            return false;
        }
        if is_open(port).is_ok() {
            return kept.is_alive();
        }
        thread::sleep(Duration::from_millis(10));
    }
    false
}

fn is_open(port: u16) -> io::Result<()> {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map(drop)
}
