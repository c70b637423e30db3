//! The server fails over, seals, restarts or dies during a job.

use std::{
    fs,
    process::{Child, Stdio},
    sync::Arc,
    time::Duration,
};

use rig::{Direction, Login, OpenBao, Runner, Wire, WireAction, finish};
use serde_json::json;

use super::site::{Identity::GitHub, PATH, Site, written};
use crate::ferry::{assert_code, logins_kept, script, start, successor, wait_until};

/// Timeout for a job to reach a certain request.
const HOLD_TIMEOUT: Duration = Duration::from_secs(30);

/// In bytes: only a request with a login is longer.
const MAX_LEN_WITHOUT_LOGIN: usize = 1000;

#[test]
fn a_concurrent_reseed_is_not_overwritten() {
    reseed_during_job("put");
}

/// A patch keeps the stamp of the last writer next to the new login.
#[test]
fn a_concurrent_patch_is_not_overwritten() {
    reseed_during_job("patch");
}

#[test]
fn a_server_sealed_during_a_job_loses_no_login() {
    let scene = Scene::on(OpenBao::raft());
    let run = scene.start(&scene.site.server.addresses(), "2s");
    scene.site.server.seal(0);
    scene.resume_job();
    let output = run.wait_with_output().expect("our child");
    assert_code(&output, 120);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.to_lowercase().contains("sealed"), "{stderr}");

    let rescue_dir = scene.runner.work().join("rescue_dir");
    let [kept] = logins_kept(&rescue_dir)
        .try_into()
        .expect("one rescued login");
    let kept = fs::read_to_string(rescue_dir.join(kept)).expect("a file");
    assert_eq!(kept, scene.next.auth_json());
    let site = &scene.site;
    site.server.unseal(0);
    assert_eq!(site.stored(), scene.login.auth_json().as_bytes());
    assert_code(&site.seed(&scene.next, &["--replace"]), 0);
    assert_eq!(site.stored(), kept.as_bytes());
}

#[test]
fn a_server_unsealed_in_time_gets_the_login() {
    let scene = Scene::on(OpenBao::raft());
    let mut run = scene.start(&scene.site.server.addresses(), "1m");
    scene.site.server.seal(0);
    scene.resume_job();
    wait_until("the job's command has exited", || {
        scene.runner.work().join("over").exists()
    });
    assert!(
        run.try_wait().expect("our child").is_none(),
        "persist gave up"
    );
    scene.site.server.unseal(0);
    assert_code(&run.wait_with_output().expect("our child"), 0);
    scene.assert_written_once(0);
}

#[test]
fn a_restart_before_a_swap_is_applied_writes_it_once() {
    restart_during_swap(Direction::ToServer, 1);
}

#[test]
fn a_restart_after_a_swap_is_applied_writes_it_once() {
    restart_during_swap(Direction::ToClient, 2);
}

#[test]
fn a_leader_killed_before_a_swap_is_applied_writes_it_once() {
    kill_leader_during_swap(Direction::ToServer, 1);
}

#[test]
fn a_leader_killed_after_a_swap_is_applied_writes_it_once() {
    kill_leader_during_swap(Direction::ToClient, 2);
}

#[test]
fn a_paused_leader_writes_the_login_once() {
    let scene = Scene::on(OpenBao::cluster(3));
    let wire = scene.wire();
    let run = scene.start(&scene.addresses(&wire), "1m");
    scene.hold(&wire, Direction::ToClient);
    scene.resume_job();
    wire.wait_until_held(HOLD_TIMEOUT);
    scene.site.server.pause(0);
    let second = scene.site.server.leader_but(0);
    assert_code(&run.wait_with_output().expect("our child"), 0);
    scene.assert_written_once(second);
    scene.site.server.resume(0);
}

fn reseed_during_job(verb: &str) {
    let seeded = Login::stale();
    let login = successor(&seeded);
    let site = Site::new(rig::V0_169, &seeded).seeded(&seeded);
    site.stub.sign_in(&login);
    rotate(&site, &login);
    let reseed = Login {
        serial: 100,
        refresh_token: "made-up.refresh.account-1.0100".to_owned(),
        ..Login::fresh()
    };
    site.stub.sign_in(&reseed);
    let runner = site.runner();
    let file = runner.work().join("reseed.json");
    fs::write(&file, reseed.auth_json()).expect("disk space");
    let job = script(
        &runner,
        &format!(
            "touch restored; until [ -e reseeded ]; do sleep 0.01; done; exec codex {}",
            rig::EXEC.map(|word| format!("'{word}'")).join(" ")
        ),
    );
    let mut run = site.in_job(&runner, GitHub, &["--rescue-dir"]);
    let rescue_dir = runner.work().join("rescue_dir");
    let run = run
        .arg(&rescue_dir)
        .args(["run", "--no-rotate-first", "--"])
        .arg(job);
    let mut run = start(run);
    wait_until("restored", || runner.work().join("restored").exists());
    let (mount, value) = (
        format!("-mount={}", site.mount),
        format!("auth_json=@{}", file.display()),
    );
    assert_code(
        &finish(&mut site.server.bao(&["kv", verb, &mount, PATH, &value])),
        0,
    );
    fs::write(runner.work().join("reseeded"), "").expect("disk space");

    let status = run.wait().expect("our child");
    assert_eq!(status.code(), Some(122));
    assert_eq!(
        site.stored(),
        reseed.auth_json().as_bytes(),
        "the reseed stays current"
    );
    assert_eq!(
        site.version(2),
        Some(login.auth_json()),
        "the previous version is kept"
    );
    let [kept] = logins_kept(&rescue_dir)
        .try_into()
        .expect("one rescued login");
    let kept = fs::read(rescue_dir.join(kept)).expect("a file");
    assert!(site.stub.is_live(&kept), "the rescued login is live");
    assert!(site.is_live());
}

