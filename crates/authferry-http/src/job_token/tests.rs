use std::error::Error;

use super::*;
use crate::canned::{Canned, answer};

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

/// All that an error can be made to say.
fn told(error: &NoJobToken) -> String {
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
async fn github_is_asked_for_the_audience() {
    let body = format!("{{\"count\":1,\"value\":\"{JWT}\"}}");
    let server = Canned::new(vec![answer("200 OK", &body)]).await;
    let token = github(&server)
        .fetch(Some("https://vault.example/?x&y"))
        .await;
    assert_eq!(token.expect("a token").expose_secret(), JWT);
    let requests = server.requests();
    let head = requests[0].to_lowercase();
    let wanted = "get /here?api-version=2.0&audience=https%3a%2f%2fvault.example%2f%3fx%26y http";
    assert!(head.starts_with(wanted), "{head}");
    assert!(
        head.contains("authorization: bearer made-up-request-token\r\n"),
        "{head}"
    );
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_not_read() {
    let body = format!("{{\"value\":\"{}\"}}", "x".repeat(1 << 20));
    let server = Canned::new(vec![answer("200 OK", &body)]).await;
    let error = github(&server).fetch(None).await.expect_err("too long");
    assert!(told(&error).contains("more than 65536 bytes"));
    assert!(!error.is_transient());
}

#[tokio::test]
async fn github_names_the_audience_if_nobody_does() {
    let body = format!("{{\"value\":\"{JWT}\"}}");
    let server = Canned::new(vec![answer("200 OK", &body)]).await;
    github(&server).fetch(None).await.expect("a token");
    assert!(server.requests()[0].starts_with("GET /here?api-version=2.0 HTTP"));
}

#[tokio::test]
async fn a_request_that_changes_nothing_is_made_again() {
    let body = format!("{{\"value\":\"{JWT}\"}}");
    let server = Canned::new(vec![
        answer("503 Service Unavailable", ""),
        String::new(),
        answer("200 OK", &body),
    ])
    .await;
    github(&server).fetch(None).await.expect("a token");
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn what_github_says_otherwise_is_told_without_its_words() {
    let refused = answer("403 Forbidden", "{\"message\":\"made-up-request-token\"}");
    for (reply, wanted) in [
        (
            refused,
            "GitHub answers the request for an OIDC token with status 403",
        ),
        (
            answer("200 OK", "{\"value\":\"made-up-token-of-another-sort\"}"),
            "what GitHub's answer holds is no JWT",
        ),
        (
            answer("200 OK", "{\"token\":\"made-up\"}"),
            "GitHub's answer to the request for an OIDC token makes no sense",
        ),
    ] {
        let server = Canned::new(vec![reply]).await;
        let error = github(&server).fetch(None).await.expect_err(wanted);
        assert!(told(&error).starts_with(wanted), "{error}");
        assert_eq!(server.requests().len(), 1);
    }
    let nowhere = JobToken::GitHub {
        url: "made-up".into(),
        token: "made-up".into(),
    };
    let error = nowhere.fetch(None).await.expect_err("no address");
    assert!(told(&error).starts_with("ACTIONS_ID_TOKEN_REQUEST_URL is no address"));
    let in_the_clear = JobToken::GitHub {
        url: "http://github.example/made-up".into(),
        token: "made-up".into(),
    };
    let error = in_the_clear.fetch(None).await.expect_err("no TLS");
    assert!(told(&error).contains("http://github.example is not spoken to without TLS"));
}

#[tokio::test]
async fn a_job_without_the_permission_is_told_which() {
    let error = JobToken::NotPermitted.fetch(None).await.expect_err("none");
    assert!(error.to_string().contains("id-token"), "{error}");
}

#[tokio::test]
async fn a_variable_and_a_file_lose_their_line_end() {
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
async fn what_is_no_token_is_told_without_its_text() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("token");
    std::fs::write(&path, format!("made.up.{}", "x".repeat(70_000))).expect("a file");
    for (source, wanted) in [
        (variable(None), "the variable CI_TOKEN is not set"),
        (variable(Some(" \n")), "the variable CI_TOKEN is not set"),
        (variable(Some("made-up")), "what CI_TOKEN holds is no JWT"),
        (
            variable(Some("made-up..x")),
            "what CI_TOKEN holds is no JWT",
        ),
        (
            variable(Some("made-up.a b.x")),
            "what CI_TOKEN holds is no JWT",
        ),
        (JobToken::File(path), "what "),
        (
            JobToken::File("/no/such/file".into()),
            "cannot read /no/such/file",
        ),
    ] {
        let error = source.fetch(None).await.expect_err(wanted);
        assert!(told(&error).starts_with(wanted), "{error}");
        assert!(!error.is_transient());
    }
}
