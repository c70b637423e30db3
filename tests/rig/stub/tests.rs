//! The stub, called by a minimal client.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{Answer, Bearer, Endpoint, Fault, Outcome, Stub, What};
use crate::{ACCESS_LIFETIME, Login, Person};

#[test]
fn a_refresh_token_is_valid_for_one_refresh() {
    let login = Login::stale();
    let stub = Stub::start(&login);

    let (status, tokens) = refresh(&stub, &login.refresh_token);
    assert_eq!(status, 200);
    let live = stub.live().expect("a live login");
    assert_eq!(tokens["refresh_token"], live.refresh_token.as_str());
    assert_eq!(tokens["access_token"], live.access_token());
    assert_eq!(tokens["id_token"], live.id_token());
    assert!(stub.is_live(live.auth_json().as_bytes()));
    assert!(!stub.is_live(login.auth_json().as_bytes()));

    let (status, error) = refresh(&stub, &login.refresh_token);
    assert_eq!(status, 401);
    assert_eq!(error["error"]["code"], "refresh_token_reused");
    stub.rules(|rules| rules.reused_status = 400);
    assert_eq!(refresh(&stub, &login.refresh_token).0, 400);

    for made_up_elsewhere in ["", "something"] {
        let (status, error) = refresh(&stub, made_up_elsewhere);
        assert_eq!((status, &error["error"]), (400, &json!("invalid_grant")));
    }
    assert_eq!(
        outcomes(&stub),
        [
            Outcome::Rotated(2),
            Outcome::Reused,
            Outcome::Reused,
            Outcome::Unknown,
            Outcome::Unknown,
        ]
    );
}

#[test]
fn a_refresh_keeps_person_and_session_unless_configured() {
    let login = Login {
        person: Person::named("user-a"),
        ..Login::stale()
    };
    let stub = Stub::start(&login);
    refresh(&stub, &login.refresh_token);
    let second = stub.live().expect("a live login");
    assert_eq!(second.person, login.person);
    assert_eq!(second.session, login.session);
    stub.rules(|rules| rules.changes_session = true);
    refresh(&stub, &second.refresh_token);
    let third = stub.live().expect("a live login");
    assert_eq!(third.person, login.person);
    assert_ne!(third.session, login.session);
}

#[test]
fn a_fault_determines_the_state_of_the_token() {
    let login = Login::stale();
    let stub = Stub::start(&login);
    stub.rules(|rules| {
        rules.refresh_faults.extend([
            Fault::ServerError,
            Fault::RequestLost,
            Fault::RefreshTokenOmitted,
            Fault::ReplyLost,
        ]);
    });

    assert_eq!(refresh(&stub, &login.refresh_token).0, 500);
    assert_eq!(refresh(&stub, &login.refresh_token).0, NO_REPLY);
    assert!(stub.is_live(login.auth_json().as_bytes()));

    let (status, tokens) = refresh(&stub, &login.refresh_token);
    assert_eq!(status, 200);
    assert!(tokens.get("refresh_token").is_none());
    assert_ne!(tokens["access_token"], login.access_token());
    assert!(stub.is_live(login.auth_json().as_bytes()));

    assert_eq!(refresh(&stub, &login.refresh_token).0, NO_REPLY);
    assert!(!stub.is_live(login.auth_json().as_bytes()));
    assert_eq!(
        outcomes(&stub),
        [
            Outcome::Failed(Fault::ServerError),
            Outcome::Failed(Fault::RequestLost),
            Outcome::Rotated(2),
            Outcome::Rotated(3),
        ]
    );
}

#[test]
fn an_answer_leaves_the_token_as_it_is() {
    let login = Login::stale();
    let stub = Stub::start(&login);
    for (answer, status, code) in [
        (Answer::Reused, 401, "refresh_token_reused"),
        (Answer::Expired, 401, "refresh_token_expired"),
        (Answer::Invalidated, 401, "refresh_token_invalidated"),
        (
            Answer::Ciphertext,
            400,
            "invalid_refresh_token_ciphertext_integrity",
        ),
        (Answer::TooManyRequests, 429, "rate_limit_exceeded"),
    ] {
        let fault = Fault::Answer(answer);
        stub.rules(|rules| rules.refresh_faults.push_back(fault));
        let (found, body) = refresh(&stub, &login.refresh_token);
        assert_eq!((found, &body["error"]["code"]), (status, &json!(code)));
    }
    for (answer, status, body) in [
        (Answer::Unnamed, 401, json!({})),
        (Answer::InvalidGrant, 400, json!({"error": "invalid_grant"})),
        (Answer::NoTokens, 200, json!({})),
        (Answer::NoJson, 200, Value::Null),
    ] {
        let fault = Fault::Answer(answer);
        stub.rules(|rules| rules.refresh_faults.push_back(fault));
        assert_eq!(refresh(&stub, &login.refresh_token), (status, body));
    }
    assert!(stub.is_live(login.auth_json().as_bytes()));
}

