//! An issuer of signed tokens, as a CI system has one for its jobs: discovery, the public key, and
//! the endpoint where a job of GitHub Actions fetches a token.

#[cfg(test)]
mod tests;

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::sync::oneshot;

/// The bearer token with which a job of GitHub Actions requests a token.
const BEARER: &str = "made-up-request-token";

/// The lifetime of a GitHub Actions token, in seconds.
const LIFETIME: i64 = 300;

/// A running issuer; stops when dropped.
pub struct Issuer {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    server: Option<JoinHandle<()>>,
}

impl Issuer {
    /// Starts an issuer with a new key.
    ///
    /// # Panics
    ///
    /// If the loopback interface cannot be used.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free loopback port");
        let address = listener.local_addr().expect("a bound socket");
        let shared = Arc::new(Shared {
            url: format!("http://{address}"),
            key: key(),
            state: Mutex::default(),
        });
        let (stop, stopped) = oneshot::channel();
        let server = thread::spawn({
            let shared = Arc::clone(&shared);
            move || serve(listener, shared, stopped)
        });
        Self {
            address,
            shared,
            stop: Some(stop),
            server: Some(server),
        }
    }

    /// Returns the issuer's name, which is also the URL of its key.
    #[must_use]
    pub fn url(&self) -> String {
        self.shared.url.clone()
    }

    /// Signs claims. Adds the issuer and a validity of five minutes from now where the claims do
    /// not set them.
    ///
    /// # Panics
    ///
    /// If the claims are not an object.
    #[must_use]
    pub fn sign(&self, claims: Value) -> String {
        self.shared.sign(claims)
    }

    /// Returns the public key: a tag and two coordinates.
    #[cfg(feature = "azure-kv")]
    pub(crate) fn public_point(&self) -> Vec<u8> {
        self.shared.key.public_key().as_ref().to_vec()
    }

    /// Allows a job of GitHub Actions to fetch tokens with these claims, and returns the variables
    /// that name the endpoint. The job chooses the audience (`aud`).
    #[must_use]
    pub fn allow_fetch(&self, claims: Value) -> [(&'static str, String); 2] {
        self.shared.lock().claims = Some(claims);
        // GitHub's own address has a query too, so a client must append to it.
        let url = format!("{}/token?api-version=2.0", self.shared.url);
        [
            ("ACTIONS_ID_TOKEN_REQUEST_URL", url),
            ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", BEARER.to_owned()),
        ]
    }

    /// Makes the endpoint for jobs fail with a status, or work again.
    pub fn fail(&self, status: Option<u16>) {
        self.shared.lock().failure = status;
    }

    /// Returns every token that a job has fetched so far.
    #[must_use]
    pub fn fetched(&self) -> Vec<String> {
        self.shared.lock().fetched.clone()
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        drop(self.stop.take());
        // Wait, so that the port is closed when the test continues.
        if let Some(server) = self.server.take() {
            drop(server.join());
        }
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Issuer({})", self.address)
    }
}

/// Returns the claims of a job of GitHub Actions on the main branch of a repository.
#[must_use]
pub fn github_claims(repository: &str) -> Value {
    let owner = repository.split('/').next().unwrap_or_default();
    json!({
        "sub": format!("repo:{repository}:ref:refs/heads/main"),
        "repository": repository,
        "repository_owner": owner,
        "repository_visibility": "private",
        "ref": "refs/heads/main",
        "ref_type": "branch",
        "event_name": "push",
        "workflow": "nightly",
        "job_workflow_ref": format!("{repository}/.github/workflows/nightly.yml@refs/heads/main"),
        "runner_environment": "github-hosted",
        "actor": "somebody",
        "run_id": "1",
        "run_attempt": "1",
    })
}

/// Returns the claims of a job of GitLab CI on the protected main branch of a project.
#[must_use]
pub fn gitlab_claims(project: &str) -> Value {
    let namespace = project.split('/').next().unwrap_or_default();
    json!({
        "sub": format!("project_path:{project}:ref_type:branch:ref:main"),
        "project_path": project,
        "namespace_path": namespace,
        "project_visibility": "private",
        "ref": "main",
        "ref_type": "branch",
        "ref_protected": "true",
        "pipeline_source": "schedule",
        "pipeline_id": "1",
        "job_id": "1",
        "user_login": "somebody",
    })
}

struct Shared {
    url: String,
    key: EcdsaKeyPair,
    state: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    claims: Option<Value>,
    failure: Option<u16>,
    fetched: Vec<String>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sign(&self, mut claims: Value) -> String {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let members = claims.as_object_mut().expect("claims are an object");
        for (name, value) in [
            ("iss", json!(self.url)),
            ("iat", json!(now)),
            ("nbf", json!(now)),
            ("exp", json!(now + LIFETIME)),
            ("jti", json!(format!("made-up-{now}"))),
        ] {
            members.entry(name).or_insert(value);
        }
        let header = json!({"alg": "ES256", "kid": "made-up", "typ": "JWT"});
        let [header, payload] = [header, claims].map(|part| encode(part.to_string().as_bytes()));
        let signed = format!("{header}.{payload}");
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes());
        let signature = encode(signature.expect("a key that signs").as_ref());
        format!("{signed}.{signature}")
    }

    /// The public key: a point, which is a tag and two coordinates of 32 bytes.
    fn public_key(&self) -> Value {
        let point = self.key.public_key().as_ref();
        json!({"keys": [{
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "made-up",
            "x": encode(&point[1..33]), "y": encode(&point[33..]),
        }]})
    }
}

fn key() -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("random bytes");
    EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).expect("just made")
}

fn serve(listener: TcpListener, shared: Arc<Shared>, stopped: oneshot::Receiver<()>) {
    let endpoints = Router::new()
        .route("/.well-known/openid-configuration", get(discovery))
        .route("/keys", get(keys))
        .route("/token", get(token))
        .with_state(shared);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async move {
        listener.set_nonblocking(true).expect("a socket");
        let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
        tokio::select! {
            _ = stopped => {}
            served = axum::serve(listener, endpoints) => served.expect("a running server"),
        }
    });
}

async fn discovery(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let url = &shared.url;
    Json(json!({
        "issuer": url,
        "jwks_uri": format!("{url}/keys"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    }))
}

async fn keys(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(shared.public_key())
}

async fn token(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
) -> Response {
    let mut inner = shared.lock();
    let failure = inner.failure.and_then(|it| StatusCode::from_u16(it).ok());
    if let Some(failure) = failure {
        return failure.into_response();
    }
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.split_once(' '));
    let known = bearer
        .is_some_and(|(scheme, token)| scheme.eq_ignore_ascii_case("bearer") && token == BEARER);
    let versioned = query.iter().any(|(name, _)| name == "api-version");
    let (true, true, Some(claims)) = (known, versioned, inner.claims.clone()) else {
        return StatusCode::UNAUTHORIZED.into_response();
    };
    let token = shared.sign(with_audience(claims, &query));
    inner.fetched.push(token.clone());
    Json(json!({"count": token.len(), "value": token})).into_response()
}

/// Adds the requested audience; by default the owner of the repository.
fn with_audience(mut claims: Value, query: &[(String, String)]) -> Value {
    let requested = query.iter().find(|(name, _)| name == "audience");
    let audience = requested.map_or_else(
        || {
            let owner = claims["repository_owner"].as_str().unwrap_or_default();
            format!("https://github.com/{owner}")
        },
        |(_, audience)| audience.clone(),
    );
    claims["aud"] = json!(audience);
    claims
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
