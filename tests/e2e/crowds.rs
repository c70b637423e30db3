//! Many jobs at once on one login.

use std::{
    process::{Command, Output},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use rig::{EXEC, Login, Outcome, Runner, What, finish_within};

use crate::any_store::{AnyStore, in_each_store};
use crate::codex_facts::calls;
use crate::ferry::{Ferry, assert_code};
use crate::refresh_facts::{Rule, by_each_rule, let_ten_minutes_pass};

in_each_store![twenty_jobs_at_once_that_rotate_first_spend_one_token_and_all_succeed];

by_each_rule![the_same_without_rotating_first_spends_one_token_again_and_again];

fn twenty_jobs_at_once_that_rotate_first_spend_one_token_and_all_succeed<S: AnyStore>(
    version: &str,
) {
    let (scene, jobs): (S, _) = twenty_jobs_that_outlive_their_token(version, &[]);

    for job in &jobs {
        assert_code(job, 0);
    }
    let (rotations, model_calls): (Vec<What>, _) =
        calls(scene.stub()).into_iter().partition(What::is_refresh);
    assert_eq!(rotations.len(), 1, "{rotations:#?}");
    assert!(rotations[0].is_rotation(), "{rotations:#?}");
    assert!(model_calls.len() >= 20, "{model_calls:#?}");
    for call in model_calls {
        let wanted = What::Model {
            serial: Some(2),
            status: 200,
        };
        assert_eq!(call, wanted);
    }
    assert!(scene.is_live());
    assert_eq!(scene.status()["generation"], 2, "and it was written once");
}

/// The proof that the test before this one can fail.
fn the_same_without_rotating_first_spends_one_token_again_and_again(version: &str, _: Rule) {
    let (ferry, jobs): (Ferry, _) =
        twenty_jobs_that_outlive_their_token(version, &["--no-rotate-first"]);

    let spent = ferry.stub.count(|what| {
        matches!(
            what,
            What::Refresh {
                serial: Some(1),
                ..
            }
        )
    });
    let reused = ferry.stub.count(is_reused);
    assert!(spent > 1, "{:#?}", ferry.stub.events());
    assert_eq!(reused, spent - 1, "{:#?}", ferry.stub.events());
    let failed = jobs.iter().filter(|job| !job.status.success()).count();
    assert!(failed > 0, "{jobs:?}");
    // The swap protects the store, and nothing else.
    assert!(ferry.is_live());
}

/// Lets twenty jobs start at once with a login that ends in ten minutes, and go on for longer.
fn twenty_jobs_that_outlive_their_token<S: AnyStore>(
    version: &str,
    options: &[&str],
) -> (S, Vec<Output>) {
    let scene = S::holding(version, &Login::ending_in(time::Duration::minutes(10)));
    let_ten_minutes_pass(scene.stub());
    let jobs = crowd(20, &scene, |runner| kind_run(&scene, runner, options));
    (scene, jobs)
}

/// `authferry run … -- codex exec …` on a runner, at the lowest priority: a crowd takes what
/// other tests leave, or they would wait for it.
pub(crate) fn kind_run(scene: &impl AnyStore, runner: &Runner, options: &[&str]) -> Command {
    let mut command = scene.command(runner, "nice");
    command.args(["-n", "19", crate::ferry::under_test(), "run"]);
    command.args(options).args(["--", "codex"]).args(EXEC);
    command
}

fn is_reused(what: &What) -> bool {
    matches!(
        what,
        What::Refresh {
            outcome: Outcome::Reused,
            ..
        }
    )
}

/// Waits until no crowd is at work, and keeps others from beginning: one is enough for a
/// machine, and beside one no clock tells what came first.
pub(crate) fn undisturbed() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a job on each of many runners at once, and returns what they said.
pub(crate) fn crowd(
    size: usize,
    scene: &impl AnyStore,
    job: impl Fn(&Runner) -> Command,
) -> Vec<Output> {
    let _one = undisturbed();
    let runners: Vec<Runner> = (0..size).map(|_| scene.runner()).collect();
    thread::scope(|scope| {
        let jobs: Vec<_> = runners
            .iter()
            .map(|runner| {
                let mut job = job(runner);
                scope.spawn(move || finish_within(PATIENCE, &mut job))
            })
            .collect();
        let said = jobs
            .into_iter()
            .map(|job| job.join().expect("a job that ends"));
        said.collect()
    })
}

/// How long a crowd may take before it counts as hung.
const PATIENCE: Duration = Duration::from_mins(5);
