//! The requests, each in one narrow function.
//!
//! What the libraries below leave to their callers is done here and in the modules around:
//! one client of ours carries all of them, where each would build its own with TLS and
//! certificates of its own; nothing is sent to a server that was not named, also where an
//! answer points to one; nothing is sent again by itself, for a write that is would be two;
//! and their errors, which hold whole answers, do not leave this module.

mod failure;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use authferry_core::Secret;
use authferry_http::Silence;
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
        Secret as Shown, SecretAttributes, SecretClientGetSecretOptions, SecretProperties,
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

pub(crate) use failure::{Answer, Failure, NoToken};

/// The tags of a version.
pub(crate) type Tags = BTreeMap<String, String>;

/// The secrets of one vault.
pub(crate) struct Vault {
    client: SecretClient,
    calm: Calm,
}

/// A version with its value.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) version: String,
    pub(crate) value: Secret,
    pub(crate) tags: Tags,
    pub(crate) created: i64,
    pub(crate) content_type: Option<String>,
}

/// A version as a list shows it.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) version: String,
    pub(crate) tags: Tags,
    pub(crate) created: i64,
    pub(crate) enabled: bool,
}

/// One blob.
pub(crate) struct Blob {
    client: BlobClient,
    calm: Calm,
}

/// What came of a blob's replacement.
#[derive(Debug)]
pub(crate) enum Replaced {
    /// It has this `ETag` now.
    As(String),
    /// It is not what it was.
    Moved,
}

/// The pauses before what changes nothing is asked for again.
const PAUSES: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(800)];

/// The longest answer that is read, in bytes. A secret has 25 KB, a page of versions some 200.
const MAX_ANSWER: usize = 1 << 20;

/// The longest that a server may ask us to leave it alone; beyond that the caller is told.
const LONGEST_REST: Duration = Duration::from_secs(20);

impl Vault {
    pub(crate) fn new(
        url: &Url,
        transport: &Transport,
        credential: Arc<dyn TokenCredential>,
    ) -> Result<Self, Failure> {
        let options = SecretClientOptions {
            client_options: client_options(transport),
            // No server on this host has a domain for which its tokens could be.
            verify_challenge_resource: Some(!is_this_host(url)),
            ..SecretClientOptions::default()
        };
        let client = SecretClient::new(url.as_str(), credential, Some(options))?;
        Ok(Self {
            client,
            calm: Calm::default(),
        })
    }

