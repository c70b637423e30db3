//! A login in the jobs of a workflow.

use std::{fs, time::Duration};

use rig::{Endpoint, Login, What};

use crate::ferry::{successor, wait_until};
use crate::job::Job;
use crate::scene::Scene;

pub(crate) const CODEX: &str = "codex exec --skip-git-repo-check --json 'Reply OK.'";

#[test]
fn a_login_goes_through_three_jobs_with_run_on_a_file() {
    three_jobs_with_run(&Scene::on_a_file(&Login::stale()));
}

#[test]
fn a_login_goes_through_three_jobs_with_run_on_vault() {
    three_jobs_with_run(&Scene::on_vault(&Login::stale()));
}

#[test]
fn a_login_goes_through_three_jobs_set_up_on_a_file() {
    three_jobs_set_up(&Scene::on_a_file(&Login::stale()));
}

#[test]
fn a_login_goes_through_three_jobs_set_up_on_vault() {
    three_jobs_set_up(&Scene::on_vault(&Login::stale()));
}

fn three_jobs_with_run(scene: &Scene) {
    for number in 1..=3 {
        let mut job = scene.job();
        let run = job.uses(&[("store", &scene.address()), ("run", CODEX)]);
        assert_eq!(run.code, Some(0), "{}", job.log());
        let rotated = if number == 1 { "true" } else { "false" };
        assert_eq!(run.outputs["rotated"], rotated, "{:?}", run.outputs);
        assert_eq!(run.outputs["outcome"], "unchanged");
        assert!(run.outputs["expires-at"].ends_with('Z'));
        assert!(run.summary.contains("### authferry: unchanged"));
        assert_clean_end(scene, &mut job);
    }
    assert_eq!(scene.stub().count(What::is_rotation), 1);
    assert!(scene.is_live());
}

fn three_jobs_set_up(scene: &Scene) {
    for number in 1..=3 {
        let mut job = scene.job();
        // Codex rotates by itself, in a step of the user.
        let main = job.uses(&[("store", &scene.address()), ("rotate-first", "false")]);
        assert_eq!(main.code, Some(0), "{}", job.log());
        assert_eq!(main.outputs["outcome"], "restored");
        assert!(
            main.summary.is_empty(),
            "only the post step writes a summary"
        );
        let codex = job.run(CODEX);
        assert_eq!(codex.code, Some(0), "{}", job.log());
        let [post] = &job.end_of_job()[..] else {
            panic!("expected one post step");
        };
        assert_eq!(post.code, Some(0), "{}", job.log());
        let rotated = if number == 1 { "true" } else { "false" };
        let row = format!("| rotated | {rotated} |");
        assert!(post.summary.contains(&row), "{}", post.summary);
        assert_clean_end(scene, &mut job);
    }
    assert_eq!(scene.stub().count(What::is_rotation), 1);
    assert!(scene.is_live());
}

#[test]
fn a_run_cancelled_during_the_model_call_keeps_the_rotation() {
    let scene = Scene::on_a_file(&Login::stale());
    let mut job = scene.job();
    let model = scene.stub().hold(Endpoint::Model);
    let address = scene.address();
    let with = [
        ("store", &*address),
        ("run", CODEX),
        ("rotate-first", "false"),
    ];
    let step = job.start_uses(&with);
    wait_for_model_call(&scene);
    let run = job.cancel(step);
    drop(model);
    assert_ne!(run.code, None, "the step was killed: {}", job.log());
    assert_ne!(run.code, Some(0));
    assert_clean_end(&scene, &mut job);
    assert!(scene.is_live(), "{}", job.log());
}

#[test]
fn a_step_cancelled_during_the_model_call_keeps_the_rotation() {
    let scene = Scene::on_a_file(&Login::stale());
    let mut job = scene.job();
    job.uses(&[("store", &scene.address()), ("rotate-first", "false")]);
    let model = scene.stub().hold(Endpoint::Model);
    let step = job.start_run(CODEX);
    wait_for_model_call(&scene);
    job.cancel(step);
    drop(model);
    assert_clean_end(&scene, &mut job);
    assert!(scene.is_live(), "{}", job.log());
}

#[test]
fn post_persists_a_login_written_after_the_watch_was_killed() {
    let login = Login::fresh();
    let next = successor(&login);
    let scene = Scene::on_a_file(&login);
    let mut job = scene.job();
    job.uses(&[("store", &scene.address())]);
    let [watch] = job.processes()[..] else {
        panic!("only the watch is running");
    };
    // Like the OOM killer, which prefers the steps of a runner.
    job.run(&format!("kill -KILL {watch}"));
    job.runner.place(&next.auth_json()).expect("disk space");
    assert_clean_end(&scene, &mut job);
    assert_eq!(scene.stored(), next.auth_json().as_bytes());
}

