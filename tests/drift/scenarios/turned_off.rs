//! What makes Codex run without its login, which authferry must refuse before a token is spent.

use std::{collections::BTreeSet, error::Error, fs};

use authferry_codex::override_of;
use rig::{EXEC, Login, Runner, Stub, What, finish};

use super::{Length, Scenario, scenario, seen};
use crate::{
    bench::{Bench, Scene, Seen},
    checks::Checks,
    names,
};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario(
        "turned off: by a variable that authferry refuses",
        by_refused_variables,
    )
    .of(Length::Long),
    scenario(
        "turned off: by another variable of the binary",
        by_other_variables,
    )
    .of(Length::Long),
    scenario("turned off: by the home's `config.toml`", by_settings).of(Length::Long),
    scenario(
        "turned off: by a profile, a project or `-c`",
        by_other_places,
    )
    .of(Length::Long),
    scenario("`doctor`: a fresh login", doctor),
];

/// Each of them alone turns the login off in some version.
const REFUSED: [&str; 7] = [
    "CODEX_ACCESS_TOKEN",
    "CODEX_API_KEY",
    "OPENAI_FEDERATION_RULE_ID",
    "OPENAI_IDENTITY_TOKEN_FILE",
    "OPENAI_IDENTITY_TOKEN_SOURCE",
    "OPENAI_SPIFFE_AUDIENCE",
    "OPENAI_SPIFFE_ID",
];

/// The value of a variable under test.
const VALUE: &str = "under-test";

fn by_refused_variables(bench: &Bench, checks: &mut Checks) -> Seen {
    let mut off = Vec::new();
    for variable in REFUSED {
        let scene = Scene::holding(bench, &Login::fresh())?;
        let runner = scene.runner()?;
        let mut run = scene.authferry(&runner, &["run", "--", "true"]);
        let act = scene.result(&runner, &finish(run.env(variable, VALUE)));
        checks.ended(&act, 124, "refused");
        checks.holds("the message names the variable", act.says(variable));
        checks.equal("requests", scene.stub.events().len(), 0);
        checks.holds("the store is as it was", scene.is_as_seeded());
        if !uses_the_login(bench, &[variable])? {
            off.push(variable);
        }
    }
    seen(&format!("{} of {}", off.len(), REFUSED.len()))
}

/// Sets every variable with a name about logins at once, and halves their number while the model
/// does not get the login.
fn by_other_variables(bench: &Bench, checks: &mut Checks) -> Seen {
    let found = names::in_binary(&bench.codex)?;
    let others = found.iter().map(String::as_str);
    let others = others.filter(|it| names::is_about_logins(it) && override_of(it).is_none());
    // The runner needs the addresses to reach the stub.
    let others = others.filter(|it| !it.contains("URL") && !it.starts_with(REMOTE));
    let mut groups = vec![others.collect::<Vec<_>>()];
    let mut off = Vec::new();
    while let Some(group) = groups.pop() {
        if group.is_empty() || uses_the_login(bench, &group)? {
            continue;
        }
        if let [variable] = group[..] {
            off.push(variable);
        } else {
            let (first, second) = group.split_at(group.len() / 2);
            groups.extend([first.to_vec(), second.to_vec()]);
        }
    }
    off.sort_unstable();
    let list = off.join(", ");
    checks.equal(
        "variables that authferry does not refuse",
        list.as_str(),
        "",
    );
    seen("none")
}

/// They name a remote environment. Without the others, Codex ends with a message that names them,
/// and leaves the login as it is.
const REMOTE: &str = "CODEX_EXEC_SERVER_NOISE_";

/// Runs Codex with these variables, and returns whether the model got the login.
fn uses_the_login(bench: &Bench, variables: &[&str]) -> Result<bool, Box<dyn Error>> {
    let login = Login::fresh();
    let (stub, runner) = bench.codex_alone(&login)?;
    let mut exec = runner.exec();
    exec.envs(variables.iter().map(|variable| (variable, VALUE)));
    finish(&mut exec);
    let accepted = What::Model {
        serial: Some(login.serial),
        status: 200,
    };
    Ok(stub.count(|what| *what == accepted) > 0)
}

/// A setting, and whether every version of authferry refuses it.
const SETTINGS: [(&str, &str); 5] = [
    ("cli_auth_credentials_store", "keyring"),
    ("cli_auth_credentials_store", "ephemeral"),
    ("forced_login_method", "api"),
    ("forced_chatgpt_workspace_id", "another-workspace"),
    ("cli_auth_credentials_store", "auto"),
];

fn by_settings(bench: &Bench, checks: &mut Checks) -> Seen {
    let mut off = 0;
    for (name, value) in SETTINGS {
        let set = |runner: &Runner| -> Result<(), Box<dyn Error>> {
            let file = runner.codex_home().join("config.toml");
            let text = fs::read_to_string(&file)?;
            Ok(fs::write(file, with_setting(&text, name, value))?)
        };
        off += usize::from(is_refused_where_off(bench, checks, &[], set)?);
    }
    seen(&format!("{off} of {}", SETTINGS.len()))
}

