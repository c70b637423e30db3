//! The endpoints.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{ConnectInfo, DefaultBodyLimit, Query, State as Extract},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{
    Call, Fault, IDENTITY, IDENTITY_HEADER, Moment, Op, Shared, TENANT, blobs,
    failure::Failure,
    secrets::{Change, MAX_PAGE_ROWS, Page, stamp},
    tls::{Connection, TlsListener},
};
use crate::pki::Pki;

/// The polling interval of a waiting write.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Serves until `stopped`, then drops every connection.
pub(super) fn serve(
    listener: TcpListener,
    pki: &Pki,
    shared: Arc<Shared>,
    stopped: oneshot::Receiver<()>,
) {
    let endpoints = Router::new()
        .route(
            "/{tenant}/v2.0/.well-known/openid-configuration",
            get(discovery),
        )
        .fallback(answer)
        .layer(DefaultBodyLimit::disable())
        .with_state(shared)
        .into_make_service_with_connect_info::<Connection>();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async move {
        let listener = TlsListener::new(listener, pki).expect("a socket");
        tokio::select! {
            _ = stopped => {}
            served = axum::serve(listener, endpoints) => served.expect("a running server"),
        }
    });
}

struct Request {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    query: BTreeMap<String, String>,
    body: Bytes,
}

type Parameters = Query<BTreeMap<String, String>>;

async fn answer(
    Extract(shared): Extract<Arc<Shared>>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    Query(query): Parameters,
    body: Bytes,
) -> Response {
    let request = Request {
        method,
        uri,
        headers,
        query,
        body,
    };
    // The server completes a request that has arrived, even if the client is gone.
    let task = tokio::spawn(async move {
        let mut call = Call::parse(&request.method, request.uri.path());
        let response = shared.handle(&mut call, &request, &connection).await;
        shared.record(call, response.status().as_u16());
        response
    });
    task.await.expect("an answer")
}

/// Returns the document in which a client finds the token endpoint.
async fn discovery(headers: HeaderMap) -> Json<Value> {
    let url = format!("https://{}", host(&headers));
    Json(json!({
        "issuer": format!("https://sts.windows.net/{TENANT}/"),
        "token_endpoint": format!("{url}/{TENANT}/oauth2/v2.0/token"),
        "authorization_endpoint": format!("{url}/{TENANT}/oauth2/v2.0/authorize"),
    }))
}

impl Shared {
    async fn handle(
        &self,
        call: &mut Call,
        request: &Request,
        connection: &Connection,
    ) -> Response {
        let storage = call.op.is_of_blobs();
        if call.op == Op::SignIn {
            call.name = signs_in(request);
        } else {
            call.caller = self.caller(request, storage);
            if call.caller.is_none() {
                return self.challenge(request, storage);
            }
        }
        if let Some(refusal) = self.refuse(call) {
            return refusal;
        }
        let fault = self.draw(call);
        match &fault {
            Some(Fault::Refused(failure)) => return failed(failure, storage),
            Some(Fault::RequestLost) => return sever(connection),
            Some(Fault::AppliedThen(_) | Fault::ReplyLost) | None => {}
        }
        if self.held(Moment::Before, call).await.is_err() {
            return sever(connection);
        }
        let response = match call.op {
            Op::SignIn => self.sign_in(request),
            Op::ReadBlob | Op::WriteBlob | Op::DeleteBlob => self.blob(request).await,
            Op::GetSecret
            | Op::ListVersions
            | Op::ListSecrets
            | Op::SetSecret
            | Op::UpdateSecret
            | Op::DeleteSecret
            | Op::GetDeleted
            | Op::Recover
            | Op::Purge
            | Op::Other => match self.secret(call, request).await {
                Ok(None) => StatusCode::NO_CONTENT.into_response(),
                Ok(Some(body)) => Json(body).into_response(),
                Err(failure) => failure.into_response(),
            },
        };
        if self.held(Moment::After, call).await.is_err() {
            return sever(connection);
        }
        match fault {
            Some(Fault::AppliedThen(failure)) => failed(&failure, storage),
            Some(Fault::ReplyLost) => sever(connection),
            Some(Fault::Refused(_) | Fault::RequestLost) | None => response,
        }
    }

