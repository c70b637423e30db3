//! Jobs: `run`, and `restore` with `persist`.

use std::{fs, os::unix::fs::PermissionsExt};

use rig::{Bearer, Login, What, finish};
use time::{Duration, OffsetDateTime};

use super::{Scenario, alone::login, scenario, seen};
use crate::{
    bench::{Bench, Scene, Seen},
    checks::Checks,
};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario(
        "`run`: an ended login is rotated before the job",
        rotated_first,
    ),
    scenario("`run`: a fresh login", fresh),
    scenario(
        "`run --no-rotate-first`: an ended login",
        rotated_by_the_job,
    ),
    scenario(
        "`run --no-rotate-first`: the job fails after its rotation",
        failed_job,
    ),
    scenario(
        "`run --no-rotate-first`: the model answers 401 all the time",
        refused_by_the_model,
    ),
    scenario("`run`: the login ends during the job", ends_meanwhile),
    scenario("`run`: the job logs out", logs_out),
    scenario("`run --access-only`: a login that is due", access_only),
    scenario("`run`: two jobs at once with an ended login", two_jobs),
    scenario("`run`: a home of mode 0755", open_home),
    scenario(
        "`restore` and `persist`: an ended login",
        restore_and_persist,
    ),
];

/// An option of jobs whose Codex is to rotate by itself.
pub(super) const NOT_FIRST: &[&str] = &["--no-rotate-first"];

/// What the provider issued last was accepted by the model.
fn uses_the_newest(scene: &Scene) -> bool {
    let serial = scene.stub.live().map(|login| login.serial);
    scene
        .stub
        .count(|what| matches!(what, What::Model { serial: used, status: 200 } if *used == serial))
        > 0
}

fn rotated_first(bench: &Bench, checks: &mut Checks) -> Seen {
    let scene = Scene::holding(bench, &Login::stale())?;
    let runner = scene.runner()?;
    let act = scene.run_job(&runner, &[]);
    checks.ended(&act, 0, "");
    checks.equal("refreshes", scene.refreshes(), 1);
    checks.holds("the store holds the live login", scene.is_live());
    checks.holds("the job used the new login", uses_the_newest(&scene));
    let calls = scene.stub.events();
    let refresh = calls.iter().position(|event| event.what.is_refresh());
    let model = calls.iter().position(|event| event.what.is_model_call());
    checks.holds("the rotation came first", refresh < model);
    checks.holds("the home holds no login", !runner.auth_file().exists());
    seen("rotated once")
}

fn fresh(bench: &Bench, checks: &mut Checks) -> Seen {
    let scene = Scene::holding(bench, &Login::fresh())?;
    let runner = scene.runner()?;
    let act = scene.run_job(&runner, &[]);
    checks.ended(&act, 0, "unchanged");
    checks.equal("refreshes", scene.refreshes(), 0);
    checks.holds("the store is as it was", scene.is_as_seeded());
    checks.holds("the job used the login", uses_the_newest(&scene));
    checks.holds("the home holds no login", !runner.auth_file().exists());
    seen(&act.outcome)
}

fn rotated_by_the_job(bench: &Bench, checks: &mut Checks) -> Seen {
    let scene = Scene::holding(bench, &Login::stale())?;
    let runner = scene.runner()?;
    let act = scene.run_job(&runner, NOT_FIRST);
    checks.ended(&act, 0, "persisted");
    checks.equal("refreshes", scene.refreshes(), 1);
    checks.holds("the store holds the live login", scene.is_live());
    checks.holds("the job used the new login", uses_the_newest(&scene));
    checks.holds("the home holds no login", !runner.auth_file().exists());
    seen(&act.outcome)
}

fn failed_job(bench: &Bench, checks: &mut Checks) -> Seen {
    let scene = Scene::holding(bench, &Login::stale())?;
    scene.stub.rules(|rules| rules.model_failure = Some(500));
    let act = scene.run_job(&scene.runner()?, NOT_FIRST);
    checks.ended(&act, 1, "persisted");
    checks.equal("rotations", scene.stub.count(What::is_rotation), 1);
    checks.holds("the store holds the live login", scene.is_live());
    seen(&act.outcome)
}

fn refused_by_the_model(bench: &Bench, checks: &mut Checks) -> Seen {
    let scene = Scene::holding(bench, &Login::stale())?;
    scene.stub.rules(|rules| rules.model_failure = Some(401));
    let act = scene.run_job(&scene.runner()?, NOT_FIRST);
    checks.ended(&act, 1, "persisted");
    checks.holds("the store holds the live login", scene.is_live());
    let rotations = scene.stub.count(What::is_rotation);
    seen(if rotations > 1 {
        "rotated again and again"
    } else {
        "rotated once"
    })
}

