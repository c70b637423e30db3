//! The ping of a scheduled job to a monitor that raises the alarm if no ping arrives: a dead man's
//! switch.

use std::{fmt, time::Duration};

use reqwest::{Client, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::timeout;
use url::Url;

use crate::{
    http_error::HttpError,
    net::{Net, NetConfigError, origin},
    retry::with_retries,
};

/// A monitor's URL. Its path usually contains a secret, so `Debug` and the errors show the server
/// alone.
#[derive(Clone)]
pub struct Ping(Url);

/// Why a ping was not delivered.
#[derive(Debug, thiserror::Error)]
pub enum PingError {
    /// The text is not a URL of a server.
    #[error("the monitor's address is not a URL")]
    InvalidUrl,
    /// The HTTP client cannot be built.
    #[error("cannot ping the monitor")]
    NoClient(#[source] NetConfigError),
    /// The server answered with a status other than success.
    #[error("{0} answered the ping with status {1}")]
    Status(String, u16),
    /// The server did not answer.
    #[error("{0} did not answer the ping")]
    NoResponse(String, #[source] HttpError),
}

/// The timeout of a ping with its retries: a cancelled job has little more time.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The timeout of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

impl Ping {
    /// Parses the monitor's URL.
    pub fn new(url: &SecretString) -> Result<Self, PingError> {
        let url = Url::parse(url.expose_secret().trim()).map_err(|_| PingError::InvalidUrl)?;
        if url.has_host() {
            Ok(Self(url))
        } else {
            Err(PingError::InvalidUrl)
        }
    }

    /// Sends a `GET` to the URL after a success, and to `URL/fail` after a failure. Retries a
    /// transient failure twice.
    pub async fn send(&self, success: bool) -> Result<(), PingError> {
        let url = if success {
            self.0.clone()
        } else {
            self.of_failure()
        };
        let net = Net {
            connect_timeout: REQUEST_TIMEOUT,
            request_timeout: REQUEST_TIMEOUT,
            ..Net::default()
        };
        let client = net
            .client(std::slice::from_ref(&url))
            .map_err(PingError::NoClient)?;
        let sent = with_retries(|| get(&client, &url), PingError::is_transient);
        let timed_out = |_| PingError::NoResponse(origin(&url), HttpError::Timeout);
        timeout(PING_TIMEOUT, sent).await.map_err(timed_out)?
    }

    /// The URL with `/fail` after its path, as services for scheduled jobs expect it.
    fn of_failure(&self) -> Url {
        let mut url = self.0.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("fail");
        }
        url
    }
}

impl fmt::Debug for Ping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ping({})", origin(&self.0))
    }
}

impl PingError {
    fn is_transient(&self) -> bool {
        match self {
            Self::NoResponse(_, error) => error.is_transient(),
            Self::Status(_, status) => is_transient_status(*status),
            Self::InvalidUrl | Self::NoClient(_) => false,
        }
    }
}

fn is_transient_status(status: u16) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS.as_u16() || status >= 500
}

async fn get(client: &Client, url: &Url) -> Result<(), PingError> {
    let sent = client.get(url.clone()).send().await;
    let reply =
        sent.map_err(|error| PingError::NoResponse(origin(url), HttpError::from(&error)))?;
    if reply.status().is_success() {
        Ok(())
    } else {
        Err(PingError::Status(origin(url), reply.status().as_u16()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canned::{Canned, response};

    fn ping(url: &str) -> Ping {
        Ping::new(&SecretString::from(url.to_owned())).expect("a URL")
    }

    fn reply(status: &str) -> String {
        response(status, "")
    }

    fn requests(server: &Canned) -> Vec<String> {
        let heads = server.requests().into_iter();
        let line = |head: String| head.lines().next().unwrap_or_default().to_owned();
        heads.map(line).collect()
    }

    #[tokio::test]
    async fn a_failure_has_its_own_path_before_the_query() {
        let server = Canned::new(vec![reply("200 OK"), reply("200 OK")]).await;
        let url = format!("{}/made-up/?rid=1", server.url);
        ping(&url).send(true).await.expect("a success");
        ping(&url).send(false).await.expect("a success");
        assert_eq!(
            requests(&server),
            [
                "GET /here/made-up/?rid=1 HTTP/1.1",
                "GET /here/made-up/fail?rid=1 HTTP/1.1"
            ]
        );
    }

    #[tokio::test]
    async fn a_transient_failure_is_retried_twice() {
        let busy = || reply("503 Service Unavailable");
        let server = Canned::new(vec![busy(), String::new(), reply("200 OK")]).await;
        ping(server.url.as_str())
            .send(true)
            .await
            .expect("a success");
        assert_eq!(requests(&server).len(), 3);

        let server = Canned::new(vec![busy(), busy(), busy(), reply("200 OK")]).await;
        let error = ping(server.url.as_str()).send(true).await;
        assert!(matches!(error, Err(PingError::Status(_, 503))), "{error:?}");
        assert_eq!(requests(&server).len(), 3);
    }

    #[tokio::test]
    async fn another_failure_is_not_retried() {
        let server = Canned::new(vec![reply("404 Not Found"), reply("200 OK")]).await;
        let error = ping(server.url.as_str()).send(true).await;
        assert!(matches!(error, Err(PingError::Status(_, 404))), "{error:?}");
        assert_eq!(requests(&server).len(), 1);
    }

    #[test]
    fn only_the_server_of_a_url_is_shown() {
        let ping = ping("https://me:made-up@monitor.example/made-up?made-up");
        assert_eq!(format!("{ping:?}"), "Ping(https://monitor.example)");
        for bad in ["", "made-up", "mailto:made-up", "file:///made-up"] {
            let error = Ping::new(&SecretString::from(bad.to_owned())).expect_err(bad);
            assert!(!format!("{error} {error:?}").contains("made-up"), "{error}");
        }
    }
}
