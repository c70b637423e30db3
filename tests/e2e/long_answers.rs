//! A server that sends more than any login has: little of it is in memory, and the error says so.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use rig::{Login, Runner, finish};

use crate::any_store::AnyStore;
use crate::ferry::Ferry;

/// As much as a value of Vault was seen to have.
const GIBIBYTE: usize = 1 << 30;

/// Far more than the program maps, and far less than such an answer, in KiB.
const ROOM: usize = 500_000;

/// Answers each request with this beginning, and a gibibyte of a text.
fn serve(begin: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer(stream, begin));
        }
    });
    port
}

fn answer(mut stream: TcpStream, begin: &str) -> Option<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    // Without a length: nobody can tell before how long it gets.
    let kind = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nETag: \"1\"\r\n";
    write!(stream, "{kind}Transfer-Encoding: chunked\r\n\r\n").ok()?;
    write!(stream, "{:x}\r\n{begin}\r\n", begin.len()).ok()?;
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..GIBIBYTE / piece.len() {
        write!(stream, "{:x}\r\n", piece.len()).ok()?;
        stream.write_all(&piece).ok()?;
        stream.write_all(b"\r\n").ok()?;
    }
    Some(())
}

/// Runs `authferry status`, and returns what it says of the store.
fn status(runner: &Runner, store: &str, env: &[(&str, &str)]) -> String {
    let limit = format!("ulimit -v {ROOM}; exec \"$@\"");
    let mut shell = runner.command("sh");
    shell.args(["-c", &limit, "sh", crate::ferry::under_test(), "status"]);
    shell.args(["--store", store]).envs(env.iter().copied());
    let status = finish(&mut shell);
    let said = String::from_utf8_lossy(&status.stderr).into_owned();
    assert_eq!(status.status.code(), Some(125), "{status:?}");
    assert!(said.contains("was not read"), "{said}");
    said
}

#[cfg(feature = "vault")]
#[test]
fn of_vault_no_more_is_read_than_a_login_has() {
    let port = serve("{\"data\":{\"data\":{\"auth_json\":\"");
    let server = format!("http://127.0.0.1:{port}");
    let ferry = Ferry::holding(rig::V0_169, &Login::fresh());
    let runner = ferry.runner();
    let env = [("VAULT_ADDR", &*server), ("VAULT_TOKEN", "made-up")];
    status(&runner, "vault://secret/ci/codex", &env);
    let login = "vault://secret/ci/codex?auth=approle";
    let env = [
        ("VAULT_ADDR", &*server),
        ("VAULT_ROLE_ID", "made-up"),
        ("VAULT_SECRET_ID", "made-up"),
    ];
    status(&runner, login, &env);
    let github = [
        ("VAULT_ADDR", &*server),
        ("GITHUB_ACTIONS", "true"),
        ("ACTIONS_ID_TOKEN_REQUEST_URL", &*server),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "made-up"),
    ];
    status(&runner, "vault://secret/ci/codex?auth=jwt&role=ci", &github);
}

#[cfg(feature = "aws")]
#[test]
fn of_aws_no_more_is_read_than_a_login_has() {
    let port = serve("{\"VersionId\":\"made-up\",\"SecretString\":\"");
    let server = format!("http://127.0.0.1:{port}");
    let env = [
        ("AWS_ENDPOINT_URL", &*server),
        ("AWS_ACCESS_KEY_ID", "made-up"),
        ("AWS_SECRET_ACCESS_KEY", "made-up"),
    ];
    let ferry = Ferry::holding(rig::V0_169, &Login::fresh());
    status(&ferry.runner(), "aws-sm://eu-west-1/ci/codex", &env);
}

#[cfg(feature = "azure-kv")]
#[test]
fn of_a_machine_at_azure_no_more_is_read_than_a_token_has() {
    let port = serve("{\"token_type\":\"Bearer\",\"expires_in\":3600,\"access_token\":\"");
    let ferry = Ferry::holding(rig::V0_169, &Login::fresh());
    let runner = ferry.runner();
    let store = format!(
        "azure-kv://127.0.0.1:{port}/codex?coordinator=blob://127.0.0.1:{port}/acct/logins/codex"
    );
    let endpoint = format!("http://127.0.0.1:{port}/token");
    let env = [
        ("IDENTITY_ENDPOINT", &*endpoint),
        ("IDENTITY_HEADER", "made-up"),
    ];
    status(&runner, &format!("{store}&auth=managed"), &env);
}
