//! Who owns the home of Codex: a job has one of its own, a Codex that a step leaves behind is waited
//! for, and what one step has restored no other one takes away.

use std::{
    fs::{self, File},
    thread,
    time::Duration,
};

use rig::{Endpoint, Login, What};

use crate::ferry::wait_until;
use crate::jobs::{CODEX, assert_well_ended};
use crate::scene::Scene;

#[test]
fn a_run_within_a_job_that_is_set_up_leaves_the_login_to_the_steps_that_follow() {
    let scene = Scene::on_a_file(&Login::stale());
    let mut job = scene.job();
    let address = scene.address();
    let with = [("store", &*address)];
    assert_eq!(job.uses(&with).code, Some(0), "{}", job.log());
    assert_eq!(job.run(CODEX).code, Some(0), "{}", job.log());
    let within = job.uses(&[with[0], ("run", CODEX)]);
    assert_eq!(within.code, Some(0), "{}", job.log());
    assert_eq!(within.outputs["outcome"], "kept");
    assert_eq!(job.run(CODEX).code, Some(0), "{}", job.log());
    assert_well_ended(&scene, &mut job);
    assert_eq!(scene.stub().count(What::is_rotation), 1);
    assert!(scene.is_live());
}

#[test]
fn the_end_of_a_job_waits_for_a_codex_that_a_step_has_left_behind() {
    let scene = Scene::on_a_file(&Login::stale());
    let mut job = scene.job();
    let address = scene.address();
    let with = [("store", &*address), ("rotate-first", "false")];
    assert_eq!(job.uses(&with).code, Some(0), "{}", job.log());
    let answer = scene.stub().hold(Endpoint::Token);
    let left = format!("({CODEX} </dev/null >/dev/null 2>&1 &)");
    assert_eq!(job.run(&left).code, Some(0), "{}", job.log());
    scene
        .stub()
        .wait_for(Duration::from_mins(1), What::is_rotation);
    let home = job.runner.codex_home();
    let release = thread::spawn(move || {
        wait_until("the watch has made way for the end of the job", || {
            let is_locked = File::open(&home).expect("a home").try_lock().is_err();
            is_locked && !home.join("authferry-watch").exists()
        });
        drop(answer);
    });
    assert_well_ended(&scene, &mut job);
    release.join().expect("it was seen");
    assert!(scene.is_live(), "{}", job.log());
}

#[test]
fn a_job_in_the_home_of_another_one_is_refused_and_takes_nothing_away() {
    let scene = Scene::on_a_file(&Login::stale());
    let mut first = scene.job();
    let address = scene.address();
    let with = [("store", &*address), ("rotate-first", "false")];
    assert_eq!(first.uses(&with).code, Some(0), "{}", first.log());
    let answer = scene.stub().hold(Endpoint::Token);
    let step = first.start_run(&format!("{CODEX}\ntrue"));
    scene
        .stub()
        .wait_for(Duration::from_mins(1), What::is_rotation);

    let mut second = scene.job();
    let home = first.runner.codex_home().display().to_string();
    second.env.insert("CODEX_HOME".to_owned(), home);
    for more in [&[][..], &[("run", "true")]] {
        let refused = second.uses(&[&with[..], more].concat());
        assert_eq!(refused.code, Some(124), "{}", second.log());
        assert!(second.log().contains("is in use by"), "{}", second.log());
    }
    for post in second.end_of_job() {
        assert_eq!(post.code, Some(0), "{}", second.log());
    }
    assert!(first.runner.auth_file().exists(), "{}", second.log());

    drop(answer);
    assert_eq!(first.finish(step).code, Some(0), "{}", first.log());
    assert_well_ended(&scene, &mut first);
    assert!(scene.is_live());
}

#[test]
fn each_job_has_a_home_of_its_own_unless_it_names_one() {
    let scene = Scene::on_a_file(&Login::stale());
    for number in 1..=2 {
        let mut job = scene.job();
        job.env.insert("CODEX_HOME".to_owned(), String::new());
        let config = job.runner.codex_home().join("config.toml");
        let config = config.display().to_string();
        let address = scene.address();
        let with = [("store", &*address), ("config", &*config)];
        if number == 1 {
            let step = job.uses(&with);
            assert_eq!(step.code, Some(0), "{}", job.log());
            let home = job.temp().join("authferry-codex");
            assert_eq!(job.env["CODEX_HOME"], home.display().to_string());
            assert!(home.join("auth.json").exists());
            assert_eq!(job.run(CODEX).code, Some(0), "{}", job.log());
        }
        let step = job.uses(&[with[0], with[1], ("run", CODEX)]);
        assert_eq!(step.code, Some(0), "{}", job.log());
        assert_well_ended(&scene, &mut job);
        assert!(!job.temp().join("authferry-codex/auth.json").exists());
        let others = fs::read_dir(job.runner.codex_home()).expect("a folder");
        assert_eq!(others.count(), 1, "nothing but the file that was there");
    }
    assert!(scene.is_live());
}

#[test]
fn a_config_is_not_written_over_the_one_of_a_home_that_is_named() {
    let scene = Scene::on_a_file(&Login::fresh());
    let mut job = scene.job();
    fs::write(job.runner.work().join("config.toml"), "").expect("room");
    let before = fs::read(job.runner.codex_home().join("config.toml")).expect("there");
    let step = job.uses(&[("store", &scene.address()), ("config", "config.toml")]);
    assert_eq!(step.code, Some(124), "{}", job.log());
    let after = fs::read(job.runner.codex_home().join("config.toml")).expect("there");
    assert_eq!(after, before);
    assert_well_ended(&scene, &mut job);
}
