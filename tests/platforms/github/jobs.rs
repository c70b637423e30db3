//! What becomes of a login in the jobs of a workflow.

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
        assert_well_ended(scene, &mut job);
    }
    assert_eq!(scene.stub().count(What::is_rotation), 1);
    assert!(scene.is_live());
}

fn three_jobs_set_up(scene: &Scene) {
    for number in 1..=3 {
        let mut job = scene.job();
        // Codex rotates by itself, in a step of the user's own.
        let main = job.uses(&[("store", &scene.address()), ("rotate-first", "false")]);
        assert_eq!(main.code, Some(0), "{}", job.log());
        assert_eq!(main.outputs["outcome"], "restored");
        assert!(main.summary.is_empty(), "the end is told once");
        let codex = job.run(CODEX);
        assert_eq!(codex.code, Some(0), "{}", job.log());
        let [post] = &job.end_of_job()[..] else {
            panic!("one step has a post");
        };
        assert_eq!(post.code, Some(0), "{}", job.log());
        let rotated = if number == 1 { "true" } else { "false" };
        let row = format!("| rotated | {rotated} |");
        assert!(post.summary.contains(&row), "{}", post.summary);
        assert_well_ended(scene, &mut job);
    }
    assert_eq!(scene.stub().count(What::is_rotation), 1);
    assert!(scene.is_live());
}

#[test]
fn run_that_is_cancelled_in_the_middle_of_the_model_call_keeps_the_rotation() {
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
    in_the_model_call(&scene);
    let run = job.cancel(step);
    drop(model);
    assert_ne!(run.code, None, "it ended by itself: {}", job.log());
    assert_ne!(run.code, Some(0));
    assert_well_ended(&scene, &mut job);
    assert!(scene.is_live(), "{}", job.log());
}

#[test]
fn a_step_that_is_cancelled_in_the_middle_of_the_model_call_keeps_the_rotation() {
    let scene = Scene::on_a_file(&Login::stale());
    let mut job = scene.job();
    job.uses(&[("store", &scene.address()), ("rotate-first", "false")]);
    let model = scene.stub().hold(Endpoint::Model);
    let step = job.start_run(CODEX);
    in_the_model_call(&scene);
    job.cancel(step);
    drop(model);
    assert_well_ended(&scene, &mut job);
    assert!(scene.is_live(), "{}", job.log());
}

#[test]
fn what_codex_writes_after_the_watch_is_lost_is_persisted_by_post() {
    let login = Login::fresh();
    let next = successor(&login);
    let scene = Scene::on_a_file(&login);
    let mut job = scene.job();
    job.uses(&[("store", &scene.address())]);
    let [watch] = job.processes()[..] else {
        panic!("the watch alone is there");
    };
    // As the kernel does when memory is short: the steps of a runner go first.
    job.run(&format!("kill -KILL {watch}"));
    job.runner.place(&next.auth_json()).expect("room");
    assert_well_ended(&scene, &mut job);
    assert_eq!(scene.stored(), next.auth_json().as_bytes());
}

#[test]
fn a_machine_that_is_lost_leaves_the_rotation_in_the_store_because_of_the_watch() {
    let scene = Scene::on_a_file(&Login::stale());
    let mut job = scene.job();
    job.uses(&[("store", &scene.address()), ("rotate-first", "false")]);
    let _model = scene.stub().hold(Endpoint::Model);
    let step = job.start_run(CODEX);
    in_the_model_call(&scene);
    scene.wait_until_live();
    job.lose(Some(step));
    assert!(scene.is_live());
}

#[test]
fn without_the_watch_the_rotation_is_lost_with_the_machine() {
    let scene = Scene::on_a_file(&Login::stale());
    let mut job = scene.job();
    job.uses(&[("store", &scene.address()), ("rotate-first", "false")]);
    let [watch] = job.processes()[..] else {
        panic!("the watch alone is there");
    };
    job.run(&format!("kill -KILL {watch}"));
    assert_eq!(job.run(CODEX).code, Some(0), "{}", job.log());
    job.lose(None);
    assert!(!scene.is_live(), "then what kept it in the other test?");
}

#[test]
fn a_machine_that_is_lost_leaves_the_rotation_in_the_store_because_of_run() {
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
    in_the_model_call(&scene);
    scene.wait_until_live();
    job.lose(Some(step));
    assert!(scene.is_live());
}

#[test]
fn a_command_that_fails_fails_the_step_and_keeps_the_rotation() {
    let scene = Scene::on_a_file(&Login::stale());
    let mut job = scene.job();
    let run = format!("{CODEX} >said\nexit 3");
    let step = job.uses(&[
        ("store", &scene.address()),
        ("run", &run),
        ("rotate-first", "false"),
    ]);
    assert_eq!(step.code, Some(3), "{}", job.log());
    assert_eq!(step.outputs["outcome"], "persisted");
    assert_well_ended(&scene, &mut job);
    assert!(scene.is_live());
}

#[test]
fn a_store_that_is_out_of_reach_is_an_annotation_with_the_next_step() {
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
    assert!(text.contains("next: make the folder"), "{text}");
    assert!(step.summary.contains("- next: make the folder"));
    assert_well_ended(&scene, &mut job);
}

#[test]
fn an_empty_store_is_filled_from_the_secret_and_a_filled_one_is_not_touched() {
    let login = Login::fresh();
    let scene = Scene::on_a_file(&login);
    let Scene::File(ferry, _) = &scene else {
        panic!("it is a file");
    };
    fs::remove_file(ferry.store_file()).expect("it was seeded");
    let other = Login::new("somebody-else", 1, login.issued, rig::ACCESS_LIFETIME);
    for seed in [&login, &other] {
        let mut job = scene.job();
        let step = job.uses(&[
            ("store", &scene.address()),
            ("seed", &seed.auth_json()),
            ("run", "env >seen"),
        ]);
        assert_eq!(step.code, Some(0), "{}", job.log());
        assert_eq!(scene.stored(), login.auth_json().as_bytes());
        assert_well_ended(&scene, &mut job);
    }
}

