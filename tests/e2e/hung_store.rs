//! A store that hangs during a request delays a job by no more than its `--store-timeout`.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use rig::{Login, Runner, finish};
use serde_json::{Value, json};

use crate::any_store::AnyStore;
use crate::ferry::{Ferry, assert_code, logins_kept, script, successor};

/// Allowance for a busy machine, and for closing the store.
const ALLOWANCE: Duration = Duration::from_secs(4);

/// Serves Vault's API, and stops replying once the file `stopped` exists.
fn serve(login: String, stopped: PathBuf) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (login, stopped) = (login.clone(), stopped.clone());
            thread::spawn(move || answer(stream, &login, &stopped));
        }
    });
    port
}

fn answer(mut stream: TcpStream, login: &str, stopped: &Path) -> Option<()> {
    loop {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).ok()?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a length"))];
        stream.read_exact(&mut body).ok()?;
        while stopped.exists() {
            thread::sleep(Duration::from_millis(20));
        }
        let reply = reply(&head, login).to_string();
        let length = reply.len();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{reply}"
        )
        .ok()?;
    }
}

fn reply(head: &str, login: &str) -> Value {
    let mut reply = json!({
        "request_id": "made-up", "lease_id": "", "renewable": false, "lease_duration": 0,
        "data": null, "wrap_info": null, "warnings": null, "auth": null,
    });
    if head.starts_with("get /v1/secret/data/") {
        reply["data"] = json!({
            "data": { "auth_json": login },
            "metadata": {
                "created_time": "2026-11-23T15:17:01.268708289Z", "custom_metadata": null,
                "deletion_time": "", "destroyed": false, "version": 1,
            },
        });
    } else if head.contains("/login ") {
        reply["auth"] = json!({
            "client_token": "made-up", "accessor": "made-up", "policies": [],
            "token_policies": [], "metadata": {}, "lease_duration": 600, "renewable": false,
            "entity_id": "", "token_type": "service", "orphan": true,
        });
    } else {
        reply["data"] = json!({ "type": "kv", "options": { "version": "2" }, "max_versions": 9 });
    }
    reply
}

/// A job's machine, with a store that can hang.
struct Site {
    ferry: Ferry,
    runner: Runner,
    next: Login,
    port: u16,
}

impl Site {
    fn new() -> Self {
        let login = Login::fresh();
        let ferry = Ferry::holding(rig::V0_169, &login);
        let runner = ferry.runner();
        let next = successor(&login);
        fs::write(runner.work().join("next"), next.auth_json()).expect("disk space");
        let port = serve(login.auth_json(), runner.work().join("stopped"));
        Self {
            ferry,
            runner,
            next,
            port,
        }
    }

    fn authferry(&self, args: &[&str]) -> Command {
        let mut command = self.ferry.authferry(&self.runner, args);
        command
            .env("AUTHFERRY_STORE", "vault://secret/ci/codex?auth=approle")
            .env("VAULT_ADDR", format!("http://127.0.0.1:{}", self.port))
            .envs([("VAULT_ROLE_ID", "made-up"), ("VAULT_SECRET_ID", "made-up")])
            .env("AUTHFERRY_RESCUE_DIR", self.runner.work().join("rescue"));
        command
    }

    /// Asserts that the login that Codex wrote is in the rescue folder.
    fn assert_rescued(&self) {
        let rescue = self.runner.work().join("rescue");
        let kept = logins_kept(&rescue);
        assert_eq!(kept.len(), 1, "{kept:?}");
        let kept = fs::read(rescue.join(&kept[0])).expect("rescued");
        assert_eq!(kept, self.next.auth_json().as_bytes());
    }
}

/// Load only makes authferry slower, so one run within the limit is proof.
fn assert_within(limit: Duration, time: impl Fn() -> Duration) {
    let mut times = (0..4).map(|_| time());
    assert!(times.any(|took| took < limit + ALLOWANCE));
}

/// The command exits while its rotation is written through to a hung store: that request and the
/// persist share one timeout.
#[test]
fn run_ends_within_its_store_timeout() {
    assert_within(Duration::from_secs(1 + 6), measure_run);
}

fn measure_run() -> Duration {
    let site = Site::new();
    let job = "touch stopped; cp next \"$CODEX_HOME/auth.json\"; sleep 1";
    let job = script(&site.runner, job);
    let mut run = site.authferry(&["run", "--no-rotate-first", "--store-timeout", "6s", "--"]);
    let begin = Instant::now();
    assert_code(&finish(run.arg(job)), 120);
    let took = begin.elapsed();
    site.assert_rescued();
    took
}

/// A hung watch does not extend the timeout.
#[test]
fn persist_ends_within_its_store_timeout() {
    assert_within(Duration::from_secs(6), measure_persist);
}

fn measure_persist() -> Duration {
    let site = Site::new();
    assert_code(
        &finish(&mut site.authferry(&["restore", "--no-watch", "--no-rotate-first"])),
        0,
    );
    let home = fs::File::open(site.runner.codex_home()).expect("a home");
    home.lock().expect("no other holder");
    fs::write(site.runner.work().join("stopped"), "").expect("disk space");
    fs::write(site.runner.auth_file(), site.next.auth_json()).expect("disk space");
    // The marker of a hung watch.
    fs::write(site.runner.codex_home().join("authferry-watch"), "").expect("disk space");
    let begin = Instant::now();
    let persist = finish(&mut site.authferry(&["persist", "--store-timeout", "6s"]));
    let took = begin.elapsed();
    assert_code(&persist, 120);
    site.assert_rescued();
    took
}
