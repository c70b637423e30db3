//! Exit 120 where no folder stays: the machine goes away, and another one brings the login back.

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

/// From age's own tests: everybody knows this key.
const IDENTITY: &str = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";
const RECIPIENT: &str = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";

#[test]
fn an_encrypted_file_comes_back_on_another_machine() {
    let ferry = Ferry::holding(V0_169, &Login::stale());
    let going = ferry.runner();
    let rotated = rotated_by_codex(&ferry, &going);
    let persist = persist_in_vain(&ferry, &going, &[("AUTHFERRY_RESCUE_RECIPIENT", RECIPIENT)]);
    assert_code(&persist, 120);
    assert_silent(&persist, &[&rotated]);
    let rescue = going.root().join("home/.local/state/authferry/rescue");
    let [name] = &names(&rescue)[..] else {
        panic!("{:?}", names(&rescue));
    };
    assert!(name.ends_with(".json.age"), "{name}");
    // A later step of the job uploads it, and the machine goes.
    let artifact = fs::read(rescue.join(name)).expect("a file");
    fs::remove_file(going.auth_file()).expect("left there");
    let secrets = secrets_in(std::str::from_utf8(&rotated).expect("JSON"));
    for (path, bytes) in files(going.root()) {
        let clear = secrets.iter().find(|secret| holds(&bytes, secret));
        assert_eq!(clear, None, "{path} is in the clear");
    }
    drop(going);

    let another = ferry.runner();
    let key = another.work().join("key");
    fs::write(&key, format!("{IDENTITY}\n")).expect("room");
    fs::write(another.work().join(name), artifact).expect("room");
    let pasted = hint(&persist).replace("KEY", &key.display().to_string());
    let put = finish(&mut paste(&ferry, &another, &pasted));
    assert_code(&put, 0);
    assert_silent(&put, &[&rotated]);
    assert_eq!(ferry.stored(), rotated, "byte for byte");
    assert!(ferry.is_live());
    goes_on(&ferry);
}

#[test]
fn a_login_in_a_second_store_comes_back_on_another_machine() {
    let ferry = Ferry::holding(V0_169, &Login::stale());
    let second = Second::new();
    let going = ferry.runner();
    let rotated = rotated_by_codex(&ferry, &going);
    let persist = persist_in_vain(&ferry, &going, &[second.variable()]);
    assert_code(&persist, 120);
    assert_silent(&persist, &[&rotated]);
    assert!(
        !going
            .root()
            .join("home/.local/state/authferry/rescue")
            .exists()
    );
    drop(going);

    assert_eq!(second.copies(), [&*rotated]);
    let another = ferry.runner();
    let put = finish(&mut paste(&ferry, &another, &hint(&persist)));
    assert_code(&put, 0);
    assert_silent(&put, &[&rotated]);
    assert_eq!(ferry.stored(), rotated, "byte for byte");
    assert!(ferry.is_live());
    assert!(!second.copies().contains(&rotated), "the copy is removed");
    goes_on(&ferry);
}

#[test]
fn two_machines_that_go_leave_both_logins_in_the_second_store() {
    let first = Login::fresh();
    let ferry = Ferry::holding(V0_169, &first);
    let second = Second::new();
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
        runner.place(&next.auth_json()).expect("room");
        let persist = persist_in_vain(&ferry, &runner, &[second.variable()]);
        assert_code(&persist, 120);
        written.push(next.auth_json().into_bytes());
    }
    assert_eq!(second.copies(), written);
}

#[cfg(feature = "vault")]
mod vault {
    use super::*;
    use crate::vault::site::{Identity, Site};

    /// The login is on a host that is in trouble, and the second store is OpenBao.
    #[test]
    fn a_login_in_a_second_store_on_a_server_comes_back() {
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

        let going = ferry.runner();
        let rotated = rotated_by_codex(&ferry, &going);
        let persist = persist_in_vain(&ferry, &going, &variables);
        assert_code(&persist, 120);
        assert_silent(&persist, &[&rotated]);
        drop(going);

        let another = ferry.runner();
        let mut put = paste(&ferry, &another, &hint(&persist));
        let put = finish(put.envs(variables.iter().copied()));
        assert_code(&put, 0);
        assert_eq!(ferry.stored(), rotated, "byte for byte");
        assert!(ferry.is_live());

        // What opens the second store is not the command's.
        let runner = ferry.runner();
        let job = script(&runner, "env >seen");
        let mut run = ferry.authferry(&runner, &["run", "--no-rotate-first", "--"]);
        let run = finish(run.arg(job).envs(variables.iter().copied()));
        assert_code(&run, 0);
        let seen = fs::read_to_string(runner.work().join("seen")).expect("written");
        assert!(seen.contains("VAULT_ADDR="), "{seen}");
        assert!(!seen.contains(&token), "{seen}");
    }

