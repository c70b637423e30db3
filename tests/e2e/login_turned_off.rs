//! Variables and settings that make Codex ignore or delete the login: a job is refused before a
//! token is spent and before the login is placed.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use rig::{EXEC, Login, Runner, What, finish};
use serde_json::Value;

use crate::{
    any_store::{AnyStore, on_each_version},
    doctor::check,
    ferry::{Ferry, assert_code, assert_silent, names, script},
};

const EPHEMERAL: &str = "cli_auth_credentials_store = \"ephemeral\"\n";
const FILE: &str = "cli_auth_credentials_store = \"file\"\n";
const API: &str = "forced_login_method = \"api\"\n";
const OTHER_WORKSPACE: &str = "forced_chatgpt_workspace_id = [\"another\"]\n";

on_each_version![
    V0_145 V0_171:
    a_setting_that_turns_the_login_off_is_refused,
    settings_that_turn_the_login_off_do_so,
    an_option_can_turn_the_login_on_again,
    a_program_that_hides_the_login_is_refused,
    a_refresh_does_not_pass_variables_on,
];

#[test]
fn a_variable_that_turns_the_login_off_is_refused() {
    let stale = Login::stale();
    let ferry = Ferry::holding(rig::V0_171, &stale);
    let before = ferry.folder();
    for variable in [
        "OPENAI_IDENTITY_TOKEN_SOURCE",
        "OPENAI_SPIFFE_ID",
        "OPENAI_SPIFFE_AUDIENCE",
        "OPENAI_FEDERATION_NEXT",
    ] {
        // 0.171.0 does not run even if the variable is empty.
        for value in ["made-up", ""] {
            let runner = ferry.runner();
            let mut run = ferry.authferry(&runner, &["run", "--", "true"]);
            let run = finish(run.env(variable, value));
            assert_refused(&ferry, &runner, &run, &format!("while {variable} is set"));
            let mut doctor = ferry.authferry(&runner, &["doctor", "--json"]);
            let doctor = finish(doctor.env(variable, value));
            assert_code(&doctor, 124);
        }
    }
    assert_eq!(ferry.folder(), before);
}

fn a_setting_that_turns_the_login_off_is_refused(version: &str) {
    let stale = Login::stale();
    let ferry = Ferry::holding(version, &stale);
    let before = ferry.folder();
    for setting in [EPHEMERAL, API, OTHER_WORKSPACE] {
        let name = setting.split(' ').next().expect("a name");
        let line = |text: &str| {
            text.lines()
                .position(|it| it.starts_with(name))
                .map(|at| at + 1)
        };

        // The home.
        let runner = ferry.runner();
        let config = runner.codex_home().join("config.toml");
        let text = format!("# a comment\n{setting}{}", without_store(&config));
        fs::write(&config, &text).expect("disk space");
        let place = format!(
            "{} (line {})",
            config.display(),
            line(&text).expect("a line")
        );
        let run = finish(&mut job(&ferry, &runner, &[]));
        assert_refused(&ferry, &runner, &run, &place);
        let doctor = finish(&mut ferry.authferry(&runner, &["doctor"]));
        assert_code(&doctor, 124);
        assert!(said(&doctor).contains(&place), "{doctor:?}");

        // A profile.
        let runner = ferry.runner();
        let profile = runner.codex_home().join("ci.config.toml");
        fs::write(&profile, setting).expect("disk space");
        let run = finish(&mut job(&ferry, &runner, &["-p", "ci"]));
        let place = format!("{} (line 1)", profile.display());
        assert_refused(&ferry, &runner, &run, &place);

        // The command.
        let runner = ferry.runner();
        let run = finish(&mut job(&ferry, &runner, &["-c", setting.trim()]));
        assert_refused(&ferry, &runner, &run, "`-c` of the command");

        // A trusted project.
        let runner = ferry.runner();
        let project = trusted_project(&runner, setting);
        let run = finish(&mut job(&ferry, &runner, &[]));
        let place = format!("{} (line 1)", project.display());
        assert_refused(&ferry, &runner, &run, &place);
        let doctor = finish(&mut ferry.authferry(&runner, &["doctor"]));
        assert_code(&doctor, 124);
        assert!(said(&doctor).contains(&place), "{doctor:?}");

        // The machine.
        let files = ["config.toml", "managed_config.toml", "requirements.toml"];
        // What requirements.toml forces has no effect.
        let files = &files[..if setting == EPHEMERAL { 3 } else { 2 }];
        for file in files {
            let runner = ferry.runner();
            let config = runner.codex_home().join("config.toml");
            fs::write(&config, without_store(&config)).expect("disk space");
            let Some(unshare) = with_machine_settings(&runner, &[(file, setting)]) else {
                continue;
            };
            let run = finish(&mut inside(unshare, &job(&ferry, &runner, &[])));
            let place = format!("/etc/codex/{file} (line 1)");
            assert_refused(&ferry, &runner, &run, &place);
        }
    }
    assert_eq!(ferry.folder(), before);
}

