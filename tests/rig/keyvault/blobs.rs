//! The proxy to the blobs of Azurite. Azurite allows every request, so the stand-in checks the
//! right before it forwards one.

use std::sync::Arc;

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderName, Method, StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::Azurite;

/// The audience that a token must have.
pub(super) const RESOURCE: &str = "https://storage.azure.com";

/// Forwards requests to Azurite unchanged.
pub(super) struct Blobs {
    url: String,
    client: reqwest::Client,
    _azurite: Arc<Azurite>,
}

/// Headers that belong to one connection and must not be forwarded.
const OF_THE_CONNECTION: [HeaderName; 4] = [
    header::HOST,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
];

impl Blobs {
    pub(super) fn of(azurite: &Arc<Azurite>) -> Self {
        Self {
            url: azurite.url(),
            client: azurite.client(),
            _azurite: Arc::clone(azurite),
        }
    }

    pub(super) async fn ask(
        &self,
        method: Method,
        target: &str,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Response {
        for name in &OF_THE_CONNECTION {
            headers.remove(name);
        }
        let url = format!("{}{target}", self.url);
        let request = self.client.request(method, url).headers(headers);
        let answer = request.body(body).send().await;
        let answer = answer.expect("Azurite, which is on this host");
        let (status, mut headers) = (answer.status(), answer.headers().clone());
        for name in &OF_THE_CONNECTION {
            headers.remove(name);
        }
        let body = answer
            .bytes()
            .await
            .expect("Azurite, which is on this host");
        (status, headers, body).into_response()
    }
}

/// A refusal in the format of the blob service.
pub(super) fn failure(status: u16, code: &'static str, message: &str) -> Response {
    let status = StatusCode::from_u16(status).expect("an HTTP status");
    let body = format!(
        "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    );
    let headers = [
        ("x-ms-error-code", code),
        ("content-type", "application/xml"),
    ];
    (status, headers, body).into_response()
}
