//! Ownership of `CODEX_HOME`: each job gets a separate home, the post step waits for a Codex in the
//! background, and no step removes a login that another step restored.

use std::{
    fs::{self, File},
    thread,
    time::Duration,
};

use rig::{Endpoint, Login, What};

use crate::ferry::wait_until;
use crate::jobs::{CODEX, assert_clean_end};
use crate::scene::Scene;

#[test]
fn a_nested_run_leaves_the_login_to_later_steps() {
    let scene = Scene::on_a_file(&Login::stale());
    let mut job = scene.job();
    let address = scene.address();
    let with = [("store", &*address)];
    assert_eq!(job.uses(&with).code, Some(0), "{}", job.log());
    assert_eq!(job.run(CODEX).code, Some(0), "{}", job.log());
    let nested = job.uses(&[with[0], ("run", CODEX)]);
    assert_eq!(nested.code, Some(0), "{}", job.log());
    assert_eq!(nested.outputs["outcome"], "kept");
    assert_eq!(job.run(CODEX).code, Some(0), "{}", job.log());
    assert_clean_end(&scene, &mut job);
    assert_eq!(scene.stub().count(What::is_rotation), 1);
    assert!(scene.is_live());
}

#[test]
fn post_waits_for_a_codex_left_in_the_background() {
    let scene = Scene::on_a_file(&Login::stale());
    let mut job = scene.job();
    let address = scene.address();
    let with = [("store", &*address), ("rotate-first", "false")];
    assert_eq!(job.uses(&with).code, Some(0), "{}", job.log());
    let reply = scene.stub().hold(Endpoint::Token);
    let left = format!("({CODEX} </dev/null >/dev/null 2>&1 &)");
    assert_eq!(job.run(&left).code, Some(0), "{}", job.log());
    scene
        .stub()
        .wait_for(Duration::from_mins(3), What::is_rotation);
    let home = job.runner.codex_home();
    let releases_reply = thread::spawn(move || {
        wait_until("the watch has handed over to the post step", || {
            let is_locked = File::open(&home).expect("a home").try_lock().is_err();
            is_locked && !home.join("authferry-watch").exists()
        });
        drop(reply);
    });
    assert_clean_end(&scene, &mut job);
    releases_reply.join().expect("no panic");
    assert!(scene.is_live(), "{}", job.log());
}

#[test]
fn a_job_in_the_home_of_another_job_is_refused_and_removes_nothing() {
    let scene = Scene::on_a_file(&Login::stale());
    let mut first = scene.job();
    let address = scene.address();
    let with = [("store", &*address), ("rotate-first", "false")];
    assert_eq!(first.uses(&with).code, Some(0), "{}", first.log());
    let reply = scene.stub().hold(Endpoint::Token);
    let step = first.start_run(&format!("{CODEX}\ntrue"));
    scene
        .stub()
        .wait_for(Duration::from_mins(3), What::is_rotation);

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

    drop(reply);
    assert_eq!(first.finish(step).code, Some(0), "{}", first.log());
    assert_clean_end(&scene, &mut first);
    assert!(scene.is_live());
}

#[test]
fn each_job_gets_a_separate_home_unless_it_names_one() {
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
        assert_clean_end(&scene, &mut job);
        assert!(!job.temp().join("authferry-codex/auth.json").exists());
        let others = fs::read_dir(job.runner.codex_home()).expect("a folder");
        assert_eq!(others.count(), 1, "only the file that was there before");
    }
    assert!(scene.is_live());
}

#[test]
fn a_config_does_not_overwrite_the_config_of_a_named_home() {
    let scene = Scene::on_a_file(&Login::fresh());
    let mut job = scene.job();
    fs::write(job.runner.work().join("config.toml"), "").expect("disk space");
    let before = fs::read(job.runner.codex_home().join("config.toml")).expect("a file");
    let step = job.uses(&[("store", &scene.address()), ("config", "config.toml")]);
    assert_eq!(step.code, Some(124), "{}", job.log());
    let after = fs::read(job.runner.codex_home().join("config.toml")).expect("a file");
    assert_eq!(after, before);
    assert_clean_end(&scene, &mut job);
}