    fn caller(&self, request: &Request, storage: bool) -> Option<String> {
        let bearer = request.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let bearer = bearer.strip_prefix("Bearer ")?;
        let inner = self.lock();
        let resource = if storage {
            blobs::RESOURCE
        } else {
            &inner.rules.resource
        };
        inner.entra.caller(bearer, resource)
    }

    /// Returns the 401 that names the token endpoint. It does not say why a token was rejected.
    fn challenge(&self, request: &Request, storage: bool) -> Response {
        if storage {
            return blobs::failure(
                401,
                "NoAuthenticationInformation",
                "Server failed to authenticate the request.",
            );
        }
        let authority = format!("https://{}/{TENANT}", host(&request.headers));
        let resource = self.lock().rules.resource.clone();
        let challenge = format!("Bearer authorization=\"{authority}\", resource=\"{resource}\"");
        let message = if request.headers.contains_key(header::AUTHORIZATION) {
            "AKV10032: Invalid issuer."
        } else {
            "AKV10000: Request is missing a Bearer or PoP token."
        };
        let failure = Failure::new(401, "Unauthorized", message);
        ([(header::WWW_AUTHENTICATE, challenge)], failure).into_response()
    }

    fn refuse(&self, call: &Call) -> Option<Response> {
        let (action, caller) = (call.op.action()?, call.caller.as_ref()?);
        if self.lock().entra.may(caller, action, call.thing()) {
            return None;
        }
        if call.op.is_of_blobs() {
            let message =
                "This request is not authorized to perform this operation using this permission.";
            return Some(blobs::failure(
                403,
                "AuthorizationPermissionMismatch",
                message,
            ));
        }
        let resource = format!(
            "/subscriptions/made-up/providers/microsoft.keyvault/vaults/made-up/secrets/{}",
            call.name
        );
        Some(Failure::not_allowed(caller, action, &resource).into_response())
    }

    fn sign_in(&self, request: &Request) -> Response {
        let mut inner = self.lock();
        let lifetime = inner.rules.token_lifetime;
        if request.method == Method::GET {
            let shown = request.headers.get("x-identity-header");
            let Some(resource) = request
                .query
                .get("resource")
                .filter(|_| shown.is_some_and(|it| it == IDENTITY_HEADER))
            else {
                return StatusCode::BAD_REQUEST.into_response();
            };
            let token = inner.entra.issue(IDENTITY, resource, lifetime);
            let ends = stamp() + i64::try_from(lifetime.as_secs()).expect("a lifetime");
            return Json(json!({"access_token": token, "expires_on": ends.to_string(), "resource": resource, "token_type": "Bearer"})).into_response();
        }
        let tenant = request.uri.path().trim_start_matches('/').split('/').next();
        let form = form(&request.body);
        let signed_in = inner
            .entra
            .sign_in(tenant.unwrap_or_default(), &form, lifetime);
        signed_in.map(Json).into_response()
    }

    async fn blob(&self, request: &Request) -> Response {
        let Some(blobs) = &self.blobs else {
            return blobs::failure(404, "ResourceNotFound", "There are no blobs here.");
        };
        let headers = request.headers.clone();
        let target = request
            .uri
            .path_and_query()
            .map_or("/", |target| target.as_str());
        blobs
            .ask(
                request.method.clone(),
                target,
                headers,
                request.body.clone(),
            )
            .await
    }

