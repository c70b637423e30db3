//! The HTTP requests, one function each.
//!
//! This module works around Azure's libraries:
//!
//! - All of them share our HTTP client. Otherwise each builds a client with a separate TLS setup.
//! - The client sends nothing to a server that the address and the settings do not name, even if a
//!   response redirects there.
//! - The libraries' retries are off: a retried write would create two versions.
//! - Their errors, which contain whole responses, do not leave this module.

mod failure;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use authferry_core::Secret;
use authferry_http::HttpError;
use azure_core::{
    credentials::TokenCredential,
    error::ErrorKind,
    http::{
        AsyncRawResponse, ClientOptions, Etag, HttpClient, Request, RequestContent, RetryOptions,
        Transport,
    },
    time::OffsetDateTime,
};
use azure_security_keyvault_secrets::{
    ResourceExt, SecretClient, SecretClientOptions,
    models::{
        Secret as SecretModel, SecretAttributes, SecretClientGetSecretOptions, SecretProperties,
        SetSecretParameters,
    },
};
use azure_storage_blob::{
    BlobClient, BlobClientOptions,
    models::{BlobClientDownloadOptions, BlobClientUploadOptions},
};
use futures::StreamExt;
use reqwest::Client;
use tokio::time::{Instant, sleep, sleep_until};
use url::{Host, Url};

pub(crate) use failure::{AzureFailure, ErrorResponse, TokenError};

/// The tags of a version.
pub(crate) type Tags = BTreeMap<String, String>;

/// The secrets of one vault.
pub(crate) struct KeyVault {
    client: SecretClient,
    retry_after: RetryAfter,
}

/// A version with its value.
#[derive(Debug)]
pub(crate) struct SecretVersion {
    pub(crate) version: String,
    pub(crate) value: Secret,
    pub(crate) tags: Tags,
    pub(crate) created: i64,
    pub(crate) content_type: Option<String>,
}

/// A version in a list.
#[derive(Debug)]
pub(crate) struct ListedVersion {
    pub(crate) version: String,
    pub(crate) tags: Tags,
    pub(crate) created: i64,
    pub(crate) enabled: bool,
}

/// One blob.
pub(crate) struct Blob {
    client: BlobClient,
    retry_after: RetryAfter,
}

/// The result of a compare-and-swap on a blob.
#[derive(Debug)]
pub(crate) enum BlobSwap {
    /// The blob has this new `ETag`.
    Replaced(String),
    /// The blob has changed.
    Changed,
}

/// The delays before the retries of an idempotent request.
const RETRY_DELAYS: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(800)];

/// The longest response in bytes. A secret has 25 KB, a page of versions some 200.
const MAX_RESPONSE_BYTES: usize = 1 << 20;

/// The longest `Retry-After` that we honor; a longer one counts as this.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(20);

impl KeyVault {
    pub(crate) fn new(
        url: &Url,
        transport: &Transport,
        credential: Arc<dyn TokenCredential>,
    ) -> Result<Self, AzureFailure> {
        let options = SecretClientOptions {
            client_options: client_options(transport),
            // A server on this host has no domain that a token's resource could name.
            verify_challenge_resource: Some(!is_this_host(url)),
            ..SecretClientOptions::default()
        };
        let client = SecretClient::new(url.as_str(), credential, Some(options))?;
        Ok(Self {
            client,
            retry_after: RetryAfter::default(),
        })
    }

