//! Microsoft's own Python client for Key Vault: an independent writer and reader.

use std::{
    fmt,
    io::{self, BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::{Value, json};

use crate::{ADMIN, KeyVault, TENANT, pip};

/// The releases under test.
const PACKAGES: [&str; 2] = ["azure-keyvault-secrets==4.12.0", "azure-identity==1.27.0"];

/// A running client; ends when dropped.
pub struct PythonClient {
    process: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

/// A refusal, as the client reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The class of the exception: `ResourceNotFoundError`.
    pub kind: String,
    /// The HTTP status; `None` without an answer.
    pub status: Option<u64>,
    /// The error code.
    pub code: Option<String>,
    /// The inner error code.
    pub inner: Option<String>,
    /// The error message.
    pub message: String,
}

impl PythonClient {
    /// Starts a client of the account with all rights, which signs in with a secret. It does not
    /// retry.
    ///
    /// # Panics
    ///
    /// If it cannot be installed or started.
    #[must_use]
    pub fn of(vault: &KeyVault) -> Self {
        let (client, secret) = ADMIN;
        Self::start(vault, &json!({"client": client, "secret": secret}), 0)
    }

    /// Starts a client of another account, which signs in with its `secret` or with a job's token
    /// in `assertion`, and sends a failed request again up to `retries` times.
    ///
    /// # Panics
    ///
    /// If it cannot be installed or started.
    #[must_use]
    pub fn start(vault: &KeyVault, who: &Value, retries: u32) -> Self {
        Self::launch(vault, who, retries, false)
    }

    /// Starts a client that requires the resource to match the vault's own host, which is the
    /// default of all clients.
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
            // The resource names Azure's domain, and the host is local.
            "verify": strict,
            "retries": retries,
        }));
        client
    }

    /// Sends the client a request: `{"op": "get", "name": "login"}`.
    ///
    /// # Panics
    ///
    /// If the client has ended.
    #[track_caller]
    pub fn ask(&mut self, request: &Value) -> Result<Value, Refusal> {
        self.say(request);
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("a pipe");
        let answer: Value = serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("the client printed {line:?} to {request}"));
        let error = &answer["error"];
        if error.is_null() {
            return Ok(answer["ok"].clone());
        }
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Err(Refusal {
            kind: text(&error["kind"]).unwrap_or_default(),
            status: error["status"].as_u64(),
            code: text(&error["code"]),
            inner: text(&error["inner"]),
            message: text(&error["message"]).unwrap_or_default(),
        })
    }

    /// Writes a value, as `az keyvault secret set` does, and returns its version.
    ///
    /// # Panics
    ///
    /// If the vault refuses the request.
    #[track_caller]
    pub fn set(&mut self, name: &str, value: &str) -> String {
        let set = self.ask(&json!({"op": "set", "name": name, "value": value}));
        let set = set.unwrap_or_else(|refusal| panic!("{refusal:?}"));
        set["version"].as_str().expect("a version").to_owned()
    }

    /// Returns the current value, as `az keyvault secret show` does; `None` if there is none.
    ///
    /// # Panics
    ///
    /// If the vault refuses the request for another reason.
    #[track_caller]
    pub fn get(&mut self, name: &str) -> Option<String> {
        match self.ask(&json!({"op": "get", "name": name})) {
            Ok(secret) => secret["value"].as_str().map(str::to_owned),
            Err(refusal) if refusal.status == Some(404) => None,
            Err(refusal) => panic!("{refusal:?}"),
        }
    }

    #[track_caller]
    pub(crate) fn say(&mut self, message: &Value) {
        writeln!(self.stdin, "{message}").expect("a client");
    }
}

impl Drop for PythonClient {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl fmt::Debug for PythonClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PythonClient({})", self.process.id())
    }
}

/// Returns the folder of the packages, and installs them if they are missing.
pub(crate) fn install() -> io::Result<PathBuf> {
    pip::install("azure-python", &PACKAGES)
}
