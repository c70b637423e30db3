//! The setup of a case: named steps.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::symlink,
    process::Command,
};

use serde_json::Value;

use crate::{
    logins::content,
    stage::{Mounts, Stage, can_mount, set_mode},
};

/// Runs a step with the argument after its name.
type Step = fn(&mut Stage<'_>, &str) -> io::Result<()>;

/// The steps, by name.
pub(crate) const SCENES: &[(&str, Step)] = &[
    ("seeded", |at, login| authferry(at, &["seed", login])),
    ("reseeded", |at, it| {
        authferry(at, &["seed", "--replace", it])
    }),
    ("rotated", |at, login| program(at, &["other-job", login])),
    ("found-dead", |at, _| program(at, &["sh", "-c", FIND_DEAD])),
    ("found-refused", |at, _| {
        program(at, &["sh", "-c", FIND_REFUSED])
    }),
    ("by-hand", |at, name| at.write(LOGIN, content(name))),
    ("store-emptied", |at, _| fs::remove_file(at.path(LOGIN))),
    ("store-locked", |at, _| lock(at)),
    ("store-full", |at, _| full(at, STORE)),
    ("store-missing", |at, _| fs::remove_dir_all(at.path(STORE))),
    ("store-open", |at, _| chmod(at, LOGIN, 0o644)),
    ("store-sealed", |at, _| chmod(at, LOGIN, 0o000)),
    ("store-linked", |at, _| link(at, LOGIN)),
    ("store-hard-linked", |at, _| hard_link(at, LOGIN)),
    ("store-a-folder", |at, _| fs::create_dir(at.path(LOGIN))),
    ("store-folder-open", |at, _| chmod(at, STORE, 0o777)),
    ("store-folder-read-only", |at, _| chmod(at, STORE, 0o500)),
    ("restored", |at, _| {
        authferry(at, &["restore", "--no-watch"])
    }),
    ("restored-by-a-job-that-is-over", |at, _| {
        let script = "CI_JOB_ID=over authferry restore --no-watch --no-rotate-first; :";
        program(at, &["sh", "-c", script])
    }),
    ("access-only", |at, _| {
        authferry(at, &["restore", "--access-only"])
    }),
    ("persisted", |at, _| authferry(at, &["persist"])),
    ("auth-file", |at, name| at.write(AUTH_FILE, content(name))),
    ("auth-file-gone", |at, _| {
        fs::remove_file(at.path(AUTH_FILE))
    }),
    ("auth-file-read-only", |at, _| chmod(at, AUTH_FILE, 0o400)),
    ("auth-file-sealed", |at, _| chmod(at, AUTH_FILE, 0o200)),
    ("auth-file-linked", |at, _| link(at, AUTH_FILE)),
    ("auth-file-hard-linked", |at, _| hard_link(at, AUTH_FILE)),
    ("auth-file-mounted", |at, _| mount(at, MOUNTED_FILE)),
    ("auth-file-a-folder", |at, _| {
        fs::create_dir(at.path(AUTH_FILE))
    }),
    ("home-full", |at, _| full(at, HOME)),
    ("home-open", |at, _| chmod(at, HOME, 0o755)),
    ("home-writable", |at, _| chmod(at, HOME, 0o777)),
    ("home-read-only", |at, _| chmod(at, HOME, 0o500)),
    ("home-in-work-tree", |at, _| {
        fs::create_dir(at.path("[TEMP]/.git"))
    }),
    ("rescued", |at, name| {
        at.write(&format!("{RESCUE}/{name}.json"), content(name))
    }),
    ("not-persisted", |at, login| {
        program(at, &["job-without-persist", login])
    }),
    ("not-persisted-elsewhere", |at, login| {
        in_another_store(at, "undated", login)
    }),
    ("not-persisted-under-another-address", |at, login| {
        in_another_store(at, "login-1", login)
    }),
    ("not-persisted-encrypted", |at, login| {
        let script = format!("{WITH_A_RECIPIENT} job-without-persist {login}");
        program(at, &["sh", "-c", &script])
    }),
    ("not-persisted-in-second-store", |at, login| {
        fs::create_dir_all(at.path(SECOND))?;
        chmod(at, SECOND, 0o700)?;
        at.set_owner()?;
        let script = format!("{WITH_A_SECOND_STORE} job-without-persist {login}");
        program(at, &["sh", "-c", &at.fill(&script)])
    }),
    ("second-store", |at, _| {
        fs::create_dir(at.path(SECOND))?;
        chmod(at, SECOND, 0o700)
    }),
    ("second-store-by-hand", |at, name| {
        at.write(&format!("{SECOND}/login.json"), content(name))
    }),
    ("second-store-read-only", |at, _| chmod(at, SECOND, 0o500)),
    ("second-store-linked", |at, _| {
        symlink(at.path(STORE), at.path(SECOND))
    }),
    ("identity", |at, _| at.write("key", IDENTITY.as_bytes())),
    ("encrypted-moved", |at, name| {
        fs::rename(
            at.path(&format!("{RESCUE}/{name}.json.age")),
            at.path(&format!("{name}.json.age")),
        )
    }),
    ("rotation-killed", |at, login| {
        program(at, &["killed-rotation", login])
    }),
    ("rescue-open", |at, _| {
        fs::create_dir_all(at.path(RESCUE))?;
        chmod(at, RESCUE, 0o755)
    }),
    ("rescue-read-only", |at, _| {
        fs::create_dir_all(at.path(RESCUE))?;
        chmod(at, RESCUE, 0o500)
    }),
    ("rescue-impossible", |at, _| {
        fs::remove_dir_all(at.path(ABOVE_RESCUE)).ok();
        at.write(ABOVE_RESCUE, b"")
    }),
];

const FIND_DEAD: &str = "authferry refresh --codex codex-of-the-dead; test $? = 125";

const FIND_REFUSED: &str = "authferry refresh --codex codex-of-the-refused; test $? = 125";

const IN_ANOTHER_STORE: &str = "export AUTHFERRY_STORE=file://[TEMP]/other-store/login.json;";

const WITH_A_RECIPIENT: &str = "export AUTHFERRY_RESCUE_RECIPIENT=\
    age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa;";

const WITH_A_SECOND_STORE: &str = "export AUTHFERRY_RESCUE_STORE=file://[SECOND]/login.json;";

/// The published identity of the recipient, from age's own tests.
const IDENTITY: &str = "# made up\n\
    AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33\n";

const SECOND: &str = "[SECOND]";
const STORE: &str = "[STORE]";
const LOGIN: &str = "[STORE]/login.json";
const HOME: &str = "[HOME]";
const AUTH_FILE: &str = "[HOME]/auth.json";
const RESCUE: &str = "[RESCUE]";
const ABOVE_RESCUE: &str = "[USER]/.local/state/authferry";

const MOUNTED_FILE: [&str; 2] = [
    "cp -a [HOME]/auth.json [TEMP]/aside
mount --bind [TEMP]/aside [HOME]/auth.json",
    "",
];

/// A file system of one page, filled by the existing login. Its content is copied back after the run.
const FULL_FOLDER: [&str; 2] = [
    "cp -a [FULL] [TEMP]/aside
mount -t tmpfs -o mode=0700,size=$(getconf PAGESIZE) none [FULL]
cp -a [TEMP]/aside/. [FULL]",
    "rm -r [TEMP]/aside
cp -a [FULL] [TEMP]/aside
umount [FULL]
rm -r [FULL]
mv [TEMP]/aside [FULL]",
];

/// Runs a setup step: a name and an argument.
pub(crate) fn play(stage: &mut Stage<'_>, scene: &str) -> io::Result<()> {
    let (name, argument) = scene.split_once(' ').unwrap_or((scene, ""));
    let known = SCENES.iter().find(|(known, _)| *known == name);
    let (_, step) = known.ok_or_else(|| io::Error::other("unknown setup step"))?;
    step(stage, argument)?;
    stage.set_owner()
}

/// Gives all rescue records the time of the first one: they are listed by time, in seconds, and a
/// setup may take longer than a second.
pub(crate) fn level_rescue_times(stage: &Stage<'_>) -> io::Result<()> {
    let mut time = None;
    for entry in fs::read_dir(stage.path(RESCUE)).into_iter().flatten() {
        let path = entry?.path();
        if path.extension().is_none_or(|end| end != "record") {
            continue;
        }
        let Ok(mut record) = serde_json::from_slice::<Value>(&fs::read(&path)?) else {
            continue;
        };
        if let Some(own) = record.get_mut("time") {
            *own = time.get_or_insert_with(|| own.clone()).clone();
            fs::write(&path, record.to_string())?;
        }
    }
    Ok(())
}

fn authferry(stage: &Stage<'_>, arguments: &[&str]) -> io::Result<()> {
    program(stage, &[&["authferry"], arguments].concat())
}

/// Runs a program in the folder of the logins, and fails unless it succeeds.
fn program(stage: &Stage<'_>, line: &[&str]) -> io::Result<()> {
    let line: Vec<_> = line.iter().map(|&word| word.to_owned()).collect();
    let output = stage.run(&line, |command: &mut Command| {
        command
            .current_dir(stage.path("[LOGINS]"))
            .env("CI_JOB_URL", "https://ci.example/jobs/1");
    });
    if output.status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!("{output:?}")))
    }
}

