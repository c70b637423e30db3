//! Codex alone: what authferry relies on.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use authferry_codex::versions::WriteForm;
use authferry_core::DueRule;
use rig::{AppServer, Login, Runner, What, finish};
use serde_json::json;
use time::{Duration, OffsetDateTime};

use super::{Scenario, scenario, seen};
use crate::{
    bench::{Bench, Seen},
    checks::Checks,
    facts::{rule_name, write_form_name},
};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario("Codex alone: which login it rotates by itself", due_rule),
    scenario("Codex alone: how it writes the auth file", write_form),
    scenario(
        "Codex alone: what it does with unknown members",
        unknown_members,
    ),
    scenario("Codex alone: requests of the app server", requests),
    scenario(
        "Codex alone: other files that a rotation changes",
        other_files,
    ),
];

/// A login whose access token expires after `left`, and that was refreshed some time ago.
pub(super) fn login(left: Duration, refreshed: Duration) -> Login {
    Login {
        last_refresh: OffsetDateTime::now_utc() - refreshed,
        ..Login::ending_in(left)
    }
}

fn due_rule(bench: &Bench, checks: &mut Checks) -> Seen {
    let rotates = |login: &Login| -> Result<bool, Box<dyn Error>> {
        let (stub, runner) = bench.codex_alone(login)?;
        ask_for_status(&runner)?;
        Ok(stub.count(What::is_rotation) > 0)
    };
    let old = rotates(&login(Duration::days(5), Duration::days(9)))?;
    let ended = rotates(&login(-Duration::HOUR, Duration::HOUR))?;
    let ending = rotates(&login(Duration::minutes(3), Duration::HOUR))?;
    let fresh = rotates(&Login::fresh())?;
    let rule = match (old, ended, ending, fresh) {
        (true, false, false, false) => Some(DueRule::Age),
        (false, true, false, false) => Some(DueRule::Ended),
        (false, true, true, false) => Some(DueRule::Ending),
        _ => None,
    };
    checks.holds("the rule is one of the three known ones", rule.is_some());
    if bench.facts.due != DueRule::Any {
        checks.equal("rule", rule, Some(bench.facts.due));
    }
    seen(rule.map_or("unknown", rule_name))
}

fn write_form(bench: &Bench, checks: &mut Checks) -> Seen {
    let (stub, runner) = bench.codex_alone(&Login::stale())?;
    let before = fs::metadata(runner.auth_file())?.ino();
    let run = finish(&mut runner.exec());
    checks.equal("exit code", run.status.code(), Some(0));
    checks.equal("rotations", stub.count(What::is_rotation), 1);
    checks.holds("the file holds the live login", is_live(&stub, &runner));
    let found = fs::metadata(runner.auth_file())?;
    let mode = found.permissions().mode() & 0o777;
    checks.equal("mode", format!("{mode:o}"), "600".to_owned());
    let renames = found.ino() != before;
    let locks = runner.codex_home().join("auth.lock").exists();
    let form = match (renames, locks) {
        (true, _) => WriteForm::Rename,
        (false, true) => WriteForm::InPlaceUnderLock,
        (false, false) => WriteForm::InPlace,
    };
    checks.equal("write form", form, bench.facts.write_form);
    seen(write_form_name(form))
}

fn unknown_members(bench: &Bench, checks: &mut Checks) -> Seen {
    let (stub, runner) = bench.codex_alone(&Login::stale())?;
    let text = with_unknown_member(&fs::read_to_string(runner.auth_file())?);
    runner.place(&text)?;
    let run = finish(&mut runner.exec());
    checks.equal("exit code", run.status.code(), Some(0));
    checks.holds("the file holds the live login", is_live(&stub, &runner));
    let written = fs::read_to_string(runner.auth_file())?;
    seen(if written.contains(UNKNOWN_MEMBER) {
        "kept"
    } else {
        "dropped"
    })
}

/// A member of the auth file that no version knows.
const UNKNOWN_MEMBER: &str = "member_of_the_future";

