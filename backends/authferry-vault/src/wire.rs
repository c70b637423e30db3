//! The HTTP requests, one function each.
//!
//! This module works around the `vaultrs` library:
//!
//! - We build the HTTP client, because the library's client reads the environment and has a
//!   separate TLS setup.
//! - We validate a token before it becomes a header, because the library panics on an invalid
//!   one.
//! - The library's settings, errors and requests print secrets with `Debug`, so none of them
//!   leaves this module. The library also logs; this process installs no subscriber.

mod api;
mod failure;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use authferry_http::HttpError;
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

use crate::settings::{ConfigError, Settings};
use api::Api;
pub(crate) use failure::{ErrorResponse, VaultFailure, is_not_ready};

/// The servers of one cluster.
pub(crate) struct Wire {
    http: Http,
    servers: Vec<Url>,
    namespace: Option<String>,
    /// The server that answered last.
    current: AtomicUsize,
}

/// The current version of a secret.
pub(crate) struct KvSecret {
    pub(crate) id: VersionId,
    /// `None` when this version was deleted or destroyed.
    pub(crate) data: Option<Map<String, Value>>,
}

/// One version of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VersionId {
    pub(crate) number: u64,
    pub(crate) created: String,
}

impl VersionId {
    /// Returns whether this version is older than `other`. A lower number with a later creation
    /// time is not: the numbers restart when a secret is deleted with its metadata.
    pub(crate) fn is_before(&self, other: &Self) -> bool {
        // The server omits trailing zeros of the fraction, so a `Z` may stand where a digit does.
        let time = |point: &Self| point.created.trim_end_matches('Z').to_owned();
        self.number < other.number && time(self) <= time(other)
    }
}

/// A token that an auth method issued.
pub(crate) struct TokenGrant {
    pub(crate) token: SecretString,
    /// The TTL; zero if the token does not expire.
    pub(crate) ttl: Duration,
    pub(crate) renewable: bool,
}

/// The kind of secrets engine at a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    KeyValue2,
    KeyValue1,
    Another,
}

/// The delays before the retries of an idempotent request.
pub(crate) const RETRY_DELAYS: [Duration; 2] =
    [Duration::from_millis(100), Duration::from_millis(400)];

impl Wire {
    pub(crate) fn new(settings: &Settings) -> Result<Self, ConfigError> {
        let servers = settings.servers()?;
        Ok(Self {
            http: settings.net.client(&servers)?,
            servers,
            namespace: settings.namespace()?,
            current: AtomicUsize::new(0),
        })
    }