fn by_other_places(bench: &Bench, checks: &mut Checks) -> Seen {
    let nothing = |_: &Runner| -> Result<(), Box<dyn Error>> { Ok(()) };
    let (name, value) = ("forced_login_method", "api");
    let setting = format!("{name}=\"{value}\"");
    let mut off = Vec::new();
    if is_refused_where_off(bench, checks, &["-c", &setting], nothing)? {
        off.push("`-c`");
    }
    let profile = |runner: &Runner| -> Result<(), Box<dyn Error>> {
        let file = runner.codex_home().join("config.toml");
        let text = fs::read_to_string(&file)?;
        let text = format!("profile = \"ci\"\n{text}\n[profiles.ci]\n{setting}\n");
        Ok(fs::write(file, text)?)
    };
    if is_refused_where_off(bench, checks, &[], profile)? {
        off.push("`profile` in `config.toml`");
    }
    let profile_file = |runner: &Runner| -> Result<(), Box<dyn Error>> {
        let file = runner.codex_home().join("ci.config.toml");
        Ok(fs::write(file, format!("{setting}\n"))?)
    };
    if is_refused_where_off(bench, checks, &["-p", "ci"], profile_file)? {
        off.push("`-p` with a file");
    }
    let project = |runner: &Runner| -> Result<(), Box<dyn Error>> {
        let work = runner.work();
        fs::create_dir_all(work.join(".codex"))?;
        fs::create_dir_all(work.join(".git"))?;
        fs::write(work.join(".codex/config.toml"), format!("{setting}\n"))?;
        let file = runner.codex_home().join("config.toml");
        let text = fs::read_to_string(&file)?;
        let trust = format!(
            "[projects.\"{}\"]\ntrust_level = \"trusted\"",
            work.display()
        );
        Ok(fs::write(file, format!("{text}\n{trust}\n"))?)
    };
    if is_refused_where_off(bench, checks, &[], project)? {
        off.push("a trusted project");
    }
    seen(&if off.is_empty() {
        "none".to_owned()
    } else {
        off.join(", ")
    })
}

/// Returns whether Codex itself runs without its login with these options and settings. A job with
/// them must be refused then, before anything is spent.
fn is_refused_where_off(
    bench: &Bench,
    checks: &mut Checks,
    options: &[&str],
    set: impl Fn(&Runner) -> Result<(), Box<dyn Error>>,
) -> Result<bool, Box<dyn Error>> {
    let login = Login::fresh();
    let (stub, runner): (Stub, Runner) = bench.codex_alone(&login)?;
    set(&runner)?;
    let is_off = is_off(&stub, &runner, options);
    checks.equal("requests of Codex alone", stub.count(What::is_refresh), 0);

    let scene = Scene::holding(bench, &Login::stale())?;
    let runner = scene.runner()?;
    set(&runner)?;
    let mut run = scene.authferry(&runner, &["run", "--", "codex"]);
    run.args(options).args(["login", "status"]);
    if is_off {
        let act = scene.result(&runner, &finish(&mut run));
        checks.ended(&act, 124, "refused");
        checks.equal("refreshes", scene.refreshes(), 0);
        checks.holds("the store is as it was", scene.is_as_seeded());
    }
    Ok(is_off)
}

/// Whether Codex runs without the login. Old versions say so only by what `exec` does, and a Codex
/// that does not accept an option or a setting does not run at all.
fn is_off(stub: &Stub, runner: &Runner, options: &[&str]) -> bool {
    let mut status = runner.command("codex");
    let status = finish(status.args(options).args(["login", "status"]));
    let text = [status.stdout, status.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    if ["Not logged in", "Error checking login status"]
        .iter()
        .any(|it| text.contains(it))
    {
        return true;
    }
    let mut exec = runner.command("codex");
    finish(exec.args(options).args(EXEC));
    let without_login = |what: &What| matches!(what, What::Model { serial: None, .. });
    // Codex deletes a login that a setting forbids.
    stub.count(without_login) > 0 || !runner.auth_file().exists()
}

/// Sets a member of the top level of a configuration.
fn with_setting(config: &str, name: &str, value: &str) -> String {
    let others = config.lines().filter(|line| {
        let set = line.split('=').next().unwrap_or_default();
        set.trim() != name
    });
    let first = format!("{name} = \"{value}\"");
    let lines: Vec<_> = std::iter::once(first.as_str()).chain(others).collect();
    lines.join("\n") + "\n"
}

fn doctor(bench: &Bench, checks: &mut Checks) -> Seen {
    let scene = Scene::holding(bench, &Login::fresh())?;
    let act = scene.act(&scene.runner()?, &["doctor"]);
    checks.ended(&act, 0, "ready");
    checks.equal("refreshes", scene.refreshes(), 0);
    checks.holds("the store is as it was", scene.is_as_seeded());
    let words = ["newer than tested", "older than tested", "tested"];
    let said = |word: &&str| act.says(word) || act.stdout.contains(word);
    let word = words.into_iter().find(said);
    let support: BTreeSet<_> = word.into_iter().collect();
    checks.holds(
        "`doctor` says whether the version is tested",
        !support.is_empty(),
    );
    seen(word.unwrap_or("ready"))
}
