//! The main job, played with the real Codex: a login on machines that forget everything.
//!
//! `cargo demo` needs no account and no server: the logins are made up, and a stub on
//! loopback takes the provider's part. Whatever is told was measured or looked up just
//! then, and is checked: the exit code is 0 only if all of it is so.

mod check;
mod job;
mod page;
mod stage;

use std::{env, fs, path::Path, process::ExitCode};

use rig::{ACCESS_LIFETIME, Codex, Login, Runner, Stub, What};
use time::{Duration, OffsetDateTime};

use crate::{
    check::{claim, ended, no_login},
    page::{line, row},
    stage::{AUTHFERRY, Stage},
};

/// What the access tokens have still to live: Codex rotates a login that has less than five
/// minutes left.
const LEFT: Duration = Duration::minutes(3);

/// What was found, or why the story cannot be told.
type Told<T = ()> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    // A machine starts this very file under the product's name, and gets the product.
    let called = env::args_os().next().unwrap_or_default();
    if Path::new(&called).file_name() == Some(AUTHFERRY.as_ref()) {
        return authferry::main();
    }
    match story() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            line(&format!("\nNot shown: {why}"));
            ExitCode::FAILURE
        }
    }
}

fn story() -> Told {
    line("A ChatGPT login of Codex on throw-away machines: with authferry, and without it");
    row("codex", &format!("{} as it is, from npm", rig::V0_169));
    let codex = page::meanwhile(
        || Codex::install(rig::V0_169),
        || row("", "it is installed now, this once: 10 to 60 seconds"),
    )?;
    let login = |account| {
        let issued = OffsetDateTime::now_utc() + LEFT - ACCESS_LIFETIME;
        Login::new(account, 1, issued, ACCESS_LIFETIME)
    };
    let (carried, copied) = (login("account-1"), login("account-2"));
    let stub = Stub::start(&carried);
    stub.sign_in(&copied);
    let stage = Stage::set(codex, stub)?;
    row(
        "provider",
        "a stub on loopback: a refresh token works once, an access token until the next is given",
    );
    row(
        "logins",
        "made up; with 3 minutes to go, so that the first Codex that gets one rotates it",
    );
    row("machines", "a new home for each, deleted after its run");

    with_authferry(&stage, &carried)
        .and_then(|()| without(&stage, &copied))
        .map_err(|why| format!("{why}\nWhat there is to look at: {}", stage.folder()))?;

    line("\nShown: with authferry the second machine went on with what the first one had got;");
    line("without it that was gone with the first machine, and the second one could not log in.");
    Ok(())
}

/// Two machines, one after the other, and a store.
fn with_authferry(stage: &Stage, login: &Login) -> Told {
    stage.seed(login)?;
    let seeded = stage.status()?;
    let first = stage.stored()?;
    claim(
        first == login.auth_json().as_bytes(),
        "the store holds the file",
    )?;
    claim(seeded.generation == Some(1), "a seed is generation 1")?;
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
        let over = (job.over - rotated).whole_milliseconds();
        row(
            "provider",
            &format!(
                "gave a new login for the old one; after {home} ms it was in the home, after {store} ms \
                 in the store, and after {over} ms the run was over"
            ),
        );
        row("authferry", &stage.told(&job)?);
        no_login("after", machine)?;
        Ok(serial)
    })?;
    let held = stage.status()?;
    let second = stage.stored()?;
    let other = held.fingerprint != seeded.fingerprint && held.version != seeded.version;
    claim(
        stage.stub.is_live(&second),
        "the store holds the live login",
    )?;
    claim(other, "login and version in the store are others now")?;
    claim(
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
        let taken = What::Model {
            serial: Some(serial),
            status: 200,
        };
        claim(
            job.did(|what| *what == taken),
            "the new access token was taken",
        )?;
        claim(
            !job.did(What::is_refresh),
            "the login was not rotated again",
        )?;
        row(
            "provider",
            "took the new access token, and was asked for no other",
        );
        row("authferry", &stage.told(&job)?);
        no_login("after", machine)
    })?;
    let untouched = stage.status()? == held && stage.stored()? == second;
    claim(untouched, "the second run left the store alone")?;
    row(
        "store",
        "as it was: nothing was rotated, so nothing was written",
    );
    Ok(())
}

/// Two machines, one after the other, each with a copy of one file.
fn without(stage: &Stage, login: &Login) -> Told {
    line("\nThe same without authferry: each machine gets a copy of one file, as from a CI secret");
    let copy = login.auth_json();
    let name = stage.fingerprint(copy.as_bytes())?;
    let copied = |number, machine: &Runner| {
        let mut exec = Stage::alone(machine);
        page::heading(number, &exec);
        machine.place(&copy)?;
        row("before", &format!("auth.json with login {name}"));
        stage.watch(machine, &mut exec, copy.as_bytes())
    };

    stage.on_a_machine(|machine| {
        let job = copied(3, machine)?;
        ended(&job, 0)?;
        job.rotation()?;
        row("provider", "gave a new login for the old one");
        let left = fs::read(machine.auth_file())?;
        claim(stage.stub.is_live(&left), "the home holds the live login")?;
        let name = stage.fingerprint(&left)?;
        row(
            "after",
            &format!("auth.json with login {name}, which goes with the machine"),
        );
        Ok(())
    })?;

    stage.on_a_machine(|machine| {
        let job = copied(4, machine)?;
        ended(&job, 1)?;
        claim(job.was_refused(), "the provider refused the refresh token")?;
        row(
            "provider",
            "refresh_token_reused: it was spent on machine 3",
        );
        let error = job.said.lines().find(|line| line.starts_with("ERROR: "));
        let error = error.ok_or("Codex did not say what is wrong")?;
        claim(
            error.contains("refresh token was already used"),
            "Codex said what is wrong",
        )?;
        row("codex", error);
        let left = fs::read(machine.auth_file())?;
        claim(left == copy.as_bytes(), "the file is as it was")?;
        row("after", &format!("auth.json with login {name}, as before"));
        Ok(())
    })
}
