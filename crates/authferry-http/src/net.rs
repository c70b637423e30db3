//! The HTTP client and its root certificates.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use reqwest::{Client, StatusCode, redirect};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_native_certs::{CertificateResult, load_certs_from_paths, load_native_certs};
use url::{Host, Url};

/// How to connect to servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Net {
    /// The root certificates that a server's certificate must chain to.
    pub roots: Roots,
    /// The timeout of a connection: DNS, TCP and TLS.
    pub connect_timeout: Duration,
    /// The timeout of a request, from the connection to the end of the response.
    pub request_timeout: Duration,
}

impl Default for Net {
    fn default() -> Self {
        Self {
            roots: Roots::default(),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
        }
    }
}

/// Root certificates to trust; the system's if neither field is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    /// A file of PEM certificates.
    pub file: Option<PathBuf>,
    /// A folder of such files.
    pub directory: Option<PathBuf>,
}

/// Why the client cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum NetConfigError {
    /// The URL is neither `https`, nor `http` on this host.
    #[error("{0} requires TLS: requests to it contain credentials")]
    Plain(String),
    /// A certificate file or folder cannot be read.
    #[error("cannot read the trusted certificates: {0}")]
    Unreadable(String),
    /// The file, the folder or the system's store contains no certificate.
    #[error("no trusted certificate in {0}")]
    Empty(String),
    /// A certificate is malformed.
    #[error("a trusted certificate is malformed: {0}")]
    Malformed(#[source] rustls::Error),
    /// The HTTP library rejects the configuration, usually a proxy's address.
    #[error("cannot create the HTTP client")]
    Library(#[source] reqwest::Error),
}

/// How long an idle connection is reused. A server closes it after 5 seconds (Node) or later
/// (nginx 75 s), and a write that races with the close has an unknown outcome.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3);

impl Net {
    /// Builds a client for `servers`. It follows no redirect to another server.
    pub fn client(&self, servers: &[Url]) -> Result<Client, NetConfigError> {
        if let Some(plain) = servers
            .iter()
            .find(|server| !is_safe_for_credentials(server))
        {
            return Err(NetConfigError::Plain(origin(plain)));
        }
        let uses_tls = servers.iter().any(|server| server.scheme() == "https");
        let roots = if uses_tls {
            self.roots.load()?
        } else {
            RootCertStore::empty()
        };
        let mut client = Client::builder()
            .tls_backend_preconfigured(tls(roots))
            .connect_timeout(self.connect_timeout)
            .timeout(self.request_timeout)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .retry(reqwest::retry::never())
            .redirect(redirects_within(servers));
        if servers.iter().all(is_this_host) {
            client = client.no_proxy();
        }
        client.build().map_err(NetConfigError::Library)
    }
}

impl Roots {
    fn load(&self) -> Result<RootCertStore, NetConfigError> {
        let is_configured = self.file.is_some() || self.directory.is_some();
        let CertificateResult { certs, errors, .. } = if is_configured {
            load_certs_from_paths(self.file.as_deref(), self.directory.as_deref())
        } else {
            load_native_certs()
        };
        let mut roots = RootCertStore::empty();
        if is_configured {
            if let Some(error) = errors.first() {
                return Err(NetConfigError::Unreadable(error.to_string()));
            }
            for cert in certs {
                roots.add(cert).map_err(NetConfigError::Malformed)?;
            }
        } else {
            // The system's store often contains a malformed certificate: skip it.
            roots.add_parsable_certificates(certs);
        }
        if roots.is_empty() {
            // The system's store has many locations; the first error is the most useful.
            let why = errors.first().map(ToString::to_string);
            return Err(NetConfigError::Empty(
                why.unwrap_or_else(|| self.to_string()),
            ));
        }
        Ok(roots)
    }
}

impl fmt::Display for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, &self.directory) {
            (Some(file), Some(directory)) => {
                write!(f, "{} and {}", file.display(), directory.display())
            }
            (Some(path), None) | (None, Some(path)) => write!(f, "{}", path.display()),
            (None, None) => f.write_str("the system's certificate store"),
        }
    }
}

/// Why a redirect was not followed.
#[derive(Debug, thiserror::Error)]
#[error("{0}, which is not a configured server")]
pub(crate) struct RefusedRedirect(String);

/// Builds the redirect policy: follows only 307 and 308, which preserve method and body, only to
/// one of `servers`, and at most as often as there are servers.
fn redirects_within(servers: &[Url]) -> redirect::Policy {
    let servers: Vec<_> = servers.iter().map(origin).collect();
    redirect::Policy::custom(move |attempt| {
        let preserving = [
            StatusCode::TEMPORARY_REDIRECT,
            StatusCode::PERMANENT_REDIRECT,
        ];
        let to = origin(attempt.url());
        if !servers.contains(&to) {
            attempt.error(RefusedRedirect(to))
        } else if preserving.contains(&attempt.status())
            && attempt.previous().len() <= servers.len()
        {
            attempt.follow()
        } else {
            attempt.stop()
        }
    })
}

fn tls(roots: RootCertStore) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring supports each version of TLS")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Returns the origin of a URL: scheme, host and port, without a user or password.
pub(crate) fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

fn is_safe_for_credentials(server: &Url) -> bool {
    match server.scheme() {
        "https" => true,
        "http" => is_this_host(server),
        _ => false,
    }
}

fn is_this_host(server: &Url) -> bool {
    match server.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

#[cfg(test)]
mod tests;
