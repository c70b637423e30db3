//! Microsoft's own client for Key Vault, from Python: a writer and reader that is not ours.

use std::{
    fmt,
    fs::{self, File},
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::{Value, json};

use crate::{ADMIN, KeyVault, TENANT};

/// The releases that the tests run on.
const PACKAGES: [&str; 2] = ["azure-keyvault-secrets==4.12.0", "azure-identity==1.27.0"];

/// A running client. Ends when dropped.
pub struct PythonClient {
    process: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

/// What the client makes of a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct No {
    /// The class of its error: `ResourceNotFoundError`.
    pub kind: String,
    /// The HTTP status; none if no answer came.
    pub status: Option<u64>,
    /// What kind of failure it is.
    pub code: Option<String>,
    /// Which one of that kind.
    pub inner: Option<String>,
    /// For people.
    pub message: String,
}

impl PythonClient {
    /// Starts a client for whoever may do everything, and who signs in by a secret. It never
    /// asks twice.
    ///
    /// # Panics
    ///
    /// If it cannot be installed or started.
    #[must_use]
    pub fn of(vault: &KeyVault) -> Self {
        let (client, secret) = ADMIN;
        Self::start(vault, &json!({"client": client, "secret": secret}), 0)
    }

    /// Starts a client for another account, which signs in by its `secret` or by a job's token
    /// in `assertion`, and says how often it asks again after a failure.
    ///
    /// # Panics
    ///
    /// If it cannot be installed or started.
    #[must_use]
    pub fn start(vault: &KeyVault, who: &Value, retries: u32) -> Self {
        Self::launch(vault, who, retries, false)
    }

    /// Starts a client that minds that the resource for which it is to sign in is not of the
    /// vault's own host, as they all do unless told otherwise.
    #[cfg(test)]
    pub(crate) fn strict(vault: &KeyVault) -> Self {
        let (client, secret) = ADMIN;
        Self::launch(vault, &json!({"client": client, "secret": secret}), 0, true)
    }

    fn launch(vault: &KeyVault, who: &Value, retries: u32, strict: bool) -> Self {
        let mut who = who.clone();
        who["tenant"] = json!(TENANT);
        who["authority"] = json!(vault.url());
        let packages = install().expect("the client from PyPI");
        let mut process = Command::new("python3")
            .args(["-s", "-c", include_str!("python/client.py")])
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("PYTHONPATH", packages)
            .env("NO_PROXY", "127.0.0.1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let (stdin, stdout) = (process.stdin.take(), process.stdout.take());
        let mut client = Self {
            process,
            stdin: stdin.expect("a pipe"),
            stdout: BufReader::new(stdout.expect("a pipe")),
        };
        client.say(&json!({
            "vault": vault.url(),
            "authority": vault.authority(),
            "who": who,
            // The resource is that of all vaults, and the host is none of Azure's.
            "verify": strict,
            "retries": retries,
        }));
        client
    }

    /// Has the client do something: `{"op": "get", "name": "login"}`.
    ///
    /// # Panics
    ///
    /// If it is not there any more.
    #[track_caller]
    pub fn ask(&mut self, request: &Value) -> Result<Value, No> {
        self.say(request);
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("a pipe");
        let answer: Value = serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("the client said {line:?} to {request}"));
        let error = &answer["error"];
        if error.is_null() {
            return Ok(answer["ok"].clone());
        }
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Err(No {
            kind: text(&error["kind"]).unwrap_or_default(),
            status: error["status"].as_u64(),
            code: text(&error["code"]),
            inner: text(&error["inner"]),
            message: text(&error["message"]).unwrap_or_default(),
        })
    }

    /// Puts a value there, as `az keyvault secret set` does, and returns its version.
    ///
    /// # Panics
    ///
    /// If the vault says no.
    #[track_caller]
    pub fn set(&mut self, name: &str, value: &str) -> String {
        let set = self.ask(&json!({"op": "set", "name": name, "value": value}));
        let set = set.unwrap_or_else(|no| panic!("{no:?}"));
        set["version"].as_str().expect("a version").to_owned()
    }

    /// Returns the value that is there, as `az keyvault secret show` does; `None` if nothing is.
    ///
    /// # Panics
    ///
    /// If the vault says no.
    #[track_caller]
    pub fn get(&mut self, name: &str) -> Option<String> {
        match self.ask(&json!({"op": "get", "name": name})) {
            Ok(secret) => secret["value"].as_str().map(str::to_owned),
            Err(no) if no.status == Some(404) => None,
            Err(no) => panic!("{no:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn say(&mut self, message: &Value) {
        writeln!(self.stdin, "{message}").expect("a client");
    }
}

impl Drop for PythonClient {
    fn drop(&mut self) {
        // If it has ended already, all the better.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl fmt::Debug for PythonClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PythonClient({})", self.process.id())
    }
}

/// Returns the folder with the packages, installing them if they are not there yet.
///
/// However many tests and processes ask at the same time, they are installed once: under
/// `target/azure-python`, by the `pip` of the `python3` on `PATH` with whatever index that is
/// set up for.
pub(crate) fn install() -> io::Result<PathBuf> {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/azure-python");
    fs::create_dir_all(&cache)?;
    let cache = cache.canonicalize()?;
    let version = PACKAGES.join("-").replace("==", "-");

    let lock = File::create(cache.join(format!("{version}.lock")))?;
    lock.lock()?;
    let home = cache.join(&version);
    if !home.exists() {
        // What an install that was killed has left is in nobody's use: we have the lock.
        let partial = cache.join(format!("{version}.partial"));
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        let output = Command::new("python3")
            .args(["-m", "pip", "install", "--quiet"])
            .args(["--disable-pip-version-check", "--no-input"])
            .args(["--only-binary=:all:", "--target"])
            .arg(&partial)
            .args(PACKAGES)
            .stdin(Stdio::null())
            .output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(io::Error::other(format!("pip failed:\n{said}")));
        }
        fs::rename(&partial, &home)?;
    }
    Ok(home)
}
