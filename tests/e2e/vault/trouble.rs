//! The server moves, seals, restarts or dies while a job is at it.

use std::{
    fs,
    process::{Child, Stdio},
    sync::Arc,
    time::Duration,
};

use rig::{Fate, Login, OpenBao, Runner, Way, Wire, finish};
use serde_json::json;

use super::site::{Identity::GitHub, PATH, Site, written};
use crate::ferry::{assert_code, logins_kept, script, start, successor, wait_until};

/// How long a test waits for a job to come to a certain point.
const SOON: Duration = Duration::from_secs(30);

/// Longer than any request but one that carries a login.
const SHORTER_THAN_A_LOGIN: usize = 1000;

#[test]
fn a_login_that_a_person_puts_there_meanwhile_is_not_overwritten() {
    reseeded_meanwhile("put");
}

/// What the last writer left beside the login is still there then.
#[test]
fn a_login_that_a_person_patches_in_meanwhile_is_not_overwritten() {
    reseeded_meanwhile("patch");
}

#[test]
fn a_server_that_is_sealed_during_a_job_costs_no_login() {
    let trial = Trial::on(OpenBao::raft());
    let run = trial.start(&trial.site.server.addresses(), "2s");
    trial.site.server.seal(0);
    trial.go_on();
    let output = run.wait_with_output().expect("our child");
    assert_code(&output, 120);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.to_lowercase().contains("sealed"), "{said}");

    let rescues = trial.runner.work().join("rescues");
    let [kept] = logins_kept(&rescues).try_into().expect("one rescued login");
    let kept = fs::read_to_string(rescues.join(kept)).expect("a file");
    assert_eq!(kept, trial.next.auth_json());
    let site = &trial.site;
    site.server.unseal(0);
    assert_eq!(site.stored(), trial.login.auth_json().as_bytes());
    assert_code(&site.seed(&trial.next, &["--replace"]), 0);
    assert_eq!(site.stored(), kept.as_bytes());
}

#[test]
fn a_server_that_is_unsealed_in_time_gets_the_login() {
    let trial = Trial::on(OpenBao::raft());
    let mut run = trial.start(&trial.site.server.addresses(), "1m");
    trial.site.server.seal(0);
    trial.go_on();
    wait_until("the job's command is over", || {
        trial.runner.work().join("over").exists()
    });
    assert!(run.try_wait().expect("our child").is_none(), "it gave up");
    trial.site.server.unseal(0);
    assert_code(&run.wait_with_output().expect("our child"), 0);
    trial.assert_there_once(0);
}

#[test]
fn a_server_that_restarts_before_a_swap_has_landed_gets_it_once() {
    restarts_in_the_middle(Way::ToServer, 1);
}

#[test]
fn a_server_that_restarts_after_a_swap_has_landed_gets_it_once() {
    restarts_in_the_middle(Way::ToClient, 2);
}

#[test]
fn a_leader_that_dies_before_a_swap_has_landed_leaves_the_login_there_once() {
    leader_dies(Way::ToServer, 1);
}

#[test]
fn a_leader_that_dies_after_a_swap_has_landed_leaves_the_login_there_once() {
    leader_dies(Way::ToClient, 2);
}

#[test]
fn a_leader_that_halts_leaves_the_login_there_once() {
    let trial = Trial::on(OpenBao::cluster(3));
    let wire = trial.wire();
    let run = trial.start(&trial.addresses(&wire), "1m");
    trial.hold(&wire, Way::ToClient);
    trial.go_on();
    wire.wait_until_held(SOON);
    trial.site.server.pause(0);
    let second = trial.site.server.leader_but(0);
    assert_code(&run.wait_with_output().expect("our child"), 0);
    trial.assert_there_once(second);
    trial.site.server.resume(0);
}

fn reseeded_meanwhile(verb: &str) {
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
    fs::write(&file, reseed.auth_json()).expect("room");
    let job = script(
        &runner,
        &format!(
            "touch restored; until [ -e reseeded ]; do sleep 0.01; done; exec codex {}",
            rig::EXEC.map(|word| format!("'{word}'")).join(" ")
        ),
    );
    let mut run = site.in_job(&runner, GitHub, &["--rescue-dir"]);
    let rescues = runner.work().join("rescues");
    let run = run
        .arg(&rescues)
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
    fs::write(runner.work().join("reseeded"), "").expect("room");

    let status = run.wait().expect("our child");
    assert_eq!(status.code(), Some(122));
    assert_eq!(
        site.stored(),
        reseed.auth_json().as_bytes(),
        "theirs stays current"
    );
    assert_eq!(
        site.version(2),
        Some(login.auth_json()),
        "and so does what was before"
    );
    let [kept] = logins_kept(&rescues).try_into().expect("one rescued login");
    let kept = fs::read(rescues.join(kept)).expect("a file");
    assert!(site.stub.is_live(&kept), "what the job rotated is found");
    assert!(site.is_live());
}