/// Adds a member to an auth file.
pub(super) fn with_unknown_member(auth_json: &str) -> String {
    auth_json.replacen('{', &format!("{{\n  \"{UNKNOWN_MEMBER}\": 1,"), 1)
}

/// The order in which authferry tries them: `getAuthStatus`, `account/read`, `exec`.
fn requests(bench: &Bench, checks: &mut Checks) -> Seen {
    let (stub, runner) = bench.codex_alone(&login(Duration::days(5), Duration::HOUR))?;
    let mut server = AppServer::start(&runner)?;
    let mut known = Vec::new();
    let status = json!({"includeToken": false, "refreshToken": false});
    let account = json!({"refreshToken": false});
    let unknown = server.ask("noSuchMethod", &json!({}))?;
    let unknown = &unknown["error"]["code"];
    checks.holds("an unknown request is an error", !unknown.is_null());
    for (method, parameters) in [("getAuthStatus", status), ("account/read", account)] {
        let reply = server.ask(method, &parameters)?;
        if &reply["error"]["code"] != unknown {
            known.push(method);
        }
        if method == "getAuthStatus" && reply["error"].is_null() {
            let is_chatgpt = reply["result"]["authMethod"] == "chatgpt";
            checks.holds(
                "`getAuthStatus` names the method of a healthy login",
                is_chatgpt,
            );
        }
    }
    server.finish()?;
    checks.equal("refreshes", stub.count(What::is_refresh), 0);
    checks.holds("the app server can rotate on request", !known.is_empty());
    seen(&known.join(", "))
}

/// A login that Codex keeps in a second file would be lost: authferry carries `auth.json` alone.
fn other_files(bench: &Bench, checks: &mut Checks) -> Seen {
    let mut changed = |login: &Login| -> Result<BTreeSet<String>, Box<dyn Error>> {
        let (stub, runner) = bench.codex_alone(login)?;
        let home = runner.codex_home();
        let before = files(&home);
        ask_for_status(&runner)?;
        let mut after = files(&home);
        after.retain(|name, bytes| before.get(name) != Some(bytes));
        let token = stub.live().ok_or("no live login")?.refresh_token;
        let holds_it =
            |bytes: &Vec<u8>| bytes.windows(token.len()).any(|it| it == token.as_bytes());
        let others = after.iter().filter(|(name, _)| *name != "auth.json");
        let others = others.filter(|(_, bytes)| holds_it(bytes));
        let others: Vec<_> = others.map(|(name, _)| without_numbers(name)).collect();
        checks.equal("other files with the refresh token", others, Vec::new());
        Ok(after.keys().map(|name| without_numbers(name)).collect())
    };
    // Twice: some files are written at any moment.
    let at_start = &changed(&Login::fresh())? | &changed(&Login::fresh())?;
    let rotated = &changed(&Login::stale())? & &changed(&Login::stale())?;
    checks.holds(
        "a rotation writes `auth.json`",
        rotated.contains("auth.json"),
    );
    let others = rotated.difference(&at_start);
    // The databases of Codex, whose journals change at any moment, were searched above.
    let others = others.filter(|it| *it != "auth.json" && !it.contains(".sqlite"));
    let others: Vec<_> = others.map(|it| format!("`{it}`")).collect();
    seen(&if others.is_empty() {
        "none".to_owned()
    } else {
        others.join(", ")
    })
}

/// Each file below a folder, with its bytes.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(bytes) = fs::read(&path) {
                let name = path.strip_prefix(folder).unwrap_or(&path);
                found.insert(name.display().to_string(), bytes);
            }
        }
    }
    found
}

/// Replaces digits, which can be a time or an id.
fn without_numbers(name: &str) -> String {
    name.replace(|it: char| it.is_ascii_digit(), "0")
}

/// Starts the app server, which rotates a login that is due, and ends it.
fn ask_for_status(runner: &Runner) -> Result<(), Box<dyn Error>> {
    let mut server = AppServer::start(runner)?;
    server.auth_status(false)?;
    server.finish()?;
    Ok(())
}

fn is_live(stub: &rig::Stub, runner: &Runner) -> bool {
    fs::read(runner.auth_file()).is_ok_and(|bytes| stub.is_live(&bytes))
}