#[test]
fn the_watch_saves_the_rotation_of_a_lost_machine() {
    let scene = Scene::on_a_file(&Login::stale());
    let mut job = scene.job();
    job.uses(&[("store", &scene.address()), ("rotate-first", "false")]);
    let _model = scene.stub().hold(Endpoint::Model);
    let step = job.start_run(CODEX);
    wait_for_model_call(&scene);
    scene.wait_until_live();
    job.kill_machine(Some(step));
    assert!(scene.is_live());
}

#[test]
fn without_the_watch_the_rotation_is_lost_with_the_machine() {
    let scene = Scene::on_a_file(&Login::stale());
    let mut job = scene.job();
    job.uses(&[("store", &scene.address()), ("rotate-first", "false")]);
    let [watch] = job.processes()[..] else {
        panic!("only the watch is running");
    };
    job.run(&format!("kill -KILL {watch}"));
    assert_eq!(job.run(CODEX).code, Some(0), "{}", job.log());
    job.kill_machine(None);
    assert!(!scene.is_live(), "the other test does not need the watch");
}

#[test]
fn run_saves_the_rotation_of_a_lost_machine() {
    let scene = Scene::on_vault(&Login::stale());
    let mut job = scene.job();
    let _model = scene.stub().hold(Endpoint::Model);
    let address = scene.address();
    let with = [
        ("store", &*address),
        ("run", CODEX),
        ("rotate-first", "false"),
    ];
    let step = job.start_uses(&with);
    wait_for_model_call(&scene);
    scene.wait_until_live();
    job.kill_machine(Some(step));
    assert!(scene.is_live());
}

#[test]
fn a_failing_command_fails_the_step_and_keeps_the_rotation() {
    let scene = Scene::on_a_file(&Login::stale());
    let mut job = scene.job();
    let run = format!("{CODEX} >output\nexit 3");
    let step = job.uses(&[
        ("store", &scene.address()),
        ("run", &run),
        ("rotate-first", "false"),
    ]);
    assert_eq!(step.code, Some(3), "{}", job.log());
    assert_eq!(step.outputs["outcome"], "persisted");
    assert_clean_end(&scene, &mut job);
    assert!(scene.is_live());
}

#[test]
fn an_unreachable_store_makes_an_annotation_with_the_next_step() {
    let scene = Scene::on_a_file(&Login::fresh());
    let mut job = scene.job();
    let step = job.uses(&[("store", "file:///nowhere/login.json")]);
    assert_eq!(step.code, Some(125), "{}", job.log());
    assert_eq!(step.outputs["outcome"], "refused");
    let annotations = job.with_console(|console| console.annotations.clone());
    let [(level, text)] = &annotations[..] else {
        panic!("one annotation: {annotations:?}");
    };
    assert_eq!(level, "error");
    assert!(text.contains("next: create the folder"), "{text}");
    assert!(step.summary.contains("- next: create the folder"));
    assert_clean_end(&scene, &mut job);
}

#[test]
fn the_seed_input_fills_only_an_empty_store() {
    let login = Login::fresh();
    let scene = Scene::on_a_file(&login);
    let Scene::File(ferry, _) = &scene else {
        panic!("expected a file store");
    };
    fs::remove_file(ferry.store_file()).expect("a seeded store");
    let other = Login::new("another-account", 1, login.issued, rig::ACCESS_LIFETIME);
    for seed in [&login, &other] {
        let mut job = scene.job();
        let step = job.uses(&[
            ("store", &scene.address()),
            ("seed", &seed.auth_json()),
            ("run", "env >seen"),
        ]);
        assert_eq!(step.code, Some(0), "{}", job.log());
        assert_eq!(scene.stored(), login.auth_json().as_bytes());
        assert_clean_end(&scene, &mut job);
    }
}

#[test]
fn access_only_places_no_refresh_token() {
    let login = Login::fresh();
    let scene = Scene::on_a_file(&login);
    let mut job = scene.job();
    let step = job.uses(&[("store", &scene.address()), ("access-only", "true")]);
    assert_eq!(step.code, Some(0), "{}", job.log());
    assert!(job.processes().is_empty(), "access-only needs no watch");
    let placed = fs::read_to_string(job.runner.auth_file()).expect("placed");
    assert!(!placed.contains(&login.refresh_token));
    assert_eq!(job.run(CODEX).code, Some(0), "{}", job.log());
    assert_clean_end(&scene, &mut job);
    assert_eq!(scene.stored(), login.auth_json().as_bytes());
}