    /// The other way round, and the next job puts it there by itself.
    #[test]
    fn the_next_job_on_another_machine_adopts_what_is_in_the_second_store() {
        let site = <Site as AnyStore>::holding(V0_169, &Login::stale());
        let second = Second::new();
        let going = AnyStore::runner(&site);
        let rotated = rotated_by_codex(&site, &going);
        let persist = persist_in_vain(&site, &going, &[second.variable()]);
        assert_code(&persist, 120);
        drop(going);

        let runner = AnyStore::runner(&site);
        let mut run = AnyStore::authferry(&site, &runner, &["run", "--", "codex"]);
        let run = finish(run.args(EXEC).envs([second.variable()]));
        assert_code(&run, 0);
        assert_eq!(site.stored(), rotated, "byte for byte");
        assert_eq!(site.stub.count(What::is_refresh), 1, "{run:?}");
        assert_eq!(site.tokens(Identity::GitHub), 0);
    }
}

/// A second store on a volume that all machines have.
struct Second {
    folder: TempDir,
    address: String,
}

impl Second {
    fn new() -> Self {
        let folder = TempDir::with_prefix("second-").expect("a temporary folder");
        let address = format!("file://{}/rescued.json", folder.path().display());
        Self { folder, address }
    }

    fn variable(&self) -> (&str, &str) {
        ("AUTHFERRY_RESCUE_STORE", &self.address)
    }

    /// The logins that it holds.
    fn copies(&self) -> Vec<Vec<u8>> {
        let text = fs::read(self.folder.path().join("rescued.json")).expect("a document");
        let document: Value = serde_json::from_slice(&text).expect("JSON");
        let copies = document["copies"].as_array().expect("a list").iter();
        let logins = copies.map(|copy| STANDARD.decode(copy["login"].as_str().expect("a text")));
        logins.collect::<Result<_, _>>().expect("base64")
    }
}

/// Codex rotates the login between `restore` and `persist`; returns what it wrote.
#[track_caller]
fn rotated_by_codex<S: AnyStore>(scene: &S, runner: &Runner) -> Vec<u8> {
    let restore = &["restore", "--no-watch", "--no-rotate-first"];
    assert_code(&finish(&mut scene.authferry(runner, restore)), 0);
    assert_code(&finish(&mut runner.exec()), 0);
    let rotated = fs::read(runner.auth_file()).expect("an auth file");
    assert!(!scene.is_live());
    rotated
}

/// `authferry persist` while the store is out of reach.
fn persist_in_vain<S: AnyStore>(scene: &S, runner: &Runner, more: &[(&str, &str)]) -> Output {
    let mut persist = scene.authferry(runner, &["persist", "--patience", "5s"]);
    let _out_of_reach = scene.cut_off(&mut persist);
    finish(persist.envs(more.iter().copied()))
}

/// The command that is to bring the login back.
#[track_caller]
fn hint(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let (_, command) = said.split_once("`authferry ").expect("a command");
    let (command, _) = command.split_once('`').expect("its end");
    format!("{} {command}", under_test())
}

/// A command that a person types on a runner.
fn paste<S: AnyStore>(scene: &S, runner: &Runner, command: &str) -> Command {
    let mut shell = scene.command(runner, "sh");
    shell.args(["-c", command]);
    shell.env_remove("AUTHFERRY_STORE");
    shell
}

/// A job on one more machine runs Codex without a refresh.
#[track_caller]
fn goes_on<S: AnyStore>(scene: &S) {
    let before = scene.stub().count(What::is_refresh);
    let runner = scene.runner();
    let mut run = scene.authferry(&runner, &["run", "--", "codex"]);
    assert_code(&finish(run.args(EXEC)), 0);
    assert_eq!(scene.stub().count(What::is_refresh), before);
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|part| part == text.as_bytes())
}
