//! TLS in front of the endpoints.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpStream as Socket},
    os::fd::AsFd,
    sync::Arc,
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::pki::Pki;

/// Accepts connections and completes their TLS handshake.
pub(super) struct TlsListener {
    address: SocketAddr,
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
}

impl TlsListener {
    /// Listens on a bound socket. Needs a runtime.
    pub(super) fn new(listener: std::net::TcpListener, pki: &Pki) -> io::Result<Self> {
        let acceptor = TlsAcceptor::from(Arc::new(config(pki)?));
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let (hand_out, ready) = mpsc::channel(64);
        tokio::spawn(async move {
            loop {
                let Ok((stream, peer)) = listener.accept().await else {
                    continue;
                };
                let (acceptor, hand_out) = (acceptor.clone(), hand_out.clone());
                // In its own task: a client that connects and stays silent must not block the
                // others.
                tokio::spawn(async move {
                    drop(stream.set_nodelay(true));
                    // The handshake fails for a client that does not trust us.
                    if let Ok(stream) = acceptor.accept(stream).await {
                        drop(hand_out.send((stream, peer)).await);
                    }
                });
            }
        });
        Ok(Self { address, ready })
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        self.ready.recv().await.expect("the task ends with us")
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

fn config(pki: &Pki) -> io::Result<ServerConfig> {
    let certificate = CertificateDer::from_pem_file(&pki.certificate).map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_file(&pki.key).map_err(io::Error::other)?;
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|config| {
            config
                .with_no_client_auth()
                .with_single_cert(vec![certificate], key)
        })
        .map_err(io::Error::other)
}

/// A second handle on the connection of a request.
#[derive(Clone)]
pub(super) struct Connection(Arc<Socket>);

impl Connection {
    /// Closes the connection before an answer is sent.
    pub(super) fn sever(&self) {
        // It may have ended already.
        drop(self.0.shutdown(Shutdown::Both));
    }
}

impl Connected<IncomingStream<'_, TlsListener>> for Connection {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        let (socket, _) = stream.io().get_ref();
        let handle = socket.as_fd().try_clone_to_owned();
        Self(Arc::new(handle.expect("a free file descriptor").into()))
    }
}
