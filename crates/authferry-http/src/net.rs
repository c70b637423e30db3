//! The client, and what it trusts.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use reqwest::{Client, StatusCode, redirect};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_native_certs::{CertificateResult, load_certs_from_paths, load_native_certs};
use url::{Host, Url};

/// How servers are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Net {
    /// Whom a server's certificate has to come from.
    pub roots: Roots,
    /// How long it may take to reach a server: its name, the connection and TLS.
    pub connect: Duration,
    /// How long a request may take with all that belongs to it.
    pub whole: Duration,
}

impl Default for Net {
    fn default() -> Self {
        Self {
            roots: Roots::default(),
            connect: Duration::from_secs(10),
            whole: Duration::from_secs(30),
        }
    }
}

/// Certificates to trust; with neither set, the system's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    /// A file of PEM certificates.
    pub file: Option<PathBuf>,
    /// A folder of such files.
    pub directory: Option<PathBuf>,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// Neither `https`, nor `http` on this host.
    #[error("{0} is not spoken to without TLS: what is sent there is secret")]
    Plain(String),
    /// A certificate file or folder cannot be read.
    #[error("the trusted certificates cannot be read: {0}")]
    Unreadable(String),
    /// There are no certificates where they should be.
    #[error("there is no trusted certificate in {0}")]
    Empty(String),
    /// Something that was found is no certificate.
    #[error("a trusted certificate makes no sense: {0}")]
    Malformed(#[source] rustls::Error),
    /// The library says no, to a proxy's address above all.
    #[error("no connections can be made")]
    Library(#[source] reqwest::Error),
}

/// For how long an idle connection is used again. A server closes one after 5 seconds (Node) or later
/// (nginx 75 s), and a write that meets the close has no known outcome.
const IDLE: Duration = Duration::from_secs(3);

impl Net {
    /// Builds a client that speaks to `servers`, and to nobody else that they may point to.
    pub fn client(&self, servers: &[Url]) -> Result<Client, Unusable> {
        if let Some(plain) = servers.iter().find(|server| !is_guarded(server)) {
            return Err(Unusable::Plain(origin(plain)));
        }
        let by_tls = servers.iter().any(|server| server.scheme() == "https");
        let roots = if by_tls {
            self.roots.load()?
        } else {
            RootCertStore::empty()
        };
        let mut client = Client::builder()
            .tls_backend_preconfigured(tls(roots))
            .connect_timeout(self.connect)
            .timeout(self.whole)
            .pool_idle_timeout(IDLE)
            .retry(reqwest::retry::never())
            .redirect(within(servers));
        if servers.iter().all(is_this_host) {
            client = client.no_proxy();
        }
        client.build().map_err(Unusable::Library)
    }
}

impl Roots {
    fn load(&self) -> Result<RootCertStore, Unusable> {
        let named = self.file.is_some() || self.directory.is_some();
        let CertificateResult { certs, errors, .. } = if named {
            load_certs_from_paths(self.file.as_deref(), self.directory.as_deref())
        } else {
            load_native_certs()
        };
        let mut roots = RootCertStore::empty();
        if named {
            if let Some(error) = errors.first() {
                return Err(Unusable::Unreadable(error.to_string()));
            }
            for cert in certs {
                roots.add(cert).map_err(Unusable::Malformed)?;
            }
        } else {
            // Among the system's many there is always an odd one.
            roots.add_parsable_certificates(certs);
        }
        if roots.is_empty() {
            // The system's own list is asked for in many places; the first trouble tells most.
            let why = errors.first().map(ToString::to_string);
            return Err(Unusable::Empty(why.unwrap_or_else(|| self.to_string())));
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
            (None, None) => f.write_str("the system's store"),
        }
    }
}

/// Why a redirect was not followed.
#[derive(Debug, thiserror::Error)]
#[error("{0}, which is none of the servers that were named")]
pub(crate) struct Elsewhere(String);

/// Follows a redirect that keeps the request as it is, to another one of `servers`.
fn within(servers: &[Url]) -> redirect::Policy {
    let servers: Vec<_> = servers.iter().map(origin).collect();
    redirect::Policy::custom(move |attempt| {
        let kept = [
            StatusCode::TEMPORARY_REDIRECT,
            StatusCode::PERMANENT_REDIRECT,
        ];
        let to = origin(attempt.url());
        if !servers.contains(&to) {
            attempt.error(Elsewhere(to))
        } else if kept.contains(&attempt.status()) && attempt.previous().len() <= servers.len() {
            attempt.follow()
        } else {
            attempt.stop()
        }
    })
}

fn tls(roots: RootCertStore) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has what each version of TLS needs")
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Returns the part of an address that names the server. What stands before an `@` is not
/// part of it.
pub(crate) fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

fn is_guarded(server: &Url) -> bool {
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
