use serde_json::json;

use super::*;
use crate::canned::{
    Canned, ReceivedRequest, error_response, granted, metadata, redirect, response, success,
    version, written,
};

fn token() -> SecretString {
    "made-up-token".into()
}

fn wire(servers: &[&Canned]) -> Wire {
    wire_in(servers, None)
}

fn wire_in(servers: &[&Canned], namespace: Option<&str>) -> Wire {
    let servers: Vec<_> = servers.iter().map(|server| &*server.address).collect();
    let settings = Settings {
        servers: Some(servers.join(",")),
        namespace: namespace.map(ToOwned::to_owned),
        ..Settings::default()
    };
    Wire::new(&settings).expect("servers")
}

async fn write(wire: &Wire) -> Result<VersionId, VaultFailure> {
    let data = Map::from_iter([("auth_json".to_owned(), "{}".into())]);
    wire.write(&token(), "secret", "ci/codex", data, 4).await
}

async fn read(wire: &Wire) -> Result<Option<KvSecret>, VaultFailure> {
    wire.read(&token(), "secret", "ci/codex").await
}

fn only(server: &Canned) -> ReceivedRequest {
    let mut requests = server.requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
    requests.remove(0)
}

#[tokio::test]
async fn a_write_sends_its_cas_number() {
    let server = Canned::new(vec![written(5)]).await;
    let id = write(&wire_in(&[&server], Some("admin/team"))).await;
    assert_eq!(id.expect("a version"), metadata_version(5));
    let request = only(&server);
    assert_eq!(request.line(), "POST /v1/secret/data/ci/codex");
    assert_eq!(request.header("X-Vault-Token"), Some("made-up-token"));
    assert_eq!(request.header("X-Vault-Namespace"), Some("admin/team"));
    assert_eq!(
        request.body,
        json!({"data": {"auth_json": "{}"}, "options": {"cas": 4}})
    );
}

#[tokio::test]
async fn a_response_that_is_too_long_is_not_read() {
    let long = "x".repeat(2 << 20);
    let answers = vec![
        version(4, &json!({ "auth_json": long })),
        response(200, &json!({ "data": long })),
    ];
    let server = Canned::new(answers).await;
    let wire = wire(&[&server]);
    let failure = read(&wire).await.err().expect("too long");
    assert!(matches!(
        failure,
        VaultFailure::Silent(HttpError::TooLong(_))
    ));
    // The server may still have made the write.
    let failure = write(&wire).await.expect_err("too long");
    assert!(matches!(&failure, VaultFailure::Silent(it) if it.may_have_acted()));
    assert_eq!(server.requests().len(), 2, "a request was repeated");
}

/// The library does not encode paths.
#[tokio::test]
async fn a_path_is_encoded_once() {
    for (path, wanted) in [
        ("a b", "a%20b"),
        ("50%/x", "50%25/x"),
        ("a?b=c", "a%3Fb=c"),
        ("a#b", "a%23b"),
        ("%2e%2e/sys", "%252e%252e/sys"),
        ("Jürgen", "J%C3%BCrgen"),
        ("a+b&c;d@e:f", "a+b&c;d@e:f"),
        ("{self.mount}", "%7Bself.mount%7D"),
    ] {
        let server = Canned::new(vec![error_response(404, &[])]).await;
        let found = wire(&[&server]).read(&token(), "team/kv", path).await;
        assert!(found.expect("nothing").is_none());
        assert_eq!(
            only(&server).line(),
            format!("GET /v1/team/kv/data/{wanted}")
        );
    }
}

#[tokio::test]
async fn a_read_distinguishes_existing_deleted_and_missing() {
    let data = json!({"auth_json": "{}", "n": 1});
    let deleted = response(
        404,
        &json!({"data": {"data": null, "metadata": metadata(7)}, "errors": null}),
    );
    let server = Canned::new(vec![version(5, &data), deleted, error_response(404, &[])]).await;
    let wire = wire(&[&server]);
    let found = read(&wire).await.expect("an answer").expect("a version");
    assert_eq!(found.id, metadata_version(5));
    assert_eq!(found.data.map(Value::Object), Some(data));
    let found = read(&wire).await.expect("an answer").expect("a version");
    assert_eq!(found.id, metadata_version(7));
    assert_eq!(found.data, None);
    assert!(read(&wire).await.expect("an answer").is_none());
}

/// Otherwise authferry would report the login as missing, and a person would seed it again.
#[tokio::test]
async fn a_missing_mount_or_namespace_is_an_error() {
    for text in ["no handler for route \"nope\"", "namespace not found"] {
        let server = Canned::new(vec![error_response(404, &[text])]).await;
        let failure = read(&wire(&[&server])).await.err().expect("no place");
        let is_reported =
            matches!(&failure, VaultFailure::ErrorResponse(answer) if answer.texts == [text]);
        assert!(is_reported, "{failure:?}");
    }
}

