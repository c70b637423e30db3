//! The requests, each in one narrow function.
//!
//! What the library below leaves to its callers is done here and in the modules around:
//! its client is put together by hand, since its own reads the environment and has a TLS
//! setup of its own; a token is looked at before it becomes a header, where the library
//! would panic; its settings, its errors and its requests print secrets with `Debug`, so
//! none of them leaves this module. It logs what it does, and nobody here listens.

mod api;
mod failure;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use authferry_http::Silence;
use reqwest::Client as Http;
use rustify::{
    Endpoint,
    enums::{RequestMethod, RequestType, ResponseType},
};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::time::sleep;
use url::Url;
use vaultrs::api::{
    AuthInfo, EndpointMiddleware,
    auth::{approle::requests::LoginWithApproleRequest, oidc::requests::JWTLoginRequest},
    kv2::{
        requests::{ReadSecretRequest, SetSecretRequest, SetSecretRequestOptions},
        responses::SecretVersionMetadata,
    },
    token::requests::{RenewTokenSelfRequest, RevokeTokenSelfRequest},
};

use crate::settings::{Misfit, Settings};
use api::Api;
pub(crate) use failure::{Answer, Failure, is_not_ready};

/// The servers of one cluster.
pub(crate) struct Wire {
    http: Http,
    servers: Vec<Url>,
    namespace: Option<String>,
    /// The server that answered last.
    current: AtomicUsize,
}

/// What a secret holds at present.
pub(crate) struct Found {
    pub(crate) at: Point,
    /// `None` when this version was deleted or destroyed.
    pub(crate) data: Option<Map<String, Value>>,
}

/// One version of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) number: u64,
    pub(crate) created: String,
}

impl Point {
    /// Whether it came before another one. A lower number that was created later is not:
    /// numbers start again when a secret is deleted with all that is known of it.
    pub(crate) fn is_before(&self, other: &Self) -> bool {
        // Fractions of a second are written without zeros at their end.
        let time = |point: &Self| point.created.trim_end_matches('Z').to_owned();
        self.number < other.number && time(self) <= time(other)
    }
}

/// A token that was granted.
pub(crate) struct Grant {
    pub(crate) token: SecretString,
    /// How long it lives; zero if it does not end.
    pub(crate) lease: Duration,
    pub(crate) renewable: bool,
}

/// What there is at the path of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    KeyValue2,
    KeyValue1,
    Another,
}

/// The pauses before what changes nothing is asked for again.
pub(crate) const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(400)];

impl Wire {
    pub(crate) fn new(settings: &Settings) -> Result<Self, Misfit> {
        let servers = settings.servers()?;
        Ok(Self {
            http: settings.net.client(&servers)?,
            servers,
            namespace: settings.namespace()?,
            current: AtomicUsize::new(0),
        })
    }

