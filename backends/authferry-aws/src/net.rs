//! How AWS is reached: the certificates to trust, and the proxy.
//!
//! The SDK's own client takes neither `AWS_CA_BUNDLE` nor a proxy from the environment.

use std::{fs, io};

use aws_smithy_http_client::{
    Builder,
    proxy::ProxyConfig,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use secrecy::ExposeSecret;

use crate::settings::Settings;

/// Why AWS cannot be reached, whatever its state.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoNet {
    #[error("cannot read AWS_CA_BUNDLE, {path}")]
    Unreadable { path: String, source: io::Error },
    #[error("AWS_CA_BUNDLE, {0}, holds something else than certificates, or none")]
    NoCertificates(String),
    /// Not even a part of it is repeated: it may hold a password.
    #[error("HTTPS_PROXY is no address of a proxy")]
    Proxy,
}

/// Returns the one client that all of the SDK shares.
pub(crate) fn client(settings: &Settings) -> Result<SharedHttpClient, NoNet> {
    let context = TlsContext::builder().with_trust_store(trusted(settings)?);
    // Nothing in it is asked of the system yet.
    let context = context
        .build()
        .map_err(|_| NoNet::NoCertificates(String::new()))?;
    let proxy = proxy(settings)?;
    Ok(
        Builder::new().build_with_connector_fn(move |connector, components| {
            let mut builder =
                aws_smithy_http_client::Connector::builder().proxy_config(proxy.clone());
            builder.set_connector_settings(connector.cloned());
            if let Some(components) = components {
                builder.set_sleep_impl(components.sleep_impl());
            }
            builder
                .tls_provider(Provider::Rustls(CryptoMode::Ring))
                .tls_context(context.clone())
                .build()
        }),
    )
}

/// The SDK takes what it is given for certificates, and panics if it is something else.
fn trusted(settings: &Settings) -> Result<TrustStore, NoNet> {
    let Some(path) = &settings.ca_bundle else {
        return Ok(TrustStore::default());
    };
    let shown = path.display().to_string();
    let pem = fs::read(path).map_err(|source| NoNet::Unreadable {
        path: shown.clone(),
        source,
    })?;
    let mut roots = RootCertStore::empty();
    let all_fit = CertificateDer::pem_slice_iter(&pem)
        .all(|certificate| certificate.is_ok_and(|certificate| roots.add(certificate).is_ok()));
    if !all_fit || roots.is_empty() {
        return Err(NoNet::NoCertificates(shown));
    }
    Ok(TrustStore::empty().with_pem_certificate(pem))
}

/// What is not encrypted never goes through a proxy: that is a server on this host, or the
/// host's own credentials.
fn proxy(settings: &Settings) -> Result<ProxyConfig, NoNet> {
    let Some(proxy) = &settings.proxy else {
        return Ok(ProxyConfig::disabled());
    };
    let proxy = proxy.expose_secret();
    let proxy = if proxy.contains("://") {
        ProxyConfig::https(proxy)
    } else {
        ProxyConfig::https(format!("http://{proxy}"))
    };
    let proxy = proxy.map_err(|_| NoNet::Proxy)?;
    Ok(match &settings.no_proxy {
        Some(rules) => proxy.no_proxy(rules),
        None => proxy,
    })
}
