//! A fake server that returns canned responses and records the requests. Tests use it for
//! responses that a real server cannot be made to send.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};

use crate::{Settings, VaultStore, open};

/// How long a test waits for a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The server: one connection for each response. It ends with the test's runtime.
pub(crate) struct Canned {
    pub(crate) address: String,
    requests: watch::Receiver<Vec<ReceivedRequest>>,
}

/// A request that the server received.
#[derive(Clone, Debug)]
pub(crate) struct ReceivedRequest {
    pub(crate) head: String,
    pub(crate) body: Value,
}

impl ReceivedRequest {
    /// Returns the method and the path.
    pub(crate) fn line(&self) -> &str {
        let line = self.head.split(" HTTP").next().expect("a first part");
        // The library appends an empty query to some paths.
        line.strip_suffix('?').unwrap_or(line)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut values = lines.filter(|(n, _)| n.eq_ignore_ascii_case(name));
        values.next().map(|(_, value)| value)
    }
}

impl Canned {
    /// Sends each of `answers` in turn; an empty one closes the connection.
    pub(crate) async fn new(answers: Vec<String>) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (sender, requests) = watch::channel(Vec::new());
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let request = receive(&mut stream).await;
                sender.send_modify(|requests| requests.push(request));
                // A client whose timeout passed has already disconnected.
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

    /// Opens a store on this server. Adds a token if the settings have none.
    pub(crate) fn store_with(&self, address: &str, mut settings: Settings) -> VaultStore {
        settings.servers.get_or_insert_with(|| self.address.clone());
        settings.token.get_or_insert_with(|| "made-up-token".into());
        open(address.parse().expect(address), settings).expect("usable settings")
    }

    /// Returns the requests so far.
    pub(crate) fn requests(&self) -> Vec<ReceivedRequest> {
        self.requests.borrow().clone()
    }

    /// Returns the method and the path of each request so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        let requests = self.requests();
        requests.iter().map(|r| r.line().to_owned()).collect()
    }

    /// Waits for `count` requests.
    pub(crate) async fn seen(&self, count: usize) {
        let mut requests = self.requests.clone();
        let seen = requests.wait_for(|requests| requests.len() >= count);
        let seen = timeout(REQUEST_TIMEOUT, seen).await.expect("more requests");
        drop(seen.expect("the server has more answers"));
    }
}

async fn receive(stream: &mut TcpStream) -> ReceivedRequest {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a whole head"));
    }
    let mut request = ReceivedRequest {
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

pub(crate) fn response(status: u16, body: &Value) -> String {
    let body = body.to_string();
    let len = body.len();
    format!("HTTP/1.1 {status} x\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{body}")
}

pub(crate) fn redirect(to: &str) -> String {
    format!("HTTP/1.1 307 x\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

/// An error response with the server's texts.
pub(crate) fn error_response(status: u16, texts: &[&str]) -> String {
    response(status, &json!({ "errors": texts }))
}

/// A success with `data`.
pub(crate) fn success(data: &Value) -> String {
    response(
        200,
        &json!({
            "request_id": "made-up", "lease_id": "", "renewable": false, "lease_duration": 0,
            "data": data, "wrap_info": null, "warnings": null, "auth": null,
        }),
    )
}

/// The response to an authentication.
pub(crate) fn granted(token: &str, ttl: u64) -> String {
    response(
        200,
        &json!({
            "request_id": "made-up", "lease_id": "", "renewable": false, "lease_duration": 0,
            "data": null, "wrap_info": null, "warnings": null,
            "auth": {
                "client_token": token, "accessor": "made-up", "policies": ["codex"],
                "token_policies": ["codex"], "identity_policies": null, "metadata": {"role": "ci"},
                "lease_duration": ttl, "renewable": true, "entity_id": "made-up",
                "token_type": "service", "orphan": true, "mfa_requirement": null,
                "num_uses": 0,
            },
        }),
    )
}

/// The metadata of a version.
pub(crate) fn metadata(number: u64) -> Value {
    json!({
        "created_time": format!("2026-11-23T15:17:{number:02}.268708289Z"),
        "custom_metadata": null, "deletion_time": "", "destroyed": false, "version": number,
    })
}

/// The response to the read of an existing version.
pub(crate) fn version(number: u64, data: &Value) -> String {
    success(&json!({ "data": data, "metadata": metadata(number) }))
}

/// The response to a write.
pub(crate) fn written(number: u64) -> String {
    success(&metadata(number))
}