fn ends_meanwhile(bench: &Bench, checks: &mut Checks) -> Seen {
    // Not due for `run`, so the rotation is the job's own.
    let scene = Scene::holding(bench, &login(Duration::minutes(10), Duration::HOUR))?;
    scene.stub.rules(|rules| {
        rules.clock = Some(OffsetDateTime::now_utc() + Duration::minutes(11));
        rules.bearer = Bearer::Unexpired;
    });
    let act = scene.run_job(&scene.runner()?, NOT_FIRST);
    checks.ended(&act, 0, "persisted");
    checks.equal("rotations", scene.stub.count(What::is_rotation), 1);
    checks.holds("the store holds the live login", scene.is_live());
    let first = scene.stub.events().into_iter().map(|event| event.what);
    let mut first = first.filter(|what| what.is_refresh() || what.is_model_call());
    seen(if first.next().is_some_and(|what| what.is_model_call()) {
        "rotated after a 401"
    } else {
        "rotated at once"
    })
}

/// The store's login is dead then, but only a person may remove it.
fn logs_out(bench: &Bench, checks: &mut Checks) -> Seen {
    let scene = Scene::holding(bench, &Login::fresh())?;
    let runner = scene.runner()?;
    let mut run = scene.authferry(&runner, &["run", "--", "codex", "logout"]);
    let act = scene.result(&runner, &finish(&mut run));
    checks.holds("the store is as it was", scene.is_as_seeded());
    checks.holds("the home holds no login", !runner.auth_file().exists());
    let revoked = scene.stub.count(|what| matches!(what, What::Revoke { .. }));
    seen(&format!(
        "{}; {}",
        act.outcome,
        if revoked > 0 {
            "revoked"
        } else {
            "not revoked"
        }
    ))
}

fn access_only(bench: &Bench, checks: &mut Checks) -> Seen {
    let scene = Scene::holding(bench, &login(Duration::HOUR, Duration::HOUR))?;
    let runner = scene.runner()?;
    let act = scene.run_job(&runner, &["--access-only"]);
    checks.ended(&act, 0, "");
    checks.equal("refreshes", scene.refreshes(), 1);
    checks.holds("the store holds the live login", scene.is_live());
    checks.holds("the job used the new login", uses_the_newest(&scene));
    checks.holds("the home holds no login", !runner.auth_file().exists());
    seen("rotated once")
}

fn two_jobs(bench: &Bench, checks: &mut Checks) -> Seen {
    let scene = Scene::holding(bench, &Login::stale())?;
    let runners = [scene.runner()?, scene.runner()?];
    let mut jobs = Vec::new();
    for runner in &runners {
        let mut job = scene.job(runner, &[]);
        jobs.push(std::thread::spawn(move || finish(&mut job)));
    }
    for (job, runner) in jobs.into_iter().zip(&runners) {
        let output = job.join().map_err(|_| "a job did not end")?;
        checks.ended(&scene.result(runner, &output), 0, "");
    }
    checks.equal("refreshes", scene.refreshes(), 1);
    checks.holds("the store holds the live login", scene.is_live());
    seen("rotated once")
}

/// Codex makes `~/.codex` with this mode.
fn open_home(bench: &Bench, checks: &mut Checks) -> Seen {
    let scene = Scene::holding(bench, &Login::fresh())?;
    let runner = scene.runner()?;
    let home = runner.codex_home();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o755))?;
    let act = scene.run_job(&runner, &[]);
    checks.ended(&act, 0, "unchanged");
    let mode = fs::metadata(home)?.permissions().mode() & 0o777;
    checks.equal("mode", format!("{mode:o}"), "700".to_owned());
    seen("closed")
}

fn restore_and_persist(bench: &Bench, checks: &mut Checks) -> Seen {
    let scene = Scene::holding(bench, &Login::stale())?;
    let runner = scene.runner()?;
    let act = scene.act(&runner, &["restore", "--no-watch", "--no-rotate-first"]);
    checks.ended(&act, 0, "restored");
    let mode = |path| -> Result<String, std::io::Error> {
        let mode = fs::metadata(path)?.permissions().mode() & 0o777;
        Ok(format!("{mode:o}"))
    };
    checks.equal("mode", mode(runner.auth_file())?, "600".to_owned());
    let run = finish(&mut runner.exec());
    checks.equal("Codex's exit code", run.status.code(), Some(0));
    checks.equal(
        "mode after the job",
        mode(runner.auth_file())?,
        "600".to_owned(),
    );
    let written = fs::read(runner.auth_file())?;
    let act = scene.act(&runner, &["persist"]);
    checks.ended(&act, 0, "persisted");
    checks.equal("refreshes", scene.refreshes(), 1);
    checks.holds(
        "the store holds what Codex wrote",
        scene.stored() == written,
    );
    checks.holds("the store holds the live login", scene.is_live());
    checks.holds("the home holds no login", !runner.auth_file().exists());
    seen(&act.outcome)
}
