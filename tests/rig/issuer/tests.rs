//! The endpoint for jobs, called by a minimal client.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use serde_json::Value;

use super::*;

#[test]
fn only_the_job_gets_a_token_for_its_audience() {
    let issuer = Issuer::start();
    let [(_, url), (_, bearer)] = issuer.allow_fetch(github_claims("acme/app"));

    let (status, body) = get(&format!("{url}&audience=vault.example"), &bearer);
    assert_eq!(status, 200);
    let token = body["value"].as_str().expect("a token");
    assert_eq!(issuer.fetched(), [token]);
    let claims = claims(token);
    assert_eq!(claims["aud"], "vault.example");
    assert_eq!(claims["iss"], issuer.url());
    assert_eq!(claims["repository"], "acme/app");

    let (_, body) = get(&url, &bearer);
    let token = body["value"].as_str().expect("a token");
    assert_eq!(self::claims(token)["aud"], "https://github.com/acme");

    for (url, bearer) in [
        (url.as_str(), "something"),
        (url.as_str(), ""),
        (url.split_once('?').expect("a query").0, bearer.as_str()),
    ] {
        assert_eq!(get(url, bearer).0, 401, "{url}");
    }
    issuer.fail(Some(503));
    assert_eq!(get(&url, &bearer).0, 503);
    issuer.fail(None);
    assert_eq!(get(&url, &bearer).0, 200);
    assert_eq!(issuer.fetched().len(), 3);
}

fn get(url: &str, bearer: &str) -> (u16, Value) {
    let url = url.strip_prefix("http://").expect("plain HTTP");
    let (host, path) = url.split_once('/').expect("a path");
    let mut stream = TcpStream::connect(host).expect("an issuer");
    write!(
        stream,
        "GET /{path} HTTP/1.0\r\nHost: {host}\r\nAuthorization: bearer {bearer}\r\n\r\n"
    )
    .expect("an issuer");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("a reply");
    let status = reply.split(' ').nth(1).and_then(|it| it.parse().ok());
    let (_, body) = reply.split_once("\r\n\r\n").expect("a body");
    (
        status.expect("a status"),
        serde_json::from_str(body).unwrap_or_default(),
    )
}

fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).expect("three parts");
    let payload = URL_SAFE_NO_PAD.decode(payload).expect("base64");
    serde_json::from_slice(&payload).expect("JSON")
}
