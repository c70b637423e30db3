use serde_json::json;

use super::*;
use crate::canned::{Canned, answer, granted, no};

fn session(server: &Canned, address: &str, settings: Settings) -> Arc<Session> {
    let settings = Settings {
        servers: Some(server.address.clone()),
        ..settings
    };
    let wire = Arc::new(Wire::new(&settings).expect("a server"));
    let address = address.parse().expect(address);
    Arc::new(Session::new(wire, &address, settings))
}

/// A server that would answer, and is not to be asked.
async fn ready() -> Arc<Canned> {
    Canned::new(vec![answer(204, &json!(null))]).await
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
async fn one_login_serves_all() {
    let server = Canned::new(vec![granted("made-up-1", 60), answer(204, &json!(null))]).await;
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

/// What a server says of a time may be more than a clock can hold.
#[tokio::test]
async fn a_token_may_last_for_ever() {
    for lease in [u64::MAX, u64::MAX / 2, u64::MAX / 3] {
        let server =
            Canned::new(vec![granted("made-up-1", lease), answer(204, &json!(null))]).await;
        let session = by_jwt(&server);
        assert_eq!(token(&session).await, "made-up-1");
        assert_eq!(token(&session).await, "made-up-1");
        tokio::task::yield_now().await;
        session.close().await;
    }
}

#[tokio::test]
async fn nobody_logs_in_who_needs_no_token() {
    let server = ready().await;
    by_jwt(&server).close().await;
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_token_of_somebody_else_is_not_ended() {
    let server = ready().await;
    let session = session(
        &server,
        "vault://secret/a",
        by_token(Some(" made-up\r\n"), None),
    );
    // The library panics on a line's end.
    assert_eq!(token(&session).await, "made-up");
    session.close().await;
    assert!(server.requests().is_empty());
    // Nor is there another one, if it is bad.
    let bad = session.token().await.expect("a token");
    assert!(!session.forget(&bad).await);
}

#[tokio::test]
async fn a_file_serves_for_want_of_a_token() {
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
    let told = async |settings| open(settings).token().await.expect_err("none").to_string();
    for (settings, wanted) in [
        (by_token(None, None), "there is no token".to_owned()),
        (
            by_token(None, Some("/no/such/file".into())),
            "there is no token".to_owned(),
        ),
        (by_token(Some(" \n"), None), "there is no token".to_owned()),
        (
            by_token(Some("made up"), None),
            "what is given as a token is none".to_owned(),
        ),
        (
            by_token(Some("made\u{0}up"), None),
            "what is given as a token is none".to_owned(),
        ),
        (
            by_token(None, Some(file.clone())),
            format!("cannot read the token in {}", file.display()),
        ),
    ] {
        assert_eq!(told(settings).await, wanted);
    }
}

#[tokio::test]
async fn each_half_of_an_approle_is_needed() {
    let server = ready().await;
    for (role_id, secret_id, wanted) in [
        (None, Some("made-up"), "there is no role ID to log in with"),
        (
            Some("made-up"),
            None,
            "there is no secret ID to log in with",
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
async fn a_refused_login_is_told_and_tried_again_when_asked() {
    let refused = no(400, &["missing role"]);
    let server = Canned::new(vec![refused, granted("made-up-1", 60)]).await;
    let session = by_jwt(&server);
    let trouble = session.token().await.expect_err("refused");
    assert!(matches!(trouble, Trouble::Login { .. }), "{trouble:?}");
    assert_eq!(token(&session).await, "made-up-1");
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends() {
    let server = Canned::new(vec![
        granted("made-up-1", 6),
        // The first try fails: there is another one before the end.
        no(503, &["Vault is sealed"]),
        granted("made-up-1", 3600),
    ])
    .await;
    let session = by_jwt(&server);
    assert_eq!(token(&session).await, "made-up-1");
    // Nothing is asked for meanwhile.
    server.seen(3).await;
    let renew = "POST /v1/auth/token/renew-self";
    assert_eq!(server.lines()[1..], [renew, renew]);
    let is_renewed = async || {
        let held = session.held.lock().await;
        held.as_ref().is_some_and(Held::lives)
    };
    while !is_renewed().await {
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(token(&session).await, "made-up-1");
}

#[tokio::test]
async fn a_token_that_has_ended_is_replaced_by_a_new_login() {
    let server = Canned::new(vec![granted("made-up-1", 1), granted("made-up-2", 3600)]).await;
    let session = by_jwt(&server);
    assert_eq!(token(&session).await, "made-up-1");
    assert_eq!(token(&session).await, "made-up-2");
}

#[tokio::test]
async fn a_token_without_an_end_is_kept() {
    let server = Canned::new(vec![granted("made-up-1", 0)]).await;
    let session = by_jwt(&server);
    token(&session).await;
    assert_eq!(token(&session).await, "made-up-1");
}

#[tokio::test]
async fn a_forgotten_token_is_replaced_once_for_all() {
    let server = Canned::new(vec![granted("made-up-1", 60), granted("made-up-2", 60)]).await;
    let session = by_jwt(&server);
    let old = session.token().await.expect("a token");
    assert!(session.forget(&old).await);
    assert_eq!(token(&session).await, "made-up-2");
    // Somebody who still had the old one must not end the new one.
    assert!(session.forget(&old).await);
    assert_eq!(token(&session).await, "made-up-2");
}

#[tokio::test]
async fn what_keeps_a_token_alive_ends_with_the_session() {
    let server = Canned::new(vec![granted("made-up-1", 3600)]).await;
    let session = by_jwt(&server);
    token(&session).await;
    let held = session.held.lock().await.take().expect("a token");
    let keeper = held.keeper.as_ref().expect("a keeper").abort_handle();
    assert!(!keeper.is_finished());
    drop(held);
    tokio::task::yield_now().await;
    assert!(keeper.is_finished());
}