    /// Returns the newest or the given version. `None` if it does not exist.
    pub(crate) async fn get(
        &self,
        name: &str,
        version: Option<&str>,
    ) -> Result<Option<SecretVersion>, AzureFailure> {
        let found = self
            .retry_after
            .with_retries(|| async {
                let options = SecretClientGetSecretOptions {
                    secret_version: version.map(ToOwned::to_owned),
                    ..SecretClientGetSecretOptions::default()
                };
                let reply = self.client.get_secret(name, Some(options)).await?;
                Ok(reply.into_model()?)
            })
            .await;
        match found {
            Ok(model) => parse_version(model).map(Some),
            Err(failure) if failure.is_response(404, "SecretNotFound") => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Returns all versions, and whether they came in one page.
    pub(crate) async fn list(
        &self,
        name: &str,
    ) -> Result<(Vec<ListedVersion>, bool), AzureFailure> {
        self.retry_after
            .with_retries(|| async {
                let found = self.client.list_secret_properties_versions(name, None)?;
                let mut pages = found.into_pages();
                let (mut list, mut count) = (Vec::new(), 0);
                while let Some(page) = pages.next().await {
                    let page = page?.into_model()?;
                    count += 1;
                    for properties in page.value {
                        list.push(parse_listed(properties)?);
                    }
                }
                Ok((list, count <= 1))
            })
            .await
    }

    /// Adds a version and returns its name. Sends the request once.
    pub(crate) async fn put(
        &self,
        name: &str,
        value: &str,
        tags: Tags,
        content_type: Option<String>,
    ) -> Result<String, AzureFailure> {
        self.retry_after
            .send_once(async {
                let parameters = SetSecretParameters {
                    value: Some(value.to_owned()),
                    tags: Some(tags.into_iter().collect()),
                    content_type,
                    secret_attributes: None,
                };
                let reply = self.client.set_secret(name, parameters.try_into()?, None);
                let model: SecretModel = reply.await?.into_model()?;
                model
                    .resource_id()?
                    .version
                    .ok_or(AzureFailure::Unintelligible)
            })
            .await
    }
}

impl Blob {
    pub(crate) fn new(
        url: Url,
        transport: &Transport,
        credential: Arc<dyn TokenCredential>,
    ) -> Result<Self, AzureFailure> {
        let options = BlobClientOptions {
            client_options: client_options(transport),
            ..BlobClientOptions::default()
        };
        let client = BlobClient::new(url, Some(credential), Some(options))?;
        Ok(Self {
            client,
            retry_after: RetryAfter::default(),
        })
    }

    /// Returns the `ETag` and the content of the blob.
    pub(crate) async fn get(&self) -> Result<Option<(String, Vec<u8>)>, AzureFailure> {
        let found = self
            .retry_after
            .with_retries(|| async {
                let options = BlobClientDownloadOptions::default();
                let found = self.client.download(Some(options)).await?;
                let etag = found.properties.etag.ok_or(AzureFailure::Unintelligible)?;
                let bytes = found.body.collect().await?;
                Ok((etag.to_string(), bytes.to_vec()))
            })
            .await;
        match found {
            Ok(found) => Ok(Some(found)),
            Err(failure) if failure.is_response(404, "BlobNotFound") => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Replaces the blob if it still has this `ETag`; creates it if `etag` is `None`. Sends the
    /// request once.
    pub(crate) async fn replace(
        &self,
        etag: Option<&str>,
        bytes: Vec<u8>,
    ) -> Result<BlobSwap, AzureFailure> {
        let replaced = self
            .retry_after
            .send_once(async {
                let mut options = BlobClientUploadOptions {
                    blob_content_type: Some("application/json".to_owned()),
                    ..BlobClientUploadOptions::default()
                };
                match etag {
                    Some(etag) => options.if_match = Some(Etag::from(etag)),
                    None => options.if_none_match = Some(Etag::from("*")),
                }
                let content = RequestContent::from(bytes);
                let done = self.client.upload(content, Some(options)).await?;
                Ok(done.etag.ok_or(AzureFailure::Unintelligible)?.to_string())
            })
            .await;
        match replaced {
            Ok(etag) => Ok(BlobSwap::Replaced(etag)),
            // The 409 occurs in a race of two creations.
            Err(failure)
                if failure.is_response(412, "ConditionNotMet")
                    || failure.is_response(409, "BlobAlreadyExists") =>
            {
                Ok(BlobSwap::Changed)
            }
            // The blob was deleted since it was read.
            Err(failure) if etag.is_some() && failure.is_response(404, "BlobNotFound") => {
                Ok(BlobSwap::Changed)
            }
            Err(failure) => Err(failure),
        }
    }
}

/// Returns the transport of all requests, which reaches only `servers`.
pub(crate) fn transport(client: Client, servers: &[Url]) -> Transport {
    let servers = servers.iter().map(origin).collect();
    Transport::new(Arc::new(AllowedServers { client, servers }))
}

/// Returns the libraries' options: our HTTP client, and no retries.
pub(crate) fn client_options(transport: &Transport) -> ClientOptions {
    ClientOptions {
        transport: Some(transport.clone()),
        retry: RetryOptions::none(),
        ..ClientOptions::default()
    }
}

/// An HTTP client that reaches only the given servers.
struct AllowedServers {
    client: Client,
    servers: Vec<String>,
}

impl fmt::Debug for AllowedServers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AllowedServers({:?})", self.servers)
    }
}

#[async_trait]
impl HttpClient for AllowedServers {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let to = origin(request.url());
        if self.servers.contains(&to) {
            self.client.execute_request(request).await.map(limit_body)
        } else {
            let unknown = failure::UnknownServer(to);
            Err(azure_core::Error::new(ErrorKind::Other, unknown))
        }
    }
}

/// Limits the length of a response, because the libraries read the whole response into memory.
fn limit_body(reply: AsyncRawResponse) -> AsyncRawResponse {
    let (status, headers, body) = reply.deconstruct();
    let mut left = MAX_RESPONSE_BYTES;
    let body = body.map(move |chunk| {
        let chunk = chunk?;
        let too_long = || {
            let too_long = HttpError::TooLong(MAX_RESPONSE_BYTES);
            azure_core::Error::new(ErrorKind::Other, too_long)
        };
        left = left.checked_sub(chunk.len()).ok_or_else(too_long)?;
        Ok(chunk)
    });
    AsyncRawResponse::new(status, headers, Box::pin(body))
}

/// Sends requests and honors the server's `Retry-After`.
#[derive(Default)]
struct RetryAfter {
    until: Mutex<Option<Instant>>,
}

impl RetryAfter {
    async fn send_once<T>(
        &self,
        request: impl Future<Output = Result<T, AzureFailure>>,
    ) -> Result<T, AzureFailure> {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = until {
            sleep_until(until).await;
        }
        let reply = request.await;
        if let Err(AzureFailure::ErrorResponse(answer)) = &reply {
            let delay = answer.retry_after.map(|delay| delay.min(MAX_RETRY_AFTER));
            let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
            *until = delay.and_then(|delay| Instant::now().checked_add(delay));
        }
        reply
    }