#[tokio::test]
async fn an_authentication_sends_its_credentials_and_no_token() {
    let server = Canned::new(vec![granted("made-up-1", 60), granted("made-up-2", 0)]).await;
    let wire = wire(&[&server]);
    let jwt = "made.up.jwt".into();
    let grant = wire
        .log_in_by_jwt("github", Some("ci"), &jwt)
        .await
        .expect("a token");
    assert_eq!(grant.token.expose_secret(), "made-up-1");
    assert_eq!(grant.ttl, Duration::from_mins(1));
    assert!(grant.renewable);
    let (role, secret) = ("made-up-role".into(), "made-up-secret".into());
    let grant = wire
        .log_in_by_role("team/approle", &role, &secret)
        .await
        .expect("a token");
    assert_eq!(grant.ttl, Duration::ZERO);
    let requests = server.requests();
    assert_eq!(requests[0].line(), "POST /v1/auth/github/login");
    assert_eq!(
        requests[0].body,
        json!({"jwt": "made.up.jwt", "role": "ci"})
    );
    assert_eq!(requests[1].line(), "POST /v1/auth/team/approle/login");
    let body = json!({"role_id": "made-up-role", "secret_id": "made-up-secret"});
    assert_eq!(requests[1].body, body);
    assert!(
        requests
            .iter()
            .all(|request| request.header("X-Vault-Token").is_none())
    );
}

#[tokio::test]
async fn a_token_that_is_not_a_header_value_is_unintelligible() {
    let server = Canned::new(vec![granted("made-up\n", 60)]).await;
    let grant = wire(&[&server]).log_in_by_jwt("jwt", None, &token()).await;
    assert!(matches!(grant, Err(VaultFailure::Unintelligible)));
}

#[tokio::test]
async fn a_token_renews_looks_up_and_revokes_itself() {
    let server = Canned::new(vec![
        granted("made-up-token", 90),
        success(&json!({"id": "made-up"})),
        response(204, &json!(null)),
    ])
    .await;
    let wire = wire(&[&server]);
    let grant = wire.renew(&token()).await.expect("more time");
    assert_eq!(grant.ttl, Duration::from_secs(90));
    wire.look_up(&token()).await.expect("a good token");
    wire.revoke(&token()).await.expect("an end");
    let wanted = [
        "POST /v1/auth/token/renew-self",
        "GET /v1/auth/token/lookup-self",
        "POST /v1/auth/token/revoke-self",
    ];
    assert_eq!(server.lines(), wanted);
    for request in server.requests() {
        assert_eq!(request.header("X-Vault-Token"), Some("made-up-token"));
    }
}

#[tokio::test]
async fn the_engine_of_a_mount_is_read() {
    for (data, wanted) in [
        (
            json!({"type": "kv", "options": {"version": "2"}}),
            Engine::KeyValue2,
        ),
        (
            json!({"type": "kv", "options": {"version": "1"}}),
            Engine::KeyValue1,
        ),
        (json!({"type": "kv", "options": null}), Engine::KeyValue1),
        (json!({"type": "transit", "options": {}}), Engine::Another),
    ] {
        let server = Canned::new(vec![success(&data)]).await;
        let engine = wire(&[&server]).engine(&token(), "team/kv").await;
        assert_eq!(engine.expect("an answer"), wanted);
        assert_eq!(
            only(&server).line(),
            "GET /v1/sys/internal/ui/mounts/team/kv"
        );
    }
}

#[tokio::test]
async fn a_write_is_never_retried() {
    for (reply, answered) in [
        (String::new(), false),
        (
            "HTTP/1.1 200 x\r\nContent-Length: 99\r\n\r\n{".to_owned(),
            false,
        ),
        (error_response(500, &["internal error"]), true),
        (error_response(503, &["Vault is sealed"]), true),
        (error_response(429, &[]), true),
        (error_response(412, &[]), true),
    ] {
        let server = Canned::new(vec![reply, written(5), written(6)]).await;
        let other = Canned::new(vec![written(5)]).await;
        let failure = write(&wire(&[&server, &other]))
            .await
            .expect_err("a failure");
        let silent = matches!(&failure, VaultFailure::Silent(silence) if silence.may_have_acted());
        assert_eq!(silent, !answered, "{failure:?}");
        assert_eq!(
            matches!(failure, VaultFailure::ErrorResponse(_)),
            answered,
            "{failure:?}"
        );
        assert_eq!(server.lines(), ["POST /v1/secret/data/ci/codex"]);
        assert!(other.lines().is_empty());
    }
}