/// The refusals above are no false alarms: without authferry, Codex does not use such a login.
fn settings_that_turn_the_login_off_do_so(version: &str) {
    let fresh = Login::fresh();
    let ferry = Ferry::holding(version, &fresh);
    for setting in [EPHEMERAL, API, OTHER_WORKSPACE] {
        let runner = ferry.runner();
        runner.place(&fresh.auth_json()).expect("disk space");
        trusted_project(&runner, setting);
        let config = runner.codex_home().join("config.toml");
        fs::write(&config, without_store(&config)).expect("disk space");
        let run = finish(&mut runner.exec());
        assert_code(&run, 1);
        assert_eq!(runner.auth_file().exists(), setting == EPHEMERAL, "{run:?}");
    }
    let accepted = |what: &What| matches!(what, What::Model { status: 200, .. });
    assert_eq!(ferry.stub.count(accepted), 0);
}

fn an_option_can_turn_the_login_on_again(version: &str) {
    let stale = Login::stale();
    let ferry = Ferry::holding(version, &stale);
    let runner = ferry.runner();
    let config = runner.codex_home().join("config.toml");
    let text = format!("{EPHEMERAL}{}", without_store(&config));
    fs::write(&config, text).expect("disk space");
    let option = ["-c", "cli_auth_credentials_store=\"file\""];
    let run = finish(&mut job(&ferry, &runner, &option));
    assert_code(&run, 0);
    assert_eq!(ferry.stub.count(What::is_rotation), 1);
    assert!(ferry.is_live());
}

/// Codex's own answer is the last check: it knows what authferry cannot see.
fn a_program_that_hides_the_login_is_refused(version: &str) {
    let stale = Login::stale();
    let ferry = Ferry::holding(version, &stale);
    let before = ferry.folder();
    let runner = ferry.runner();
    let shim = "exec \"${0%/*}/../bin/codex\" -c cli_auth_credentials_store=ephemeral \"$@\"";
    let shim = script(&runner, shim);
    let shim = shim.display().to_string();
    let run = ["run", "--codex", &shim, "--", "codex"];
    let run = finish(ferry.authferry(&runner, &run).args(EXEC));
    assert_refused(
        &ferry,
        &runner,
        &run,
        "does not use the login in its auth file",
    );
    let refresh = ["refresh", "--codex", &shim];
    let refresh = finish(&mut ferry.authferry(&runner, &refresh));
    // `-c` of the refresh wins over that of the program.
    assert_code(&refresh, 0);
    assert_ne!(ferry.folder(), before);

    let doctor = ["doctor", "--json", "--codex", &shim];
    let doctor = finish(&mut ferry.authferry(&runner, &doctor));
    assert_code(&doctor, 124);
    let report: Value = serde_json::from_slice(&doctor.stdout).expect("JSON");
    assert_eq!(check(&report, "login in use")["state"], "failed");
    let doctor = finish(&mut ferry.authferry(&runner, &["doctor", "--json"]));
    assert_code(&doctor, 0);
    let report: Value = serde_json::from_slice(&doctor.stdout).expect("JSON");
    assert_eq!(check(&report, "login in use")["state"], "ok");
}

fn a_refresh_does_not_pass_variables_on(version: &str) {
    let ferry = Ferry::holding(version, &Login::stale());
    let runner = ferry.runner();
    let mut refresh = ferry.authferry(&runner, &["refresh"]);
    for variable in [
        "OPENAI_SPIFFE_ID",
        "OPENAI_IDENTITY_TOKEN_SOURCE",
        "CODEX_ACCESS_TOKEN",
    ] {
        refresh.env(variable, "made-up");
    }
    assert_code(&finish(&mut refresh), 0);
    assert_eq!(ferry.stub.count(What::is_rotation), 1);
    assert!(ferry.is_live());
}

/// 0.145.0 does not read requirements.toml for these settings, and 0.171.0 does: Codex's own answer
/// decides before a token is spent.
#[test]
fn codex_decides_where_versions_differ() {
    let settings = [
        ("managed_config.toml", EPHEMERAL),
        ("requirements.toml", FILE),
    ];
    for (version, is_used) in [(rig::V0_145, false), (rig::V0_171, true)] {
        let ferry = Ferry::holding(version, &Login::stale());
        let runner = ferry.runner();
        let Some(unshare) = with_machine_settings(&runner, &settings) else {
            return;
        };
        let run = finish(&mut inside(unshare, &job(&ferry, &runner, &[])));
        if is_used {
            assert_code(&run, 0);
            assert!(ferry.is_live());
        } else {
            assert_refused(&ferry, &runner, &run, "does not use the login");
        }
    }
}

