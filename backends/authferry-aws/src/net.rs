//! How AWS is reached: the certificates to trust, the proxy, and never without TLS.
//!
//! The SDK's own client takes neither `AWS_CA_BUNDLE` nor a proxy from the environment.

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

/// What of the settings makes no sense, whatever the state of AWS.
#[derive(Debug, thiserror::Error)]
pub enum Misfit {
    /// The file of certificates cannot be read.
    #[error("cannot read AWS_CA_BUNDLE, {path}")]
    Unreadable {
        /// Which file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// It holds something else.
    #[error("AWS_CA_BUNDLE, {0}, holds something else than certificates, or none")]
    NoCertificates(String),
    /// Not even a part of it is repeated: it may hold a password.
    #[error("HTTPS_PROXY is no address of a proxy")]
    Proxy,
}

/// Returns the one client that all of the SDK shares.
pub(crate) fn client(settings: &Settings) -> Result<SharedHttpClient, Misfit> {
    let context = TlsContext::builder().with_trust_store(trusted(settings)?);
    // Nothing in it is asked of the system yet.
    let context = context
        .build()
        .map_err(|_| Misfit::NoCertificates(String::new()))?;
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
        SharedHttpConnector::new(Guarded(client.http_connector(settings, components)))
    }))
}

/// The SDK takes what it is given for certificates, and panics if it is something else.
fn trusted(settings: &Settings) -> Result<TrustStore, Misfit> {
    let Some(path) = &settings.ca_bundle else {
        return Ok(TrustStore::default());
    };
    let shown = path.display().to_string();
    let pem = fs::read(path).map_err(|source| Misfit::Unreadable {
        path: shown.clone(),
        source,
    })?;
    let mut roots = RootCertStore::empty();
    let all_fit = CertificateDer::pem_slice_iter(&pem)
        .all(|certificate| certificate.is_ok_and(|certificate| roots.add(certificate).is_ok()));
    if !all_fit || roots.is_empty() {
        return Err(Misfit::NoCertificates(shown));
    }
    Ok(TrustStore::empty().with_pem_certificate(pem))
}

/// What is not encrypted never goes through a proxy: that is a server on this host, or the
/// host's own credentials.
fn proxy(settings: &Settings) -> Result<ProxyConfig, Misfit> {
    let Some(proxy) = &settings.proxy else {
        return Ok(ProxyConfig::disabled());
    };
    let proxy = proxy.expose_secret();
    let proxy = if proxy.contains("://") {
        ProxyConfig::https(proxy)
    } else {
        ProxyConfig::https(format!("http://{proxy}"))
    };
    let proxy = proxy.map_err(|_| Misfit::Proxy)?;
    Ok(match &settings.no_proxy {
        Some(rules) => proxy.no_proxy(rules),
        None => proxy,
    })
}

/// Lets nothing leave without TLS, unless it is for this host: an answer can be the login, or
/// what opens the store. Whatever of the SDK sends something goes through here, also where it
/// looks for credentials by itself.
#[derive(Debug)]
struct Guarded(SharedHttpConnector);

impl HttpConnector for Guarded {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        match guard(request.uri()) {
            Ok(()) => {
                let reply = self.0.call(request);
                HttpConnectorFuture::new(async { reply.await.map(bounded) })
            }
            Err(plain) => HttpConnectorFuture::ready(Err(ConnectorError::user(plain.into()))),
        }
    }
}

/// The longest answer that is read, in bytes. A secret has at most 64 KB.
pub(crate) const MAX_ANSWER: usize = 1 << 20;

/// Ends an answer that is longer than any that makes sense: the SDK takes all of it into memory.
fn bounded(mut reply: HttpResponse) -> HttpResponse {
    let body = Limited::new(reply.take_body(), MAX_ANSWER);
    *reply.body_mut() = SdkBody::from_body_1_x(body);
    reply
}

/// A server that would have been spoken to without TLS.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not spoken to without TLS: what is sent there is secret")]
pub(crate) struct Plain(String);

fn guard(uri: &str) -> Result<(), Plain> {
    let Some((scheme, rest)) = uri.split_once("://") else {
        return Err(Plain("an address without a scheme".to_owned()));
    };
    let server = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // What stands before it may be a password.
    let server = server.rsplit('@').next().unwrap_or_default();
    let address = server.parse().map(|address: SocketAddr| address.ip());
    let host = server.trim_start_matches('[').trim_end_matches(']');
    let address = address.or_else(|_| host.parse::<IpAddr>());
    let is_this_host = address
        .is_ok_and(|address| address.is_loopback() || is_of_the_host(address))
        || server.split(':').next() == Some("localhost");
    if scheme == "https" || is_this_host {
        Ok(())
    } else {
        Err(Plain(format!("{scheme}://{server}")))
    }
}

/// Where an instance or a container asks its host for credentials: no packet to there leaves it.
fn is_of_the_host(address: IpAddr) -> bool {
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

    fn with_bundle(text: &str) -> Result<TrustStore, Misfit> {
        let folder = tempfile::tempdir().expect("room");
        let path = folder.path().join("ca.pem");
        fs::write(&path, text).expect("room");
        trusted(&Settings {
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
    fn a_bundle_holds_certificates_and_nothing_else() {
        let good = certificate();
        with_bundle(&good).expect("a certificate");
        with_bundle(&format!("# ours\n{good}{}", certificate())).expect("two certificates");
        let cut = &good[..good.len() / 2];
        let garbage = "-----BEGIN CERTIFICATE-----\nbWFkZS11cA==\n-----END CERTIFICATE-----\n";
        for bad in ["", "made-up", cut, garbage, &format!("{good}{garbage}")] {
            let error = with_bundle(bad).expect_err(bad);
            assert!(matches!(error, Misfit::NoCertificates(_)), "{bad}: {error}");
        }
        let nowhere = Settings {
            ca_bundle: Some(PathBuf::from("/no/such/file")),
            ..Settings::default()
        };
        assert!(matches!(trusted(&nowhere), Err(Misfit::Unreadable { .. })));
    }

    #[tokio::test]
    async fn an_answer_that_is_too_long_is_not_read() {
        let read = async |len: usize| {
            let body = SdkBody::from("x".repeat(len));
            let reply = HttpResponse::new(200.try_into().expect("a status"), body);
            let body = bounded(reply).into_body().collect().await;
            body.map(|body| body.to_bytes().len())
        };
        assert_eq!(read(MAX_ANSWER).await.expect("fits"), MAX_ANSWER);
        assert!(read(MAX_ANSWER + 1).await.is_err());
    }

    #[test]
    fn nothing_leaves_without_tls_but_for_this_host() {
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
            guard(good).expect(good);
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
            let error = guard(bad).expect_err(bad);
            assert!(!error.to_string().contains("made-up"), "{error}");
        }
    }

    #[test]
    fn a_proxy_is_taken_as_others_take_it_and_never_shown() {
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