#[test]
fn an_answer_can_have_some_tokens_or_those_of_another_account() {
    let login = Login::stale();
    let stub = Stub::start(&login);
    stub.rules(|rules| {
        let faults = [Fault::AccessTokenAlone, Fault::ForeignIdToken];
        rules.refresh_faults.extend(faults);
    });
    let (_, tokens) = refresh(&stub, &login.refresh_token);
    let members: Vec<_> = tokens.as_object().expect("an object").keys().collect();
    assert_eq!(members, ["access_token"]);
    assert!(stub.is_live(login.auth_json().as_bytes()));
    let (_, tokens) = refresh(&stub, &login.refresh_token);
    let live = stub.live().expect("a live login");
    assert_ne!(tokens["id_token"], live.id_token());
    assert_eq!(tokens["refresh_token"], live.refresh_token.as_str());
}

#[test]
fn a_revoked_login_is_refused() {
    let login = Login::fresh();
    let stub = Stub::start(&login);
    let token = json!({"token": login.refresh_token});
    assert_eq!(post(&stub, "/oauth/revoke", "", &token).0, 200);
    assert!(stub.live().is_none());
    let (status, error) = refresh(&stub, &login.refresh_token);
    assert_eq!(status, 401);
    assert_eq!(error["error"]["code"], "refresh_token_invalidated");
}

#[test]
fn the_model_accepts_only_the_newest_access_token() {
    let old = Login::fresh();
    let stub = Stub::start(&old);
    assert_eq!(ask_model(&stub, &old.access_token()), 200);
    assert_eq!(ask_model(&stub, "something"), 401);
    assert_eq!(ask_model(&stub, ""), 401);

    refresh(&stub, &old.refresh_token);
    let new = stub.live().expect("a live login");
    assert_eq!(ask_model(&stub, &new.access_token()), 200);
    assert_eq!(ask_model(&stub, &old.access_token()), 401);
    stub.rules(|rules| rules.bearer = Bearer::Unexpired);
    assert_eq!(ask_model(&stub, &old.access_token()), 200);

    // A separate login: neither login ends the other, and an expired one is refused in any case.
    let stale = Login {
        serial: 100,
        ..Login::stale()
    };
    stub.sign_in(&stale);
    assert_eq!(ask_model(&stub, &stale.access_token()), 401);
    assert_eq!(ask_model(&stub, &new.access_token()), 200);

    stub.rules(|rules| rules.model_failure = Some(500));
    assert_eq!(ask_model(&stub, &new.access_token()), 500);
}

