use std::error::Error;

use super::*;
use crate::canned::{Canned, response};

const JWT: &str = "made-up-head.made-up-claims.made-up-signature";

fn github(server: &Canned) -> JobToken {
    JobToken::GitHub {
        url: format!("{}?api-version=2.0", server.url),
        token: "made-up-request-token\n".into(),
    }
}

fn variable(value: Option<&str>) -> JobToken {
    JobToken::Variable {
        name: "CI_TOKEN".into(),
        value: value.map(Into::into),
    }
}

/// Returns everything that an error and its causes display.
fn full_text(error: &JobTokenError) -> String {
    let mut text = format!("{error} {error:?}");
    let mut below = error.source();
    while let Some(error) = below {
        text = format!("{text} {error} {error:?}");
        below = error.source();
    }
    assert!(!text.contains("made-up"), "{text}");
    text
}

#[tokio::test]
async fn the_audience_is_requested_from_github() {
    let body = format!("{{\"count\":1,\"value\":\"{JWT}\"}}");
    let server = Canned::new(vec![response("200 OK", &body)]).await;
    let token = github(&server)
        .fetch(Some("https://vault.example/?x&y"))
        .await;
    assert_eq!(token.expect("a token").expose_secret(), JWT);
    let requests = server.requests();
    let head = requests[0].to_lowercase();
    let expected = "get /here?api-version=2.0&audience=https%3a%2f%2fvault.example%2f%3fx%26y http";
    assert!(head.starts_with(expected), "{head}");
    assert!(
        head.contains("authorization: bearer made-up-request-token\r\n"),
        "{head}"
    );
}

#[tokio::test]
async fn an_oversized_response_is_not_read() {
    let body = format!("{{\"value\":\"{}\"}}", "x".repeat(1 << 20));
    let server = Canned::new(vec![response("200 OK", &body)]).await;
    let error = github(&server).fetch(None).await.expect_err("too long");
    assert!(full_text(&error).contains("more than 65536 bytes"));
    assert!(!error.is_transient());
}

#[tokio::test]
async fn without_an_audience_github_sets_its_default() {
    let body = format!("{{\"value\":\"{JWT}\"}}");
    let server = Canned::new(vec![response("200 OK", &body)]).await;
    github(&server).fetch(None).await.expect("a token");
    assert!(server.requests()[0].starts_with("GET /here?api-version=2.0 HTTP"));
}

#[tokio::test]
async fn a_token_request_is_retried() {
    let body = format!("{{\"value\":\"{JWT}\"}}");
    let server = Canned::new(vec![
        response("503 Service Unavailable", ""),
        String::new(),
        response("200 OK", &body),
    ])
    .await;
    github(&server).fetch(None).await.expect("a token");
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn errors_do_not_quote_github() {
    let refused = response("403 Forbidden", "{\"message\":\"made-up-request-token\"}");
    for (reply, expected) in [
        (
            refused,
            "GitHub answered the request for an OIDC token with status 403",
        ),
        (
            response("200 OK", "{\"value\":\"made-up-token-of-another-sort\"}"),
            "GitHub's response does not contain a JWT",
        ),
        (
            response("200 OK", "{\"token\":\"made-up\"}"),
            "GitHub's response to the request for an OIDC token is malformed",
        ),
    ] {
        let server = Canned::new(vec![reply]).await;
        let error = github(&server).fetch(None).await.expect_err(expected);
        assert!(full_text(&error).starts_with(expected), "{error}");
        assert_eq!(server.requests().len(), 1);
    }
    let invalid_url = JobToken::GitHub {
        url: "made-up".into(),
        token: "made-up".into(),
    };
    let error = invalid_url.fetch(None).await.expect_err("no URL");
    assert!(full_text(&error).starts_with("ACTIONS_ID_TOKEN_REQUEST_URL is not a URL"));
    let without_tls = JobToken::GitHub {
        url: "http://github.example/made-up".into(),
        token: "made-up".into(),
    };
    let error = without_tls.fetch(None).await.expect_err("no TLS");
    assert!(full_text(&error).contains("http://github.example requires TLS"));
}

#[tokio::test]
async fn the_error_names_the_missing_permission() {
    let error = JobToken::NotPermitted.fetch(None).await.expect_err("none");
    assert!(error.to_string().contains("id-token"), "{error}");
}

#[tokio::test]
async fn the_newline_of_a_variable_or_file_is_removed() {
    let line = format!("{JWT}\r\n");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("token");
    std::fs::write(&path, &line).expect("a file");
    for source in [variable(Some(&line)), JobToken::File(path)] {
        let token = source.fetch(Some("ignored")).await.expect("a token");
        assert_eq!(token.expose_secret(), JWT);
        assert!(!format!("{source:?}").contains("made-up"));
    }
}

#[tokio::test]
async fn errors_do_not_quote_an_invalid_token() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("token");
    std::fs::write(&path, format!("made.up.{}", "x".repeat(70_000))).expect("a file");
    for (source, expected) in [
        (
            variable(None),
            "the environment variable CI_TOKEN is not set",
        ),
        (
            variable(Some(" \n")),
            "the environment variable CI_TOKEN is not set",
        ),
        (variable(Some("made-up")), "CI_TOKEN does not contain a JWT"),
        (
            variable(Some("made-up..x")),
            "CI_TOKEN does not contain a JWT",
        ),
        (
            variable(Some("made-up.a b.x")),
            "CI_TOKEN does not contain a JWT",
        ),
        (JobToken::File(path), "/"),
        (
            JobToken::File("/no/such/file".into()),
            "cannot read /no/such/file",
        ),
    ] {
        let error = source.fetch(None).await.expect_err(expected);
        assert!(full_text(&error).starts_with(expected), "{error}");
        assert!(!error.is_transient());
    }
}