    /// Reads a secret. `None` if it never existed or was deleted with its metadata.
    pub(crate) async fn read(
        &self,
        token: &SecretString,
        mount: &str,
        path: &str,
    ) -> Result<Option<KvSecret>, VaultFailure> {
        let reply = self
            .with_retries(token, |client| async move {
                let request = ReadSecretRequest {
                    mount: mount.to_owned(),
                    path: path.to_owned(),
                    version: None,
                };
                client.result(request).await
            })
            .await;
        match reply {
            Ok(reply) => Ok(Some(KvSecret {
                id: reply.metadata.into(),
                data: match reply.data {
                    Value::Object(data) => Some(data),
                    Value::Null => None,
                    Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                        return Err(VaultFailure::Unintelligible);
                    }
                },
            })),
            Err(VaultFailure::ErrorResponse(ErrorResponse {
                status: 404,
                deleted: Some(id),
                ..
            })) => Ok(Some(KvSecret { id, data: None })),
            Err(VaultFailure::ErrorResponse(ErrorResponse {
                status: 404, texts, ..
            })) if texts.is_empty() => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Writes a secret if its version is still `number`; zero means that it does not exist. Sends
    /// the request once.
    pub(crate) async fn write(
        &self,
        token: &SecretString,
        mount: &str,
        path: &str,
        data: Map<String, Value>,
        number: u64,
    ) -> Result<VersionId, VaultFailure> {
        // The library's field is a `u32`. No secret has that many versions.
        let cas = u32::try_from(number).map_err(|_| VaultFailure::Unintelligible)?;
        let data = Value::Object(data);
        self.send_once(Some(token), |client| {
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
        .map(VersionId::from)
    }

    /// Returns the kind of secrets engine at a mount.
    pub(crate) async fn engine(
        &self,
        token: &SecretString,
        mount: &str,
    ) -> Result<Engine, VaultFailure> {
        let found = self
            .with_retries(token, |client| async move {
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
    ) -> Result<u64, VaultFailure> {
        let found = self
            .with_retries(token, |client| async move {
                client.result(ReadMaxVersions(path)).await
            })
            .await?;
        Ok(found.max_versions)
    }

    /// Authenticates with the job's OIDC token.
    pub(crate) async fn log_in_by_jwt(
        &self,
        mount: &str,
        role: Option<&str>,
        jwt: &SecretString,
    ) -> Result<TokenGrant, VaultFailure> {
        self.send_once(None, |client| async move {
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

    /// Authenticates with an AppRole.
    pub(crate) async fn log_in_by_role(
        &self,
        mount: &str,
        role_id: &SecretString,
        secret_id: &SecretString,
    ) -> Result<TokenGrant, VaultFailure> {
        self.send_once(None, |client| async move {
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

    /// Renews a token.
    pub(crate) async fn renew(&self, token: &SecretString) -> Result<TokenGrant, VaultFailure> {
        self.send_once(Some(token), |client| async move {
            client.grant(RenewTokenSelfRequest::default()).await
        })
        .await?
        .try_into()
    }

    /// Revokes a token.
    pub(crate) async fn revoke(&self, token: &SecretString) -> Result<(), VaultFailure> {
        self.send_once(Some(token), |client| async move {
            client.empty(RevokeTokenSelfRequest {}).await
        })
        .await
    }

    /// Looks the token up. Succeeds if the server knows it.
    pub(crate) async fn look_up(&self, token: &SecretString) -> Result<(), VaultFailure> {
        self.with_retries(token, |client| async move {
            // Ignore the fields: they differ between servers.
            client.result(LookUp).await.map(|Any {}| ())
        })
        .await
    }

    /// Sends a request to one server. Tries the next server only if this one was not reached, so
    /// that no write runs twice.
    async fn send_once<T, F: Future<Output = Result<T, VaultFailure>>>(
        &self,
        token: Option<&SecretString>,
        call: impl Fn(Api) -> F,
    ) -> Result<T, VaultFailure> {
        let first = self.current.load(Ordering::Relaxed);
        let mut unreached = VaultFailure::Unintelligible;
        for server in (0..self.servers.len()).map(|n| (first + n) % self.servers.len()) {
            match call(self.client(server, token)).await {
                Err(failure @ VaultFailure::Silent(HttpError::ConnectFailed(_))) => {
                    unreached = failure;
                }
                reply => {
                    self.current.store(server, Ordering::Relaxed);
                    return reply;
                }
            }
        }
        Err(unreached)
    }

    /// Sends an idempotent request, with retries on every server after a transient failure.
    async fn with_retries<T, F: Future<Output = Result<T, VaultFailure>>>(
        &self,
        token: &SecretString,
        call: impl Fn(Api) -> F,
    ) -> Result<T, VaultFailure> {
        let mut delays = RETRY_DELAYS.iter();
        loop {
            let mut failed = None;
            for _ in &self.servers {
                match self.send_once(Some(token), &call).await {
                    // `send_once` has already tried every server.
                    Err(failure @ VaultFailure::Silent(HttpError::ConnectFailed(_))) => {
                        failed = Some(failure);
                        break;
                    }
                    Err(failure) if failure.is_transient() => {
                        failed = Some(failure);
                        self.use_next_server();
                    }
                    reply => return reply,
                }
            }
            let failed = failed.ok_or(VaultFailure::Unintelligible)?;
            let Some(delay) = delays.next() else {
                return Err(failed);
            };
            sleep(*delay).await;
        }
    }

    /// Sends the next request to the next server, if there are several.
    pub(crate) fn use_next_server(&self) {
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

impl From<SecretVersionMetadata> for VersionId {
    fn from(metadata: SecretVersionMetadata) -> Self {
        Self {
            number: metadata.version,
            created: metadata.created_time,
        }
    }
}

impl TryFrom<AuthInfo> for TokenGrant {
    type Error = VaultFailure;

    fn try_from(info: AuthInfo) -> Result<Self, Self::Error> {
        if !is_token(&info.client_token) {
            return Err(VaultFailure::Unintelligible);
        }
        Ok(Self {
            token: info.client_token.into(),
            ttl: Duration::from_secs(info.lease_duration),
            renewable: info.renewable,
        })
    }
}

/// Returns whether a text can be a token. The library panics on an invalid header value.
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())
}

/// Reads the kind of a mount, which the library has no request for. Any token with a right in
/// the mount may send it.
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

/// Reads `max_versions`. The library's request requires more fields.
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

/// Looks up our own token. Used instead of the request of `vaultrs`, whose response type requires
/// fields that not every server sends.
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
