//! Shared by the end-to-end tests: a file store, ephemeral runners, and assertions.

use std::{
    env,
    fs::{self, File},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::LazyLock,
    thread,
    time::{Duration, Instant, SystemTime},
};

use rig::{Codex, EXEC, Login, Runner, Stub, finish, secrets_in};
use tempfile::TempDir;

use crate::any_store::AnyStore;

/// The program under test: the one that cargo built, unless `AUTHFERRY_TEST_PROGRAM` names
/// another.
pub(crate) fn under_test() -> &'static str {
    static PROGRAM: LazyLock<String> = LazyLock::new(|| {
        let built = env!("CARGO_BIN_EXE_authferry-under-test");
        env::var("AUTHFERRY_TEST_PROGRAM").unwrap_or_else(|_| built.to_owned())
    });
    &PROGRAM
}

/// A file store that holds a login, the provider's stub, and a Codex to run.
pub(crate) struct Ferry {
    pub(crate) stub: Stub,
    pub(crate) codex: Codex,
    store: TempDir,
}

impl Ferry {
    /// Runs `authferry seed` with a login.
    pub(crate) fn seed(&self, login: &Login, more: &[&str]) -> Output {
        let file = self.store.path().join("seed.json");
        fs::write(&file, login.auth_json()).expect("disk space");
        let runner = self.runner();
        let mut seed = self.authferry(&runner, &["seed"]);
        seed.arg(&file).args(more);
        finish(&mut seed)
    }

    /// `authferry run --no-rotate-first -- codex exec …` on a runner: Codex rotates by itself.
    pub(crate) fn run(&self, runner: &Runner) -> Command {
        let mut command = self.authferry(runner, &["run", "--no-rotate-first", "--", "codex"]);
        command.args(EXEC);
        command
    }

    /// The store's address.
    pub(crate) fn address(&self) -> String {
        format!("file://{}", self.store_file().display())
    }

    /// The file that is the store.
    pub(crate) fn store_file(&self) -> PathBuf {
        self.store.path().join("login.json")
    }

    /// Each file of the store: name, inode, modification time, bytes.
    pub(crate) fn folder(&self) -> Vec<(String, u64, SystemTime, Vec<u8>)> {
        let names = names(self.store.path()).into_iter();
        let files = names.map(|name| {
            let path = self.store.path().join(&name);
            let found = fs::metadata(&path).expect("a file");
            let written = found.modified().expect("a time");
            (name, found.ino(), written, fs::read(path).expect("a file"))
        });
        files.collect()
    }

    /// Waits until the store holds the live generation.
    #[track_caller]
    pub(crate) fn wait_until_live(&self) {
        wait_until("the live generation is in the store", || self.is_live());
    }
}

impl AnyStore for Ferry {
    fn with(codex: Codex, login: &Login) -> Self {
        let ferry = Self {
            stub: Stub::start(login),
            codex,
            store: TempDir::with_prefix("store-").expect("a temporary folder"),
        };
        let seeded = ferry.seed(login, &[]);
        assert!(seeded.status.success(), "{seeded:?}");
        ferry
    }

    fn stub(&self) -> &Stub {
        &self.stub
    }

    fn codex(&self) -> &Codex {
        &self.codex
    }

    fn command(&self, runner: &Runner, program: &str) -> Command {
        let mut command = runner.command(program);
        command.env("AUTHFERRY_STORE", self.address());
        command
    }

    fn stored(&self) -> Vec<u8> {
        fs::read(self.store_file()).expect("a value in the store")
    }

    fn written(&self) -> SystemTime {
        let written = fs::metadata(self.store_file()).and_then(|file| file.modified());
        written.expect("a value in the store")
    }

    fn traces(&self) -> String {
        format!("{:?}", self.folder())
    }

    fn put(&self, login: &Login, more: &[&str]) -> Output {
        self.seed(login, more)
    }

    fn cut_off(&self, _: &mut Command) -> Option<File> {
        let lock = File::create(self.store.path().join("login.json.lock")).expect("disk space");
        lock.lock().expect("a lock");
        Some(lock)
    }

    fn has_history(&self) -> bool {
        false
    }
}

/// The next generation of a login, issued a second later.
pub(crate) fn successor(login: &Login) -> Login {
    Login {
        serial: login.serial + 1,
        issued: login.issued + time::Duration::SECOND,
        ..login.clone()
    }
}

/// Starts a command and discards its output.
#[track_caller]
pub(crate) fn start(command: &mut Command) -> Child {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a program to start")
}

/// Waits for a condition, with a timeout of three minutes.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(3);
    while !happened() {
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Writes a shell script to a runner's work folder.
pub(crate) fn script(runner: &Runner, text: &str) -> PathBuf {
    let path = runner.work().join("script");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("disk space");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("our file");
    path
}

/// Fails if an output contains a part of a login.
#[track_caller]
pub(crate) fn assert_silent(output: &Output, auth_jsons: &[&[u8]]) {
    let printed = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    let printed = String::from_utf8_lossy(&printed);
    for auth_json in auth_jsons {
        for secret in secrets_in(std::str::from_utf8(auth_json).expect("JSON")) {
            assert!(!printed.contains(&secret), "a token was printed: {printed}");
        }
    }
}

/// Asserts the exit code, and prints the whole output if it differs.
#[track_caller]
pub(crate) fn assert_code(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
}

/// Returns the names of the logins in a rescue folder, and asserts that each has its record.
#[track_caller]
pub(crate) fn logins_kept(folder: &Path) -> Vec<String> {
    let (records, logins): (Vec<_>, Vec<_>) = names(folder)
        .into_iter()
        .partition(|name| name.ends_with(".record"));
    let expected: Vec<_> = logins.iter().map(|name| format!("{name}.record")).collect();
    assert_eq!(records, expected);
    logins
}

/// The sorted names in a folder.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<_> = entries
        .map(|e| {
            e.expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

/// Every regular file below a folder, with its path.
pub(crate) fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.is_file() {
            let bytes = fs::read(&path).expect("a file");
            found.push((path.display().to_string(), bytes));
        }
    }
    found
}
