//! The connection to AWS: credentials, certificates, proxies.

use std::{
    fs,
    io::{self, BufRead, BufReader, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    process::{Command, Output},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use rig::{Aws, Login, Runner, finish};
use serde_json::json;

use super::site::{
    Identity::{GitHub, GitLab},
    Site,
};
use crate::ferry::assert_code;

#[test]
fn credentials_are_found_where_the_aws_tools_find_them() {
    let login = Login::fresh();
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let keys = site.user("runner", &site.policy("runner"));
    let [(_, id), (_, secret)] = &keys;
    let runner = site.runner();
    let folder = runner.root().join("home/.aws");
    fs::create_dir(&folder).expect("disk space");
    let mut claims = Site::claims(GitLab);
    claims["aud"] = json!("sts.amazonaws.com");
    let token = runner.work().join("token");
    fs::write(&token, site.issuer.sign(claims)).expect("disk space");
    let (role, token) = (site.role_arn(GitLab), token.display());
    let helper = runner.work().join("helper");
    let answer = json!({"Version": 1, "AccessKeyId": id, "SecretAccessKey": secret});
    fs::write(&helper, answer.to_string()).expect("disk space");
    fs::write(
        folder.join("credentials"),
        format!("[static]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n"),
    )
    .expect("disk space");
    fs::write(
        folder.join("config"),
        format!(
            "[profile static]\nregion = eu-west-1\n\
             [profile process]\nregion = eu-west-1\ncredential_process = cat {}\n\
             [profile web-identity]\nregion = eu-west-1\nrole_arn = {role}\n\
             web_identity_token_file = {token}\n",
            helper.display(),
        ),
    )
    .expect("disk space");

    for profile in ["static", "process", "web-identity"] {
        let mut status = status(&site, &runner, &site.place());
        assert_code(&finish(status.env("AWS_PROFILE", profile)), 0);
        // The profile also sets the region.
        let place = site.place().replace("eu-west-1", "");
        let mut status = self::status(&site, &runner, &place);
        status.env("AWS_PROFILE", profile);
        let unset = status
            .env_remove("AWS_REGION")
            .env_remove("AWS_DEFAULT_REGION");
        assert_code(&finish(unset), 0);
    }
    // As in a Kubernetes pod with a role.
    let mut in_a_pod = status(&site, &runner, &site.place());
    in_a_pod
        .env("AWS_ROLE_ARN", &role)
        .env("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_string());
    assert_code(&finish(&mut in_a_pod), 0);

    // Credentials are never sent without TLS.
    for profile in ["static", "web-identity"] {
        let mut status = status(&site, &runner, &site.place());
        status
            .env("AWS_PROFILE", profile)
            .env("AWS_ENDPOINT_URL", "http://aws.example");
        assert_hint(&finish(&mut status), "use https://");
    }
}

#[test]
fn an_untrusted_server_receives_no_credentials() {
    let login = Login::fresh();
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let keys = site.user("runner", &site.policy("runner"));
    let trusted = site.server.authority().expect("TLS").to_owned();
    let other = Aws::moto_with_tls();
    let untrusted = other.authority().expect("TLS").to_owned();
    let runner = site.runner();
    for (variable, authority, is_trusted) in [
        ("AWS_CA_BUNDLE", &trusted, true),
        ("SSL_CERT_FILE", &trusted, true),
        ("AWS_CA_BUNDLE", &untrusted, false),
        ("SSL_CERT_FILE", &untrusted, false),
    ] {
        let mut status = status(&site, &runner, &site.place());
        status
            .envs(keys.clone())
            .env_remove("AWS_CA_BUNDLE")
            .env(variable, authority);
        let output = finish(&mut status);
        if is_trusted {
            assert_code(&output, 0);
        } else {
            assert_hint(&output, "to a PEM file with the certificates to trust");
        }
    }
    // The job's ID token is not sent to an untrusted server either.
    let mut status = site.in_job(&runner, GitHub, &["status"]);
    assert_hint(
        &finish(status.env("AWS_CA_BUNDLE", untrusted)),
        "to a PEM file with the certificates to trust",
    );
}

#[test]
fn a_proxy_sees_only_encrypted_traffic() {
    let login = Login::fresh();
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let proxy = Proxy::start();
    let runner = site.runner();
    let status = |url: &str, exceptions: &str| {
        let mut status = site.in_job(&runner, GitLab, &["status"]);
        status
            .env("HTTPS_PROXY", url)
            .env("NO_PROXY", exceptions)
            .env("no_proxy", exceptions);
        assert_code(&finish(&mut status), 0);
    };
    let url = format!("http://me:made-up-word@{}", proxy.address);
    status(&url, "127.0.0.1");
    assert_eq!(proxy.heads(), [""; 0]);
    status(&url, "elsewhere.example");
    let heads = proxy.heads();
    // One server serves both STS and Secrets Manager, so one connection is enough.
    assert_eq!(heads.len(), 1, "{heads:?}");
    let connect = format!("CONNECT {} HTTP/1.1", site.server.address());
    for head in &heads {
        assert!(head.starts_with(&connect), "{head}");
        let authorization = "Proxy-Authorization: Basic bWU6bWFkZS11cC13b3Jk";
        assert!(
            head.to_lowercase().contains(&authorization.to_lowercase()),
            "{head}"
        );
    }
    let seen = proxy.seen();
    assert!(seen.len() > 1000, "the proxy forwarded nothing");
    for part in [login.refresh_token.as_str(), "secretsmanager", "AssumeRole"] {
        let is_seen = seen.windows(part.len()).any(|it| it == part.as_bytes());
        assert!(!is_seen, "the proxy saw {part}");
    }
}

fn status(site: &Site, runner: &Runner, store: &str) -> Command {
    site.authferry(runner, store, &["status"])
}

#[track_caller]
fn assert_hint(output: &Output, hint: &str) {
    assert_code(output, 125);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let hints = stderr.lines().filter(|line| line.starts_with("hint: "));
    assert!(
        hints.into_iter().any(|line| line.contains(hint)),
        "{stderr}"
    );
}

/// A `CONNECT` proxy that records what it forwards.
struct Proxy {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Proxy {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let proxy = Self {
            address: listener.local_addr().expect("an address"),
            heads: Arc::default(),
            seen: Arc::default(),
        };
        let (heads, seen) = (Arc::clone(&proxy.heads), Arc::clone(&proxy.seen));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (heads, seen) = (Arc::clone(&heads), Arc::clone(&seen));
                // A closed connection is no failure.
                thread::spawn(move || serve(&client, &heads, &seen).ok());
            }
        });
        proxy
    }

    fn heads(&self) -> Vec<String> {
        self.heads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn seen(&self) -> Vec<u8> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn serve(
    client: &TcpStream,
    heads: &Mutex<Vec<String>>,
    seen: &Arc<Mutex<Vec<u8>>>,
) -> io::Result<()> {
    let mut lines = BufReader::new(client.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if lines.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    let to = head.split(' ').nth(1).unwrap_or_default().to_owned();
    heads
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(head);
    let server = TcpStream::connect(to)?;
    let mut to_client = client;
    to_client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    let (back, answers) = (client.try_clone()?, server.try_clone()?);
    let seen_answers = Arc::clone(seen);
    let answering = thread::spawn(move || forward(answers, &back, &seen_answers));
    forward(lines, &server, seen)?;
    answering.join().expect("no panic")
}

fn forward(mut from: impl io::Read, mut to: &TcpStream, seen: &Mutex<Vec<u8>>) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let len = from.read(&mut buffer)?;
        if len == 0 {
            return to.shutdown(Shutdown::Write);
        }
        seen.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(&buffer[..len]);
        to.write_all(&buffer[..len])?;
    }
}
