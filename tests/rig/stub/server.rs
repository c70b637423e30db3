//! The endpoints.

use std::{
    net::{Shutdown, TcpListener, TcpStream},
    os::fd::AsFd,
    sync::Arc,
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{ConnectInfo, DefaultBodyLimit, State as Extract, connect_info::Connected},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::post,
    serve::IncomingStream,
};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::sync::oneshot;

use super::{
    Answer, Bearer, Endpoint, Event, Fault, Inner, Outcome, Shared, What, ledger::State, model,
};
use crate::{Login, Person};

/// Serves until `stopped`, then drops every connection.
pub(super) fn serve(listener: TcpListener, shared: Arc<Shared>, stopped: oneshot::Receiver<()>) {
    let endpoints = Router::new()
        .route("/oauth/token", post(token))
        .route("/oauth/revoke", post(revoke))
        .route("/backend-api/codex/responses", post(ask_model))
        .fallback(nothing_here)
        .layer(DefaultBodyLimit::disable())
        .with_state(shared)
        .into_make_service_with_connect_info::<Connection>();
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

async fn token(
    Extract(shared): Extract<Arc<Shared>>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    body: Bytes,
) -> Response {
    let arrived = OffsetDateTime::now_utc();
    let request = parse(&body);
    let latency = shared.lock().rules.latency;
    tokio::time::sleep(latency).await;
    let reply = {
        let mut inner = shared.lock();
        let (serial, outcome, reply) = inner.refresh(text(&request["refresh_token"]));
        let reason = text(&request["refresh_reason"]).to_owned();
        let what = What::Refresh {
            serial,
            reason,
            outcome,
        };
        shared.record_since(arrived, &mut inner, what);
        reply
    };
    tokio::time::sleep(latency).await;
    shared.released(Endpoint::Token).await;
    match reply {
        Some((status, body)) => {
            (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
        }
        None => connection.sever(),
    }
}

async fn revoke(Extract(shared): Extract<Arc<Shared>>, body: Bytes) -> StatusCode {
    let mut inner = shared.lock();
    let found = inner.ledger.find(text(&parse(&body)["token"]));
    if let Some((place, ..)) = found {
        inner.ledger.revoke(place);
    }
    let serial = found.map(|(_, serial, _)| serial);
    shared.record(&mut inner, What::Revoke { serial });
    StatusCode::OK
}

async fn ask_model(
    Extract(shared): Extract<Arc<Shared>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let request = parse(&body);
    let (status, answer) = {
        let mut inner = shared.lock();
        let printed = model::printed_in(&request);
        let answer = match &inner.rules.shell {
            Some(line) if printed.is_empty() => model::call(line),
            Some(_) | None => model::answer(),
        };
        for text in printed {
            shared.record(&mut inner, What::Printed { text });
        }
        let (serial, status) = inner.authorize(bearer(&headers));
        let what = What::Model {
            serial,
            status: status.as_u16(),
        };
        shared.record(&mut inner, what);
        (status, answer)
    };
    shared.released(Endpoint::Model).await;
    if status == StatusCode::OK {
        ([(header::CONTENT_TYPE, "text/event-stream")], answer).into_response()
    } else {
        let code = match status {
            StatusCode::UNAUTHORIZED => "token_expired",
            _ => "server_error",
        };
        (status, Json(error(code))).into_response()
    }
}

/// Answers everything else with 404, including a proxied client's `CONNECT`: at once, so that a
/// client that calls an outside host does not wait.
async fn nothing_here(
    Extract(shared): Extract<Arc<Shared>>,
    method: Method,
    target: Uri,
) -> StatusCode {
    let request = format!("{method} {target}");
    shared.record(&mut shared.lock(), What::Other { request });
    StatusCode::NOT_FOUND
}

impl Shared {
    fn record(&self, inner: &mut Inner, what: What) {
        self.record_since(OffsetDateTime::now_utc(), inner, what);
    }

    fn record_since(&self, arrived: OffsetDateTime, inner: &mut Inner, what: What) {
        let at = OffsetDateTime::now_utc();
        inner.events.push(Event { arrived, at, what });
        self.happened.notify_all();
    }

    /// Waits until replies are released.
    async fn released(&self, endpoint: Endpoint) {
        let mut holds = self.gate(endpoint).subscribe();
        holds
            .wait_for(|holds| *holds == 0)
            .await
            .expect("the server owns the sender");
    }
}

impl Inner {
    /// Decides on a refresh. `None` drops the connection.
    fn refresh(
        &mut self,
        refresh_token: &str,
    ) -> (Option<u32>, Outcome, Option<(StatusCode, String)>) {
        let found = self.ledger.find(refresh_token);
        let (outcome, reply) = match (self.rules.refresh_faults.pop_front(), found) {
            (Some(fault @ Fault::Answer(given)), _) => {
                let (status, body) = answer(given);
                let found = found.map(|(_, serial, _)| serial);
                return (found, Outcome::Failed(fault), Some((status, body)));
            }
            (Some(fault @ Fault::ServerError), _) => (
                Outcome::Failed(fault),
                Some((StatusCode::INTERNAL_SERVER_ERROR, error("server_error"))),
            ),
            (Some(fault @ Fault::RequestLost), _) => (Outcome::Failed(fault), None),
            (_, None) => (
                Outcome::Unknown,
                Some((StatusCode::BAD_REQUEST, json!({"error": "invalid_grant"}))),
            ),
            (_, Some((.., State::Spent))) => (
                Outcome::Reused,
                Some((
                    status(self.rules.reused_status),
                    error("refresh_token_reused"),
                )),
            ),
            (_, Some((.., State::Revoked))) => (
                Outcome::Revoked,
                Some((StatusCode::UNAUTHORIZED, error("refresh_token_invalidated"))),
            ),
            (fault, Some((place, _, State::Live))) => {
                let omitted = matches!(
                    fault,
                    Some(Fault::RefreshTokenOmitted | Fault::AccessTokenAlone)
                );
                let now = self.now();
                let lifetime = self.rules.access_lifetime;
                let changes_session = self.rules.changes_session;
                let next = self
                    .ledger
                    .renew(place, now, lifetime, omitted, changes_session);
                let reply = (StatusCode::OK, tokens(&next, fault));
                (
                    Outcome::Rotated(next.serial),
                    (fault != Some(Fault::ReplyLost)).then_some(reply),
                )
            }
        };
        let reply = reply.map(|(status, body)| (status, formatted(&body)));
        (found.map(|(_, serial, _)| serial), outcome, reply)
    }

    /// Decides on a model call.
    fn authorize(&self, access_token: &str) -> (Option<u32>, StatusCode) {
        let Some((login, is_newest)) = self.ledger.bearer(access_token) else {
            return (None, StatusCode::UNAUTHORIZED);
        };
        let taken = login.ends > self.now()
            && match self.rules.bearer {
                Bearer::Newest => is_newest,
                Bearer::Unexpired => true,
            };
        let status = match self.rules.model_failure {
            Some(failure) => status(failure),
            None if taken => StatusCode::OK,
            None => StatusCode::UNAUTHORIZED,
        };
        (Some(login.serial), status)
    }

    fn now(&self) -> OffsetDateTime {
        self.rules.clock.unwrap_or_else(OffsetDateTime::now_utc)
    }
}

/// A second handle on the connection of a request.
#[derive(Clone)]
struct Connection(Arc<TcpStream>);

impl Connection {
    /// Closes the connection before a reply is sent.
    fn sever(&self) -> Response {
        // It may have ended already.
        drop(self.0.shutdown(Shutdown::Both));
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}

impl Connected<IncomingStream<'_, tokio::net::TcpListener>> for Connection {
    fn connect_info(stream: IncomingStream<'_, tokio::net::TcpListener>) -> Self {
        let handle = stream.io().as_fd().try_clone_to_owned();
        Self(Arc::new(handle.expect("a free file descriptor").into()))
    }
}

fn tokens(login: &Login, fault: Option<Fault>) -> Value {
    let mut body = json!({"access_token": login.access_token()});
    if fault == Some(Fault::AccessTokenAlone) {
        return body;
    }
    body["id_token"] = if fault == Some(Fault::ForeignIdToken) {
        let foreign = Login {
            account: format!("not-{}", login.account),
            person: Person::named("another-person"),
            ..login.clone()
        };
        foreign.id_token().into()
    } else {
        login.id_token().into()
    };
    if fault != Some(Fault::RefreshTokenOmitted) {
        body["refresh_token"] = login.refresh_token.as_str().into();
    }
    body
}

/// The status and the body of an answer that does not depend on the refresh token.
fn answer(answer: Answer) -> (StatusCode, String) {
    let named = |status, code| (status, formatted(&error(code)));
    match answer {
        Answer::Reused => named(StatusCode::UNAUTHORIZED, "refresh_token_reused"),
        Answer::Expired => named(StatusCode::UNAUTHORIZED, "refresh_token_expired"),
        Answer::Invalidated => named(StatusCode::UNAUTHORIZED, "refresh_token_invalidated"),
        Answer::Unnamed => (StatusCode::UNAUTHORIZED, "{}".to_owned()),
        Answer::InvalidGrant => (
            StatusCode::BAD_REQUEST,
            formatted(&json!({"error": "invalid_grant"})),
        ),
        Answer::Ciphertext => named(
            StatusCode::BAD_REQUEST,
            "invalid_refresh_token_ciphertext_integrity",
        ),
        Answer::TooManyRequests => named(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded"),
        Answer::NoJson => (StatusCode::OK, "no JSON".to_owned()),
        Answer::NoTokens => (StatusCode::OK, "{}".to_owned()),
    }
}

/// JSON on several lines, as the real provider sends a refusal.
fn formatted(body: &Value) -> String {
    format!("{body:#}")
}

fn error(code: &str) -> Value {
    json!({"error": {"code": code, "message": format!("the stub says {code}")}})
}

fn status(number: u16) -> StatusCode {
    StatusCode::from_u16(number).expect("a rule gives an HTTP status")
}

fn parse(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn bearer(headers: &HeaderMap) -> &str {
    headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
        .unwrap_or_default()
}
