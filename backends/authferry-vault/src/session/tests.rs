use serde_json::json;

use super::*;
use crate::canned::{Canned, error_response, granted, response};

fn session(server: &Canned, address: &str, settings: Settings) -> Arc<Session> {
    let settings = Settings {
        servers: Some(server.address.clone()),
        ..settings
    };
    let wire = Arc::new(Wire::new(&settings).expect("a server"));
    let address = address.parse().expect(address);
    Arc::new(Session::new(wire, &address, settings))
}

/// A server that must receive no request.
async fn unused_server() -> Arc<Canned> {
    Canned::new(vec![response(204, &json!(null))]).await
}

fn by_jwt(server: &Canned) -> Arc<Session> {
    let settings = Settings {
        job_token: Some(JobToken::Variable {
            name: "CI_TOKEN".into(),
            value: Some("made.up.jwt".into()),
        }),
        ..Settings::default()
    };
    session(server, "vault://secret/a?auth=jwt&role=ci", settings)
}

fn by_token(token: Option<&str>, file: Option<PathBuf>) -> Settings {
    Settings {
        token: token.map(Into::into),
        token_file: file,
        ..Settings::default()
    }
}

async fn token(session: &Arc<Session>) -> String {
    let token = session.token().await.expect("a token");
    token.expose_secret().to_owned()
}

#[tokio::test]
async fn all_requests_share_one_token() {
    let server = Canned::new(vec![granted("made-up-1", 60), response(204, &json!(null))]).await;
    let session = by_jwt(&server);
    let (first, second) = tokio::join!(token(&session), token(&session));
    assert_eq!((first, second), ("made-up-1".into(), "made-up-1".into()));
    session.close().await;
    session.close().await;
    assert_eq!(
        server.lines(),
        ["POST /v1/auth/jwt/login", "POST /v1/auth/token/revoke-self"]
    );
}

/// A server may send a TTL that overflows the clock.
#[tokio::test]
async fn a_token_may_have_an_endless_ttl() {
    for ttl in [u64::MAX, u64::MAX / 2, u64::MAX / 3] {
        let server =
            Canned::new(vec![granted("made-up-1", ttl), response(204, &json!(null))]).await;
        let session = by_jwt(&server);
        assert_eq!(token(&session).await, "made-up-1");
        assert_eq!(token(&session).await, "made-up-1");
        tokio::task::yield_now().await;
        session.close().await;
    }
}

#[tokio::test]
async fn a_session_without_requests_does_not_authenticate() {
    let server = unused_server().await;
    by_jwt(&server).close().await;
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn an_existing_token_is_not_revoked() {
    let server = unused_server().await;
    let session = session(
        &server,
        "vault://secret/a",
        by_token(Some(" made-up\r\n"), None),
    );
    // The library panics on a newline.
    assert_eq!(token(&session).await, "made-up");
    session.close().await;
    assert!(server.requests().is_empty());
    // The session cannot replace an existing token either.
    let bad = session.token().await.expect("a token");
    assert!(!session.forget(&bad).await);
}

#[tokio::test]
async fn the_token_file_is_the_fallback() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join(".vault-token");
    fs::write(&file, "made-up-in-a-file\n").expect("a file");
    let server = Canned::new(vec![]).await;
    let open = |settings| session(&server, "vault://secret/a", settings);
    let from_file = open(by_token(None, Some(file.clone())));
    assert_eq!(token(&from_file).await, "made-up-in-a-file");
    let from_both = open(by_token(Some("made-up"), Some(file.clone())));
    assert_eq!(token(&from_both).await, "made-up");
    fs::write(&file, [0xff, 0xfe]).expect("a file");
    let error_of = async |settings| open(settings).token().await.expect_err("none").to_string();
    for (settings, wanted) in [
        (by_token(None, None), "no Vault token is set".to_owned()),
        (
            by_token(None, Some("/no/such/file".into())),
            "no Vault token is set".to_owned(),
        ),
        (
            by_token(Some(" \n"), None),
            "no Vault token is set".to_owned(),
        ),
        (
            by_token(Some("made up"), None),
            "the Vault token contains characters other than printable ASCII".to_owned(),
        ),
        (
            by_token(Some("made\u{0}up"), None),
            "the Vault token contains characters other than printable ASCII".to_owned(),
        ),
        (
            by_token(None, Some(file.clone())),
            format!("cannot read the Vault token from {}", file.display()),
        ),
    ] {
        assert_eq!(error_of(settings).await, wanted);
    }
}

