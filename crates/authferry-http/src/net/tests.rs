use std::fs;

use super::*;
use crate::{
    HttpError,
    canned::{Canned, redirect, response},
};

fn url(text: &str) -> Url {
    text.parse().expect(text)
}

async fn get(client: &Client, url: &Url) -> Result<u16, HttpError> {
    let reply = client.get(url.clone()).send().await;
    reply
        .map(|reply| reply.status().as_u16())
        .map_err(|error| HttpError::from(&error))
}

#[test]
fn only_this_host_may_be_reached_without_tls() {
    let net = Net::default();
    for local in [
        "http://127.0.0.1:8200",
        "http://[::1]:1",
        "http://localhost",
    ] {
        net.client(&[url(local)]).expect(local);
    }
    for (remote, shown) in [
        ("http://vault.example:8200/x", "http://vault.example:8200"),
        ("http://user:made-up@vault.example", "http://vault.example"),
        ("http://localhost.example", "http://localhost.example"),
        ("ftp://127.0.0.1", "ftp://127.0.0.1"),
    ] {
        let error = net.client(&[url("http://127.0.0.1"), url(remote)]);
        let error = error.expect_err(remote);
        assert!(
            matches!(&error, NetConfigError::Plain(of) if of == shown),
            "{error:?}"
        );
    }
}

#[test]
fn roots_are_not_loaded_without_tls() {
    let net = Net {
        roots: Roots {
            file: Some("/no/such/file.pem".into()),
            directory: None,
        },
        ..Net::default()
    };
    net.client(&[url("http://127.0.0.1")]).expect("no TLS");
    let error = net.client(&[url("http://127.0.0.1"), url("https://127.0.0.1")]);
    let error = error.expect_err("no such file");
    assert!(error.to_string().contains("/no/such/file.pem"), "{error}");
}

#[test]
fn a_file_without_a_certificate_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ca.pem");
    let with = |file: Option<&std::path::Path>, directory: Option<&std::path::Path>| Roots {
        file: file.map(Into::into),
        directory: directory.map(Into::into),
    };
    fs::write(&file, "made-up, but no certificate\n").expect("a file");
    for roots in [with(Some(&file), None), with(None, Some(folder.path()))] {
        let error = roots.load().expect_err("nothing in it");
        assert!(matches!(error, NetConfigError::Empty(_)), "{error:?}");
        assert!(error.to_string().ends_with(&roots.to_string()), "{error}");
    }
    let pem = "-----BEGIN CERTIFICATE-----\nbWFkZS11cA==\n-----END CERTIFICATE-----\n";
    fs::write(&file, pem).expect("a file");
    let error = with(Some(&file), None).load().expect_err("no certificate");
    assert!(matches!(error, NetConfigError::Malformed(_)), "{error:?}");
}

#[tokio::test]
async fn only_a_redirect_to_a_configured_server_is_followed() {
    let leader = Canned::new(vec![response("200 OK", "")]).await;
    let standby = Canned::new(vec![
        redirect("307 Temporary Redirect", leader.url.as_str()),
        redirect("307 Temporary Redirect", leader.url.as_str()),
        redirect("302 Found", leader.url.as_str()),
    ])
    .await;
    let net = Net::default();
    let both = net
        .client(&[standby.url.clone(), leader.url.clone()])
        .expect("a client");
    assert_eq!(get(&both, &standby.url).await.ok(), Some(200));

    let one = net
        .client(std::slice::from_ref(&standby.url))
        .expect("a client");
    let error = get(&one, &standby.url)
        .await
        .expect_err("a redirect to another server");
    assert!(!error.may_have_acted());
    let shown = origin(&leader.url);
    assert!(
        matches!(&error, HttpError::ForeignRedirect(of) if of.starts_with(&shown)),
        "{error:?}"
    );

    // A 302 would change the request.
    assert_eq!(get(&both, &standby.url).await.ok(), Some(302));
    assert_eq!(leader.requests().len(), 1);
}

#[tokio::test]
async fn a_redirect_loop_ends() {
    let first = Canned::new(vec![redirect("307 Temporary Redirect", "/there"); 9]).await;
    let client = Net::default()
        .client(std::slice::from_ref(&first.url))
        .expect("a client");
    assert_eq!(get(&client, &first.url).await.ok(), Some(307));
    assert_eq!(first.requests().len(), 2);
}

#[tokio::test]
async fn a_request_that_was_not_sent_cannot_have_acted() {
    let server = Canned::new(vec![String::new()]).await;
    let client = Net::default()
        .client(std::slice::from_ref(&server.url))
        .expect("a client");
    let broken = get(&client, &server.url)
        .await
        .expect_err("a broken connection");
    assert!(broken.may_have_acted(), "{broken:?}");
    let gone = url("http://127.0.0.1:1/made-up-path");
    let not_connected = get(&client, &gone).await.expect_err("no listener");
    assert!(
        matches!(not_connected, HttpError::ConnectFailed(_)),
        "{not_connected:?}"
    );
    assert!(!not_connected.may_have_acted());
    assert!(
        !not_connected.to_string().contains("made-up"),
        "{not_connected}"
    );
    let unknown_host = url("https://no-such-host.invalid/");
    let client = Net::default()
        .client(std::slice::from_ref(&unknown_host))
        .expect("a client");
    let unresolved = get(&client, &unknown_host).await.expect_err("no such name");
    assert!(!unresolved.may_have_acted(), "{unresolved:?}");
}

#[tokio::test]
async fn a_request_that_times_out_may_have_acted() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("an address");
    let net = Net {
        request_timeout: Duration::from_millis(200),
        ..Net::default()
    };
    let here = url(&format!("http://{address}"));
    let client = net.client(std::slice::from_ref(&here)).expect("a client");
    let timeout = get(&client, &here).await.expect_err("no answer");
    assert!(matches!(timeout, HttpError::Timeout), "{timeout:?}");
    assert!(timeout.may_have_acted());
}

#[tokio::test]
async fn a_long_idle_connection_is_not_reused() {
    let keep = || "HTTP/1.1 204 No Content\r\n\r\n".to_owned();
    // The server accepts one request per connection, and closes none.
    let server = Canned::keeping(vec![keep(), keep()]).await;
    let net = Net {
        request_timeout: IDLE_TIMEOUT,
        ..Net::default()
    };
    let client = net
        .client(std::slice::from_ref(&server.url))
        .expect("no TLS");
    assert_eq!(get(&client, &server.url).await.expect("a response"), 204);
    tokio::time::sleep(IDLE_TIMEOUT + Duration::from_millis(100)).await;
    assert_eq!(get(&client, &server.url).await.expect("a response"), 204);
}