#[test]
fn a_login_can_be_lent_without_its_refresh_token() {
    let login = Login::fresh();
    let scene = Scene::on_a_file(&login);
    let mut job = scene.job();
    let step = job.uses(&[("store", &scene.address()), ("access-only", "true")]);
    assert_eq!(step.code, Some(0), "{}", job.log());
    assert!(job.processes().is_empty(), "there is nothing to watch");
    let lent = fs::read_to_string(job.runner.auth_file()).expect("placed");
    assert!(!lent.contains(&login.refresh_token));
    assert_eq!(job.run(CODEX).code, Some(0), "{}", job.log());
    assert_well_ended(&scene, &mut job);
    assert_eq!(scene.stored(), login.auth_json().as_bytes());
}

#[test]
fn a_scheduled_job_rotates_a_login_that_is_due_and_nothing_else() {
    let scene = Scene::on_vault(&Login::ending_in(time::Duration::days(1)));
    for rotated in ["true", "false"] {
        let mut job = scene.job();
        let step = job.uses(&[("store", &scene.address()), ("refresh", "3d")]);
        assert_eq!(step.code, Some(0), "{}", job.log());
        assert_eq!(step.outputs["rotated"], rotated, "{:?}", step.outputs);
        assert_well_ended(&scene, &mut job);
    }
    assert_eq!(scene.stub().count(What::is_rotation), 1);
    assert_eq!(scene.stub().count(What::is_model_call), 0);
    assert!(scene.is_live());
}

#[test]
fn a_home_of_its_own_is_there_for_the_steps_that_follow() {
    let scene = Scene::on_a_file(&Login::fresh());
    let mut job = scene.job();
    let home = job.temp().join("codex");
    let config = job.runner.codex_home().join("config.toml");
    fs::create_dir(&home).expect("room");
    fs::copy(config, home.join("config.toml")).expect("room");
    job.run(&format!("chmod 700 {}", home.display()));
    let with = home.display().to_string();
    job.uses(&[("store", &scene.address()), ("codex-home", &with)]);
    assert!(home.join("auth.json").exists(), "{}", job.log());
    let said = job.run(&format!("echo \"$CODEX_HOME\"; {CODEX}"));
    assert_eq!(said.code, Some(0), "{}", job.log());
    assert_well_ended(&scene, &mut job);
    assert!(!home.join("auth.json").exists());
}

#[test]
fn every_token_is_masked_and_the_command_gives_the_runner_no_orders() {
    let scene = Scene::on_a_file(&Login::stale());
    let mut job = scene.job();
    // An agent that prints its login, on a line that it has begun already, before the
    // rotation and after it; and that wants the runner to stop listening.
    let run = format!(
        r#"echo '::stop-commands::of-the-agent'
        printf 'begun: '
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
    let said = job.log();
    assert_eq!(said.matches("refresh_token").count(), 2, "{said}");
    assert!(said.contains("::error::of-the-agent"), "as text: {said}");
    job.with_console(|console| {
        assert!(console.annotations.is_empty(), "{:?}", console.annotations);
        let masks = console.masks();
        assert!(masks.iter().all(|mask| !mask.contains('{')), "no JSON");
    });
    assert_well_ended(&scene, &mut job);
}

#[test]
fn what_only_actions_get_is_not_for_the_command() {
    let scene = Scene::on_vault(&Login::fresh());
    let mut job = scene.job();
    let step = job.uses(&[("store", &scene.address()), ("run", "env >seen")]);
    assert_eq!(step.code, Some(0), "{}", job.log());
    let seen = fs::read_to_string(job.runner.work().join("seen")).expect("written");
    for name in ["INPUT_", "STATE_", "ACTIONS_", "GITHUB_STATE"] {
        let shown = seen.lines().find(|line| line.starts_with(name));
        assert_eq!(shown, None);
    }
    assert!(seen.contains("GITHUB_OUTPUT="), "like any other step");
    assert_well_ended(&scene, &mut job);
}

#[test]
fn a_planted_token_is_found_wherever_it_is() {
    let login = Login::fresh();
    let scene = Scene::on_a_file(&login);
    let mut job = scene.job();
    for place in ["home/planted", "work/planted", "temp/planted"] {
        let place = job.runner.root().join(place);
        fs::write(&place, format!("x{}x", login.refresh_token)).expect("room");
        assert_eq!(job.traces(), [place.display().to_string()]);
        fs::remove_file(place).expect("written");
    }
    assert_eq!(job.traces(), Vec::<String>::new());
    job.run(&format!("echo {}", login.refresh_token));
    assert_eq!(job.traces(), ["the log"]);
}

/// The login is rotated, and Codex waits for the model.
fn in_the_model_call(scene: &Scene) {
    let stub = scene.stub();
    stub.wait_for(Duration::from_mins(1), What::is_rotation);
    wait_until("the model is asked", || stub.count(What::is_model_call) > 0);
}

/// Ends a job; nothing and nobody may be left of the login.
#[track_caller]
pub(crate) fn assert_well_ended(scene: &Scene, job: &mut Job) {
    for post in job.end_of_job() {
        assert_eq!(post.code, Some(0), "{}", job.log());
    }
    assert_eq!(job.processes(), [0_u32; 0]);
    assert!(!job.runner.auth_file().exists());
    scene.assert_traceless(job);
}
