//! Refusals: a named one makes the login dead, another one makes it refused.

use rig::{Answer, Fault, Login};

use super::{
    Scenario,
    outages::{EVERY_REQUEST, living},
    scenario, seen,
};
use crate::{
    bench::{Bench, Scene, Seen},
    checks::Checks,
};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario(
        "refusal: `refresh_token_reused`, the access token lives",
        reused,
    ),
    scenario(
        "refusal: `refresh_token_reused`, the access token has ended",
        reused_ended,
    ),
    scenario(
        "refusal: `refresh_token_expired`, the access token lives",
        expired,
    ),
    scenario(
        "refusal: `refresh_token_expired`, the access token has ended",
        expired_ended,
    ),
    scenario(
        "refusal: `refresh_token_invalidated`, the access token lives",
        invalidated,
    ),
    scenario(
        "refusal: `refresh_token_invalidated`, the access token has ended",
        invalidated_ended,
    ),
    scenario(
        "refusal: 401 without a code, the access token lives",
        unnamed,
    ),
    scenario(
        "refusal: 401 without a code, the access token has ended",
        unnamed_ended,
    ),
    scenario(
        "refusal: 400 `invalid_grant`, the access token lives",
        invalid_grant,
    ),
    scenario(
        "refusal: 400 `invalid_grant`, the access token has ended",
        invalid_grant_ended,
    ),
    scenario(
        "refusal: 400 `…_ciphertext_integrity`, the access token lives",
        ciphertext,
    ),
    scenario(
        "refusal: 400 `…_ciphertext_integrity`, the access token has ended",
        ciphertext_ended,
    ),
    scenario("refusal: 401 without a code, then a job", then_a_job),
];

/// Makes both scenarios of a refusal.
macro_rules! refusals {
    ($($living:ident $ended:ident $answer:ident $outcome:literal),+ $(,)?) => {
        $(
            fn $living(bench: &Bench, checks: &mut Checks) -> Seen {
                is_noted(bench, checks, &living(), Answer::$answer, $outcome)
            }

            fn $ended(bench: &Bench, checks: &mut Checks) -> Seen {
                is_noted(bench, checks, &Login::stale(), Answer::$answer, $outcome)
            }
        )+
    };
}

refusals![
    reused reused_ended Reused "dead",
    expired expired_ended Expired "dead",
    invalidated invalidated_ended Invalidated "dead",
    unnamed unnamed_ended Unnamed "refused",
    invalid_grant invalid_grant_ended InvalidGrant "refused",
    ciphertext ciphertext_ended Ciphertext "refused",
];

fn is_noted(
    bench: &Bench,
    checks: &mut Checks,
    login: &Login,
    answer: Answer,
    outcome: &str,
) -> Seen {
    let scene = Scene::holding(bench, login)?;
    let runner = scene.runner()?;
    let faults = [Fault::Answer(answer); EVERY_REQUEST];
    scene
        .stub
        .rules(|rules| rules.refresh_faults.extend(faults));
    let act = scene.act(&runner, &["refresh"]);
    checks.ended(&act, 125, outcome);
    checks.holds("the provider was asked", scene.refreshes() > 0);
    checks.holds("the store is as it was", scene.is_as_seeded());

    let checked = scene.act(&runner, &["status", "--check"]);
    checks.ended(&checked, 1, "attention");
    let before = scene.refreshes();
    let again = scene.act(&runner, &["refresh"]);
    checks.ended(&again, 125, outcome);
    checks.equal("more refreshes", scene.refreshes() - before, 0);
    seen(&act.outcome)
}

/// A refusal without a name blocks no job.
fn then_a_job(bench: &Bench, checks: &mut Checks) -> Seen {
    let scene = Scene::holding(bench, &living())?;
    let runner = scene.runner()?;
    let faults = [Fault::Answer(Answer::Unnamed); EVERY_REQUEST];
    scene
        .stub
        .rules(|rules| rules.refresh_faults.extend(faults));
    let act = scene.act(&runner, &["refresh"]);
    checks.ended(&act, 125, "refused");
    let before = scene.refreshes();
    let act = scene.run_job(&runner, &["--rotate-within", "3d"]);
    checks.ended(&act, 0, "unchanged");
    checks.equal("more refreshes", scene.refreshes() - before, 0);
    checks.holds("the job warns", act.says("warning: "));
    seen("the job runs, with a warning")
}