    /// Reads a secret. `None` if there never was one, or all of it was deleted.
    pub(crate) async fn read(
        &self,
        token: &SecretString,
        mount: &str,
        path: &str,
    ) -> Result<Option<Found>, Failure> {
        let reply = self
            .patiently(token, |client| async move {
                let request = ReadSecretRequest {
                    mount: mount.to_owned(),
                    path: path.to_owned(),
                    version: None,
                };
                client.result(request).await
            })
            .await;
        match reply {
            Ok(reply) => Ok(Some(Found {
                at: reply.metadata.into(),
                data: match reply.data {
                    Value::Object(data) => Some(data),
                    Value::Null => None,
                    Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                        return Err(Failure::Unintelligible);
                    }
                },
            })),
            Err(Failure::Answer(Answer {
                status: 404,
                gone: Some(at),
                ..
            })) => Ok(Some(Found { at, data: None })),
            Err(Failure::Answer(Answer {
                status: 404, texts, ..
            })) if texts.is_empty() => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Writes a secret if its version is still `number`, zero being none. Sent once.
    pub(crate) async fn write(
        &self,
        token: &SecretString,
        mount: &str,
        path: &str,
        data: Map<String, Value>,
        number: u64,
    ) -> Result<Point, Failure> {
        // The library has no room for more, and no secret was ever written so often.
        let cas = u32::try_from(number).map_err(|_| Failure::Unintelligible)?;
        let data = Value::Object(data);
        self.once(Some(token), |client| {
            let data = data.clone();
            async move {
                let request = SetSecretRequest {
                    mount: mount.to_owned(),
                    path: path.to_owned(),
                    data,
                    options: Some(SetSecretRequestOptions { cas }),
                };
                client.result(request).await
            }
        })
        .await
        .map(Point::from)
    }

    /// Asks what there is at a mount.
    pub(crate) async fn engine(
        &self,
        token: &SecretString,
        mount: &str,
    ) -> Result<Engine, Failure> {
        let found = self
            .patiently(token, |client| async move {
                client.result(ReadMount(mount)).await
            })
            .await?;
        let version = found.options.and_then(|options| options.version);
        Ok(match (found.kind.as_str(), version.as_deref()) {
            ("kv", Some("2")) => Engine::KeyValue2,
            ("kv" | "generic", _) => Engine::KeyValue1,
            (_, _) => Engine::Another,
        })
    }

    /// Reads `max_versions` of a secret, at `MOUNT/metadata/PATH`, or of a mount, at
    /// `MOUNT/config`. Zero if it is not set.
    pub(crate) async fn max_versions(
        &self,
        token: &SecretString,
        path: &str,
    ) -> Result<u64, Failure> {
        let found = self
            .patiently(token, |client| async move {
                client.result(ReadMaxVersions(path)).await
            })
            .await?;
        Ok(found.max_versions)
    }

    /// Logs in with the job's own token.
    pub(crate) async fn log_in_by_jwt(
        &self,
        mount: &str,
        role: Option<&str>,
        jwt: &SecretString,
    ) -> Result<Grant, Failure> {
        self.once(None, |client| async move {
            let request = JWTLoginRequest {
                mount: mount.to_owned(),
                jwt: jwt.expose_secret().to_owned(),
                role: role.map(ToOwned::to_owned),
            };
            client.grant(request).await
        })
        .await?
        .try_into()
    }

    /// Logs in with an AppRole.
    pub(crate) async fn log_in_by_role(
        &self,
        mount: &str,
        role_id: &SecretString,
        secret_id: &SecretString,
    ) -> Result<Grant, Failure> {
        self.once(None, |client| async move {
            let request = LoginWithApproleRequest {
                mount: mount.to_owned(),
                role_id: role_id.expose_secret().to_owned(),
                secret_id: secret_id.expose_secret().to_owned(),
            };
            client.grant(request).await
        })
        .await?
        .try_into()
    }

    /// Makes a token live longer.
    pub(crate) async fn renew(&self, token: &SecretString) -> Result<Grant, Failure> {
        self.once(Some(token), |client| async move {
            client.grant(RenewTokenSelfRequest::default()).await
        })
        .await?
        .try_into()
    }

    /// Ends a token.
    pub(crate) async fn revoke(&self, token: &SecretString) -> Result<(), Failure> {
        self.once(Some(token), |client| async move {
            client.nothing(RevokeTokenSelfRequest {}).await
        })
        .await
    }

    /// Returns if the server knows the token.
    pub(crate) async fn look_up(&self, token: &SecretString) -> Result<(), Failure> {
        self.patiently(token, |client| async move {
            // What is in it is of no interest, and not the same everywhere.
            client.result(LookUp).await.map(|Any {}| ())
        })
        .await
    }

    /// Sends a request once: another server gets it only if this one was not reached.
    async fn once<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        token: Option<&SecretString>,
        call: impl Fn(Api) -> F,
    ) -> Result<T, Failure> {
        let first = self.current.load(Ordering::Relaxed);
        let mut unreached = Failure::Unintelligible;
        for server in (0..self.servers.len()).map(|n| (first + n) % self.servers.len()) {
            match call(self.client(server, token)).await {
                Err(failure @ Failure::Silent(Silence::Unreached(_))) => unreached = failure,
                reply => {
                    self.current.store(server, Ordering::Relaxed);
                    return reply;
                }
            }
        }
        Err(unreached)
    }

