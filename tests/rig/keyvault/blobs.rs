//! The way to the blobs of Azurite, which itself lets everybody do everything.

use std::sync::Arc;

use axum::{
    body::Bytes,
    http::{HeaderMap, HeaderName, Method, StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::Azurite;

/// The resource for which a token has to be.
pub(super) const RESOURCE: &str = "https://storage.azure.com";

/// Leads requests on to Azurite as they are.
pub(super) struct Blobs {
    url: String,
    client: reqwest::Client,
    _azurite: Arc<Azurite>,
}

/// What belongs to one connection, and not to what goes over it.
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

/// An answer that says no, in the shape that the blob service gives it.
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