#[test]
fn a_scheduled_job_rotates_only_a_due_login() {
    let scene = Scene::on_vault(&Login::ending_in(time::Duration::days(1)));
    for rotated in ["true", "false"] {
        let mut job = scene.job();
        let step = job.uses(&[("store", &scene.address()), ("refresh", "3d")]);
        assert_eq!(step.code, Some(0), "{}", job.log());
        assert_eq!(step.outputs["rotated"], rotated, "{:?}", step.outputs);
        assert_clean_end(&scene, &mut job);
    }
    assert_eq!(scene.stub().count(What::is_rotation), 1);
    assert_eq!(scene.stub().count(What::is_model_call), 0);
    assert!(scene.is_live());
}

#[test]
fn a_separate_home_is_set_for_later_steps() {
    let scene = Scene::on_a_file(&Login::fresh());
    let mut job = scene.job();
    let home = job.temp().join("codex");
    let config = job.runner.codex_home().join("config.toml");
    fs::create_dir(&home).expect("disk space");
    fs::copy(config, home.join("config.toml")).expect("disk space");
    job.run(&format!("chmod 700 {}", home.display()));
    let with = home.display().to_string();
    job.uses(&[("store", &scene.address()), ("codex-home", &with)]);
    assert!(home.join("auth.json").exists(), "{}", job.log());
    let run = job.run(&format!("echo \"$CODEX_HOME\"; {CODEX}"));
    assert_eq!(run.code, Some(0), "{}", job.log());
    assert_clean_end(&scene, &mut job);
    assert!(!home.join("auth.json").exists());
}

#[test]
fn every_token_is_masked_and_the_command_sends_no_workflow_commands() {
    let scene = Scene::on_a_file(&Login::stale());
    let mut job = scene.job();
    // An agent that prints its login, after a prefix on the same line, before and after the rotation,
    // and that tries to stop workflow commands.
    let run = format!(
        r#"echo '::stop-commands::of-the-agent'
        printf 'prefix: '
        cat "$CODEX_HOME/auth.json"
        {CODEX}
        sleep 1
        cat "$CODEX_HOME/auth.json"
        echo
        echo '::error::of-the-agent'"#
    );
    let step = job.uses(&[
        ("store", &scene.address()),
        ("run", &run),
        ("rotate-first", "false"),
    ]);
    assert_eq!(step.code, Some(0), "{}", job.log());
    let log = job.log();
    assert_eq!(log.matches("refresh_token").count(), 2, "{log}");
    assert!(
        log.contains("::error::of-the-agent"),
        "not logged as text: {log}"
    );
    job.with_console(|console| {
        assert!(console.annotations.is_empty(), "{:?}", console.annotations);
        let masks = console.masks();
        assert!(masks.iter().all(|mask| !mask.contains('{')), "no JSON");
    });
    assert_clean_end(&scene, &mut job);
}

#[test]
fn action_variables_are_hidden_from_the_command() {
    let scene = Scene::on_vault(&Login::fresh());
    let mut job = scene.job();
    let step = job.uses(&[("store", &scene.address()), ("run", "env >seen")]);
    assert_eq!(step.code, Some(0), "{}", job.log());
    let seen = fs::read_to_string(job.runner.work().join("seen")).expect("written");
    for name in ["INPUT_", "STATE_", "ACTIONS_", "GITHUB_STATE"] {
        let shown = seen.lines().find(|line| line.starts_with(name));
        assert_eq!(shown, None);
    }
    assert!(seen.contains("GITHUB_OUTPUT="), "GITHUB_OUTPUT must stay");
    assert_clean_end(&scene, &mut job);
}

#[test]
fn the_token_search_finds_a_planted_token() {
    let login = Login::fresh();
    let scene = Scene::on_a_file(&login);
    let mut job = scene.job();
    for place in ["home/planted", "work/planted", "temp/planted"] {
        let place = job.runner.root().join(place);
        fs::write(&place, format!("x{}x", login.refresh_token)).expect("disk space");
        assert_eq!(job.traces(), [place.display().to_string()]);
        fs::remove_file(place).expect("written");
    }
    assert_eq!(job.traces(), Vec::<String>::new());
    job.run(&format!("echo {}", login.refresh_token));
    assert_eq!(job.traces(), ["the log"]);
}

/// Waits until the login is rotated and Codex has called the model.
fn wait_for_model_call(scene: &Scene) {
    let stub = scene.stub();
    stub.wait_for(Duration::from_mins(3), What::is_rotation);
    wait_until("Codex has called the model", || {
        stub.count(What::is_model_call) > 0
    });
}

/// Ends a job, and asserts that no process, auth file or token is left.
#[track_caller]
pub(crate) fn assert_clean_end(scene: &Scene, job: &mut Job) {
    for post in job.end_of_job() {
        assert_eq!(post.code, Some(0), "{}", job.log());
    }
    assert_eq!(job.processes(), [0_u32; 0]);
    assert!(!job.runner.auth_file().exists());
    scene.assert_no_token_left(job);
}