/// Persists a login by a job, so that it is not a seed.
fn rotate(site: &Site, login: &Login) {
    let runner = site.runner();
    fs::write(runner.work().join("next"), login.auth_json()).expect("disk space");
    let job = script(&runner, r#"cp next "$CODEX_HOME/auth.json""#);
    let mut run = site.in_job(&runner, GitHub, &["run", "--no-rotate-first", "--"]);
    assert_code(&finish(run.arg(job)), 0);
}

fn restart_during_swap(held: Direction, applied: u64) {
    let scene = Scene::on(OpenBao::raft());
    let wire = scene.wire();
    let run = scene.start(&[url_of(&wire)], "1m");
    scene.hold(&wire, held);
    scene.resume_job();
    wire.wait_until_held(HOLD_TIMEOUT);
    assert_eq!(scene.site.versions(), applied, "when the server dies");
    scene.site.server.kill(0);
    wire.lose();
    scene.site.server.restart(0);
    assert_code(&run.wait_with_output().expect("our child"), 0);
    scene.assert_written_once(0);
}

fn kill_leader_during_swap(held: Direction, applied: u64) {
    let scene = Scene::on(OpenBao::cluster(3));
    let mut wire = scene.wire();
    let run = scene.start(&scene.addresses(&wire), "1m");
    scene.hold(&wire, held);
    scene.resume_job();
    wire.wait_until_held(HOLD_TIMEOUT);
    assert_eq!(scene.site.versions(), applied, "when the leader dies");
    scene.site.server.kill(0);
    wire.cut();
    assert_code(&run.wait_with_output().expect("our child"), 0);
    scene.assert_written_once(scene.site.server.leader());
}

/// A server and a job that writes the next login when the test resumes it.
struct Scene {
    site: Site,
    runner: Runner,
    login: Login,
    next: Login,
}

impl Scene {
    fn on(server: OpenBao) -> Self {
        let login = Login::fresh();
        let next = successor(&login);
        let codex = rig::Codex::install(rig::V0_169).expect("Codex from npm");
        let site = Site::on(Arc::new(server), codex, &login).seeded(&login);
        let runner = site.runner();
        fs::write(runner.work().join("next"), next.auth_json()).expect("disk space");
        Self {
            site,
            runner,
            login,
            next,
        }
    }

    /// Starts the job and waits until it has the login.
    fn start(&self, servers: &[String], store_timeout: &str) -> Child {
        let job = script(
            &self.runner,
            "touch restored; until [ -e enough ]; do sleep 0.01; done
            cp next $CODEX_HOME/auth.json; touch over",
        );
        let rescue_dir = self.runner.work().join("rescue_dir");
        let mut run = self
            .site
            .in_job(&self.runner, GitHub, &["-v", "--rescue-dir"]);
        run.arg(rescue_dir)
            .args(["run", "--store-timeout", store_timeout, "--"])
            .arg(job)
            .env("VAULT_ADDR", servers.join(","))
            .env("VAULT_CLIENT_TIMEOUT", "5s")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let run = run.spawn().expect("a program to start");
        wait_until("the job has the login", || {
            self.runner.work().join("restored").exists()
        });
        run
    }

    /// Makes the job write the next login.
    fn resume_job(&self) {
        fs::write(self.runner.work().join("enough"), "").expect("disk space");
    }

    /// A wire to the first server, which is the leader.
    fn wire(&self) -> Wire {
        let address = self.site.server.address();
        let address = address.strip_prefix("https://").expect("TLS");
        Wire::to(address.parse().expect("an address"))
    }

    /// The servers' addresses, with the wire instead of the first server. The first server's own
    /// address is last, since the others redirect clients to it.
    fn addresses(&self, wire: &Wire) -> Vec<String> {
        let mut servers = self.site.server.addresses();
        servers.rotate_left(1);
        servers.insert(0, url_of(wire));
        servers
    }

    /// Holds the job's next swap: its request, or its reply once the server has the login.
    fn hold(&self, wire: &Wire, held: Direction) {
        let (admin, mount) = (self.site.admin(), self.site.mount.clone());
        wire.judge(move |way, length| {
            let is_due = match (held, way) {
                (Direction::ToServer, Direction::ToServer) => length > MAX_LEN_WITHOUT_LOGIN,
                (Direction::ToClient, Direction::ToClient) => written(&admin, &mount) > 1,
                (Direction::ToServer, Direction::ToClient)
                | (Direction::ToClient, Direction::ToServer) => false,
            };
            if is_due {
                WireAction::Hold
            } else {
                WireAction::Pass
            }
        });
    }

    /// Asserts that a server has the job's login as the only version after the seed.
    #[track_caller]
    fn assert_written_once(&self, server: usize) {
        let admin = self.site.server.admin_of(server);
        assert_eq!(written(&admin, &self.site.mount), 2, "versions");
        let stored = admin.read(&format!("{}/data/{PATH}", self.site.mount));
        let stored = &stored.expect("a value")["data"]["data"]["auth_json"];
        assert_eq!(*stored, json!(self.next.auth_json()));
    }
}

fn url_of(wire: &Wire) -> String {
    format!("https://{}", wire.address())
}