/// Has a job of its own put a login there, so that it is no seed.
fn rotate(site: &Site, login: &Login) {
    let runner = site.runner();
    fs::write(runner.work().join("next"), login.auth_json()).expect("room");
    let job = script(&runner, r#"cp next "$CODEX_HOME/auth.json""#);
    let mut run = site.in_job(&runner, GitHub, &["run", "--no-rotate-first", "--"]);
    assert_code(&finish(run.arg(job)), 0);
}

fn restarts_in_the_middle(held: Way, landed: u64) {
    let trial = Trial::on(OpenBao::raft());
    let wire = trial.wire();
    let run = trial.start(&[at(&wire)], "1m");
    trial.hold(&wire, held);
    trial.go_on();
    wire.wait_until_held(SOON);
    assert_eq!(trial.site.versions(), landed, "when the server dies");
    trial.site.server.kill(0);
    wire.lose();
    trial.site.server.restart(0);
    assert_code(&run.wait_with_output().expect("our child"), 0);
    trial.assert_there_once(0);
}

fn leader_dies(held: Way, landed: u64) {
    let trial = Trial::on(OpenBao::cluster(3));
    let mut wire = trial.wire();
    let run = trial.start(&trial.addresses(&wire), "1m");
    trial.hold(&wire, held);
    trial.go_on();
    wire.wait_until_held(SOON);
    assert_eq!(trial.site.versions(), landed, "when the leader dies");
    trial.site.server.kill(0);
    wire.cut();
    assert_code(&run.wait_with_output().expect("our child"), 0);
    trial.assert_there_once(trial.site.server.leader());
}

/// A job that has restored its login, and makes up the next one when it is told to.
struct Trial {
    site: Site,
    runner: Runner,
    login: Login,
    next: Login,
}

impl Trial {
    fn on(server: OpenBao) -> Self {
        let login = Login::fresh();
        let next = successor(&login);
        let codex = rig::Codex::install(rig::V0_169).expect("Codex from npm");
        let site = Site::on(Arc::new(server), codex, &login).seeded(&login);
        let runner = site.runner();
        fs::write(runner.work().join("next"), next.auth_json()).expect("room");
        Self {
            site,
            runner,
            login,
            next,
        }
    }

    /// Starts the job, and returns when it has the login.
    fn start(&self, servers: &[String], patience: &str) -> Child {
        let job = script(
            &self.runner,
            "touch restored; until [ -e enough ]; do sleep 0.01; done
            cp next $CODEX_HOME/auth.json; touch over",
        );
        let rescues = self.runner.work().join("rescues");
        let mut run = self
            .site
            .in_job(&self.runner, GitHub, &["-v", "--rescue-dir"]);
        run.arg(rescues)
            .args(["run", "--patience", patience, "--"])
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

    /// Has the job make up the next login.
    fn go_on(&self) {
        fs::write(self.runner.work().join("enough"), "").expect("room");
    }

    /// Leads to the first server, which is the leader.
    fn wire(&self) -> Wire {
        let address = self.site.server.address();
        let address = address.strip_prefix("https://").expect("TLS");
        Wire::to(address.parse().expect("an address"))
    }

    /// The servers, with the wire in front of the first one. That one's own address comes
    /// last, for the others send a client there.
    fn addresses(&self, wire: &Wire) -> Vec<String> {
        let mut servers = self.site.server.addresses();
        servers.rotate_left(1);
        servers.insert(0, at(wire));
        servers
    }

    /// Holds the job's next swap: the request that carries it, or the reply to it once the
    /// server has the login.
    fn hold(&self, wire: &Wire, held: Way) {
        let (admin, mount) = (self.site.admin(), self.site.mount.clone());
        wire.judge(move |way, length| {
            let is_due = match (held, way) {
                (Way::ToServer, Way::ToServer) => length > SHORTER_THAN_A_LOGIN,
                (Way::ToClient, Way::ToClient) => written(&admin, &mount) > 1,
                (Way::ToServer, Way::ToClient) | (Way::ToClient, Way::ToServer) => false,
            };
            if is_due { Fate::Hold } else { Fate::Pass }
        });
    }

    /// Fails unless a server shows the job's login as the one that followed the seed.
    #[track_caller]
    fn assert_there_once(&self, server: usize) {
        let admin = self.site.server.admin_of(server);
        assert_eq!(written(&admin, &self.site.mount), 2, "versions");
        let stored = admin.read(&format!("{}/data/{PATH}", self.site.mount));
        let stored = &stored.expect("a value")["data"]["data"]["auth_json"];
        assert_eq!(*stored, json!(self.next.auth_json()));
    }
}

fn at(wire: &Wire) -> String {
    format!("https://{}", wire.address())
}
