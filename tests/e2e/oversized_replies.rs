//! A server sends a reply far larger than any login: authferry keeps little of it in memory, and
//! reports an error.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use rig::{Login, Runner, finish};

use crate::any_store::AnyStore;
use crate::ferry::Ferry;

/// The size of a reply. A value of this size was seen in Vault.
const GIBIBYTE: usize = 1 << 30;

/// Far more memory than the program maps, and far less than such a reply, in KiB.
const MEMORY_LIMIT_KIB: usize = 500_000;

/// Answers each request with `begin` and a gibibyte of text.
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
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        request.push(byte[0]);
    }
    // No content length, so the client cannot know the size in advance.
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nETag: \"1\"\r\n";
    write!(stream, "{head}Transfer-Encoding: chunked\r\n\r\n").ok()?;
    write!(stream, "{:x}\r\n{begin}\r\n", begin.len()).ok()?;
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..GIBIBYTE / piece.len() {
        write!(stream, "{:x}\r\n", piece.len()).ok()?;
        stream.write_all(&piece).ok()?;
        stream.write_all(b"\r\n").ok()?;
    }
    Some(())
}

/// Runs `authferry status` with limited memory, and returns its stderr.
fn status(runner: &Runner, store: &str, env: &[(&str, &str)]) -> String {
    let limit = format!("ulimit -v {MEMORY_LIMIT_KIB}; exec \"$@\"");
    let mut shell = runner.command("sh");
    shell.args(["-c", &limit, "sh", crate::ferry::under_test(), "status"]);
    shell.args(["--store", store]).envs(env.iter().copied());
    let status = finish(&mut shell);
    let stderr = String::from_utf8_lossy(&status.stderr).into_owned();
    assert_eq!(status.status.code(), Some(125), "{status:?}");
    assert!(stderr.contains("was not read"), "{stderr}");
    stderr
}

#[cfg(feature = "vault")]
#[test]
fn an_oversized_vault_reply_is_not_read_whole() {
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
fn an_oversized_aws_reply_is_not_read_whole() {
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
fn an_oversized_azure_token_reply_is_not_read_whole() {
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
