//! The HTTP client: trusted certificates, the proxy, and TLS only.
//!
//! The SDK's default client reads neither `AWS_CA_BUNDLE` nor a proxy from the environment.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
};

use aws_smithy_http_client::{
    Builder,
    proxy::ProxyConfig,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::{
    http::{
        HttpClient, HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector,
        http_client_fn,
    },
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
};
use aws_smithy_types::body::SdkBody;
use http_body_util::Limited;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use secrecy::ExposeSecret;

use crate::settings::Settings;

/// An invalid setting, independent of the state of AWS.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file of certificates cannot be read.
    #[error("cannot read the AWS_CA_BUNDLE {path}")]
    Unreadable {
        /// Which file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The file has no certificates, or an invalid one.
    #[error("the AWS_CA_BUNDLE {0} contains no certificates, or an invalid one")]
    NoCertificates(String),
    /// An invalid proxy URL. The message does not repeat it: it may contain a password.
    #[error("HTTPS_PROXY is not the URL of a proxy")]
    Proxy,
}

/// Returns the HTTP client that the whole SDK shares.
pub(crate) fn client(settings: &Settings) -> Result<SharedHttpClient, ConfigError> {
    let context = TlsContext::builder().with_trust_store(trust_store(settings)?);
    // This does not read the system's certificates yet.
    let context = context
        .build()
        .map_err(|_| ConfigError::NoCertificates(String::new()))?;
    let proxy = proxy(settings)?;
    let client = Builder::new().build_with_connector_fn(move |connector, components| {
        let mut builder = aws_smithy_http_client::Connector::builder().proxy_config(proxy.clone());
        builder.set_connector_settings(connector.cloned());
        if let Some(components) = components {
            builder.set_sleep_impl(components.sleep_impl());
        }
        builder
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .tls_context(context.clone())
            .build()
    });
    Ok(http_client_fn(move |settings, components| {
        SharedHttpConnector::new(TlsOnly(client.http_connector(settings, components)))
    }))
}

/// Validates the certificates. The SDK panics on invalid ones.
fn trust_store(settings: &Settings) -> Result<TrustStore, ConfigError> {
    let Some(path) = &settings.ca_bundle else {
        return Ok(TrustStore::default());
    };
    let shown = path.display().to_string();
    let pem = fs::read(path).map_err(|source| ConfigError::Unreadable {
        path: shown.clone(),
        source,
    })?;
    let mut roots = RootCertStore::empty();
    let all_fit = CertificateDer::pem_slice_iter(&pem)
        .all(|certificate| certificate.is_ok_and(|certificate| roots.add(certificate).is_ok()));
    if !all_fit || roots.is_empty() {
        return Err(ConfigError::NoCertificates(shown));
    }
    Ok(TrustStore::empty().with_pem_certificate(pem))
}

/// Returns the proxy for HTTPS. Plain HTTP never uses a proxy: it is a server on this host, or the
/// host's endpoint for credentials.
fn proxy(settings: &Settings) -> Result<ProxyConfig, ConfigError> {
    let Some(proxy) = &settings.proxy else {
        return Ok(ProxyConfig::disabled());
    };
    let proxy = proxy.expose_secret();
    let proxy = if proxy.contains("://") {
        ProxyConfig::https(proxy)
    } else {
        ProxyConfig::https(format!("http://{proxy}"))
    };
    let proxy = proxy.map_err(|_| ConfigError::Proxy)?;
    Ok(match &settings.no_proxy {
        Some(rules) => proxy.no_proxy(rules),
        None => proxy,
    })
}

/// Rejects requests without TLS, except to this host: a response can contain the login or the
/// store's credentials. All requests of the SDK pass through this connector, also those for
/// credentials.
#[derive(Debug)]
struct TlsOnly(SharedHttpConnector);

impl HttpConnector for TlsOnly {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        match require_tls(request.uri()) {
            Ok(()) => {
                let reply = self.0.call(request);
                HttpConnectorFuture::new(async { reply.await.map(limit_body) })
            }
            Err(error) => HttpConnectorFuture::ready(Err(ConnectorError::user(error.into()))),
        }
    }
}

/// The longest response in bytes. A secret has at most 64 KB.
pub(crate) const MAX_RESPONSE_BYTES: usize = 1 << 20;

/// Limits the length of a response, because the SDK reads the whole response into memory.
fn limit_body(mut reply: HttpResponse) -> HttpResponse {
    let body = Limited::new(reply.take_body(), MAX_RESPONSE_BYTES);
    *reply.body_mut() = SdkBody::from_body_1_x(body);
    reply
}

/// A request without TLS.
#[derive(Debug, thiserror::Error)]
#[error("authferry sends no secrets to {0} without TLS")]
pub(crate) struct PlaintextError(String);