    /// Returns the newest version, or the one of this name. `None` if there is none.
    pub(crate) async fn get(
        &self,
        name: &str,
        version: Option<&str>,
    ) -> Result<Option<Kept>, Failure> {
        let found = self
            .calm
            .patiently(|| async {
                let options = SecretClientGetSecretOptions {
                    secret_version: version.map(ToOwned::to_owned),
                    ..SecretClientGetSecretOptions::default()
                };
                let reply = self.client.get_secret(name, Some(options)).await?;
                Ok(reply.into_model()?)
            })
            .await;
        match found {
            Ok(shown) => kept(shown).map(Some),
            Err(failure) if failure.is_answer(404, "SecretNotFound") => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Returns all versions, and whether they came on one page.
    pub(crate) async fn list(&self, name: &str) -> Result<(Vec<Listed>, bool), Failure> {
        self.calm
            .patiently(|| async {
                let found = self.client.list_secret_properties_versions(name, None)?;
                let mut pages = found.into_pages();
                let (mut list, mut count) = (Vec::new(), 0);
                while let Some(page) = pages.next().await {
                    let page = page?.into_model()?;
                    count += 1;
                    for properties in page.value {
                        list.push(listed(properties)?);
                    }
                }
                Ok((list, count <= 1))
            })
            .await
    }

    /// Adds a version, and returns its name. Sent once.
    pub(crate) async fn put(
        &self,
        name: &str,
        value: &str,
        tags: Tags,
        content_type: Option<String>,
    ) -> Result<String, Failure> {
        self.calm
            .once(async {
                let parameters = SetSecretParameters {
                    value: Some(value.to_owned()),
                    tags: Some(tags.into_iter().collect()),
                    content_type,
                    secret_attributes: None,
                };
                let reply = self.client.set_secret(name, parameters.try_into()?, None);
                let shown: Shown = reply.await?.into_model()?;
                shown.resource_id()?.version.ok_or(Failure::Unintelligible)
            })
            .await
    }
}

impl Blob {
    pub(crate) fn new(
        url: Url,
        transport: &Transport,
        credential: Arc<dyn TokenCredential>,
    ) -> Result<Self, Failure> {
        let options = BlobClientOptions {
            client_options: client_options(transport),
            ..BlobClientOptions::default()
        };
        let client = BlobClient::new(url, Some(credential), Some(options))?;
        Ok(Self {
            client,
            calm: Calm::default(),
        })
    }

    /// Returns what is there, with its `ETag`.
    pub(crate) async fn get(&self) -> Result<Option<(String, Vec<u8>)>, Failure> {
        let found = self
            .calm
            .patiently(|| async {
                let options = BlobClientDownloadOptions::default();
                let found = self.client.download(Some(options)).await?;
                let etag = found.properties.etag.ok_or(Failure::Unintelligible)?;
                let bytes = found.body.collect().await?;
                Ok((etag.to_string(), bytes.to_vec()))
            })
            .await;
        match found {
            Ok(found) => Ok(Some(found)),
            Err(failure) if failure.is_answer(404, "BlobNotFound") => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Replaces what is there if it still has this `ETag`, or makes it if it had none. Sent once.
    pub(crate) async fn replace(
        &self,
        etag: Option<&str>,
        bytes: Vec<u8>,
    ) -> Result<Replaced, Failure> {
        let replaced = self
            .calm
            .once(async {
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
                Ok(done.etag.ok_or(Failure::Unintelligible)?.to_string())
            })
            .await;
        match replaced {
            Ok(etag) => Ok(Replaced::As(etag)),
            // The last one is told where somebody else is just making it.
            Err(failure)
                if failure.is_answer(412, "ConditionNotMet")
                    || failure.is_answer(409, "BlobAlreadyExists") =>
            {
                Ok(Replaced::Moved)
            }
            // It was deleted since.
            Err(failure) if etag.is_some() && failure.is_answer(404, "BlobNotFound") => {
                Ok(Replaced::Moved)
            }
            Err(failure) => Err(failure),
        }
    }
}

/// One client for all requests, which sends nothing to anybody who was not named.
pub(crate) fn transport(client: Client, servers: &[Url]) -> Transport {
    let servers = servers.iter().map(origin).collect();
    Transport::new(Arc::new(Guarded { client, servers }))
}

/// What the libraries are told: our client, and no second attempt.
pub(crate) fn client_options(transport: &Transport) -> ClientOptions {
    ClientOptions {
        transport: Some(transport.clone()),
        retry: RetryOptions::none(),
        ..ClientOptions::default()
    }
}

struct Guarded {
    client: Client,
    servers: Vec<String>,
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guarded({:?})", self.servers)
    }
}

#[async_trait]
impl HttpClient for Guarded {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let to = origin(request.url());
        if self.servers.contains(&to) {
            self.client.execute_request(request).await.map(bounded)
        } else {
            let elsewhere = failure::Elsewhere(to);
            Err(azure_core::Error::new(ErrorKind::Other, elsewhere))
        }
    }
}

/// Ends an answer that is longer than any that makes sense: the libraries take all of it into
/// memory.
fn bounded(reply: AsyncRawResponse) -> AsyncRawResponse {
    let (status, headers, body) = reply.deconstruct();
    let mut left = MAX_ANSWER;
    let body = body.map(move |chunk| {
        let chunk = chunk?;
        let too_long = || {
            let too_long = Silence::TooLong(MAX_ANSWER);
            azure_core::Error::new(ErrorKind::Other, too_long)
        };
        left = left.checked_sub(chunk.len()).ok_or_else(too_long)?;
        Ok(chunk)
    });
    AsyncRawResponse::new(status, headers, Box::pin(body))
}

/// Leaves a server alone as long as it has asked for that.
#[derive(Default)]
struct Calm {
    until: Mutex<Option<Instant>>,
}

impl Calm {
    async fn once<T>(
        &self,
        request: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = until {
            sleep_until(until).await;
        }
        let reply = request.await;
        if let Err(Failure::Answer(answer)) = &reply {
            let rest = answer.retry_after.map(|rest| rest.min(LONGEST_REST));
            let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
            *until = rest.and_then(|rest| Instant::now().checked_add(rest));
        }
        reply
    }

    /// Asks for what changes nothing.
    async fn patiently<T, F>(&self, mut request: impl FnMut() -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut pauses = PAUSES.iter();
        loop {
            match self.once(request()).await {
                Err(failure) if failure.is_transient() => match pauses.next() {
                    Some(pause) => sleep(*pause).await,
                    None => return Err(failure),
                },
                reply => return reply,
            }
        }
    }
}

fn kept(shown: Shown) -> Result<Kept, Failure> {
    let version = shown.resource_id()?.version;
    Ok(Kept {
        version: version.ok_or(Failure::Unintelligible)?,
        created: created(shown.attributes.as_ref()),
        tags: tags_of(shown.tags),
        content_type: shown.content_type,
        value: Secret::new(shown.value.ok_or(Failure::Unintelligible)?.into_bytes()),
    })
}

fn listed(properties: SecretProperties) -> Result<Listed, Failure> {
    let version = properties.resource_id()?.version;
    let attributes = properties.attributes;
    Ok(Listed {
        version: version.ok_or(Failure::Unintelligible)?,
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
    async fn an_answer_that_is_too_long_is_not_read() {
        let read = async |len: usize| {
            let body = vec![b'x'; len];
            let reply = AsyncRawResponse::from_bytes(StatusCode::Ok, Headers::new(), body);
            let body = bounded(reply).into_body().collect().await;
            body.map(|body| body.len()).map_err(Failure::from)
        };
        assert_eq!(read(MAX_ANSWER).await.expect("fits"), MAX_ANSWER);
        let failure = read(MAX_ANSWER + 1).await.expect_err("too long");
        let too_long = matches!(failure, Failure::Silent(Silence::TooLong(MAX_ANSWER)));
        assert!(too_long && !failure.is_transient(), "{failure:?}");
    }
}
