//! What whoever runs a server does to it.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::Issuer;

/// How long a server may think about a request.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a server listens for those who run it.
#[derive(Clone, Debug)]
pub(super) enum Door {
    Tcp(SocketAddr),
    /// Beside a listener with TLS, so that the rig needs no TLS of its own.
    Unix(PathBuf),
}

/// Requests to one server with one token.
#[derive(Clone)]
pub struct Admin {
    door: Door,
    token: String,
}

/// What a server answered.
#[derive(Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The body; null if there was none.
    pub body: Value,
}

impl Admin {
    pub(super) fn new(door: Door, token: &str) -> Self {
        Self {
            door,
            token: token.to_owned(),
        }
    }

    /// Returns the same with another token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self {
            token: token.to_owned(),
            ..self.clone()
        }
    }

    /// Sends one request, `sys/mounts` without a slash in front.
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> io::Result<Reply> {
        match &self.door {
            Door::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, PATIENCE)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                self.exchange(stream, method, path, body)
            }
            Door::Unix(socket) => {
                let stream = UnixStream::connect(socket)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                self.exchange(stream, method, path, body)
            }
        }
    }

    /// Reads what is at a path; `None` if nothing is.
    ///
    /// # Panics
    ///
    /// If the server cannot be asked, or says no.
    #[track_caller]
    #[must_use]
    pub fn read(&self, path: &str) -> Option<Value> {
        let reply = self.request("GET", path, None).expect("a server");
        assert!(
            reply.status == 200 || reply.status == 404,
            "cannot read {path}: {reply:?}"
        );
        (reply.status == 200).then_some(reply.body)
    }

    /// Writes to a path.
    ///
    /// # Panics
    ///
    /// If the server cannot be asked, or says no.
    #[track_caller]
    pub fn write(&self, path: &str, body: &Value) {
        self.must("POST", path, Some(body));
    }

    /// Writes to a path, and returns what comes back.
    ///
    /// # Panics
    ///
    /// If the server cannot be asked, or says no.
    #[track_caller]
    #[must_use]
    pub fn ask(&self, path: &str, body: &Value) -> Value {
        self.must("POST", path, Some(body))
    }

    /// Deletes what is at a path.
    ///
    /// # Panics
    ///
    /// If the server cannot be asked, or says no.
    #[track_caller]
    pub fn delete(&self, path: &str) {
        self.must("DELETE", path, None);
    }

    /// Mounts a KV engine of version 1 or 2, and returns when it can be used.
    ///
    /// # Panics
    ///
    /// If the server cannot be asked, or says no.
    #[track_caller]
    pub fn mount_kv(&self, mount: &str, version: u8) {
        let options = json!({"version": version.to_string()});
        self.write(
            &format!("sys/mounts/{mount}"),
            &json!({"type": "kv", "options": options}),
        );
        let config = format!("{mount}/config");
        let is_upgrading = || {
            let reply = self.request("GET", &config, None).expect("a server");
            reply.status == 400
        };
        // One of version 2 begins as one without versions, and is not there for a moment.
        let deadline = Instant::now() + PATIENCE;
        while version == 2 && is_upgrading() {
            assert!(Instant::now() < deadline, "{mount} never got ready");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Writes a policy.
    ///
    /// # Panics
    ///
    /// If the server cannot be asked, or says no.
    #[track_caller]
    pub fn policy(&self, name: &str, rules: &str) {
        let path = format!("sys/policies/acl/{name}");
        self.write(&path, &json!({"policy": rules}));
    }

    /// Makes a token: `{"policies": ["runner"], "ttl": "1m"}`.
    ///
    /// # Panics
    ///
    /// If the server cannot be asked, or says no.
    #[track_caller]
    #[must_use]
    pub fn token(&self, request: &Value) -> String {
        let made = self.ask("auth/token/create", request);
        text(&made["auth"]["client_token"])
    }

    /// Returns whether a token can still be used.
    ///
    /// # Panics
    ///
    /// If the server cannot be asked.
    #[track_caller]
    #[must_use]
    pub fn knows(&self, token: &str) -> bool {
        let look = self
            .with_token(token)
            .request("GET", "auth/token/lookup-self", None);
        look.expect("a server").status == 200
    }

    /// Returns the lease of each token that was got at a path: `auth/ci/login`.
    ///
    /// The tokens themselves are left alone: a server ends one that is looked up in the
    /// moment between its making and its lease's.
    ///
    /// # Panics
    ///
    /// If the server cannot be asked, or says no.
    #[track_caller]
    #[must_use]
    pub fn leases(&self, path: &str) -> Vec<Value> {
        let all = self.request("LIST", &format!("sys/leases/lookup/{path}"), None);
        let all = all.expect("a server").body["data"]["keys"].take();
        let all = all.as_array().into_iter().flatten();
        let lease = |key: &Value| {
            let which = json!({"lease_id": format!("{path}/{}", text(key))});
            let looked = self.request("POST", "sys/leases/lookup", Some(&which));
            looked.expect("a server").body["data"].take()
        };
        // One that has ended by now has no id.
        let all = all.map(lease);
        all.filter(|lease| lease["id"].is_string()).collect()
    }

    /// Sets up a login with the tokens of an issuer: found by discovery, as for a CI system.
    ///
    /// # Panics
    ///
    /// If the server cannot be asked, or says no.
    #[track_caller]
    pub fn trust(&self, mount: &str, issuer: &Issuer) {
        self.write(&format!("sys/auth/{mount}"), &json!({"type": "jwt"}));
        self.write(
            &format!("auth/{mount}/config"),
            &json!({"oidc_discovery_url": issuer.url(), "bound_issuer": issuer.url()}),
        );
    }

    /// Sets up an `AppRole`, and returns its id and a secret id.
    ///
    /// # Panics
    ///
    /// If the server cannot be asked, or says no.
    #[track_caller]
    #[must_use]
    pub fn app_role(&self, mount: &str, role: &str, request: &Value) -> (String, String) {
        let enabled = self.read("sys/auth").expect("a list");
        if enabled[format!("{mount}/")].is_null() {
            self.write(&format!("sys/auth/{mount}"), &json!({"type": "approle"}));
        }
        let path = format!("auth/{mount}/role/{role}");
        self.write(&path, request);
        let id = self.read(&format!("{path}/role-id")).expect("a role");
        let secret = self.ask(&format!("{path}/secret-id"), &json!({}));
        (
            text(&id["data"]["role_id"]),
            text(&secret["data"]["secret_id"]),
        )
    }

    #[track_caller]
    fn must(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let reply = self.request(method, path, body).expect("a server");
        assert!(
            (200..300).contains(&reply.status),
            "cannot {method} {path}: {reply:?}"
        );
        reply.body
    }

    /// HTTP 1.0 says where a body ends by ending the connection.
    fn exchange(
        &self,
        mut stream: impl Read + Write,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> io::Result<Reply> {
        let body = body.map(Value::to_string).unwrap_or_default();
        write!(
            stream,
            "{method} /v1/{path} HTTP/1.0\r\nHost: localhost\r\nX-Vault-Token: {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.token,
            body.len()
        )?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply)?;
        let status = reply.split(' ').nth(1).and_then(|it| it.parse().ok());
        let (Some(status), Some((_, body))) = (status, reply.split_once("\r\n\r\n")) else {
            return Err(io::Error::other(format!("no reply in HTTP: {reply:?}")));
        };
        Ok(Reply {
            status,
            body: serde_json::from_str(body).unwrap_or_default(),
        })
    }
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Admin({:?})", self.door)
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}
