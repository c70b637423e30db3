//! Exit code 120 on ephemeral machines: another machine puts the rescued login back.

use std::{
    fs,
    process::{Command, Output},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rig::{EXEC, Login, Runner, V0_169, What, finish, secrets_in};
use serde_json::Value;
use tempfile::TempDir;

use crate::any_store::AnyStore;
use crate::ferry::{Ferry, assert_code, assert_silent, files, names, script, under_test};

/// A published key from age's own tests.
const IDENTITY: &str = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";
const RECIPIENT: &str = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";

#[test]
fn an_encrypted_rescue_is_put_back_from_another_machine() {
    let ferry = Ferry::holding(V0_169, &Login::stale());
    let ephemeral = ferry.runner();
    let rotated = rotated_by_codex(&ferry, &ephemeral);
    let persist = persist_without_store(
        &ferry,
        &ephemeral,
        &[("AUTHFERRY_RESCUE_RECIPIENT", RECIPIENT)],
    );
    assert_code(&persist, 120);
    assert_silent(&persist, &[&rotated]);
    let rescue = ephemeral.root().join("home/.local/state/authferry/rescue");
    let [name] = &names(&rescue)[..] else {
        panic!("{:?}", names(&rescue));
    };
    assert!(name.ends_with(".json.age"), "{name}");
    // A later step of the job uploads the file, and the machine is deleted.
    let artifact = fs::read(rescue.join(name)).expect("a file");
    fs::remove_file(ephemeral.auth_file()).expect("an auth file");
    let secrets = secrets_in(std::str::from_utf8(&rotated).expect("JSON"));
    for (path, bytes) in files(ephemeral.root()) {
        let clear = secrets.iter().find(|secret| contains(&bytes, secret));
        assert_eq!(clear, None, "{path} has a token in plain text");
    }
    drop(ephemeral);

    let another = ferry.runner();
    let key = another.work().join("key");
    fs::write(&key, format!("{IDENTITY}\n")).expect("disk space");
    fs::write(another.work().join(name), artifact).expect("disk space");
    let pasted = hint(&persist).replace("KEY", &key.display().to_string());
    let put = finish(&mut paste(&ferry, &another, &pasted));
    assert_code(&put, 0);
    assert_silent(&put, &[&rotated]);
    assert_eq!(ferry.stored(), rotated, "byte for byte");
    assert!(ferry.is_live());
    assert_next_job_works(&ferry);
}

#[test]
fn a_login_in_a_second_store_is_put_back_from_another_machine() {
    let ferry = Ferry::holding(V0_169, &Login::stale());
    let second = SecondStore::new();
    let ephemeral = ferry.runner();
    let rotated = rotated_by_codex(&ferry, &ephemeral);
    let persist = persist_without_store(&ferry, &ephemeral, &[second.variable()]);
    assert_code(&persist, 120);
    assert_silent(&persist, &[&rotated]);
    assert!(
        !ephemeral
            .root()
            .join("home/.local/state/authferry/rescue")
            .exists()
    );
    drop(ephemeral);

    assert_eq!(second.copies(), [&*rotated]);
    let another = ferry.runner();
    let put = finish(&mut paste(&ferry, &another, &hint(&persist)));
    assert_code(&put, 0);
    assert_silent(&put, &[&rotated]);
    assert_eq!(ferry.stored(), rotated, "byte for byte");
    assert!(ferry.is_live());
    assert!(!second.copies().contains(&rotated), "the copy is removed");
    assert_next_job_works(&ferry);
}

#[test]
fn two_ephemeral_machines_keep_both_logins_in_the_second_store() {
    let first = Login::fresh();
    let ferry = Ferry::holding(V0_169, &first);
    let second = SecondStore::new();
    let mut written = Vec::new();
    for number in 1..=2_u32 {
        let runner = ferry.runner();
        let restore = &["restore", "--no-watch", "--no-rotate-first"];
        assert_code(&finish(&mut ferry.authferry(&runner, restore)), 0);
        let next = Login {
            serial: first.serial + number,
            issued: first.issued + time::Duration::seconds(number.into()),
            ..first.clone()
        };
        runner.place(&next.auth_json()).expect("disk space");
        let persist = persist_without_store(&ferry, &runner, &[second.variable()]);
        assert_code(&persist, 120);
        written.push(next.auth_json().into_bytes());
    }
    assert_eq!(second.copies(), written);
}

#[cfg(feature = "vault")]
mod vault {
    use super::*;
    use crate::vault::site::{Identity, Site};

    /// The first store is a file, and the second store is OpenBao.
    #[test]
    fn a_login_in_a_second_store_on_a_server_is_put_back() {
        let ferry = Ferry::holding(V0_169, &Login::stale());
        let site = Site::new(V0_169, &Login::fresh());
        let address = format!("vault://{}/ci/rescued", site.mount);
        let server = site.server.addresses().join(",");
        let token = site.server.root_token().to_owned();
        let authority = site.server.authority().map(|it| it.display().to_string());
        let mut variables = vec![
            ("AUTHFERRY_RESCUE_STORE", &*address),
            ("VAULT_ADDR", &*server),
            ("VAULT_TOKEN", &*token),
        ];
        variables.extend(authority.as_deref().map(|it| ("VAULT_CACERT", it)));

        let ephemeral = ferry.runner();
        let rotated = rotated_by_codex(&ferry, &ephemeral);
        let persist = persist_without_store(&ferry, &ephemeral, &variables);
        assert_code(&persist, 120);
        assert_silent(&persist, &[&rotated]);
        drop(ephemeral);

        let another = ferry.runner();
        let mut put = paste(&ferry, &another, &hint(&persist));
        let put = finish(put.envs(variables.iter().copied()));
        assert_code(&put, 0);
        assert_eq!(ferry.stored(), rotated, "byte for byte");
        assert!(ferry.is_live());

        // The command does not get the credentials of the second store.
        let runner = ferry.runner();
        let job = script(&runner, "env >seen");
        let mut run = ferry.authferry(&runner, &["run", "--no-rotate-first", "--"]);
        let run = finish(run.arg(job).envs(variables.iter().copied()));
        assert_code(&run, 0);
        let seen = fs::read_to_string(runner.work().join("seen")).expect("written");
        assert!(seen.contains("VAULT_ADDR="), "{seen}");
        assert!(!seen.contains(&token), "{seen}");
    }

    /// The first store is OpenBao, and the next job puts the login back by itself.
    #[test]
    fn the_next_job_on_another_machine_adopts_the_login_in_the_second_store() {
        let site = <Site as AnyStore>::holding(V0_169, &Login::stale());
        let second = SecondStore::new();
        let ephemeral = AnyStore::runner(&site);
        let rotated = rotated_by_codex(&site, &ephemeral);
        let persist = persist_without_store(&site, &ephemeral, &[second.variable()]);
        assert_code(&persist, 120);
        drop(ephemeral);

        let runner = AnyStore::runner(&site);
        let mut run = AnyStore::authferry(&site, &runner, &["run", "--", "codex"]);
        let run = finish(run.args(EXEC).envs([second.variable()]));
        assert_code(&run, 0);
        assert_eq!(site.stored(), rotated, "byte for byte");
        assert_eq!(site.stub.count(What::is_refresh), 1, "{run:?}");
        assert_eq!(site.tokens(Identity::GitHub), 0);
    }
}

/// A second store on a volume that all machines mount.
struct SecondStore {
    folder: TempDir,
    address: String,
}

impl SecondStore {
    fn new() -> Self {
        let folder = TempDir::with_prefix("second-").expect("a temporary folder");
        let address = format!("file://{}/rescued.json", folder.path().display());
        Self { folder, address }
    }

    fn variable(&self) -> (&str, &str) {
        ("AUTHFERRY_RESCUE_STORE", &self.address)
    }

    /// The logins in the second store.
    fn copies(&self) -> Vec<Vec<u8>> {
        let text = fs::read(self.folder.path().join("rescued.json")).expect("a document");
        let document: Value = serde_json::from_slice(&text).expect("JSON");
        let copies = document["copies"].as_array().expect("a list").iter();
        let logins = copies.map(|copy| STANDARD.decode(copy["login"].as_str().expect("a text")));
        logins.collect::<Result<_, _>>().expect("base64")
    }
}

/// Restores the login and lets Codex rotate it; returns the rotated auth file.
#[track_caller]
fn rotated_by_codex<S: AnyStore>(scene: &S, runner: &Runner) -> Vec<u8> {
    let restore = &["restore", "--no-watch", "--no-rotate-first"];
    assert_code(&finish(&mut scene.authferry(runner, restore)), 0);
    assert_code(&finish(&mut runner.exec()), 0);
    let rotated = fs::read(runner.auth_file()).expect("an auth file");
    assert!(!scene.is_live());
    rotated
}

/// `authferry persist` while the store is unreachable.
fn persist_without_store<S: AnyStore>(scene: &S, runner: &Runner, more: &[(&str, &str)]) -> Output {
    let mut persist = scene.authferry(runner, &["persist", "--store-timeout", "5s"]);
    let _unreachable = scene.cut_off(&mut persist);
    finish(persist.envs(more.iter().copied()))
}

/// The command of the hint, which puts the login back.
#[track_caller]
fn hint(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let (_, command) = stderr.split_once("`authferry ").expect("a command");
    let (command, _) = command.split_once('`').expect("its end");
    format!("{} {command}", under_test())
}

/// Runs a pasted command in a shell on a runner.
fn paste<S: AnyStore>(scene: &S, runner: &Runner, command: &str) -> Command {
    let mut shell = scene.command(runner, "sh");
    shell.args(["-c", command]);
    shell.env_remove("AUTHFERRY_STORE");
    shell
}

/// Asserts that a job on another machine runs Codex without a refresh.
#[track_caller]
fn assert_next_job_works<S: AnyStore>(scene: &S) {
    let before = scene.stub().count(What::is_refresh);
    let runner = scene.runner();
    let mut run = scene.authferry(&runner, &["run", "--", "codex"]);
    assert_code(&finish(run.args(EXEC)), 0);
    assert_eq!(scene.stub().count(What::is_refresh), before);
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|part| part == text.as_bytes())
}