#[test]
fn the_model_answers_after_it_received_the_output_of_its_command() {
    let login = Login::fresh();
    let stub = Stub::start(&login);
    stub.rules(|rules| rules.shell = Some("cat secret".to_owned()));
    let ask = |input: Value| {
        let bearer = login.access_token();
        let reply = exchange(
            &stub,
            "POST /backend-api/codex/responses",
            &bearer,
            &json!({ "input": input }).to_string(),
        );
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
        reply
    };
    let first = ask(json!([{"type": "message"}]));
    assert!(first.contains(r#"{\"cmd\":\"cat secret\"}"#), "{first}");
    let second = ask(json!([{"type": "function_call_output", "output": "it printed this"}]));
    assert!(second.contains(r#""text":"OK""#), "{second}");
    let events: Vec<What> = stub.events().into_iter().map(|e| e.what).collect();
    let printed = What::Printed {
        text: "it printed this".to_owned(),
    };
    assert_eq!(events[1], printed);
    assert_eq!(stub.count(What::is_model_call), 2);
}

#[test]
fn a_held_reply_waits_for_its_release() {
    let login = Login::stale();
    let stub = Stub::start(&login);
    let hold = stub.hold(Endpoint::Token);
    let (replied, reply) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| replied.send(refresh(&stub, &login.refresh_token).0));
        let seen = stub.wait_for(Duration::from_secs(5), What::is_rotation);
        assert!(seen.what.is_rotation());
        assert!(!stub.is_live(login.auth_json().as_bytes()));
        assert!(reply.recv_timeout(Duration::from_millis(50)).is_err());
        drop(hold);
        assert_eq!(reply.recv_timeout(Duration::from_secs(5)), Ok(200));
    });
}

#[test]
fn a_fixed_clock_gives_the_same_tokens_each_time() {
    let start = OffsetDateTime::UNIX_EPOCH;
    let login = Login::new("account-1", 1, start, ACCESS_LIFETIME);
    let rotated = || {
        let stub = Stub::start(&login);
        stub.rules(|rules| rules.clock = Some(start + ACCESS_LIFETIME));
        refresh(&stub, &login.refresh_token)
    };
    let (status, tokens) = rotated();
    assert_eq!(status, 200);
    assert_eq!(rotated().1, tokens);
}

#[test]
fn everything_else_is_refused_at_once() {
    let stub = Stub::start(&Login::fresh());
    let begin = Instant::now();
    assert_eq!(send(&stub, "CONNECT example.com:443", "", "").0, 404);
    assert_eq!(send(&stub, "GET /backend-api/wham/settings", "", "").0, 404);
    // Far more than a busy machine needs, and less than any client's timeout.
    assert!(begin.elapsed() < Duration::from_secs(10));
    let requests: Vec<What> = stub.events().into_iter().map(|e| e.what).collect();
    assert_eq!(
        requests,
        ["CONNECT example.com:443", "GET /backend-api/wham/settings"].map(|request| What::Other {
            request: request.to_owned()
        })
    );
}

#[test]
fn a_dropped_stub_stops_even_if_it_holds_a_reply() {
    let login = Login::fresh();
    let stub = Stub::start(&login);
    let address = stub.address();
    let _hold = stub.hold(Endpoint::Model);
    let mut connection = TcpStream::connect(address).expect("the stub");
    let bearer = login.access_token();
    let request = "POST /backend-api/codex/responses HTTP/1.1\r\nhost: stub\r\ncontent-length: 0";
    write!(
        connection,
        "{request}\r\nauthorization: Bearer {bearer}\r\n\r\n"
    )
    .expect("a request");
    stub.wait_for(Duration::from_secs(5), What::is_model_call);
    drop(stub);
    assert!(TcpStream::connect(address).is_err());
    let mut reply = String::new();
    drop(connection.read_to_string(&mut reply));
    assert_eq!(reply, "");
}

/// Stands for the missing status of a closed connection.
const NO_REPLY: u16 = 0;

fn refresh(stub: &Stub, refresh_token: &str) -> (u16, Value) {
    let request = json!({
        "client_id": "app_EMoamEEZ73f0CkXaXp7hrann",
        "grant_type": "refresh_token",
        "refresh_token": refresh_token,
        "refresh_reason": "forced",
    });
    post(stub, "/oauth/token", "", &request)
}

fn ask_model(stub: &Stub, bearer: &str) -> u16 {
    post(stub, "/backend-api/codex/responses", bearer, &json!({})).0
}

fn post(stub: &Stub, path: &str, bearer: &str, body: &Value) -> (u16, Value) {
    send(stub, &format!("POST {path}"), bearer, &body.to_string())
}

fn send(stub: &Stub, request: &str, bearer: &str, body: &str) -> (u16, Value) {
    let reply = exchange(stub, request, bearer, body);
    let (head, body) = reply.split_once("\r\n\r\n").unwrap_or_default();
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    (
        status.unwrap_or(NO_REPLY),
        serde_json::from_str(body).unwrap_or_default(),
    )
}

/// Sends a request and returns the whole reply.
fn exchange(stub: &Stub, request: &str, bearer: &str, body: &str) -> String {
    let mut connection = TcpStream::connect(stub.address()).expect("the stub");
    let length = body.len();
    write!(
        connection,
        "{request} HTTP/1.1\r\nhost: stub\r\nconnection: close\r\n\
         authorization: Bearer {bearer}\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .expect("a request");
    let mut reply = String::new();
    // A closed connection may end in an error: only the bytes before it matter.
    drop(connection.read_to_string(&mut reply));
    reply
}

fn outcomes(stub: &Stub) -> Vec<Outcome> {
    stub.events()
        .iter()
        .filter_map(|event| match event.what {
            What::Refresh { outcome, .. } => Some(outcome),
            What::Revoke { .. }
            | What::Model { .. }
            | What::Printed { .. }
            | What::Other { .. } => None,
        })
        .collect()
}
