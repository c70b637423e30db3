//! A provider that fails: the login stays as it was, and the next try succeeds.

use rig::{Answer, Fault, Login};
use time::Duration;

use super::{Scenario, alone::login, scenario, seen};
use crate::{
    bench::{Bench, Scene, Seen},
    checks::Checks,
};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario("outage: 500, the access token lives", server_error),
    scenario(
        "outage: 500, the access token has ended",
        server_error_ended,
    ),
    scenario("outage: 429, the access token lives", too_many_requests),
    scenario(
        "outage: dropped connection, the access token lives",
        dropped,
    ),
    scenario("outage: no JSON, the access token lives", no_json),
    scenario("outage: an answer without a token", no_tokens),
    scenario("outage: 500, then a job", then_a_job),
    scenario("outage: the answer is lost, the access token lives", lost),
    scenario(
        "outage: the answer is lost, the access token has ended",
        lost_ended,
    ),
];

/// More faults than any version sends requests.
pub(super) const EVERY_REQUEST: usize = 200;

fn server_error(bench: &Bench, checks: &mut Checks) -> Seen {
    is_outage(bench, checks, &living(), Fault::ServerError)
}

fn server_error_ended(bench: &Bench, checks: &mut Checks) -> Seen {
    is_outage(bench, checks, &Login::stale(), Fault::ServerError)
}

fn too_many_requests(bench: &Bench, checks: &mut Checks) -> Seen {
    let fault = Fault::Answer(Answer::TooManyRequests);
    is_outage(bench, checks, &living(), fault)
}

fn dropped(bench: &Bench, checks: &mut Checks) -> Seen {
    is_outage(bench, checks, &living(), Fault::RequestLost)
}

fn no_json(bench: &Bench, checks: &mut Checks) -> Seen {
    is_outage(bench, checks, &living(), Fault::Answer(Answer::NoJson))
}

/// A login whose access token lives, and that `refresh` rotates.
pub(super) fn living() -> Login {
    login(Duration::days(2), Duration::HOUR)
}

fn is_outage(bench: &Bench, checks: &mut Checks, login: &Login, fault: Fault) -> Seen {
    let scene = Scene::holding(bench, login)?;
    let runner = scene.runner()?;
    let faults = [fault; EVERY_REQUEST];
    scene
        .stub
        .rules(|rules| rules.refresh_faults.extend(faults));
    let act = scene.act(&runner, &["refresh"]);
    checks.ended(&act, 125, "not-rotated");
    checks.holds("the provider was asked", scene.refreshes() > 0);
    checks.holds("the store is as it was", scene.is_as_seeded());
    checks.holds("the login is live", scene.is_live());
    let outcome = act.outcome;

    scene.stub.rules(|rules| rules.refresh_faults.clear());
    let act = scene.act(&runner, &["refresh"]);
    checks.ended(&act, 0, "rotated");
    checks.holds("the store holds the live login", scene.is_live());
    seen(&format!("{outcome}, then {}", act.outcome))
}

/// A rotated time with the same tokens is no new login, and not a loop without an end.
fn no_tokens(bench: &Bench, checks: &mut Checks) -> Seen {
    let scene = Scene::holding(bench, &living())?;
    let faults = [Fault::Answer(Answer::NoTokens); EVERY_REQUEST];
    scene
        .stub
        .rules(|rules| rules.refresh_faults.extend(faults));
    let act = scene.act(&scene.runner()?, &["refresh"]);
    checks.holds("the exit code is not 0", act.code != Some(0));
    checks.holds("the login is live", scene.is_live());
    seen(&act.outcome)
}

fn then_a_job(bench: &Bench, checks: &mut Checks) -> Seen {
    let scene = Scene::holding(bench, &login(Duration::HOUR, Duration::HOUR))?;
    let faults = [Fault::ServerError; EVERY_REQUEST];
    scene
        .stub
        .rules(|rules| rules.refresh_faults.extend(faults));
    let act = scene.run_job(&scene.runner()?, &[]);
    checks.ended(&act, 0, "unchanged");
    checks.holds("the provider was asked", scene.refreshes() > 0);
    checks.holds("the store is as it was", scene.is_as_seeded());
    checks.holds("the job warns", act.says("warning: "));
    seen("the job runs, with a warning")
}

fn lost(bench: &Bench, checks: &mut Checks) -> Seen {
    is_found_dead(bench, checks, &living())
}

fn lost_ended(bench: &Bench, checks: &mut Checks) -> Seen {
    is_found_dead(bench, checks, &Login::stale())
}

/// The provider has spent the token, so the login is dead: Codex sends the token again.
fn is_found_dead(bench: &Bench, checks: &mut Checks, login: &Login) -> Seen {
    let scene = Scene::holding(bench, login)?;
    scene
        .stub
        .rules(|rules| rules.refresh_faults.push_back(Fault::ReplyLost));
    let act = scene.act(&scene.runner()?, &["refresh"]);
    checks.ended(&act, 125, "dead");
    checks.holds("the store is as it was", scene.is_as_seeded());
    seen(&act.outcome)
}
