//! Which program the action starts.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    thread,
};

use rig::Login;
use serde_json::json;

use crate::ferry::under_test;
use crate::job::Job;
use crate::jobs::assert_well_ended;
use crate::scene::Scene;

/// As a release names the program for the machines that these tests run on.
const TARGET: &str = "x86_64-unknown-linux-musl";

#[test]
fn the_action_asks_for_just_the_programs_that_a_release_has() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let [release, launcher] = [
        ".github/workflows/release.yml",
        "deploy/github/launcher.mjs",
    ]
    .map(|file| fs::read_to_string(root.join(file)).expect("a text"));
    let between = |text: &str, start: &str, end: char| -> BTreeSet<String> {
        let parts = text.split(start).skip(1);
        let ends = parts.filter_map(|part| part.split(end).next());
        ends.map(str::to_owned).collect()
    };
    let built = between(&release, "{ target: ", ',');
    let table = launcher.split("const TARGETS = {").nth(1).expect("a table");
    let table = table.split('}').next().expect("its end");
    let asked: BTreeSet<_> = between(table, "': '", '\'');
    assert_eq!(built.len(), 4, "{release}");
    assert_eq!(asked, built);
}

#[test]
fn a_release_is_downloaded_if_it_is_the_one_in_the_table() {
    let scene = Scene::on_a_file(&Login::fresh());
    for code in [0, 124] {
        let mut job = scene.job();
        publish(&mut job, "9.9.9");
        if code != 0 {
            let table = json!({"9.9.9": {TARGET: "0".repeat(64)}});
            fs::write(job.action.join("releases.json"), table.to_string()).expect("room");
        }
        let step = job.uses(&[
            ("store", &scene.address()),
            ("version", "9.9.9"),
            ("run", "touch ran"),
        ]);
        assert_eq!(step.code, Some(code), "{}", job.log());
        assert_eq!(job.runner.work().join("ran").exists(), code == 0);
        assert_well_ended(&scene, &mut job);
    }
}

#[test]
fn a_release_that_is_not_in_the_table_is_not_even_downloaded() {
    let scene = Scene::on_a_file(&Login::fresh());
    let mut job = scene.job();
    let step = job.uses(&[("store", &scene.address()), ("version", "9.9.9")]);
    assert_eq!(step.code, Some(124), "{}", job.log());
    assert!(job.log().contains("give it as `sha256`"), "{}", job.log());
    assert_well_ended(&scene, &mut job);
}

#[test]
fn a_program_on_the_runner_has_to_be_the_one_that_was_meant() {
    let scene = Scene::on_a_file(&Login::fresh());
    let right = digest(&scene.job(), under_test());
    for (sha256, code) in [(right.to_uppercase(), 0), ("0".repeat(64), 124)] {
        let mut job = scene.job();
        let address = scene.address();
        let with = [("store", &*address), ("sha256", &*sha256), ("run", "true")];
        let step = job.uses(&with);
        assert_eq!(step.code, Some(code), "{}", job.log());
        assert_well_ended(&scene, &mut job);
    }
}

#[test]
fn a_program_that_was_changed_in_the_job_is_not_started_at_its_end() {
    let scene = Scene::on_a_file(&Login::fresh());
    let mut job = scene.job();
    let program = job.temp().join("authferry");
    fs::copy(under_test(), &program).expect("room");
    let path = program.display().to_string();
    let step = job.start_action(&[("store", &scene.address()), ("path", &path)], &[]);
    assert_eq!(job.finish(step).code, Some(0), "{}", job.log());
    // What is running cannot be written to, but replaced.
    fs::remove_file(&program).expect("ours");
    let mark = job.temp().join("started");
    fs::write(&program, format!("#!/bin/sh\ntouch {}\n", mark.display())).expect("room");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).expect("ours");
    let [post] = &job.end_of_job()[..] else {
        panic!("one step has a post");
    };
    assert_eq!(post.code, Some(1), "{}", job.log());
    assert!(!mark.exists());
    let annotations = job.with_console(|console| console.annotations.clone());
    assert!(
        annotations[0].1.contains("is not the program any more"),
        "{annotations:?}"
    );
}

#[test]
fn the_state_holds_the_program_its_digest_and_the_home_and_nothing_else() {
    let scene = Scene::on_vault(&Login::fresh());
    let mut job = scene.job();
    job.uses(&[("store", &scene.address())]);
    let folder = job.temp().join("_runner_file_commands");
    let states = fs::read_dir(folder).expect("a folder").filter_map(|entry| {
        let path = entry.expect("an entry").path();
        let name = path.file_name()?.to_str()?.to_owned();
        name.starts_with("github_state")
            .then(|| fs::read_to_string(path))
    });
    let states: Vec<_> = states.map(|state| state.expect("a file")).collect();
    let digest = digest(&job, under_test());
    let home = job.runner.codex_home();
    let state = format!(
        "program={}\nsha256={digest}\nhome={}\n",
        under_test(),
        home.display()
    );
    assert_eq!(states, [state]);
    assert_well_ended(&scene, &mut job);
}

#[test]
fn what_is_misspelt_is_refused() {
    let scene = Scene::on_a_file(&Login::fresh());
    let address = scene.address();
    let ways: [&[_]; 2] = [
        &[("store", &*address), ("access-only", "yes")],
        &[("store", &*address), ("run", "true"), ("refresh", "3d")],
    ];
    for with in ways {
        let mut job = scene.job();
        assert_eq!(job.uses(with).code, Some(124), "{}", job.log());
        assert_well_ended(&scene, &mut job);
    }
}

/// Publishes a release, for the machine of one job.
pub(crate) fn publish(job: &mut Job, version: &str) {
    let path = format!("/acme/authferry/releases/download/v{version}/authferry-{TARGET}");
    let server = serve(path, fs::read(under_test()).expect("the program"));
    job.env.insert("GITHUB_SERVER_URL".to_owned(), server);
    let table = json!({version: {TARGET: digest(job, under_test())}});
    fs::write(job.action.join("releases.json"), table.to_string()).expect("room");
}

/// The digest of a file, by a program of the system's.
fn digest(job: &Job, file: &str) -> String {
    let output = rig::finish(job.runner.command("sha256sum").arg(file));
    let said = String::from_utf8_lossy(&output.stdout);
    said.split_whitespace().next().expect("a digest").to_owned()
}

/// Serves one file under one path, for as long as the tests last; returns the address.
fn serve(path: String, bytes: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a socket");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a client");
            let mut lines = BufReader::new(stream.try_clone().expect("a socket")).lines();
            let request = lines.next().expect("a request").expect("a text");
            while lines
                .next()
                .is_some_and(|line| line.is_ok_and(|it| !it.is_empty()))
            {}
            let (status, body) = if request.split(' ').nth(1) == Some(&*path) {
                ("200 OK", &*bytes)
            } else {
                ("404 Not Found", &b""[..])
            };
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).expect("a reader");
            stream.write_all(body).expect("a reader");
        }
    });
    format!("http://{address}")
}
