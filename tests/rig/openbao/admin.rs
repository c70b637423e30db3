//! An administrator's requests to a server.

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

/// The timeout of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Where a server accepts an administrator's requests.
#[derive(Clone, Debug)]
pub(super) enum AdminEndpoint {
    Tcp(SocketAddr),
    /// A Unix socket, next to the TLS listener, so that the rig needs no TLS client.
    Unix(PathBuf),
}

/// Requests to one server with one token.
#[derive(Clone)]
pub struct Admin {
    endpoint: AdminEndpoint,
    token: String,
}

/// The answer of a server.
#[derive(Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The body; null if there was none.
    pub body: Value,
}

impl Admin {
    pub(super) fn new(endpoint: AdminEndpoint, token: &str) -> Self {
        Self {
            endpoint,
            token: token.to_owned(),
        }
    }

    /// Returns the same client with another token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self {
            token: token.to_owned(),
            ..self.clone()
        }
    }

    /// Sends one request to a path such as `sys/mounts`, without a leading slash.
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> io::Result<Reply> {
        match &self.endpoint {
            AdminEndpoint::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, REQUEST_TIMEOUT)?;
                stream.set_read_timeout(Some(REQUEST_TIMEOUT))?;
                self.exchange(stream, method, path, body)
            }
            AdminEndpoint::Unix(socket) => {
                let stream = UnixStream::connect(socket)?;
                stream.set_read_timeout(Some(REQUEST_TIMEOUT))?;
                self.exchange(stream, method, path, body)
            }
        }
    }

    /// Reads a path; `None` if it does not exist.
    ///
    /// # Panics
    ///
    /// If the request fails or the server refuses it.
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
    /// If the request fails or the server refuses it.
    #[track_caller]
    pub fn write(&self, path: &str, body: &Value) {
        self.must("POST", path, Some(body));
    }

    /// Writes to a path and returns the answer.
    ///
    /// # Panics
    ///
    /// If the request fails or the server refuses it.
    #[track_caller]
    #[must_use]
    pub fn ask(&self, path: &str, body: &Value) -> Value {
        self.must("POST", path, Some(body))
    }

    /// Deletes a path.
    ///
    /// # Panics
    ///
    /// If the request fails or the server refuses it.
    #[track_caller]
    pub fn delete(&self, path: &str) {
        self.must("DELETE", path, None);
    }

    /// Mounts a KV engine of version 1 or 2, and returns when it is usable.
    ///
    /// # Panics
    ///
    /// If the request fails or the server refuses it.
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
        // An engine of version 2 starts as version 1 and is briefly unavailable.
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        while version == 2 && is_upgrading() {
            assert!(Instant::now() < deadline, "{mount} never got ready");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Writes a policy.
    ///
    /// # Panics
    ///
    /// If the request fails or the server refuses it.
    #[track_caller]
    pub fn policy(&self, name: &str, rules: &str) {
        let path = format!("sys/policies/acl/{name}");
        self.write(&path, &json!({"policy": rules}));
    }

    /// Creates a token: `{"policies": ["runner"], "ttl": "1m"}`.
    ///
    /// # Panics
    ///
    /// If the request fails or the server refuses it.
    #[track_caller]
    #[must_use]
    pub fn token(&self, request: &Value) -> String {
        let made = self.ask("auth/token/create", request);
        text(&made["auth"]["client_token"])
    }

    /// Returns whether a token is still valid.
    ///
    /// # Panics
    ///
    /// If the request fails.
    #[track_caller]
    #[must_use]
    pub fn is_valid_token(&self, token: &str) -> bool {
        let lookup = self
            .with_token(token)
            .request("GET", "auth/token/lookup-self", None);
        lookup.expect("a server").status == 200
    }

    /// Returns the lease of each token that was issued at a path: `auth/ci/login`.
    ///
    /// Does not look up the tokens themselves: a server revokes a token that is looked up after the
    /// token's creation and before the creation of its lease.
    ///
    /// # Panics
    ///
    /// If the request fails or the server refuses it.
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
        // A lease that has expired has no id.
        let all = all.map(lease);
        all.filter(|lease| lease["id"].is_string()).collect()
    }

    /// Sets up a JWT login that trusts an issuer by discovery, as for a CI system.
    ///
    /// # Panics
    ///
    /// If the request fails or the server refuses it.
    #[track_caller]
    pub fn trust(&self, mount: &str, issuer: &Issuer) {
        self.write(&format!("sys/auth/{mount}"), &json!({"type": "jwt"}));
        self.write(
            &format!("auth/{mount}/config"),
            &json!({"oidc_discovery_url": issuer.url(), "bound_issuer": issuer.url()}),
        );
    }

    /// Creates an `AppRole` and returns its id and a secret id.
    ///
    /// # Panics
    ///
    /// If the request fails or the server refuses it.
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

    /// HTTP 1.0: the end of the connection marks the end of the body.
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
        write!(f, "Admin({:?})", self.endpoint)
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}
