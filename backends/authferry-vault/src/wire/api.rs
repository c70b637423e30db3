//! Sends the library's requests with a client that limits the length of a response. The
//! library's client reads a response of any length into memory, twice.

use async_trait::async_trait;
use authferry_http::{HttpError, read_body};
use http::{Request, Response};
use reqwest::Client as Http;
use rustify::{
    Endpoint, client::Client, endpoint::EndpointResult as RawResult, errors::ClientError,
};
use vaultrs::api::{AuthInfo, EndpointMiddleware, EndpointResult};

use super::VaultFailure;

/// The longest response in bytes: a value of maximum length, in which JSON may escape each
/// character, plus the fields around it.
const MAX_RESPONSE_BYTES: usize = 2 * crate::store::MAX_LEN + (64 << 10);

/// A client for one server and one token.
pub(super) struct Api {
    pub(super) http: Http,
    pub(super) base: String,
    pub(super) middle: EndpointMiddleware,
}

impl Api {
    /// Sends a request and returns the data of the response.
    pub(super) async fn result<E: Endpoint>(
        &self,
        endpoint: E,
    ) -> Result<E::Response, VaultFailure> {
        let result: EndpointResult<E::Response> = self.send_to(endpoint).await?.wrap()?;
        result.data.ok_or(VaultFailure::Unintelligible)
    }

    /// Sends a request and returns the issued token.
    pub(super) async fn grant<E: Endpoint<Response = ()>>(
        &self,
        endpoint: E,
    ) -> Result<AuthInfo, VaultFailure> {
        let result: EndpointResult<()> = self.send_to(endpoint).await?.wrap()?;
        result.auth.ok_or(VaultFailure::Unintelligible)
    }

    /// Sends a request whose response has no body.
    pub(super) async fn empty<E: Endpoint>(&self, endpoint: E) -> Result<(), VaultFailure> {
        self.send_to(endpoint).await.map(drop)
    }

    async fn send_to<E: Endpoint>(
        &self,
        endpoint: E,
    ) -> Result<RawResult<E::Response>, VaultFailure> {
        Ok(endpoint.with_middleware(&self.middle).exec(self).await?)
    }
}

#[async_trait]
impl Client for Api {
    async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, ClientError> {
        let request = reqwest::Request::try_from(request)
            .map_err(|source| ClientError::ReqwestBuildError { source })?;
        let reply = self.http.execute(request).await;
        let reply = reply.map_err(|error| silent(HttpError::from(&error)))?;
        let status = reply.status();
        let body = read_body(reply, MAX_RESPONSE_BYTES).await.map_err(silent)?;
        let mut response = Response::new(body);
        *response.status_mut() = status;
        Ok(response)
    }

    fn base(&self) -> &str {
        &self.base
    }
}

fn silent(silence: HttpError) -> ClientError {
    ClientError::ResponseError {
        source: silence.into(),
    }
}
