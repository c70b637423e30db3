//! A certificate authority for one test.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

#[cfg(feature = "azure-kv")]
use std::sync::{LazyLock, Mutex};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

#[cfg(feature = "azure-kv")]
use crate::scoped_process::ScopedProcess;

/// The files of an authority, and of the one server that it certifies: this host.
#[derive(Clone, Debug)]
pub(crate) struct Pki {
    pub(crate) authority: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Pki {
    /// Returns the authority that all stand-ins of this process share, so that a client that trusts
    /// it trusts them all.
    #[cfg(feature = "azure-kv")]
    pub(crate) fn shared() -> &'static Self {
        static SHARED: LazyLock<(Mutex<ScopedProcess>, Pki)> = LazyLock::new(|| {
            let process = ScopedProcess::new("authority-").expect("a folder");
            let pki = Pki::set_up(process.folder()).expect("room");
            (Mutex::new(process), pki)
        });
        let (_, pki) = &*SHARED;
        pki
    }

    /// Creates the authority and the server's certificate in a folder.
    pub(crate) fn set_up(folder: &Path) -> io::Result<Self> {
        let pki = Self {
            authority: folder.join("ca.pem"),
            certificate: folder.join("tls.pem"),
            key: folder.join("tls.key"),
        };
        let [authority, certificate, key] = make().map_err(io::Error::other)?;
        fs::write(&pki.authority, authority)?;
        fs::write(&pki.certificate, certificate)?;
        fs::write(&pki.key, key)?;
        Ok(pki)
    }
}

fn make() -> Result<[String; 3], rcgen::Error> {
    let mut authority = CertificateParams::default();
    authority
        .distinguished_name
        .push(DnType::CommonName, "authority of a test");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority_key = KeyPair::generate()?;
    let authority_certificate = authority.self_signed(&authority_key)?;
    let issuer = Issuer::new(authority, authority_key);

    let mut server = CertificateParams::new(vec!["localhost".to_owned()])?;
    let host = SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST));
    server.subject_alt_names.push(host);
    server
        .distinguished_name
        .push(DnType::CommonName, "server of a test");
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let server_key = KeyPair::generate()?;
    let server_certificate = server.signed_by(&server_key, &issuer)?;
    Ok([
        authority_certificate.pem(),
        server_certificate.pem(),
        server_key.serialize_pem(),
    ])
}