#[tokio::test]
async fn an_approle_needs_both_ids() {
    let server = unused_server().await;
    for (role_id, secret_id, wanted) in [
        (
            None,
            Some("made-up"),
            "cannot authenticate: no role ID is set",
        ),
        (
            Some("made-up"),
            None,
            "cannot authenticate: no secret ID is set",
        ),
    ] {
        let settings = Settings {
            role_id: role_id.map(Into::into),
            secret_id: secret_id.map(Into::into),
            ..Settings::default()
        };
        let session = session(&server, "vault://secret/a?auth=approle", settings);
        assert_eq!(session.token().await.expect_err("none").to_string(), wanted);
    }
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_refused_authentication_is_reported_and_retried_on_the_next_request() {
    let refused = error_response(400, &["missing role"]);
    let server = Canned::new(vec![refused, granted("made-up-1", 60)]).await;
    let session = by_jwt(&server);
    let error = session.token().await.expect_err("refused");
    assert!(matches!(error, VaultError::AuthRefused { .. }), "{error:?}");
    assert_eq!(token(&session).await, "made-up-1");
}

#[tokio::test]
async fn a_token_is_renewed_before_it_expires() {
    let server = Canned::new(vec![
        granted("made-up-1", 6),
        // The first renewal fails; the session retries before the expiry.
        error_response(503, &["Vault is sealed"]),
        granted("made-up-1", 3600),
    ])
    .await;
    let session = by_jwt(&server);
    assert_eq!(token(&session).await, "made-up-1");
    // No other request is sent meanwhile.
    server.seen(3).await;
    let renew = "POST /v1/auth/token/renew-self";
    assert_eq!(server.lines()[1..], [renew, renew]);
    let is_renewed = async || {
        let token = session.token.lock().await;
        token.as_ref().is_some_and(SessionToken::is_valid)
    };
    while !is_renewed().await {
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(token(&session).await, "made-up-1");
}

#[tokio::test]
async fn an_expired_token_is_replaced() {
    let server = Canned::new(vec![granted("made-up-1", 1), granted("made-up-2", 3600)]).await;
    let session = by_jwt(&server);
    assert_eq!(token(&session).await, "made-up-1");
    assert_eq!(token(&session).await, "made-up-2");
}

#[tokio::test]
async fn a_token_without_expiry_is_kept() {
    let server = Canned::new(vec![granted("made-up-1", 0)]).await;
    let session = by_jwt(&server);
    token(&session).await;
    assert_eq!(token(&session).await, "made-up-1");
}

#[tokio::test]
async fn a_forgotten_token_is_replaced_once() {
    let server = Canned::new(vec![granted("made-up-1", 60), granted("made-up-2", 60)]).await;
    let session = by_jwt(&server);
    let old = session.token().await.expect("a token");
    assert!(session.forget(&old).await);
    assert_eq!(token(&session).await, "made-up-2");
    // A request that still holds the old token must not discard the new one.
    assert!(session.forget(&old).await);
    assert_eq!(token(&session).await, "made-up-2");
}

#[tokio::test]
async fn the_renewal_task_ends_with_the_session() {
    let server = Canned::new(vec![granted("made-up-1", 3600)]).await;
    let session = by_jwt(&server);
    token(&session).await;
    let current = session.token.lock().await.take().expect("a token");
    let renewal = current.renewal.as_ref().expect("a task").abort_handle();
    assert!(!renewal.is_finished());
    drop(current);
    tokio::task::yield_now().await;
    assert!(renewal.is_finished());
}
