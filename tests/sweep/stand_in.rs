//! A stand-in for Codex and the provider.
//!
//! The ledger is a folder: `live.json` is the auth file whose refresh token the provider accepts.
//! It is replaced before Codex writes its own file, because a provider spends a token before Codex
//! has the answer. Each use of a spent token adds a line to `refused`.

use std::{
    env,
    fs::{self, OpenOptions},
    io::{self, BufRead, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rig::{ACCESS_LIFETIME, Login};
use serde_json::{Value, json};
use time::OffsetDateTime;

/// The variable that names the ledger's folder.
pub(crate) const LEDGER: &str = "SWEEP_LEDGER";

/// The file whose refresh token the provider accepts.
pub(crate) const LIVE: &str = "live.json";

/// The file that records uses of a spent token.
pub(crate) const REFUSED: &str = "refused";

/// The account of all logins.
const ACCOUNT: &str = "account-1";

/// How long the provider takes before it spends a token, and how long its answer takes. Killing
/// Codex in between loses the login.
const LATENCY: Duration = Duration::from_millis(20);

/// How many seconds before its expiry Codex rotates a login.
const ROTATE_WITHIN_SECONDS: i64 = 300;

/// Plays Codex, with these arguments: `app-server`, `exec`, or `exec rotate`.
pub(crate) fn play() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let has = |wanted: &str| words.iter().any(|word| word == wanted);
    let codex = Codex::new();
    let done = if has("app-server") {
        codex.serve()
    } else {
        codex.exec(has("rotate"))
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            writeln!(io::stderr(), "ERROR: {error}").ok();
            ExitCode::FAILURE
        }
    }
}

struct Codex {
    auth_file: PathBuf,
    ledger: PathBuf,
}

impl Codex {
    fn new() -> Self {
        let folder = |name| PathBuf::from(env::var_os(name).unwrap_or_default());
        Self {
            auth_file: folder("CODEX_HOME").join("auth.json"),
            ledger: folder(LEDGER),
        }
    }

    /// A job: rotates a login that is due, or any login if `rotates` is set, and calls the model.
    fn exec(&self, rotates: bool) -> io::Result<()> {
        let auth_file = fs::read(&self.auth_file)?;
        if rotates || is_due(&auth_file) {
            return self.rotate(&auth_file);
        }
        if token(&auth_file) == token(&fs::read(self.ledger.join(LIVE))?) {
            return Ok(());
        }
        self.refuse("a job has a spent login")
    }

    fn serve(&self) -> io::Result<()> {
        for line in io::stdin().lock().lines() {
            let message: Value = serde_json::from_str(&line?)?;
            if message["method"] == "getAuthStatus" {
                let auth_file = fs::read(&self.auth_file)?;
                if message["params"]["refreshToken"] == true || is_due(&auth_file) {
                    // The answer does not contain the result of the rotation.
                    if let Err(error) = self.rotate(&auth_file) {
                        writeln!(io::stderr(), "ERROR: {error}").ok();
                    }
                }
            }
            if !message["id"].is_null() {
                let answer = json!({"id": message["id"], "result": {"authMethod": "chatgpt"}});
                writeln!(io::stdout(), "{answer}").ok();
            }
        }
        Ok(())
    }

    /// The provider spends the token, and then Codex writes the new login.
    fn rotate(&self, auth_file: &[u8]) -> io::Result<()> {
        thread::sleep(LATENCY);
        let live = self.ledger.join(LIVE);
        if token(auth_file) != token(&fs::read(&live)?) {
            return self.refuse("a spent token was to be refreshed");
        }
        let next = login(serial(auth_file) + 1, OffsetDateTime::now_utc());
        replace(&live, next.auth_json().as_bytes())?;
        thread::sleep(LATENCY);
        replace(&self.auth_file, next.auth_json().as_bytes())
    }

    fn refuse(&self, why: &str) -> io::Result<()> {
        let path = self.ledger.join(REFUSED);
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        writeln!(file, "{why}")?;
        Err(io::Error::other(
            "Your access token could not be refreshed because your refresh token was already used.",
        ))
    }
}

/// A generation of the only family.
pub(crate) fn login(serial: u32, issued: OffsetDateTime) -> Login {
    Login::new(ACCOUNT, serial, issued, ACCESS_LIFETIME)
}

/// Writes a temporary file and renames it into place, as Codex does.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::Builder::new()
        .prefix(".auth.json.")
        .tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}

fn is_due(auth_file: &[u8]) -> bool {
    let file: Value = serde_json::from_slice(auth_file).unwrap_or_default();
    let token = file["tokens"]["access_token"].as_str().unwrap_or_default();
    let claims = token.split('.').nth(1).unwrap_or_default();
    let claims = URL_SAFE_NO_PAD.decode(claims).unwrap_or_default();
    let claims: Value = serde_json::from_slice(&claims).unwrap_or_default();
    let ends = claims["exp"].as_i64();
    ends.is_some_and(|ends| {
        ends - ROTATE_WITHIN_SECONDS <= OffsetDateTime::now_utc().unix_timestamp()
    })
}

/// The refresh token of an auth file.
pub(crate) fn token(auth_file: &[u8]) -> Option<String> {
    let file: Value = serde_json::from_slice(auth_file).ok()?;
    Some(file["tokens"]["refresh_token"].as_str()?.to_owned())
}

/// The number of the generation in an auth file; 0 if it holds none.
pub(crate) fn serial(auth_file: &[u8]) -> u32 {
    let token = token(auth_file).unwrap_or_default();
    let number = token.rsplit('.').next().unwrap_or_default();
    number.parse().unwrap_or(0)
}