#[test]
fn requirements_without_the_login_are_refused() {
    let ferry = Ferry::holding(rig::V0_171, &Login::stale());
    for (setting, message) in [
        ("allowed_login_methods = [\"api\"]", "allowed_login_methods"),
        (
            "allowed_chatgpt_workspaces = [\"another\"]",
            "allowed_chatgpt_workspaces",
        ),
    ] {
        let runner = ferry.runner();
        let settings = [("requirements.toml", setting)];
        let Some(unshare) = with_machine_settings(&runner, &settings) else {
            return;
        };
        let run = finish(&mut inside(unshare, &job(&ferry, &runner, &[])));
        assert_refused(&ferry, &runner, &run, message);
    }
}

/// Codex itself and `mkdir` make a home that other users can read.
#[test]
fn a_home_that_others_can_read_is_closed() {
    let ferry = Ferry::holding(rig::V0_171, &Login::fresh());
    let runner = ferry.runner();
    let home = runner.codex_home();
    let set = |mode| fs::set_permissions(&home, fs::Permissions::from_mode(mode));
    let mode = || fs::metadata(&home).expect("a home").permissions().mode() & 0o7777;

    set(0o755).expect("our folder");
    let doctor = finish(&mut ferry.authferry(&runner, &["doctor"]));
    assert_code(&doctor, 0);
    assert_eq!(mode(), 0o755, "doctor changed it");
    let run = finish(&mut job(&ferry, &runner, &[]));
    assert_code(&run, 0);
    assert_eq!(mode(), 0o700);
    assert!(said(&run).contains("mode 0700, was 0755"), "{run:?}");

    set(0o777).expect("our folder");
    let run = finish(&mut job(&ferry, &runner, &[]));
    assert_code(&run, 124);
    assert_eq!(mode(), 0o777);
}

/// `authferry run -- codex exec …` with options of Codex.
fn job(ferry: &Ferry, runner: &Runner, options: &[&str]) -> Command {
    let mut command = ferry.authferry(runner, &["run", "--", "codex"]);
    command.arg(EXEC[0]).args(options).args(&EXEC[1..]);
    command
}

/// Asserts that nothing was spent, placed or left behind, and that the message names the cause.
#[track_caller]
fn assert_refused(ferry: &Ferry, runner: &Runner, output: &Output, cause: &str) {
    assert_code(output, 124);
    assert!(said(output).contains(cause), "{cause}: {output:?}");
    assert_eq!(ferry.stub.count(|_| true), 0, "{:?}", ferry.stub.events());
    assert!(!runner.auth_file().exists());
    assert_eq!(names(&runner.root().join("tmp")), [""; 0], "left behind");
    assert_silent(output, &[&ferry.stored()]);
}

fn said(output: &Output) -> String {
    let output = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&output).into_owned()
}

/// The configuration of the rig without the setting that the test sets elsewhere.
fn without_store(config: &Path) -> String {
    fs::read_to_string(config)
        .expect("a file")
        .replace(FILE, "")
}

/// Makes the working directory a project with this setting, which the user trusts.
fn trusted_project(runner: &Runner, setting: &str) -> std::path::PathBuf {
    let work = runner.work();
    let settings = work.join(".codex/config.toml");
    for folder in [".git/refs", ".git/objects", ".codex"] {
        fs::create_dir_all(work.join(folder)).expect("disk space");
    }
    fs::write(work.join(".git/HEAD"), "ref: refs/heads/main\n").expect("disk space");
    fs::write(&settings, setting).expect("disk space");
    let config = runner.codex_home().join("config.toml");
    let trust = format!(
        "[projects.{:?}]\ntrust_level = \"trusted\"\n",
        work.display().to_string()
    );
    let text = format!("{}\n{trust}", without_store(&config));
    fs::write(&config, text).expect("disk space");
    settings
}

/// Returns a program that starts a command on a machine with these files in `/etc/codex`; `None` if
/// the system does not let its users create namespaces.
#[expect(
    clippy::print_stderr,
    reason = "a skipped check must not look like a passed one"
)]
fn with_machine_settings(runner: &Runner, files: &[(&str, &str)]) -> Option<Command> {
    let unshare = || {
        let mut unshare = runner.command("unshare");
        unshare.args(["--user", "--map-root-user", "--mount"]);
        unshare
    };
    if !unshare().arg("true").status().is_ok_and(|it| it.success()) {
        eprintln!("skipped: this system does not let its users create namespaces");
        return None;
    }
    let etc = runner.root().join("etc");
    fs::create_dir_all(etc.join("codex")).expect("disk space");
    for (name, text) in files {
        fs::write(etc.join("codex").join(name), text).expect("disk space");
    }
    let script = "for file in passwd group hosts nsswitch.conf ssl; do
        cp -r /etc/$file \"$0\" 2>/dev/null
        done
        mount --bind \"$0\" /etc && exec \"$@\"";
    let mut unshare = unshare();
    unshare.args(["sh", "-c", script]).arg(etc);
    Some(unshare)
}

/// Starts the command by another program.
fn inside(mut unshare: Command, command: &Command) -> Command {
    unshare.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => unshare.env(name, value),
            None => unshare.env_remove(name),
        };
    }
    unshare
}