fn require_tls(uri: &str) -> Result<(), PlaintextError> {
    let Some((scheme, rest)) = uri.split_once("://") else {
        return Err(PlaintextError("a URL without a scheme".to_owned()));
    };
    let server = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // The part before the host may contain a password.
    let server = server.rsplit('@').next().unwrap_or_default();
    let address = server.parse().map(|address: SocketAddr| address.ip());
    let host = server.trim_start_matches('[').trim_end_matches(']');
    let address = address.or_else(|_| host.parse::<IpAddr>());
    let is_this_host = address
        .is_ok_and(|address| address.is_loopback() || is_credentials_endpoint(address))
        || server.split(':').next() == Some("localhost");
    if scheme == "https" || is_this_host {
        Ok(())
    } else {
        Err(PlaintextError(format!("{scheme}://{server}")))
    }
}

/// Returns whether the address is the credentials endpoint of an instance or a container. No packet
/// to it leaves the host.
fn is_credentials_endpoint(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.segments()[..7] == [0xfd00, 0xec2, 0, 0, 0, 0, 0],
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use http_body_util::BodyExt;
    use secrecy::SecretString;

    use super::*;

    fn with_bundle(text: &str) -> Result<TrustStore, ConfigError> {
        let folder = tempfile::tempdir().expect("a file");
        let path = folder.path().join("ca.pem");
        fs::write(&path, text).expect("a file");
        trust_store(&Settings {
            ca_bundle: Some(path),
            ..Settings::default()
        })
    }

    fn certificate() -> String {
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])
            .expect("a key")
            .cert
            .pem()
    }

    #[test]
    fn a_bundle_contains_only_certificates() {
        let good = certificate();
        with_bundle(&good).expect("a certificate");
        with_bundle(&format!("# ours\n{good}{}", certificate())).expect("two certificates");
        let cut = &good[..good.len() / 2];
        let garbage = "-----BEGIN CERTIFICATE-----\nbWFkZS11cA==\n-----END CERTIFICATE-----\n";
        for bad in ["", "made-up", cut, garbage, &format!("{good}{garbage}")] {
            let error = with_bundle(bad).expect_err(bad);
            assert!(
                matches!(error, ConfigError::NoCertificates(_)),
                "{bad}: {error}"
            );
        }
        let nowhere = Settings {
            ca_bundle: Some(PathBuf::from("/no/such/file")),
            ..Settings::default()
        };
        assert!(matches!(
            trust_store(&nowhere),
            Err(ConfigError::Unreadable { .. })
        ));
    }

    #[tokio::test]
    async fn a_response_that_is_too_long_is_not_read() {
        let read = async |len: usize| {
            let body = SdkBody::from("x".repeat(len));
            let reply = HttpResponse::new(200.try_into().expect("a status"), body);
            let body = limit_body(reply).into_body().collect().await;
            body.map(|body| body.to_bytes().len())
        };
        assert_eq!(
            read(MAX_RESPONSE_BYTES).await.expect("fits"),
            MAX_RESPONSE_BYTES
        );
        assert!(read(MAX_RESPONSE_BYTES + 1).await.is_err());
    }

    #[test]
    fn only_this_host_is_reached_without_tls() {
        for good in [
            "https://secretsmanager.eu-west-1.amazonaws.com/",
            "http://127.0.0.1:4566/",
            "http://127.0.0.1",
            "http://[::1]:4566/?x=y",
            "http://[::1]",
            "http://localhost:4566",
            "http://169.254.169.254/latest/meta-data/",
            "http://[fd00:ec2::23]/v1/credentials",
        ] {
            require_tls(good).expect(good);
        }
        for bad in [
            "http://secretsmanager.eu-west-1.amazonaws.com/",
            "http://localhost.example:4566/",
            "http://10.0.0.1:4566/",
            "http://[fd00:ec3::23]/",
            "http://127.0.0.1@10.0.0.1/",
            "http://made-up@example.com/",
            "ftp://example.com/",
            "/",
        ] {
            let error = require_tls(bad).expect_err(bad);
            assert!(!error.to_string().contains("made-up"), "{error}");
        }
    }

    #[test]
    fn a_proxy_url_may_omit_its_scheme_and_is_never_printed() {
        let settings = |proxy: &str| Settings {
            proxy: Some(SecretString::from(proxy)),
            ..Settings::default()
        };
        for good in [
            "http://proxy.example:3128",
            "proxy.example:3128",
            "http://me:made-up@proxy.example",
        ] {
            let settings = settings(good);
            proxy(&settings).expect(good);
            assert!(!format!("{settings:?}").contains("made-up"));
        }
        for bad in ["me:made-up@[", "ftp://made-up.example", "http://"] {
            let error = proxy(&settings(bad)).expect_err(bad);
            assert!(!format!("{error} {error:?}").contains("made-up"), "{error}");
        }
    }
}
