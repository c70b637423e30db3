//! Many concurrent jobs with one login.

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

in_each_store![twenty_concurrent_jobs_that_rotate_first_spend_one_token_and_succeed];

by_each_rule![concurrent_jobs_without_rotate_first_reuse_one_token];

fn twenty_concurrent_jobs_that_rotate_first_spend_one_token_and_succeed<S: AnyStore>(
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
    assert_eq!(scene.status()["generation"], 2, "written more than once");
}

/// Shows that the previous test can fail.
fn concurrent_jobs_without_rotate_first_reuse_one_token(version: &str, _: Rule) {
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
    // The swap alone protects only the store.
    assert!(ferry.is_live());
}

/// Starts 20 jobs at once with a login that expires in 10 minutes, and lets them outlive it.
fn twenty_jobs_that_outlive_their_token<S: AnyStore>(
    version: &str,
    options: &[&str],
) -> (S, Vec<Output>) {
    let scene = S::holding(version, &Login::ending_in(time::Duration::minutes(10)));
    let_ten_minutes_pass(scene.stub());
    let jobs = crowd(20, &scene, |runner| {
        low_priority_run(&scene, runner, options)
    });
    (scene, jobs)
}

/// `authferry run … -- codex exec …` on a runner, at the lowest priority, so that a crowd does not
/// starve the other tests.
pub(crate) fn low_priority_run(
    scene: &impl AnyStore,
    runner: &Runner,
    options: &[&str],
) -> Command {
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

/// Locks out every other crowd: one is enough for a machine, and timing is unreliable while one
/// runs.
pub(crate) fn lock_crowds() -> MutexGuard<'static, ()> {
    static CROWD: Mutex<()> = Mutex::new(());
    CROWD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a job on each of `size` runners at once, and returns the outputs.
pub(crate) fn crowd(
    size: usize,
    scene: &impl AnyStore,
    job: impl Fn(&Runner) -> Command,
) -> Vec<Output> {
    let _lock = lock_crowds();
    let runners: Vec<Runner> = (0..size).map(|_| scene.runner()).collect();
    thread::scope(|scope| {
        let jobs: Vec<_> = runners
            .iter()
            .map(|runner| {
                let mut job = job(runner);
                scope.spawn(move || finish_within(CROWD_TIMEOUT, &mut job))
            })
            .collect();
        let outputs = jobs
            .into_iter()
            .map(|job| job.join().expect("a job that ends"));
        outputs.collect()
    })
}

/// A crowd that takes longer counts as hung.
const CROWD_TIMEOUT: Duration = Duration::from_mins(5);
