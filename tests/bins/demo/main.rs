//! The main scenario with the real Codex: a login on ephemeral machines.
//!
//! `cargo demo` needs no account and no server: the logins are made up, and a stub on loopback acts as
//! the provider. Every printed fact is measured and checked: the exit code is 0 only if all of them
//! hold.

mod check;
mod job;
mod page;
mod stage;

use std::{env, fs, path::Path, process::ExitCode};

use rig::{ACCESS_LIFETIME, Codex, Login, Runner, Stub, What};
use time::{Duration, OffsetDateTime};

use crate::{
    check::{ended, no_login, require},
    page::{line, row},
    stage::{AUTHFERRY, Stage},
};

/// The remaining lifetime of the access tokens: Codex rotates a login with less than 5 minutes left.
const REMAINING: Duration = Duration::minutes(3);

/// A result, or the reason why the demo failed.
type DemoResult<T = ()> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    // A machine starts this file under the product's name, which runs the product.
    let called = env::args_os().next().unwrap_or_default();
    if Path::new(&called).file_name() == Some(AUTHFERRY.as_ref()) {
        return authferry::main();
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            line(&format!("\nDemo failed: {why}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> DemoResult {
    line("A ChatGPT login of Codex on ephemeral machines: with authferry, and without it");
    row("codex", &format!("{} from npm, unmodified", rig::V0_169));
    let codex = page::with_notice(
        || Codex::install(rig::V0_169),
        || row("", "installing it once: 10 to 60 seconds"),
    )?;
    let login = |account| {
        let issued = OffsetDateTime::now_utc() + REMAINING - ACCESS_LIFETIME;
        Login::new(account, 1, issued, ACCESS_LIFETIME)
    };
    let (carried, copied) = (login("account-1"), login("account-2"));
    let stub = Stub::start(&carried);
    stub.sign_in(&copied);
    let stage = Stage::new(codex, stub)?;
    row(
        "provider",
        "a stub on loopback: a refresh token works once, an access token until the next rotation",
    );
    row(
        "logins",
        "made up; they expire in 3 minutes, so the first Codex rotates them",
    );
    row("machines", "a new home for each, deleted after its run");

    with_authferry(&stage, &carried)
        .and_then(|()| without_authferry(&stage, &copied))
        .map_err(|why| format!("{why}\nLogs and store: {}", stage.folder()))?;

    line("\nResult: with authferry, the second machine used the login that the first one rotated;");
    line("without it, that login was lost with the first machine, and the second one had none.");
    Ok(())
}

/// Two machines in sequence, with a store.
fn with_authferry(stage: &Stage, login: &Login) -> DemoResult {
    stage.seed(login)?;
    let seeded = stage.status()?;
    let first = stage.stored()?;
    require(
        first == login.auth_json().as_bytes(),
        "the store holds the file",
    )?;
    require(seeded.generation == Some(1), "a seed is generation 1")?;
    let folder = stage.folder();
    row(
        "store",
        &format!("{folder}/login.json, filled by `authferry seed`:"),
    );
    row("", &seeded.to_string());

    let serial = stage.on_a_machine(|machine| {
        let mut run = stage.with_authferry(machine);
        page::heading(1, &run);
        no_login("before", machine)?;
        let job = stage.watch(machine, &mut run, &first)?;
        ended(&job, 0)?;
        let (rotated, serial) = job.rotation()?;
        let [home, store] = [job.in_home, job.in_store]
            .map(|seen| seen.map(|seen| (seen - rotated).whole_milliseconds()));
        let home = home.ok_or("the new login was not seen in the home")?;
        let store = store.ok_or("the new login was not seen in the store")?;
        let ended_after = (job.ended - rotated).whole_milliseconds();
        row(
            "provider",
            &format!(
                "rotated the login; after {home} ms it was in the home, after {store} ms in the \
                 store, and after {ended_after} ms the run ended"
            ),
        );
        row("authferry", &stage.summary(&job)?);
        no_login("after", machine)?;
        Ok(serial)
    })?;
    let held = stage.status()?;
    let second = stage.stored()?;
    let is_changed = held.fingerprint != seeded.fingerprint && held.version != seeded.version;
    require(
        stage.stub.is_live(&second),
        "the store holds the live login",
    )?;
    require(is_changed, "the store has another login and version")?;
    require(
        held.generation == Some(2),
        "what Codex wrote is generation 2",
    )?;
    row("store", &held.to_string());

    stage.on_a_machine(|machine| {
        let mut run = stage.with_authferry(machine);
        page::heading(2, &run);
        no_login("before", machine)?;
        let job = stage.watch(machine, &mut run, &second)?;
        ended(&job, 0)?;
        let accepted = What::Model {
            serial: Some(serial),
            status: 200,
        };
        require(
            job.sent(|what| *what == accepted),
            "the provider accepted the new access token",
        )?;
        require(
            !job.sent(What::is_refresh),
            "the login was not rotated again",
        )?;
        row(
            "provider",
            "accepted the new access token, and got no refresh request",
        );
        row("authferry", &stage.summary(&job)?);
        no_login("after", machine)
    })?;
    let untouched = stage.status()? == held && stage.stored()? == second;
    require(untouched, "the second run did not change the store")?;
    row("store", "unchanged: no rotation, so no write");
    Ok(())
}

/// Two machines in sequence, each with a copy of the same file.
fn without_authferry(stage: &Stage, login: &Login) -> DemoResult {
    line("\nWithout authferry: each machine gets a copy of the same file, as from a CI secret");
    let copy = login.auth_json();
    let name = stage.fingerprint(copy.as_bytes())?;
    let copied = |number, machine: &Runner| {
        let mut exec = Stage::codex_only(machine);
        page::heading(number, &exec);
        machine.place(&copy)?;
        row("before", &format!("auth.json with login {name}"));
        stage.watch(machine, &mut exec, copy.as_bytes())
    };

    stage.on_a_machine(|machine| {
        let job = copied(3, machine)?;
        ended(&job, 0)?;
        job.rotation()?;
        row("provider", "rotated the login");
        let left = fs::read(machine.auth_file())?;
        require(stage.stub.is_live(&left), "the home holds the live login")?;
        let name = stage.fingerprint(&left)?;
        row(
            "after",
            &format!("auth.json with login {name}, which is deleted with the machine"),
        );
        Ok(())
    })?;

    stage.on_a_machine(|machine| {
        let job = copied(4, machine)?;
        ended(&job, 1)?;
        require(job.was_refused(), "the provider refused the refresh token")?;
        row(
            "provider",
            "refresh_token_reused: the token was spent on machine 3",
        );
        let error = job.output.lines().find(|line| line.starts_with("ERROR: "));
        let error = error.ok_or("Codex printed no error")?;
        require(
            error.contains("refresh token was already used"),
            "Codex printed the cause",
        )?;
        row("codex", error);
        let left = fs::read(machine.auth_file())?;
        require(left == copy.as_bytes(), "the file is unchanged")?;
        row("after", &format!("auth.json with login {name}, as before"));
        Ok(())
    })
}