/// Seeds a store at another address, and lets a job of that store rescue the next login.
fn in_another_store(at: &mut Stage<'_>, seed: &str, next: &str) -> io::Result<()> {
    at.write("[TEMP]/other-store/.here", b"")?;
    at.set_owner()?;
    let script = format!("{IN_ANOTHER_STORE} authferry seed {seed} && job-without-persist {next}");
    program(at, &["sh", "-c", &at.fill(&script)])
}

fn chmod(stage: &Stage<'_>, path: &str, mode: u32) -> io::Result<()> {
    set_mode(&stage.path(path), mode)
}

fn lock(stage: &mut Stage<'_>) -> io::Result<()> {
    stage.write("[STORE]/login.json.lock", b"")?;
    let lock = File::open(stage.path("[STORE]/login.json.lock"))?;
    lock.lock()?;
    stage.lock = Some(lock);
    Ok(())
}

/// Fails with `Unsupported` if this machine cannot mount.
fn mount(stage: &mut Stage<'_>, script: [&str; 2]) -> io::Result<()> {
    if !can_mount() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let [before, after] = script.map(str::to_owned);
    stage.mounts = Some(Mounts { before, after });
    Ok(())
}

fn full(stage: &mut Stage<'_>, folder: &str) -> io::Result<()> {
    let script = FULL_FOLDER.map(|part| part.replace("[FULL]", folder));
    mount(stage, [&script[0], &script[1]])
}

/// Moves a file and leaves a symbolic link to it.
fn link(stage: &Stage<'_>, file: &str) -> io::Result<()> {
    let elsewhere = stage.path("elsewhere.json");
    fs::rename(stage.path(file), &elsewhere)?;
    symlink(elsewhere, stage.path(file))
}

fn hard_link(stage: &Stage<'_>, file: &str) -> io::Result<()> {
    fs::hard_link(stage.path(file), stage.path("elsewhere.json"))
}