    async fn secret(&self, call: &Call, request: &Request) -> Result<Option<Value>, Failure> {
        let name = call.name.as_str();
        let id = call.version.as_deref();
        let host = host(&request.headers);
        if !request.query.contains_key("api-version") {
            return Err(Failure::bad_parameter("api-version must be specified"));
        }
        if !name.is_empty() && !is_name(name) {
            let message = format!("The request URI contains an invalid name: {name}");
            return Err(Failure::bad_parameter(message));
        }
        if call.op == Op::SetSecret {
            return self.set(host, name, &request.body).await.map(Some);
        }
        let mut inner = self.lock();
        let super::Inner { rules, secrets, .. } = &mut *inner;
        let shown = match call.op {
            Op::GetSecret => secrets.get(host, name, id)?,
            Op::ListVersions | Op::ListSecrets => {
                let token = request.query.get("$skiptoken").map(|token| {
                    let decoded = URL_SAFE_NO_PAD.decode(token).ok();
                    decoded.and_then(|bytes| String::from_utf8(bytes).ok())
                });
                if token == Some(None) {
                    return Err(Failure::bad_parameter("skiptoken is invalid"));
                }
                let token = token.flatten();
                let page = page(request, host, token.as_deref())?;
                if call.op == Op::ListVersions {
                    secrets.versions(host, name, &page, rules)
                } else {
                    secrets.list(host, &page, rules)
                }
            }
            Op::UpdateSecret => secrets.update(
                host,
                name,
                id,
                Change::parse(&parse(&request.body)?)?,
                rules,
            )?,
            Op::DeleteSecret => secrets.delete(host, name, rules)?,
            Op::GetDeleted => secrets.get_deleted(host, name)?,
            Op::Recover => secrets.recover(host, name, rules)?,
            Op::Purge => {
                secrets.purge(name, rules)?;
                return Ok(None);
            }
            Op::SetSecret
            | Op::SignIn
            | Op::ReadBlob
            | Op::WriteBlob
            | Op::DeleteBlob
            | Op::Other => {
                let message = format!("HTTP {} not allowed", request.method);
                return Err(Failure::new(405, "MethodNotAllowed", message));
            }
        };
        Ok(Some(shown))
    }

    async fn set(&self, host: &str, name: &str, body: &[u8]) -> Result<Value, Failure> {
        let body = parse(body)?;
        let change = Change::parse(&body)?;
        let (value, after) = {
            let mut inner = self.lock();
            let super::Inner { rules, secrets, .. } = &mut *inner;
            let value = secrets.begin(name, &body, rules)?;
            (value, rules.put_stuck)
        };
        let began = Instant::now();
        // A test may shorten the latency meanwhile.
        while began.elapsed() < self.lock().rules.put_latency {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        let stamp = stamp();
        tokio::time::sleep(after).await;
        let mut inner = self.lock();
        inner.secrets.put(host, name, value, change, stamp)
    }
}

fn page<'a>(request: &Request, host: &str, after: Option<&'a str>) -> Result<Page<'a>, Failure> {
    let requested = request.query.get("maxresults");
    let size = requested.map_or(Some(MAX_PAGE_ROWS), |size| size.parse().ok());
    let size = size.filter(|size| (1..=MAX_PAGE_ROWS).contains(size));
    let Some(size) = size else {
        return Err(Failure::bad_parameter("maxresults is invalid"));
    };
    // The service includes the port, even the default one.
    let host = if host.contains(':') {
        host.to_owned()
    } else {
        format!("{host}:443")
    };
    let version = request.query.get("api-version").map_or("", String::as_str);
    let path = request.uri.path();
    let requested =
        requested.map_or_else(String::new, |requested| format!("&maxresults={requested}"));
    let address = format!("https://{host}{path}?api-version={version}{requested}");
    Ok(Page {
        address,
        size,
        after,
    })
}

fn failed(failure: &Failure, storage: bool) -> Response {
    if storage {
        return blobs::failure(failure.status, failure.code, &failure.message);
    }
    failure.clone().into_response()
}

fn sever(connection: &Connection) -> Response {
    connection.sever();
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}

fn signs_in(request: &Request) -> String {
    if request.method == Method::GET {
        return IDENTITY.to_owned();
    }
    form(&request.body).remove("client_id").unwrap_or_default()
}

fn form(body: &[u8]) -> BTreeMap<String, String> {
    let text = String::from_utf8_lossy(body);
    let uri = Uri::builder().path_and_query(format!("/?{text}")).build();
    let parsed = uri.ok().and_then(|uri| Parameters::try_from_uri(&uri).ok());
    parsed.map(|Query(form)| form).unwrap_or_default()
}

fn parse(body: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(body).map_err(|error| Failure::bad_parameter(error.to_string()))
}

fn host(headers: &HeaderMap) -> &str {
    headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default()
}

fn is_name(name: &str) -> bool {
    name.len() <= 127
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}