#[tokio::test]
async fn a_success_that_cannot_be_parsed_is_unintelligible() {
    // KV version 1 sends the second one.
    for reply in [
        response(200, &json!({"made-up": 1})),
        response(204, &json!(null)),
    ] {
        let server = Canned::new(vec![reply]).await;
        let failure = write(&wire(&[&server])).await.expect_err("a failure");
        assert!(
            matches!(failure, VaultFailure::Unintelligible),
            "{failure:?}"
        );
        assert!(!format!("{failure:?}").contains("made-up"));
    }
}

#[tokio::test]
async fn a_read_is_retried_until_a_server_can_answer() {
    let sealed = || error_response(503, &["Vault is sealed"]);
    let mounted = "Upgrading from non-versioned to versioned data. This backend will be […]";
    let first = Canned::new(vec![sealed(), String::new(), sealed()]).await;
    let second = Canned::new(vec![
        error_response(400, &[mounted]),
        version(5, &json!({})),
    ])
    .await;
    let both = wire(&[&first, &second]);
    let found = read(&both).await.expect("an answer").expect("a version");
    assert_eq!(found.id.number, 5);
    assert_eq!((first.lines().len(), second.lines().len()), (2, 2));
}

#[tokio::test]
async fn the_retries_of_a_read_are_limited() {
    let sealed = || error_response(503, &["Vault is sealed"]);
    let server = Canned::new(vec![sealed(), sealed(), sealed(), version(5, &json!({}))]).await;
    let failure = read(&wire(&[&server])).await.err().expect("no answer");
    assert!(matches!(
        failure,
        VaultFailure::ErrorResponse(ErrorResponse { status: 503, .. })
    ));
    assert_eq!(server.lines().len(), 3);
}

#[tokio::test]
async fn a_denied_read_is_not_retried() {
    let server = Canned::new(vec![error_response(403, &["permission denied"])]).await;
    let failure = read(&wire(&[&server])).await.err().expect("no");
    assert!(matches!(
        failure,
        VaultFailure::ErrorResponse(ErrorResponse { status: 403, .. })
    ));
    assert_eq!(server.lines().len(), 1);
}

#[tokio::test]
async fn an_unreachable_server_is_skipped_even_for_a_write() {
    let there = Canned::new(vec![written(5), written(6)]).await;
    let settings = Settings {
        servers: Some(format!("http://127.0.0.1:1,{}", there.address)),
        ..Settings::default()
    };
    let wire = Wire::new(&settings).expect("servers");
    write(&wire).await.expect("the second one");
    // The client now starts with that server.
    assert_eq!(wire.current.load(Ordering::Relaxed), 1);
    write(&wire).await.expect("the second one");
    assert_eq!(there.lines().len(), 2);
}

#[tokio::test]
async fn a_standby_may_redirect_only_to_a_configured_server() {
    let leader = Canned::new(vec![written(5)]).await;
    let stranger = Canned::new(vec![written(5)]).await;
    let to = |server: &Canned| redirect(&format!("{}/v1/secret/data/ci/codex", server.address));
    let standby = Canned::new(vec![to(&leader), to(&stranger)]).await;
    let wire = wire(&[&standby, &leader]);
    write(&wire).await.expect("the leader");
    let request = only(&leader);
    assert_eq!(request.header("X-Vault-Token"), Some("made-up-token"));
    assert_eq!(request.body["options"]["cas"], 4);

    let failure = write(&wire).await.expect_err("a stranger");
    let elsewhere = |silence: &HttpError| matches!(silence, HttpError::ForeignRedirect(_));
    assert!(
        matches!(&failure, VaultFailure::Silent(s) if elsewhere(s)),
        "{failure:?}"
    );
    assert!(stranger.requests().is_empty());
}

#[tokio::test]
async fn a_read_waits_for_the_new_leader() {
    let old = redirect("http://127.0.0.1:1/v1/secret/data/ci/codex");
    let standby = Canned::new(vec![old, version(5, &json!({}))]).await;
    let found = read(&wire(&[&standby])).await;
    assert_eq!(found.expect("an answer").expect("a version").id.number, 5);
}

#[tokio::test]
async fn a_version_number_above_u32_is_refused() {
    let server = Canned::new(vec![written(1)]).await;
    let number = u64::from(u32::MAX) + 1;
    let wire = wire(&[&server]);
    let failure = wire.write(&token(), "kv", "a", Map::new(), number).await;
    assert!(failure.is_err());
    assert!(server.requests().is_empty());
}

fn metadata_version(number: u64) -> VersionId {
    VersionId {
        number,
        created: metadata(number)["created_time"]
            .as_str()
            .expect("text")
            .to_owned(),
    }
}
