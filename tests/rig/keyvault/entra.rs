//! Accounts and their rights, and the endpoint that issues access tokens.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{TENANT, encode, random_hex};
use crate::Issuer;

/// The audience that a job's token must have.
pub const AUDIENCE: &str = "api://AzureADTokenExchange";

/// An account: an application, or an identity of a machine.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// The secrets with which the account can sign in.
    pub secrets: Vec<String>,
    /// The jobs whose own tokens can sign in as the account.
    pub jobs: Vec<Job>,
    /// The rights of the account.
    pub rights: Vec<Right>,
}

/// A job that signs in with its own token: a federated identity credential.
#[derive(Clone, Debug)]
pub struct Job {
    issuer: String,
    subject: String,
    key: Vec<u8>,
}

/// The right to an action on data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    /// The action as role definitions name it; a `*` at the end matches anything.
    pub action: String,
    /// The secret or container to which the right is restricted; `None` means all.
    pub only: Option<String>,
}

impl Job {
    /// Accepts the jobs of an issuer with a certain subject.
    #[must_use]
    pub fn of(issuer: &Issuer, subject: &str) -> Self {
        Self {
            issuer: issuer.url(),
            subject: subject.to_owned(),
            key: issuer.public_point(),
        }
    }
}

impl Right {
    /// Returns a right to everything of a kind.
    #[must_use]
    pub fn to(action: &str) -> Self {
        Self {
            action: action.to_owned(),
            only: None,
        }
    }

    fn covers(&self, action: &str, thing: &str) -> bool {
        let named = match self.action.strip_suffix('*') {
            Some(beginning) => action.starts_with(beginning),
            None => action == self.action,
        };
        named && self.only.as_deref().is_none_or(|only| only == thing)
    }
}

/// The accounts of one tenant, and the tokens that were issued to them.
#[derive(Default)]
pub(super) struct Entra {
    pub(super) accounts: BTreeMap<String, Account>,
    tokens: BTreeMap<String, Token>,
}

struct Token {
    account: String,
    resource: String,
    ends: Instant,
}

/// A sign-in that was refused.
pub(super) struct Refused {
    status: u16,
    error: &'static str,
    number: u32,
    message: String,
}

impl Entra {
    /// Issues a token for a resource.
    pub(super) fn issue(&mut self, account: &str, resource: &str, lifetime: Duration) -> String {
        let resource = resource.trim_end_matches('/');
        let token = entra_token(resource, account, lifetime);
        let issued = Token {
            account: account.to_owned(),
            resource: resource.to_owned(),
            ends: Instant::now() + lifetime,
        };
        self.tokens.insert(token.clone(), issued);
        token
    }

    /// Returns the account of a token that is valid for a resource.
    pub(super) fn caller(&self, bearer: &str, resource: &str) -> Option<String> {
        let token = self.tokens.get(bearer)?;
        let is_good = token.resource == resource && token.ends > Instant::now();
        is_good.then(|| token.account.clone())
    }

    /// Returns every token that was ever issued.
    pub(super) fn issued(&self) -> Vec<String> {
        self.tokens.keys().cloned().collect()
    }

    /// Revokes every token.
    pub(super) fn revoke_all(&mut self) {
        self.tokens.clear();
    }

    pub(super) fn may(&self, account: &str, action: &str, thing: &str) -> bool {
        let account = self.accounts.get(account);
        let mut rights = account.iter().flat_map(|account| &account.rights);
        rights.any(|right| right.covers(action, thing))
    }

    /// Answers a request for a token.
    pub(super) fn sign_in(
        &mut self,
        tenant: &str,
        form: &BTreeMap<String, String>,
        lifetime: Duration,
    ) -> Result<Value, Refused> {
        let field = |name: &str| form.get(name).map_or("", String::as_str);
        if tenant != TENANT {
            let message = format!(
                "Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID."
            );
            return Err(Refused::new(400, "invalid_request", 90_002, message));
        }
        if field("grant_type") != "client_credentials" {
            let message = format!(
                "The app requested an unsupported grant type '{}'.",
                field("grant_type")
            );
            return Err(Refused::new(400, "unsupported_grant_type", 70_003, message));
        }
        let id = field("client_id");
        let Some(account) = self.accounts.get(id) else {
            let message = format!(
                "Application with identifier '{id}' was not found in the directory 'made up'."
            );
            return Err(Refused::new(400, "unauthorized_client", 700_016, message));
        };
        match (form.get("client_secret"), form.get("client_assertion")) {
            (Some(secret), None) if account.secrets.contains(secret) => {}
            (Some(_), None) => {
                let message = format!(
                    "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '{id}'."
                );
                return Err(Refused::new(401, "invalid_client", 7_000_215, message));
            }
            (None, Some(assertion)) => judge(assertion, &account.jobs)?,
            (None, None) | (Some(_), Some(_)) => {
                let message = "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.";
                return Err(Refused::new(401, "invalid_client", 7_000_218, message));
            }
        }
        let Some(resource) = field("scope").strip_suffix("/.default") else {
            let message = format!(
                "The provided value for the input parameter 'scope' is not valid. The scope {} is not valid.",
                field("scope")
            );
            return Err(Refused::new(400, "invalid_scope", 1_002_012, message));
        };
        let token = self.issue(id, resource, lifetime);
        Ok(json!({
            "token_type": "Bearer",
            "expires_in": lifetime.as_secs(),
            "ext_expires_in": lifetime.as_secs(),
            "access_token": token,
        }))
    }
}

