//! A rotation without a model call, on a new machine.

use std::{
    fs,
    process::Stdio,
    time::{Duration, Instant},
};

use rig::{AppServer, Codex, Login, Runner, Stub, What};

use crate::scene::Scene;

/// Rotates a login and returns the duration.
pub(crate) type Refresh = fn(&Scene, &Codex) -> Duration;

/// Requests the rotation directly from Codex, as authferry does.
pub(crate) fn by_codex(_: &Scene, codex: &Codex) -> Duration {
    let (login, stub, runner) = machine(codex);
    let login = login.auth_json();
    runner.place(&login).expect("room");
    let began = Instant::now();
    let mut server = AppServer::start(&runner).expect("a server");
    server.auth_status(false).expect("a reply");
    let now = fs::read_to_string(runner.auth_file()).expect("an auth file");
    if now == login {
        server.auth_status(true).expect("a reply");
    }
    server.finish().expect("a server that ends");
    let took = began.elapsed();
    assert_eq!(stub.count(What::is_rotation), 1, "{:#?}", stub.events());
    took
}

/// Rotates with authferry: lease, Codex, swap.
pub(crate) fn by_authferry(scene: &Scene, codex: &Codex) -> Duration {
    let (login, stub, runner) = machine(codex);
    let [store, file] = ["login.json", "to-be-seeded.json"].map(|name| runner.root().join(name));
    fs::write(&file, login.auth_json()).expect("room");
    let authferry = |arguments: &[&str]| {
        let mut command = runner.command(scene.program());
        command
            .env("AUTHFERRY_STORE", format!("file://{}", store.display()))
            .arg("-q")
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let began = Instant::now();
        let status = command.status().expect("a program");
        let took = began.elapsed();
        assert!(status.success(), "{command:?} failed");
        took
    };
    authferry(&["seed", &file.display().to_string()]);
    let took = authferry(&["refresh"]);
    assert_eq!(stub.count(What::is_rotation), 1, "{:#?}", stub.events());
    took
}

/// A login that expires in an hour, which Codex rotates only on request.
fn machine(codex: &Codex) -> (Login, Stub, Runner) {
    let login = Login::ending_in(time::Duration::HOUR);
    let stub = Stub::start(&login);
    let runner = Runner::new(&stub, codex).expect("room for a runner");
    (login, stub, runner)
}
