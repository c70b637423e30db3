//! A server that gives the answers it was told to, and keeps what it was sent. It stands in
//! where the real one cannot be made to answer like that.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};

use crate::{Settings, VaultStore, open};

/// How long a test waits before it calls what it waits for lost.
const SOON: Duration = Duration::from_secs(30);

/// The server: one connection for each answer. It ends with the test's runtime.
pub(crate) struct Canned {
    pub(crate) address: String,
    requests: watch::Receiver<Vec<Request>>,
}

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) head: String,
    pub(crate) body: Value,
}

impl Request {
    /// Returns the method and the path.
    pub(crate) fn line(&self) -> &str {
        let line = self.head.split(" HTTP").next().expect("a first part");
        // The library ends some paths like this, and it means nothing.
        line.strip_suffix('?').unwrap_or(line)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut values = lines.filter(|(n, _)| n.eq_ignore_ascii_case(name));
        values.next().map(|(_, value)| value)
    }
}

impl Canned {
    /// Answers with each of `answers` in turn; an empty one breaks the connection.
    pub(crate) async fn new(answers: Vec<String>) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (sender, requests) = watch::channel(Vec::new());
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let request = receive(&mut stream).await;
                sender.send_modify(|requests| requests.push(request));
                // Whoever has lost its patience is gone.
                stream.write_all(answer.as_bytes()).await.ok();
            }
        });
        Arc::new(Self {
            address: format!("http://127.0.0.1:{port}"),
            requests,
        })
    }

    /// Opens a store on this server.
    pub(crate) fn store(&self, address: &str) -> VaultStore {
        self.store_with(address, Settings::default())
    }

    /// Opens a store on this server, with a token unless there is one.
    pub(crate) fn store_with(&self, address: &str, mut settings: Settings) -> VaultStore {
        settings.servers.get_or_insert_with(|| self.address.clone());
        settings.token.get_or_insert_with(|| "made-up-token".into());
        open(address.parse().expect(address), settings).expect("usable settings")
    }

    /// Returns the requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.borrow().clone()
    }

    /// Returns the method and the path of each request so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        let requests = self.requests();
        requests.iter().map(|r| r.line().to_owned()).collect()
    }

    /// Waits until there were so many requests.
    pub(crate) async fn seen(&self, count: usize) {
        let mut requests = self.requests.clone();
        let seen = requests.wait_for(|requests| requests.len() >= count);
        let seen = timeout(SOON, seen).await.expect("nobody asks any more");
        drop(seen.expect("the server has more answers"));
    }
}

async fn receive(stream: &mut TcpStream) -> Request {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a whole head"));
    }
    let mut request = Request {
        head: String::from_utf8(head).expect("text"),
        body: Value::Null,
    };
    if let Some(len) = request.header("content-length") {
        let mut body = vec![0; len.parse().expect("a length")];
        stream.read_exact(&mut body).await.expect("a whole body");
        if !body.is_empty() {
            request.body = serde_json::from_slice(&body).expect("JSON");
        }
    }
    request
}

pub(crate) fn answer(status: u16, body: &Value) -> String {
    let body = body.to_string();
    let len = body.len();
    format!("HTTP/1.1 {status} x\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{body}")
}

pub(crate) fn redirect(to: &str) -> String {
    format!("HTTP/1.1 307 x\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

/// A no with the server's words.
pub(crate) fn no(status: u16, texts: &[&str]) -> String {
    answer(status, &json!({ "errors": texts }))
}

/// A yes with `data`.
pub(crate) fn yes(data: &Value) -> String {
    answer(
        200,
        &json!({
            "request_id": "made-up", "lease_id": "", "renewable": false, "lease_duration": 0,
            "data": data, "wrap_info": null, "warnings": null, "auth": null,
        }),
    )
}

/// A granted login.
pub(crate) fn granted(token: &str, lease: u64) -> String {
    answer(
        200,
        &json!({
            "request_id": "made-up", "lease_id": "", "renewable": false, "lease_duration": 0,
            "data": null, "wrap_info": null, "warnings": null,
            "auth": {
                "client_token": token, "accessor": "made-up", "policies": ["codex"],
                "token_policies": ["codex"], "identity_policies": null, "metadata": {"role": "ci"},
                "lease_duration": lease, "renewable": true, "entity_id": "made-up",
                "token_type": "service", "orphan": true, "mfa_requirement": null,
                "num_uses": 0,
            },
        }),
    )
}

/// What tells of a version.
pub(crate) fn metadata(number: u64) -> Value {
    json!({
        "created_time": format!("2026-11-23T15:17:{number:02}.268708289Z"),
        "custom_metadata": null, "deletion_time": "", "destroyed": false, "version": number,
    })
}

/// A version that is there.
pub(crate) fn version(number: u64, data: &Value) -> String {
    yes(&json!({ "data": data, "metadata": metadata(number) }))
}

/// The answer to a write.
pub(crate) fn written(number: u64) -> String {
    yes(&metadata(number))
}
