//! Which program the action downloads and starts.

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
use crate::jobs::assert_clean_end;
use crate::scene::Scene;

/// The release target of the machines that run these tests.
const TARGET: &str = "x86_64-unknown-linux-musl";

#[test]
fn the_action_knows_exactly_the_programs_of_a_release() {
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
fn a_downloaded_release_must_match_the_digest_table() {
    let scene = Scene::on_a_file(&Login::fresh());
    for code in [0, 124] {
        let mut job = scene.job();
        publish(&mut job, "9.9.9");
        if code != 0 {
            let table = json!({"9.9.9": {TARGET: "0".repeat(64)}});
            fs::write(job.action.join("releases.json"), table.to_string()).expect("disk space");
        }
        let step = job.uses(&[
            ("store", &scene.address()),
            ("version", "9.9.9"),
            ("run", "touch ran"),
        ]);
        assert_eq!(step.code, Some(code), "{}", job.log());
        assert_eq!(job.runner.work().join("ran").exists(), code == 0);
        assert_clean_end(&scene, &mut job);
    }
}

#[test]
fn a_release_without_a_digest_is_not_downloaded() {
    let scene = Scene::on_a_file(&Login::fresh());
    let mut job = scene.job();
    let step = job.uses(&[("store", &scene.address()), ("version", "9.9.9")]);
    assert_eq!(step.code, Some(124), "{}", job.log());
    assert!(job.log().contains("give it as `sha256`"), "{}", job.log());
    assert_clean_end(&scene, &mut job);
}

#[test]
fn a_program_on_the_runner_must_match_its_digest() {
    let scene = Scene::on_a_file(&Login::fresh());
    let right = digest(&scene.job(), under_test());
    for (sha256, code) in [(right.to_uppercase(), 0), ("0".repeat(64), 124)] {
        let mut job = scene.job();
        let address = scene.address();
        let with = [("store", &*address), ("sha256", &*sha256), ("run", "true")];
        let step = job.uses(&with);
        assert_eq!(step.code, Some(code), "{}", job.log());
        assert_clean_end(&scene, &mut job);
    }
}

#[test]
fn post_does_not_start_a_replaced_program() {
    let scene = Scene::on_a_file(&Login::fresh());
    let mut job = scene.job();
    let program = job.temp().join("authferry");
    fs::copy(under_test(), &program).expect("disk space");
    let path = program.display().to_string();
    let step = job.start_action(&[("store", &scene.address()), ("path", &path)], &[]);
    assert_eq!(job.finish(step).code, Some(0), "{}", job.log());
    // A running program cannot be overwritten, but replaced.
    fs::remove_file(&program).expect("ours");
    let marker = job.temp().join("started");
    fs::write(&program, format!("#!/bin/sh\ntouch {}\n", marker.display())).expect("disk space");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).expect("ours");
    let [post] = &job.end_of_job()[..] else {
        panic!("expected one post step");
    };
    assert_eq!(post.code, Some(1), "{}", job.log());
    assert!(!marker.exists());
    let annotations = job.with_console(|console| console.annotations.clone());
    assert!(
        annotations[0]
            .1
            .contains("has changed since the job started"),
        "{annotations:?}"
    );
}

#[test]
fn the_state_holds_only_the_program_its_digest_and_the_home() {
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
    assert_clean_end(&scene, &mut job);
}

#[test]
fn invalid_inputs_are_refused() {
    let scene = Scene::on_a_file(&Login::fresh());
    let address = scene.address();
    let invalid: [&[_]; 2] = [
        &[("store", &*address), ("access-only", "yes")],
        &[("store", &*address), ("run", "true"), ("refresh", "3d")],
    ];
    for with in invalid {
        let mut job = scene.job();
        assert_eq!(job.uses(with).code, Some(124), "{}", job.log());
        assert_clean_end(&scene, &mut job);
    }
}

/// Publishes a release for the machine of one job.
pub(crate) fn publish(job: &mut Job, version: &str) {
    let path = format!("/acme/authferry/releases/download/v{version}/authferry-{TARGET}");
    let server = serve(path, fs::read(under_test()).expect("the program"));
    job.env.insert("GITHUB_SERVER_URL".to_owned(), server);
    let table = json!({version: {TARGET: digest(job, under_test())}});
    fs::write(job.action.join("releases.json"), table.to_string()).expect("disk space");
}

/// The SHA-256 of a file, by `sha256sum`.
fn digest(job: &Job, file: &str) -> String {
    let output = rig::finish(job.runner.command("sha256sum").arg(file));
    let stdout = String::from_utf8_lossy(&output.stdout);
    stdout
        .split_whitespace()
        .next()
        .expect("a digest")
        .to_owned()
}

/// Serves one file under one path until the tests end, and returns the address.
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
