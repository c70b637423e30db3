//! The library's requests, sent by a client that has an end to what it reads: the library's own
//! takes whatever a server sends into memory, twice.

use async_trait::async_trait;
use authferry_http::{Silence, read_body};
use http::{Request, Response};
use reqwest::Client as Http;
use rustify::{Endpoint, client::Client, endpoint::EndpointResult as Answer, errors::ClientError};
use vaultrs::api::{AuthInfo, EndpointMiddleware, EndpointResult};

use super::Failure;

/// The longest answer that is read, in bytes: a value of the largest size, of which JSON may escape
/// each character, and what stands around it.
const MAX_ANSWER: usize = 2 * crate::store::MAX_LEN + (64 << 10);

/// One server, with one token.
pub(super) struct Api {
    pub(super) http: Http,
    pub(super) base: String,
    pub(super) middle: EndpointMiddleware,
}

impl Api {
    /// Returns what stands in the answer.
    pub(super) async fn result<E: Endpoint>(&self, endpoint: E) -> Result<E::Response, Failure> {
        let answer: EndpointResult<E::Response> = self.send_to(endpoint).await?.wrap()?;
        answer.data.ok_or(Failure::Unintelligible)
    }

    /// Returns the token that was granted.
    pub(super) async fn grant<E: Endpoint<Response = ()>>(
        &self,
        endpoint: E,
    ) -> Result<AuthInfo, Failure> {
        let answer: EndpointResult<()> = self.send_to(endpoint).await?.wrap()?;
        answer.auth.ok_or(Failure::Unintelligible)
    }

    /// For an answer with nothing in it.
    pub(super) async fn nothing<E: Endpoint>(&self, endpoint: E) -> Result<(), Failure> {
        self.send_to(endpoint).await.map(drop)
    }

    async fn send_to<E: Endpoint>(&self, endpoint: E) -> Result<Answer<E::Response>, Failure> {
        Ok(endpoint.with_middleware(&self.middle).exec(self).await?)
    }
}

#[async_trait]
impl Client for Api {
    async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, ClientError> {
        let request = reqwest::Request::try_from(request)
            .map_err(|source| ClientError::ReqwestBuildError { source })?;
        let reply = self.http.execute(request).await;
        let reply = reply.map_err(|error| silent(Silence::from(&error)))?;
        let status = reply.status();
        let body = read_body(reply, MAX_ANSWER).await.map_err(silent)?;
        let mut response = Response::new(body);
        *response.status_mut() = status;
        Ok(response)
    }

    fn base(&self) -> &str {
        &self.base
    }
}

fn silent(silence: Silence) -> ClientError {
    ClientError::ResponseError {
        source: silence.into(),
    }
}