    /// Sends an idempotent request, with retries after a transient failure.
    async fn with_retries<T, F>(&self, mut request: impl FnMut() -> F) -> Result<T, AzureFailure>
    where
        F: Future<Output = Result<T, AzureFailure>>,
    {
        let mut delays = RETRY_DELAYS.iter();
        loop {
            match self.send_once(request()).await {
                Err(failure) if failure.is_transient() => match delays.next() {
                    Some(delay) => sleep(*delay).await,
                    None => return Err(failure),
                },
                reply => return reply,
            }
        }
    }
}

fn parse_version(model: SecretModel) -> Result<SecretVersion, AzureFailure> {
    let version = model.resource_id()?.version;
    Ok(SecretVersion {
        version: version.ok_or(AzureFailure::Unintelligible)?,
        created: created(model.attributes.as_ref()),
        tags: tags_of(model.tags),
        content_type: model.content_type,
        value: Secret::new(
            model
                .value
                .ok_or(AzureFailure::Unintelligible)?
                .into_bytes(),
        ),
    })
}

fn parse_listed(properties: SecretProperties) -> Result<ListedVersion, AzureFailure> {
    let version = properties.resource_id()?.version;
    let attributes = properties.attributes;
    Ok(ListedVersion {
        version: version.ok_or(AzureFailure::Unintelligible)?,
        created: created(attributes.as_ref()),
        enabled: attributes.and_then(|it| it.enabled).unwrap_or(true),
        tags: tags_of(properties.tags),
    })
}

fn created(attributes: Option<&SecretAttributes>) -> i64 {
    let created = attributes.and_then(|attributes| attributes.created);
    created.map_or(0, OffsetDateTime::unix_timestamp)
}

fn tags_of(tags: Option<HashMap<String, String>>) -> Tags {
    tags.unwrap_or_default().into_iter().collect()
}

fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

pub(crate) fn is_this_host(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use azure_core::http::{StatusCode, headers::Headers};

    use super::*;

    #[tokio::test]
    async fn a_response_that_is_too_long_is_not_read() {
        let read = async |len: usize| {
            let body = vec![b'x'; len];
            let reply = AsyncRawResponse::from_bytes(StatusCode::Ok, Headers::new(), body);
            let body = limit_body(reply).into_body().collect().await;
            body.map(|body| body.len()).map_err(AzureFailure::from)
        };
        assert_eq!(
            read(MAX_RESPONSE_BYTES).await.expect("fits"),
            MAX_RESPONSE_BYTES
        );
        let failure = read(MAX_RESPONSE_BYTES + 1).await.expect_err("too long");
        let too_long = matches!(
            failure,
            AzureFailure::Silent(HttpError::TooLong(MAX_RESPONSE_BYTES))
        );
        assert!(too_long && !failure.is_transient(), "{failure:?}");
    }
}