    /// Sends a request that changes nothing until a server can answer it.
    async fn patiently<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        token: &SecretString,
        call: impl Fn(Api) -> F,
    ) -> Result<T, Failure> {
        let mut pauses = PAUSES.iter();
        loop {
            let mut failed = None;
            for _ in &self.servers {
                match self.once(Some(token), &call).await {
                    // Every server was tried already.
                    Err(failure @ Failure::Silent(Silence::Unreached(_))) => {
                        failed = Some(failure);
                        break;
                    }
                    Err(failure) if failure.is_transient() => {
                        failed = Some(failure);
                        self.turn_to_another();
                    }
                    reply => return reply,
                }
            }
            let failed = failed.ok_or(Failure::Unintelligible)?;
            let Some(pause) = pauses.next() else {
                return Err(failed);
            };
            sleep(*pause).await;
        }
    }

    /// Has another server asked next, where there is one.
    pub(crate) fn turn_to_another(&self) {
        self.current.fetch_add(1, Ordering::Relaxed);
    }

    fn client(&self, server: usize, token: Option<&SecretString>) -> Api {
        let server = &self.servers[server % self.servers.len()];
        let token = token.map(|token| token.expose_secret().to_owned());
        Api {
            http: self.http.clone(),
            base: server.to_string(),
            middle: EndpointMiddleware {
                token: token.unwrap_or_default(),
                version: "v1".to_owned(),
                wrap: None,
                namespace: self.namespace.clone(),
            },
        }
    }
}

impl From<SecretVersionMetadata> for Point {
    fn from(metadata: SecretVersionMetadata) -> Self {
        Self {
            number: metadata.version,
            created: metadata.created_time,
        }
    }
}

impl TryFrom<AuthInfo> for Grant {
    type Error = Failure;

    fn try_from(info: AuthInfo) -> Result<Self, Self::Error> {
        if !is_token(&info.client_token) {
            return Err(Failure::Unintelligible);
        }
        Ok(Self {
            token: info.client_token.into(),
            lease: Duration::from_secs(info.lease_duration),
            renewable: info.renewable,
        })
    }
}

/// Returns whether a text can be a token. The library panics on one that no header can hold.
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())
}

/// The library has no request for this one. Any token may ask that has a right in the mount.
struct ReadMount<'a>(&'a str);

#[derive(Deserialize)]
struct Mount {
    #[serde(rename = "type")]
    kind: String,
    options: Option<Options>,
}

#[derive(Deserialize)]
struct Options {
    version: Option<String>,
}

impl Endpoint for ReadMount<'_> {
    type Response = Mount;
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        format!("sys/internal/ui/mounts/{}", self.0)
    }

    fn method(&self) -> RequestMethod {
        RequestMethod::GET
    }
}

/// The library's own wants more fields.
struct ReadMaxVersions<'a>(&'a str);

#[derive(Deserialize)]
struct MaxVersions {
    max_versions: u64,
}

impl Endpoint for ReadMaxVersions<'_> {
    type Response = MaxVersions;
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        self.0.to_owned()
    }

    fn method(&self) -> RequestMethod {
        RequestMethod::GET
    }
}

/// The library's own wants fields that not every server has.
struct LookUp;

#[derive(Deserialize)]
struct Any {}

impl Endpoint for LookUp {
    type Response = Any;
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        "auth/token/lookup-self".to_owned()
    }

    fn method(&self) -> RequestMethod {
        RequestMethod::GET
    }
}

#[cfg(test)]
mod tests;