/// Checks whether a job's token can sign in.
fn judge(assertion: &str, jobs: &[Job]) -> Result<(), Refused> {
    let refuse =
        |number, message: String| Err(Refused::new(401, "invalid_client", number, message));
    let Some((signed, signature, claims)) = split_jwt(assertion) else {
        return refuse(50_027, "JWT token is invalid or malformed.".to_owned());
    };
    let claim = |name: &str| claims[name].as_str().unwrap_or_default();
    let (issuer, subject, audience) = (claim("iss"), claim("sub"), claim("aud"));
    let check = "Check your federated identity credential Subject, Audience and Issuer against the presented assertion. https://learn.microsoft.com/entra/workload-id/workload-identity-federation";
    let mut of_issuer = jobs.iter().filter(|job| job.issuer == issuer).peekable();
    let Some(first) = of_issuer.peek() else {
        return refuse(
            700_211,
            format!(
                "No matching federated identity record found for presented assertion issuer '{issuer}'. {check}"
            ),
        );
    };
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &first.key);
    if key.verify(signed.as_bytes(), &signature).is_err() {
        return refuse(
            700_027,
            "Client assertion failed signature validation.".to_owned(),
        );
    }
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let time = |name: &str| claims[name].as_i64().unwrap_or_default();
    if now >= time("exp") || now < time("nbf") - 300 {
        return refuse(
            700_024,
            "Client assertion is not within its valid time range.".to_owned(),
        );
    }
    if audience != AUDIENCE {
        return refuse(
            700_212,
            format!(
                "No matching federated identity record found for presented assertion audience '{audience}'. {check}"
            ),
        );
    }
    // The comparison is case-sensitive.
    if !of_issuer.any(|job| job.subject == subject) {
        return refuse(
            700_213,
            format!(
                "No matching federated identity record found for presented assertion subject '{subject}'. {check}"
            ),
        );
    }
    Ok(())
}

/// Returns a token in the format of Entra. The signature is not real.
pub(crate) fn entra_token(resource: &str, account: &str, lifetime: Duration) -> String {
    let now = OffsetDateTime::now_utc();
    // Azurite checks all of these but the last two, and not the signature.
    let claims = json!({
        "aud": resource,
        "iss": format!("https://sts.windows.net/{TENANT}/"),
        "iat": now.unix_timestamp(),
        "nbf": now.unix_timestamp() - 5,
        "exp": (now + lifetime).unix_timestamp(),
        "appid": account,
        "jti": random_hex(8),
    });
    let header = json!({"alg": "RS256", "typ": "JWT"});
    let [header, claims] = [header, claims].map(|part| encode(part.to_string().as_bytes()));
    format!("{header}.{claims}.{}", encode(b"made up"))
}

fn split_jwt(token: &str) -> Option<(&str, Vec<u8>, Value)> {
    let (signed, signature) = token.rsplit_once('.')?;
    let (_, payload) = signed.split_once('.')?;
    let [signature, payload] = [signature, payload].map(|part| URL_SAFE_NO_PAD.decode(part));
    Some((
        signed,
        signature.ok()?,
        serde_json::from_slice(&payload.ok()?).ok()?,
    ))
}

impl Refused {
    fn new(status: u16, error: &'static str, number: u32, message: impl Into<String>) -> Self {
        Self {
            status,
            error,
            number,
            message: message.into(),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let [trace, correlation] = [(), ()].map(|()| random_hex(16));
        let now = OffsetDateTime::now_utc();
        let timestamp = format!(
            "{} {:02}:{:02}:{:02}Z",
            now.date(),
            now.hour(),
            now.minute(),
            now.second()
        );
        let Self {
            status,
            error,
            number,
            message,
        } = self;
        let body = json!({
            "error": error,
            "error_description": format!("AADSTS{number}: {message} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {timestamp}"),
            "error_codes": [number],
            "timestamp": timestamp,
            "trace_id": trace,
            "correlation_id": correlation,
            "error_uri": format!("https://login.microsoftonline.com/error?code={number}"),
        });
        let status = StatusCode::from_u16(status).expect("an HTTP status");
        (status, Json(body)).into_response()
    }
}
